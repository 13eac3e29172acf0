"""The factors of an autoregressive density, asked for numbers: columns in float64, their rounding, and their orders.

What checks of a model that has `conditionals` are made of. Events may have any shape; here they are flat, (n, d).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import constraints

from harness.checks.law import NotApplicable
from harness.checks.precision import Watched
from harness.checks.rounding import ELEMENTARY, LAMBDA, SAFETY, difference
from harness.errors import out_of_memory
from harness.model import Model
from harness.states import innermost, limits
from harness.subject import Subject

NEEDS = ("conditionals",)
WELL = "autoregressive.well_formed"
BENGIO = "Bengio & Bengio 2000, https://papers.nips.cc/paper/1679; Larochelle & Murray 2011, NADE"

BY_CHANCE = 1e-9
"""The probability at which what random draws show is taken for certain."""

NUMBERS = 2**20
"""Numbers of events that are given to a model at a time."""

ROWS = 16
"""Draws at which the rounding of conditionals is measured."""


@dataclass(frozen=True)
class Factors:
    """The conditionals of a subject. `unit` is the roundoff of their arithmetic, `amplified` how many of these they
    are off by, as measured in a second dtype or a unit in the last place aside."""

    subject: Subject
    model: Model
    dtype: torch.dtype
    order: tuple[int, ...]
    unit: float
    amplified: float

    @property
    def d(self) -> int:
        return len(self.order)

    @cached_property
    def place(self) -> list[int]:
        """When each coordinate is drawn."""
        place = [0] * self.d
        for k, i in enumerate(self.order):
            place[i] = k
        return place

    def columns(self, x: Tensor) -> Tensor:
        """(n, d): log p(x_i | the coordinates before it) at flat events x (n, d), in float64."""
        with torch.no_grad():
            parts = [columns(self.model, self.events(rows)) for rows in x.split(max(1, NUMBERS // self.d))]
        return torch.cat(parts)

    def events(self, x: Tensor) -> Tensor:
        """Flat events in the shape and dtype of draws."""
        pilot = self.subject.pilot
        return x.reshape(len(x), *pilot.shape[1:]).to(pilot.device, self.dtype)

    @cached_property
    def wide(self) -> Factors:
        """The same in float64, where the model can be had in it and answers in it, for continuous events."""
        x = self.subject.pilot[:ROWS]
        if self.model.cast is None or not x.is_floating_point():
            return self
        try:
            model = self.model.cast(torch.float64)
            with torch.no_grad(), Watched() as watched:
                found = conditionals(model, x.double())
        except Exception as refusal:  # a model that has only one dtype
            if out_of_memory(refusal):
                raise
            return self
        unit = max(torch.finfo(kind).eps / 2 for kind in (*watched.dtypes, found.dtype))
        return replace(self, model=model, dtype=torch.float64, unit=unit) if unit < self.unit else self

    def bounds(self, found: Tensor) -> Tensor:
        """How far two evaluations of columns may lie apart, of their shape; see `checks.rounding`."""
        size = 1 + found.abs().nan_to_num(0.0, 0.0, 0.0)
        return LAMBDA * (ELEMENTARY + self.d) ** 0.5 * self.unit * size + SAFETY * self.amplified * self.unit

    @cached_property
    def draws(self) -> Tensor:
        """(n, d): pilot draws, flat."""
        return self.subject.pilot.reshape(len(self.subject.pilot), -1)


def factors_of(subject: Subject) -> Factors:
    """Raises ValueError where conditionals() or ordering() do not return what the contract says."""
    return subject.once("factors", lambda: _found(subject))


def _found(subject: Subject) -> Factors:
    model, x = subject.model, subject.pilot[:ROWS]
    with torch.no_grad(), Watched() as watched:
        found = conditionals(model, x)
    unit = max(torch.finfo(kind).eps / 2 for kind in (*watched.dtypes, found.dtype))
    order = tuple(order_of(model, found.shape[1]))
    return Factors(subject, model, x.dtype, order, unit, _amplification(subject, x, found))


def conditionals(model: Model, x: Tensor) -> Tensor:
    """What the model says of events x (n, *event). Raises ValueError unless it is a floating tensor (n, d)."""
    value = model.conditionals(x)
    wanted = (len(x), x[:1].numel() if len(x) else math.prod(x.shape[1:]))
    if not isinstance(value, Tensor) or value.shape != wanted or not value.is_floating_point():
        seen = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(
            f"conditionals() of {tuple(x.shape)} is {seen}, not a floating tensor {wanted}: a column a coordinate"
        )
    return value


def columns(model: Model, x: Tensor) -> Tensor:
    """The same in float64."""
    return conditionals(model, x).double()


def order_of(model: Model, d: int) -> list[int]:
    """The stated order, or 0, ..., d - 1. Raises ValueError unless it is a permutation."""
    if not model.can("ordering"):
        return list(range(d))
    order = [int(i) for i in model.ordering()]
    if sorted(order) != list(range(d)):
        raise ValueError(f"ordering() is {order[:8]}{'...' if len(order) > 8 else ''}, no permutation of 0 to {d - 1}")
    return order


def field_of(model: Model, d: int) -> Tensor:
    """The stated receptive field, bool (d, d). Raises ValueError for anything else."""
    field = model.receptive_field()
    if not isinstance(field, Tensor) or field.shape != (d, d) or field.dtype != torch.bool:
        seen = f"{tuple(field.shape)} {field.dtype}" if isinstance(field, Tensor) else f"a {type(field).__name__}"
        raise ValueError(f"receptive_field() is {seen}, not a bool tensor ({d}, {d})")
    return field


def _amplification(subject: Subject, x: Tensor, found: Tensor) -> float:
    """The largest measured error of a conditional at x, in unit roundoffs of the dtype that it was measured in."""
    model, floating = subject.model, x.is_floating_point()
    with torch.no_grad():
        try:
            if model.cast is not None and found.dtype == torch.float64:
                narrow = x.float() if floating else x
                apart = difference(columns(model.cast(torch.float32), narrow), columns(model, narrow.to(x.dtype)))
                return _largest(apart) / (torch.finfo(torch.float32).eps / 2)
            if model.cast is not None:
                wide = columns(model.cast(torch.float64), x.double() if floating else x)
                return _largest(difference(found, wide)) / (torch.finfo(found.dtype).eps / 2)
        except Exception as refusal:  # a model that has only one dtype
            if out_of_memory(refusal):
                raise
        if not floating or bool(subject.profile.chart.discrete.any()):
            return 0.0
        beside = torch.nextafter(x, torch.full_like(x, torch.inf))
        return _largest(difference(columns(model, beside), found)) / (torch.finfo(x.dtype).eps / 2)


def _largest(errors: Tensor) -> float:
    finite = errors[errors.isfinite()]
    return float(finite.max()) if len(finite) else 0.0


# The values of one coordinate


@dataclass(frozen=True)
class Alphabet:
    """Values of a discrete coordinate, (k,), sorted. `inside` says which lie between two that were drawn, where a
    density has a meaning whatever is declared; `complete`, that there are no others."""

    values: Tensor
    inside: Tensor
    complete: bool


def alphabet_of(subject: Subject, i: int) -> Alphabet:
    """The declared values; else those that were seen, at this coordinate and at others, and integers between."""
    pilot = subject.pilot
    lower, upper = (float(end.flatten()[i]) for end in limits(subject.model, pilot.shape[1:]))
    known = [a for a in subject.profile.alphabets if a is not None]
    own = subject.profile.alphabets[i]
    assert own is not None
    whole = all(bool((a == a.round()).all()) for a in known)
    seen = pilot.reshape(len(pilot), -1)[:, i].double()
    least, most = float(seen.min()), float(seen.max())
    if pilot.dtype == torch.bool or isinstance(innermost(subject.model.support), type(constraints.boolean)):
        lower, upper = 0.0, 1.0
    declared = whole and math.isfinite(lower) and math.isfinite(upper) and upper - lower < 2**16
    if declared:
        values = torch.arange(int(lower), int(upper) + 1, dtype=torch.float64)
    else:
        values = torch.cat([own, *known] if whole else [own]).unique()
        values = values[(values >= lower) & (values <= upper)]
    return Alphabet(values, (values >= least) & (values <= most) | declared, declared)


def through(x: Tensor, i: int, values: Tensor) -> Tensor:
    """(n k, d): the events x (n, d), each with coordinate i set to each of the values (k,) or (n, k)."""
    k = values.shape[-1]
    rows = x.repeat_interleave(k, 0)
    rows[:, i] = values.expand(len(x), k).reshape(-1).to(rows)
    return rows


def refused(work: Callable[[], Tensor], rows: int) -> Tensor:
    """The result (rows, d), or rows of -inf where the model refuses such values by raising."""
    try:
        return work()
    except (ValueError, IndexError, RuntimeError) as refusal:
        if out_of_memory(refusal):
            raise
        return torch.full((rows, 1), -math.inf, dtype=torch.float64)


def several(d: int) -> None:
    """Raises NotApplicable for events of one number, which have no order."""
    if d < 2:
        raise NotApplicable("an event of one number has no order")


def some(factors: Factors, among: list[int], most: int) -> list[int]:
    """The first, the last, and coordinates between them, chosen by the seed."""
    if len(among) <= most:
        return among
    source = torch.Generator().manual_seed(factors.subject.seed_for("conditionals that are summed"))
    between = (torch.randperm(len(among) - 2, generator=source)[: most - 2] + 1).sort().values.tolist()
    return [among[0], *(among[k] for k in between), among[-1]]
