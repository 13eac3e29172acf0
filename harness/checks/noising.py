"""What checks of diffusions share: times, noisy events, and what a schedule says, in the form that its contract has."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from harness.checks.law import NotApplicable
from harness.errors import out_of_memory
from harness.model import Model
from harness.subject import Subject

TIMES = 9
"""Times at which kernels are looked at, the first and the last among them."""

CANDIDATES = 257
"""Times among which those are found."""

CHAIN = 10
"""A range of so many whole times or more counts the steps of a chain, which is asked at whole times only."""


def time_range(model: Model) -> tuple[float, float]:
    """Raises ValueError for what is no range."""
    first, last = (float(end) for end in model.time_range())
    if not (math.isfinite(first) and math.isfinite(last) and first < last):
        raise ValueError(f"time_range() is {first, last}; a first and a later last time were asked for")
    return first, last


def dtype_of(subject: Subject) -> torch.dtype:
    """The dtype that times are in: that of events. Raises NotApplicable where these are no floating numbers."""
    if not subject.pilot.is_floating_point():
        raise NotApplicable("events are integers, to which no normal noise is added")
    return subject.pilot.dtype


def answers(model: Model, name: str, *arguments: Tensor, count: int) -> tuple[Tensor, ...]:
    """So many numbers a time, in float64. Raises ValueError for another form than the contract's."""
    with torch.no_grad():
        said = model.methods[name](*arguments)
    shape = arguments[0].shape
    if not isinstance(said, tuple | list) or len(said) != count:
        raise ValueError(f"{name}() returned {_form(said)}; {count} tensors of shape {tuple(shape)} were asked for")
    for part in said:
        if not isinstance(part, Tensor) or part.shape != shape:
            raise ValueError(f"{name}() of {tuple(shape)} times returned {_form(part)}, not a tensor of that shape")
    return tuple(part.double() for part in said)


def _form(said: object) -> str:
    return f"a tensor of shape {tuple(said.shape)}" if isinstance(said, Tensor) else f"a {type(said).__name__}"


def schedule(model: Model, t: Tensor) -> tuple[Tensor, Tensor]:
    """scale and sigma (k,) at times t (k,), in float64."""
    scale, sigma = answers(model, "schedule", t, count=2)
    return scale, sigma


def grid(subject: Subject) -> Tensor:
    """(m,): times from the first to the last, evenly, and evenly in their logarithms; of a chain, whole ones."""
    first, last = time_range(subject.model)
    times = torch.linspace(first, last, CANDIDATES, dtype=torch.float64)
    early = max(first, (last - first) * 1e-4) if first >= 0 else math.nan
    if early > 0:
        times = torch.cat([times, torch.logspace(math.log10(early), math.log10(last), CANDIDATES, dtype=torch.float64)])
    if first == round(first) and last == round(last) and last - first >= CHAIN:
        times = times.round()
    times = times.clamp(first, last).to(dtype_of(subject)).unique()
    return times.to(subject.model.device)


def times(subject: Subject, count: int = TIMES) -> Tensor:
    """(k,): times from the first to the last, about `count`, between which sigma / scale grows by like factors."""

    def work() -> Tensor:
        candidates = grid(subject)
        scale, sigma = schedule(subject.model, candidates)
        level = (sigma / scale).log()
        told = level.isfinite().nonzero().flatten()
        if len(told) < 2:
            return candidates[
                torch.linspace(0, len(candidates) - 1, count).round().long().to(candidates.device)
            ].unique()
        low, high = float(level[told[0]]), float(level[told[-1]])
        wanted = torch.linspace(low, high, count, dtype=torch.float64, device=candidates.device)
        near = told[(level[told] - wanted[:, None]).abs().argmin(1)]
        ends = torch.tensor([0, len(candidates) - 1], device=candidates.device)
        return candidates[torch.cat([near, ends]).unique()]

    return subject.once(f"{count} times of the schedule", work)


def noisy(subject: Subject, x: Tensor, t: Tensor, *names: str | int) -> Tensor:
    """x_t = scale x_0 + sigma e, in the dtype of events, for rows x (n, *event) and times t (n,)."""
    scale, sigma = (part.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)) for part in schedule(subject.model, t))
    e = torch.randn(x.shape, generator=subject.generator("noise", *names), dtype=x.dtype, device=x.device)
    return scale * x + sigma * e


def flat(x: Tensor) -> Tensor:
    """(n, d), for events of any shape."""
    return x.reshape(len(x), -1)


def said(model: Model, name: str, x: Tensor, t: Tensor) -> Tensor:
    """denoise or score_at. Raises ValueError for another shape than that of x."""
    with torch.no_grad():
        value = model.methods[name](x, t)
    return floating_like(value, x, name)


def floating_like(value: object, x: Tensor, name: str) -> Tensor:
    """What a method returned, if it is of the shape of x."""
    if not isinstance(value, Tensor) or value.shape != x.shape or not value.is_floating_point():
        seen = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(f"{name}() of {tuple(x.shape)} is {seen}, not a floating tensor of that shape")
    return value


def finest(subject: Subject, asked: Callable[[Model, torch.dtype], Tensor]) -> tuple[Model, torch.dtype]:
    """The model in float64 where it answers in that, or else as it is."""
    try:
        model = subject.model if subject.model.cast is None else subject.model.cast(torch.float64)
        with torch.no_grad():
            if asked(model, torch.float64).dtype == torch.float64:
                return model, torch.float64
    except Exception as refusal:  # a model that has only one dtype
        if out_of_memory(refusal):
            raise
    return subject.model, dtype_of(subject)
