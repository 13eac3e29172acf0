"""What surrounds a measurement: threads, the collector of garbage, the settings of torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """So many threads for torch, and for the BLAS and OpenMP of others where threadpoolctl is installed."""
    before = torch.get_num_threads()
    limits: Any = None
    with suppress(ImportError):
        from threadpoolctl import threadpool_limits

        limits = threadpool_limits(threads)
    try:
        torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
        if limits is not None:
            limits.restore_original_limits()


@contextmanager
def no_collector() -> Iterator[None]:
    """Garbage stays where it is until the end."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def flags() -> dict[str, Any]:
    """The settings of torch that change a speed, or what is computed."""
    return {
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "grad": torch.is_grad_enabled(),
    }
