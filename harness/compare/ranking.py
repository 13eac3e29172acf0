"""Ranks that say no more than the test rows do: ties are ties.

For models a and b the NLL of the same n test rows is compared row by row, so that the rows' own difficulty cancels:

    mean_i (nll_a,i - nll_b,i)  +-  t(1 - delta / (2 m), n - 1) s / sqrt(n),      m = k (k - 1) / 2 pairs of k models.

By the union bound (Bonferroni) all m intervals hold together with probability 1 - delta, whichever model turned out
best; each rests on a central-limit argument. The model of least mean NLL leads the first group; with it tie all whose
interval to it holds 0. The best of the rest leads the next group. Lower is better.

Where every model was trained from S seeds, nll_a,i is its mean over them, and the same interval of the S differences of
the models' means is added to that of the rows, each of the two with delta / 2. What is left to the training's chance
makes a tie, as what is left to the rows' does. Few seeds say little: among five models the half width is 180 standard
deviations of those differences with 2 seeds, 11.5 with 3, 3 with 5, and 1.3 with 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DELTA = 0.05
"""Probability that any of the intervals misses its difference."""

RULE = (
    "paired t intervals of all pairs of ranked models, together at 95 % (Bonferroni); models whose interval to the "
    "best of their group holds 0 tie with it"
)


RULE_OF_SEEDS = (
    f"{RULE}; an interval is that of the test rows (of means over seeds), widened by that of the seeds (of means over "
    "rows)"
)

Points = Sequence[float] | Sequence[Sequence[float]]
"""The NLL at each test row [n], or at each seed and test row [seeds, n]."""


@dataclass(frozen=True)
class Interval:
    """A mean in nats, and the ends of its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Place:
    """`rank` counts the models of better groups, plus one; `gap` is the difference to the best of all."""

    rank: int
    tied: bool
    leader: str
    gap: Interval


def half_width(values: np.ndarray, delta: float) -> float:
    """t(1 - delta / 2, n - 1) s / sqrt(n); infinite for a single value."""
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        return float("inf")
    return float(stdtrit(n - 1, 1 - delta / 2) * values.std(ddof=1) / np.sqrt(n))


def mean_interval(values: Points, delta: float = DELTA) -> Interval:
    """The mean NLL of one model with its own interval: that of the test rows, and seeds, not of a comparison."""
    return _interval(np.asarray(values, dtype=np.float64), delta)


def _interval(values: np.ndarray, delta: float) -> Interval:
    """Of rows [n], or of seeds and rows [seeds, n]: the half widths of both together."""
    mean = float(values.mean())
    if values.ndim == 1 or len(values) == 1:
        half = half_width(values.reshape(-1), delta)
    else:
        half = half_width(values.mean(0), delta / 2) + half_width(values.mean(1), delta / 2)
    return Interval(mean, mean - half, mean + half)


def places(points: Mapping[str, Points], delta: float = DELTA) -> dict[str, Place]:
    """A place for each model, best first. ValueError where the models were not asked at the same rows and seeds."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in points.items()}
    if len({values.shape for values in arrays.values()}) > 1:
        raise ValueError("models were asked at different numbers of test rows, or seeds: compare them on the same data")
    waiting = sorted(arrays, key=lambda name: (arrays[name].mean(), name))
    pairs = max(1, len(waiting) * (len(waiting) - 1) // 2)
    found: dict[str, Place] = {}
    best = waiting[0] if waiting else ""
    while waiting:
        leader = waiting[0]
        group = [name for name in waiting if not _gap(arrays, name, leader, delta / pairs).low > 0]
        rank = len(found) + 1
        for name in group:
            gap = _gap(arrays, name, best, delta / pairs)
            found[name] = Place(rank, len(group) > 1, leader, gap)
        waiting = [name for name in waiting if name not in group]
    return found


def _gap(arrays: Mapping[str, np.ndarray], name: str, other: str, delta: float) -> Interval:
    return _interval(arrays[name] - arrays[other], delta) if name != other else Interval(0.0, 0.0, 0.0)


def dominated(costs: Mapping[str, Sequence[float | None]]) -> dict[str, bool]:
    """Is another model at least as good in everything, and better in something? A figure that is missing decides
    nothing: such a model neither dominates nor is dominated."""
    whole = {name: values for name, values in costs.items() if None not in values}
    return {
        name: name in whole and any(_beats(other, whole[name]) for key, other in whole.items() if key != name)
        for name in costs
    }


def _beats(a: Sequence[float | None], b: Sequence[float | None]) -> bool:
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)
