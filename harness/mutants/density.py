"""Densities that do not add up to 1, and densities that do although they look as if they might not."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    Dirichlet,
    Distribution,
    Gamma,
    Geometric,
    Independent,
    MixtureSameFamily,
    Multinomial,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Poisson,
    constraints,
)

from harness.model import Model
from harness.mutants.mutant import Change, Mutant, NearMiss

SUMS, INTEGRATES = "density.sums_to_one", "density.integrates_to_one"


class DensityOnly:
    """A density that cannot draw, of which neither place nor scale is declared."""

    def __init__(self, location: list[float], scale: float):
        self.location, self.scale = torch.tensor(location), torch.tensor(scale)

    def log_prob(self, x: Tensor) -> Tensor:
        e = (x - self.location) / self.scale
        return (-0.5 * e.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


class MassOnly:
    """The law of Poisson(3) as a function of declared support that cannot draw."""

    support = constraints.nonnegative_integer

    def log_prob(self, x: Tensor) -> Tensor:
        return x * math.log(3.0) - 3.0 - torch.lgamma(x + 1)


class GreyLevels:
    """Two pixels with values k / 99, of which nobody says that they are discrete; density 0 between the levels."""

    LEVELS = 100

    def __init__(self) -> None:
        self.p = torch.softmax(torch.cos(torch.arange(float(self.LEVELS))), 0)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.multinomial(self.p, 2 * n, replacement=True, generator=generator).reshape(n, 2) / (self.LEVELS - 1)

    def log_prob(self, x: Tensor) -> Tensor:
        k = x * (self.LEVELS - 1)
        near = ((k - k.round()).abs() < 1e-3) & (k.round() >= 0) & (k.round() < self.LEVELS)
        log_p = self.p.log()[k.round().clamp(0, self.LEVELS - 1).long()]
        return torch.where(near, log_p, -math.inf).sum(1)


class RareMode:
    """A Gaussian in d dimensions, and another of weight 0.2 %, 50 sd away: too few pilot draws to be fitted."""

    def __init__(self, d: int) -> None:
        self.d, self.weight, self.far = d, 0.002, 50.0

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        x = torch.randn(n, self.d, generator=generator)
        x[:, 0] += self.far * (torch.rand(n, generator=generator) < self.weight)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        far = x - self.far * torch.eye(self.d, dtype=x.dtype)[0]
        near, rare = (Normal(0.0, 1.0).log_prob(part).sum(1) for part in (x, far))
        return torch.logaddexp(near + math.log1p(-self.weight), rare + math.log(self.weight))


class Hurdle:
    """(k, y): a coin k with P(1) = 0.3, and y ~ N(0, 1) after tails, N(5, 0.1^2) after heads: mixed events."""

    def __init__(self) -> None:
        self.mean, self.sd = torch.tensor([0.0, 5.0]), torch.tensor([1.0, 0.1])

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        k = (torch.rand(n, generator=generator) < 0.3).long()
        y = self.mean[k] + self.sd[k] * torch.randn(n, generator=generator)
        return torch.stack([k.to(y), y], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        k = x[:, 0].clamp(0, 1).long()
        coin = torch.tensor([0.7, 0.3]).log()[k]
        log_p = coin + Normal(self.mean[k], self.sd[k]).log_prob(x[:, 1])
        return torch.where((x[:, 0] == 0) | (x[:, 0] == 1), log_p, -math.inf)


class SinglePrecision:
    """N(0.3, 0.7^2) that draws float64 events and keeps its parameters, and computes with them, in float32."""

    def __init__(self, cast: bool, d: int):
        self.cast = cast
        self.mean, self.sd = torch.linspace(0.3, 0.5, d), torch.tensor(0.7).expand(d)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.mean + self.sd.double() * torch.randn(n, len(self.mean), generator=generator, dtype=torch.float64)

    def log_prob(self, x: Tensor) -> Tensor:
        z = ((x.float() if self.cast else x) - self.mean) / self.sd
        return (-0.5 * z.square() - self.sd.log() - 0.5 * math.log(2 * math.pi)).sum(-1).double()


class SingleCounts:
    """Poisson(7.3) that draws float64 counts and keeps the logarithm of its rate in float32."""

    def __init__(self) -> None:
        self.rate = torch.tensor([7.3])

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.poisson(self.rate.double().expand(n), generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return x * self.rate.log() - self.rate - torch.lgamma(x + 1)


def scaled(nats: float) -> Change:
    """A density that is off by a constant factor."""
    return lambda model: {"log_prob": lambda x: model.log_prob(x) + nats}


def on_log_prob(edit: Callable[[Model, Tensor], Tensor]) -> Change:
    """The change that replaces log_prob(x) by edit(model, x)."""
    return lambda model: {"log_prob": lambda x: edit(model, x)}


def _no_half_log_two_pi(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x) + 0.5 * math.log(2 * math.pi)


def _tempered(model: Model, x: Tensor) -> Tensor:
    return 1.02 * model.log_prob(x)


def _one_state_lighter(model: Model, x: Tensor) -> Tensor:
    first = (x == 0).reshape(len(x), -1).all(1)
    return model.log_prob(x) - 0.05 * first


def _second_mode_denied(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x).masked_fill(x < -25, -math.inf)


def _tail_cut(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x).masked_fill(x.abs() > 300, -math.inf)


def _rounded(model: Model, x: Tensor) -> Tensor:
    ulp = torch.finfo(torch.float32).eps
    return model.log_prob(x) * (1 + ulp * torch.sin(1e4 * x.reshape(len(x), -1).sum(1)))


def _shifted(by: float) -> Change:
    return on_log_prob(lambda model, x: model.log_prob(x - by))


def _nothing(model: Model) -> dict[str, Callable[..., Tensor]]:
    return {}


def _normal() -> Distribution:
    return Normal(0.0, 1.0)


def _normal_2d() -> Distribution:
    return MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))


def _normal_3d() -> Distribution:
    return Independent(Normal(torch.tensor([0.0, 10.0, -5.0]), torch.tensor([1.0, 1e3, 1e-2])), 1)


def _normal_float64() -> Distribution:
    return Normal(torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64))


def _modes() -> Distribution:
    weights, means, sds = torch.tensor([0.03, 0.97]), torch.tensor([-50.0, 0.0]), torch.tensor([0.5, 1.0])
    return MixtureSameFamily(Categorical(weights), Normal(means, sds))


def _rare_mode() -> Distribution:
    """A mode of 0.2 %, far away and narrow, of which the pilot holds eight draws."""
    weights, means, sds = torch.tensor([0.002, 0.998]), torch.tensor([20.0, 0.0]), torch.tensor([0.1, 1.0])
    return MixtureSameFamily(Categorical(weights), Normal(means, sds))


def _faces() -> Distribution:
    return Categorical(torch.tensor([0.2, 0.3, 0.5]))


MUTANTS: tuple[Mutant, ...] = (
    Mutant("off_by_0.05", "log p - 0.05", INTEGRATES, _normal, scaled(-0.05)),
    Mutant("off_by_0.001", "log p + 0.001", INTEGRATES, _normal, scaled(0.001)),
    Mutant("off_by_1e-5_in_float64", "log p + 0.00001", INTEGRATES, _normal_float64, scaled(1e-5)),
    Mutant("off_in_float32_weights", "log p - 0.01", INTEGRATES, lambda: SinglePrecision(False, 2), scaled(-0.01)),
    Mutant("off_after_a_cast", "log p + 0.01", INTEGRATES, lambda: SinglePrecision(True, 1), scaled(0.01)),
    Mutant("short_by_0.001", "log p - 0.001", INTEGRATES, _normal, scaled(-0.001)),
    Mutant("short_at_singular_ends", "log p - 0.01", INTEGRATES, lambda: Beta(0.5, 0.5), scaled(-0.01)),
    Mutant("short_beside_a_rare_mode", "log p - 0.002", INTEGRATES, _rare_mode, scaled(-0.002)),
    Mutant("constant_forgotten", "log p without log(2 pi) / 2", INTEGRATES, _normal, on_log_prob(_no_half_log_two_pi)),
    Mutant("tempered", "p to the power 1.02", INTEGRATES, _normal_2d, on_log_prob(_tempered)),
    Mutant("off_in_3d", "log p - 0.05", INTEGRATES, _normal_3d, scaled(-0.05)),
    Mutant(
        "off_on_simplex", "log p - 0.05", INTEGRATES, lambda: Dirichlet(torch.tensor([1.0, 2.0, 3.0])), scaled(-0.05)
    ),
    Mutant("mode_denied", "a mode of 3 % has density 0", INTEGRATES, _modes, on_log_prob(_second_mode_denied)),
    Mutant("tail_denied", "no density beyond 300", INTEGRATES, lambda: Cauchy(0.0, 1.0), on_log_prob(_tail_cut)),
    Mutant("singular_off", "log p + 0.01", INTEGRATES, lambda: Beta(0.5, 0.5), scaled(0.01)),
    Mutant("density_only_off", "log p - 0.05", INTEGRATES, lambda: DensityOnly([7.0, -2e3], 1e-2), scaled(-0.05)),
    Mutant("mixed_off", "log p - 0.05", INTEGRATES, Hurdle, scaled(-0.05)),
    Mutant("state_lighter", "p(0) x 0.95", SUMS, _faces, on_log_prob(_one_state_lighter)),
    Mutant("counts_off", "log p + 0.05", SUMS, lambda: Poisson(1e4), scaled(0.05)),
    Mutant("counts_short_by_0.001", "log p - 0.001", SUMS, lambda: Poisson(3.0), scaled(-0.001)),
    Mutant("faces_short_by_0.0001", "log p - 0.0001", SUMS, _faces, scaled(-1e-4)),
    Mutant("tail_of_counts", "log p - 0.01", SUMS, lambda: Geometric(0.01), scaled(-0.01)),
    Mutant(
        "one_hot_off", "log p - 0.01", SUMS, lambda: OneHotCategorical(torch.tensor([0.2, 0.3, 0.5])), scaled(-0.01)
    ),
    Mutant("coefficient_off", "log p - 0.05", SUMS, lambda: Multinomial(5, torch.tensor([0.2, 0.8])), scaled(-0.05)),
    Mutant("counts_off_in_float32_weights", "log p + 0.01", SUMS, SingleCounts, scaled(0.01)),
    Mutant("grey_levels_off", "log p + 0.05", SUMS, GreyLevels, scaled(0.05)),
    Mutant("rare_mode_off", "log p - 0.01", INTEGRATES, lambda: RareMode(2), scaled(-0.01)),
    Mutant("mass_only_off", "log p - 0.05", SUMS, MassOnly, scaled(-0.05)),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("rounded", "log p rounded to float32", INTEGRATES, _normal, on_log_prob(_rounded)),
    NearMiss("float32_weights", "float64 events", INTEGRATES, lambda: SinglePrecision(False, 1), _nothing),
    NearMiss("float32_weights_3d", "float64 events", INTEGRATES, lambda: SinglePrecision(False, 3), _nothing),
    NearMiss("cast_to_float32", "and its answer back", INTEGRATES, lambda: SinglePrecision(True, 2), _nothing),
    NearMiss("float64_at_its_best", "log p + 1e-9", INTEGRATES, _normal_float64, scaled(1e-9)),
    NearMiss("rare_mode", "a mode of 0.2 %", INTEGRATES, _rare_mode, _nothing),
    NearMiss("far_away", "moved by 1e6", INTEGRATES, lambda: Normal(0.0, 1e4), _shifted(1e6)),
    NearMiss("singular_ends", "infinite density at both ends", INTEGRATES, lambda: Beta(0.5, 0.5), _nothing),
    NearMiss("steep_end", "shape 0.01 in float32", INTEGRATES, lambda: Gamma(0.05, 1.0), _nothing),
    NearMiss("no_mean", "Cauchy's tails", INTEGRATES, lambda: Cauchy(-3.0, 1e3), _nothing),
    NearMiss("many_scales", "three scales", INTEGRATES, _normal_3d, _nothing),
    NearMiss("density_only", "place and scale unknown", INTEGRATES, lambda: DensityOnly([7.0, -2e3], 1e-1), _nothing),
    NearMiss("mixed", "a coin and a number", INTEGRATES, Hurdle, _nothing),
    NearMiss("cancelling_terms", "terms of 1e5 in float32", SUMS, lambda: Poisson(1e4), _nothing),
    NearMiss(
        "terms_of_1e9",
        "that cancel in float64",
        SUMS,
        lambda: Poisson(torch.tensor(1e8, dtype=torch.float64)),
        _nothing,
    ),
    NearMiss(
        "state_of_mass_0", "p = (0, 1/2, 1/2)", SUMS, lambda: Categorical(torch.tensor([0.0, 1.0, 1.0])), _nothing
    ),
    NearMiss("float32_rate", "float64 counts", SUMS, SingleCounts, _nothing),
    NearMiss("grey_levels", "levels that nobody declared", SUMS, GreyLevels, _nothing),
    NearMiss("rare_mode_2d", "a mode of 0.2 % far away", INTEGRATES, lambda: RareMode(2), _nothing),
    NearMiss("rare_mode_3d", "a mode of 0.2 % far away", INTEGRATES, lambda: RareMode(3), _nothing),
    NearMiss("many_trials", "10 000 trials in float32", SUMS, lambda: Binomial(10_000, torch.tensor(0.3)), _nothing),
)
