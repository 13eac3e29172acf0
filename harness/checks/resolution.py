r"""Draws as fine as their dtype: rounded, quantised and half-precision samplers.

Sort a block of draws of one coordinate. Of two neighbours closer than R = 16 units in the last place (of the larger of
|x| and the coordinate's own size), a sampler as fine as its dtype makes one pair equal for every 16 that differ. A
coarse one repeats many values and has nothing between them. So a block is called coarse when

* more distinct values are repeated in it than there are gaps between 0 and R, by three or more; or
* at least eight distinct values occur, and more than half of them are numbers of half the precision.

For a smooth density, neighbours closer than R are equal with probability 1/16 at most, independently, so three repeated
values without a narrow gap have probability 16^-3; where the dtype itself is coarse, as it is for 10^6 +- 1 in float32,
each repeated value has its neighbours one unit away. An atom counts once, and the ends of an interval once each.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.checks.law import Check, NotApplicable, statistical
from harness.draws import Draws
from harness.statistics.accumulator import Accumulator
from harness.statistics.binomial import BinomialCount
from harness.subject import Subject

BLOCK = 1024
NARROW = 16
MARGIN = 3
DISTINCT = 8
COARSE_BY_CHANCE = 0.01
"""Probability that a block of a smooth law is called coarse: 16^-3 = 0.0002, with a margin for densities that are not
smooth on the scale of R."""

MOST_COORDINATES = 64

HALVES = {torch.float64: (torch.float32,), torch.float32: (torch.float16, torch.bfloat16)}


def _start(subject: Subject) -> Accumulator:
    if not subject.pilot.is_floating_point() or not len(_coordinates(subject)):
        raise NotApplicable("events have no continuous coordinates")
    p = torch.full((len(_coordinates(subject)),), COARSE_BY_CHANCE / 2, dtype=torch.float64)
    return BinomialCount(p, uncertainty=COARSE_BY_CHANCE / 2)


def _coordinates(subject: Subject) -> Tensor:
    """The continuous coordinates of the flattened event, or 64 of them chosen by the seed."""
    discrete = subject.profile.chart.discrete
    if len(discrete) != subject.pilot[0].numel():  # a chart of free coordinates: all are continuous
        discrete = torch.zeros(subject.pilot[0].numel(), dtype=torch.bool)
    chosen = (~discrete).nonzero().flatten().cpu()
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(subject.seed_for("resolution")))
    return chosen[order[:MOST_COORDINATES]].sort().values


@statistical(
    "sample.resolution",
    needs=("sample",),
    blocked_by=("sample.finite", "sample.not_repeated"),
    start=_start,
    labels=lambda subject: [f"coordinate {j}" for j in _coordinates(subject).tolist()],
    tolerance=16.0,
    share=1 / 2,
    unit="of the blocks of draws",
)
def sample_uses_its_dtype(draws: Draws) -> Tensor:
    """P(a block of 1024 draws is coarser than its dtype) <= 0.01.

    Coarse: it repeats more values than there are gaps below 16 units in the last place, or more than half of its values
    are numbers of half the precision. That finds float16 inside float32, float32 inside float64, rounding to decimals,
    bins, a uniform of 16 bits behind an inverse distribution function. A block with at least three more repeated values
    than narrow gaps has probability 16^-3 for a smooth density.
    """
    x = draws.x.reshape(draws.n, -1)[:, _coordinates(draws.subject).to(draws.x.device)]
    blocks = x[: max(1, draws.n // BLOCK) * BLOCK].split(BLOCK)
    return torch.stack([coarse(block) for block in blocks]).float()


def coarse(block: Tensor) -> Tensor:
    """(k,) bool for a block (n, k) of draws."""
    value = _sorted(block.T.contiguous())  # (k, n)
    size = (value - value.median(1, keepdim=True).values).abs().median(1, keepdim=True).values
    unit = torch.finfo(value.dtype).eps * torch.maximum(value.abs(), size)
    gap, reach = value.diff(dim=1), NARROW * torch.maximum(unit[:, 1:], unit[:, :-1])
    new = gap > 0
    equal = ~new
    repeated = (equal[:, 1:] & new[:, :-1]).sum(1) + equal[:, 0]  # runs of equal values
    narrow = (new & (gap <= reach)).sum(1)
    distinct = 1 + new.sum(1)
    halved = torch.zeros_like(equal[:, 0])
    for half in HALVES.get(value.dtype, ()):
        exact = value.to(half).to(value.dtype) == value
        halved |= 2 * ((exact[:, 1:] & new).sum(1) + exact[:, 0]) > distinct
    return (repeated >= narrow + MARGIN) | (halved & (distinct >= DISTINCT))


def _sorted(rows: Tensor) -> Tensor:
    """Each row in order. On the CPU numpy's vectorised sort is twenty times as fast as torch's."""
    if rows.device.type == "cpu" and rows.dtype in HALVES:
        return torch.from_numpy(np.sort(rows.numpy(), axis=1))
    return rows.sort(1).values


CHECKS: tuple[Check, ...] = (sample_uses_its_dtype,)
