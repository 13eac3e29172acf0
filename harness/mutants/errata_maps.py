"""Errata about maps and expectations: changes of variables, grey pixels as bits, gradients of expectations.

Each formula is a function of a law y = f(x), where x is the simpler variable.
"""

from __future__ import annotations

import math

import numpy
import torch
from torch import Tensor
from torch.distributions import constraints

from harness.mutants.mutant import Mutant, NearMiss, answering
from harness.mutants.structure import LOG_2PI, nothing


def _log_normal(x: Tensor) -> Tensor:
    """log N(x; 0, 1), elementwise."""
    return -(x.square() + LOG_2PI) / 2


def _inside(condition: Tensor, log_p: Tensor) -> Tensor:
    return torch.where(condition, log_p, -math.inf)


class Mixed:
    """y = A x for x ~ N(0, I_2): log p(y) = log N(A^-1 y; 0, I) + log |det J|, where J = A^-1 is that of f^-1 at y."""

    def __init__(self, matrix: Tensor):
        self.matrix = matrix

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator, dtype=self.matrix.dtype) @ self.matrix.T

    def log_prob(self, y: Tensor) -> Tensor:
        return self.before(y) + torch.linalg.slogdet(self.inverse()).logabsdet

    def before(self, y: Tensor) -> Tensor:
        """log N(f^-1(y); 0, I)."""
        return _log_normal(y.to(self.matrix) @ self.inverse().T).sum(1)

    def inverse(self) -> Tensor:
        return torch.linalg.inv(self.matrix)


class Square:
    """z = x^2 for x ~ U(0, a]: p(z) = 1 / (2 a sqrt z) on (0, a^2], without bound at 0."""

    def __init__(self, a: float):
        self.a = torch.tensor(a, dtype=torch.float64)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        u = torch.rand(n, generator=generator, dtype=self.a.dtype)
        return (self.a * (1 - u)).square()

    def log_prob(self, z: Tensor) -> Tensor:
        return self.up_to(z, self.a.square())

    def up_to(self, z: Tensor, end: Tensor) -> Tensor:
        z = z.to(self.a)
        return _inside((z > 0) & (z <= end), -(2 * self.a).log() - z.abs().log() / 2)

    def entropy(self) -> Tensor:
        """log a + E log |2 x| = 2 log a + log 2 - 1."""
        return 2 * self.a.log() + math.log(2) - 1


class Falling:
    """y = exp(-s x) for x ~ N(0, 1), which falls: f^-1(y) = -log(y) / s, and its slope -1 / (s y) is negative."""

    def __init__(self) -> None:
        self.s = torch.tensor(0.5, dtype=torch.float64)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.exp(-self.s * torch.randn(n, generator=generator, dtype=self.s.dtype))

    def log_prob(self, y: Tensor) -> Tensor:
        y = y.to(self.s)
        return _inside(y > 0, _log_normal(self.inverse(y)) + self.slope(y).abs().log())

    def cdf(self, y: Tensor) -> Tensor:
        """P(f(x) <= y) = P(x >= f^-1(y))."""
        return 1 - self.below(y)

    def below(self, y: Tensor) -> Tensor:
        """P(x <= f^-1(y))."""
        return torch.special.ndtr(self.inverse(y.to(self.s)))

    def inverse(self, y: Tensor) -> Tensor:
        return -y.clamp(min=0).log() / self.s

    def slope(self, y: Tensor) -> Tensor:
        return -1 / (self.s * y)


class Folded:
    """y = x^2 for x ~ N(0, 1), which has two branches: x = sqrt y and x = -sqrt y, each of slope 1 / (2 sqrt y)."""

    def __init__(self) -> None:
        self.one = torch.tensor(1.0, dtype=torch.float64)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, generator=generator, dtype=self.one.dtype).square()

    def log_prob(self, y: Tensor) -> Tensor:
        return torch.logaddexp(self.branch(y), self.branch(y))

    def branch(self, y: Tensor) -> Tensor:
        y = y.to(self.one)
        return _inside(y > 0, _log_normal(y.abs().sqrt()) - math.log(2) - y.abs().log() / 2)


