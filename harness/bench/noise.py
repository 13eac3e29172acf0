r"""How much the runs of a series differ where nothing happened: a variance for each, learnt from all of them together.

Few points make a poor variance, so the variances of all series of a kind are estimated together, as in Smyth 2004
(https://doi.org/10.2202/1544-6115.1027): with a scaled inverse chi-square law of d0 degrees of freedom and scale s0^2
over the series,

    s^2 = (d0 s0^2 + d s_own^2) / (d0 + d),

where s_own^2 has d degrees of freedom. It comes from differences of neighbours (`differenced`), so that neither steps
nor single disturbed runs count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

FEWEST_SERIES = 5
"""Series of a kind, before anything is learnt from the others."""

Noise = tuple[float, float]
"""Variance of a point, and the degrees of freedom of this estimate."""


@dataclass(frozen=True)
class Prior:
    """What the series of a kind have in common: s0^2, believed like d0 degrees of freedom; `least` is a deviation that
    rounding alone explains."""

    variance: float = 0.0
    freedom: float = 0.0
    least: float = 0.0

    def moderated(self, variance: float, freedom: float) -> Noise:
        """Variance and degrees of freedom with those of one series."""
        total = self.freedom + freedom
        if total == 0:
            return math.inf, 1.0
        if math.isinf(total):
            return max(self.variance, self.least**2), total
        pooled = (self.freedom * self.variance + freedom * variance) / total
        return max(pooled, self.least**2), total


def fitted_prior(series: Iterable[Sequence[float]], least: float) -> Prior:
    """d0 and s0^2 by the moments of log s^2 over series of three points or more; no prior from fewer than five series.

    E log s^2 = log s0^2 + psi(d / 2) - psi(d0 / 2) + log(d0 / d), var log s^2 = psi'(d / 2) + psi'(d0 / 2).
    """
    import numpy as np
    from scipy.special import digamma, polygamma

    found = [(v, d) for v, d in (differenced(y) for y in series if len(y) >= 3)]
    if len(found) < FEWEST_SERIES:
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


def noise(y: Sequence[float], prior: Prior) -> Noise:
    """Of one series, moderated; infinite where nothing is known."""
    return prior.moderated(*(differenced(y) if len(y) >= 3 else (0.0, 0.0)))


def differenced(y: Sequence[float]) -> Noise:
    """Variance of the noise, from (y_{i+1} - y_i)^2 / 2 without the largest quarter; about its degrees of freedom.

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


@cache
def quantile(level: float, freedom: float) -> float:
    """Two-sided, of Student's law; of the normal law where the freedom is infinite."""
    from scipy.stats import norm, t

    return float(norm.isf(level / 2) if math.isinf(freedom) else t.isf(level / 2, freedom))


def freedom_of_product(*freedoms: float) -> float:
    """Degrees of freedom of a product of variances that were estimated apart: relative variances 2 / d add up."""
    inverse = sum(1 / each for each in freedoms)
    return 1 / inverse if inverse > 0 else math.inf
