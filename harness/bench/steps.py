r"""Where a series takes a step that is beyond its noise: few points each, many series, a stated level over all of them.

A series y_1, ..., y_n (logarithms) has noise that is independent from commit to commit and normal, with a variance of
its own. It is estimated from the n - 1 successive differences but the largest quarter, so that steps do not count as
noise (`differenced`). A step before point k is tested by

    t_k = (mean after - mean before) / (s sqrt(1 / n_before + 1 / n_after))

Few points make a poor s, so the variances of all series of a kind are estimated together, as in Smyth 2004
(https://doi.org/10.2202/1544-6115.1027): with a scaled inverse chi-square law of d0 degrees of freedom and scale s0^2
over the series,

    s^2 = (d0 s0^2 + d s_own^2) / (d0 + d),      t_k ~ Student(d0 + d) without a step,

where s_own^2 has d degrees of freedom. It is a step when t_k is above its quantile at alpha / N, N being all places in
all series: by the union bound the probability of any false step in a history is alpha at most, as far as the model of
the noise holds; `suites/speed/judge_noise.py` measures it where it does not. What was split is searched again, so
several steps are found; in the end those go, the smallest first, that are below what does not matter (`policy`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

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
    """Variance of the noise, from (y_{i+1} - y_i)^2 / 2 without the largest quarter, and about its degrees of freedom.

    The sum is divided by what it is expected to be for normal differences of variance 1. Neighbouring differences share
    a point, so of all m the mean has about 2 m / 3 degrees of freedom (von Neumann et al. 1941).
    """
    squares = sorted((b - a) ** 2 / 2 for a, b in pairwise(y))
    kept = len(squares) - math.ceil(len(squares) / 4)
    return sum(squares[:kept]) / _smallest(len(squares), kept), 2 * kept / 3


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


def steps(y: Sequence[float], prior: Prior, level: float, policy: float) -> list[Step]:
    """All steps of a series, in order, each at the level given (two-sided); none where the noise is unknown."""
    found = noise(y, prior)
    cuts = sorted(_cuts(y, 0, len(y), found, level))
    while True:
        between = _between(y, cuts, found, level, policy)
        least = min(between, key=lambda step: abs(step.size) / step.needed, default=None)
        if least is None or abs(least.size) > least.needed:
            return between
        cuts.remove(least.first)


def _between(y: Sequence[float], cuts: Sequence[int], found: Noise, level: float, policy: float) -> list[Step]:
    """The step at each cut, between the means of the parts on both sides of it."""
    ends = [0, *cuts, len(y)]
    counts = [j - i for i, j in pairwise(ends)]
    parts = [statistics.fmean(y[i:j]) for i, j in pairwise(ends)]
    return [
        Step(
            first=cut,
            size=parts[i + 1] - parts[i],
            needed=max(policy, needed(found, counts[i], counts[i + 1], level)),
            before=parts[i],
            after=parts[i + 1],
        )
        for i, cut in enumerate(cuts)
    ]


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


def _cuts(y: Sequence[float], low: int, high: int, found: Noise, level: float) -> list[int]:
    """Where y[low:high] is to be cut, by halving: the most certain step first."""
    best, cut = 0.0, low
    for k in range(low + 1, high):
        size = abs(statistics.fmean(y[k:high]) - statistics.fmean(y[low:k]))
        certainty = size * math.sqrt((k - low) * (high - k) / (high - low))
        if size > needed(found, k - low, high - k, level) and certainty > best:
            best, cut = certainty, k
    if cut == low:
        return []
    first, second = (low, cut), (cut, high)
    return [*_cuts(y, *first, found, level), cut, *_cuts(y, *second, found, level)]
