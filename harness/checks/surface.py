"""Laws of the callable surface: shapes, dtypes, devices, batches, inputs and the model itself left alone."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.ambient import switched, switches
from harness.checks.law import Check, NotApplicable, exact
from harness.checks.rounding import compared, difference, rounding_bound
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.states import supported
from harness.subject import Subject

ROWS = 64
"""Events at which densities are compared."""


def broken(problems: list[str], n: int) -> Exact:
    """Evidence of a law that is a list of conditions: the number of those that do not hold."""
    return Exact(error=float(len(problems)), allowed=0.0, n=n, where="; ".join(problems), unit="violations")


@exact("sample.well_formed", needs=("sample",))
def sample_is_well_formed(subject: Subject) -> Exact:
    """sample(n, generator=g) is a tensor [n, *event] on the model's device, of a real dtype.

    Every later check relies on it.
    """
    problems = []
    x = subject.sample(7, "surface")
    if not isinstance(x, Tensor):
        return broken([f"sample(7) returned a {type(x).__name__}, not a torch.Tensor"], 7)
    if x.ndim == 0 or x.shape[0] != 7:
        problems.append(f"sample(7) has shape {tuple(x.shape)}, not (7, *event)")
    declared = subject.model.event_shape
    if declared is not None and x.ndim and tuple(x.shape[1:]) != declared:
        problems.append(f"events have shape {tuple(x.shape[1:])}, declared {declared}")
    if x.ndim > 1 and x.numel() == 0:
        problems.append(f"events have shape {tuple(x.shape[1:])}: there are no numbers in them")
    if x.layout != torch.strided:
        problems.append(f"draws are in the layout {x.layout}, not dense")
    if x.is_complex():
        problems.append(f"dtype {x.dtype} is not real")
    if x.device.type != subject.model.device.type:
        problems.append(f"draws are on {x.device}, the generator on {subject.model.device}")
    return broken(problems, 7)


@exact("log_prob.well_formed", needs=("log_prob",), blocked_by=("sample.well_formed",))
def log_prob_is_well_formed(subject: Subject) -> Exact:
    """log_prob(x) is a real floating tensor [n] on the device of x, and is not NaN at the model's own draws.

    Every later check relies on it.
    """
    x = subject.pilot[:7]
    value = subject.model.log_prob(x)
    if not isinstance(value, Tensor):
        return broken([f"log_prob returned a {type(value).__name__}, not a torch.Tensor"], 7)
    problems = []
    if tuple(value.shape) != (len(x),):
        problems.append(f"log_prob of events {tuple(x.shape)} has shape {tuple(value.shape)}, not ({len(x)},)")
    if value.layout != torch.strided or value.is_meta:
        problems.append(f"log_prob is a {value.layout} tensor on {value.device}: it holds no numbers to compare")
    elif not value.is_floating_point():
        problems.append(f"log_prob has dtype {value.dtype}, not a real floating one")
    elif bool(value.isnan().any()):
        problems.append("log_prob is NaN at a draw of the model")
    if value.device.type != x.device.type:
        problems.append(f"log_prob is on {value.device}, its input on {x.device}")
    return broken(problems, len(x))


@exact("sample.any_batch_size", needs=("sample",))
def sample_takes_any_batch_size(subject: Subject) -> Exact:
    """sample(n) has shape [n, *event], with one event shape and one dtype, for n = 0, 1, 2 and 257.

    An empty batch comes out of filters and of data that divide evenly; a batch of one is where squeezed axes show. That
    some of torch refuses to draw none (`multinomial`, an LSTM) is not the doing of a model that asks it: a RuntimeError
    for none is passed over.
    """
    first = subject.sample(7, "surface")
    problems: list[str] = []
    for n in (0, 1, 2, 257):
        x = _answer(n, lambda n: subject.sample(n, "surface"), problems)
        if x is None:
            continue
        if tuple(x.shape) != (n, *first.shape[1:]):
            problems.append(f"sample({n}) has shape {tuple(x.shape)}, not {(n, *first.shape[1:])}")
        elif x.dtype != first.dtype:
            problems.append(f"sample({n}) has dtype {x.dtype}, sample(7) {first.dtype}")
    return broken(problems, 257)


@exact("log_prob.any_batch_size", needs=("log_prob",))
def log_prob_takes_any_batch_size(subject: Subject) -> Exact:
    """log_prob of [n, *event] has shape [n], with one dtype, for n = 0, 1, 2 and 257.

    Filters and data loaders leave batches of one event, or of none; a squeezed axis or a mean over nothing shows there.
    `MultivariateNormal` and others of torch refuse none, which is not the doing of a model that asks them: what they
    raise, and any RuntimeError, as torch's operators do, is passed over for none.
    """
    x = subject.pilot
    dtype = subject.model.log_prob(x[:7]).dtype
    problems: list[str] = []
    for n in (0, 1, 2, min(257, len(x))):
        value = _answer(n, lambda n: subject.model.log_prob(x[:n]), problems)
        if value is None:
            continue
        if tuple(value.shape) != (n,):
            problems.append(f"log_prob of {n} events has shape {tuple(value.shape)}, not ({n},)")
        elif value.dtype != dtype:
            problems.append(f"log_prob of {n} events has dtype {value.dtype}, of 7 events {dtype}")
    return broken(problems, 257)


def _answer(n: int, call: Callable[[int], Tensor], problems: list[str]) -> Tensor | None:
    """call(n); an exception for none or one is a problem of its own, unless the model does not answer for 7 either."""
    if n > 1:
        return call(n)
    try:
        return call(n)
    except Exception as error:
        if out_of_memory(error):  # the limit of the process, whatever n is
            raise
        call(7)
        if n == 0 and (isinstance(error, RuntimeError) or _raised_in(error).startswith("torch.distributions.")):
            return None
        problems.append(f"raises for n = {n}: {type(error).__name__}: {' '.join(str(error).split())[:160]}")
        return None


def _raised_in(error: BaseException) -> str:
    """The module of the function that raised it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")) if frames else ""