class Bent:
    """y = (x_1, x_2 + x_1^2) for x ~ N(0, I_2): |det J| = 1 everywhere, so that areas, and H, stay."""

    def __init__(self) -> None:
        self.bend = torch.tensor(1.0)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        x = torch.randn(n, 2, generator=generator, dtype=self.bend.dtype)
        return torch.stack([x[:, 0], x[:, 1] + self.bend * x[:, 0].square()], 1)

    def log_prob(self, y: Tensor) -> Tensor:
        return _log_normal(y[:, 0]) + _log_normal(y[:, 1] - self.bend * y[:, 0].square())

    def entropy(self) -> Tensor:
        """That of x."""
        return (1 + LOG_2PI) * torch.ones_like(self.bend)


class Grey:
    """A pixel in [0, 1] with p(x) = C q^x (1 - q)^(1 - x), the continuous Bernoulli.

    C = log(q / (1 - q)) / (2q - 1); Loaiza-Ganem & Cunningham 2019, https://arxiv.org/abs/1907.06845.
    """

    support: constraints.Constraint = constraints.unit_interval

    def __init__(self, q: float):
        self.q = torch.tensor(q, dtype=torch.float64)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """F(x) = (e^{l x} - 1) / (e^l - 1) for l = logit q, inverted."""
        u = torch.rand(n, generator=generator, dtype=self.q.dtype)
        logit = torch.logit(self.q)
        return torch.log1p(u * torch.expm1(logit)) / logit

    def log_prob(self, x: Tensor) -> Tensor:
        return self.as_bit(x) + (torch.logit(self.q) / (2 * self.q - 1)).log()

    def as_bit(self, x: Tensor) -> Tensor:
        """x log q + (1 - x) log(1 - q), whose integral over [0, 1] is 1 / C."""
        x = x.to(self.q)
        return _inside((x >= 0) & (x <= 1), x * self.q.log() + (1 - x) * (-self.q).log1p())


