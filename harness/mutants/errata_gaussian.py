"""Errata about Gaussians: the quadratic form, singular covariances, the completed square, blocks and Schur complements.

Each formula is a function of a law N(mu, Sigma), or of the quadratic form that it was completed from, and `Lambda` is
Sigma^-1. Indices a are those that are kept or given, b the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.mutants.mutant import Mutant, NearMiss, answering
from harness.mutants.structure import LOG_2PI, Gaussian, gaussian, nothing

Blocks = tuple[list[int], list[int]]


class Quadratic:
    """The density proportional to exp(-(x^T A x + 2 x^T b + c) / 2) on R^d, for symmetric positive definite A."""

    def __init__(self, matrix: Tensor, linear: Tensor, constant: Tensor):
        self.matrix, self.linear, self.constant = matrix, linear, constant

    def mean(self) -> Tensor:
        """-A^-1 b."""
        return -torch.linalg.solve(self.matrix, self.linear)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        e = torch.randn(n, len(self.linear), generator=generator, dtype=self.linear.dtype)
        upper = torch.linalg.cholesky(self.matrix, upper=True)  # A = U^T U, so that U^-1 e has covariance A^-1
        return self.mean() + torch.linalg.solve_triangular(upper, e.T, upper=True).T

    def log_prob(self, x: Tensor) -> Tensor:
        """-log Z = (log |A| - d log 2 pi) / 2 + (c - b^T A^-1 b) / 2, where the bracket is what completing leaves."""
        left = self.constant + self.linear @ self.mean()
        return self.exponent(x) + _log_scale(self.matrix) + left / 2

    def exponent(self, x: Tensor) -> Tensor:
        x = x.to(self.linear)
        return -((x @ self.matrix * x).sum(1) + 2 * x @ self.linear + self.constant) / 2


def _log_scale(precision: Tensor) -> Tensor:
    """(log |Lambda| - d log 2 pi) / 2."""
    return (torch.linalg.slogdet(precision).logabsdet - len(precision) * LOG_2PI) / 2


def _square(law: Gaussian, x: Tensor) -> Tensor:
    """(x - mu)^T Sigma^-1 (x - mu): the squared Mahalanobis distance."""
    e = x.to(law.location) - law.location
    return (e * torch.linalg.solve(law.sigma, e.T).T).sum(1)


def _with_exponent(law: Gaussian, exponent: Tensor) -> Tensor:
    return exponent + _log_scale(torch.linalg.inv(law.sigma))


# E02 and E16: what stands in the exponent


def _without_half(law: Gaussian, x: Tensor) -> Tensor:
    return _with_exponent(law, -_square(law, x))


def _half_in_the_matrix(law: Gaussian, x: Tensor) -> Tensor:
    """-(x - mu)^T (2 Sigma)^-1 (x - mu): no 1/2 in sight."""
    return _with_exponent(law, -_square(Gaussian(law.location, 2 * law.sigma), x))


def _distance(law: Gaussian, x: Tensor) -> Tensor:
    return _with_exponent(law, -_square(law, x).sqrt() / 2)


def _distance_squared_again(law: Gaussian, x: Tensor) -> Tensor:
    return _with_exponent(law, -_square(law, x).square() / 2)


def _norm_squared(law: Gaussian, x: Tensor) -> Tensor:
    """-D^2 / 2 with the distance D = |L^-1 (x - mu)|, for Sigma = L L^T."""
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(law.sigma), (x.to(law.location) - law.location).T, upper=False
    )
    return _with_exponent(law, -torch.linalg.vector_norm(white, dim=0).square() / 2)


# E08: Sigma = v v^T is positive semidefinite, and its law has no density


def _direction(law: Gaussian) -> Tensor:
    return torch.linalg.cholesky(law.sigma)[:, 0]


def _on_a_line(law: Gaussian, n: int, *, generator: torch.Generator) -> Tensor:
    z = torch.randn(n, 1, generator=generator, dtype=law.location.dtype)
    return law.location + z * _direction(law)


def _pseudo_density(law: Gaussian, x: Tensor) -> Tensor:
    """The formula with the pseudo-inverse and the product of the positive eigenvalues: v v^T / |v|^4 and |v|^2."""
    v = _direction(law)
    along = (x.to(v) - law.location) @ v / v.square().sum()
    return -(along.square() + LOG_2PI + v.square().sum().log()) / 2


def _nearly_a_line() -> Gaussian:
    """Two axes of length 1 and 0.001: positive definite all the same."""
    factor = torch.tensor([[1.0, 0.0], [0.5, 1e-3]], dtype=torch.float64)
    return Gaussian(torch.tensor([1.0, -2.0], dtype=torch.float64), factor @ factor.T)


# E11: completing the square


def _quadratic() -> Quadratic:
    matrix = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    return Quadratic(matrix, torch.tensor([1.0, -0.5], dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64))


def _nearly_flat() -> Quadratic:
    """The smaller eigenvalue of A shrunk a hundredfold: still a density."""
    law = _quadratic()
    return Quadratic(_scaled_axis(law.matrix, 0.01), law.linear, law.constant)


def _scaled_axis(matrix: Tensor, by: float) -> Tensor:
    """The matrix with its smallest eigenvalue multiplied."""
    axes, basis = torch.linalg.eigh(matrix)
    return basis @ torch.diag(axes * torch.tensor([by, 1.0], dtype=axes.dtype)) @ basis.T


def _nothing_left() -> Quadratic:
    """c = b^T A^-1 b."""
    law = _quadratic()
    return Quadratic(law.matrix, law.linear, -law.linear @ law.mean())


def _plus(law: Quadratic) -> Tensor:
    return torch.linalg.solve(law.matrix, law.linear)


def _of_minus_two(law: Quadratic) -> Tensor:
    """+A^-1 beta, in the form x^T A x - 2 x^T beta."""
    beta = -law.linear
    return torch.linalg.solve(law.matrix, beta)


def _square_of_the_documents(law: Quadratic, x: Tensor) -> Tensor:
    """(x - A^-1 b)^T A (x - A^-1 b)."""
    e = x.to(law.linear) - _plus(law)
    return -(e @ law.matrix * e).sum(1) / 2 + _log_scale(law.matrix)


def _nothing_subtracted(law: Quadratic, x: Tensor) -> Tensor:
    """Normalised as if c, and not c - b^T A^-1 b, were left."""
    return law.exponent(x) + _log_scale(law.matrix) + law.constant / 2


def _saddle(law: Quadratic, x: Tensor) -> Tensor:
    """A with one negative eigenvalue: invertible, and the integral diverges."""
    return Quadratic(_scaled_axis(law.matrix, -0.01), law.linear, law.constant).log_prob(x)


# E12 to E14: blocks


def _blocks(law: Gaussian, indices: Sequence[int]) -> Blocks:
    a = list(indices)
    return a, [i for i in range(len(law.location)) if i not in a]


def _given(law: Gaussian, a: Sequence[int], values: Tensor, sign: float) -> Gaussian:
    """N(mu_b + sign Lambda_bb^-1 Lambda_ba (x_a - mu_a), Lambda_bb^-1)."""
    a, b = _blocks(law, a)
    precision = torch.linalg.inv(law.sigma)
    covariance = torch.linalg.inv(precision[b][:, b])
    shift = covariance @ precision[b][:, a] @ (values.to(law.location) - law.location[a])
    return Gaussian(law.location[b] + sign * shift, covariance)


def _mean_with_plus(law: Gaussian, indices: Sequence[int], values: Tensor) -> Gaussian:
    return _given(law, indices, values, 1.0)


def _mean_with_minus(law: Gaussian, indices: Sequence[int], values: Tensor) -> Gaussian:
    return _given(law, indices, values, -1.0)


def _kept(law: Gaussian, indices: Sequence[int], middle: Tensor) -> Gaussian:
    """N(mu_a, (Lambda_a - B middle B^T)^-1), with B = Lambda_ab."""
    a, b = _blocks(law, indices)
    precision = torch.linalg.inv(law.sigma)
    off = precision[a][:, b]
    return Gaussian(law.location[a], torch.linalg.inv(precision[a][:, a] - off @ middle @ off.T))


def _own_block_in_the_middle(law: Gaussian, indices: Sequence[int]) -> Gaussian:
    a, _ = _blocks(law, indices)
    return _kept(law, indices, torch.linalg.inv(law.sigma)[a][:, a])


def _inverse_of_the_other(law: Gaussian, indices: Sequence[int]) -> Gaussian:
    _, b = _blocks(law, indices)
    return _kept(law, indices, torch.linalg.inv(torch.linalg.inv(law.sigma)[b][:, b]))


def _inverse_complement(law: Gaussian, indices: Sequence[int], values: Tensor) -> Gaussian:
    """M = (Sigma_bb - Sigma_ba Sigma_aa^-1 Sigma_ab)^-1 where the complement itself is the covariance."""
    right = law.conditional(indices, values)
    return Gaussian(right.location, torch.linalg.inv(right.sigma))


def _inverse_block(law: Gaussian, indices: Sequence[int], values: Tensor) -> Gaussian:
    """The inverse of a block of the precision, which is the Schur complement in the covariance."""
    _, b = _blocks(law, indices)
    precision = torch.linalg.inv(law.sigma)
    return Gaussian(law.conditional(indices, values).location, torch.linalg.inv(precision[b][:, b]))


def _pair() -> Gaussian:
    """Two coordinates with correlation 1/2 and variance 4, far from what Lambda_a - B Lambda_a B^T makes of them."""
    sigma = torch.tensor([[4.0, 2.0], [2.0, 4.0]], dtype=torch.float64)
    return Gaussian(torch.tensor([1.0, -1.0], dtype=torch.float64), sigma)


def _minus(law: Gaussian) -> Tensor:
    return -law.entropy()


def _narrow() -> Gaussian:
    """Standard deviations of 0.1 and less: the entropy is negative."""
    return Gaussian(torch.zeros(2), torch.tensor([[0.01, 0.004], [0.004, 0.005]]))


INTEGRATES, VOLUME, ENTROPY = "density.integrates_to_one", "support.has_volume", "information.entropy"
MEAN, PRODUCT, MARGINAL = "moments.mean_of_density", "structure.product_rule", "structure.marginal_of_density"
DRAWN = "sampler.exchangeable"
plane, solid = gaussian(2, torch.float64), gaussian(3, torch.float64)

MUTANTS: tuple[Mutant, ...] = (
    Mutant("no_half", "log p without 1/2", INTEGRATES, plane, answering(log_prob=_without_half), erratum="E02"),
    Mutant(
        "singular_covariance",
        "a density for Sigma = v v^T",
        VOLUME,
        plane,
        answering(sample=_on_a_line, log_prob=_pseudo_density),
        erratum="E08",
    ),
    Mutant("square_plus", "mu = +A^-1 b", MEAN, _quadratic, answering(mean=_plus), erratum="E11"),
    Mutant(
        "square_about_plus",
        "(x - A^-1 b)^T A (x - A^-1 b)",
        DRAWN,
        _quadratic,
        answering(log_prob=_square_of_the_documents),
        erratum="E11",
    ),
    Mutant(
        "square_constant",
        "c for c - b^T A^-1 b",
        INTEGRATES,
        _quadratic,
        answering(log_prob=_nothing_subtracted),
        erratum="E11",
    ),
    Mutant("square_saddle", "A invertible only", INTEGRATES, _quadratic, answering(log_prob=_saddle), erratum="E11"),
    Mutant("mean_plus", "+L_bb^-1 L_ba y_a", PRODUCT, solid, answering(conditional=_mean_with_plus), erratum="E12"),
    Mutant(
        "marginal_middle",
        "(L_a - B L_a B^T)^-1",
        MARGINAL,
        _pair,
        answering(marginal=_own_block_in_the_middle),
        erratum="E13",
    ),
    Mutant(
        "complement_inverted",
        "M for the Schur complement",
        PRODUCT,
        solid,
        answering(conditional=_inverse_complement),
        erratum="E14",
    ),
    Mutant("distance", "-D/2 for -D^2/2", INTEGRATES, plane, answering(log_prob=_distance), erratum="E16"),
    Mutant(
        "distance_squared_again",
        "-(D^2)^2/2",
        INTEGRATES,
        plane,
        answering(log_prob=_distance_squared_again),
        erratum="E16",
    ),
    Mutant("entropy_plus", "H = +E log p", ENTROPY, plane, answering(entropy=_minus), erratum="E21"),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("half_in_the_matrix", "(2 Sigma)^-1", INTEGRATES, plane, answering(log_prob=_half_in_the_matrix), "E02"),
    NearMiss("nearly_singular_covariance", "0.001 thin", VOLUME, _nearly_a_line, nothing, "E08"),
    NearMiss("square_minus_2xb", "x^T A x - 2 x^T b", MEAN, _quadratic, answering(mean=_of_minus_two), "E11"),
    NearMiss("square_as_drawn", "exp(-(x^T A x + 2 x^T b + c) / 2) / Z", DRAWN, _quadratic, nothing, "E11"),
    NearMiss(
        "square_nothing_left",
        "c = b^T A^-1 b",
        INTEGRATES,
        _nothing_left,
        answering(log_prob=lambda law, x: law.exponent(x) + _log_scale(law.matrix)),
        "E11",
    ),
    NearMiss("square_barely_positive", "A's smaller eigenvalue x 0.01", INTEGRATES, _nearly_flat, nothing, "E11"),
    NearMiss("mean_minus", "-L_bb^-1 L_ba y_a", PRODUCT, solid, answering(conditional=_mean_with_minus), "E12"),
    NearMiss(
        "marginal_by_precision",
        "(L_a - B L_b^-1 B^T)^-1",
        MARGINAL,
        _pair,
        answering(marginal=_inverse_of_the_other),
        "E13",
    ),
    NearMiss("block_inverted", "L_bb^-1", PRODUCT, solid, answering(conditional=_inverse_block), "E14"),
    NearMiss("norm_squared", "|L^-1 (x - mu)|^2", INTEGRATES, plane, answering(log_prob=_norm_squared), "E16"),
    NearMiss("entropy_below_zero", "H < 0 for a narrow law", ENTROPY, _narrow, nothing, "E21"),
)
