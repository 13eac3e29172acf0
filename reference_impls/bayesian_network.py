r"""Bayesian networks: a directed graph without cycles says who depends on whom.

    p(x) = prod_i p(x_i | x_pa(i))

Each variable has a table of its law for each state of its parents: sum_i (K_i - 1) prod_{j in pa(i)} K_j free
parameters. Marginals and conditionals are exact, by variable elimination, and are networks again: eliminating variable
v from a product of factors splits the product into p(v | the variables that v met) and a message about those, so the
eliminations, read backwards, are the families of a network.

Sources: Koller & Friedman, Probabilistic Graphical Models (2009), chapters 3, 9 and 17;
Pearl, Probabilistic Reasoning in Intelligent Systems (1988), for d-separation;
Lauritzen & Spiegelhalter (1988), doi.org/10.1111/j.2517-6161.1988.tb01721.x, for the Asia network.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Generator, Tensor

from reference_impls.discrete import disjoint, evidence_values, impossible_evidence, log_of, shares
from reference_impls.factors import Factor, ImpossibleError, eliminate, product, reduced, unit
from reference_impls.indices import as_indices, split, split_evidence
from reference_impls.states import (
    as_numbers,
    as_states,
    checked_rows,
    checked_size,
    codes_of,
    draw_rows,
    information_of_pair,
    normalised,
    parameters_of,
    placing,
    sample_states,
    tables_from,
)
from reference_impls.tables import JointTable


class BayesianNetwork:
    """Variable i has the parents `parents[i]`, and p(x_i | its parents) in `tables[i]`, (K_pa, ..., K_i).

    The axes of a table are the parents, in the order given, then the variable itself. Draws are int64 (n, d). `names`
    and `labels` say what variables and states mean; the arithmetic does not use them.
    """

    number = "M10"
    family = "Bayesian network"

    def __init__(
        self,
        parents: Sequence[Sequence[int]],
        tables: Sequence[Tensor],
        *,
        names: Sequence[str] = (),
        labels: Sequence[Sequence[str]] = (),
    ):
        self.parents = tuple(tuple(as_indices(pa, f"parents[{i}]")) for i, pa in enumerate(parents))
        self.d = len(self.parents)
        self.order = topological_order(self.parents)
        if len(tables) != self.d or self.d == 0:
            raise ValueError(
                f"tables should be one for each of {self.d} variables, and at least one, not {len(tables)}"
            )
        self.tables = tuple(checked_rows(table, f"tables[{i}]") for i, table in enumerate(tables))
        self.states = tuple(table.shape[-1] if table.dim() else 0 for table in self.tables)
        for i, (pa, table) in enumerate(zip(self.parents, self.tables, strict=True)):
            shape = tuple(self.states[j] for j in (*pa, i))
            if tuple(table.shape) != shape or 0 in shape:
                raise ValueError(f"tables[{i}] should have shape {shape}, parents {pa} first, not {tuple(table.shape)}")
        self.names, self.labels = tuple(names), tuple(tuple(label) for label in labels)
        if len(self.names) not in (0, self.d) or len(self.labels) not in (0, self.d):
            raise ValueError(f"names and labels, if given, should be one for each of {self.d} variables")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names should be different, not {list(self.names)}")
        if any(len(set(label)) != k for label, k in zip(self.labels, self.states, strict=False)):
            raise ValueError(f"labels should name each of the {list(self.states)} states of the variables, differently")
        self.dtype, self.device = self.tables[0].dtype, self.tables[0].device

    def log_prob(self, x: Tensor) -> Tensor:
        """One look-up a variable."""
        x, possible = as_states(x, self.states)
        columns = x.mT.contiguous()  # (d, n)
        log_prob = torch.zeros(len(x), dtype=self.dtype, device=x.device)
        for i, table in enumerate(self.tables):
            log_prob = log_prob + log_of(table).reshape(-1)[self._family_code(columns, i)]
        return torch.where(possible, log_prob, -math.inf)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """Ancestral: parents before children."""
        columns = torch.zeros(self.d, n, dtype=torch.int64, device=self.device)
        for i in self.order:
            rows = self._family_code(columns, i, with_child=False)
            columns[i] = draw_rows(self.tables[i].reshape(-1, self.states[i]), rows, generator)
        return columns.mT.contiguous()  # (n, d)

    def table(self, indices: Sequence[int], given: Mapping[int, int] | None = None) -> Tensor:
        """p(x_a | the given values) as one array (K_a, ...), in the order of the indices, in float64."""
        a, _ = split(indices, self.d)
        checked_size([self.states[i] for i in a])
        given = dict(zip(as_indices(given or (), "given"), as_indices((given or {}).values(), "given"), strict=True))
        if not all(0 <= i < self.d and i not in a and 0 <= v < self.states[i] for i, v in given.items()):
            raise ValueError(f"given should map other variables to their states, not {given}")
        factors = self._remaining(a, given)
        joint = product([unit(like=self.tables[0]), *factors], a)
        joint = joint.expand([self.states[i] for i in a])
        return joint / joint.sum()

    def marginal(self, indices: Sequence[int]) -> "BayesianNetwork":
        """p(x_a), a network on the variables in the order of the indices."""
        a, _ = split(indices, self.d)
        return self._network(self._remaining(a, {}), a)

    def conditional(self, indices: Sequence[int], values: Tensor) -> "BayesianNetwork":
        """p(x_b | x_a = values), a network on the other variables in their order."""
        a, b = split_evidence(indices, self.d)
        values = evidence_values(values, len(a))
        if not a:
            return self
        codes, possible = as_states(values[None], [self.states[i] for i in a])
        evidence = dict(zip(a, codes[0].tolist(), strict=True))
        try:
            if possible[0]:
                return self._network(self._remaining(b, evidence), b)
        except ImpossibleError:
            pass
        raise ValueError(impossible_evidence(a, values))

    def joint(self) -> JointTable:
        """The same law as one table."""
        return JointTable(self.table(range(self.d)).to(self.dtype))

    def mean(self) -> Tensor:
        return torch.stack([as_numbers(p) @ p for p in self._singles()]).to(self.dtype)  # (d,)

    def variance(self) -> Tensor:
        return torch.stack([p @ _centred(p).square() for p in self._singles()]).to(self.dtype)  # (d,)

    def covariance(self) -> Tensor:
        """From the joint law of each pair; of a forest, from the laws of each variable given those above it."""
        singles = self._singles()
        centred = [_centred(p) for p in singles]
        moments = torch.stack([p @ c.square() for p, c in zip(singles, centred, strict=True)]).diag()
        fill = self._fill_forest if all(len(pa) < 2 for pa in self.parents) else self._fill_pairs
        fill(moments, singles, centred)
        return moments.to(self.dtype)  # (d, d)

    def entropy(self) -> Tensor:
        """H(x) = sum_i H(x_i | x_pa(i)), each from the law of the parents."""
        return -self.expected_log_prob(self)  # ()

    def kl(self, other: "BayesianNetwork") -> Tensor:
        """E[log p] - E[log q] under p; q may have another graph on the same variables."""
        return self.expected_log_prob(self) - self.expected_log_prob(other)  # ()

    def expected_log_prob(self, other: "BayesianNetwork") -> Tensor:
        """E[log q(x)] under this law p: a sum over the families of q, from the law of each under p."""
        if self.states != other.states:
            raise ValueError(f"other should be a law on the states {self.states}, not {other.states}")
        total, singles = torch.zeros((), dtype=torch.float64, device=self.device), self._singles()
        for i, (pa, q) in enumerate(zip(other.parents, other.tables, strict=True)):
            own = self.parents[i] == pa and len(pa) < 2
            family = self._family(i, singles).reshape(q.shape) if own else self.table([*pa, i])
            total = total + torch.xlogy(family, q.double()).sum()
        return total.to(torch.promote_types(self.dtype, other.dtype))  # ()

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """I(x_a; x_b), from their joint table."""
        a, b = disjoint(a, b, self.d)
        both = self.table(a + b).reshape(math.prod(self.states[i] for i in a), -1)
        return information_of_pair(both).to(self.dtype)  # ()

    def d_separated(self, a: Sequence[int], b: Sequence[int], given: Sequence[int] = ()) -> bool:
        """Does the graph alone make x_a and x_b independent given the others named? (Then I(x_a; x_b | given) = 0.)

        A path is open if each collider -> i <- on it is given or has a given descendant, and nothing else on it is.
        """
        a, b = disjoint(a, b, self.d)
        given = set(split(given, self.d)[0]) if len(given) else set()
        if given & {*a, *b}:
            raise ValueError(f"given should not hold {sorted(given & {*a, *b})}, which a or b holds")
        return not self._reached(a, given) & set(b)

    def reordered(self, order: Sequence[int]) -> "BayesianNetwork":
        """The same law with the variables in another order: variable k is what `order[k]` was."""
        place = {i: k for k, i in enumerate(split(order, self.d)[0])}
        if len(place) < self.d:
            raise ValueError(f"order should name all of the {self.d} variables, not {list(order)}; or take a marginal")
        parents = [[place[j] for j in self.parents[i]] for i in place]
        return BayesianNetwork(parents, [self.tables[i] for i in place], **self._meanings(list(place)))

    def fit(self, x: Tensor, *, smoothing: float = 0.0) -> "BayesianNetwork":
        """Maximum likelihood on this graph: the shares of each variable's states for each state of its parents."""
        fitted = BayesianNetwork.from_draws(x, self.parents, self.states, smoothing=smoothing).to(self.dtype)
        return BayesianNetwork(self.parents, fitted.tables, **self._meanings(range(self.d)))

    @classmethod
    def from_draws(
        cls, x: Tensor, parents: Sequence[Sequence[int]], states: Sequence[int], *, smoothing: float = 0.0
    ) -> "BayesianNetwork":
        """Maximum likelihood from draws (n, d), with `smoothing` added to each count; a state of the parents that does
        not occur gets a uniform row, as the draws say nothing about it."""
        if len(topological_order(parents)) != len(states):
            raise ValueError(f"parents are given for {len(parents)} variables, states for {len(states)}")
        x = sample_states(x, states)
        tables = []
        for i, pa in enumerate(parents):
            family = [*pa, i]
            shape = [states[j] for j in family]
            counts = codes_of(x[:, family], shape).bincount(minlength=checked_size(shape)).reshape(shape)
            tables.append(shares(counts, smoothing))
        return cls(parents, tables)

    def parameters(self) -> Tensor:
        """The logits of each row of each table, against its last state."""
        return parameters_of(self.tables)

    def with_parameters(self, theta: Tensor) -> "BayesianNetwork":
        tables = tables_from(theta, self.tables)
        return BayesianNetwork(self.parents, tables, **self._meanings(range(self.d)))

    def to(self, *args, **kwargs) -> "BayesianNetwork":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        moved = [table.to(*args, **kwargs) for table in self.tables]
        tables = [normalised(table.double(), table.dtype) for table in moved]
        return BayesianNetwork(self.parents, tables, **self._meanings(range(self.d)))

    def _family_code(self, columns: Tensor, i: int, with_child: bool = True) -> Tensor:
        """Where the states (d, n) stand in table i, read row by row; without the child, in which row."""
        code = torch.zeros_like(columns[i])
        for j in (*self.parents[i], i) if with_child else self.parents[i]:
            code = code * self.states[j] + columns[j]
        return code  # (n,)

    def _singles(self) -> list[Tensor]:
        """p(x_i), (K_i,) each, in float64: from the law of the parent where there is one at most."""
        singles = [self.tables[0]] * self.d
        for i in self.order:
            singles[i] = self._family(i, singles).sum(0) if len(self.parents[i]) < 2 else self.table([i])
            singles[i] = singles[i] / singles[i].sum()
        return singles

    def _family(self, i: int, singles: Sequence[Tensor]) -> Tensor:
        """p(x_pa, x_i) of a variable with one parent or none, (K_pa or 1, K_i), from the law of that parent."""
        rows = self.tables[i].double().reshape(-1, self.states[i])
        return singles[self.parents[i][0]][:, None] * rows if self.parents[i] else rows

    def _fill_pairs(self, moments: Tensor, singles: Sequence[Tensor], centred: Sequence[Tensor]) -> None:
        for i, j in combinations(range(self.d), 2):
            moments[i, j] = moments[j, i] = centred[i] @ self.table([i, j]) @ centred[j]

    def _fill_forest(self, moments: Tensor, singles: Sequence[Tensor], centred: Sequence[Tensor]) -> None:
        """Leaves first. For x_j below x_r, E[x_j - E x_j | x_r] is the mean of the same given the child of r towards j;
        and two variables that r separates have the covariance

            sum_k p(x_r = k) E[x_i - E x_i | x_r = k] E[x_j - E x_j | x_r = k].
        """
        known = {i: (torch.tensor([i]), c[:, None]) for i, c in enumerate(centred)}  # who, and (K_i, who)
        for child in reversed(self.order):
            for r in self.parents[child]:
                (others, given), (below, given_child) = known[r], known.pop(child)
                given_r = self.tables[child].double() @ given_child  # (K_r, below)
                block = (singles[r][:, None] * given).mT @ given_r
                moments[others[:, None], below], moments[below[:, None], others] = block, block.mT
                known[r] = torch.cat([others, below]), torch.cat([given, given_r], 1)

    def _remaining(self, kept: Sequence[int], evidence: Mapping[int, int]) -> list[Factor]:
        """Factors over the kept variables whose product is p(kept, evidence) up to a constant.

        A variable that is no ancestor of these sums to 1 by itself, and is left out from the start.
        """
        relevant = self._ancestors([*kept, *evidence])
        factors = [Factor((*self.parents[i], i), self.tables[i].double()) for i in relevant]
        factors = [reduced(factor, dict(evidence)) for factor in factors]
        return eliminate(factors, set(relevant) - set(kept) - set(evidence))[0]

    def _network(self, factors: list[Factor], kept: Sequence[int]) -> "BayesianNetwork":
        """The network on the kept variables that eliminating them all, read backwards, amounts to."""
        place = {v: k for k, v in enumerate(kept)}
        parents, tables = [()] * len(kept), [self.tables[0]] * len(kept)
        for step in eliminate(factors, kept)[1]:
            parents[place[step.variable]] = tuple(place[u] for u in step.others)
            tables[place[step.variable]] = shares(step.product).to(self.dtype)
        return BayesianNetwork(parents, tables, **self._meanings(kept))

    def _ancestors(self, variables: Sequence[int]) -> list[int]:
        """The variables, their parents, and so on."""
        found, waiting = set(), list(variables)
        while waiting:
            if (i := waiting.pop()) not in found:
                found.add(i)
                waiting.extend(self.parents[i])
        return sorted(found)

    def _reached(self, a: Sequence[int], given: set[int]) -> set[int]:
        """Variables with an open path from a (Koller & Friedman, algorithm 3.1: up edges and down edges apart)."""
        children = [[j for j, pa in enumerate(self.parents) if i in pa] for i in range(self.d)]
        opens = set(self._ancestors(list(given)))
        waiting, seen, reached = [(i, "up") for i in a], set(), set()
        while waiting:
            i, direction = waiting.pop()
            if (i, direction) in seen:
                continue
            seen.add((i, direction))
            if i not in given:
                reached.add(i)
                waiting.extend((j, "down") for j in children[i])
            if (direction == "up" and i not in given) or (direction == "down" and i in opens):
                waiting.extend((j, "up") for j in self.parents[i])
        return reached

    def _meanings(self, kept: Sequence[int]) -> dict:
        names = [self.names[i] for i in kept] if self.names else []
        return {"names": names, "labels": [self.labels[i] for i in kept] if self.labels else []}


