"""Laws that need ratios of the density only: the sampler's draws do not change in law under reversible moves.

When x is drawn from p and a kernel is reversible with respect to p, the pair (x, x') is exchangeable, so
E[f(x') - f(x)] = 0 for every f (Gandy & Scott 2021, https://arxiv.org/abs/2001.06465). Neither the normalising constant
nor a reference law enters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from harness import features, moves
from harness.checks.bridge import SOUND
from harness.checks.coarseness import require_resolution
from harness.checks.law import Check, NotApplicable, statistical
from harness.draws import Draws
from harness.numerics.rows import finite_rows
from harness.statistics.accumulator import Accumulator
from harness.statistics.bernstein import BoundedMean, Sums
from harness.subject import Subject

LEAST_MOBILITY = 0.1


def _moved(subject: Subject, z: Tensor, source: torch.Generator) -> Tensor:
    """Coordinates after the kernel: a Hamiltonian trajectory where there is a gradient, else Metropolis steps."""
    if moves.differentiable(subject):
        return moves.hamiltonian(subject, z, source)
    return moves.metropolis(subject, z, moves.log_target(subject, z), source)


def _exchange(subject: Subject, z: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """The pair's other member, with weight 1."""
    return _moved(subject, z, source), torch.ones_like(z[:, 0])


def _barker(subject: Subject, z: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """A proposal, and Barker's acceptance probability of it: a Langevin step where there is a gradient."""
    if moves.differentiable(subject):
        new, energy = moves.trajectory(subject, z, source, leapfrogs=1)
        return new, torch.sigmoid(energy.nan_to_num(-torch.inf))
    moved = moves.propose(subject, z, source)
    here, there = moves.log_target(subject, z), moves.log_target(subject, moved.z)
    return moved.z, torch.where(here.isfinite(), torch.sigmoid(there - here + moved.log_ratio), 0.0)


Step = Callable[
    [Subject, Float64[Tensor, "n d"], torch.Generator], tuple[Float64[Tensor, "n d"], Float64[Tensor, " n"]]
]
"""From coordinates to new ones, and the weight in [0, 1] of each change."""


def sums_of_changes(subject: Subject, z: Tensor, source: torch.Generator, step: Step) -> Sums:
    """Sums over rows of w (f(x') - f(x)) for each column f, and of its squares, a few rows at a time."""
    new, weight = step(subject, z, source)
    total = squares = torch.zeros(1, dtype=torch.float64, device=z.device)
    rows = features.block_rows(subject.profile)
    for before, after, w in zip(z.split(rows), new.split(rows), weight.float().split(rows), strict=True):
        change = features.coordinate_columns(subject, after) - features.coordinate_columns(subject, before)
        total = total + w @ change
        squares = squares + w.square() @ change.square()
    return Sums(len(z), total.cpu(), squares.cpu())


def mobility(subject: Subject, name: str, step: Step) -> float:
    """How far the kernel moves the average f, from pilot draws: 1 for independent draws, 0 when it stands still.

    A defect of size e in E f shows as about e times this, so numbers are divided by it: else a kernel that stands still
    would pass everything.
    """

    def work() -> float:
        z = subject.profile.chart.coordinates(subject.pilot[: 2**11])
        z = z[finite_rows(z)]
        spread = 2 * features.coordinate_columns(subject, z).var(0)
        moved = sums_of_changes(subject, z, subject.generator("mobility", name), step).squares.to(spread) / len(z)
        useful = spread > 1e-3
        share = (moved[useful] / spread[useful]).mean() if bool(useful.any()) else torch.zeros(())
        return float(share.clamp(max=1.0))

    require_resolution(subject)
    share = subject.once(f"mobility of {name}", work)
    if not share >= LEAST_MOBILITY:
        raise NotApplicable(f"the kernel moves draws too little to tell (mobility {share:.3f})")
    return share


def _scaled(name: str, step: Step) -> Callable[[Subject], Accumulator]:
    def start(subject: Subject) -> Accumulator:
        reach = 1.0 / mobility(subject, name, step)
        return BoundedMean(-reach, reach)

    return start


def _changes(draws: Draws, name: str, step: Step) -> Sums:
    subject = draws.subject
    found = sums_of_changes(subject, draws.z, subject.generator(name, draws.index), step)
    scale = mobility(subject, name, step)
    return Sums(found.n, found.total / scale, found.squares / scale**2)


@statistical(
    "sampler.exchangeable",
    needs=("sample", "log_prob"),
    blocked_by=SOUND,
    start=_scaled("exchange", _exchange),
    labels=features.coordinate_labels,
    share=1 / 4,
    tolerance=3.0,
    unit="probability",
    source="Gandy & Scott 2021, https://arxiv.org/abs/2001.06465",
)
def exchangeable(draws: Draws) -> Sums:
    r"""E[f(x') - f(x)] = 0 when x' follows x by a kernel that is reversible with respect to the density.

    Then (x, x') and (x', x) have the same law. The kernel is one Hamiltonian trajectory where the density has a
    gradient, else a few Metropolis steps; f runs over location, scale, tails and values of each coordinate.
    """
    return _changes(draws, "exchange", _exchange)


@statistical(
    "sampler.stein",
    needs=("sample", "log_prob"),
    blocked_by=SOUND,
    start=_scaled("stein", _barker),
    labels=features.coordinate_labels,
    share=1 / 2,
    tolerance=4.0,
    unit="probability",
    source="Barker 1965; Barbour 1988; Hodgkinson, Salomone & Roosta 2020, https://arxiv.org/abs/2001.09266",
)
def stein(draws: Draws) -> Sums:
    r"""E[A f(x)] = 0 for A f(x) = a(x, x') (f(x') - f(x)), a = p(x') / (p(x) + p(x')), x' a symmetric step from x.

    Stein's identity for the generator of Barker's Markov process, the bounded form of E[f' score + f''] = 0: to second
    order in the step they agree, but this one needs no gradient, no tail condition, and no care at a boundary.
    """
    return _changes(draws, "stein", _barker)


CHECKS: tuple[Check, ...] = (stein, exchangeable)
