r"""Multivariate Gaussians: every linear view of a Gaussian vector is Gaussian again.

    x = mu + L z,  z ~ N(0, I)     so that     x ~ N(mu, Sigma),  Sigma = L L^T

    log p(x) = -1/2 ||L^-1 (x - mu)||^2 - sum_i log L_ii - d/2 log(2 pi)

`Gaussian` keeps the Cholesky factor L, lower triangular with a positive diagonal, and never inverts Sigma: the
condition number of L is the square root of that of Sigma, so half as many digits are lost. For the same reason, factors
are computed in float64 and rounded once to the dtype of the model. `DiagonalGaussian` has independent coordinates.

A density needs Sigma positive definite; a singular Sigma gives a law on a subspace, which has none.

Sources: Bishop, Pattern Recognition and Machine Learning (2006), section 2.3;
Higham, Accuracy and Stability of Numerical Algorithms (2nd ed., 2002), chapters 8, 10 and 19.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Generator, Tensor
from torch.linalg import solve_triangular

LOG_2PI = math.log(2 * math.pi)


class Gaussian:
    """N(mu, Sigma) on R^d, from its mean (d,) and either Sigma (d, d) or the lower factor L with L L^T = Sigma."""

    def __init__(self, mean: Tensor, covariance: Tensor | None = None, *, cholesky: Tensor | None = None):
        if (covariance is None) == (cholesky is None):
            raise ValueError("a Gaussian takes either a covariance or its Cholesky factor")
        self.loc, matrix = as_floats(mean, covariance if cholesky is None else cholesky)  # (d,), (d, d)
        self.d = _length(self.loc)
        if matrix.shape != (self.d, self.d):
            raise ValueError(f"the mean has {self.d} entries, but the matrix has shape {tuple(matrix.shape)}")
        self.cholesky = factor_of_covariance(matrix) if cholesky is None else _checked_factor(matrix)

    def log_prob(self, x: Tensor) -> Tensor:
        z = self.whiten(x)  # (n, d)
        log_det = self.cholesky.to(z.dtype).diagonal().log().sum()  # ()
        log_prob = -z.square().sum(-1) / 2 - log_det - self.d / 2 * LOG_2PI  # (n,)
        return torch.where(x.isinf().any(-1), -math.inf, log_prob)  # infinity is no point of R^d

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """mu + L z, with z standard normal."""
        return self.loc + _normals(n, self.loc, generator) @ self.cholesky.mT  # (n, d)

    def mean(self) -> Tensor:
        return self.loc  # (d,)

    def covariance(self) -> Tensor:
        return self.cholesky @ self.cholesky.mT  # (d, d)

    def variance(self) -> Tensor:
        return self.cholesky.square().sum(-1)  # (d,)

    def whiten(self, x: Tensor) -> Tensor:
        """z = L^-1 (x - mu), standard normal when x is from the model; solved as z L^T = x - mu, a row per draw."""
        x, loc, cholesky = as_floats(_checked_draws(x, self.d), self.loc, self.cholesky)
        return solve_triangular(cholesky.mT, x - loc, upper=True, left=False)  # (n, d)

    def mahalanobis(self, x: Tensor) -> Tensor:
        """sqrt((x - mu)^T Sigma^-1 (x - mu)): the distance itself; its *square* is chi^2_d when x is from the model."""
        return torch.linalg.vector_norm(self.whiten(x), dim=-1)  # (n,)

    def entropy(self) -> Tensor:
        """H = 1/2 log det(2 pi e Sigma), in nats."""
        return self.d / 2 * (1 + LOG_2PI) + self.cholesky.diagonal().log().sum()  # ()

    def kl(self, other: "Gaussian | DiagonalGaussian") -> Tensor:
        r"""KL(p, q) = 1/2 [tr(Sigma_q^-1 Sigma_p) - d - log det(Sigma_q^-1 Sigma_p) + ||L_q^-1 (mu_p - mu_q)||^2].

        With M = L_q^-1 L_p, lower triangular, trace and determinant split into terms none of which is negative:
        sum_{i>j} M_ij^2 + sum_i (M_ii^2 - 1 - log M_ii^2). So the result is never below 0, and is exact when p is q.
        """
        _same_size(self.d, other.d)
        loc_p, loc_q, factor_p, factor_q = as_floats(self.loc, other.loc, self.cholesky, other.cholesky)
        below = solve_triangular(factor_q, factor_p, upper=False).tril(-1)  # (d, d)
        log_ratio = 2 * (factor_p.diagonal() / factor_q.diagonal()).log()  # (d,)
        shift = solve_triangular(factor_q, (loc_p - loc_q)[:, None], upper=False)  # (d, 1)
        return (below.square().sum() + (log_ratio.expm1() - log_ratio).sum() + shift.square().sum()) / 2  # ()

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
        a, b = split(indices, self.d)
        k = len(a)
        factor = lower_factor(self.cholesky[a + b])  # (d, d)
        values = _checked_values(values, k).to(self.loc)
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
        x = _checked_sample(x)
        loc = x.double().mean(0)  # (d,)
        factor = lower_factor((x - loc).mT / math.sqrt(len(x)))  # (d, d)
        return cls(loc.to(x.dtype), cholesky=factor.to(x.dtype))

    def to(self, *args, **kwargs) -> "Gaussian":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return Gaussian(self.loc.to(*args, **kwargs), cholesky=self.cholesky.to(*args, **kwargs))


class DiagonalGaussian:
    """A product of d independent Gaussians, p(x) = prod_i N(x_i; mu_i, sigma_i^2), such as one for each pixel."""

    def __init__(self, mean: Tensor, variance: Tensor):
        self.loc, self._variance = as_floats(mean, variance)  # (d,), (d,)
        self.d = _length(self.loc)
        if self._variance.shape != self.loc.shape:
            raise ValueError(f"{self.d} means, but the variances have shape {tuple(self._variance.shape)}")
        if not ((self._variance > 0) & self._variance.isfinite()).all():
            raise ValueError("each variance must be positive and finite")

    def log_prob(self, x: Tensor) -> Tensor:
        z = self.whiten(x)  # (n, d)
        return -(z.square() + self._variance.to(z.dtype).log() + LOG_2PI).sum(-1) / 2  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return self.loc + _normals(n, self.loc, generator) * self._variance.sqrt()  # (n, d)

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
        x, loc, variance = as_floats(_checked_draws(x, self.d), self.loc, self._variance)
        return (x - loc) / variance.sqrt()  # (n, d)

    def mahalanobis(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(self.whiten(x), dim=-1)  # (n,)

    def entropy(self) -> Tensor:
        """H = sum_i 1/2 log(2 pi e sigma_i^2), in nats."""
        return (1 + LOG_2PI + self._variance.log()).sum() / 2  # ()

    def kl(self, other: "Gaussian | DiagonalGaussian") -> Tensor:
        """KL(p, q) = 1/2 sum_i [r_i - 1 - log r_i + (mu_p - mu_q)_i^2 / sigma_qi^2], with r = sigma_p^2 / sigma_q^2."""
        if isinstance(other, Gaussian):
            return Gaussian(self.loc, cholesky=self.cholesky).kl(other)
        _same_size(self.d, other.d)
        loc_p, loc_q, variance_p, variance_q = as_floats(self.loc, other.loc, self._variance, other._variance)
        log_ratio = (variance_p / variance_q).log()  # (d,)
        return (log_ratio.expm1() - log_ratio + (loc_p - loc_q).square() / variance_q).sum() / 2  # ()

    def marginal(self, indices: Sequence[int]) -> "DiagonalGaussian":
        a, _ = split(indices, self.d)
        return DiagonalGaussian(self.loc[a], self._variance[a])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "DiagonalGaussian":
        """p(x_b | x_a) = p(x_b): the coordinates are independent, and the values change nothing."""
        a, b = split(indices, self.d)
        _checked_values(values, len(a))
        return DiagonalGaussian(self.loc[b], self._variance[b])

    def affine(self, matrix: Tensor, shift: Tensor | float = 0.0) -> Gaussian:
        """The law of A x + b, whose coordinates are dependent in general."""
        return Gaussian(self.loc, cholesky=self.cholesky).affine(matrix, shift)

    @classmethod
    def fit(cls, x: Tensor) -> "DiagonalGaussian":
        """Maximum likelihood: mean and variance of each coordinate, dividing by N."""
        x = _checked_sample(x)
        loc = x.double().mean(0)  # (d,)
        return cls(loc.to(x.dtype), (x - loc).square().mean(0).to(x.dtype))

    def to(self, *args, **kwargs) -> "DiagonalGaussian":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return DiagonalGaussian(self.loc.to(*args, **kwargs), self._variance.to(*args, **kwargs))


# Factors


def factor_of_covariance(covariance: Tensor) -> Tensor:
    """The Cholesky factor L of Sigma = L L^T; a ValueError when Sigma is not symmetric and positive definite.

    L_ii^2 is the variance of x_i given the coordinates before it. Once that falls to d eps of the variance of x_i, it
    is rounding error, and Sigma cannot be told from a singular matrix (Higham, theorem 10.7).
    """
    if not covariance.isfinite().all():
        raise ValueError("the covariance has entries that are not finite")
    sigma = covariance.double()  # (d, d)
    variance = sigma.diagonal()  # (d,)
    if not (variance > 0).all():
        raise ValueError("the covariance is not positive definite: a variance is not positive")
    deviation = variance.sqrt()
    asymmetry = (sigma - sigma.mT).abs() / deviation / deviation[:, None]
    if not asymmetry.max() <= torch.finfo(covariance.dtype).eps ** 0.5:  # far more than rounding explains
        raise ValueError("the covariance is not symmetric")
    factor, failed_at = torch.linalg.cholesky_ex((sigma + sigma.mT) / 2)
    if failed_at or not (factor.diagonal().square() > len(sigma) * torch.finfo(sigma.dtype).eps * variance).all():
        raise ValueError("the covariance is not positive definite, so that there is no density")
    return factor.to(covariance.dtype)


def lower_factor(matrix: Tensor) -> Tensor:
    """The Cholesky factor of B B^T for B (k, m), without squaring B: if B^T = Q R, then B B^T = R^T R."""
    b = matrix.double()
    if b.shape[0] > b.shape[1]:
        raise ValueError(f"the covariance of {b.shape[0]} combinations of {b.shape[1]} variables is singular")
    r = torch.linalg.qr(b.mT).R  # (k, k)
    factor = r.mT * r.diagonal().sign()  # R is unique up to the signs of its rows
    row_norm = torch.linalg.vector_norm(b.detach(), dim=1)
    if not (factor.diagonal() > max(b.shape) * torch.finfo(b.dtype).eps * row_norm).all():
        raise ValueError("the rows are linearly dependent, so that their covariance is singular")
    return factor.to(matrix.dtype)


def split(indices: Sequence[int], d: int) -> tuple[list[int], list[int]]:
    """The chosen coordinates, in the order given, and the others, in theirs."""
    chosen = [int(i) for i in indices]
    if not chosen or len(chosen) > d or not all(-d <= i < d for i in chosen):
        raise ValueError(f"{chosen} does not choose some of {d} coordinates")
    chosen = [i % d for i in chosen]
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{chosen} repeats a coordinate")
    return chosen, [i for i in range(d) if i not in chosen]


# Arguments


def as_floats(*values: Tensor) -> list[Tensor]:
    """All of them in the one floating dtype that holds them all, so that nothing is rounded down."""
    tensors = [torch.as_tensor(value) for value in values]
    dtype = reduce(torch.promote_types, (t.dtype for t in tensors))
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    return [t.to(dtype) for t in tensors]


def _length(mean: Tensor) -> int:
    if mean.dim() != 1 or len(mean) == 0 or not mean.isfinite().all():
        raise ValueError(f"the mean should be a finite vector; its shape is {tuple(mean.shape)}")
    return len(mean)


def _checked_factor(factor: Tensor) -> Tensor:
    if not factor.isfinite().all() or factor.triu(1).any() or not (factor.diagonal() > 0).all():
        raise ValueError("a Cholesky factor is finite and lower triangular, with a positive diagonal")
    return factor


def _checked_draws(x: Tensor, d: int) -> Tensor:
    if x.dim() != 2 or x.shape[1] != d:  # a column would broadcast against d coordinates without a word
        raise ValueError(f"draws should have shape (n, {d}), not {tuple(x.shape)}")
    return x


def _checked_sample(x: Tensor) -> Tensor:
    (x,) = as_floats(x)
    if x.dim() != 2 or len(x) == 0 or not x.isfinite().all():
        raise ValueError(f"a sample to fit is finite and has shape (n, d) with n > 0; this one has {tuple(x.shape)}")
    return x


def _checked_values(values: Tensor, k: int) -> Tensor:
    values = torch.as_tensor(values)
    if values.shape != (k,):
        raise ValueError(f"{k} coordinates are given, but their values have shape {tuple(values.shape)}")
    return values


def _same_size(d: int, other: int) -> None:
    if d != other:
        raise ValueError(f"a law on R^{d} has no divergence from one on R^{other}")


def _normals(n: int, like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(n, len(like), generator=generator, dtype=like.dtype, device=like.device)  # (n, d)


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