@exact("log_prob.deterministic", needs=("log_prob",))
def log_prob_is_deterministic(subject: Subject) -> Exact:
    """log_prob(x) is a function of x: two calls agree in every bit.

    Dropout left on, an estimate by Monte Carlo, or state kept from the call before break it.
    """
    x = subject.pilot[:ROWS]
    with torch.no_grad():
        first = subject.model.log_prob(x).clone()
        subject.model.log_prob(subject.pilot[ROWS : 2 * ROWS])
        second = subject.model.log_prob(x)
    return Exact(float(difference(first, second).max()), 0.0, len(x), "two calls", "nat")


@exact("log_prob.batch_invariant", needs=("log_prob",), blocked_by=("log_prob.deterministic",))
def log_prob_is_batch_invariant(subject: Subject) -> Exact:
    """log_prob(x)_i = log_prob(x_i): a row's density does not depend on the other rows, beyond rounding.

    Rows are evaluated alone (in pairs, where one row alone gives no answer), in reverse, and in front of a larger
    batch. Batch statistics, a sum over the wrong axis and a sequential state break it; a matrix product that sums in
    another order for another batch size does not.
    """
    x = subject.pilot[:ROWS]
    log_prob = subject.model.log_prob
    with torch.no_grad():
        value = log_prob(x)
        alone = _alone(subject, x)
        backwards = log_prob(x.flip(0)).flip(0)
        in_front = log_prob(subject.pilot[: 16 * ROWS])[: len(x)]
        errors = torch.stack([difference(other, value) for other in (alone, backwards, in_front)]).amax(0)
        return compared(errors, rounding_bound(subject, x, value), subject.effort.tolerance)


def _alone(subject: Subject, x: Tensor) -> Tensor:
    """(n,): log_prob of each row by itself; of two rows at a time where the model refuses or merges a single one."""
    try:
        alone = torch.cat([subject.model.log_prob(row).reshape(-1) for row in x.split(1)])
    except Exception as refusal:  # which is for log_prob.any_batch_size to say
        if out_of_memory(refusal):
            raise
        alone = x.new_empty(0)
    return alone if len(alone) == len(x) else torch.cat([subject.model.log_prob(two) for two in x.split(2)])


@exact(
    "log_prob.layout_invariant", needs=("log_prob",), blocked_by=("log_prob.deterministic", "log_prob.batch_invariant")
)
def log_prob_is_layout_invariant(subject: Subject) -> Exact:
    """log_prob(x) depends on the numbers in x, not on how they lie in memory, beyond rounding.

    The same events are passed strided, with their axes in reverse order, at an offset, and as one row expanded to many.
    """
    x = subject.pilot[:ROWS]
    axes = tuple(reversed(range(x.ndim)))
    strided = torch.stack([x, torch.zeros_like(x)], -1)[..., 0]
    reverse = x.permute(axes).contiguous().permute(axes)
    offset = torch.cat([x[:3], x])[3:]
    log_prob = subject.model.log_prob
    with torch.no_grad():
        value = log_prob(x.contiguous())
        errors = [difference(log_prob(other), value) for other in (strided, reverse, offset)]
        errors.append(difference(log_prob(x[:1].expand_as(x)), value[:1].expand_as(value)))
        bounds = rounding_bound(subject, x, value)
        return compared(torch.stack(errors).amax(0), torch.maximum(bounds, bounds[0]), subject.effort.tolerance)


