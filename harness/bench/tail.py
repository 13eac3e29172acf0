r"""How often, by how much and for how long single runs are disturbed: read off the history itself.

An excursion is the distance of a run from the median of the runs around it, in units of its series' noise. A step
leaves none: the median is that of the level which the run belongs to. Of all N excursions of a kind, sorted,
x_1 >= x_2 >= ..., the frequency of those beyond z is counted down to K / N. Beyond x_K it is extrapolated as a
stretched exponential, P(x > z) = (K / N) exp(-(sqrt z - sqrt x_K) / c): heavier than a normal or exponential tail, and
at the levels that matter here about as heavy as that of Student's law with three degrees of freedom. For such a tail
the spacings of sqrt x are exponential, so with G = sum_{j < K} (sqrt x_j - sqrt x_K), which is c Gamma(K - 1), the next
excursion exceeds

    z(p) = (sqrt x_K + G ((K / (N p))^(1 / (K - 1)) - 1))^2        with probability p exactly, whatever c is

(Weissman 1978, https://doi.org/10.1080/01621459.1978.10480104, with the error of the estimate taken in).

Disturbed runs come in clusters: one is followed by another with a frequency q, (1 + number of the K largest whose next
one is among them too, on the same side) / (K + 1). Of m runs the median is disturbed by more than z with probability at
most C(m, j) p q^(j - 1), j being the runs that must be; `beyond` is the z at which that is as small as asked for.

Nothing can be said of a disturbance that is rarer than the history is long: one that comes once in n commits meets the
newest of them, and nothing before, with probability 1 / (e n), and looks like a step there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

LARGEST = 10
"""K, or a quarter of the excursions."""

FEWEST = 3
"""The same, at least: else nothing is known."""

WIDEST = 4
"""Runs on either side: bursts of four are seen."""


@dataclass(frozen=True)
class Tail:
    """Excursions in order, and how often one follows another."""

    sizes: tuple[float, ...] = ()
    followed: float = 1.0

    def beyond(self, points: int, level: float) -> float:
        """What the level of so many runs exceeds with probability `level`, in units of noise; infinite if unknown."""
        j = points - (points - 1) // 2
        most = level / math.comb(points, j)
        share = most / self.followed ** (j - 1)
        return self.quantile(share if share < self.followed else most ** (1 / j))

    def quantile(self, share: float) -> float:
        """z(share); at least 1, as smaller ones are what noise is made of."""
        x, n = self.sizes, len(self.sizes)
        k = largest(n)
        if k < FEWEST:
            return math.inf
        if n * share >= k:
            return max(1.0, x[max(0, n - math.floor(n * share))])
        start = math.sqrt(max(1.0, x[n - k]))
        spacings = sum(max(0.0, math.sqrt(each) - start) for each in x[n - k + 1 :])
        return float((start + spacings * ((k / (n * share)) ** (1 / (k - 1)) - 1)) ** 2)


def largest(count: int) -> int:
    """K, of so many excursions."""
    return min(LARGEST, count // 4)


def tail(series: Iterable[Sequence[float]]) -> Tail:
    """Of series in units of their own noise."""
    found = [excursions(y) for y in series]
    sizes = sorted(abs(each) for part in found for each in part)
    k = largest(len(sizes))
    if k < FEWEST:
        return Tail()
    least = sizes[len(sizes) - k]
    pairs = ((one, after) for part in found for one, after in pairwise(part))
    count = sum(min(abs(one), abs(after)) >= least and (one > 0) == (after > 0) for one, after in pairs)
    return Tail(tuple(sizes), (count + 1) / (k + 1))


def excursions(y: Sequence[float]) -> list[float]:
    """y_i - the median of the runs around it, up to WIDEST on either side; not of the newest, which are on trial.

    A step leaves none, unless it is among the first few, which have no others before them.
    """
    n = len(y)
    half = min(WIDEST, (n - 1) // 4) if n > 8 else 2 if n > 4 else 1
    return [
        y[i] - statistics.median(y[max(0, i - half) : i + half + 1]) for i in range(n - half if n > 2 * half else 0)
    ]
