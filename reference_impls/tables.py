r"""Laws of d categorical variables by tables: the full joint, the independent product, the chain rule in any order.

    joint          p(x_1, ..., x_d) is a number for each state               prod_i K_i - 1 free parameters
    independent    p(x) = prod_i p(x_i)                                      sum_i (K_i - 1)
    chain rule     p(x) = prod_i p(x_i | x_1, ..., x_{i-1}), in any order    prod_i K_i - 1 again

d binary pixels have 2^d states, one RGB pixel 256^3. The chain rule alone saves nothing; only an independence does.
Draws are int64 (n, d) with x_i in {0, ..., K_i - 1}; anything else has probability zero. Sums are taken in float64.

Source: Koller & Friedman, Probabilistic Graphical Models (2009), chapters 2 and 3.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Generator, Tensor

from reference_impls.discrete import disjoint, evidence_values, impossible_evidence, kl_terms, log_of, shares, uniforms
from reference_impls.indices import as_indices, split, split_evidence
from reference_impls.states import (
    as_numbers,
    as_probabilities,
    as_states,
    checked_rows,
    counts,
    decode,
    draw_rows,
    encode,
    information_of_pair,
    interval_ends,
    normalised,
    parameters_of,
    placing,
    random_rows,
    sample_states,
    tables_from,
)


class JointTable:
    """Any law of d categorical variables, from the probability of each state (K_1, ..., K_d)."""

    number = "M06"
    family = "full joint table"

    def __init__(self, probs: Tensor):
        self.probs = as_probabilities(probs, "probs")  # (K_1, ..., K_d)
        if self.probs.dim() == 0 or 0 in self.probs.shape:
            raise ValueError(f"probs should have an axis of one or more states a variable, not {tuple(probs.shape)}")
        self.states = tuple(self.probs.shape)
        self.d = len(self.states)
        checked_rows(self.probs.reshape(-1), "probs")

    def log_prob(self, x: Tensor) -> Tensor:
        codes, possible = encode(x, self.states)
        return torch.where(possible, log_of(self.probs).reshape(-1)[codes], -math.inf)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """The first state, the last variable running fastest, with u < the probability of all states up to it."""
        ends = interval_ends(self.probs.reshape(-1))  # (prod K,)
        return decode(torch.searchsorted(ends, uniforms((n,), ends, generator), right=True), self.states)  # (n, d)

    def mean(self) -> Tensor:
        """E[x]: states read as numbers."""
        return torch.stack([as_numbers(p) @ p for p in map(self._law, range(self.d))]).to(self.probs.dtype)  # (d,)

    def variance(self) -> Tensor:
        return self._moments().diagonal().to(self.probs.dtype)  # (d,)

    def covariance(self) -> Tensor:
        return self._moments().to(self.probs.dtype)  # (d, d)

    def entropy(self) -> Tensor:
        p = self.probs.double()
        return -torch.xlogy(p, p).sum().to(self.probs.dtype)  # ()

    def kl(self, other: "JointTable") -> Tensor:
        if self.states != other.states:
            raise ValueError(f"other should be a law on the states {self.states}, not {other.states}")
        dtype = torch.promote_types(self.probs.dtype, other.probs.dtype)
        return kl_terms(self.probs.double(), other.probs.double()).sum().to(dtype)  # ()

    def marginal(self, indices: Sequence[int]) -> "JointTable":
        """p(x_a): sum over the other variables."""
        a, _ = split(indices, self.d)
        return JointTable(_whole(self._law(*a), self.probs.dtype))

    def conditional(self, indices: Sequence[int], values: Tensor) -> "JointTable":
        """p(x_b | x_a = values): the slice of the table, divided by its sum p(x_a = values)."""
        a, b = split_evidence(indices, self.d)
        values = evidence_values(values, len(a))
        if not a:
            return self
        codes, possible = encode(values[None], [self.states[i] for i in a])
        rest = self._law(*a, *b).flatten(0, len(a) - 1)[codes[0]]  # (K_b, ...)
        if not (possible[0] and rest.sum() > 0):
            raise ValueError(impossible_evidence(a, values))
        return JointTable(_whole(rest, self.probs.dtype))

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """I(x_a; x_b) = KL(p(x_a, x_b), p(x_a) p(x_b)), in nats."""
        a, b = disjoint(a, b, self.d)
        both = self._law(*a, *b).reshape(math.prod(self.states[i] for i in a), -1)  # (prod K_a, prod K_b)
        return information_of_pair(both).to(self.probs.dtype)  # ()

    def fit(self, x: Tensor, *, smoothing: float = 0.0) -> "JointTable":
        """Maximum likelihood over the same states: the share of each among the draws (n, d)."""
        return JointTable.from_draws(x, self.states, smoothing=smoothing).to(self.probs.dtype)

    @classmethod
    def from_draws(cls, x: Tensor, states: Sequence[int], *, smoothing: float = 0.0) -> "JointTable":
        return cls(shares(counts(x, states).flatten(), smoothing).reshape(tuple(states)))

    def parameters(self) -> Tensor:
        """log p(x) - log p(last state), for all states but the last."""
        return parameters_of([self.probs.reshape(-1)])  # (prod K - 1,)

    def with_parameters(self, theta: Tensor) -> "JointTable":
        return JointTable(tables_from(theta, [self.probs.reshape(-1)])[0].reshape(self.states))

    def to(self, *args, **kwargs) -> "JointTable":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        probs = self.probs.to(*args, **kwargs)
        return JointTable(_whole(probs.double(), probs.dtype))

    def _law(self, *a: int) -> Tensor:
        """p(x_a) as an array in float64: the other variables summed over."""
        others = [i for i in range(self.d) if i not in a]
        table = self.probs.double().permute(*a, *others)
        return table.reshape(*table.shape[: len(a)], -1).sum(-1)  # (K_a, ...)

    def _moments(self) -> Tensor:
        """E[(x_i - m_i)(x_j - m_j)] from the law of each pair, in float64."""
        centred = [as_numbers(p) - as_numbers(p) @ p for p in map(self._law, range(self.d))]
        moments = torch.stack([self._law(i) @ centred[i].square() for i in range(self.d)]).diag()  # (d, d)
        for i, j in combinations(range(self.d), 2):
            moments[i, j] = moments[j, i] = centred[i] @ self._law(i, j) @ centred[j]
        return moments


class IndependentCategoricals:
    """p(x) = prod_i p(x_i), from a vector of probabilities (K_i,) for each variable."""

    number = "M07"
    family = "independent categoricals"

    def __init__(self, tables: Sequence[Tensor]):
        self.tables = tuple(as_probabilities(table, "tables") for table in tables)
        if not self.tables or any(table.dim() != 1 or len(table) == 0 for table in self.tables):
            raise ValueError("tables should be one vector of probabilities for each variable, and at least one")
        for i, table in enumerate(self.tables):
            checked_rows(table, f"tables[{i}]")
        self.states = tuple(len(table) for table in self.tables)
        self.d = len(self.states)
        self.dtype = self.tables[0].dtype
        # One matrix for all: states that a variable does not have are impossible.
        self.probs = torch.nn.utils.rnn.pad_sequence(self.tables, batch_first=True)  # (d, max K)

    def log_prob(self, x: Tensor) -> Tensor:
        x, possible = as_states(x, self.states)
        log_p = log_of(self.probs)[torch.arange(self.d, device=x.device), x].sum(-1)  # (n,)
        return torch.where(possible, log_p, -math.inf)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        ends = interval_ends(self.probs)  # (d, max K)
        u = uniforms((n, self.d), ends, generator)
        return torch.searchsorted(ends, u.mT.contiguous(), right=True).mT.contiguous()  # (n, d)

    def mean(self) -> Tensor:
        return (self.probs.double() @ as_numbers(self.probs[0])).to(self.dtype)  # (d,)

    def variance(self) -> Tensor:
        p = self.probs.double()
        offset = as_numbers(p[0]) - (p @ as_numbers(p[0]))[:, None]  # (d, max K)
        return (p * offset.square()).sum(-1).to(self.dtype)  # (d,)

    def covariance(self) -> Tensor:
        return self.variance().diag()  # (d, d)

    def entropy(self) -> Tensor:
        p = self.probs.double()
        return -torch.xlogy(p, p).sum().to(self.dtype)  # ()

    def kl(self, other: "IndependentCategoricals") -> Tensor:
        if self.states != other.states:
            raise ValueError(f"other should be a law on the states {self.states}, not {other.states}")
        return kl_terms(self.probs.double(), other.probs.double()).sum().to(self.dtype)  # ()

    def marginal(self, indices: Sequence[int]) -> "IndependentCategoricals":
        a, _ = split(indices, self.d)
        return IndependentCategoricals([self.tables[i] for i in a])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "IndependentCategoricals":
        """p(x_b | x_a = values) = p(x_b), if the values are possible."""
        a, b = split_evidence(indices, self.d)
        values = evidence_values(values, len(a))
        if not a:
            return self
        if self.marginal(a).log_prob(values[None])[0] == -math.inf:
            raise ValueError(impossible_evidence(a, values))
        return self.marginal(b)

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """Zero: that is what independent means."""
        disjoint(a, b, self.d)
        return self.probs.new_zeros(())  # ()

    def fit(self, x: Tensor, *, smoothing: float = 0.0) -> "IndependentCategoricals":
        """Maximum likelihood over the same states: the shares of each variable by itself."""
        fitted = IndependentCategoricals.from_draws(x, self.states, smoothing=smoothing)
        return fitted.to(self.dtype)

    @classmethod
    def from_draws(cls, x: Tensor, states: Sequence[int], *, smoothing: float = 0.0) -> "IndependentCategoricals":
        x = sample_states(x, states)
        return cls([shares(c.bincount(minlength=k), smoothing) for c, k in zip(x.mT, states, strict=True)])

    def parameters(self) -> Tensor:
        return parameters_of(self.tables)  # (sum (K_i - 1),)

    def with_parameters(self, theta: Tensor) -> "IndependentCategoricals":
        return IndependentCategoricals(tables_from(theta, self.tables))

    def joint(self) -> JointTable:
        """The same law as one table."""
        tables = [table.expand(*self.states[:i], -1) for i, table in enumerate(self.tables)]
        return ChainRuleTable(range(self.d), tables).joint()

    def to(self, *args, **kwargs) -> "IndependentCategoricals":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        moved = [table.to(*args, **kwargs) for table in self.tables]
        return IndependentCategoricals([normalised(table.double(), table.dtype) for table in moved])


class ChainRuleTable:
    """p(x) = prod_k p(x_{o_k} | x_{o_1}, ..., x_{o_{k-1}}), for an order o of 0, ..., d - 1.

    Table k has shape (K_{o_1}, ..., K_{o_k}), and sums to 1 along its last axis.
    """

    number = "M08"
    family = "chain-rule tables"

    def __init__(self, order: Sequence[int], tables: Sequence[Tensor]):
        self.order, self.tables = (
            as_indices(order, "order"),
            tuple(as_probabilities(table, "tables") for table in tables),
        )
        self.d = len(self.order)
        if not self.order or sorted(self.order) != list(range(self.d)):
            raise ValueError(f"order should name each of 0 to d - 1 once, not {self.order}")
        shape = tuple(self.tables[-1].shape) if self.tables else ()
        if [table.shape for table in self.tables] != [shape[: k + 1] for k in range(self.d)] or 0 in shape:
            raise ValueError(f"tables should have the shapes (K,), (K, K'), ..., one more axis each, {self.d} in all")
        for k, table in enumerate(self.tables):
            checked_rows(table, f"tables[{k}]")
        self.dtype = self.tables[0].dtype
        self.states = tuple(shape[self.order.index(i)] for i in range(self.d))

    @classmethod
    def from_joint(cls, joint: JointTable, order: Sequence[int]) -> "ChainRuleTable":
        """Factorise a joint table; where what comes before has probability zero, any law will do, and it is uniform."""
        order = as_indices(order, "order")
        if sorted(order) != list(range(joint.d)):
            raise ValueError(f"order should name each of 0 to {joint.d - 1} once, not {order}")
        whole = joint.probs.double().permute(*order)
        prefixes = [whole.flatten(k + 1).sum(-1) if k + 1 < joint.d else whole for k in range(joint.d)]
        return cls(order, [shares(prefix).to(joint.probs.dtype) for prefix in prefixes])

    def joint(self) -> JointTable:
        """Multiply the tables, and put the variables back into their order."""
        p = self.tables[0].double()
        for table in self.tables[1:]:
            p = p[..., None] * table.double()
        return JointTable(_whole(p.permute(*(self.order.index(i) for i in range(self.d))), self.dtype))

    def log_conditionals(self, x: Tensor) -> Tensor:
        """log p(x_{o_k} | x_{o_1}, ..., x_{o_{k-1}}) for each k; -inf in the whole row of an x that is no state."""
        x, possible = as_states(x, self.states)
        code, terms = torch.zeros_like(x[:, 0]), []
        for i, table in zip(self.order, self.tables, strict=True):
            code = code * self.states[i] + x[:, i]  # where x_{o_1}, ..., x_{o_k} stands in table k
            terms.append(log_of(table).reshape(-1)[code])
        return torch.where(possible[:, None], torch.stack(terms, -1), -math.inf)  # (n, d), in the order o

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_conditionals(x).sum(-1)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """Ancestral: each variable given those before it."""
        code = torch.zeros(n, dtype=torch.int64, device=self.tables[0].device)
        x = code.new_empty(n, self.d)
        for i, table in zip(self.order, self.tables, strict=True):
            x[:, i] = draw_rows(table.reshape(-1, self.states[i]), code, generator)
            code = code * self.states[i] + x[:, i]
        return x  # (n, d)

    def entropy(self) -> Tensor:
        """H(x) = sum_k H(x_{o_k} | x_{o_1}, ..., x_{o_{k-1}})."""
        before, total = self.tables[0].new_ones((), dtype=torch.float64), 0.0
        for table in self.tables:
            p = table.double()
            total = total - (before * torch.xlogy(p, p).sum(-1)).sum()
            before = before[..., None] * p
        return total.to(self.dtype)  # ()

    def mean(self) -> Tensor:
        return self.joint().mean()  # (d,)

    def variance(self) -> Tensor:
        return self.joint().variance()  # (d,)

    def covariance(self) -> Tensor:
        return self.joint().covariance()  # (d, d)

    def kl(self, other: "ChainRuleTable") -> Tensor:
        """Of laws, whatever the orders they are factorised in."""
        return self.joint().kl(other.joint())  # ()

    def marginal(self, indices: Sequence[int]) -> JointTable:
        return self.joint().marginal(indices)

    def conditional(self, indices: Sequence[int], values: Tensor) -> JointTable:
        return self.joint().conditional(indices, values)

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        return self.joint().mutual_information(a, b)  # ()

    def fit(self, x: Tensor, *, smoothing: float = 0.0) -> "ChainRuleTable":
        """Maximum likelihood in the same order; it is that of the joint table. Smoothing adds to each state of x."""
        return ChainRuleTable.from_joint(self.joint().fit(x, smoothing=smoothing), self.order)

    def parameters(self) -> Tensor:
        return parameters_of(self.tables)  # (prod K - 1,)

    def with_parameters(self, theta: Tensor) -> "ChainRuleTable":
        return ChainRuleTable(self.order, tables_from(theta, self.tables))

    def to(self, *args, **kwargs) -> "ChainRuleTable":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        moved = [table.to(*args, **kwargs) for table in self.tables]
        return ChainRuleTable(self.order, [normalised(table.double(), table.dtype) for table in moved])


def _whole(table: Tensor, dtype: torch.dtype) -> Tensor:
    """A table that sums to one but for rounding."""
    return normalised(table.reshape(-1), dtype).reshape(table.shape)


# Ready-made models


def binary_image(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> JointTable:
    """2 x 3 binary pixels with 64 probabilities drawn with seed 6, uniform on the simplex."""
    return JointTable(random_rows((64,), 6).reshape([2] * 6)).to(*placing(dtype, device))


def rgb_pixel(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> JointTable:
    """One RGB pixel of 8 levels a channel; channels that are close to each other are likely."""
    level = torch.arange(8, dtype=torch.float64)
    gap = (level[:, None, None] - level[:, None]).abs() + (level[:, None] - level).abs()  # (8, 8, 8)
    return JointTable((-gap / 2).flatten().softmax(0).reshape(8, 8, 8)).to(*placing(dtype, device))


def independent(*, dtype=None, device: torch.device | str | None = None) -> IndependentCategoricals:
    """Five independent variables of 2, 3, 4, 2 and 5 states, drawn with seed 7."""
    tables = [random_rows((k,), 7 + i) for i, k in enumerate([2, 3, 4, 2, 5])]
    return IndependentCategoricals(tables).to(*placing(dtype, device))


def chain_rule(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ChainRuleTable:
    """Four variables of 2, 3, 2 and 3 states without any independence, factorised in the order 2, 0, 3, 1."""
    joint = JointTable(random_rows((36,), 8).reshape(2, 3, 2, 3))
    return ChainRuleTable.from_joint(joint, [2, 0, 3, 1]).to(*placing(dtype, device))
