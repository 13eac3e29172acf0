"""Marginals and conditionals that do not belong to their joint density; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.mutant import Mutant, NearMiss, mutated

LOG_2PI = math.log(2 * math.pi)


class Gaussian:
    """N(mu, Sigma) with its marginals, conditionals and mutual informations, in the dtype of its tensors."""

    def __init__(self, location: Tensor, sigma: Tensor):
        self.location, self.sigma = location, sigma

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, len(self.location), generator=generator, dtype=self.location.dtype)
        return self.location + z @ torch.linalg.cholesky(self.sigma).T

    def log_prob(self, x: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(self.sigma)
        white = torch.linalg.solve_triangular(factor, (x.to(self.location) - self.location).T, upper=False)
        return -0.5 * white.square().sum(0) - factor.diagonal().log().sum() - len(factor) * LOG_2PI / 2

    def entropy(self) -> Tensor:
        return 0.5 * torch.logdet(self.sigma) + len(self.sigma) * (1 + LOG_2PI) / 2

    def marginal(self, indices: Sequence[int]) -> Gaussian:
        a = list(indices)
        return Gaussian(self.location[a], self.sigma[a][:, a])

    def conditional(self, indices: Sequence[int], values: Tensor) -> Gaussian:
        """Mean mu_b + S_ba S_aa^-1 (x_a - mu_a), covariance S_bb - S_ba S_aa^-1 S_ab."""
        a = list(indices)
        b = [i for i in range(len(self.location)) if i not in a]
        gain = torch.linalg.solve(self.sigma[a][:, a], self.sigma[a][:, b]).T
        location = self.location[b] + gain @ (values.to(self.location) - self.location[a])
        return Gaussian(location, self.sigma[b][:, b] - gain @ self.sigma[a][:, b])

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """1/2 log (|S_aa| |S_bb| / |S|)."""
        both = self.marginal([*a, *b])
        return self.marginal(a).entropy() + self.marginal(b).entropy() - both.entropy()


class Table:
    """A joint table over k coordinates, each in 0 .. size - 1, with what can be summed from it."""

    def __init__(self, p: Tensor):
        self.p = p / p.sum()

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        flat = torch.multinomial(self.p.flatten(), n, replacement=True, generator=generator)
        return torch.stack(torch.unravel_index(flat, self.p.shape), 1)

    def log_prob(self, x: Tensor) -> Tensor:
        limits = torch.tensor(self.p.shape, device=x.device)
        inside = ((x >= 0) & (x < limits)).all(1)
        index = torch.where(inside[:, None], x, 0).long().unbind(1)
        return torch.where(inside, self.p[index].log(), -math.inf)

    def entropy(self) -> Tensor:
        return -torch.special.xlogy(self.p, self.p).sum()

    def marginal(self, indices: Sequence[int]) -> Table:
        a = list(indices)
        rows = self.p.permute(a + [i for i in range(self.p.ndim) if i not in a])
        return Table(rows.reshape(*(self.p.shape[i] for i in a), -1).sum(-1))

    def conditional(self, indices: Sequence[int], values: Tensor) -> Table:
        a = list(indices)
        rows = self.p.permute(a + [i for i in range(self.p.ndim) if i not in a])
        return Table(rows[tuple(values.long().tolist())])

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        return self.marginal(a).entropy() + self.marginal(b).entropy() - self.marginal([*a, *b]).entropy()


def gaussian(d: int, dtype: torch.dtype = torch.float32) -> Callable[[], Gaussian]:
    """A correlated law in d dimensions."""

    def build() -> Gaussian:
        factor = torch.tril(torch.cos(torch.arange(d * d, dtype=dtype).reshape(d, d))) / math.sqrt(d)
        return Gaussian(torch.arange(d, dtype=dtype), factor @ factor.T + 0.5 * torch.eye(d, dtype=dtype))

    return build


def nearly_singular() -> Gaussian:
    """Correlation 0.99, in float32, far from the origin."""
    return Gaussian(torch.tensor([0.0, 10.0]), torch.tensor([[1.0, 0.99], [0.99, 1.0]]))


def diagonal() -> Gaussian:
    """Independent coordinates."""
    return Gaussian(torch.zeros(4), torch.diag(torch.tensor([0.5, 1.0, 2.0, 4.0])))


def table(*shape: int) -> Callable[[], Table]:
    """Probabilities that no product has, in float64; one of them is 0."""

    def build() -> Table:
        p = 1.1 + torch.cos(torch.arange(math.prod(shape), dtype=torch.float64) ** 2)
        p[1] = 0.0
        return Table(p.reshape(shape))

    return build


def nothing(model: Model) -> dict[str, Callable[..., object]]:
    return {}


def _backwards(model: Model) -> dict[str, Callable[..., object]]:
    """Marginals whose coordinates come in rising order, whatever the order asked for."""
    return {"marginal": lambda indices: model.marginal(sorted(indices))}


def _unconditional(model: Model) -> dict[str, Callable[..., object]]:
    """The conditional forgets what is given."""

    def conditional(indices: Sequence[int], values: Tensor) -> object:
        return model.marginal([i for i in range(model.sample(1, generator=_source()).shape[1]) if i not in indices])

    return {"conditional": conditional}


def _source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _unnormalised(model: Model) -> dict[str, Callable[..., object]]:
    """The conditional is the joint density, with x_a put in: not divided by p(x_a), here by a constant 1.05 off."""

    def conditional(indices: Sequence[int], values: Tensor) -> object:
        return mutated(model.conditional(indices, values), _heavier)

    return {"conditional": conditional}


def _heavier(model: Model) -> dict[str, Callable[..., object]]:
    return {"log_prob": lambda x: model.log_prob(x) + math.log(1.05)}


def _prior_for_posterior(model: Model) -> dict[str, Callable[..., object]]:
    """The first coordinate is not conditioned on the second; the second is on the first."""

    def conditional(indices: Sequence[int], values: Tensor) -> object:
        return model.marginal([0]) if list(indices) == [1] else model.conditional(indices, values)

    return {"conditional": conditional}


def _one_block_heavier(model: Model) -> dict[str, Callable[..., object]]:
    def conditional(indices: Sequence[int], values: Tensor) -> object:
        right = model.conditional(indices, values)
        return mutated(right, _heavier) if len(indices) == 1 else right

    return {"conditional": conditional}


def _marginal_heavier(model: Model) -> dict[str, Callable[..., object]]:
    return {"marginal": lambda indices: mutated(model.marginal(indices), _heavier)}


def _marginal_wider(model: Model) -> dict[str, Callable[..., object]]:
    """Draws of the marginal 1.1 times as far from the origin."""

    def wider(part: Model) -> dict[str, Callable[..., object]]:
        return {"sample": lambda n, *, generator: 1.1 * part.sample(n, generator=generator)}

    return {"marginal": lambda indices: mutated(model.marginal(indices), wider)}


def _uncorrelated(model: Model) -> dict[str, Callable[..., object]]:
    """Each coordinate of the marginal drawn by itself."""

    def alone(part: Model) -> dict[str, Callable[..., object]]:
        def sample(n: int, *, generator: torch.Generator) -> Tensor:
            x = part.sample(n, generator=generator).clone()
            return torch.stack([column.roll(j) for j, column in enumerate(x.unbind(1))], 1)

        return {"sample": sample}

    return {"marginal": lambda indices: mutated(model.marginal(indices), alone)}


def _drawn_unconditionally(model: Model) -> dict[str, Callable[..., object]]:
    """The conditional has the right density, and the marginal's draws."""
    size = model.sample(1, generator=_source()).shape[1]

    def conditional(indices: Sequence[int], values: Tensor) -> object:
        others = model.marginal([i for i in range(size) if i not in indices])
        return mutated(model.conditional(indices, values), lambda _: {"sample": others.sample})

    return {"conditional": conditional}


