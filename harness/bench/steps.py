r"""Where a series takes a step that is beyond its noise: few points each, many series, a stated level over all of them.

A series y_1, ..., y_n (logarithms) is a sum of levels and noise. A step between b points and the a next ones is one of
which the difference of the levels, medians both, exceeds (`Bar.needed`)

    what matters                                     the policy
    s Student(level, d) sqrt(V(b, a) + scatter)      noise, whatever its dependence from commit to commit
    s z(min(a, b), level)                            runs that were disturbed, as often and as long as the history shows

with s^2 the variance of a run (`noise.py`), V its dependence (`dependence.py`), scatter that of the commit
(`together.py`) and z the tail (`tail.py`). Of U series, a level of m points in a series of n is judged at

    level(m) = alpha / (U H m ends),        H = 1 + 1 / 2 + ... + 1 / (n / 2),

`ends` being 1 of the newest run alone and 2 of longer levels, which may be the first ones or the newest: summed over m
and all series that is alpha, the probability that a history without a step is said to have got worse. (A false step
within a series goes back, and is no loss that stands.) What this rests on:

- noise of any dependence and, up to Student's tail of three degrees of freedom, of any law, with increments that are
  stationary; the same for all series of a kind but for its size; so is what disturbs single runs, alone or in bursts;
- shifts of the machine that half of the series of a kind share or more, where there are FEWEST_SERIES at least;
- noise that moves a single series for good, as seldom as code does, is a step of that series: no rule tells them apart.

A level that lasts for one commit is an excursion and no step. The newest run alone may be one that has yet to last: it
is judged only after FEWEST_BEFORE others, as a disturbance that comes once in n commits meets it, and nothing before
that would warn, with probability up to 1 / (e n). In a shorter history the newest level has NEWEST runs at least.

What was split is searched again, so several steps are found. Of these, those are reported that bring the level further
from the one last reported than what does not matter: small losses add up until they matter.
`suites/speed/judge_noise.py` measures what false alarms are left, also of noise that the rule was not made for.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from harness.bench.dependence import Dependence
from harness.bench.noise import Noise, freedom_of_product, quantile
from harness.bench.tail import Tail

FEWEST_BEFORE = 15
"""Runs before the newest, for it to be judged alone."""

NEWEST = 3
"""Runs of the newest level without."""

FOUND = 0.99
"""Of steps as large as `Bar.missed`, so many are found."""


@dataclass(frozen=True)
class Step:
    """The level rises (falls) by `size` before point `first`; `needed` is what would just have been reported."""

    first: int
    size: float
    needed: float
    before: float  # the level
    after: float


@dataclass(frozen=True)
class Bar:
    """What a step of one series must exceed. `alpha` is the series' own share over H; `tail` is None where runs are not
    disturbed; `scatter`, by point, is that of its commit, in units of the variance of a run."""

    noise: Noise
    alpha: float
    policy: float
    dependence: Dependence
    tail: Tail | None = None
    scatter: Sequence[float] = ()
    known: dict[tuple[int, int, float], float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shortest(self) -> int:
        """Points of a level."""
        return 1 if self.tail is None else 2

    def newest(self, n: int) -> int:
        """Points of the newest level of a series of n."""
        return 1 if n > FEWEST_BEFORE or self.tail is None else NEWEST

    def level(self, points: int) -> float:
        """The probability that a level of so many points is allowed to be wrong."""
        return self.alpha / (points * (1 if points < self.shortest else 2))

    def needed(self, before: int, after: int, first: int = -1) -> float:
        """The size between levels of so many points, the second of which begins at point `first`."""
        scatter = self.scatter[first] if 0 <= first < len(self.scatter) else 0.0
        key = before, after, scatter
        if key not in self.known:
            level = self.level(min(before, after))
            freedom = freedom_of_product(self.noise[1], self.dependence.variance(before, after)[1])
            least = quantile(level, freedom) * self.deviation(before, after, scatter)
            self.known[key] = max(least, self._disturbed(min(before, after), level))
        return self.known[key]

    def missed(self, before: int, after: int) -> float:
        """The largest step that could have been missed: of all such, FOUND exceed what is needed; at least policy."""
        more = quantile(2 * (1 - FOUND), math.inf) * self.deviation(before, after)
        return max(self.needed(before, after), self.policy) + more

    def deviation(self, before: int, after: int, scatter: float = 0.0) -> float:
        """Of the difference between two levels."""
        return math.sqrt(self.noise[0] * (self.dependence.variance(before, after)[0] + scatter))

    def _disturbed(self, points: int, level: float) -> float:
        return 0.0 if self.tail is None else math.sqrt(self.noise[0]) * self.tail.beyond(points, level)


def difference_needed(one: Bar, other: Bar, counts: tuple[int, int]) -> float:
    """The size between levels of two series with a noise of their own, which were not measured in turn."""
    points, level = min(counts), min(one.level(min(counts)), other.level(min(counts)))
    sides = list(zip((one, other), counts, strict=True))
    parts = [(bar.noise[0] * bar.dependence.variance_of_level(count), bar.noise[1]) for bar, count in sides]
    total = sum(variance for variance, _ in parts)
    if not math.isfinite(total):
        return math.inf
    uncertainty = sum(variance**2 / freedom for variance, freedom in parts)  # 0 where all freedoms are infinite
    least = quantile(level, total**2 / uncertainty if uncertainty > 0 else math.inf) * math.sqrt(total)
    return max(least, *(bar._disturbed(points, level) for bar, _ in sides))


def steps(y: Sequence[float], bar: Bar) -> list[Step]:
    """All steps of a series that matter, in order; none where the noise is unknown."""
    cuts = sorted(_cuts(y, 0, len(y), bar))
    while cuts and (weak := _weakest(y, cuts, bar)) is not None:
        cuts.remove(weak)
    ends = [0, *cuts, len(y)]
    parts = [y[i:j] for i, j in pairwise(ends)]
    reported, found = statistics.median(parts[0]), []
    for first, before, after in zip(cuts, parts, parts[1:], strict=False):
        level = statistics.median(after)
        if abs(level - reported) > bar.policy:
            least = max(bar.policy, bar.needed(len(before), len(after), first))
            found.append(Step(first=first, size=level - reported, needed=least, before=reported, after=level))
            reported = level
        reported = min(level, reported)  # losses are counted from the best
    return found


def _cuts(y: Sequence[float], low: int, high: int, bar: Bar) -> list[int]:
    """Where y[low:high] is to be cut, by halving: there, of all places with a step, it is nearest to two levels.

    If the commit there scatters all series by as much, nowhere: medians would show the same step at its neighbours.
    """
    least, cut, size = math.inf, low, 0.0
    shortest = bar.newest(len(y)) if high == len(y) else bar.shortest
    for k in range(low + bar.shortest, high - shortest + 1):
        before, after = levels(y[low:k], y[k:high])
        if abs(after - before) > bar.needed(k - low, high - k):
            away = sum(abs(v - before) for v in y[low:k]) + sum(abs(v - after) for v in y[k:high])
            if away < least:
                least, cut, size = away, k, abs(after - before)
    if cut == low or not size > bar.needed(cut - low, high - cut, cut):
        return []
    return [*_cuts(y, low, cut, bar), cut, *_cuts(y, cut, high, bar)]


def _weakest(y: Sequence[float], cuts: Sequence[int], bar: Bar) -> int | None:
    """The cut that is furthest below what it needs between its own neighbours; None where all reach it."""
    ends = [0, *cuts, len(y)]
    parts = [y[i:j] for i, j in pairwise(ends)]
    shares = {}
    for cut, before, after in zip(cuts, parts, parts[1:], strict=False):
        low, high = levels(before, after)
        shares[cut] = abs(high - low) / bar.needed(len(before), len(after), cut)
    weak = min(shares, key=lambda cut: shares[cut])
    return weak if shares[weak] <= 1 else None


def levels(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """The medians of both; of two middle values the one that is nearer to the other side."""
    if statistics.fmean(before) <= statistics.fmean(after):
        return statistics.median_high(before), statistics.median_low(after)
    return statistics.median_low(before), statistics.median_high(after)
