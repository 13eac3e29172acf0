"""Samplers and densities that disagree on what is possible."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.mutant import Mutant, NearMiss
from harness.mutants.planted import Lattice
from harness.mutants.surface import on_density, on_sampler

lattice = partial(Lattice, 1)


def die() -> object:
    return torch.distributions.Categorical(torch.tensor([0.3, 0.3, 0.37, 0.03]))


class Undeclared:
    """Counts k with P(k) = (1 - r) r^k up to the last, of which no support is declared; beyond, the last one's mass."""

    def __init__(self, r: float, last: int):
        p = (1 - r) * r ** torch.arange(last + 1.0, dtype=torch.float64)
        self.p = p / p.sum()

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.multinomial(self.p, 2 * n, replacement=True, generator=generator).reshape(n, 2)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.p.log()[x.clamp(0, len(self.p) - 1)].sum(1)


def table() -> object:
    """Six values, of which the rarest is drawn too often for a tail that fades out."""
    return Undeclared(0.6, 5)


def tail() -> object:
    return Undeclared(0.9, 200)


def ring() -> object:
    return torch.distributions.Uniform(torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 1.0]))


def positive() -> object:
    return torch.distributions.Exponential(torch.tensor([1.0]))


def counts() -> object:
    return torch.distributions.Poisson(torch.tensor([3.0, 5.0]))


def _sometimes_outside(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator).clone()
    x[torch.rand(n, generator=generator) < 1e-3] = 5.0
    return x


def _one_value_impossible(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x).masked_fill((x == 14).all(1), -torch.inf)


def _mass_above_one(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x) + 2.5


def _infinite(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x).masked_fill((x[:, 0] > 0.9), torch.inf)


def _infinite_at_zero(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x).masked_fill((x == 0).all(1), torch.inf)


def _extrapolated(model: Model, x: Tensor) -> Tensor:
    return -x.sum(1)


def _between_integers(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x.floor())


def _refuses(model: Model, x: Tensor) -> Tensor:
    if bool((x < 0).any()):
        raise ValueError("x must be positive")
    return model.log_prob(x)


def _never_three(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator)
    return torch.where(x == 3, 2, x)


def _never_beyond_thirty(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator)
    return torch.where(x > 30, 0, x)


def _seldom_three(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator)
    return torch.where((x == 3) & (torch.rand(n, generator=generator) < 0.8), 2, x)


def _relabelled(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(3 - x)


def _relabelled_draws(model: Model) -> dict[str, object]:
    return {
        "sample": lambda n, *, generator: 3 - model.sample(n, generator=generator),
        "log_prob": lambda x: model.log_prob(3 - x),
    }


MUTANTS: tuple[Mutant, ...] = (
    Mutant("outside", "1 in 1000 outside", "support.draws_are_possible", ring, on_sampler(_sometimes_outside)),
    Mutant("value_denied", "14 has mass 0", "support.draws_are_possible", lattice, on_density(_one_value_impossible)),
    Mutant("mass_above_one", "masses above 1", "support.density_is_finite", lattice, on_density(_mass_above_one)),
    Mutant("infinite_region", "+inf on a region", "support.density_is_finite", ring, on_density(_infinite)),
    Mutant("extrapolated", "no end at 0", "support.impossible_outside", positive, on_density(_extrapolated)),
    Mutant("between_integers", "2.5 counts as 2", "support.impossible_outside", counts, on_density(_between_integers)),
    Mutant("refuses", "raises outside", "support.impossible_outside", positive, on_density(_refuses)),
    Mutant("never_drawn", "3 % never drawn", "support.every_value_drawn", die, on_sampler(_never_three)),
    Mutant("seldom_drawn", "3 % drawn a fifth as often", "support.every_value_drawn", die, on_sampler(_seldom_three)),
    Mutant("tail_never_drawn", "never above 30", "support.every_value_drawn", tail, on_sampler(_never_beyond_thirty)),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("as_it_is", "nothing", "support.draws_are_possible", ring, lambda model: {}),
    NearMiss("infinite_point", "+inf at one point", "support.density_is_finite", ring, on_density(_infinite_at_zero)),
    NearMiss("as_it_is", "nothing", "support.impossible_outside", counts, lambda model: {}),
    NearMiss("relabelled", "faces renamed in both", "support.every_value_drawn", die, _relabelled_draws),  # type: ignore[arg-type]
    NearMiss("beyond_the_table", "masses beyond a hard edge", "support.every_value_drawn", table, lambda model: {}),
    NearMiss("fading_tail", "as it is", "support.every_value_drawn", lambda: Undeclared(0.5, 40), lambda model: {}),
)
