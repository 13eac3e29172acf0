r"""The information form of a Gaussian: what a quadratic exponent says without any inverse.

    p(x) = N(x; mu, Lambda^-1),     log p(x) = -1/2 x^T Lambda x + eta^T x + const,     eta = Lambda mu

Covariance and precision are dual. In Sigma, to marginalise is to drop rows and columns; in Lambda, to condition is:

    p(x_b | x_a):  precision  Lambda_bb,   mean  mu_b - Lambda_bb^-1 Lambda_ba (x_a - mu_a)
    p(x_a):        precision  Lambda_aa - Lambda_ab Lambda_bb^-1 Lambda_ba,   the Schur complement of Lambda_bb

Mind the minus sign of the first, and that the second is (Sigma_aa)^-1, not Sigma_aa. Independent pieces of evidence
about one x multiply, and then their eta and Lambda add. A zero in Lambda is an edge that is missing from the graph.

The factor C is lower triangular with Lambda = C C^T; log p(x) = -1/2 ||C^T (x - mu)||^2 + sum_i log C_ii + const.

Source: Bishop, Pattern Recognition and Machine Learning (2006), sections 2.3.1 to 2.3.3.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.linalg import solve_triangular

from reference_impls.gaussian import LOG_2PI, DiagonalGaussian, Gaussian
from reference_impls.gaussian_factors import (
    as_floats,
    checked_draws,
    checked_factor,
    checked_parameters,
    checked_values,
    factor_of_covariance,
    inverse_factor,
    length,
    lower_factor,
    normals,
)
from reference_impls.indices import split, split_evidence


class PrecisionGaussian:
    """N(mu, Lambda^-1) on R^d, from its mean (d,) and either Lambda (d, d) or its lower factor C, C C^T = Lambda."""

    number, family = "M01", "multivariate Gaussian, information form"

    def __init__(self, mean: Tensor, precision: Tensor | None = None, *, factor: Tensor | None = None):
        if (precision is None) == (factor is None):
            raise ValueError("a PrecisionGaussian takes either a precision or its Cholesky factor")
        self.loc, matrix = as_floats(mean, precision if factor is None else factor)  # (d,), (d, d)
        self.d = length(self.loc)
        if matrix.shape != (self.d, self.d):
            raise ValueError(f"the mean has {self.d} entries, but the matrix has shape {tuple(matrix.shape)}")
        self.factor = factor_of_covariance(matrix, "precision") if factor is None else checked_factor(matrix)

    @classmethod
    def of(cls, model: Gaussian | DiagonalGaussian) -> "PrecisionGaussian":
        """The same law, Sigma = L L^T: Lambda = L^-T L^-1."""
        return cls(model.loc, factor=lower_factor(inverse_factor(model.cholesky).mT))

    def moments(self) -> Gaussian:
        """The same law by mean and covariance."""
        return Gaussian(self.loc, cholesky=self.cholesky)

    def log_prob(self, x: Tensor) -> Tensor:
        z = self.whiten(x)  # (n, d)
        log_det = self.factor.to(z.dtype).diagonal().log().sum()  # half of log det Lambda
        log_prob = -z.square().sum(-1) / 2 + log_det - self.d / 2 * LOG_2PI  # (n,)
        return torch.where(x.isinf().any(-1), -torch.inf, log_prob)

    def whiten(self, x: Tensor) -> Tensor:
        """C^T (x - mu), standard normal when x is from the model."""
        x, loc, factor = as_floats(checked_draws(x, self.d), self.loc, self.factor)
        return (x - loc) @ factor  # (n, d)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """mu + C^-T z, with z standard normal."""
        return self.loc + normals(n, self.loc, generator) @ inverse_factor(self.factor)  # (n, d)

    def mean(self) -> Tensor:
        return self.loc  # (d,)

    def precision(self) -> Tensor:
        return self.factor @ self.factor.mT  # (d, d)

    def shift(self) -> Tensor:
        """eta = Lambda mu, what stands beside x in the exponent."""
        return self.factor @ (self.factor.mT @ self.loc)  # (d,)

    @property
    def cholesky(self) -> Tensor:
        """L with L L^T = Sigma = C^-T C^-1."""
        return lower_factor(inverse_factor(self.factor).mT)  # (d, d)

    def covariance(self) -> Tensor:
        inverse = inverse_factor(self.factor)  # C^-1
        return inverse.mT @ inverse  # (d, d)

    def variance(self) -> Tensor:
        return inverse_factor(self.factor).square().sum(0)  # (d,)

    def entropy(self) -> Tensor:
        """H = d/2 log(2 pi e) - 1/2 log det Lambda, in nats."""
        return self.d / 2 * (1 + LOG_2PI) - self.factor.diagonal().log().sum()  # ()

    def kl(self, other: "PrecisionGaussian | Gaussian | DiagonalGaussian") -> Tensor:
        """As of the covariance form; see `Gaussian.kl`."""
        return self.moments().kl(other)

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """As of the covariance form; see `Gaussian.mutual_information`."""
        return self.moments().mutual_information(a, b)

    def marginal(self, indices: Sequence[int]) -> "PrecisionGaussian":
        r"""p(x_a) has precision Lambda_aa - Lambda_ab Lambda_bb^-1 Lambda_ba.

        With the factor written b before a, that is C_aa C_aa^T: what conditioning is to the covariance form.
        """
        a, b = split(indices, self.d)
        factor = lower_factor(self.factor[b + a])  # (d, d)
        return PrecisionGaussian(self.loc[a], factor=factor[len(b) :, len(b) :])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "PrecisionGaussian":
        """p(x_b | x_a = values): keep Lambda_bb; the mean is mu_b - Lambda_bb^-1 Lambda_ba (x_a - mu_a)."""
        a, b = split_evidence(indices, self.d)
        values = checked_values(values, len(a)).to(self.loc)
        if not a:
            return self
        factor = lower_factor(self.factor[b])  # of Lambda_bb, without forming it
        pull = self.factor[b] @ (self.factor[a].mT @ (values - self.loc[a]))  # Lambda_ba (x_a - mu_a)
        mean = self.loc[b] - _solve(factor, pull)
        return PrecisionGaussian(mean, factor=factor)

    def times(self, other: "PrecisionGaussian") -> "PrecisionGaussian":
        """The law in proportion to p(x) q(x): precisions add, and means are weighted by them."""
        if self.d != other.d:
            raise ValueError(f"densities on R^{self.d} and on R^{other.d} have no product")
        loc_p, loc_q, factor_p, factor_q = as_floats(self.loc, other.loc, self.factor, other.factor)
        factor = lower_factor(torch.cat([factor_p, factor_q], dim=1))  # of Lambda_p + Lambda_q
        # mu = mu_p + (Lambda_p + Lambda_q)^-1 Lambda_q (mu_q - mu_p): the sum of the eta would lose more digits
        return PrecisionGaussian(loc_p + _solve(factor, factor_q @ (factor_q.mT @ (loc_q - loc_p))), factor=factor)

    def parameters(self) -> Tensor:
        """theta = (mu, log of the diagonal of C, its rows below the diagonal), d + d(d + 1)/2 numbers."""
        return Gaussian(self.loc, cholesky=self.factor).parameters()

    def with_parameters(self, theta: Tensor) -> "PrecisionGaussian":
        """The law of this size with those parameters; differentiable in theta."""
        theta = checked_parameters(theta, self.d + self.d * (self.d + 1) // 2)
        like = Gaussian(self.loc, cholesky=self.factor).with_parameters(theta)  # the same layout, with C for L
        return PrecisionGaussian(like.loc, factor=like.cholesky)

    @classmethod
    def fit(cls, x: Tensor) -> "PrecisionGaussian":
        """Maximum likelihood, as of the covariance form: the estimate of Sigma^-1 is the inverse of that of Sigma."""
        return cls.of(Gaussian.fit(x))

    def to(self, *args, **kwargs) -> "PrecisionGaussian":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return PrecisionGaussian(self.loc.to(*args, **kwargs), factor=self.factor.to(*args, **kwargs))


def complete_the_square(A: Tensor, b: Tensor, c: Tensor | float = 0.0) -> tuple[PrecisionGaussian, Tensor]:
    r"""The Gaussian in proportion to exp(-1/2 (x^T A x + 2 x^T b + c)), and the log of that function's integral.

        x^T A x + 2 x^T b + c = (x + A^-1 b)^T A (x + A^-1 b) + c - b^T A^-1 b

    so that the mean is -A^-1 b, with a minus, the precision is A, and

        log of the integral = d/2 log(2 pi) - 1/2 log det A - 1/2 (c - b^T A^-1 b).

    A (d, d) must be symmetric and positive definite; invertible is not enough, as the integral would diverge.
    """
    A, b = as_floats(A, b)
    A, b, c = as_floats(A, b, c if isinstance(c, Tensor) else torch.tensor(c, dtype=A.dtype, device=A.device))
    if b.dim() != 1 or A.shape != (len(b), len(b)) or c.dim() != 0 or not b.isfinite().all() or not c.isfinite():
        raise ValueError(f"b and c should be finite, A (d, d), b (d,), c (); not {[tuple(t.shape) for t in (A, b, c)]}")
    factor = factor_of_covariance(A.double(), "matrix A")  # A = C C^T
    half = solve_triangular(factor, b.double()[:, None], upper=False)  # C^-1 b
    model = PrecisionGaussian(-_solve(factor, b.double()), factor=factor).to(A.dtype)
    constant = (c.double() - half.square().sum()) / 2
    log_integral = len(b) / 2 * LOG_2PI - factor.diagonal().log().sum() - constant
    return model, log_integral.to(A.dtype)


def _solve(factor: Tensor, b: Tensor) -> Tensor:
    """(C C^T)^-1 b, in float64."""
    return torch.cholesky_solve(b.double()[:, None], factor.double())[:, 0].to(b.dtype)


# Ready-made models


def chain(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> PrecisionGaussian:
    """6 coordinates in a row, each coupled to its neighbours only: Lambda is tridiagonal, 2 beside -0.9."""
    neighbours = torch.diag(torch.full((5,), -0.9, dtype=torch.float64), 1)
    precision = 2 * torch.eye(6, dtype=torch.float64) + neighbours + neighbours.mT
    model = PrecisionGaussian(torch.linspace(-1, 1, 6, dtype=torch.float64), precision)
    return model.to(device or torch.get_default_device(), dtype or torch.get_default_dtype())
