"""Samplers that miss, repeat or remember the data; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.mutant import Change, Mutant, NearMiss
from harness.mutants.structure import nothing
from harness.mutants.surface import on_sampler

Draw = Callable[[int, torch.Generator], Tensor]


class Law:
    """What can be drawn from, and no more."""

    def __init__(self, draw: Draw):
        self.draw = draw

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.draw(n, generator)


class Imitator(Law):
    """A sampler without a density that is right: its data have the law that it draws from.

    With `held_out`, data() is a table of so many rows; with `learnt`, it says from how many rows it has learnt.
    """

    def __init__(self, draw: Draw, held_out: int = 0, learnt: int = 0):
        super().__init__(draw)
        self.held_out, self.learnt = held_out, learnt
        if learnt:
            self.training_data = lambda: draw(learnt, torch.Generator().manual_seed(1))

    def data(self) -> Any:
        return self.draw(self.held_out, torch.Generator().manual_seed(2)) if self.held_out else Law(self.draw)


def ring(n: int, g: torch.Generator, modes: int = 8, weights: Tensor | None = None) -> Tensor:
    """Modes of deviation 0.05 on the unit circle, with equal weights if none are given."""
    weights = torch.ones(modes) if weights is None else weights
    return around(2 * math.pi * chosen(weights / weights.sum(), n, g) / modes, g)


def chosen(weights: Tensor, n: int, g: torch.Generator) -> Tensor:
    """n numbers with these weights."""
    return torch.searchsorted(weights.cumsum(0), torch.rand(n, generator=g)).clamp(max=len(weights) - 1)


def around(angle: Tensor, g: torch.Generator) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(len(angle), 2, generator=g)


def correlated(n: int, g: torch.Generator, rho: float = 0.5) -> Tensor:
    x, e = torch.randn(2, n, generator=g)
    return torch.stack([x, rho * x + math.sqrt(1 - rho**2) * e], 1)


def bits(n: int, g: torch.Generator) -> Tensor:
    """Six bits, a few hundred of which are all there are."""
    return (torch.rand(n, 6, generator=g) < torch.tensor([0.5, 0.2, 0.8, 0.5, 0.4, 0.1])).long()


def heavy(n: int, g: torch.Generator) -> Tensor:
    """Cauchy."""
    return torch.tan(math.pi * (torch.rand(n, 2, generator=g, dtype=torch.float64) - 0.5))


class LinearGenerator:
    """x = b + A z with standard normal z (n, k), whose data are Gaussian with the same mean and covariance."""

    def __init__(self, weights: Tensor, shift: Tensor):
        self.weights, self.shift = weights, shift  # (d, k), (d,)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, self.weights.shape[1], generator=generator, dtype=self.shift.dtype)
        return self.shift + z @ self.weights.mT

    def mean(self) -> Tensor:
        return self.shift

    def covariance(self) -> Tensor:
        return self.weights @ self.weights.mT

    def data(self) -> Any:
        turned = torch.linalg.qr(self.weights.mT).R.mT  # another generator of the same law
        return _Data(turned, self.shift)


class _Data(LinearGenerator):
    """The data of a linear generator."""

    data = None  # type: ignore[assignment]  # which are what they are


def linear(d: int = 3, k: int = 2, dtype: torch.dtype = torch.float32) -> LinearGenerator:
    source = torch.Generator().manual_seed(5)
    weights, shift = torch.randn(d, k, generator=source), torch.randn(d, generator=source)
    return LinearGenerator(weights.to(dtype), shift.to(dtype))


class Labelled:
    """Labels 0, 1, 2 and x given y normal around (y, -y), alone and on the whole; the data have the same law."""

    def __init__(self, imitates: bool = True):
        if imitates:
            self.data = lambda: Labelled(False)

    def class_prior(self) -> Tensor:
        return torch.tensor([0.2, 0.3, 0.5])

    def sample(self, n: int, *, given: Tensor | None = None, generator: torch.Generator) -> Tensor:
        if given is None:
            given = chosen(self.class_prior(), n, generator)
        return given[:, None] * torch.tensor([1.0, -1.0]) + torch.randn(n, 2, generator=generator)


def _states(covariance: Callable[[Tensor], Tensor]) -> Change:
    return lambda model: {"covariance": lambda: covariance(model.methods["covariance"]())}


def _some_kept(model: Model, n: int, g: torch.Generator, kept: Tensor, share: float, blur: float) -> Tensor:
    """Draws, a share of which are rows that were kept, blurred."""
    x = model.sample(n, generator=g)
    copies = kept[torch.randint(len(kept), (n,), generator=g)].to(x)
    copies = copies + blur * torch.randn(copies.shape, generator=g) if blur else copies
    return torch.where(torch.rand(n, 1, generator=g) < share, copies, x)


def _remembers(share: float, blur: float = 0.0) -> Change:
    return on_sampler(lambda m, n, g: _some_kept(m, n, g, m.methods["training_data"](), share, blur))


def _few_seeds(count: int) -> Change:
    """Draws that are all among so many."""

    def draw(model: Model, n: int, g: torch.Generator) -> Tensor:
        return _some_kept(model, n, g, model.sample(count, generator=torch.Generator().manual_seed(3)), 1.0, 0.0)

    return on_sampler(draw)


def _trained_on(model: Model) -> dict[str, Callable[..., Any]]:
    return {"data": lambda: model.methods["training_data"]()}


def _wider_event(model: Model) -> dict[str, Callable[..., Any]]:
    return {"data": lambda: torch.zeros(1000, 3)}


def _next_label(model: Model) -> dict[str, Callable[..., Tensor]]:
    """Draws of labels 1 and 2 given the other."""

    def swapped(n: int, *, given: Tensor, generator: torch.Generator) -> Tensor:
        return model.sample_given(n, given=torch.where(given > 0, 3 - given, given), generator=generator)

    return {"sample_given": swapped}


def _imitator(draw: Draw, held_out: int = 0, learnt: int = 0) -> Callable[[], object]:
    return lambda: Imitator(draw, held_out, learnt)


_unequal = partial(ring, weights=torch.tensor([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 2.0]))
_one_lost = on_sampler(lambda m, n, g: ring(n, g, weights=torch.tensor([1.0, 1, 1, 1, 1, 0, 1, 1])))
_one_rarer = on_sampler(lambda m, n, g: ring(n, g, weights=torch.tensor([1.0, 1, 1, 1, 1, 0.6, 1, 1])))
_wider = on_sampler(lambda m, n, g: 1.02 * m.sample(n, generator=g))
_much_wider = on_sampler(lambda m, n, g: 1.1 * m.sample(n, generator=g))
_less_correlated = on_sampler(lambda m, n, g: correlated(n, g, 0.47))
_independent = on_sampler(lambda m, n, g: torch.randn(n, 2, generator=g))
_bridged = on_sampler(
    lambda m, n, g: torch.where(
        torch.rand(n, 1, generator=g) < 0.1,
        around(2 * math.pi * torch.rand(n, generator=g), g),
        m.sample(n, generator=g),
    )
)

WELL, W2, MODES = "implicit.data_well_formed", "implicit.gaussian_w2", "implicit.modes_covered"
AGREES, MEMORY, REPEATS = "implicit.agrees_with_data", "implicit.not_memorised", "implicit.not_repeated"
ADVERSARY, EACH = "implicit.adversary", "implicit.agrees_given"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("trained_on", "the rows that it was trained on for data()", WELL, _imitator(ring, 4000, 500), _trained_on),
    Mutant("wider_event", "data() of another shape", WELL, _imitator(ring), _wider_event, error=True),
    Mutant("covariance", "a covariance x 1.02", W2, linear, _states(lambda s: 1.02 * s)),
    Mutant("noise", "noise that the data do not have", W2, linear, _states(lambda s: s + 1e-3 * torch.eye(len(s)))),
    Mutant("one_lost", "one of 8 modes is never drawn", MODES, _imitator(ring), _one_lost),
    Mutant("one_lost_table", "one of 8 modes, of 4,000 rows", MODES, _imitator(ring, 4000), _one_lost),
    Mutant("one_rarer", "one of 8 modes is drawn 0.6 times as often", MODES, _imitator(ring), _one_rarer),
    Mutant("between", "a tenth of the draws anywhere on the circle", MODES, _imitator(ring), _bridged),
    Mutant("wider", "a ring x 1.02", AGREES, _imitator(ring), _wider),
    Mutant("wider_heavy", "Cauchy x 1.1", AGREES, _imitator(heavy), _much_wider),
    Mutant("copies", "draws are training rows", MEMORY, _imitator(ring, 0, 500), _remembers(1.0)),
    Mutant("a_few_copies", "1 in 100 is a training row", MEMORY, _imitator(ring, 20_000, 500), _remembers(0.01)),
    Mutant("near_copies", "training rows, blurred by 0.001", MEMORY, _imitator(ring, 0, 500), _remembers(1.0, 0.001)),
    Mutant("few_seeds", "all draws are among 20,000", REPEATS, _imitator(ring), _few_seeds(20_000)),
    Mutant("independent", "coordinates without their correlation", ADVERSARY, _imitator(correlated), _independent),
    Mutant("correlation", "a correlation of 0.47 for 0.5", ADVERSARY, _imitator(correlated), _less_correlated),
    Mutant("other_label", "draws given the other label", EACH, Labelled, _next_label),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("fresh", "data that were held out", WELL, _imitator(ring, 4000, 500), nothing),
    NearMiss("same_bits", "held-out bits that training rows are equal to", WELL, _imitator(bits, 4000, 500), nothing),
    NearMiss("turned", "the same law of other weights, and singular", W2, linear, nothing),
    NearMiss("float64", "float64, in 6 dimensions", W2, partial(linear, 6, 6, torch.float64), nothing),
    NearMiss("unequal", "modes of unequal weights", MODES, _imitator(_unequal), nothing),
    NearMiss("bits", "bits", MODES, _imitator(bits), nothing),
    NearMiss("ring", "a ring of 8 modes", AGREES, _imitator(ring), nothing),
    NearMiss("heavy", "Cauchy", AGREES, _imitator(heavy), nothing),
    NearMiss("bits", "bits", AGREES, _imitator(bits), nothing),
    NearMiss("learnt", "trained on 500 rows, and right", MEMORY, _imitator(ring, 0, 500), nothing),
    NearMiss("same_bits", "bits that training rows are equal to", MEMORY, _imitator(bits, 0, 500), nothing),
    NearMiss("ring", "a ring of 8 modes", REPEATS, _imitator(ring), nothing),
    NearMiss("bits", "bits", REPEATS, _imitator(bits), nothing),
    NearMiss("correlated", "two correlated coordinates", ADVERSARY, _imitator(correlated), nothing),
    NearMiss("heavy", "Cauchy", ADVERSARY, _imitator(heavy), nothing),
    NearMiss("labels", "three labels", EACH, Labelled, nothing),
)
