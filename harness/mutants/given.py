"""Laws given something that are wrong for some of it; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.classifier import Discriminant, Softmax, discriminant, softmax
from harness.mutants.mutant import Change, Mutant, NearMiss
from harness.mutants.structure import nothing


class Completed:
    """The last two of four correlated normal numbers, given the first two: a conditional law alone."""

    given_shape = (2,)

    def __init__(self, weight: float = 0.8):
        self.weight = torch.tensor(weight)

    def observed(self, given: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.tensor([True, True, False, False], device=given.device).expand(len(given), 4)
        return mask, torch.cat([given, torch.zeros_like(given)], 1)

    def sample(self, n: int, *, given: Tensor, generator: torch.Generator) -> Tensor:
        e = torch.randn(n, 2, generator=generator, dtype=given.dtype, device=given.device)
        return torch.cat([given, self.weight * given + (1 - self.weight**2).sqrt() * e], 1)


class Told:
    """y in R, x given y normal around y with the scale exp(y / 2): nothing but laws given y, and no law of y."""

    given_shape = ()

    def __init__(self) -> None:
        self.half = torch.tensor(0.5)

    def log_prob(self, x: Tensor, *, given: Tensor) -> Tensor:
        scale = (self.half * given).exp()
        return -((x - given) / scale).square() / 2 - scale.log() - math.log(2 * math.pi) / 2

    def sample(self, n: int, *, given: Tensor, generator: torch.Generator) -> Tensor:
        return given + (self.half * given).exp() * torch.randn(n, generator=generator, dtype=given.dtype)


def _density(formula: Callable[[Discriminant, Model, Tensor, Tensor], Tensor]) -> Change:
    """The change that gives log p(x | y) by formula(law, model, x, y)."""

    def change(model: Model) -> dict[str, Callable[..., Tensor]]:
        law = model.target
        assert isinstance(law, Discriminant | Softmax | Told)
        return {"log_prob_given": lambda x, *, given: formula(law, model, x, given)}  # type: ignore[arg-type]

    return change


def _sampler(formula: Callable[[Model, int, Tensor, torch.Generator], Tensor]) -> Change:
    """The change that draws x given y by formula(model, n, y, generator)."""
    return lambda model: {"sample_given": lambda n, *, given, generator: formula(model, n, given, generator)}


def _edited(edit: Callable[[Tensor, Tensor], Tensor]) -> Change:
    """The change of draws to edit(draws, y)."""
    return _sampler(lambda m, n, y, g: edit(m.methods["sample_given"](n, given=y, generator=g), y))


def _heard(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """The density as it was."""
    return model.methods["log_prob_given"](x, given=y)


def _correlated(model: Model) -> dict[str, Callable[..., Tensor]]:
    """Draws whose first two coordinates have a correlation of 1/2 where y is 1."""
    law = model.target
    assert isinstance(law, Discriminant)

    def sample_given(n: int, *, given: Tensor, generator: torch.Generator) -> Tensor:
        x = model.methods["sample_given"](n, given=given, generator=generator)
        e, turned = x - law.means[given], x.clone()
        turned[:, 1] += e[:, 0] / 2 - (1 - 0.75**0.5) * e[:, 1]
        return torch.where((given == 1)[:, None], turned, x)

    return {"sample_given": sample_given}


_as_if_for_all = _density(lambda law, m, x, y: m.methods["log_prob"](x))
_joint = _density(lambda law, m, x, y: _heard(m, x, y) + law.class_prior().log()[y])
_heavier_class = _density(lambda law, m, x, y: _heard(m, x, y) + 0.1 * (y == 1))
_of_the_first = _density(lambda law, m, x, y: _heard(m, x, y[:1].expand(len(y))))
_no_number = _density(lambda law, m, x, y: _heard(m, x, y).where(y != 1, math.nan))
_a_column = _density(lambda law, m, x, y: _heard(m, x, y)[:, None])
_drawn_for_the_first = _sampler(lambda m, n, y, g: m.methods["sample_given"](n, given=y[:1].expand(n), generator=g))
_next_label = _sampler(lambda m, n, y, g: m.methods["sample_given"](n, given=(y + 1) % 3, generator=g))
_turned_about = _sampler(lambda m, n, y, g: m.methods["sample_given"](n, given=-y, generator=g))
_beside = _edited(lambda x, y: x + 0.1 * (y == 1)[:, None])
_wider = _edited(lambda x, y: torch.where((y == 1)[:, None], 1.1 * x, x))
_repainted = _edited(lambda x, y: x + torch.tensor([0.0, 1e-3, 0.0, 0.0]))
_apart = _edited(lambda x, y: x + torch.tensor([0.0, 0.0, 3.0, 3.0]))

WELL, MASS, ROWS = "given.well_formed", "given.normalised", "given.row_by_row"
KEPT, REGIONS, STEIN = "given.observed_unchanged", "given.region_masses", "given.stein"
EXCHANGE, BRIDGE_MASS, BRIDGE = "given.exchangeable", "given.bridge_mass", "given.bridge"
ADVERSARY, DRAWN = "given.adversary", "given.sampled_row_by_row"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("no_number", "NaN for one label", WELL, discriminant(), _no_number),
    Mutant("a_column", "a column for a row", WELL, discriminant(), _a_column, error=True),
    Mutant("joint", "p(x, y) for p(x | y)", MASS, discriminant(), _joint),
    Mutant("one_class_heavier", "0.1 nat more for one label", MASS, discriminant(), _heavier_class),
    Mutant("first_row", "the y of the first row for all", ROWS, discriminant(), _of_the_first),
    Mutant("repainted", "an observed pixel + 0.001", KEPT, Completed, _repainted),
    Mutant("turned_about", "draws given -x", REGIONS, softmax(), _turned_about),
    Mutant("deaf_density", "p(x) for p(x | y)", STEIN, discriminant(), _as_if_for_all),
    Mutant("next_label", "draws given the next label", EXCHANGE, discriminant(), _next_label),
    Mutant("one_class_heavier", "0.1 nat more for one label", BRIDGE_MASS, discriminant(3, 8), _heavier_class),
    Mutant("one_class_beside", "draws of one label + 0.1", BRIDGE, discriminant(3, 6), _beside),
    Mutant("one_class_wider", "draws of one label x 1.1", BRIDGE, discriminant(3, 6), _wider),
    Mutant("one_class_correlated", "a correlation of 1/2 for one label", ADVERSARY, discriminant(3, 4), _correlated),
    Mutant("first_row", "draws given the y of the first row", DRAWN, discriminant(), _drawn_for_the_first),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("unequal", "classes of unequal size and scale", WELL, discriminant(4, 3), nothing),
    NearMiss("told", "nothing but laws given a number", WELL, Told, nothing),
    NearMiss("told", "nothing but laws given a number", MASS, Told, nothing),
    NearMiss("labels", "labels given x", MASS, softmax(), nothing),
    NearMiss("float64", "float64", ROWS, discriminant(3, 5, torch.float64), nothing),
    NearMiss("told", "nothing but laws given a number", ROWS, Told, nothing),
    NearMiss("free_part_moved", "what was not observed + 3", KEPT, Completed, _apart),
    NearMiss("labels", "labels given x", REGIONS, softmax(), nothing),
    NearMiss("far_apart", "classes ten scales apart", STEIN, discriminant(3, 2, apart=10.0), nothing),
    NearMiss("told", "nothing but laws given a number", EXCHANGE, Told, nothing),
    NearMiss("eight", "8 dimensions", BRIDGE_MASS, discriminant(3, 8), nothing),
    NearMiss("six", "6 dimensions", BRIDGE, discriminant(3, 6), nothing),
    NearMiss("four", "4 dimensions", ADVERSARY, discriminant(3, 4), nothing),
    NearMiss("unequal", "classes of unequal size and scale", DRAWN, discriminant(4, 3), nothing),
)
