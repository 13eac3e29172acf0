"""What the machine could do at best, measured in the same run, and how near a call comes to it.

The roofline (Williams, Waterman & Patterson 2009, https://doi.org/10.1145/1498765.1498785): work of F floating-point
operations that must move B bytes takes at least max(F / matmul rate, B / copy bandwidth) seconds. The fraction is that
time over the measured one: 1 is the ceiling, and a figure well above 1 says that the work was not done, or was answered
from a cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from harness.bench.clock import timed

COPIED = {"cpu": 2**27, "cuda": 2**31}
"""Bytes of the tensor that is copied: far more than any cache holds."""

SIDE = {"cpu": 512, "cuda": 8192}
"""Of the square matrices that are multiplied: 2 side^3 operations on 3 side^2 numbers, so memory does not matter."""


@dataclass(frozen=True)
class Ceilings:
    """The fastest of some repetitions each; a copy of b bytes moves 2 b."""

    copy_bytes_per_second: float
    matmul_flops_per_second: float
    device: str
    dtype: str
    threads: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """Of one call: operations of matrix products and convolutions, and bytes that must be read or written once."""

    flops: int
    bytes: int


def ceilings(
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    threads: int = 1,
    copied: int | None = None,
    side: int | None = None,
) -> Ceilings:
    """Copy bandwidth and matmul rate of this device, dtype and number of threads, now; about a second."""
    kind = device.partition(":")[0]
    count = (copied or COPIED[kind]) // dtype.itemsize
    side = side or SIDE[kind]
    copy = _fastest(_copy, torch.ones(count, dtype=dtype, device=device), threads)
    product = _fastest(torch.matmul, torch.ones(side, side, dtype=dtype, device=device), threads)
    return Ceilings(
        copy_bytes_per_second=2 * count * dtype.itemsize / copy,
        matmul_flops_per_second=2 * side**3 / product,
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        threads=threads,
    )


def _fastest(call: Callable[[Tensor, Tensor], Any], one: Tensor, threads: int) -> float:
    other = one.clone()
    return timed(lambda: call(one, other), device=str(one.device), budget=0.3, fewest=10, threads=threads).fastest


def _copy(target: Tensor, source: Tensor) -> Tensor:
    return target.copy_(source)


def work_of(call: Callable[[], Any], touched: Iterable[Tensor] = ()) -> Work:
    """Count the operations of one call (torch's FlopCounterMode), and the bytes of `touched` and of what it returns.

    `touched` are the inputs and parameters. Elementwise operations are not counted, and intermediate results are taken
    to stay in the caches: both make the fraction smaller than the truth, never larger.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        output = call()
    tensors = [*touched, *([output] if isinstance(output, Tensor) else [])]
    return Work(counter.get_total_flops(), sum(t.numel() * t.element_size() for t in tensors))


def roofline(seconds: float, work: Work, limits: Ceilings) -> float:
    """max(flops / rate, bytes / bandwidth) / seconds. ValueError where there is no time to divide by."""
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds is {seconds}: give a positive time")
    least = max(work.flops / limits.matmul_flops_per_second, work.bytes / limits.copy_bytes_per_second)
    return least / seconds
