"""How heavy the tails of a model's coordinates are: what an average over draws can say at all, and what it cannot."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.checks.law import NotApplicable
from harness.checks.oracle import oracle_of
from harness.subject import Subject

TAIL_DRAWS, TAIL_TOP = 2**15, 64
"""Draws by which a tail is judged, and how many of them: the outermost two in a thousand."""

FINITE = 1.25
"""A moment of order p is taken for reachable by draws where the tail index is above this times p: the index is known to
1 / sqrt(64) only, and just above p the largest draw still outweighs the others at any number of draws in reach."""

LIGHT = 1.75
"""The same where `moments.clipped_variance_of_draws` stands in: then averages are left to tails that are light."""


def tail_index(subject: Subject) -> Tensor:
    """(d,): Hill's estimate a of the tails P(|x - median| > t) ~ t^-a; infinite for a coordinate of bounded spread.

    1 / a is the average of log(|x| / t) over the draws beyond t (Hill 1975, https://doi.org/10.1214/aos/1176343247). An
    exponential tail has an index that rises with t, about 6 at two in a thousand, and a Gaussian one about 10.
    """
    return subject.once("tail index", lambda: _hill(subject))


def _hill(subject: Subject) -> Tensor:
    size = max(1, subject.pilot[0].numel())
    few = min(TAIL_DRAWS, max(2**12, 2**22 // size))
    x = subject.sample(few, "tail").reshape(few, -1).to("cpu", torch.float64)
    reach = (x - x.nanmedian(0).values).abs()
    top = reach.topk(max(16, TAIL_TOP * few // TAIL_DRAWS) + 1, dim=0).values
    excess = (top[:-1] / top[-1]).log().mean(0)
    index = torch.where(excess > 0, 1 / excess, torch.inf)
    return torch.where(top.isfinite().all(0) & (top[-1] > 0), index, torch.inf)


def reachable(subject: Subject, order: int) -> Tensor:
    """(d,) bool: coordinates whose moments of that order an average over draws can be hoped to find."""
    return tail_index(subject) >= order * (LIGHT if order > 2 and integrated(subject) else FINITE)


def integrated(subject: Subject) -> bool:
    """Can expectations under the density be had exactly, so that bounded numbers may be compared with them?"""
    if not subject.model.can("log_prob"):
        return False
    try:
        oracle_of(subject)
    except NotApplicable:
        return False
    return True


def unreachable(subject: Subject, name: str, instead: str) -> NotApplicable:
    """The reason of the SKIP where no coordinate is left."""
    index = float(tail_index(subject).min())
    return NotApplicable(
        f"the tails are so heavy (index about {index:.2g}) that few of the draws decide such an average: they "
        f"neither confirm nor refute the stated {name}; {instead}"
    )
