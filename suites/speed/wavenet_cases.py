"""WaveNet's sampler with queues beside the one without, and how both grow with the length of what is drawn.

A step of the one works on one sample in each layer, a step of the other on as many as the field holds, once there are
that many. So both are linear in T in the long run; the second is quadratic until T = R, and steeper after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from reference_impls.wavenet import WaveNet
from suites.speed.cases import SMALL, Case, Pair, Sizes

DILATIONS = tuple(2**i for i in range(10))
"""One stack of the paper's: R = 1,025 samples."""

ROWS, LENGTH, FEW = 1, 512, 24

GRID = {  # (n, T, levels), as (n, d, k) in `growth`
    "wavenet.sample": tuple((ROWS, length, 256) for length in (128, 512, 2048, 8192)),
    "wavenet.sample_naive": tuple((ROWS, length, 256) for length in (128, 512, 2048)),
}
SMALL_GRID = {"wavenet.sample": ((1, 16, 4),), "wavenet.sample_naive": ((1, 16, 4),)}


def a_wavenet(length: int, levels: int) -> WaveNet:
    return WaveNet(levels, length, dilations=DILATIONS, width=32, skip=64, seed=0)


def sample(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    model = a_wavenet(FEW if sizes == SMALL else LENGTH, 256).to(dtype)
    with_queues, without = (
        lambda draw=draw: draw(ROWS, generator=torch.Generator().manual_seed(1))
        for draw in (model.sample, model.sample_naive)
    )
    return Pair(with_queues, without, _same_levels)


def prepared(case: str, n: int, length: int, levels: int) -> Callable[[], Any]:
    """One call at that size, for `growth`; a short one comes first, so that no library is loaded during it."""
    method = case.removeprefix("wavenet.")
    getattr(a_wavenet(4, levels), method)(1, generator=torch.Generator().manual_seed(0))
    draw = getattr(a_wavenet(length, levels), method)
    return lambda: draw(n, generator=torch.Generator().manual_seed(1))


def _same_levels(a: Tensor, b: Tensor) -> float:
    """0 for equal draws: in float64 a uniform number lies so near to the end of an interval that rounding tells once in
    10^8 calls."""
    return 0.0 if a.shape == b.shape and torch.equal(a, b) else math.inf


def _all_cases() -> Iterator[Case]:
    note = f"T = {LENGTH:,}, R = {a_wavenet(1, 2).field:,}, 256 levels, width 32, 1 row"
    yield Case("wavenet.sample", "passes over the field", 2.0, "float64", ("torch",), sample, note)


CASES = tuple(_all_cases())
