"""Energies, partition functions and scores that do not belong to their draws; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from harness.model import Model
from harness.mutants.mutant import Change, Mutant, NearMiss
from harness.mutants.structure import nothing

LOG_2PI = math.log(2 * math.pi)


class Bowl:
    """E(x) = (x - mu)^T P (x - mu) / 2 in d dimensions, of which the draws are Gaussian; no normalised density."""

    def __init__(self, location: Tensor, factor: Tensor):
        self.location, self.factor = location, factor  # (d,), and lower L (d, d) with L L^T = P

    def energy(self, x: Tensor) -> Tensor:
        return ((x - self.location) @ self.factor).square().sum(1) / 2

    def log_partition(self) -> Tensor:
        return len(self.location) * LOG_2PI / 2 - self.factor.diagonal().log().sum()

    def score(self, x: Tensor) -> Tensor:
        return -(x - self.location) @ self.factor @ self.factor.mT

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, len(self.location), generator=generator, dtype=self.location.dtype)
        return self.location + torch.linalg.solve_triangular(self.factor, z, upper=False, left=False)


class Normalised(Bowl):
    """The same with its density."""

    def log_prob(self, x: Tensor) -> Tensor:
        return -self.energy(x) - self.log_partition()


class Twice(Normalised):
    """Holds a covariance and its inverse, each as its dtype rounds it; the condition number is 1000 in 2 dimensions."""

    def __init__(self, dtype: torch.dtype = torch.float32):
        axes = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
        covariance = (axes * torch.tensor([1.0, 1000.0], dtype=torch.float64) @ axes.mT).to(dtype)
        precision = torch.linalg.inv(covariance)
        super().__init__(torch.zeros(2, dtype=dtype), torch.linalg.cholesky(precision))
        self.lower = torch.linalg.cholesky(covariance)
        self.precision = precision

    def score(self, x: Tensor) -> Tensor:
        return -x @ self.precision

    def energy(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.lower, x.mT, upper=False).square().sum(0) / 2


class Spins:
    """A ring of spins that are -1 or 1 with a coupling and a field, drawn by listing all states."""

    def __init__(self, d: int, coupling: float = 0.5, field: float = 0.2):
        self.d, self.coupling, self.field = d, torch.tensor(coupling), torch.tensor(field)
        bits = torch.arange(2**d)[:, None] >> torch.arange(d) & 1
        self.states = 2 * bits.float() - 1

    def energy(self, x: Tensor) -> Tensor:
        """A number at every x, also at those that are no spins."""
        return -self.coupling * (x * x.roll(1, 1)).sum(1) - self.field * x.sum(1)

    def log_partition(self) -> Tensor:
        return (-self.energy(self.states.double())).logsumexp(0).to(self.coupling.dtype)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        ends = (-self.energy(self.states)).double().softmax(0).cumsum(0)
        u = torch.rand(n, generator=generator, dtype=torch.float64) * ends[-1]
        return self.states[torch.searchsorted(ends, u, right=True)]


class Counts:
    """A Poisson law by its energy, +inf below 0."""

    def energy(self, x: Tensor) -> Tensor:
        x = x.double()
        return torch.where(x >= 0, torch.lgamma(x + 1) - x * math.log(4.0), math.inf)[:, 0]

    def log_partition(self) -> Tensor:
        return torch.tensor(4.0, dtype=torch.float64)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.poisson(torch.full((n, 1), 4.0), generator=generator)


class Positive:
    """Exponential draws with the energy x, which is no energy below 0: the support is declared."""

    support = constraints.independent(constraints.positive, 1)

    def energy(self, x: Tensor) -> Tensor:
        return x.sum(1)

    def log_partition(self) -> Tensor:
        return torch.tensor(0.0)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return -torch.log1p(-torch.rand(n, 1, generator=generator, dtype=torch.float64)).float()


class ScoreAlone:
    """Student's t with 5 degrees of freedom in 3 independent coordinates: a sampler, a score, and no density."""

    support = constraints.real_vector
    freedom, size = 5, 3

    def score(self, x: Tensor) -> Tensor:
        return -(self.freedom + 1) * x / (self.freedom + x.square())

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, self.size, self.freedom + 1, generator=generator, dtype=torch.float64)
        return (z[..., 0] / z[..., 1:].square().mean(-1).sqrt()).float()


