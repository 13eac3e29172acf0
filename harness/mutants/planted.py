"""The planted bugs of the self-test: eleven defects of known size, in models of any dimension and scale.

Every defect sits in one coordinate (or one pair, or one mode) only, which is where it is hardest to find.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.adapters import adapt
from harness.model import Model
from harness.mutants.mutant import Change, mutated


class Normal:
    """Independent Gaussian coordinates with standard deviation `scale`; with `rho`, the first two are correlated."""

    def __init__(self, d: int, scale: float, rho: float = 0.0):
        self.location = scale * torch.linspace(-1.0, 1.0, d) if d > 1 else torch.tensor([scale / 2])
        self.scale = torch.full((d,), scale)
        self.rho = rho

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        e = torch.randn(n, len(self.scale), generator=generator, dtype=self.scale.dtype, device=self.scale.device)
        if self.rho:
            e[:, 1] = self.rho * e[:, 0] + math.sqrt(1 - self.rho**2) * e[:, 1]
        return self.location + self.scale * e

    def log_prob(self, x: Tensor) -> Tensor:
        e = (x - self.location) / self.scale
        square = e.square().sum(-1)
        if self.rho:
            a, b = e[:, 0], e[:, 1]
            square = square - a.square() - b.square()
            square = square + (a.square() - 2 * self.rho * a * b + b.square()) / (1 - self.rho**2)
        return -square / 2 - self.scale.log().sum() - len(self.scale) * math.log(2 * math.pi) / 2 - self._half_log_det()

    def mean(self) -> Tensor:
        return self.location

    def variance(self) -> Tensor:
        return self.scale.square()

    def entropy(self) -> Tensor:
        d = len(self.scale)
        return self.scale.log().sum() + d * math.log(2 * math.pi * math.e) / 2 + self._half_log_det()

    def _half_log_det(self) -> float:
        return math.log1p(-(self.rho**2)) / 2


class Affine:
    """x = b + s * e with e standard Gaussian and unequal s: a flow, of which the log-determinant is sum log s."""

    def __init__(self, d: int, scale: float):
        self.s = scale * torch.exp(0.5 * torch.cos(torch.arange(d, dtype=torch.float32)))
        self.b = scale * torch.sin(torch.arange(d, dtype=torch.float32))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.b + self.s * torch.randn(n, len(self.s), generator=generator, dtype=self.s.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        e = (x - self.b) / self.s
        return -e.square().sum(-1) / 2 - len(self.s) * math.log(2 * math.pi) / 2 - self.s.log().sum()


class TwoModes:
    """0.97 N(m, s^2 I) + 0.03 N(m + 8 s in the first coordinate, s^2 I)."""

    WEIGHT = 0.03

    def __init__(self, d: int, scale: float):
        self.main = Normal(d, scale)
        self.offset = torch.zeros(d)
        self.offset[0] = 8 * scale

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        x = self.main.sample(n, generator=generator)
        second = torch.rand(n, 1, generator=generator) < self.WEIGHT
        return x + second * self.offset

    def log_prob(self, x: Tensor) -> Tensor:
        first = self.main.log_prob(x) + math.log1p(-self.WEIGHT)
        return torch.logaddexp(first, self.main.log_prob(x - self.offset) + math.log(self.WEIGHT))


class Lattice:
    """Independent integers 0..20 with p(k) ~ exp(-(k - 10)^2 / 8); with `rho`, the second often copies the first."""

    def __init__(self, d: int, rho: float = 0.0):
        k = torch.arange(21, dtype=torch.float64)
        self.table = torch.softmax(-((k - 10) ** 2) / 8, 0)
        self.d, self.rho = d, rho

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        u = torch.rand(n, self.d, generator=generator, dtype=torch.float64)
        x = torch.searchsorted(self.table.cumsum(0)[:-1], u, right=True)
        if self.rho:
            copy = torch.rand(n, generator=generator) < self.rho
            x[:, 1] = torch.where(copy, x[:, 0], x[:, 1])
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        possible = ((x >= 0) & (x <= 20) & (x == x.round())).all(1)
        code = x.clamp(0, 20).long()
        each = self.table.log()[code]
        total = each.sum(1)
        if self.rho:
            same = (code[:, 0] == code[:, 1]) * self.rho
            total = total - each[:, 1] + torch.log(same + (1 - self.rho) * each[:, 1].exp())
        return total.masked_fill(~possible, -torch.inf)

    def mean(self) -> Tensor:
        return (self.table * torch.arange(21)).sum().expand(self.d)

    def variance(self) -> Tensor:
        return (self.table * (torch.arange(21) - 10.0) ** 2).sum().expand(self.d)

    def entropy(self) -> Tensor:
        one = -(self.table * self.table.log()).sum()
        pair = self.rho * torch.diag(self.table) + (1 - self.rho) * self.table[:, None] * self.table
        information = torch.xlogy(pair, pair / (self.table[:, None] * self.table)).sum()
        return self.d * one - (information if self.rho else 0.0)


class LatticeTwoModes:
    """As `Lattice`, but with probability 3 % the whole event is moved up by 40."""

    WEIGHT = 0.03

    def __init__(self, d: int):
        self.main = Lattice(d)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        x = self.main.sample(n, generator=generator)
        return x + 40 * (torch.rand(n, 1, generator=generator) < self.WEIGHT)

    def log_prob(self, x: Tensor) -> Tensor:
        first = self.main.log_prob(x) + math.log1p(-self.WEIGHT)
        return torch.logaddexp(first, self.main.log_prob(x - 40) + math.log(self.WEIGHT))


@dataclass(frozen=True)
class Planted:
    """A defect of stated size: the correct model it is planted in, per kind of event, and the change."""

    name: str
    defect: str
    change: Change
    continuous: Callable[[int, float], object] | None = Normal
    discrete: Callable[[int], object] | None = Lattice
    least_dimension: int = 1

    def correct(self, kind: str, d: int, scale: float) -> Model | None:
        """The correct model, or None where the defect has no meaning."""
        if d < self.least_dimension:
            return None
        if kind == "continuous":
            return None if self.continuous is None else adapt(self.continuous(d, scale), f"{self.name} absent")
        return None if self.discrete is None else adapt(self.discrete(d), f"{self.name} absent")

    def broken(self, kind: str, d: int, scale: float) -> Model | None:
        """The model with the defect, or None where it has no meaning."""
        correct = self.correct(kind, d, scale)
        return None if correct is None else mutated(correct, self.change, self.name)


Edit = Callable[[Tensor, Model, torch.Generator], Tensor]


def on_draws(edit: Edit) -> Change:
    """The change that edits the first coordinate (n,) of what the sampler returns."""

    def change(model: Model) -> dict[str, Callable[..., Tensor]]:
        def sample(n: int, *, generator: torch.Generator) -> Tensor:
            x = model.sample(n, generator=generator).clone()
            x[:, 0] = edit(x[:, 0], model, generator)
            return x

        return {"sample": sample}

    return change


def _sd(model: Model) -> tuple[float, float]:
    """Mean and standard deviation of the first coordinate."""
    thing = model.target
    if isinstance(thing, Normal):
        return float(thing.location[0]), float(thing.scale[0])
    return 10.0, 2.0


def _uniform(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(x), generator=generator, device=x.device)


def _shift(x: Tensor, model: Model, generator: torch.Generator) -> Tensor:
    _, sd = _sd(model)
    if x.is_floating_point():
        return x + 0.05 * sd
    return (x + (_uniform(x, generator) < 0.05 * sd)).clamp(max=20)


def _widen(x: Tensor, model: Model, generator: torch.Generator) -> Tensor:
    mean, sd = _sd(model)
    if x.is_floating_point():
        return mean + 1.05 * (x - mean)
    # one step up or down with probability v each adds 2 v to the variance: (1.05^2 - 1) sd^2 of it
    v = (1.05**2 - 1) * sd**2 / 2
    u = _uniform(x, generator)
    return (x + (u < v).long() - (u > 1 - v).long()).clamp(0, 20)


def _cut(x: Tensor, model: Model, generator: torch.Generator) -> Tensor:
    mean, sd = _sd(model)
    outside = (x.to(torch.float64) - mean).abs() > 2.5 * sd
    for _ in range(8):  # drawn anew until inside: the chance that one stays outside is 0.012^9
        fresh = model.sample(len(x), generator=generator)[:, 0]
        x = torch.where(outside, fresh, x)
        outside = (x.to(torch.float64) - mean).abs() > 2.5 * sd
    return x


def _contaminate(x: Tensor, model: Model, generator: torch.Generator) -> Tensor:
    mean, sd = _sd(model)
    u = _uniform(x, generator)
    far = mean + 5 * sd * torch.where(u < 0.005, -1.0, 1.0)
    return torch.where(u < 0.01, far.to(x.dtype), x)


def _independent(model: Model) -> dict[str, Callable[..., Tensor]]:
    def sample(n: int, *, generator: torch.Generator) -> Tensor:
        x = model.sample(n, generator=generator).clone()
        x[:, 1] = model.sample(n, generator=generator)[:, 1]
        return x

    return {"sample": sample}


def _one_mode(model: Model) -> dict[str, Callable[..., Tensor]]:
    return {"sample": lambda n, *, generator: model.target.main.sample(n, generator=generator)}  # type: ignore[attr-defined]


def _twice(model: Model) -> dict[str, Callable[..., Tensor]]:
    def sample(n: int, *, generator: torch.Generator) -> Tensor:
        return model.sample((n + 1) // 2, generator=generator).repeat_interleave(2, 0)[:n]

    return {"sample": sample}


def _half_precision(model: Model) -> dict[str, Callable[..., Tensor]]:
    def sample(n: int, *, generator: torch.Generator) -> Tensor:
        x = model.sample(n, generator=generator)
        return x.to(torch.float16).to(x.dtype)

    return {"sample": sample}


def _too_light(model: Model) -> dict[str, Callable[..., Tensor]]:
    return {"log_prob": lambda x: model.log_prob(x) - 0.05}


def _wrong_sign(model: Model) -> dict[str, Callable[..., Tensor]]:
    s = model.target.s  # type: ignore[attr-defined]
    return {"log_prob": lambda x: model.log_prob(x) + 2 * s.log().sum()}


def _entropy_off(model: Model) -> dict[str, Callable[..., Tensor]]:
    return {"entropy": lambda: model.entropy() + 0.05}


def _correlated(d: int, scale: float) -> Normal:
    return Normal(d, scale, rho=0.1)


def _copying(d: int) -> Lattice:
    return Lattice(d, rho=0.1)


PLANTED: tuple[Planted, ...] = (
    Planted("mean_shifted", "mean of one coordinate + 0.05 sd", on_draws(_shift)),
    Planted("scale_widened", "sd of one coordinate x 1.05", on_draws(_widen)),
    Planted("correlation_ignored", "correlation 0.1 of one pair not drawn", _independent, _correlated, _copying, 2),
    Planted("tails_cut", "one coordinate never beyond 2.5 sd", on_draws(_cut)),
    Planted("mass_moved", "1 % of one coordinate's mass at +-5 sd", on_draws(_contaminate)),
    Planted("mode_missing", "a mode of weight 3 % never drawn", _one_mode, TwoModes, LatticeTwoModes),
    Planted("drawn_twice", "every draw returned twice", _twice),
    Planted("half_precision", "draws rounded to float16", _half_precision, Normal, None),
    Planted("density_off", "log-density too low by 0.05 nat", _too_light),
    Planted("log_det_sign", "log-determinant with the wrong sign", _wrong_sign, Affine, None),
    Planted("entropy_off", "entropy too high by 0.05 nat", _entropy_off),
)
