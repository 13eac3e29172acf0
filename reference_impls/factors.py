r"""Products of tables, and sums over them: variable elimination.

A factor is a non-negative table over a few variables, its scope; a law is a product of factors. To sum a variable out,
multiply only the factors that mention it:

    sum_v f(a) g(a, v) h(v, b) = f(a) m(a, b),      m(a, b) = sum_v g(a, v) h(v, b)

The sum is exact; what it costs depends on the order. Here the next variable is always one whose product is smallest.

Source: Koller & Friedman, Probabilistic Graphical Models (2009), chapter 9.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from reference_impls.states import LARGEST_TABLE


class Factor(NamedTuple):
    """A table with an axis for each variable of its scope."""

    scope: tuple[int, ...]
    table: Tensor


class Eliminated(NamedTuple):
    """What the sum over `variable` was taken of, over (*others, variable)."""

    variable: int
    others: tuple[int, ...]
    product: Tensor


class ImpossibleError(ValueError):
    """The product is zero everywhere."""


def product(factors: Sequence[Factor], scope: Sequence[int]) -> Tensor:
    """The product of factors, up to a constant, as one table with the axes of `scope`, which holds all their variables.

    It is divided by its largest entry on the way, so that products of many small numbers do not vanish.
    """
    if not factors:
        raise ValueError("factors should hold one or more; a product of none has no variables")
    place = {v: axis for axis, v in enumerate(scope)}
    result = None
    for factor in factors:
        order = sorted(range(len(factor.scope)), key=lambda axis, f=factor: place[f.scope[axis]])
        shape = [1] * len(scope)
        for v, size in zip(factor.scope, factor.table.shape, strict=True):
            shape[place[v]] = size
        table = factor.table.permute(order).reshape(shape)
        result = _scaled(table if result is None else result * table)
    return result


def reduced(factor: Factor, evidence: dict[int, int]) -> Factor:
    """The slice of a factor at the observed values of some of its variables."""
    index = tuple(evidence.get(v, slice(None)) for v in factor.scope)
    return Factor(tuple(v for v in factor.scope if v not in evidence), factor.table[index])


def eliminate(factors: Iterable[Factor], variables: Iterable[int]) -> tuple[list[Factor], list[Eliminated]]:
    """Sum the variables out of the product, up to a constant; also each step, in the order in which they were taken.

    Raises ImpossibleError where the product is zero everywhere.
    """
    left, waiting, steps = dict(enumerate(factors)), set(variables), []
    places: dict[int, set[int]] = {v: set() for v in waiting}  # of the factors that mention a variable
    for place, factor in left.items():
        _scaled(factor.table)  # one that is zero everywhere may have no variable left to sum over
        for v in factor.scope:
            places.setdefault(v, set()).add(place)
    costs = {v: _cost(left[place] for place in places[v]) for v in waiting}
    for new in range(len(left), len(left) + len(waiting)):
        v = min(sorted(waiting), key=lambda v: costs[v])
        _check_size(costs[v], v)
        gone = places.pop(v)
        touched = [left.pop(place) for place in sorted(gone)]
        others = tuple(sorted({u for f in touched for u in f.scope} - {v}))
        whole = product(touched, (*others, v))
        left[new] = Factor(others, _scaled(whole.sum(-1)))
        steps.append(Eliminated(v, others, whole))
        waiting.remove(v)
        for u in others:
            places[u] = places[u] - gone | {new}
        costs |= {u: _cost(left[place] for place in places[u]) for u in waiting.intersection(others)}
    return list(left.values()), steps


def _scaled(table: Tensor) -> Tensor:
    """Divided by its largest entry."""
    largest = table.max()
    if not largest > 0:
        raise ImpossibleError("the given values have probability zero; give possible ones")
    return table / largest


def _cost(factors: Iterable[Factor]) -> int:
    """Entries of the product of these."""
    return math.prod({u: k for f in factors for u, k in zip(f.scope, f.table.shape, strict=True)}.values())


def _check_size(cost: int, v: int) -> None:
    if cost > LARGEST_TABLE:
        raise ValueError(
            f"the graph is too dense for exact sums: eliminating variable {v} takes a table of {cost:,} "
            f"entries, more than {LARGEST_TABLE:,}; ask about fewer variables, or sample"
        )


def unit(*, like: Tensor) -> Factor:
    """The empty product."""
    return Factor((), torch.ones((), dtype=torch.float64, device=like.device))
