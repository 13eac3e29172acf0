"""Stated moments that are off, against the density and against draws; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Cauchy,
    Distribution,
    Exponential,
    LogNormal,
    MultivariateNormal,
    Normal,
    Pareto,
    Poisson,
    StudentT,
)

from harness.model import Model
from harness.mutants.mutant import Change, Mutant, NearMiss


def stating(name: str, edit: Callable[[Tensor], Tensor]) -> Change:
    """The change that replaces what the model states under `name` by edit(what it stated)."""
    return lambda model: {name: lambda: edit(model.methods[name]())}


def _nothing(model: Model) -> dict[str, Callable[..., Tensor]]:
    return {}


def _bits() -> Distribution:
    return Bernoulli(torch.linspace(0.1, 0.9, 40))


def _gaussian(d: int) -> Callable[[], Distribution]:
    def build() -> Distribution:
        factor = torch.tril(torch.cos(torch.arange(d * d, dtype=torch.float32).reshape(d, d))) / math.sqrt(d)
        return MultivariateNormal(torch.arange(d, dtype=torch.float32), factor @ factor.T + 0.5 * torch.eye(d))

    return build


def _nearly_singular() -> Distribution:
    return MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.9999], [0.9999, 1.0]]))


def _first_up(by: float) -> Callable[[Tensor], Tensor]:
    """The first coordinate's number changed by a factor."""

    def edit(value: Tensor) -> Tensor:
        changed = value.clone()
        changed.reshape(-1)[0] *= by
        return changed

    return edit


def _second_moved(by: float) -> Callable[[Tensor], Tensor]:
    def edit(value: Tensor) -> Tensor:
        changed = value.clone()
        changed.reshape(-1)[1] += by
        return changed

    return edit


def _uncorrelated(covariance: Tensor) -> Tensor:
    return torch.diag(covariance.diagonal())


def _lopsided(covariance: Tensor) -> Tensor:
    return torch.triu(covariance)


def _indefinite(covariance: Tensor) -> Tensor:
    changed = covariance.clone()
    changed[0, 1] = changed[1, 0] = 1.1 * float(covariance[0, 0])
    return changed


def _shrunken_draws(model: Model) -> dict[str, Callable[..., Tensor]]:
    def sample(n: int, *, generator: torch.Generator) -> Tensor:
        x = model.sample(n, generator=generator)
        return model.mean() + 0.95 * (x - model.mean())

    return {"sample": sample}


def _moved_draws(model: Model) -> dict[str, Callable[..., Tensor]]:
    return {"sample": lambda n, *, generator: model.sample(n, generator=generator) + 0.05}


