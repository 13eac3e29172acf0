r"""Which of two callables is faster, and by what factor: both in one process, taking turns.

A block is ABBA (ours, theirs, theirs, ours), so that a drift of the machine that is linear in time cancels. Block b
gives l_b = log(seconds of theirs / seconds of ours); the ratio is exp(mean l), with a 95 % interval by Student's t over
the blocks. Above 1 ours is faster.

One block in which another program held a core can make the interval of five so wide that it says nothing. So a ratio
whose interval holds the bar that it should reach is measured on, once, for MORE times as many blocks again, and all of
them count: two looks, on whichever side of the bar it was.
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

FEWEST_BLOCKS, MOST_BLOCKS, MORE = 5, 25, 4


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


def compared(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    budget: float,
    fewest: int = FEWEST_BLOCKS,
    bar: float = 0.0,
) -> Ratio:
    """Blocks until `budget` seconds are used, at least `fewest` and at most MOST_BLOCKS, after a warm-up of each.

    MORE times as many again where the interval holds a `bar` above 0.
    """
    turns = _Turns(ours, theirs)
    began = time.perf_counter()
    while len(turns.logs) < fewest or (len(turns.logs) < MOST_BLOCKS and time.perf_counter() - began < budget):
        turns.block()
    low, high = interval(turns.logs)
    if bar > 0 and low < math.log(bar) <= high:
        for _ in range(MORE * len(turns.logs)):
            turns.block()
        low, high = interval(turns.logs)
    return Ratio(
        ratio=math.exp(statistics.fmean(turns.logs)),
        low=math.exp(low),
        high=math.exp(high),
        blocks=len(turns.logs),
        seconds=statistics.median(turns.mine),
        peer_seconds=statistics.median(turns.peers),
        result=turns.result,
        peer_result=turns.peer_result,
    )


class _Turns:
    """The blocks so far: seconds of one call of each, and the results of the last."""

    def __init__(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
        self.ours, self.theirs = ours, theirs
        self.mine: list[float] = []
        self.peers: list[float] = []
        self.result, self.peer_result = ours(), theirs()

    @property
    def logs(self) -> list[float]:
        return [math.log(theirs / ours) for ours, theirs in zip(self.mine, self.peers, strict=True)]

    def block(self) -> None:
        a1, _ = _seconds(self.ours)
        b1, _ = _seconds(self.theirs)
        b2, self.peer_result = _seconds(self.theirs)
        a2, self.result = _seconds(self.ours)
        self.mine.append((a1 + a2) / 2)
        self.peers.append((b1 + b2) / 2)


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
