"""What one event of a density alone looks like: its shape and dtype, found by asking, or said to be unknown.

A shape fits when `log_prob` answers one number an event. Of vectors the shortest that fits is taken if, in longer ones,
the numbers after it do not matter: `log_prob` looks at the first of them only. Where they do, as for a sum over the
last axis, every length fits and only the model's author knows which one is meant: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.chart import transform_for
from harness.errors import out_of_memory
from harness.model import Model

MOST_PROBED = 64
"""Longest vector that is tried as the shape of an event."""

SHAPES = ((), *((d,) for d in range(1, MOST_PROBED + 1)))
DTYPES = (torch.float32, torch.int64)

ROWS = (67, 71)
"""Two numbers of events that no shape is likely to divide, or to be broadcast with."""

DECLARE = "give the model an attribute event_shape, a tuple such as (3,), or a method sample"


class LostError(ValueError):
    """The density's shape or mass was not found; the message says what to declare."""


@dataclass(frozen=True)
class Event:
    """The shape of an event, and the dtype in which `log_prob` takes it."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def event_shape(model: Model) -> tuple[int, ...]:
    """The declared shape, or the only one that fits. Raises LostError."""
    return event_of(model).shape


def event_of(model: Model) -> Event:
    """Shape and dtype of an event, in float32 where it is taken, else in int64. Raises LostError."""
    if model.event_shape is not None:
        return _declared(model, model.event_shape)
    event = _found(model)
    if event is None:
        raise LostError(
            f"log_prob takes no event of shape () to ({MOST_PROBED},), at (1,) {_refusal(model, (1,))}: {DECLARE}"
        )
    return event


def _declared(model: Model, shape: tuple[int, ...]) -> Event:
    """The event of a declared shape; float32 for a model that raises outside its support, wherever that is."""
    for dtype in DTYPES:
        if _fits(model, shape, dtype):
            return Event(shape, dtype)
    if _validates(model, shape) and _found(model) is None:
        return Event(shape, torch.float32)
    raise LostError(f"log_prob takes no event of the declared event_shape {shape}: {_refusal(model, shape)}")


def _found(model: Model) -> Event | None:
    """The only vector, or number, that fits; None where none does. Raises LostError where several do.

    A declared support of vectors leaves out the number.
    """
    shapes = [shape for shape in SHAPES if len(shape) >= getattr(model.support, "event_dim", 0)]
    for dtype in DTYPES:
        fitting = [shape for shape in shapes if _fits(model, shape, dtype)]
        if fitting:
            return Event(_meant(model, fitting, dtype), dtype)
    return None


def _meant(model: Model, fitting: list[tuple[int, ...]], dtype: torch.dtype) -> tuple[int, ...]:
    """The one of several fitting shapes that the others come from by broadcasting, or by numbers that do not matter."""
    if len(fitting) > 1 and fitting[0] == (1,) and _repeats(model, fitting[1], dtype):
        fitting = fitting[1:]
    shortest, *longer = fitting
    if all(_ignores_the_rest(model, shortest, shape, dtype) for shape in longer):
        return shortest
    some = ", ".join(map(str, fitting[:3])) + (", …" if len(fitting) > 3 else "")
    raise LostError(f"log_prob takes events of several shapes ({some}), and nothing tells which is meant: {DECLARE}")


def _repeats(model: Model, wider: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Does an event of one number pass for one of more, repeated?"""
    columns = [_probe(model, (1,), ROWS[0], dtype), _bits((1,), ROWS[0], dtype)]
    return all(_same(model, x, x.expand(ROWS[0], *wider).contiguous()) for x in columns)