EXACT_MEAN, EXACT_VARIANCE = "moments.mean_of_density", "moments.variance_of_density"
EXACT_COVARIANCE, COHERENT = "moments.covariance_of_density", "moments.covariance_is_coherent"
CLIPPED = "moments.clipped_variance_of_draws"
MEAN, VARIANCE, COVARIANCE = "moments.mean_of_draws", "moments.variance_of_draws", "moments.covariance_of_draws"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("mean_off", "mean + 0.05 sd", EXACT_MEAN, lambda: Normal(0.0, 1.0), stating("mean", lambda m: m + 0.05)),
    Mutant("rate_for_mean", "mean = rate", EXACT_MEAN, lambda: Exponential(2.0), stating("mean", torch.reciprocal)),
    Mutant("mean_nan", "mean is NaN", EXACT_MEAN, lambda: Normal(0.0, 1.0), stating("mean", lambda m: m * math.nan)),
    Mutant("mean_of_counts", "mean + 0.05 sd", EXACT_MEAN, lambda: Poisson(9.0), stating("mean", lambda m: m + 0.15)),
    Mutant(
        "variance_off",
        "variance x 1.01",
        EXACT_VARIANCE,
        lambda: Normal(0.0, 1.0),
        stating("variance", _first_up(1.01)),
    ),
    Mutant(
        "sd_for_variance", "variance = sd", EXACT_VARIANCE, lambda: Normal(1.0, 1e-3), stating("variance", torch.sqrt)
    ),
    Mutant(
        "infinite_variance",
        "inf for 3",
        EXACT_VARIANCE,
        lambda: StudentT(3.0),
        stating("variance", _first_up(math.inf)),
    ),
    Mutant("uncorrelated", "no covariance", EXACT_COVARIANCE, _gaussian(3), stating("covariance", _uncorrelated)),
    Mutant("lopsided", "the upper triangle only", COHERENT, _gaussian(3), stating("covariance", _lopsided)),
    Mutant("indefinite", "correlation above 1", COHERENT, _nearly_singular, stating("covariance", _indefinite)),
    Mutant("diagonal_off", "variance x 1.01", COHERENT, _gaussian(3), stating("variance", _first_up(1.01))),
    Mutant("mean_off_in_40d", "one mean + 0.05", MEAN, _bits, stating("mean", _second_moved(0.05))),
    Mutant("draws_moved", "draws + 0.05 sd", MEAN, lambda: Normal(0.0, 1.0), _moved_draws),
    Mutant("draws_shrunk", "draws x 0.95", VARIANCE, lambda: Normal(0.0, 1.0), _shrunken_draws),
    Mutant("heavy_draws_shrunk", "draws of t(3) x 0.95", CLIPPED, lambda: StudentT(3.0), _shrunken_draws),
    Mutant("heavier_draws_shrunk", "draws of Pareto(5/2) x 0.95", CLIPPED, lambda: Pareto(1.0, 2.5), _shrunken_draws),
    Mutant("variance_off_in_40d", "one variance x 1.2", VARIANCE, _bits, stating("variance", _first_up(1.2))),
    Mutant(
        "pair_forgotten", "one correlation + 0.1", COVARIANCE, _gaussian(16), stating("covariance", _second_moved(0.1))
    ),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("no_mean", "Cauchy's mean is NaN", EXACT_MEAN, lambda: Cauchy(0.0, 1.0), _nothing),
    NearMiss("infinite_mean", "Pareto(1/2)", EXACT_MEAN, lambda: Pareto(1.0, 0.5), _nothing),
    NearMiss("far_mean", "1e3 sd from 0, in float32", EXACT_MEAN, lambda: Normal(1000.0, 1.0), _nothing),
    NearMiss("impossible", "P(1) = 0", EXACT_MEAN, lambda: Bernoulli(torch.tensor(0.0)), _nothing),
    NearMiss("infinite", "t with 2 degrees of freedom", EXACT_VARIANCE, lambda: StudentT(2.0), _nothing),
    NearMiss("infinite_one_sided", "Pareto(3/2)", EXACT_VARIANCE, lambda: Pareto(1.0, 1.5), _nothing),
    NearMiss("large_counts", "Poisson(1e4) in float32", EXACT_VARIANCE, lambda: Poisson(1e4), _nothing),
    NearMiss("nearly_singular", "correlation 0.9999", EXACT_COVARIANCE, _nearly_singular, _nothing),
    NearMiss("nearly_singular", "correlation 0.9999", COHERENT, _nearly_singular, _nothing),
    NearMiss("skewed", "exponential draws", MEAN, lambda: Exponential(1e3), _nothing),
    NearMiss("many_bits", "40 bits", VARIANCE, _bits, _nothing),
    NearMiss("infinite_fourth_moment", "t with 3 degrees of freedom", CLIPPED, lambda: StudentT(3.0), _nothing),
    NearMiss("barely_a_variance", "t with 2.1 degrees of freedom", CLIPPED, lambda: StudentT(2.1), _nothing),
    NearMiss("one_sided_tail", "Pareto(5/2)", CLIPPED, lambda: Pareto(1.0, 2.5), _nothing),
    NearMiss("all_in_the_tail", "log-normal, sigma = 3", CLIPPED, lambda: LogNormal(0.0, 3.0), _nothing),
    NearMiss("correlated", "16 dimensions", COVARIANCE, _gaussian(16), _nothing),
)