def _drawn_too_wide(model: Model) -> dict[str, Callable[..., object]]:
    """Draws of the conditional about the right mean, with the marginal's covariance."""
    law = model.target
    assert isinstance(law, Gaussian)

    def conditional(indices: Sequence[int], values: Tensor) -> object:
        right = law.conditional(indices, values)
        wide = Gaussian(right.location, law.marginal([i for i in range(len(law.sigma)) if i not in indices]).sigma)
        return mutated(model.conditional(indices, values), lambda _: {"sample": wide.sample})

    return {"conditional": conditional}


PRODUCT, BAYES, CHAIN = "structure.product_rule", "structure.bayes_rule", "structure.chain_rule"
MARGINAL, DRAWN = "structure.marginal_of_density", "structure.marginal_of_draws"
GIVEN = "structure.conditional_of_draws"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("forgets_the_given", "p(x_b | x_a) = p(x_b)", PRODUCT, gaussian(5), _unconditional),
    Mutant("conditional_mass", "p(x_b | x_a) x 1.05", PRODUCT, table(3, 2, 4), _unnormalised),
    Mutant("coordinates_sorted", "the marginal sorts its coordinates", PRODUCT, gaussian(5), _backwards),
    Mutant("marginal_mass", "p(x_a) x 1.05", PRODUCT, gaussian(2, torch.float64), _marginal_heavier),
    Mutant("prior_for_posterior", "p(x_0 | x_b) = p(x_0)", BAYES, gaussian(2), _prior_for_posterior),
    Mutant("likelihood_unnormalised", "p(x_b | x_a) x 1.05 for one block", BAYES, table(3, 2, 4), _one_block_heavier),
    Mutant("chain_of_marginals", "factors are not conditioned", CHAIN, gaussian(5), _unconditional),
    Mutant("chain_mass", "p(x_b | x_a) x 1.05", CHAIN, table(3, 2, 4), _unnormalised),
    Mutant("marginal_too_heavy", "p(x_a) x 1.05", MARGINAL, gaussian(5), _marginal_heavier),
    Mutant("marginal_table_too_heavy", "p(x_a) x 1.05", MARGINAL, table(3, 2, 4), _marginal_heavier),
    Mutant("marginal_draws_wider", "draws of the marginal x 1.1", DRAWN, diagonal, _marginal_wider),
    Mutant("marginal_draws_uncorrelated", "coordinates drawn apart", DRAWN, gaussian(5), _uncorrelated),
    Mutant("marginal_draws_sorted", "the marginal sorts its coordinates", DRAWN, table(3, 2, 4), _backwards),
    Mutant("conditional_draws_deaf", "draws of x_b for x_b given x_a", GIVEN, gaussian(4), _drawn_unconditionally),
    Mutant("conditional_table_deaf", "draws of x_b for x_b given x_a", GIVEN, table(3, 2, 4), _drawn_unconditionally),
    Mutant("conditional_draws_wide", "draws with the marginal's covariance", GIVEN, gaussian(5), _drawn_too_wide),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("nearly_singular", "correlation 0.99 in float32", PRODUCT, nearly_singular, nothing),
    NearMiss("sixteen", "16 dimensions", PRODUCT, gaussian(16), nothing),
    NearMiss("zero_probability", "a table with an impossible state", PRODUCT, table(3, 2, 4), nothing),
    NearMiss("nearly_singular", "correlation 0.99 in float32", BAYES, nearly_singular, nothing),
    NearMiss("zero_probability", "a table with an impossible state", BAYES, table(3, 2, 4), nothing),
    NearMiss("sixteen", "16 dimensions", CHAIN, gaussian(16), nothing),
    NearMiss("zero_probability", "a table with an impossible state", CHAIN, table(3, 2, 4), nothing),
    NearMiss("nearly_singular", "correlation 0.99 in float32", MARGINAL, nearly_singular, nothing),
    NearMiss("zero_probability", "a table with an impossible state", MARGINAL, table(3, 2, 4), nothing),
    NearMiss("sixteen", "16 dimensions", DRAWN, gaussian(16), nothing),
    NearMiss("zero_probability", "a table with an impossible state", DRAWN, table(3, 2, 4), nothing),
    NearMiss("eight", "8 dimensions", GIVEN, gaussian(8), nothing),
    NearMiss("nearly_singular", "correlation 0.99 in float32", GIVEN, nearly_singular, nothing),
    NearMiss("zero_probability", "a table with an impossible state", GIVEN, table(3, 2, 4), nothing),
)
