"""Draws that do not follow a score, or an energy, in how their coordinates depend; and right ones that look odd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import constraints

from harness.model import Model
from harness.mutants.energy import Bowl, ScoreAlone, bowl, edited
from harness.mutants.mutant import Mutant, NearMiss
from harness.mutants.structure import nothing


class Modes:
    """Three modes in the plane by their energy alone, of weights 0.5, 0.3 and 0.2."""

    support = constraints.real_vector

    def __init__(self) -> None:
        self.means = torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, -2.5]])
        self.weights = torch.tensor([0.5, 0.3, 0.2])

    def energy(self, x: Tensor) -> Tensor:
        squares = (x[:, None] - self.means.to(x)).square().sum(-1)
        return -(self.weights.to(x).log() - squares / 2).logsumexp(1)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        y = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        return self.means[y] + torch.randn(n, 2, generator=generator)


class Steps:
    """An energy that is flat between jumps, whose draws are uniform on unit squares of two heights."""

    support = constraints.real_vector

    def __init__(self) -> None:
        self.depth = torch.tensor(1.0)

    def energy(self, x: Tensor) -> Tensor:
        return self.depth * (x[:, 0] > 0) + 0.0 * x.sum(1) + 40.0 * ((x.abs() > 1).any(1))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        p = 1 / (1 + self.depth.exp())
        right = torch.rand(n, generator=generator) < p
        u = torch.rand(n, 2, generator=generator)
        return torch.stack([torch.where(right, u[:, 0], -u[:, 0]), 2 * u[:, 1] - 1], 1)


def _independent(model: Model) -> dict[str, Callable[..., Tensor]]:
    """Draws with the right mean and variance of each coordinate, and no correlation."""
    law = model.target
    assert isinstance(law, Bowl)
    spread = torch.linalg.inv(law.factor @ law.factor.mT).diagonal().sqrt()

    def sample(n: int, *, generator: torch.Generator) -> Tensor:
        return law.location + spread * torch.randn(n, len(spread), generator=generator, dtype=spread.dtype)

    return {"sample": sample}


def _one_mode_wider(model: Model) -> dict[str, Callable[..., Tensor]]:
    """Draws of the third mode 1.5 times as far from its centre."""
    law = model.target
    assert isinstance(law, Modes)

    def sample(n: int, *, generator: torch.Generator) -> Tensor:
        y = torch.multinomial(law.weights, n, replacement=True, generator=generator)
        return law.means[y] + (1 + 0.5 * (y == 2)[:, None]) * torch.randn(n, 2, generator=generator)

    return {"sample": sample}


SCORE, ENERGY = "score.kernel_stein", "energy.kernel_stein"


class Without(Bowl):
    """The bowl by its energy alone."""

    score = None  # type: ignore[assignment]
    support = constraints.real_vector


MUTANTS: tuple[Mutant, ...] = (
    Mutant("uncorrelated", "draws without correlations", SCORE, bowl(3), _independent),
    Mutant("gaussian_draws", "draws of variance 5/3, not of a t law", SCORE, ScoreAlone, lambda m: {"sample": _normal}),
    Mutant("beside", "draws + 0.2", SCORE, bowl(5), edited("sample", lambda x: x + 0.2)),
    Mutant("uncorrelated", "draws without correlations", ENERGY, bowl(3, Without), _independent),
    Mutant("wider", "draws x 1.15", ENERGY, bowl(4, Without), edited("sample", lambda x: 1.15 * x)),
    Mutant("one_mode_wider", "draws of one mode x 1.5", ENERGY, Modes, _one_mode_wider),
)


def _normal(n: int, *, generator: torch.Generator) -> Tensor:
    return (5 / 3) ** 0.5 * torch.randn(n, 3, generator=generator)


NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("heavy", "a t law with 5 degrees of freedom", SCORE, ScoreAlone, nothing),
    NearMiss("far_away", "centred 100 from the origin", SCORE, bowl(4, far=100.0), nothing),
    NearMiss("sixteen", "16 dimensions", SCORE, bowl(16), nothing),
    NearMiss("modes", "three modes", ENERGY, Modes, nothing),
    NearMiss("another_zero", "E + 1000", ENERGY, bowl(3, Without), edited("energy", lambda e: e + 1000)),
    NearMiss("far_away", "centred 100 from the origin", ENERGY, bowl(4, Without, far=100.0), nothing),
)
