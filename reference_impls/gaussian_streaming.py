r"""Fitting a Gaussian to data that come in chunks, on many machines, or one row at a time.

Of N draws, the likelihood of a Gaussian depends on three statistics alone: N, their mean m, and their scatter
S = sum_i (x_i - m)(x_i - m)^T. Those of two chunks merge into those of both (Chan, Golub & LeVeque 1983,
doi.org/10.1080/00031305.1983.10483115):

    N = N_1 + N_2,     m = m_1 + N_2/N (m_2 - m_1),     S = S_1 + S_2 + N_1 N_2 / N (m_2 - m_1)(m_2 - m_1)^T

Here S = R^T R is kept as a factor R, so that no digits are lost to squares; S is a sum of outer products of the rows of
R_1, of R_2 and of sqrt(N_1 N_2 / N) (m_2 - m_1), so that R is the QR factor of these rows on top of each other. Memory
does not grow with N, and the order or the cut of the data changes the result by rounding alone: numbers are float64.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.gaussian import DiagonalGaussian, Gaussian
from reference_impls.gaussian_factors import checked_sample, checked_variance, factor_of_draws


@dataclass(frozen=True)
class Statistics:
    """What a Gaussian likelihood needs of n draws: n, the mean (d,), and R (r, d), r <= d, with R^T R the scatter."""

    n: int
    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Statistics":
        """Those of one chunk (n, d)."""
        x = checked_sample(x).double()
        mean = x.mean(0)  # (d,)
        return cls(len(x), mean, torch.linalg.qr(x - mean).R)

    def merge(self, other: "Statistics") -> "Statistics":
        """Those of both chunks together."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"the chunks have {len(self.mean)} and {len(other.mean)} columns; give all the same number"
            )
        n = self.n + other.n
        gap = other.mean - self.mean  # (d,)
        between = math.sqrt(self.n / n * other.n) * gap[None]  # (1, d)
        root = torch.linalg.qr(torch.cat([self.root, other.root, between])).R  # (min(rows, d), d)
        return Statistics(n, self.mean + other.n / n * gap, root)

    def gaussian(self, dtype: torch.dtype = torch.float64) -> Gaussian:
        """The maximum likelihood estimate, Sigma = S / N."""
        d = len(self.mean)
        if not self.n > d:
            raise ValueError(f"the covariance of {self.n} draws in R^{d} is singular: give more rows, or fewer columns")
        factor = factor_of_draws(self.root, self.mean, self.n, torch.float64)
        return Gaussian(self.mean.to(dtype), cholesky=factor.to(dtype))

    def diagonal(self, dtype: torch.dtype = torch.float64) -> DiagonalGaussian:
        """The maximum likelihood estimate with independent coordinates."""
        variance = self.root.square().sum(0) / self.n  # (d,)
        return DiagonalGaussian(self.mean.to(dtype), checked_variance(variance, self.mean, self.n).to(dtype))


def statistics_of(chunks: Iterable[Tensor]) -> Statistics:
    """The statistics of all rows of the chunks (n_i, d), each seen once and let go; empty ones are skipped."""
    total: Statistics | None = None
    for chunk in chunks:
        if len(chunk):
            part = Statistics.of(chunk)
            total = part if total is None else total.merge(part)
    if total is None:
        raise ValueError("the chunks hold no draws; give at least one row")
    return total


def fit_stream(chunks: Iterable[Tensor], dtype: torch.dtype = torch.float64) -> Gaussian:
    """`Gaussian.fit` of all rows of the chunks."""
    return statistics_of(chunks).gaussian(dtype)
