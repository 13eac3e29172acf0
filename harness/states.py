"""From a declared support, or from what pilot draws show, to limits and to lists of states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from harness.chart import transform_for
from harness.model import Model
from harness.space import Growing, Integers, Space, States

if TYPE_CHECKING:
    from harness.subject import Subject

MAX_STATES = 2**20
LEAST_STATES = 2**16
MAX_GROWING = 3

MOST_PRINTED = 1e300
"""Counts of states above this are not turned into floats, which end at 1e308."""


class TooManyError(ValueError):
    """The support has more states than can be summed over."""


def innermost(support: Constraint | None) -> Constraint | None:
    """The constraint of a single number, without the wrappers that make an event of several."""
    while support is not None and hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def supported(model: Model, x: Tensor) -> Tensor:
    """(n,) bool: are events x (n, *event) in the declared support, if one is declared?"""
    if model.support is None or not len(x):
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    return model.support.check(x).reshape(len(x), -1).all(1)


def must_be_asked(model: Model) -> bool:
    """Can an event that is made of free numbers lie outside the declared support, so that it must be looked up?

    Not where a transform leads into it: at its edge `supported` would be decided by rounding, on a simplex anywhere.
    """
    return innermost(model.support) not in (None, constraints.real) and transform_for(model.support) is None


def limits(model: Model, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Lower and upper limits of every number of an event, two tensors [*event]; infinite where nothing is declared."""
    inner = innermost(model.support)
    return (
        _limit(getattr(inner, "lower_bound", -math.inf), tuple(shape), least=True),
        _limit(getattr(inner, "upper_bound", math.inf), tuple(shape), least=False),
    )


def _limit(value: Tensor | float, shape: tuple[int, ...], least: bool) -> Tensor:
    """A limit for each number of the event; where limits belong to components of a mixture, the widest."""
    value = torch.as_tensor(value).detach().to("cpu", torch.float64)
    try:
        return value.broadcast_to(shape)
    except RuntimeError:
        return (value.min() if least else value.max()).expand(shape)


def finite_states(model: Model, shape: tuple[int, ...], most: int) -> States | None:
    """All states of a declared finite support; None where none is declared, or not finite. Raises TooManyError."""
    inner = innermost(model.support)
    if isinstance(inner, type(constraints.one_hot)):
        return _few(_rows_of([torch.eye(shape[-1], dtype=torch.float64)] * math.prod(shape[:-1])), most)
    if isinstance(inner, constraints.multinomial):
        return _few(_rows_of(_compositions(inner, shape, most)), most)
    if isinstance(inner, type(constraints.boolean)):
        return _few(States((torch.tensor([0.0, 1.0], dtype=torch.float64),) * math.prod(shape)), most)
    lower, upper = (end.flatten() for end in limits(model, shape))
    if not bool((lower.isfinite() & upper.isfinite()).all()) or inner is None or not inner.is_discrete:
        return None
    count = float((upper - lower + 1).prod())
    if count > most:
        raise _too_many(count, most)
    return States(tuple(_range(a, b) for a, b in zip(lower.tolist(), upper.tolist(), strict=True)))


def _range(low: float, high: float) -> Tensor:
    return torch.arange(int(low), int(high) + 1, dtype=torch.float64)


def _few(states: States, most: int) -> States:
    if states.count > most:
        raise _too_many(states.count, most)
    return states


def _too_many(count: float, most: int) -> TooManyError:
    size = f"{count:.3g}" if count < MOST_PRINTED else f"more than {MOST_PRINTED:g}"
    return TooManyError(f"{size} states are more than the {most:,} that are enumerated")


def _rows_of(tables: Sequence[Tensor]) -> States:
    """Events that are rows, each from its own table (m, k)."""

    def decode(codes: Tensor) -> Tensor:
        return torch.cat([table[column.long()] for table, column in zip(tables, codes.T, strict=True)], 1)

    return States(tuple(torch.arange(len(table), dtype=torch.float64) for table in tables), decode)


def _compositions(support: Constraint, shape: tuple[int, ...], most: int) -> list[Tensor]:
    """For each row of the event, all vectors of counts with the stated sum."""
    totals = _limit(support.upper_bound, shape[:-1], least=False).flatten().tolist()  # type: ignore[attr-defined]
    return [_counts(int(total), shape[-1], most) for total in totals]


def _counts(total: int, categories: int, most: int) -> Tensor:
    """Stars and bars: the bars' places among total + categories - 1; (m, categories)."""
    places = total + categories - 1
    if math.comb(places, categories - 1) > most:
        raise _too_many(math.comb(places, categories - 1), most)
    bars = torch.tensor(list(combinations(range(places), categories - 1)), dtype=torch.float64)
    bars = bars.reshape(-1, categories - 1)
    before, after = torch.full((len(bars), 1), -1.0).double(), torch.full((len(bars), 1), float(places)).double()
    return torch.cat([before, bars, after], 1).diff(dim=1) - 1


def discrete_space(subject: Subject) -> Space:
    """The states of a discrete law. Raises TooManyError."""
    shape = tuple(subject.pilot.shape[1:])
    inner = innermost(subject.model.support)
    most = max(LEAST_STATES, min(MAX_STATES, subject.effort.draws))
    bounded = hasattr(inner, "lower_bound") or hasattr(inner, "upper_bound")
    try:
        states = finite_states(subject.model, shape, most)
    except TooManyError:
        if not (bounded and math.prod(shape) == 1):
            raise
        states = None
    if states is not None:
        return states
    return _countable(subject, most) if bounded else _undeclared(subject, most)


def _countable(subject: Subject, most: int) -> Space:
    """Integers between declared limits."""
    lower, upper = (end.flatten() for end in limits(subject.model, subject.pilot.shape[1:]))
    flat = subject.pilot.reshape(len(subject.pilot), -1).to("cpu", torch.float64)
    if len(lower) == 1:
        return Integers(float(lower), float(upper), _middle(flat[:, 0]))
    if len(lower) <= MAX_GROWING:
        return Growing(flat.amin(0), flat.amax(0), lower, upper, most)
    raise TooManyError(f"countable events of {len(lower)} dimensions are more than enumeration can do")


def _middle(column: Tensor) -> tuple[float, ...]:
    """From where the integers are walked: the middle nine tenths of the pilot draws."""
    low, high = torch.quantile(column[: 2**14], torch.tensor([0.05, 0.95], dtype=torch.float64)).round().tolist()
    return low, high


def _undeclared(subject: Subject, most: int) -> Space:
    """Values that the pilot draws show, and integers beyond them."""
    profile, pilot = subject.profile, subject.pilot
    alphabets = tuple(a.cpu() for a in profile.alphabets if a is not None)
    whole = all(bool((a == a.round()).all()) for a in alphabets)
    low, high = _dtype_limits(pilot.dtype)
    if len(alphabets) == 1 and whole:
        return Integers(low, high, _middle(pilot.flatten().to("cpu", torch.float64)))
    inside = tuple(a[(a >= low) & (a <= high)] for a in alphabets)
    return _few(States(inside, complete=False), most)


def _dtype_limits(dtype: torch.dtype) -> tuple[float, float]:
    """What an integer dtype can hold, when that is little."""
    if dtype == torch.bool:
        return 0.0, 1.0
    if dtype in (torch.uint8, torch.int8, torch.int16):
        return float(torch.iinfo(dtype).min), float(torch.iinfo(dtype).max)
    return -math.inf, math.inf
