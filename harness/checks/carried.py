"""What a statistical check leaves for later runs: the sums of its statistic, with what arithmetic may move them by.

One run cannot see a mean that rounding moves by 1e-5; a thousand can. So what later runs go on from allows for it: for
as much as `density.integrates_to_one` allows of a mass, by the precision that the log-densities are measured to have.
"""

from __future__ import annotations

import torch

from harness.cells import FINE, spacing
from harness.checks.law import StatisticalCheck
from harness.checks.oracle import OPERATIONS, typical_rounding
from harness.evidence import Carried
from harness.statistics.accumulator import Accumulator
from harness.statistics.carried import Carries
from harness.streams import seed_for
from harness.subject import Subject

MOST_KEPT = 128
"""Quantities of which sums are kept. Of more, as many chosen by the seed: in the long run each has its turn."""

DRAWN = frozenset({"sample", "sample_given", "data", "training_data"})
"""Capabilities that give events: comparisons of these alone rest on no formula of the model's."""


def carried_by(check: StatisticalCheck, statistic: Accumulator, subject: Subject) -> Carried | None:
    """What the statistic leaves for later runs: nothing, where it is asymptotic or they would see the same again.

    Which quantities are kept is settled by the seed and their number, never by what was drawn.
    """
    if check.asymptotic or not isinstance(statistic, Carries) or getattr(statistic, "reused", False):
        return None
    allowed = doubt(check, subject)
    rows = statistic.carried(allowed)
    kept = _kept(len(rows), seed_for(subject.seed, "carried", check.id))
    return Carried(statistic.allowing(allowed), len(rows), tuple(kept.tolist()), *map(tuple, rows[kept].T.tolist()))


def _kept(count: int, seed: int) -> torch.Tensor:
    if count <= MOST_KEPT:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:MOST_KEPT].sort().values


def doubt(check: StatisticalCheck, subject: Subject) -> float:
    """By which part of the largest number the arithmetic, of the model and of the examiner, may move a mean.

    A log-density that is off by e moves a probability by e at most. Sums are made in float32 in places, and events are
    rounded: by a spacing s, which moves probabilities by s where draws stay on their grid, by s^2 where they are spread
    over their cells.
    """
    return subject.once(f"doubt of {check.id}", lambda: _doubt(check, subject))


def _doubt(check: StatisticalCheck, subject: Subject) -> float:
    own = OPERATIONS * torch.finfo(torch.float32).eps
    if DRAWN.issuperset(check.needs):
        return own
    step = spacing(subject)
    rounded = step if step <= FINE else step**2
    return max(own, _of_densities(check, subject)) + rounded


def _of_densities(check: StatisticalCheck, subject: Subject) -> float:
    """In nats, on average. Of densities that are not asked for, a nat for each coordinate is supposed."""
    if "log_prob" in check.needs:
        return typical_rounding(subject)
    dtype = subject.pilot.dtype if subject.pilot.is_floating_point() else torch.float32
    return 4 * OPERATIONS * torch.finfo(dtype).eps * (1 + subject.profile.size)
