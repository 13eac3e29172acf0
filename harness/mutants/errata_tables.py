"""Errata about discrete laws: counts of parameters, covariance, Bayes' rule, information.

Each formula is a function of a law, most of them of a joint table over x_0, x_1, ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.information import Fitted
from harness.mutants.mutant import Mutant, NearMiss, answering
from harness.mutants.structure import Table, nothing, table


class Counted(Table):
    """A table whose probabilities are all free but for their sum, fitted by frequencies."""

    def fit(self, x: Tensor) -> Counted:
        codes = torch.zeros(len(x), dtype=torch.int64)
        for column, size in zip(x.long().unbind(1), self.p.shape, strict=True):
            codes = codes * size + column
        return Counted(torch.bincount(codes, minlength=self.p.numel()).reshape(self.p.shape).to(self.p))

    def parameters(self) -> Tensor:
        """log p(x) / p(last state) for all other states: prod_i K_i - 1 of them."""
        log_p = self.p.flatten().log()
        return log_p[:-1] - log_p[-1]


# E01, E22 and E31: how many parameters are free


def _fewer_states(law: Counted) -> Tensor:
    """prod (K_i - 1), as 255 x 255 x 255 for three channels of 256 levels."""
    return law.parameters()[: math.prod(size - 1 for size in law.p.shape)]


def _every_state(law: Counted) -> Tensor:
    """prod K_i: the minus of 2^n - 1 lost."""
    return law.p.flatten().log()


def _regressions(law: Counted) -> tuple[Tensor, Tensor, Tensor]:
    """b_1, W_2 and b_2 of logit p(x_1 = 1) = b_1 and logit p(x_2 = 1 | x_1) = W_2 x_1 + b_2: any table of two bits."""
    first = law.p.sum(1).log()
    second = law.p.log()[:, 1] - law.p.log()[:, 0]
    return first[1] - first[0], second[1] - second[0], second[0]


def _own_columns(law: Counted) -> Tensor:
    """W_i with i columns for 1 <= i <= D, which gives every pixel a weight for itself, and x_1 a W_1."""
    b1, w2, b2 = _regressions(law)
    return torch.stack([b1, torch.zeros_like(b1), b2, w2, torch.zeros_like(b1)])


def _earlier_columns(law: Counted) -> Tensor:
    """W_i with i - 1 columns."""
    return torch.stack(_regressions(law))


# E06: covariance of two discrete variables


def _deviations(law: Table, off: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(2, m): off(x_k, mu) of the m values x_k = 0, 1, ... of either coordinate."""
    x = torch.arange(len(law.p), dtype=law.p.dtype)
    means = torch.stack([law.p.sum(1) @ x, law.p.sum(0) @ x])
    return off(x, means[:, None])


def _expected_product(law: Table, i: int, j: int, deviations: Tensor) -> Tensor:
    """The double sum over (k, l) of deviation_i(x_k) deviation_j(y_l) p(x_k, y_l)."""
    both = torch.diag(law.p.sum(1 - i)) if i == j else law.p
    return deviations[i] @ both @ deviations[j]


def _matrix(entries: list[Tensor]) -> Tensor:
    return torch.stack(entries).reshape(2, 2)


def _single_sum(law: Table) -> Tensor:
    """sum_k (x_k - mu_x)(y_k - mu_y) p(x_k, y_k)."""
    e = _deviations(law, torch.sub)
    off = (e[0] * e[1] * law.p.diagonal()).sum()
    return _matrix([_expected_product(law, 0, 0, e), off, off, _expected_product(law, 1, 1, e)])


def _minus_lost(law: Table) -> Tensor:
    """(x_k mu_x)(y_l mu_y) for (x_k - mu_x)(y_l - mu_y)."""
    e = _deviations(law, torch.mul)
    return _matrix([_expected_product(law, i, j, e) for i in range(2) for j in range(2)])


def _second_moments(law: Table) -> Tensor:
    """E[x y^T] - mu mu^T, in which no x_k - mu is written either."""
    raw, mean = _deviations(law, lambda x, mu: x.expand(2, -1)), _deviations(law, lambda x, mu: mu)[:, 0]
    return _matrix([_expected_product(law, i, j, raw) for i in range(2) for j in range(2)]) - torch.outer(mean, mean)


def _always_equal() -> Table:
    """x_1 = x_0: one sum over k is right where p(x_k, y_l) = 0 for k != l."""
    return Table(torch.diag(torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)))


# E07, E10 and E20: entropies and Bayes' rule


def _left(law: Table, a: Sequence[int], b: Sequence[int]) -> Tensor:
    """H(x | y) = H(x, y) - H(y), "the uncertainty in x after observing y"."""
    return law.marginal([*a, *b]).entropy() - law.marginal(b).entropy()


def _reduction(law: Table, a: Sequence[int], b: Sequence[int]) -> Tensor:
    """H(x) - H(x | y)."""
    return law.marginal(a).entropy() - _left(law, a, b)


def _similarity(law: Fitted, other: Model) -> Tensor:
    """exp(-KL): 1 for equal laws, and less for others."""
    return torch.exp(-law.kl(other.target))  # type: ignore[arg-type]


def _cross_entropy(law: Fitted, other: Model) -> Tensor:
    """E[-log q], which has its minimum at the same q as KL, and another value there."""
    return law.kl(other.target) + law.entropy()  # type: ignore[arg-type]


def _less_entropy(law: Fitted, other: Model) -> Tensor:
    """E[-log q] - H(p)."""
    return _cross_entropy(law, other) - law.entropy()


def _best_likelihood(law: Fitted) -> Tensor:
    """max over q of E log q, which is E log p = -H."""
    return -law.entropy()


