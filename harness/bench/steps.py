r"""Where a series takes a step that is beyond its noise: few points each, many series, a stated level over all of them.

A series y_1, ..., y_n (logarithms) has noise that is independent from commit to commit and normal, with a variance of
its own. It is estimated from differences but the largest quarter, so that steps do not count as noise (`differenced`).
A step before point k is tested by

    t_k = (level after - level before) / (s sqrt(1 / n_before + 1 / n_after))

Few points make a poor s, so the variances of all series of a kind are estimated together, as in Smyth 2004
(https://doi.org/10.2202/1544-6115.1027): with a scaled inverse chi-square law of d0 degrees of freedom and scale s0^2
over the series,

    s^2 = (d0 s0^2 + d s_own^2) / (d0 + d),      t_k ~ Student(d0 + d) without a step,

where s_own^2 has d degrees of freedom. It is a step when t_k is above its quantile at alpha / N, N being all places in
all series: by the union bound the probability of any false step in a history is alpha at most, for such noise. What was
split is searched again, so several steps are found. Of these, those are reported that bring the level further from the
one last reported than what does not matter (`policy`): small losses add up until they matter.

Real noise has heavier tails: a run now and then is disturbed as a whole. Against that, a level is a median and not a
mean; a level that lasts for one commit is an excursion and no step; and how often runs are disturbed, and by how much,
is read off the history itself (`excursions`): the step must be so large that, at this frequency, so many runs of one
level are disturbed by as much with probability alpha / N at most, or larger by half than any excursion that was seen in
a series of its kind. A single run, the newest, has only the latter way.
`suites/speed/judge_noise.py` measures what false alarms are left.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

ALONE = 1.5
"""Times the largest excursion seen: of m disturbed runs with exponential tails the largest is about log m means, and
the next one exceeds 1.5 log m with probability m^-1.5, not 1 / m."""

FEWEST_FOR_PRIOR = 5
"""Series of a kind, before anything is learnt from the others."""


@dataclass(frozen=True)
class Prior:
    """What the series of a kind have in common: s0^2, believed like d0 degrees of freedom; `least` is a deviation that
    rounding alone explains."""

    variance: float = 0.0
    freedom: float = 0.0
    least: float = 0.0

    def moderated(self, variance: float, freedom: float) -> tuple[float, float]:
        """Variance and degrees of freedom with those of one series."""
        total = self.freedom + freedom
        if total == 0:
            return math.inf, 1.0
        if math.isinf(total):
            return max(self.variance, self.least**2), total
        pooled = (self.freedom * self.variance + freedom * variance) / total
        return max(pooled, self.least**2), total


@dataclass(frozen=True)
class Step:
    """The level rises (falls) by `size` before point `first`; `needed` is what would just have been reported."""

    first: int
    size: float
    needed: float
    before: float  # the level
    after: float


def fitted_prior(series: Iterable[Sequence[float]], least: float) -> Prior:
    """d0 and s0^2 by the moments of log s^2 over series of three points or more; no prior from fewer than five series.

    E log s^2 = log s0^2 + psi(d / 2) - psi(d0 / 2) + log(d0 / d), var log s^2 = psi'(d / 2) + psi'(d0 / 2).
    """
    import numpy as np
    from scipy.special import digamma, polygamma

    found = [(v, d) for v, d in (differenced(y) for y in series if len(y) >= 3)]
    if len(found) < FEWEST_FOR_PRIOR:
        return Prior(least=least)
    variances = np.array([max(v, least**2) for v, _ in found])
    half = np.array([d for _, d in found]) / 2
    e = np.log(variances) - digamma(half) + np.log(half)
    excess = float(e.var(ddof=1) - polygamma(1, half).mean())
    if excess <= 0:  # the series do not differ by more than chance
        return Prior(float(np.exp(e.mean())), math.inf, least)
    freedom = 2 * _inverse_trigamma(excess)
    scale = float(np.exp(e.mean() + digamma(freedom / 2) - np.log(freedom / 2)))
    return Prior(scale, freedom, least)


def _inverse_trigamma(value: float) -> float:
    """x with psi'(x) = value > 0: psi' falls from infinity to 0."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    logarithm = brentq(lambda x: float(polygamma(1, math.exp(x))) - value, -20.0, 20.0, xtol=1e-10)
    return math.exp(float(logarithm))


def differenced(y: Sequence[float]) -> tuple[float, float]:
    """Variance of the noise, from (y_{i+lag} - y_i)^2 / 2 without the largest quarter; about its degrees of freedom.

    The sum is divided by what it is expected to be for normal differences of variance 1. Neighbouring differences share
    a point, so of all m the mean has about 2 m / 3 degrees of freedom (von Neumann et al. 1941). From 16 points on, the
    larger of lags 1 and 2, which is a little too large: noise that stays for some commits hides from lag 1.
    """
    return max(_lagged(y, lag) for lag in ((1, 2) if len(y) >= 16 else (1,)))


def _lagged(y: Sequence[float], lag: int) -> tuple[float, float]:
    squares = sorted((b - a) ** 2 / 2 for a, b in zip(y, y[lag:], strict=False))
    kept = len(squares) - math.ceil(len(squares) / 4)
    return sum(squares[:kept]) / _smallest(len(squares), kept), 2 * kept / 3


def excursions(series: Iterable[Sequence[float]], prior: Prior) -> tuple[float, ...]:
    """|y_i - median of the five (three) around it| / s, sorted, over all series and points but the newest two (one).

    A step leaves none, unless it is one of the first two: the median of the five is that of the level which the point
    belongs to. The newest points are those on trial.
    """
    found: list[float] = []
    for y in series:
        deviation = math.sqrt(noise(y, prior)[0])
        half = 2 if len(y) >= 5 else 1
        for i in range(len(y) - half if len(y) > 2 * half else 0):
            first = max(0, i - half)
            away = abs(y[i] - statistics.median(y[first : first + 2 * half + 1]))
            found.append(away / deviation if deviation > 0 else 0.0)
    return tuple(sorted(found))


