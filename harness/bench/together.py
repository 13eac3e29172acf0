r"""What the runs of one commit have in common: the machine of that hour, not the code of one benchmark.

Benchmarks of one commit are measured one after the other. A processor that runs at another frequency, or a neighbour
that is busy, moves all of them, or scatters all of them. So of each commit is taken

    shift_t = the median over series of (y_it - median of y_i), weighted by 1 / max(s_i, median of s),

which is subtracted from every series, and

    scatter_t = by how much the variance over series of the differences between the runs from t on and those before,
    in units of their noise, exceeds what it is at the other commits,

which is added to what a step at this commit must exceed. A step in fewer than half of the series moves neither by much.
A step of the shift is one that all series share: code or machine, which only another measurement can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median

import numpy as np

from harness.bench.dependence import MEDIAN
from harness.bench.noise import FEWEST_SERIES

BEFORE, AFTER = 4, 2
"""Runs whose medians are compared at a commit, where there are so many."""

SURE = 1e-4
"""Probability of more scatter than that by chance, below which it is none."""

EFFICIENCY = 0.37
"""A median of squares is worth so many of a mean of them."""

Logs = Mapping[str, float]
"""Of one series, by commit."""


@dataclass(frozen=True)
class Together:
    """By commit; nothing where the series are too few to know."""

    shift: dict[str, float] = field(default_factory=dict)
    scatter: dict[str, float] = field(default_factory=dict)  # in units of the variance of a run

    def without(self, logs: Logs) -> list[float]:
        """A series without what it shares with the others."""
        return [y - self.shift.get(commit, 0.0) for commit, y in logs.items()]


def shared_shift(series: Sequence[Logs], deviations: Sequence[float]) -> dict[str, float]:
    """shift_t, in the order of the commits; empty for fewer than FEWEST_SERIES series."""
    if len(series) < FEWEST_SERIES:
        return {}
    weights = 1 / np.maximum(deviations, np.median(deviations))
    moved: dict[str, list[tuple[float, float]]] = {}
    for logs, weight in zip(series, weights, strict=True):
        middle = median(logs.values())
        for commit, y in logs.items():
            moved.setdefault(commit, []).append((y - middle, float(weight)))
    return {commit: _weighted_median(found) for commit, found in moved.items() if len(found) >= FEWEST_SERIES}


def _weighted_median(found: Sequence[tuple[float, float]]) -> float:
    ordered = sorted(found)
    reached = np.cumsum([weight for _, weight in ordered])
    return ordered[int(np.searchsorted(reached, reached[-1] / 2))][0]


def shared_scatter(series: Sequence[Logs]) -> dict[str, float]:
    """scatter_t of series in units of their own noise, without the shift; nothing where it is within chance."""
    away: dict[str, list[float]] = {}
    share: dict[str, float] = {}
    for logs in series:
        y, commits = list(logs.values()), list(logs)
        for k in range(1, len(y)):
            before, after = y[max(0, k - BEFORE) : k], y[k : k + AFTER]
            share[commits[k]] = 1 / len(before) + 1 / len(after)
            away.setdefault(commits[k], []).append((median(after) - median(before)) / share[commits[k]] ** 0.5)
    squares = {t: median(each**2 for each in found) / MEDIAN for t, found in away.items()}
    usual = median(squares.values()) if squares else 0.0
    return {
        t: share[t] * (square - usual)
        for t, square in squares.items()
        if len(away[t]) >= FEWEST_SERIES and square > usual * _by_chance(EFFICIENCY * len(away[t]))
    }


@cache
def _by_chance(freedom: float) -> float:
    """The largest share of a variance that its estimate reaches."""
    from scipy.stats import chi2

    return float(chi2.isf(SURE, freedom)) / freedom