@exact("log_prob.dtype_invariant", needs=("log_prob",), blocked_by=("log_prob.deterministic",))
def log_prob_is_dtype_invariant(subject: Subject) -> Exact:
    """log_prob of the same numbers in float32 and in float64 is the same, beyond the rounding of float32.

    Events in float32 are exact in float64; events in float64 are rounded to float32 first. A model that refuses another
    dtype than its own is not at fault, nor is one for which the events leave the support when their dtype changes.
    """
    x = subject.pilot[:ROWS]
    if not x.is_floating_point():
        raise NotApplicable(f"events are {x.dtype}, not floating")
    narrow = x.to(torch.float32)
    try:
        with torch.no_grad():
            first, second = subject.model.log_prob(narrow), subject.model.log_prob(narrow.to(torch.float64))
    except (RuntimeError, TypeError, ValueError) as refusal:
        if out_of_memory(refusal):
            raise
        raise NotApplicable(f"log_prob takes one dtype only: {' '.join(str(refusal).split())[:120]}") from None
    if tuple(second.shape) != tuple(first.shape):
        return broken([f"shape {tuple(first.shape)} in float32, {tuple(second.shape)} in float64"], len(x))
    kept = supported(subject.model, narrow.to(torch.float64))
    if not bool(kept.any()):
        raise NotApplicable("float32 events are outside the support that is declared for float64")
    bounds = rounding_bound(subject, narrow, first, across_dtypes=x.dtype == torch.float32)
    bounds = bounds.clamp(min=subject.effort.tolerance)  # float32 may lose that much, where terms are large and cancel
    return compared(difference(first, second)[kept], bounds[kept], subject.effort.tolerance)


@exact("log_prob.leaves_input_unchanged", needs=("log_prob",))
def log_prob_leaves_input_unchanged(subject: Subject) -> Exact:
    """log_prob(x) leaves x as it was: values, shape and requires_grad.

    An operation in place on the caller's tensor spoils every later use of it.
    """
    x = subject.pilot[:ROWS].clone()
    before = x.clone()
    subject.model.log_prob(x)
    problems = []
    if x.shape != before.shape:
        problems.append(f"shape changed from {tuple(before.shape)} to {tuple(x.shape)}")
    elif not torch.equal(x.nan_to_num(), before.nan_to_num()):
        problems.append(f"{int((x != before).sum())} numbers changed")
    if x.requires_grad:
        problems.append("requires_grad was switched on")
    return broken(problems, len(x))


@exact("sample.leaves_model_unchanged", needs=("sample",))
def sample_leaves_model_unchanged(subject: Subject) -> Exact:
    """sample leaves the model's parameters and buffers, and the settings of torch and numpy, as they were.

    Draws are a function of the generator's state alone, so there is nothing for the model to remember.
    """
    return _changed(subject, lambda: subject.sample(ROWS, "surface"))


@exact("log_prob.leaves_model_unchanged", needs=("log_prob",))
def log_prob_leaves_model_unchanged(subject: Subject) -> Exact:
    """log_prob leaves the model's parameters and buffers, and the settings of torch and numpy, as they were.

    Running statistics that follow the data that they are asked about are the usual defect.
    """
    x = subject.pilot[:ROWS]
    return _changed(subject, lambda: subject.model.log_prob(x))


def _changed(subject: Subject, act: Callable[[], object]) -> Exact:
    before = {name: (value, _bytes(value)) for name, value in _numbers_in(subject.model.target).items()}
    settings = switches()
    act()
    problems = [f"{name} was changed" for name in switched(settings)]
    if not before and not problems:
        raise NotApplicable("the model holds no tensors or arrays that could change")
    after = _numbers_in(subject.model.target)
    shared = [name for name in before if name in after]
    problems += [f"{name} changed" for name in shared if _spoilt(*before[name], after[name])]
    return broken(problems, ROWS)


def _spoilt(value: Any, old: bytes, new: Any) -> bool:
    """Was it changed in place? An attribute that names another array now may be a cache: what it does to densities and
    draws is seen by the laws that call twice."""
    if isinstance(value, Tensor) and isinstance(new, Tensor):
        return value.data_ptr() == new.data_ptr() and value.shape == new.shape and _bytes(new) != old
    return value is new and _bytes(new) != old


def _bytes(value: Any) -> bytes:
    if isinstance(value, Tensor):
        # A single value may have stride 0, and counts as contiguous all the same.
        flat = value.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
        return flat.view(torch.uint8).numpy().tobytes()
    return value.tobytes()


def _numbers_in(thing: Any, depth: int = 3) -> dict[str, Any]:
    """The tensors and arrays that an object holds, by name: those of a module, or those in its attributes."""
    if isinstance(thing, nn.Module):
        state = thing.state_dict()  # in which a module may put more than numbers
        return {name: value for name, value in state.items() if isinstance(value, Tensor | np.ndarray)}
    if depth == 0 or isinstance(thing, type) or not hasattr(thing, "__dict__"):
        return {}
    found: dict[str, Any] = {}
    for name, value in vars(thing).items():
        parts = value if isinstance(value, list | tuple) else [value]
        for j, part in enumerate(parts):
            label = name if part is value else f"{name}[{j}]"
            if isinstance(part, Tensor | np.ndarray):
                found[label] = part
            else:
                found |= {f"{label}.{inner}": leaf for inner, leaf in _numbers_in(part, depth - 1).items()}
    return found


CHECKS: tuple[Check, ...] = (
    sample_is_well_formed,
    log_prob_is_well_formed,
    sample_takes_any_batch_size,
    log_prob_takes_any_batch_size,
    log_prob_is_deterministic,
    log_prob_is_batch_invariant,
    log_prob_is_layout_invariant,
    log_prob_is_dtype_invariant,
    log_prob_leaves_input_unchanged,
    sample_leaves_model_unchanged,
    log_prob_leaves_model_unchanged,
)