def _ignores_the_rest(model: Model, shape: tuple[int, ...], wider: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Is the density of a longer event that of its first numbers?"""
    events = [_probe(model, wider, ROWS[0], dtype), _bits(wider, ROWS[0], dtype)]
    return all(_same(model, x[:, : shape[0]] if shape else x[:, 0], x) for x in events)


def _same(model: Model, x: Tensor, y: Tensor) -> bool:
    """Are the densities of x and y equal, but for the rounding of an operation or so a number?"""
    one, other = _answer(model, x, len(x)), _answer(model, y, len(y))
    if one is None or other is None:
        return one is other
    rounding = MOST_PROBED * torch.finfo(torch.promote_types(one.dtype, torch.float32)).eps
    return torch.allclose(one.double(), other.double(), rtol=rounding, atol=rounding, equal_nan=True)


def _fits(model: Model, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    return all(any(_answer(model, x, rows) is not None for x in _probes(model, shape, rows, dtype)) for rows in ROWS)


def _probes(model: Model, shape: tuple[int, ...], rows: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """Events [rows, *shape] that a model which raises outside its support may take."""
    yield _probe(model, shape, rows, dtype)
    if dtype.is_floating_point:
        yield torch.full((rows, *shape), 1 / max(1, shape[-1] if shape else 1))  # on the simplex
        yield torch.zeros(rows, *shape)
    yield torch.ones(rows, *shape).to(dtype)
    if shape:
        hot = torch.eye(shape[-1]).to(dtype)[torch.arange(rows) % shape[-1]]  # (rows, last)
        yield hot.reshape(rows, *(1,) * (len(shape) - 1), -1).expand(rows, *shape)


def _probe(model: Model, shape: tuple[int, ...], rows: int, dtype: torch.dtype) -> Tensor:
    """Events [rows, *shape]: of the declared support, else between 0.2 and 0.8, and 0 or 1 where they are integers."""
    if not dtype.is_floating_point:
        return _bits(shape, rows, dtype)
    steps = _steps(shape, rows)
    transform = transform_for(model.support)
    if transform is None:
        return 0.2 + 0.6 * steps
    try:
        free = transform.inverse_shape(torch.Size(shape))
        return transform(steps.reshape(rows, -1)[:, : free.numel()].reshape(rows, *free) - 0.5)
    except Exception:  # no event of this shape is in the declared support
        return 0.2 + 0.6 * steps


def _bits(shape: tuple[int, ...], rows: int, dtype: torch.dtype) -> Tensor:
    """Events [rows, *shape] of zeros and ones."""
    return (_steps(shape, rows) > 0.5).to(dtype)


def _steps(shape: tuple[int, ...], rows: int) -> Tensor:
    """Numbers [rows, *shape] from 0 to 1 in irregular order."""
    count = torch.Size(shape).numel()
    order = (torch.arange(rows)[:, None] * 37 + torch.arange(count) * 29) % 61
    return (order / 60).reshape(rows, *shape)


def _answer(model: Model, x: Tensor, rows: int) -> Tensor | None:
    """log_prob where it is a tensor [rows]."""
    try:
        with torch.no_grad():
            value = model.log_prob(x)
    except Exception as refusal:  # of a trial shape, which says that it is not the model's
        if out_of_memory(refusal):
            raise
        return None
    return value if isinstance(value, Tensor) and tuple(value.shape) == (rows,) else None


def _validates(model: Model, shape: tuple[int, ...]) -> bool:
    """Are the probes refused for their values? Torch's own laws raise ValueError outside their support."""
    try:
        with torch.no_grad():
            model.log_prob(_probe(model, shape, ROWS[0], torch.float32))
    except ValueError:
        return True
    except Exception:
        return False
    return False


def _refusal(model: Model, shape: tuple[int, ...]) -> str:
    """What `log_prob` does with events of a shape that does not fit."""
    x = _probe(model, shape, ROWS[0], torch.float32)
    try:
        with torch.no_grad():
            value = model.log_prob(x)
    except Exception as error:
        return f"it raises {type(error).__name__} ({' '.join(str(error).split())[:120]})"
    got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    return f"it answers {got} for {ROWS[0]} events"
