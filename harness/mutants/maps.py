"""Informations that change with the coordinates where they must not, and stay where they must; and right ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.energy import edited
from harness.mutants.mutant import Change, Mutant, NearMiss, mutated
from harness.mutants.structure import Gaussian, diagonal, nearly_singular, nothing, table


class Mapped(Gaussian):
    """A Gaussian that can be mapped, fitted and compared with its like."""

    def affine(self, matrix: Tensor, shift: Tensor) -> Mapped:
        return Mapped(matrix @ self.location + shift, matrix @ self.sigma @ matrix.mT)

    def fit(self, x: Tensor) -> Mapped:
        return Mapped(x.mean(0), torch.cov(x.T, correction=0))

    def kl(self, other: Mapped) -> Tensor:
        """(tr S_q^-1 S_p + m^T S_q^-1 m - d + log |S_q| / |S_p|) / 2."""
        theirs = torch.linalg.cholesky(other.sigma)
        ours = torch.linalg.cholesky(self.sigma)
        white = torch.linalg.solve_triangular(theirs, ours, upper=False)
        shift = torch.linalg.solve_triangular(theirs, (other.location - self.location)[:, None], upper=False)
        logs = theirs.diagonal().log().sum() - ours.diagonal().log().sum()
        return (white.square().sum() + shift.square().sum() - len(ours)) / 2 + logs


def mapped(d: int, dtype: torch.dtype = torch.float32) -> Callable[[], Mapped]:
    """A correlated law in d dimensions."""

    def build() -> Mapped:
        factor = torch.tril(torch.cos(torch.arange(d * d, dtype=dtype).reshape(d, d))) / math.sqrt(d)
        return Mapped(torch.arange(d, dtype=dtype), factor @ factor.T + 0.5 * torch.eye(d, dtype=dtype))

    return build


def stretched() -> Mapped:
    """Correlation 0.99, in float32, away from the origin."""
    law = nearly_singular()
    return Mapped(law.location, law.sigma)


def _formula(name: str, formula: Callable[..., Tensor]) -> Change:
    """The change of a method to formula(law, ...), kept by every law that a map makes of this one."""

    def change(model: Model) -> dict[str, Callable[..., object]]:
        law = model.target
        return {
            name: lambda *args: formula(law, *(getattr(each, "target", each) for each in args)),
            "affine": lambda matrix, shift: mutated(model.affine(matrix, shift), change),
        }

    return change


def _squared_distance(p: Mapped, q: Mapped) -> Tensor:
    """|mu_p - mu_q|^2 / 2, as if both covariances were 1."""
    return (p.location - q.location).square().sum() / 2


def _one_determinant_more(p: Mapped, q: Mapped) -> Tensor:
    return p.kl(q) + torch.logdet(q.sigma) / 20


def _without_determinant(p: Mapped) -> Tensor:
    return torch.tensor(len(p.sigma) * (1 + math.log(2 * math.pi)) / 2)


def _whole_determinant(p: Mapped) -> Tensor:
    """log |S| for log |S| / 2."""
    return p.entropy() + torch.logdet(p.sigma) / 2


def _covariance_between(p: Mapped, a: Sequence[int], b: Sequence[int]) -> Tensor:
    """|S_ab|^2, which is 0 for independent blocks, symmetric, positive, and no information."""
    return p.sigma[list(a)][:, list(b)].square().sum()


def _half_the_map(model: Model) -> dict[str, Callable[..., object]]:
    """H(A x + b) with log |det A| / 2, as if covariances were multiplied by A once."""

    def affine(matrix: Tensor, shift: Tensor) -> Model:
        right = model.affine(matrix, shift)
        return mutated(right, edited("entropy", lambda h: h - torch.linalg.slogdet(matrix).logabsdet / 2))

    return {"affine": affine}


def _poorer_marginals(model: Model) -> dict[str, Callable[..., object]]:
    """Marginals that have log 2 nats less than they should."""
    return {"marginal": lambda indices: mutated(model.marginal(indices), edited("entropy", lambda h: h - math.log(2)))}


def _conditional_for_marginal(model: Model) -> dict[str, Callable[..., object]]:
    """The law of a coordinate given the others at their mean: narrower than its marginal."""

    def marginal(indices: Sequence[int]) -> object:
        law = model.target
        assert isinstance(law, Gaussian)
        others = [i for i in range(len(law.location)) if i not in set(indices)]
        return model.conditional(others, law.location[others])

    return {"marginal": marginal}


KL, ENTROPY = "information.kl_invariant_under_maps", "information.entropy_under_maps"
MUTUAL, TOTAL = "mutual.invariant_under_maps", "information.total_correlation"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("squared_distance", "|mu_p - mu_q|^2 / 2", KL, mapped(3), _formula("kl", _squared_distance)),
    Mutant("determinants", "log |S_q| / 20 too much", KL, mapped(4), _formula("kl", _one_determinant_more)),
    Mutant("without_determinant", "H without log |S|", ENTROPY, mapped(3), _formula("entropy", _without_determinant)),
    Mutant("whole_determinant", "log |S| for half of it", ENTROPY, mapped(3), _formula("entropy", _whole_determinant)),
    Mutant("half_the_map", "log |det A| / 2", ENTROPY, mapped(5), _half_the_map),
    Mutant("covariance", "|S_ab|^2", MUTUAL, mapped(4), _formula("mutual_information", _covariance_between)),
    Mutant("marginals_poorer", "H(x_i) - log 2", TOTAL, diagonal, _poorer_marginals),
    Mutant("conditional", "H(x_i | the others)", TOTAL, mapped(4), _conditional_for_marginal),
    Mutant("in_bits", "the whole in bits", TOTAL, table(2, 2), edited("entropy", lambda h: h / math.log(2))),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("nearly_singular", "correlation 0.99 in float32", KL, stretched, nothing),
    NearMiss("thirty_two", "32 dimensions in float64", KL, mapped(32, torch.float64), nothing),
    NearMiss("nearly_singular", "correlation 0.99 in float32", ENTROPY, stretched, nothing),
    NearMiss("thirty_two", "32 dimensions", ENTROPY, mapped(32), nothing),
    NearMiss("nearly_singular", "correlation 0.99 in float32", MUTUAL, stretched, nothing),
    NearMiss("sixteen", "16 dimensions", MUTUAL, mapped(16), nothing),
    NearMiss("independent", "0 for a product", TOTAL, diagonal, nothing),
    NearMiss("zero_probability", "a table with an impossible state", TOTAL, table(3, 2, 4), nothing),
    NearMiss("sixteen", "16 dimensions", TOTAL, mapped(16), nothing),
)