def bowl(d: int, kind: type[Bowl] = Bowl, dtype: torch.dtype = torch.float32, far: float = 1.0) -> Callable[[], Bowl]:
    """A correlated bowl in d dimensions, its centre `far` from the origin."""

    def build() -> Bowl:
        lower = torch.tril(torch.cos(torch.arange(d * d, dtype=dtype).reshape(d, d)), -1) / math.sqrt(d)
        return kind(
            far * torch.linspace(-1, 1, d, dtype=dtype), lower + torch.linspace(0.7, 1.4, d, dtype=dtype).diag()
        )

    return build


def spins(d: int) -> Callable[[], Spins]:
    return lambda: Spins(d)


def edited(name: str, edit: Callable[[Any], Any]) -> Change:
    """The change that replaces what a method returns by edit(what it returned)."""
    return lambda model: {name: lambda *args, **named: edit(model.methods[name](*args, **named))}


def _in_two_baths(model: Model) -> dict[str, Callable[..., Tensor]]:
    """An energy that counts its bonds once more than its draws know."""
    law = model.target
    assert isinstance(law, Spins)
    return {"energy": lambda x: model.energy(x) - 0.1 * (x * x.roll(1, 1)).sum(1)}


def _in_a_field(model: Model) -> dict[str, Callable[..., Tensor]]:
    return {"energy": lambda x: model.energy(x) - 0.1 * x.sum(1)}


def _two_pi_forgotten(model: Model) -> dict[str, Callable[..., Tensor]]:
    law = model.target
    assert isinstance(law, Bowl)
    return {"log_partition": lambda: -law.factor.diagonal().log().sum()}


def _mean_field(model: Model) -> dict[str, Callable[..., Tensor]]:
    """d log 2 cosh(h + 2 J m) - d J m^2 with m its own mean: a lower bound of log Z that is taken for it."""
    law = model.target
    assert isinstance(law, Spins)

    def log_partition() -> Tensor:
        m = torch.ones(())
        for _ in range(200):
            m = torch.tanh(law.field + 2 * law.coupling * m)
        return law.d * ((2 * torch.cosh(law.field + 2 * law.coupling * m)).log() - law.coupling * m.square())

    return {"log_partition": log_partition}


def _without_log_z(model: Model) -> dict[str, Callable[..., Tensor]]:
    return {"log_prob": lambda x: -model.energy(x)}


def _about_the_origin(model: Model) -> dict[str, Callable[..., Tensor]]:
    """-P x for -P (x - mu)."""
    law = model.target
    assert isinstance(law, Bowl)
    return {"score": lambda x: -x @ law.factor @ law.factor.mT}


def _detached_from(name: str) -> Change:
    """The energy with a hand-written part that the score does not know."""
    return lambda model: {name: lambda x: model.methods[name](x) + 0.05 * torch.sin(x).sum(1)}