def _centred(p: Tensor) -> Tensor:
    """The states less their mean."""
    return as_numbers(p) - as_numbers(p) @ p  # (K,)


def topological_order(parents: Sequence[Sequence[int]]) -> list[int]:
    """Parents before children."""
    d, placed, order = len(parents), set(), []
    for i, pa in enumerate(parents):
        if not all(0 <= j < d for j in pa) or len(set(pa)) < len(pa):
            raise ValueError(f"parents[{i}] should name different variables from 0 to {d - 1}, not {list(pa)}")
    while len(order) < d:
        free = [i for i in range(d) if i not in placed and placed.issuperset(parents[i])]
        if not free:
            left = sorted(set(range(d)) - placed)
            raise ValueError(f"parents hold a cycle among the variables {left}; turn or remove one of its edges")
        placed.update(free)
        order.extend(free)
    return order


# Ready-made models


def asia(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> BayesianNetwork:
    """Chest clinic (Lauritzen & Spiegelhalter 1988): eight yes (0) or no (1) questions; "either" is certain."""
    names = ["asia", "tub", "smoke", "lung", "bronc", "either", "xray", "dysp"]
    parents = [[], [0], [], [2], [2], [3, 1], [5], [4, 5]]
    yes = [0.01, [0.05, 0.01], 0.5, [0.1, 0.01], [0.6, 0.3], [[1.0, 1.0], [1.0, 0.0]], [0.98, 0.05]]
    yes = [torch.tensor(p, dtype=torch.float64) for p in [*yes, [[0.9, 0.8], [0.7, 0.1]]]]
    tables = [torch.stack([p, 1 - p], -1) for p in yes]
    network = BayesianNetwork(parents, tables, names=names, labels=[("yes", "no")] * 8)
    return network.to(*placing(dtype, device))


def student(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> BayesianNetwork:
    """Difficulty, intelligence, grade, test score and letter (Koller & Friedman 2009, figure 3.4)."""
    difficulty, intelligence = [0.6, 0.4], [0.7, 0.3]
    grade = [[[0.3, 0.4, 0.3], [0.05, 0.25, 0.7]], [[0.9, 0.08, 0.02], [0.5, 0.3, 0.2]]]
    score, letter = [[0.95, 0.05], [0.2, 0.8]], [[0.1, 0.9], [0.4, 0.6], [0.99, 0.01]]
    tables = [torch.tensor(p, dtype=torch.float64) for p in (difficulty, intelligence, grade, score, letter)]
    names = ["difficulty", "intelligence", "grade", "score", "letter"]
    return BayesianNetwork([[], [], [1, 0], [1], [2]], tables, names=names).to(*placing(dtype, device))
