"""In which precision a log-density is really worked out, whatever the dtypes of what goes in and comes out.

A model may be given float64 events and compute with float32 weights, or cast events to float32 and its answer back.
Each rounding of a weight or of a result errs by that dtype's u = eps / 2, and none of it shows in the dtype of x. Three
things are looked at, and the coarsest counts: the floating dtypes of all tensors that torch handles during a call; if
all answers are numbers of a narrower dtype; and, for code that torch does not see, how rough the answers are as a
function of the event, by the difference table of Moré & Wild (2011, Estimating computational noise,
https://doi.org/10.1137/100786125).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.errors import out_of_memory
from harness.model import Model
from harness.subject import Subject

ROWS = 256
"""Pilot draws at which the log-density is watched."""

ORDER = 6
"""Order of the differences: those of a smooth function fall with its power, those of rounding do not."""

STEPS = (2.0**-8, 2.0**-12)
"""Steps of the difference table, in pilot spreads; the smaller result counts."""

PER_SCATTER = 4.0
"""Unit roundoffs in the standard deviation of a rounding: sqrt(3) if it is uniform on (-u, u), most are smaller."""

NORMAL_MEDIAN = 0.6745
"""Median of |N(0, 1)|."""


def working_unit(subject: Subject) -> float:
    """Unit roundoff u of the arithmetic of log_prob, relative to 1 + |log p|; at least that of its events' dtype."""
    return subject.once(
        "working unit", lambda: unit_of(subject.model, subject.pilot[:ROWS], subject.profile.kind == "continuous")
    )


def unit_of(model: Model, x: Tensor, continuous: bool) -> float:
    """The same for a model at events x (n, *event)."""
    with torch.no_grad(), Watched() as watched:
        value = model.log_prob(x)
    seen = {*watched.dtypes, *_floating([x, value])}
    if _of_float32(value):
        seen.add(torch.float32)
    unit = max((torch.finfo(dtype).eps / 2 for dtype in seen), default=0.0)
    fine = x.is_floating_point() and unit <= torch.finfo(torch.float64).eps
    return max(unit, PER_SCATTER * roughness(model, x)) if fine and continuous else unit


class Watched(TorchFunctionMode):
    """Notes the floating dtypes of all tensors that torch's functions take and return while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.dtypes.update(_floating([args, kwargs, result]))
        return result


def _floating(things: Iterable[Any]) -> Iterator[torch.dtype]:
    """The floating dtypes of tensors in nested tuples, lists and dictionaries."""
    for thing in things:
        if isinstance(thing, Tensor):
            if thing.dtype.is_floating_point:
                yield thing.dtype
        elif isinstance(thing, tuple | list):
            yield from _floating(thing)
        elif isinstance(thing, dict):
            yield from _floating(thing.values())


def _of_float32(value: Tensor) -> bool:
    """Are all values, not all of them 0, float32 numbers? A float64 that was rounded nowhere is with odds of 2^-29."""
    finite = value[value.isfinite()]
    return bool((finite != 0).any()) and torch.equal(finite.to(torch.float32).to(finite.dtype), finite)


def roughness(model: Model, x: Tensor) -> float:
    r"""Standard deviation of the rounding of log p at continuous events x (n, *event), relative to 1 + |log p|.

    :math:`\sigma^2 = (k!)^2 / (2k)! \; E (\Delta^k f)^2` of independent errors; the median over events, so that kinks
    and edges do not count.
    """
    signs = torch.where(torch.arange(x[0].numel()) % 2 == 0, 1.0, -1.0).reshape(x.shape[1:]).to(x)
    spread = (x - x.median(0).values).abs().median(0).values * signs
    weights = torch.tensor([(-1.0) ** i * math.comb(ORDER, i) for i in range(ORDER + 1)], dtype=torch.float64)
    found = []
    for step in STEPS:
        with torch.no_grad():
            try:
                moved = [model.log_prob(x + i * step * spread).to("cpu", torch.float64) for i in range(ORDER + 1)]
            except (ValueError, IndexError, RuntimeError) as refusal:  # of events off the support
                if out_of_memory(refusal):
                    raise
                return 0.0
        table = torch.stack(moved)  # (order + 1, n)
        difference = (weights @ table / (1 + table.abs().amax(0))).abs()
        usable = difference[difference.isfinite()]
        found.append(float(usable.median()) if len(usable) else 0.0)
    return min(found) * math.factorial(ORDER) / math.sqrt(math.factorial(2 * ORDER)) / NORMAL_MEDIAN
