"""Stated entropies, distribution functions, quantiles and divergences that are off; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Cauchy,
    Distribution,
    Exponential,
    Gamma,
    Laplace,
    MultivariateNormal,
    Normal,
    Uniform,
)

from harness.model import Model
from harness.mutants.moments import stating
from harness.mutants.mutant import Change, Mutant, NearMiss
from harness.mutants.planted import Normal as Gaussian

LOG_2PI = math.log(2 * math.pi)


def _nothing(model: Model) -> dict[str, Callable[..., Tensor]]:
    return {}


def _up(value: Tensor) -> Tensor:
    return value + 0.05


def _in_bits(value: Tensor) -> Tensor:
    return value / math.log(2)


def _gaussian(d: int) -> Callable[[], Distribution]:
    def build() -> Distribution:
        factor = torch.tril(torch.cos(torch.arange(d * d, dtype=torch.float32).reshape(d, d))) / math.sqrt(d)
        return MultivariateNormal(torch.arange(d, dtype=torch.float32), factor @ factor.T + 0.5 * torch.eye(d))

    return build


class Bare:
    """A correlated Gaussian in d dimensions that states its entropy and no moments."""

    def __init__(self, d: int):
        law = Gaussian(d, 1.0, rho=0.4)
        self.sample, self.log_prob, self.entropy = law.sample, law.log_prob, law.entropy


class Fitted:
    """A Gaussian with independent coordinates that learns its parameters and states divergences to its like."""

    def __init__(self, mean: Tensor, sd: Tensor):
        self.location, self.sd = mean, sd

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.location + self.sd * torch.randn(n, len(self.sd), generator=generator, dtype=self.sd.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        return (-0.5 * ((x - self.location) / self.sd).square() - self.sd.log() - LOG_2PI / 2).sum(1)

    def entropy(self) -> Tensor:
        return (self.sd.log() + (1 + LOG_2PI) / 2).sum()

    def fit(self, x: Tensor) -> Fitted:
        return Fitted(x.mean(0), x.std(0, correction=0))

    def kl(self, other: Fitted) -> Tensor:
        """1/2 sum (r - 1 - log r + shift^2), for the ratio r of the variances and the shift in sd of the other."""
        ratio = (self.sd / other.sd).square()
        shift = (self.location - other.location) / other.sd
        return 0.5 * (ratio - 1 - ratio.log() + shift.square()).sum()


class FittedBits:
    """Independent bits that learn their probabilities and state divergences to their like."""

    def __init__(self, p: Tensor):
        self.p = p

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return (torch.rand(n, len(self.p), generator=generator, dtype=self.p.dtype) < self.p).to(self.p.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.where(x == 1, self.p.log(), torch.where(x == 0, (-self.p).log1p(), -math.inf)).sum(1)

    def fit(self, x: Tensor) -> FittedBits:
        return FittedBits(x.mean(0))

    def kl(self, other: FittedBits) -> Tensor:
        p, q = self.p, other.p
        return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()


class HalfNormal:
    """|z| for z ~ N(0, I_d): the density ends at an edge, where it is highest, and no support is declared."""

    def __init__(self, d: int):
        self.d = d

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.d, generator=generator, device=generator.device).abs()

    def log_prob(self, x: Tensor) -> Tensor:
        inside = -0.5 * x.square().sum(1) - self.d * (LOG_2PI / 2 - math.log(2))
        return torch.where((x >= 0).all(1), inside, -math.inf)

    def entropy(self) -> Tensor:
        """log 2 less a coordinate than that of the Gaussian."""
        return torch.tensor(self.d * ((1 + LOG_2PI) / 2 - math.log(2)))


def _normal() -> Distribution:
    return Normal(0.5, 2.0)


def _on(name: str, edit: Callable[[Model, Tensor], Tensor]) -> Change:
    """The change that replaces name(x) by edit(model, x)."""
    return lambda model: {name: lambda x: edit(model, x)}


def _shifted(model: Model, x: Tensor) -> Tensor:
    return model.cdf(x - 0.1)


def _upper_tail(model: Model, x: Tensor) -> Tensor:
    return 1 - model.cdf(x)


def _wavy(model: Model, x: Tensor) -> Tensor:
    return model.cdf(x) + 1e-3 * torch.sin(1e3 * x)


def _above_one(model: Model, x: Tensor) -> Tensor:
    return 1.001 * model.cdf(x)


def _quantile_shifted(model: Model, u: Tensor) -> Tensor:
    return model.icdf(u) + 0.1


def _other_tail(model: Model, u: Tensor) -> Tensor:
    return model.icdf(1 - u)


def _learning(d: int) -> Callable[[], Fitted]:
    return lambda: Fitted(torch.linspace(-1.0, 1.0, d), torch.linspace(0.5, 2.0, d))


def _learning_bits(d: int) -> Callable[[], FittedBits]:
    return lambda: FittedBits(torch.linspace(0.1, 0.6, d))


def _negative(value: Tensor) -> Tensor:
    return -value


def _swapped(model: Model) -> dict[str, Callable[..., Tensor]]:
    return {"kl": lambda other: other.methods["kl"](model)}


def _kl_of(edit: Callable[[Tensor], Tensor]) -> Change:
    return lambda model: {"kl": lambda other: edit(model.methods["kl"](other))}


def _without_half(value: Tensor) -> Tensor:
    return 2 * value


ENTROPY, DRAWN_ENTROPY = "information.entropy", "information.entropy_of_draws"
CDF, MONOTONE, ICDF = "information.cdf", "information.cdf_is_monotone", "information.icdf"
POSITIVE, CROSS = "information.kl_is_positive", "information.cross_entropy"
KL, KL_SELF, DRAWN_KL = "information.kl", "information.kl_to_itself_is_zero", "information.kl_of_draws"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("entropy_off", "entropy + 0.05 nat", ENTROPY, _normal, stating("entropy", _up)),
    Mutant(
        "entropy_in_bits",
        "entropy in bits",
        ENTROPY,
        lambda: Bernoulli(torch.tensor(0.3)),
        stating("entropy", _in_bits),
    ),
    Mutant("entropy_nan", "NaN", ENTROPY, _normal, stating("entropy", lambda h: h * math.nan)),
    Mutant("entropy_off_2d", "entropy + 0.05 nat", ENTROPY, _gaussian(2), stating("entropy", _up)),
    Mutant("entropy_off_32d", "entropy + 0.05 nat", DRAWN_ENTROPY, _gaussian(32), stating("entropy", _up)),
    Mutant(
        "entropy_off_40_bits",
        "entropy + 0.05 nat",
        DRAWN_ENTROPY,
        lambda: Bernoulli(torch.linspace(0.1, 0.9, 40)),
        stating("entropy", _up),
    ),
    Mutant(
        "entropy_off_without_moments", "entropy + 0.05 nat", DRAWN_ENTROPY, lambda: Bare(50), stating("entropy", _up)
    ),
    Mutant("cdf_shifted", "cdf of a law moved by 0.05 sd", CDF, _normal, _on("cdf", _shifted)),
    Mutant("upper_tail", "1 - cdf", CDF, lambda: Cauchy(0.0, 1.0), _on("cdf", _upper_tail)),
    Mutant("wavy", "cdf + 0.001 sin(1000 x)", MONOTONE, _normal, _on("cdf", _wavy)),
    Mutant("above_one", "cdf x 1.001", MONOTONE, lambda: Uniform(0.0, 1.0), _on("cdf", _above_one)),
    Mutant("quantile_shifted", "icdf + 0.05 sd", ICDF, _normal, _on("icdf", _quantile_shifted)),
    Mutant("other_tail", "icdf(1 - u)", ICDF, lambda: Exponential(1.0), _on("icdf", _other_tail)),
    Mutant("kl_swapped", "KL(q, p)", KL, lambda: Gamma(2.0, 3.0), _swapped),
    Mutant("kl_doubled", "2 KL", KL, lambda: Categorical(torch.tensor([0.2, 0.3, 0.5])), _kl_of(_without_half)),
    Mutant("kl_lifted", "KL + 0.05", KL_SELF, _normal, _kl_of(_up)),
    Mutant("kl_lifted_by_fit", "KL + 0.05", KL, _learning(1), _kl_of(_up)),
    Mutant("kl_swapped_by_fit", "KL(q, p)", KL, _learning(2), _swapped),
    Mutant("kl_without_half_by_fit", "KL without the 1/2", KL, _learning(2), _kl_of(_without_half)),
    Mutant("kl_swapped_bits_by_fit", "KL(q, p)", KL, _learning_bits(6), _swapped),
    Mutant("kl_lifted_12d_by_fit", "KL + 0.05", DRAWN_KL, _learning(12), _kl_of(_up)),
    Mutant("kl_swapped_12d_by_fit", "KL(q, p)", DRAWN_KL, _learning(12), _swapped),
    Mutant("kl_without_half_12d_by_fit", "KL without the 1/2", DRAWN_KL, _learning(12), _kl_of(_without_half)),
    Mutant("kl_without_half_40_bits_by_fit", "2 KL", DRAWN_KL, _learning_bits(40), _kl_of(_without_half)),
    Mutant("kl_negative", "E log q - log p", POSITIVE, _normal, _kl_of(_negative)),
    Mutant("kl_zero", "0 whatever the other", POSITIVE, _learning(12), _kl_of(torch.zeros_like)),
    Mutant("entropy_off_with_kl", "entropy + 0.05 nat", CROSS, _normal, stating("entropy", _up)),
    Mutant("kl_swapped_in_cross", "KL(q, p)", CROSS, _learning(2), _swapped),
    Mutant("kl_lifted_16d", "KL + 0.05", DRAWN_KL, _gaussian(16), _kl_of(_up)),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("negative_entropy", "sd 1e-6", ENTROPY, lambda: Normal(0.0, 1e-6), _nothing),
    NearMiss("zero_state", "p = (0, 1/2, 1/2)", ENTROPY, lambda: Categorical(torch.tensor([0.0, 1.0, 1.0])), _nothing),
    NearMiss("certain", "P(1) = 0", ENTROPY, lambda: Bernoulli(torch.tensor(0.0)), _nothing),
    NearMiss("no_variance", "Cauchy", ENTROPY, lambda: Cauchy(0.0, 3.0), _nothing),
    NearMiss("many_dimensions", "32 dimensions", DRAWN_ENTROPY, _gaussian(32), _nothing),
    NearMiss("no_moments", "50 dimensions, no moments stated", DRAWN_ENTROPY, lambda: Bare(50), _nothing),
    NearMiss("edge", "half-normal, no support declared", DRAWN_ENTROPY, lambda: HalfNormal(6), _nothing),
    NearMiss("kink", "Laplace", CDF, lambda: Laplace(3.0, 1e3), _nothing),
    NearMiss("heavy_tail", "Cauchy", CDF, lambda: Cauchy(0.0, 1.0), _nothing),
    NearMiss("float32_steps", "cdf in float32", MONOTONE, _normal, _nothing),
    NearMiss("heavy_quantiles", "Cauchy", ICDF, lambda: Cauchy(0.0, 1e-3), _nothing),
    NearMiss("one_sided", "exponential", ICDF, lambda: Exponential(1e4), _nothing),
    NearMiss("infinite_kl", "uniform laws that do not nest", KL, lambda: Uniform(0.0, 1.0), _nothing),
    NearMiss("gamma", "as it is", KL, lambda: Gamma(2.0, 3.0), _nothing),
    NearMiss("learnt", "the second model is fitted", KL, _learning(2), _nothing),
    NearMiss("learnt_bits", "the second model is fitted", KL, _learning_bits(6), _nothing),
    NearMiss("learnt_12d", "the second model is fitted", DRAWN_KL, _learning(12), _nothing),
    NearMiss("learnt_40_bits", "the second model is fitted", DRAWN_KL, _learning_bits(40), _nothing),
    NearMiss("infinite_and_positive", "uniform laws that do not nest", POSITIVE, lambda: Uniform(0.0, 1.0), _nothing),
    NearMiss("learnt_and_positive", "the second model is fitted", POSITIVE, _learning(12), _nothing),
    NearMiss("gamma_code", "as it is", CROSS, lambda: Gamma(2.0, 3.0), _nothing),
    NearMiss("learnt_code", "the second model is fitted", CROSS, _learning(2), _nothing),
    NearMiss("rounded_zero", "32 dimensions in float32", KL_SELF, _gaussian(32), _nothing),
    NearMiss("many_dimensions", "16 dimensions", DRAWN_KL, _gaussian(16), _nothing),
)