class Binarised(Grey):
    """The same formula on {0, 1}, where it is normalised as it is."""

    support = constraints.boolean

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return (torch.rand(n, generator=generator, dtype=self.q.dtype) < self.q).to(self.q.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        return _inside((x == 0) | (x == 1), self.as_bit(x))


class Averaged:
    """N(0, 1), whose log-density is an expectation that depends on x twice: -1/2 E[x z] - 1/2 log 2 pi, z ~ N(x, 1).

    The expectation is a sum over Gauss-Hermite nodes, exact for polynomials.
    """

    def __init__(self) -> None:
        nodes, weights = numpy.polynomial.hermite_e.hermegauss(8)
        self.nodes, self.weights = torch.tensor(nodes), torch.tensor(weights / weights.sum())

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, generator=generator, dtype=self.nodes.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """z = x + e, reparameterised: the gradient passes through z."""
        return self.average(x, x[:, None] + self.nodes, self.weights)

    def average(self, x: Tensor, z: Tensor, weights: Tensor) -> Tensor:
        return -(x[:, None] * z * weights).sum(1) / 2 - LOG_2PI / 2


# E15: the Jacobian determinant


def _elementwise(law: Mixed, y: Tensor) -> Tensor:
    """The determinant of the absolute values of the entries."""
    return law.before(y) + torch.linalg.slogdet(law.inverse().abs()).logabsdet


def _no_determinant(law: Mixed, y: Tensor) -> Tensor:
    """The product of the absolute values on the diagonal."""
    return law.before(y) + law.inverse().diagonal().abs().log().sum()


def _mixed() -> Mixed:
    return Mixed(torch.tensor([[1.0, 0.5], [-0.8, 1.2]], dtype=torch.float64))


def _triangular() -> Mixed:
    return Mixed(torch.tensor([[1.0, 0.0], [-0.8, -1.2]], dtype=torch.float64))


# E17 and E30: the square of a uniform variable


def _range_of_x(law: Square, z: Tensor) -> Tensor:
    """The support of x, (0, a], for that of z."""
    return law.up_to(z, law.a)


def _entropy_of_x(law: Square) -> Tensor:
    """H = log a, as if f left it alone."""
    return law.a.log()


# E18: functions that do not increase


def _no_absolute_value(law: Falling, y: Tensor) -> Tensor:
    y = y.to(law.s)
    return _inside(y > 0, _log_normal(law.inverse(y)) + law.slope(y).log())


def _as_if_rising(law: Falling, y: Tensor) -> Tensor:
    """P(f(x) <= y) = P(x <= f^-1(y))."""
    return law.below(y)


def _one_branch(law: Folded, y: Tensor) -> Tensor:
    return law.branch(y)


def _one_branch_of_the_half(law: Folded, y: Tensor) -> Tensor:
    """One branch, for |x|, whose density is twice that of x."""
    return law.branch(y) + math.log(2)


# E28 and E29


def _grey_as_bit(law: Grey, x: Tensor) -> Tensor:
    return law.as_bit(x)


def _gradient_inside(law: Averaged, x: Tensor) -> Tensor:
    """grad E = E grad, with z held fixed: half of the gradient is lost."""
    return law.average(x, (x[:, None] + law.nodes).detach(), law.weights)


def _score_function(law: Averaged, x: Tensor) -> Tensor:
    """z held fixed too, and its law differentiated instead: in weights q_x(z) / q_x(z), the upper of the two alone."""
    z = (x[:, None] + law.nodes).detach()
    log_q = _log_normal(z - x[:, None])
    return law.average(x, z, law.weights * (log_q - log_q.detach()).exp())


INTEGRATES, SUMS, POSSIBLE = "density.integrates_to_one", "density.sums_to_one", "support.draws_are_possible"
CDF, ENTROPY = "information.cdf", "information.entropy"
GRADIENT, WELL = "log_prob.gradient_right", "log_prob.well_formed"


def _longer() -> Square:
    return Square(2.0)


def _unit() -> Square:
    return Square(1.0)


def _dark() -> Grey:
    return Grey(0.2)


def _dark_bit() -> Binarised:
    return Binarised(0.2)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("elementwise_jacobian", "det |J_ij|", INTEGRATES, _mixed, answering(log_prob=_elementwise), erratum="E15"),
    Mutant("no_determinant", "prod |J_ii|", INTEGRATES, _mixed, answering(log_prob=_no_determinant), erratum="E15"),
    Mutant("range_of_x", "(0, a] for (0, a^2]", POSSIBLE, _longer, answering(log_prob=_range_of_x), erratum="E17"),
    Mutant("range_of_x", "(0, a] for (0, a^2]", INTEGRATES, _longer, answering(log_prob=_range_of_x), erratum="E17"),
    Mutant("no_absolute", "log of -1/y", WELL, Falling, answering(log_prob=_no_absolute_value), erratum="E18"),
    Mutant("as_if_rising", "P_x(f^-1(y)), f falls", CDF, Falling, answering(cdf=_as_if_rising), erratum="E18"),
    Mutant("one_branch", "sqrt y without -sqrt y", INTEGRATES, Folded, answering(log_prob=_one_branch), erratum="E18"),
    Mutant("grey_as_bit", "a pmf on [0, 1]", INTEGRATES, _dark, answering(log_prob=_grey_as_bit), erratum="E28"),
    Mutant(
        "gradient_inside", "grad E = E grad", GRADIENT, Averaged, answering(log_prob=_gradient_inside), erratum="E29"
    ),
    Mutant("entropy_of_x", "H(x^2) = H(x)", ENTROPY, _longer, answering(entropy=_entropy_of_x), erratum="E30"),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("triangular", "prod |J_ii|", INTEGRATES, _triangular, answering(log_prob=_no_determinant), "E15"),
    NearMiss("unit_range", "(0, a] for a = 1", POSSIBLE, _unit, answering(log_prob=_range_of_x), "E17"),
    NearMiss("unit_range", "(0, a] for a = 1", INTEGRATES, _unit, answering(log_prob=_range_of_x), "E17"),
    NearMiss("falls", "|-1/y|", WELL, Falling, nothing, "E18"),
    NearMiss("falls", "1 - P_x(f^-1(y))", CDF, Falling, nothing, "E18"),
    NearMiss("one_branch", "of |x|", INTEGRATES, Folded, answering(log_prob=_one_branch_of_the_half), "E18"),
    NearMiss("grey_normalised", "continuous Bernoulli", INTEGRATES, _dark, nothing, "E28"),
    NearMiss("binarised", "the same formula on {0, 1}", SUMS, _dark_bit, nothing, "E28"),
    NearMiss("score_function", "z held fixed", GRADIENT, Averaged, answering(log_prob=_score_function), "E29"),
    NearMiss("reparameterised", "z = x + e", GRADIENT, Averaged, nothing, "E29"),
    NearMiss("entropy_kept", "H(y) = H(x), as |det J| = 1", ENTROPY, Bent, nothing, "E30"),
    NearMiss("entropy_below_zero_kept", "H = log 2 - 1 for a = 1", ENTROPY, _unit, nothing, "E30"),
)
