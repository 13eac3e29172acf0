r"""Which of two callables is faster, and by what factor: both in one process, taking turns.

A block is ABBA (ours, theirs, theirs, ours), so that a drift of the machine that is linear in time cancels. Block b
gives l_b = log(seconds of theirs / seconds of ours); the ratio is exp(mean l), with a 95 % interval by Student's t over
the blocks. Above 1 ours is faster.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

FEWEST_BLOCKS, MOST_BLOCKS = 5, 25


@dataclass(frozen=True)
class Ratio:
    """Seconds of theirs over seconds of ours, its interval, and what both returned in the last timed block."""

    ratio: float
    low: float
    high: float
    blocks: int
    seconds: float  # of one call of ours, the median over blocks
    peer_seconds: float
    result: Any
    peer_result: Any


def compared(ours: Callable[[], Any], theirs: Callable[[], Any], budget: float, fewest: int = FEWEST_BLOCKS) -> Ratio:
    """Blocks until `budget` seconds are used, at least `fewest` and at most MOST_BLOCKS, after a warm-up of each."""
    ours()
    theirs()
    logs, mine, peers = [], [], []
    began = time.perf_counter()
    while len(logs) < fewest or (len(logs) < MOST_BLOCKS and time.perf_counter() - began < budget):
        a1, _ = _seconds(ours)
        b1, _ = _seconds(theirs)
        b2, peer_result = _seconds(theirs)
        a2, result = _seconds(ours)
        logs.append(math.log((b1 + b2) / (a1 + a2)))
        mine.append((a1 + a2) / 2)
        peers.append((b1 + b2) / 2)
    low, high = interval(logs)
    return Ratio(
        ratio=math.exp(statistics.fmean(logs)),
        low=math.exp(low),
        high=math.exp(high),
        blocks=len(logs),
        seconds=statistics.median(mine),
        peer_seconds=statistics.median(peers),
        result=result,
        peer_result=peer_result,
    )


def interval(values: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval for the mean of independent normal values, two or more."""
    from scipy.stats import t

    half = t.ppf((1 + confidence) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    middle = statistics.fmean(values)
    return middle - float(half), middle + float(half)


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads for torch, and for whatever BLAS and OpenMP numpy and scikit-learn have loaded."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    try:
        with threadpool_limits(count):
            torch.set_num_threads(count)
            yield
    finally:
        torch.set_num_threads(before)


def _seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result
