r"""Sums that go on from night to night, so that a bias is found after draws that grow like 1 / bias^2.

A statistic that stopped leaves, of each quantity and side, sums :math:`S = \sum y_i` and :math:`Q = \sum y_i^2` of
numbers :math:`y \ge -1` that have a mean of at most 0 under the law, given all that came before
(`harness.statistics.carried`). The mixture of :math:`\exp\{\lambda S - \psi(\lambda) Q\}` over a fixed grid of
:math:`\lambda` is then a supermartingale in the draws of all nights together, wherever each night stopped, and learns
the deviation once. The average over quantities and sides is one too. After n draws with a mean of :math:`\mu` and a
variance of v of the y it is about :math:`n \mu^2 / 2v`, less the log of how many there are and some five nats for the
grid, for however small a :math:`\mu`.

*Quantities that change.* A law may watch other numbers of quantities on other nights. Those of each number make a
layout of their own, with a part of the capital that is set aside before the first draw: :math:`6 / (\pi g)^2` for the
g-th that comes, which sums to 1. Which layout a night has is settled before its draws. A quantity that a night left out
stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness.evidence import Carried
from harness.statistics.bernstein import log_mixture
from suites.nightly.accumulate import log_sum, spent

MOST_LAYOUTS = 16
"""Layouts of a check that are kept; later ones add nothing."""


@dataclass(frozen=True)
class Layout:
    """Of each quantity, the sums of all nights, above the law's value and below it."""

    above: tuple[float, ...]
    above_squares: tuple[float, ...]
    below: tuple[float, ...]
    below_squares: tuple[float, ...]


def gone_on(layouts: Sequence[Layout], night: Carried) -> tuple[Layout, ...]:
    """The layouts after one more night."""
    place = next((i for i, layout in enumerate(layouts) if len(layout.above) == night.of), len(layouts))
    if place == MOST_LAYOUTS:
        return tuple(layouts)
    before = layouts[place] if place < len(layouts) else Layout(*[(0.0,) * night.of] * 4)
    after = Layout(
        _added(before.above, night.kept, night.above),
        _added(before.above_squares, night.kept, night.above_squares),
        _added(before.below, night.kept, night.below),
        _added(before.below_squares, night.kept, night.below_squares),
    )
    return (*layouts[:place], after, *layouts[place + 1 :])


def _added(sums: Sequence[float], kept: Sequence[int], more: Sequence[float]) -> tuple[float, ...]:
    every = list(sums)
    for place, value in zip(kept, more, strict=True):
        every[place] += value
    return tuple(every)


def log_capital(layouts: Sequence[Layout]) -> float:
    """log of what the sums have made of 1; NaN once a sum is."""
    shares = [spent(1.0, g) for g in range(1, len(layouts) + 1)]
    made = [float(log_average(_columns(layout))) for layout in layouts]
    terms = [math.log(share) + log for share, log in zip(shares, made, strict=True)]
    return log_sum([math.log(1 - math.fsum(shares)), *terms])


def log_average(columns: torch.Tensor) -> torch.Tensor:
    """log of the average over quantities and sides, of sums (..., k, 4) in the order of a `Layout`; (...)."""
    logs = torch.cat(_logs(columns), -1)
    return torch.logsumexp(logs, -1) - math.log(logs.shape[-1])


def _logs(columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log of what sums (..., k, 4) have made of 1, above the law's value and below it; (..., k)."""
    above, above_squares, below, below_squares = columns.flatten(0, -2).unbind(-1)
    sides = log_mixture(above, above_squares), log_mixture(below, below_squares)
    return sides[0].reshape(columns.shape[:-1]), sides[1].reshape(columns.shape[:-1])


def _columns(layout: Layout) -> torch.Tensor:
    """(k, 4)"""
    return torch.tensor((layout.above, layout.above_squares, layout.below, layout.below_squares), dtype=torch.float64).T


def suspect(layouts: Sequence[Layout]) -> str:
    """The quantity with the strongest evidence against it, in words; empty before the first night."""
    if not layouts:
        return ""
    logs = max((torch.stack(_logs(_columns(layout))) for layout in layouts), key=lambda each: float(each.max()))
    side, place = divmod(int(logs.argmax()), logs.shape[1])
    return f"quantity {place + 1} of {logs.shape[1]} is too {('high', 'low')[side]}"
