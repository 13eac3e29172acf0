"""Laws that need ratios of the density only: the sampler's draws do not change in law under reversible moves.

When x is drawn from p and a kernel is reversible with respect to p, the pair (x, x') is exchangeable, so
E[f(x') - f(x)] = 0 for every f (Gandy & Scott 2021, https://arxiv.org/abs/2001.06465). Neither the normalising constant
nor a reference law enters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from harness import features, moves
from harness.checks.bridge import SOUND
from harness.checks.coarseness import require_resolution
from harness.checks.law import Check, NotApplicable, statistical
from harness.draws import Draws
from harness.statistics.accumulator import Accumulator
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

LEAST_MOBILITY = 0.1


def _moved(subject: Subject, z: Tensor, source: torch.Generator) -> Tensor:
    """Coordinates after the kernel: a Hamiltonian trajectory where there is a gradient, else Metropolis steps."""
    if moves.differentiable(subject):
        return moves.hamiltonian(subject, z, source)
    return moves.metropolis(subject, z, moves.log_target(subject, z), source)


def _barker(subject: Subject, z: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """A proposal, and Barker's acceptance probability of it: a Langevin step where there is a gradient."""
    if moves.differentiable(subject):
        new, energy = moves.trajectory(subject, z, source, leapfrogs=1)
        return new, torch.sigmoid(energy.nan_to_num(-torch.inf))
    moved = moves.propose(subject, z, source)
    here, there = moves.log_target(subject, z), moves.log_target(subject, moved.z)
    return moved.z, torch.where(here.isfinite(), torch.sigmoid(there - here + moved.log_ratio), 0.0)


def _exchange(subject: Subject, z: Tensor, source: torch.Generator) -> Tensor:
    """(n, k): f(x') - f(x) for each column f."""
    return features.coordinate_columns(subject, _moved(subject, z, source)) - features.coordinate_columns(subject, z)


def _generator(subject: Subject, z: Tensor, source: torch.Generator) -> Tensor:
    """(n, k): Barker's acceptance times f(x') - f(x)."""
    new, accept = _barker(subject, z, source)
    return accept.float()[:, None] * (
        features.coordinate_columns(subject, new) - features.coordinate_columns(subject, z)
    )


Differences = Callable[[Subject, Float64[Tensor, "n d"], torch.Generator], Float[Tensor, "n k"]]


def mobility(subject: Subject, name: str, differences: Differences) -> float:
    """How far the kernel moves the average f, from pilot draws: 1 for independent draws, 0 when it stands still.

    A defect of size e in E f shows as about e times this, so numbers are divided by it: else a kernel that stands still
    would pass everything.
    """

    def work() -> float:
        z = subject.profile.chart.coordinates(subject.pilot[: 2**11])
        z = z[z.isfinite().all(1)]
        spread = 2 * features.coordinate_columns(subject, z).var(0)
        moved = differences(subject, z, subject.generator("mobility", name)).square().mean(0)
        useful = spread > 1e-3
        share = (moved[useful] / spread[useful]).mean() if bool(useful.any()) else torch.zeros(())
        return float(share.clamp(max=1.0))

    require_resolution(subject)
    share = subject.once(f"mobility of {name}", work)
    if not share >= LEAST_MOBILITY:
        raise NotApplicable(f"the kernel moves draws too little to tell (mobility {share:.3f})")
    return share


def _scaled(name: str, differences: Differences) -> Callable[[Subject], Accumulator]:
    def start(subject: Subject) -> Accumulator:
        reach = 1.0 / mobility(subject, name, differences)
        return BoundedMean(-reach, reach)

    return start


def _numbers(draws: Draws, name: str, differences: Differences) -> Tensor:
    subject = draws.subject
    source = subject.generator(name, draws.index)
    return differences(subject, draws.z, source) / mobility(subject, name, differences)


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
def exchangeable(draws: Draws) -> Float[Tensor, "n k"]:
    r"""E[f(x') - f(x)] = 0 when x' follows x by a kernel that is reversible with respect to the density.

    Then (x, x') and (x', x) have the same law. The kernel is one Hamiltonian trajectory where the density has a
    gradient, else a few Metropolis steps; f runs over location, scale, tails and values of each coordinate.
    """
    return _numbers(draws, "exchange", _exchange)


@statistical(
    "sampler.stein",
    needs=("sample", "log_prob"),
    blocked_by=SOUND,
    start=_scaled("stein", _generator),
    labels=features.coordinate_labels,
    share=1 / 2,
    tolerance=4.0,
    unit="probability",
    source="Barker 1965; Barbour 1988; Hodgkinson, Salomone & Roosta 2020, https://arxiv.org/abs/2001.09266",
)
def stein(draws: Draws) -> Float[Tensor, "n k"]:
    r"""E[A f(x)] = 0 for A f(x) = a(x, x') (f(x') - f(x)), a = p(x') / (p(x) + p(x')), x' a symmetric step from x.

    Stein's identity for the generator of Barker's Markov process, the bounded form of E[f' score + f''] = 0: to second
    order in the step they agree, but this one needs no gradient, no tail condition, and no care at a boundary.
    """
    return _numbers(draws, "stein", _generator)


CHECKS: tuple[Check, ...] = (stein, exchangeable)
