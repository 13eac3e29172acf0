"""pgmpy: discrete Bayesian networks. An event is the vector of states of `nodes()`, in that order, int64.

A state is written as its own number where all states of all variables are whole numbers, as they are after a fit to a
table of numbers, and otherwise as its place in `state_names`. log_prob is read from the network's own tables,
log p(x) = sum_i log p(x_i | parents of i), and draws are its own `simulate`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from harness.adapters.foreign import Methods, comes_from, density, seed_from
from harness.adapters.global_rng import numpy_left_alone
from harness.model import Model, NotAModel


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """The model of a network with all its tables; None for anything else. Raises NotAModel where tables are missing."""
    if not comes_from(thing, "pgmpy") or not hasattr(thing, "get_cpds"):
        return None
    network: Any = thing
    if not hasattr(network, "simulate"):
        raise NotAModel(f"{name}: a {type(thing).__name__} has no law of discrete states: give a Bayesian network")
    if not network.get_cpds() or len(network.get_cpds()) < len(network.nodes()):
        raise NotAModel(f"{name}: this network has nodes without a table: call its fit(data), or add_cpds(...)")
    tables = _Tables.of(network)
    methods: Methods = {"log_prob": density(tables.log_prob, tables.possible, device), "sample": tables.sampler(device)}
    return Model(
        name=name,
        methods=methods,
        target=thing,
        support=constraints.independent(constraints.integer_interval(*tables.range()), 1),
        event_shape=(len(tables.nodes),),
        device=device,
    )


def trained(thing: object, x: Tensor, seed: int, levels: tuple[int, ...] | None = None) -> object | None:
    """A copy fitted to rows x (n, d) of states 0 to levels - 1; None for what is no network."""
    if not comes_from(thing, "pgmpy") or not hasattr(thing, "simulate"):
        return None
    import pandas as pd

    network: Any = copy.deepcopy(thing)
    nodes = list(network.nodes())
    if len(nodes) != x.shape[1]:
        raise ValueError(f"the network has {len(nodes)} nodes, the data {x.shape[1]} columns: make them as many")
    rows = x.to(torch.int64).numpy()
    counts = levels or tuple(int(column.max()) + 1 for column in rows.T)
    # A state that is not named is one that has no place in the tables, and no probability.
    names = {node: list(range(k)) for node, k in zip(nodes, counts, strict=True)}
    network.fit(pd.DataFrame(rows, columns=nodes), estimator=_estimator(names))
    return network


def _estimator(names: dict[Any, list[int]]) -> Any:
    """Add-one smoothing (a Dirichlet prior of ones), so that every state stays possible."""
    from pgmpy.parameter_estimator import DiscreteBayesianEstimator

    return DiscreteBayesianEstimator(state_names=names, prior_type="K2")


@dataclass(frozen=True)
class _Tables:
    """The tables p(x_i | parents), with states as places, and the numbers by which states are written."""

    network: Any
    nodes: list[Any]
    tables: list[np.ndarray]  # (states of i, states of its parents ...)
    columns: list[list[int]]  # of i, then of its parents
    numbers: list[np.ndarray]  # the number that writes each state

    @classmethod
    def of(cls, network: Any) -> _Tables:
        """Read from the network's `TabularCPD`s."""
        nodes = list(network.nodes())
        names = {node: network.get_cpds(node).state_names[node] for node in nodes}
        whole = all(isinstance(state, int | np.integer) for states in names.values() for state in states)
        numbers = [np.array(names[node]) if whole else np.arange(len(names[node])) for node in nodes]
        tables, columns = [], []
        for node in nodes:
            table = network.get_cpds(node)
            # Parents name their states in an order of their own: it is brought to the order of the parent's table.
            order = [[table.state_names[v].index(state) for state in names[v]] for v in table.variables]
            values = np.asarray(table.values, dtype=np.float64)
            for axis, places in enumerate(order):
                values = values.take(places, axis)
            tables.append(values)
            columns.append([nodes.index(v) for v in table.variables])
        return cls(network, nodes, tables, columns, numbers)

    def range(self) -> tuple[int, int]:
        return int(min(n.min() for n in self.numbers)), int(max(n.max() for n in self.numbers))

    def possible(self, rows: np.ndarray) -> np.ndarray:
        return np.all([np.isin(rows[:, i], numbers) for i, numbers in enumerate(self.numbers)], axis=0)

    def log_prob(self, rows: np.ndarray) -> np.ndarray:
        places = [np.argmax(rows[:, i, None] == numbers, axis=1) for i, numbers in enumerate(self.numbers)]
        with np.errstate(divide="ignore"):
            factors = [
                np.log(table[tuple(places[j] for j in columns)])
                for table, columns in zip(self.tables, self.columns, strict=True)
            ]
        return np.sum(factors, axis=0)

    def sampler(self, device: torch.device) -> Any:
        """Rows of `simulate`, which reseeds numpy's global generator by a number of 32 bits."""

        def sample(n: int, *, generator: torch.Generator) -> Tensor:
            seed = seed_from(generator) % 2**32
            with numpy_left_alone():
                drawn = self.network.simulate(max(n, 1), seed=seed, show_progress=False)
            columns = [
                numbers[[names.index(state) for state in drawn[node]]]
                for node, numbers, names in zip(self.nodes, self.numbers, self._names(), strict=True)
            ]
            return torch.as_tensor(np.stack(columns, 1).astype(np.int64)[:n], device=device)

        return sample

    def _names(self) -> list[list[Any]]:
        return [list(self.network.get_cpds(node).state_names[node]) for node in self.nodes]
