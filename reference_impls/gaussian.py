r"""Multivariate Gaussians: every linear view of a Gaussian vector is Gaussian again.

    x = mu + L z,  z ~ N(0, I)     so that     x ~ N(mu, Sigma),  Sigma = L L^T

    log p(x) = -1/2 ||L^-1 (x - mu)||^2 - sum_i log L_ii - d/2 log(2 pi)

`Gaussian` keeps the Cholesky factor L, lower triangular with a positive diagonal, and never inverts Sigma: the
condition number of L is the square root of that of Sigma, so half as many digits are lost. For the same reason, factors
are computed in float64 and rounded once to the dtype of the model. `DiagonalGaussian` has independent coordinates.

A density needs Sigma positive definite; a singular Sigma gives a law on a subspace, which has none. Beside this file:
`gaussian_precision` (the information form), `gaussian_missing` (NaN for values that were not observed),
`gaussian_streaming` (fits of data that come in chunks) and `linear_gaussian` (latent Gaussian variables).

Sources: Bishop, Pattern Recognition and Machine Learning (2006), section 2.3;
Higham, Accuracy and Stability of Numerical Algorithms (2nd ed., 2002), chapters 8, 10, 14 and 19.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.linalg import solve_triangular

from reference_impls.gaussian_factors import (
    as_floats,
    checked_draws,
    checked_factor,
    checked_parameters,
    checked_sample,
    checked_values,
    checked_variance,
    factor_of_covariance,
    factor_of_draws,
    in_chunks,
    in_place,
    infinite_at_infinity,
    inverse_factor,
    length,
    lower_factor,
    normals,
    same_size,
    squared_lengths,
)
from reference_impls.indices import split, split_evidence, split_pair

LOG_2PI = math.log(2 * math.pi)


class Gaussian:
    """N(mu, Sigma) on R^d, from its mean (d,) and either Sigma (d, d) or the lower factor L with L L^T = Sigma."""

    number, family = "M01", "multivariate Gaussian"
    history: Tensor | None = None  # log-likelihood at each step, where the fit was iterative

    def __init__(self, mean: Tensor, covariance: Tensor | None = None, *, cholesky: Tensor | None = None):
        if (covariance is None) == (cholesky is None):
            raise ValueError("a Gaussian takes either a covariance or its Cholesky factor")
        self.loc, matrix = as_floats(mean, covariance if cholesky is None else cholesky)  # (d,), (d, d)
        self.d = length(self.loc)
        if matrix.shape != (self.d, self.d):
            raise ValueError(f"the mean has {self.d} entries, but the matrix has shape {tuple(matrix.shape)}")
        self.cholesky = factor_of_covariance(matrix) if cholesky is None else checked_factor(matrix)

    def log_prob(self, x: Tensor) -> Tensor:
        squares = self.squared_mahalanobis(x)  # (n,)
        log_det = self.cholesky.to(squares.dtype).diagonal().log().sum()  # ()
        return -squares / 2 - log_det - self.d / 2 * LOG_2PI  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """mu + L z, with z standard normal."""
        z = normals(n, self.loc, generator)
        return in_place(lambda some: torch.addmm(self.loc, some, self.cholesky.mT), z)  # (n, d)

    def mean(self) -> Tensor:
        return self.loc  # (d,)

    def covariance(self) -> Tensor:
        return self.cholesky @ self.cholesky.mT  # (d, d)

    def variance(self) -> Tensor:
        return self.cholesky.square().sum(-1)  # (d,)

    def whiten(self, x: Tensor) -> Tensor:
        """z = L^-1 (x - mu), standard normal when x is from the model."""
        x, loc, cholesky = as_floats(checked_draws(x, self.d), self.loc, self.cholesky)
        return (x - loc) @ inverse_factor(cholesky).mT  # (n, d)

    def squared_mahalanobis(self, x: Tensor) -> Tensor:
        """(x - mu)^T Sigma^-1 (x - mu): chi^2_d when x is from the model. Some rows at a time, so that z stays small.

        That also keeps z in the cache of the processor, and is several times as fast as all rows at once.
        """
        x, loc, cholesky = as_floats(checked_draws(x, self.d), self.loc, self.cholesky)
        to_white = inverse_factor(cholesky)  # (d, d)
        squares = in_chunks(lambda some: squared_lengths(to_white, some - loc), x, self.d)  # (n,)
        return infinite_at_infinity(squares, x)

    def mahalanobis(self, x: Tensor) -> Tensor:
        """The distance itself, the root of the quadratic form; its slope is finite even at the mean."""
        return torch.linalg.vector_norm(self.whiten(x), dim=-1)  # (n,)

    def precision(self) -> Tensor:
        """Lambda = Sigma^-1 = L^-T L^-1; Lambda_ij = 0 says that x_i and x_j are independent given all others."""
        inverse = inverse_factor(self.cholesky)  # (d, d)
        return inverse.mT @ inverse  # (d, d)

    def entropy(self) -> Tensor:
        """H = 1/2 log det(2 pi e Sigma), in nats."""
        return self.d / 2 * (1 + LOG_2PI) + self.cholesky.diagonal().log().sum()  # ()

    def kl(self, other: "Gaussian | DiagonalGaussian") -> Tensor:
        r"""KL(p, q) = 1/2 [tr(Sigma_q^-1 Sigma_p) - d - log det(Sigma_q^-1 Sigma_p) + ||L_q^-1 (mu_p - mu_q)||^2].

        With M = L_q^-1 L_p, lower triangular, trace and determinant split into terms none of which is negative:
        sum_{i>j} M_ij^2 + sum_i (M_ii^2 - 1 - log M_ii^2). So the result is never below 0, and is exact when p is q.
        """
        same_size(self.d, other.d)
        loc_p, loc_q, factor_p, factor_q = as_floats(self.loc, other.loc, self.cholesky, other.cholesky)
        below = solve_triangular(factor_q, factor_p, upper=False).tril(-1)  # (d, d)
        log_ratio = 2 * (factor_p.diagonal() / factor_q.diagonal()).log()  # (d,)
        shift = solve_triangular(factor_q, (loc_p - loc_q)[:, None], upper=False)  # (d, 1)
        return (below.square().sum() + (log_ratio.expm1() - log_ratio).sum() + shift.square().sum()) / 2  # ()

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        r"""I(x_a, x_b) = H(x_b) - H(x_b | x_a) in nats, between two blocks of coordinates that share none.

        With the factor written a before b, Sigma_bb = L_ba L_ba^T + L_bb L_bb^T, of which the second part is left once
        x_a is known. So I = 1/2 log det(I + M M^T) with M = L_bb^-1 L_ba, a sum of log(1 + s^2) / 2 over the singular
        values of M: never negative, and exactly 0 for independent blocks.
        """
        a, b = split_pair(a, b, self.d)
        k = len(a)
        factor = lower_factor(self.cholesky.double()[a + b])
        ratio = solve_triangular(factor[k:, k:], factor[k:, :k], upper=False)  # (len(b), len(a))
        return torch.linalg.svdvals(ratio).square().log1p().sum().to(self.loc.dtype) / 2  # ()

    def marginal(self, indices: Sequence[int]) -> "Gaussian":
        """p(x_a): drop the other coordinates from mu and Sigma."""
        a, _ = split(indices, self.d)
        return Gaussian(self.loc[a], cholesky=lower_factor(self.cholesky[a]))

    def conditional(self, indices: Sequence[int], values: Tensor) -> "Gaussian":
        r"""p(x_b | x_a = values), with a = indices and b the other coordinates in their order.

        Write the factor with a before b. Then x_a = mu_a + L_aa z_a fixes z_a, and x_b = mu_b + L_ba z_a + L_bb z_b has

            mean  mu_b + L_ba L_aa^-1 (x_a - mu_a)    =  mu_b + Sigma_ba Sigma_aa^-1 (x_a - mu_a)
            covariance  L_bb L_bb^T                   =  Sigma_bb - Sigma_ba Sigma_aa^-1 Sigma_ab,

        the Schur complement of Sigma_aa, whose inverse is the block Lambda_bb of the precision matrix (Bishop, 2.3.1).
        """
        a, b = split_evidence(indices, self.d)
        k = len(a)
        values = checked_values(values, k).to(self.loc)
        if not a:
            return self
        factor = lower_factor(self.cholesky[a + b])  # (d, d)
        z_a = solve_triangular(factor[:k, :k], (values - self.loc[a])[:, None], upper=False)  # (k, 1)
        return Gaussian(self.loc[b] + (factor[k:, :k] @ z_a)[:, 0], cholesky=factor[k:, k:])

    def affine(self, matrix: Tensor, shift: Tensor | float = 0.0) -> "Gaussian":
        """The law of A x + b, N(A mu + b, A Sigma A^T); A (k, d) must have full row rank."""
        matrix, shift = torch.as_tensor(matrix).to(self.loc), torch.as_tensor(shift).to(self.loc)
        if matrix.dim() != 2 or matrix.shape[1] != self.d or shift.shape not in ((), matrix.shape[:1]):
            raise ValueError(f"A {tuple(matrix.shape)} and b {tuple(shift.shape)} should be (k, {self.d}) and (k,)")
        return Gaussian(matrix @ self.loc + shift, cholesky=lower_factor(matrix.double() @ self.cholesky.double()))

    @classmethod
    def fit(cls, x: Tensor) -> "Gaussian":
        r"""Maximum likelihood: mu = mean of x, Sigma = 1/N sum_i (x_i - mu)(x_i - mu)^T, with N and not N - 1.

        Sigma is biased, E[Sigma_ML] = (N - 1)/N Sigma. It is positive definite when the draws do not lie in a plane,
        so N > d at least. The factor is read off a QR decomposition of the centred draws, without forming Sigma.
        """
        x = checked_sample(x)
        if not len(x) > x.shape[1]:
            raise ValueError(
                f"the covariance of {len(x)} draws in R^{x.shape[1]} is singular: x needs more rows, or fewer columns"
            )
        loc = x.double().mean(0)  # (d,)
        factor = factor_of_draws(x - loc, loc, len(x), x.dtype)  # (d, d)
        return cls(loc.to(x.dtype), cholesky=factor.to(x.dtype))

    def parameters(self) -> Tensor:
        """theta = (mu, log of the diagonal of L, its rows below the diagonal), d + d(d + 1)/2 numbers, any of R."""
        below = self.cholesky[tuple(torch.tril_indices(self.d, self.d, -1))]
        return torch.cat([self.loc, self.cholesky.diagonal().log(), below])  # (k,)

    def with_parameters(self, theta: Tensor) -> "Gaussian":
        """The Gaussian of this size with those parameters; differentiable in theta."""
        theta = checked_parameters(theta, self.d + self.d * (self.d + 1) // 2)
        loc, log_diagonal, below = theta[: self.d], theta[self.d : 2 * self.d], theta[2 * self.d :]
        rows, columns = torch.tril_indices(self.d, self.d, -1, device=theta.device)
        factor = log_diagonal.exp().diag().index_put((rows, columns), below)  # (d, d)
        return Gaussian(loc, cholesky=factor)

    def to(self, *args, **kwargs) -> "Gaussian":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return Gaussian(self.loc.to(*args, **kwargs), cholesky=self.cholesky.to(*args, **kwargs))


class DiagonalGaussian:
    """A product of d independent Gaussians, p(x) = prod_i N(x_i; mu_i, sigma_i^2), such as one for each pixel."""

    number, family = "M02", "diagonal Gaussian"

    def __init__(self, mean: Tensor, variance: Tensor):
        self.loc, self._variance = as_floats(mean, variance)  # (d,), (d,)
        self.d = length(self.loc)
        if self._variance.shape != self.loc.shape:
            raise ValueError(f"{self.d} means, but the variances have shape {tuple(self._variance.shape)}")
        if not ((self._variance > 0) & self._variance.isfinite()).all():
            raise ValueError("each variance must be positive and finite")

    def log_prob(self, x: Tensor) -> Tensor:
        z = self.whiten(x)  # (n, d)
        return -(z.square() + self._variance.to(z.dtype).log() + LOG_2PI).sum(-1) / 2  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return self.loc + normals(n, self.loc, generator) * self._variance.sqrt()  # (n, d)

    def mean(self) -> Tensor:
        return self.loc  # (d,)

    def variance(self) -> Tensor:
        return self._variance  # (d,)

    def covariance(self) -> Tensor:
        return self._variance.diag()  # (d, d)

    @property
    def cholesky(self) -> Tensor:
        return self._variance.sqrt().diag()  # (d, d)

    def whiten(self, x: Tensor) -> Tensor:
        """z_i = (x_i - mu_i) / sigma_i."""
        x, loc, variance = as_floats(checked_draws(x, self.d), self.loc, self._variance)
        return (x - loc) / variance.sqrt()  # (n, d)

    def squared_mahalanobis(self, x: Tensor) -> Tensor:
        return self.whiten(x).square().sum(-1)  # (n,)

    def mahalanobis(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(self.whiten(x), dim=-1)  # (n,)

    def entropy(self) -> Tensor:
        """H = sum_i 1/2 log(2 pi e sigma_i^2), in nats."""
        return (1 + LOG_2PI + self._variance.log()).sum() / 2  # ()

    def kl(self, other: "Gaussian | DiagonalGaussian") -> Tensor:
        """KL(p, q) = 1/2 sum_i [r_i - 1 - log r_i + (mu_p - mu_q)_i^2 / sigma_qi^2], with r = sigma_p^2 / sigma_q^2."""
        if isinstance(other, Gaussian):
            return self.full().kl(other)
        same_size(self.d, other.d)
        loc_p, loc_q, variance_p, variance_q = as_floats(self.loc, other.loc, self._variance, other._variance)
        log_ratio = (variance_p / variance_q).log()  # (d,)
        return (log_ratio.expm1() - log_ratio + (loc_p - loc_q).square() / variance_q).sum() / 2  # ()

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """0: the coordinates are independent."""
        split_pair(a, b, self.d)
        return self.loc.new_zeros(())

    def marginal(self, indices: Sequence[int]) -> "DiagonalGaussian":
        a, _ = split(indices, self.d)
        return DiagonalGaussian(self.loc[a], self._variance[a])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "DiagonalGaussian":
        """p(x_b | x_a) = p(x_b): the coordinates are independent, and the values change nothing."""
        a, b = split_evidence(indices, self.d)
        checked_values(values, len(a))
        return DiagonalGaussian(self.loc[b], self._variance[b])

    def full(self) -> Gaussian:
        """The same law as a `Gaussian`: affine maps leave the diagonal family, but not that one."""
        return Gaussian(self.loc, cholesky=self.cholesky)

    @classmethod
    def fit(cls, x: Tensor) -> "DiagonalGaussian":
        """Maximum likelihood: mean and variance of each coordinate, dividing by N."""
        x = checked_sample(x)
        loc = x.double().mean(0)  # (d,)
        variance = (x - loc).square().mean(0)  # (d,)
        return cls(loc.to(x.dtype), checked_variance(variance, loc, len(x)).to(x.dtype))

    def parameters(self) -> Tensor:
        """theta = (mu, log sigma^2), 2 d numbers, any of R."""
        return torch.cat([self.loc, self._variance.log()])  # (2 d,)

    def with_parameters(self, theta: Tensor) -> "DiagonalGaussian":
        """The law of this size with those parameters; differentiable in theta."""
        theta = checked_parameters(theta, 2 * self.d)
        return DiagonalGaussian(theta[: self.d], theta[self.d :].exp())

    def to(self, *args, **kwargs) -> "DiagonalGaussian":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return DiagonalGaussian(self.loc.to(*args, **kwargs), self._variance.to(*args, **kwargs))


# Ready-made models


def standard(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Gaussian:
    """N(0, I) in the plane."""
    return Gaussian(torch.zeros(2, dtype=dtype, device=device), cholesky=torch.eye(2, dtype=dtype, device=device))


def correlated(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Gaussian:
    """8 coordinates with correlations 0.7^|i - j|, standard deviations from 1/2 to 2 and means from -1 to 1."""
    i = torch.arange(8, dtype=torch.float64)
    deviation = torch.logspace(-1, 1, 8, base=2, dtype=torch.float64)
    covariance = deviation * deviation[:, None] * 0.7 ** (i - i[:, None]).abs()
    return Gaussian(torch.linspace(-1, 1, 8, dtype=torch.float64), covariance).to(*_placing(dtype, device))


def gaussian_64d(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Gaussian:
    """64 coordinates; principal axes drawn with seed 64, variances along them spaced evenly in log from 0.1 to 10."""
    draws = torch.randn(65, 64, generator=torch.Generator().manual_seed(64), dtype=torch.float64, device="cpu")
    mean, axes = draws[0], torch.linalg.qr(draws[1:]).Q
    variance = torch.logspace(-1, 1, 64, dtype=torch.float64, device="cpu")
    return Gaussian(mean, cholesky=lower_factor(axes * variance.sqrt())).to(*_placing(dtype, device))


def pixelwise(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> DiagonalGaussian:
    """16 independent pixels, means from 0 to 1 and standard deviations from 0.01 to 1, evenly in log."""
    mean, deviation = torch.linspace(0, 1, 16, dtype=torch.float64), torch.logspace(-2, 0, 16, dtype=torch.float64)
    return DiagonalGaussian(mean, deviation.square()).to(*_placing(dtype, device))


def _placing(dtype: torch.dtype | None, device: torch.device | str | None) -> tuple:
    return device or torch.get_default_device(), dtype or torch.get_default_dtype()