@cache
def _smallest(m: int, kept: int) -> float:
    """The expected sum of the `kept` smallest of m independent chi-squares of one degree of freedom."""
    from scipy.integrate import quad
    from scipy.stats import beta, chi2

    def expected(j: int) -> float:
        return float(quad(lambda u: chi2.ppf(u, 1) * beta.pdf(u, j, m - j + 1), 0, 1)[0])

    return sum(expected(j) for j in range(1, kept + 1))


def places(series: Iterable[Sequence[float]]) -> int:
    """N: how many steps are asked for in all."""
    return sum(max(0, len(y) - 1) for y in series)


@dataclass(frozen=True)
class Bar:
    """What a step of one series must exceed, at `level`, and what does not matter; `tail` are the excursions that were
    seen in series of its kind, None where runs are not disturbed."""

    noise: Noise
    level: float
    policy: float
    tail: tuple[float, ...] | None = None

    @property
    def shortest(self) -> int:
        """Points of a level."""
        return 1 if self.tail is None else 2

    def needed(self, before: int, after: int) -> float:
        """The size between levels of so many points."""
        least = needed(self.noise, before, after, self.level)
        return least if self.tail is None else max(least, math.sqrt(self.noise[0]) * self._beyond(min(before, after)))

    def _beyond(self, points: int) -> float:
        """In units of s: with p = P(excursion > z), the median of the points exceeds z with probability at most
        C(points, j) p^j, j being those that must exceed it; the least z at which this is `level`."""
        assert self.tail is not None
        if not self.tail:
            return math.inf
        unseen = ALONE * self.tail[-1]
        j = points - (points - 1) // 2
        share = (self.level / math.comb(points, j)) ** (1 / j)
        allowed = math.floor(share * (len(self.tail) + 1) - 1)  # p is estimated by (count + 1) / (all + 1)
        if points < self.shortest or allowed < 0:
            return unseen
        return min(unseen, self.tail[len(self.tail) - 1 - allowed] if allowed < len(self.tail) else 0.0)


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
            least = max(bar.policy, bar.needed(len(before), len(after)))
            found.append(Step(first=first, size=level - reported, needed=least, before=reported, after=level))
            reported = level
        reported = min(level, reported)  # losses are counted from the best
    return found


def _weakest(y: Sequence[float], cuts: Sequence[int], bar: Bar) -> int | None:
    """The cut that is furthest below what it needs between its own neighbours; None where all reach it."""
    ends = [0, *cuts, len(y)]
    parts = [y[i:j] for i, j in pairwise(ends)]
    shares = {}
    for cut, before, after in zip(cuts, parts, parts[1:], strict=False):
        low, high = levels(before, after)
        shares[cut] = abs(high - low) / bar.needed(len(before), len(after))
    weak = min(shares, key=lambda cut: shares[cut])
    return weak if shares[weak] <= 1 else None


def levels(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """The medians of both; of two middle values the one that is nearer to the other side."""
    if statistics.fmean(before) <= statistics.fmean(after):
        return statistics.median_high(before), statistics.median_low(after)
    return statistics.median_low(before), statistics.median_high(after)


Noise = tuple[float, float]
"""Variance of a point, and the degrees of freedom of this estimate."""


def noise(y: Sequence[float], prior: Prior) -> Noise:
    """Of one series, moderated; infinite where nothing is known."""
    return prior.moderated(*(differenced(y) if len(y) >= 3 else (0.0, 0.0)))


def needed(found: Noise, before: int, after: int, level: float) -> float:
    """The size that the difference of two means must exceed, of so many points each."""
    variance, freedom = found
    return _quantile(level, freedom) * math.sqrt(variance * (1 / before + 1 / after))


def difference_needed(one: Noise, other: Noise, counts: tuple[int, int], level: float) -> float:
    """The same for means of two series with a noise of their own; degrees of freedom by Welch and Satterthwaite."""
    parts = [(variance / count, freedom) for (variance, freedom), count in zip((one, other), counts, strict=True)]
    total = sum(v for v, _ in parts)
    if not math.isfinite(total):
        return math.inf
    uncertainty = sum(v**2 / f for v, f in parts)  # 0 where all degrees of freedom are infinite
    return _quantile(level, total**2 / uncertainty if uncertainty > 0 else math.inf) * math.sqrt(total)


@cache
def _quantile(level: float, freedom: float) -> float:
    """Two-sided, of Student's law; of the normal law where the freedom is infinite."""
    from scipy.stats import norm, t

    return float(norm.isf(level / 2) if math.isinf(freedom) else t.isf(level / 2, freedom))


def _cuts(y: Sequence[float], low: int, high: int, bar: Bar) -> list[int]:
    """Where y[low:high] is to be cut, by halving: there, of all places with a step, it is nearest to two levels.

    A level has `shortest` points at least, but the newest one, which may have yet to last.
    """
    least, cut = math.inf, low
    shortest = 1 if high == len(y) else bar.shortest
    for k in range(low + bar.shortest, high - shortest + 1):
        before, after = levels(y[low:k], y[k:high])
        away = sum(abs(v - before) for v in y[low:k]) + sum(abs(v - after) for v in y[k:high])
        if abs(after - before) > bar.needed(k - low, high - k) and away < least:
            least, cut = away, k
    return [] if cut == low else [*_cuts(y, low, cut, bar), cut, *_cuts(y, cut, high, bar)]
