"""Peak memory of a call, in a loop of its own: bytes that it takes beyond what was there before it.

On CUDA the allocator counts. On the CPU the system does: what the highest resident memory of this process rises by. Ask
in a process of its own: glibc is told to give every large block back as soon as it is freed, which slows down what
follows. Left alone it raises the size from which it does so, and one tensor freed before the next is made then counts
as two.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes: ru_maxrss counts in KiB on Linux."""

_M_MMAP_THRESHOLD, LARGE = -3, 2**17
"""mallopt(3): blocks from 128 KiB, glibc's own default before it adapts, are mapped apart."""


def peak_memory(call: Callable[[], Any], *, device: str = "cpu", repeats: int = 3) -> int:
    """Bytes above what is in use before the call; the largest of `repeats`, after the caller's warm-up.

    Pages that earlier work has freed but the process has kept are given back first where the C library can; what is
    left of them hides as much of the rise. ValueError for repeats below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}: give 1 or more")
    measure = _cuda_rise if device.startswith("cuda") else _resident_rise
    return max(measure(call, device) for _ in range(repeats))


def _cuda_rise(call: Callable[[], Any], device: str) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _resident_rise(call: Callable[[], Any], device: str) -> int:
    gc.collect()
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE)
        library.malloc_trim(0)
    can_reset = _reset_peak()
    before = _status("VmRSS") if can_reset else _highest()
    call()
    return max(0, (_status("VmHWM") if can_reset else _highest()) - before)


def _reset_peak() -> bool:
    """Have Linux forget the highest resident memory (proc(5): 5 in clear_refs); False where it does not.

    A system may accept the 5 and ignore it, which is seen by the peak that stays."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmHWM") <= _status("VmRSS") + 2**20
    except OSError:
        return False


def _status(name: str) -> int:
    """Bytes of a line of /proc/self/status; OSError where there is none."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name}")


def _highest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
