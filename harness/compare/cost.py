"""What a model costs: seconds per draw and per log_prob, peak memory, parameters, and how they grow with n and D.

Seconds are those of `harness/bench/clock.py`: threads pinned, warmed up, every call with a fresh input, and outputs
looked at. Memory is what the peak of this process rises by during log_prob of the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.adapters.casting import tensors_in
from harness.bench.clock import timed
from harness.bench.memory import peak_memory
from harness.compare.view import as_events
from harness.model import Model
from harness.streams import generator as stream

BATCH = 1000
CALL_SECONDS, CLOCK_SECONDS = 0.25, 0.4
"""A timed call lasts that long at most, or its batch is smaller; all of one figure, about so long."""

SIZES = (1, 10, 100, 1000, 10_000)

LONGEST = 0.5
"""A curve ends with the first call that takes longer."""

CURVE_CALLS = 3

Rows = Callable[[int, int], Tensor]
"""(n, i) -> the i-th fresh batch of n events."""


def batches(rows: Tensor, model: Model, dtype: torch.dtype, seed: int) -> Rows:
    """Fresh batches: rows of the test split, drawn with replacement."""
    events = as_events(rows.to(model.device, dtype), model.event_shape)

    def batch(n: int, i: int) -> Tensor:
        return events[torch.randint(len(events), (n,), generator=stream(seed, "compare", "batch", n, i))]

    return batch


def costs(model: Model, rows: Rows, *, seed: int, alive: Callable[[str], None]) -> dict[str, Any]:
    """Figures with their units; None where the model cannot be asked."""
    found: dict[str, Any] = {"parameters": parameters(model)}
    found["seconds_per_log_prob"] = found["seconds_per_sample"] = found["peak_memory_bytes"] = None
    if model.can("log_prob"):
        alive("log_prob")
        found["seconds_per_log_prob"] = _per_item(
            lambda n: (model.log_prob, lambda i: rows(n, i)), _finite, model.device
        )
        alive("memory")
        found["peak_memory_bytes"] = _memory(model, rows)
    if model.can("sample"):
        alive("sample")

        def drawing(n: int) -> tuple[Callable[..., Any], Callable[[int], Any]]:
            fresh = lambda i: stream(seed, "compare", "clock", i, device=model.device)  # noqa: E731
            return (lambda generator: model.sample(n, generator=generator)), fresh

        found["seconds_per_sample"] = _per_item(drawing, _finite, model.device)
    return found


def _memory(model: Model, rows: Rows) -> dict[str, Any]:
    x = rows(BATCH, 0)
    with torch.no_grad():
        model.log_prob(x)
        return {
            "value": peak_memory(lambda: model.log_prob(x), device=str(model.device)),
            "batch": BATCH,
            "of": "log_prob",
        }


def _per_item(
    question: Callable[[int], tuple[Any, Any]], inspect: Callable[[Any], None], device: torch.device
) -> dict[str, Any]:
    """Seconds per row at the largest batch of which a call is short enough; the median and the quartiles."""
    n = BATCH
    with torch.no_grad():
        while True:
            call, fresh = question(n)
            if _seconds(partial(call, fresh(-1)), device) < CALL_SECONDS or n == 1:
                break
            n //= 10
        timing = timed(call, device=str(device), fresh=fresh, inspect=inspect, budget=CLOCK_SECONDS, fewest=5, most=50)
    seconds = sorted(timing.seconds)
    return {
        "value": timing.median / n,
        "quartiles": [seconds[len(seconds) // 4] / n, seconds[(3 * len(seconds)) // 4] / n],
        "batch": n,
        "calls": len(seconds) * timing.number,
        "first": timing.first,
        "cached": timing.cached,
        "threads": timing.threads,
    }


def _seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Of one call, until its answer is there."""
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _finite(output: Any) -> None:
    """What a clock times has to be an answer."""
    if not isinstance(output, Tensor) or bool(output.isnan().any()):
        raise FloatingPointError("a timed call returned something that is no tensor of numbers")


def parameters(model: Model) -> int | None:
    """Free parameters, by the model's own account, else all numbers of its `nn.Parameter`s; None where neither says."""
    thing: Any = model.target
    if isinstance(thing, nn.Module):  # whose `parameters` are not the contract's
        return sum(p.numel() for p in thing.parameters()) or None
    if model.can("parameters"):
        return int(model.parameters().numel())
    if callable(getattr(thing, "_n_parameters", None)):  # scikit-learn's mixtures
        return int(thing._n_parameters())
    if hasattr(thing, "get_cpds"):
        return sum(int(t.values.size - t.values.size / t.values.shape[0]) for t in thing.get_cpds())
    if callable(getattr(thing, "_get_n_fit_scalars_per_param", None)):  # hmmlearn
        return int(sum(thing._get_n_fit_scalars_per_param().values()))
    return sum(t.numel() for t in tensors_in(thing) if isinstance(t, nn.Parameter)) or None


def growth_in_n(model: Model, rows: Rows, alive: Callable[[str], None]) -> list[dict[str, Any]]:
    """Seconds of one call of log_prob and of sample for each number of rows."""
    points = []
    for of in ("log_prob", "sample"):
        for n in SIZES if model.can(of) else ():
            alive(f"{of} of {n} rows")
            seconds = _call_seconds(model, of, rows, n)
            points.append({"of": of, "n": n, "seconds": seconds})
            if seconds > LONGEST:
                break
    return points


def one_size(model: Model, rows: Rows, d: int) -> list[dict[str, Any]]:
    """Seconds of one call of 100 rows: a point of the curve against D."""
    return [
        {"of": of, "d": d, "n": 100, "seconds": _call_seconds(model, of, rows, 100)}
        for of in ("log_prob", "sample")
        if model.can(of)
    ]


def _call_seconds(model: Model, of: str, rows: Rows, n: int) -> float:
    """The fastest of a few calls, after one that warms up unless that took long already."""
    seconds = []
    for i in range(CURVE_CALLS + 1):
        x, generator = rows(n, i), torch.Generator(model.device).manual_seed(i)
        call = partial(model.sample, n, generator=generator) if of == "sample" else partial(model.log_prob, x)
        with torch.no_grad():
            seconds.append(_seconds(call, model.device))
        if seconds[0] > LONGEST:
            return seconds[0]
    return min(seconds[1:])
