r"""How noise stays from one commit to the next: what a level of many runs is worth, whatever the drift.

Runs of neighbouring commits are alike where a machine drifts, so the mean of ten runs is not sqrt(10) times as sure as
one. Matheron's variogram says how unlike runs are that lie h commits apart,

    g(h) = E (y_{t+h} - y_t)^2 / (2 s^2),        g(h) = 1 for all h without dependence,

and with F(m) = sum_{i, j < m} g(|i - j|) the difference between the means of b neighbouring runs and of the a next ones
has the variance, in units of s^2,

    V(b, a) = (F(a + b) - F(a) - F(b)) / (a b) - F(a) / a^2 - F(b) / b^2,

for any noise with stationary increments: autoregressions, slow waves, random walks. g(h) is the median over all series
of a kind and all places, divided by that of a chi-square (Cressie & Hawkins 1980,
https://doi.org/10.1007/BF01035243, say why robustly): a step in fewer than half of the series does not count as noise.
With fewer than FEWEST_SERIES series a step would: each is split where two levels fit it best then, differences from
these are used at lags up to a fifth of its length, and what lies beyond is taken to be like the last of them. That
hides a part of a slow drift, which few series cannot tell from a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.bench.noise import FEWEST_SERIES, Noise

MEDIAN = 0.454936423119572
"""Of a chi-square of one degree of freedom."""

FREEDOM = 0.85
"""Degrees of freedom of V that each series gives, measured on autoregressions of coefficient 0.8: between 0.8 and 1.7
for levels of 1 to 10 runs."""


@dataclass(frozen=True)
class Dependence:
    """`sums` is F(0), F(1), ..., F(n); `freedom` are the degrees of freedom of V, infinite where it is known."""

    sums: tuple[float, ...]
    freedom: float = math.inf

    def variance(self, before: int, after: int) -> Noise:
        """Of the difference between two levels of neighbouring runs, in units of that of one run; its freedom.

        It is 1 / a + 1 / b, and known, unless V exceeds that by more than one deviation of its estimate. A level is a
        median: of three or more normal runs it has up to pi / 2 times the variance of the mean.
        """
        f, a, b = self.sums, after, before
        found = (f[a + b] - f[a] - f[b]) / (a * b) - f[a] / a**2 - f[b] / b**2
        median = math.pi / 2 if min(a, b) >= 3 else 1.0
        if found <= (1 / a + 1 / b) * (1 + math.sqrt(2 / self.freedom)):
            return median * (1 / a + 1 / b), math.inf
        return median * found, self.freedom

    def variance_of_level(self, points: int) -> float:
        """Of the first level of so many runs around where the series would be in the long run."""
        last = (self.sums[-1] - 2 * self.sums[-2] + self.sums[-3]) / 2 if len(self.sums) > 2 else 1.0
        return max(1 / points, last - self.sums[points] / points**2) * (math.pi / 2 if points >= 3 else 1.0)


def independent(n: int) -> Dependence:
    """Noise without memory, of series of n runs at most."""
    return Dependence(tuple(float(m * (m - 1)) for m in range(n + 1)))


def dependence(series: Sequence[Sequence[float]]) -> Dependence:
    """Of series in units of their own noise."""
    n = max(map(len, series), default=0)
    few = len(series) < FEWEST_SERIES
    series = [_flattened(y) for y in series] if few else series
    last = max(1, n // 5) if few else n - 1
    g = [0.0]
    for lag in range(1, n):
        g.append(_variogram(series, lag) if lag <= last else g[-1])
    sums = np.concatenate([[0.0], np.cumsum(2 * np.cumsum(g))])
    return Dependence(tuple(map(float, sums)), math.inf if few else FREEDOM * len(series))


def _flattened(y: Sequence[float]) -> Sequence[float]:
    """The distances from two levels, medians, where these are least in sum."""
    splits = [
        np.concatenate([part - np.median(part) for part in np.split(np.asarray(y, float), [k])])
        for k in range(2, len(y) - 1)
    ]
    return min(splits, key=lambda split: float(np.abs(split).sum())).tolist() if splits else y


def _variogram(series: Sequence[Sequence[float]], lag: int) -> float:
    """g(lag) over all pairs of runs that lie so far apart."""
    away = [np.subtract(y[lag:], y[:-lag]) for y in series if len(y) > lag]
    return float(np.median(np.concatenate(away) ** 2)) / 2 / MEDIAN