class Conditional:
    """log p(x_b | x_a = values) by a formula of log p(x_a, x_b), log p(x_a) and log p(x_b), all (n,)."""

    def __init__(self, law: Table, a: Sequence[int], values: Tensor, formula: Callable[..., Tensor]):
        self.law, self.a, self.values, self.formula = law, list(a), values, formula

    def log_prob(self, y: Tensor) -> Tensor:
        b = [i for i in range(self.law.p.ndim) if i not in self.a]
        x = torch.zeros(len(y), self.law.p.ndim, dtype=y.dtype)
        x[:, self.a], x[:, b] = self.values.to(y.dtype), y
        of_a, of_b = self.law.marginal(self.a).log_prob(x[:, self.a]), self.law.marginal(b).log_prob(y)
        return self.formula(self.law.log_prob(x), of_a, of_b)


def _by(formula: Callable[..., Tensor]) -> Callable[..., Conditional]:
    return lambda law, indices, values: Conditional(law, indices, values, formula)


def _undivided(both: Tensor, of_a: Tensor, of_b: Tensor) -> Tensor:
    """p(y | x) = p(x, y)."""
    return both


def _divided(both: Tensor, of_a: Tensor, of_b: Tensor) -> Tensor:
    """p(y | x) = p(x, y) / p(x)."""
    return both - of_a


def _likelihood(both: Tensor, of_a: Tensor, of_b: Tensor) -> Tensor:
    """p(x | y) where p(y | x) is due."""
    return both - of_b


def _posterior(both: Tensor, of_a: Tensor, of_b: Tensor) -> Tensor:
    """p(x | y) p(y) / p(x)."""
    return torch.where(of_b > -math.inf, _likelihood(both, of_a, of_b) + of_b - of_a, -math.inf)


def _bit() -> Counted:
    return Counted(torch.tensor([0.3, 0.7], dtype=torch.float64))


def _bits() -> Counted:
    return Counted(torch.tensor([[0.1, 0.3], [0.4, 0.2]], dtype=torch.float64))


def _levels() -> Counted:
    """Two channels of three levels."""
    return Counted(torch.tensor([[3.0, 1.0, 2.0], [2.0, 4.0, 1.0], [1.0, 3.0, 3.0]], dtype=torch.float64))


def _learning() -> Fitted:
    return Fitted(torch.tensor([-1.0, 1.0]), torch.tensor([0.5, 2.0]))


WILKS, COVARIANCE = "estimation.twice_the_gain_is_chi_squared", "moments.covariance_of_density"
ENTROPIES, CROSS, ITSELF = "mutual.of_entropies", "information.cross_entropy", "information.kl_to_itself_is_zero"
PRODUCT, BAYES = "structure.product_rule", "structure.bayes_rule"
cube, square = table(3, 2, 4), table(4, 4)

MUTANTS: tuple[Mutant, ...] = (
    Mutant("fewer_states", "prod (K_i - 1)", WILKS, _levels, answering(parameters=_fewer_states), erratum="E01"),
    Mutant("single_sum", "one sum over k", COVARIANCE, square, answering(covariance=_single_sum), erratum="E06"),
    Mutant("minus_lost", "(x mu)(y mu)", COVARIANCE, square, answering(covariance=_minus_lost), erratum="E06"),
    Mutant("what_is_left", "I = H(x | y)", ENTROPIES, cube, answering(mutual_information=_left), erratum="E07"),
    Mutant("similarity", "exp(-KL)", ITSELF, _learning, answering(kl=_similarity), erratum="E07"),
    Mutant("undivided", "p(y | x) = p(x, y)", PRODUCT, cube, answering(conditional=_by(_undivided)), erratum="E10"),
    Mutant("likelihood", "p(x | y) for p(y | x)", BAYES, cube, answering(conditional=_by(_likelihood)), erratum="E20"),
    Mutant("best_likelihood", "H = max E log q", CROSS, _learning, answering(entropy=_best_likelihood), erratum="E21"),
    Mutant("own_columns", "W_i with i columns", WILKS, _bits, answering(parameters=_own_columns), erratum="E22"),
    Mutant("same_minimum", "KL = E[-log q]", ITSELF, _learning, answering(kl=_cross_entropy), erratum="E24"),
    Mutant("every_state", "2^n for 2^n - 1", WILKS, _bit, answering(parameters=_every_state), erratum="E31"),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("all_but_one", "prod K_i - 1", WILKS, _levels, nothing, "E01"),
    NearMiss("single_sum", "of two equal numbers", COVARIANCE, _always_equal, answering(covariance=_single_sum), "E06"),
    NearMiss("second_moments", "E[xy] - mu mu", COVARIANCE, square, answering(covariance=_second_moments), "E06"),
    NearMiss("reduction", "H(x) - H(x | y)", ENTROPIES, cube, answering(mutual_information=_reduction), "E07"),
    NearMiss("divided", "p(x, y) / p(x)", PRODUCT, cube, answering(conditional=_by(_divided)), "E10"),
    NearMiss("posterior", "p(x | y) p(y) / p(x)", BAYES, cube, answering(conditional=_by(_posterior)), "E20"),
    NearMiss("least_loss", "H = min E[-log q]", CROSS, _learning, nothing, "E21"),
    NearMiss("earlier_columns", "W_i with i - 1 columns", WILKS, _bits, answering(parameters=_earlier_columns), "E22"),
    NearMiss("less_entropy", "E[-log q] - H", ITSELF, _learning, answering(kl=_less_entropy), "E24"),
    NearMiss("logits", "2^n - 1 logits", WILKS, _bits, nothing, "E31"),
)