WELL, Z, SAME = "energy.well_formed", "energy.log_partition", "energy.consistent_with_log_prob"
STEIN, EXCHANGE, DRAWN = "energy.stein", "energy.exchangeable", "energy.log_partition_of_draws"
GRADIENT, PARTS = "score.is_gradient", "score.stein"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("no_number", "NaN for small energies", WELL, bowl(3), edited("energy", lambda e: e.where(e > 1, math.nan))),
    Mutant("draws_impossible", "+inf above 5", WELL, bowl(3), edited("energy", lambda e: e.where(e < 5, math.inf))),
    Mutant("a_number_each", "no sum", WELL, bowl(3), edited("energy", lambda e: e[:, None].expand(-1, 3)), error=True),
    Mutant("log_z_off", "log Z + 0.05", Z, bowl(2), edited("log_partition", lambda z: z + 0.05)),
    Mutant("two_pi_forgotten", "log Z without d/2 log 2 pi", Z, bowl(2), _two_pi_forgotten),
    Mutant("mean_field", "the mean-field bound for log Z", Z, spins(8), _mean_field),
    Mutant("half_the_bonds", "another energy than that of Z", Z, spins(8), _in_two_baths),
    Mutant("log_z_forgotten", "log_prob = -E", SAME, bowl(3, Normalised), _without_log_z),
    Mutant("too_cold", "1.1 E", SAME, bowl(5, Normalised), edited("energy", lambda e: 1.1 * e)),
    Mutant("sign", "-E", SAME, bowl(5, Normalised), edited("energy", lambda e: -e)),
    Mutant("draws_too_hot", "draws x 1.1", STEIN, bowl(4), edited("sample", lambda x: 1.1 * x)),
    Mutant("draws_beside", "draws + 0.15", STEIN, bowl(4), edited("sample", lambda x: x + 0.15)),
    Mutant("draws_too_hot", "draws x 1.1", EXCHANGE, bowl(4), edited("sample", lambda x: 1.1 * x)),
    Mutant("too_cold", "1.2 E", EXCHANGE, bowl(10), edited("energy", lambda e: 1.2 * e)),
    Mutant("field_forgotten", "a field the draws do not know", EXCHANGE, lambda: Spins(6, field=0.0), _in_a_field),
    Mutant("log_z_off", "log Z + 0.1", DRAWN, bowl(8), edited("log_partition", lambda z: z + 0.1)),
    Mutant("two_pi_forgotten", "log Z without d/2 log 2 pi", DRAWN, bowl(6), _two_pi_forgotten),
    Mutant("uphill", "grad E", GRADIENT, bowl(3), edited("score", lambda s: -s)),
    Mutant("about_the_origin", "-P x", GRADIENT, bowl(3), _about_the_origin),
    Mutant("scaled_a_little", "score x 1.001", GRADIENT, bowl(5, Normalised), edited("score", lambda s: 1.001 * s)),
    Mutant("scaled", "score x 1.02", GRADIENT, Twice, edited("score", lambda s: 1.02 * s)),
    Mutant("part_forgotten", "E has a term more", GRADIENT, bowl(2), _detached_from("energy")),
    Mutant("gaussian_score", "-x for a t law", PARTS, ScoreAlone, lambda model: {"score": lambda x: -x}),
    Mutant("draws_beside", "draws + 0.2", PARTS, ScoreAlone, edited("sample", lambda x: x + 0.2)),
    Mutant("scaled", "score x 1.2", PARTS, ScoreAlone, edited("score", lambda s: 1.2 * s)),
)

_higher = edited("energy", lambda e: e + 1000)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("another_zero", "E + 1000", WELL, bowl(3), _higher),
    NearMiss("low", "E - 1000", WELL, bowl(3), edited("energy", lambda e: e - 1000)),
    NearMiss("counts", "+inf below 0", Z, Counts, nothing),
    NearMiss("spins", "the energy is a number at what is no spin", Z, spins(8), nothing),
    NearMiss("declared", "the energy is a number outside of the support", Z, Positive, nothing),
    NearMiss("far_away", "centred 100 from the origin", Z, bowl(2, far=100.0), nothing),
    NearMiss("far_away", "centred 100 from the origin", SAME, bowl(3, Normalised, far=100.0), nothing),
    NearMiss("sixteen", "16 dimensions", SAME, bowl(16, Normalised), nothing),
    NearMiss("another_zero", "E + 1000", STEIN, bowl(4), _higher),
    NearMiss("declared", "the energy is a number outside of the support", STEIN, Positive, nothing),
    NearMiss("counts", "+inf below 0", STEIN, Counts, nothing),
    NearMiss("another_zero", "E + 1000", EXCHANGE, bowl(10), _higher),
    NearMiss("spins", "the energy is a number at what is no spin", EXCHANGE, spins(6), nothing),
    NearMiss("counts", "+inf below 0", EXCHANGE, Counts, nothing),
    NearMiss("eight", "8 dimensions", DRAWN, bowl(8), nothing),
    NearMiss("far_away", "centred 100 from the origin", DRAWN, bowl(6, far=100.0), nothing),
    NearMiss("far_away", "centred 100 from the origin", GRADIENT, bowl(3, far=100.0), nothing),
    NearMiss("sixteen", "16 dimensions", GRADIENT, bowl(16, Normalised, torch.float64), nothing),
    NearMiss("twice", "a covariance and its inverse, each rounded to float32", GRADIENT, Twice, nothing),
    NearMiss("heavy", "a t law with 5 degrees of freedom", PARTS, ScoreAlone, nothing),
    NearMiss("far_away", "centred 100 from the origin", PARTS, bowl(4, far=100.0), nothing),
)
