"""The binned goodness of fit of goftests and Pyro: the libraries' own where Pyro is installed, else the same rule here.

The rule (documented at https://docs.pyro.ai/en/stable/testing.html): draws are turned into numbers that would be
uniform on (0, 1), these are counted in n^0.333 equal bins, and

    X^2 = sum over bins of (count - n p)^2 / (n p (1 - p))

is compared with the chi-square law of bins - 1 degrees of freedom. Pearson's statistic divides by n p: the extra
1 / (1 - p) makes X^2 too large, so the rule raises more false alarms than it says. The numbers are exp(-gap n p) of the
gaps between sorted draws in one dimension, and exp(-volume n p) of the ball to the nearest other draw in several.

Pyro 1.9.2 has the tail of the chi-square law by a series of its own, which loses all its digits beyond about 100: at
12 degrees of freedom and X^2 = 300 it answers 0.9999 where the truth is 5e-57, so that a gross bug passes with p = 1.
Hence the rule is tried twice: as Pyro computes it, and with an exact tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor

LEAST_PER_DIMENSION = 1000
"""Draws a dimension that the rule for several dimensions asks for."""


class RefusedError(Exception):
    """The rule says of itself that it cannot be used here."""


@dataclass(frozen=True)
class Binned:
    """Three p-values, and who computes them."""

    who: str
    one_dimension: Callable[[Tensor, Tensor], float]  # draws (n,), densities (n,)
    several_dimensions: Callable[[Tensor, Tensor], float]  # draws (n, d), densities (n,)
    multinomial: Callable[
        [Tensor, Tensor, int | None], float
    ]  # masses (k,), counts (k,), all draws if cells are missing


def binned() -> Binned:
    """Pyro's functions where it is installed."""
    try:
        from pyro.distributions.testing import gof
    except ImportError:
        return OURS

    def guarded(test: Callable[..., float]) -> Callable[..., float]:
        def p_value(*args: object, **kwargs: object) -> float:
            try:
                return float(test(*args, **kwargs))
            except gof.InvalidTest as reason:
                raise RefusedError(str(reason)) from None

        return p_value

    counted = guarded(gof.multinomial_goodness_of_fit)
    return Binned(
        f"pyro-ppl {version('pyro-ppl')}",
        guarded(gof.density_goodness_of_fit),
        guarded(gof.vector_density_goodness_of_fit),
        lambda masses, counts, total: counted(masses, counts, total_count=total),
    )


def multinomial(masses: Tensor, counts: Tensor, total: int | None = None) -> float:
    """p-value of counts (k,) in cells of these masses; `total` where some cells are left out."""
    from scipy.special import gammaincc

    n = int(counts.sum()) if total is None else total
    variance = n * masses * (1 - masses)
    if not bool((variance > 1).all()):
        raise RefusedError("too few draws for these cells")
    statistic = float(((counts - n * masses).square() / variance).sum())
    freedom = len(masses) - (total is None)
    return float(gammaincc(freedom / 2, statistic / 2))


def one_dimension(x: Tensor, density: Tensor) -> float:
    """p-value of draws (n,) from gaps between them, each weighed by the harmonic mean of the densities at its ends."""
    x, order = x.sort()
    thin = 1 / density[order]
    return _exponential(len(x) * x.diff() * 2 / (thin[1:] + thin[:-1]))


def several_dimensions(x: Tensor, density: Tensor) -> float:
    """p-value of draws (n, d) from the ball around each that reaches its nearest neighbour."""
    from scipy.spatial import cKDTree

    n, d = x.shape
    if n <= LEAST_PER_DIMENSION * d:
        raise RefusedError("too few draws for this many dimensions")
    radius = torch.from_numpy(cKDTree(x.numpy()).query(x.numpy(), k=2)[0][:, 1])
    return _exponential(n * density * radius**d * (math.pi ** (d / 2) / math.gamma(d / 2 + 1)))


def _exponential(numbers: Tensor) -> float:
    """p-value of numbers that should be exponential with mean 1."""
    bins = round(len(numbers) ** 0.333)
    if bins < 7:
        raise RefusedError("too few draws for seven bins")
    cells = ((-numbers.double()).exp() * bins).long().clamp(0, bins - 1)
    masses = torch.full((bins,), 1 / bins, dtype=torch.float64)
    return multinomial(masses, torch.bincount(cells, minlength=bins).double())


OURS = Binned("our wording of Pyro's rule", one_dimension, several_dimensions, multinomial)
