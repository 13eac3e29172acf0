"""Seconds and peak memory of one call, as n, D and K grow: each point in a process of its own, on one thread.

Megabytes are what the peak of the resident memory rises by during the first call of that size, beyond the model and its
argument. Beside them stands what one temporary of n K D numbers would take: where log_prob works in chunks, the peak
stays far below. `python -m suites.speed.growth CASE N D K` prints one point as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from suites.speed import deep_samplers, wavenet_cases

MEGABYTE = 1e6
MAXRSS_UNIT = 1.0 if sys.platform == "darwin" else 1024.0
"""Bytes: ru_maxrss counts in KiB on Linux."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
CALLS = 5

Grid = dict[str, tuple[tuple[int, int, int], ...]]

GRID: Grid = {  # (n, d, k); each line varies one of them
    "gaussian.log_prob": (
        *((n, 64, 1) for n in (10_000, 100_000, 1_000_000)),
        *((100_000, d, 1) for d in (4, 16, 256)),
    ),
    "mixture.log_prob": (
        *((n, 8, 10) for n in (10_000, 100_000, 1_000_000)),
        *((100_000, d, 10) for d in (2, 32)),
        *((100_000, 8, k) for k in (1, 3, 30, 100)),
    ),
    "mixture.em_step": (
        *((n, 8, 10) for n in (2_000, 20_000, 200_000)),
        *((20_000, d, 10) for d in (2, 32)),
        *((20_000, 8, k) for k in (3, 30)),
    ),
    "chow_liu": (
        *((n, 16, 2) for n in (2_000, 20_000, 200_000)),
        *((20_000, d, 2) for d in (64, 256)),
        *((20_000, 16, k) for k in (4, 8)),
    ),
    "markov.log_prob": (
        *((n, 100, 8) for n in (1_000, 10_000, 100_000)),
        *((10_000, d, 8) for d in (10, 1_000)),
        *((10_000, 100, k) for k in (2, 64)),
    ),
}
GRID |= deep_samplers.GRID | wavenet_cases.GRID
SMALL_GRID: Grid = {"mixture.log_prob": ((200, 2, 2),), "chow_liu": ((100, 4, 2),), **wavenet_cases.SMALL_GRID}


def grown(grid: Grid, only: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """A row for each point of the grid whose case is wanted."""
    for case, points in grid.items():
        for point in points if only(case) else ():
            call = [sys.executable, "-m", "suites.speed.growth", case, *map(str, point)]
            done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(call[1:])} left with {done.returncode}: {done.stderr[-800:]}")
            yield json.loads(done.stdout)


def point(case: str, n: int, d: int, k: int) -> dict[str, Any]:
    """Measured in this process; its peak must not have been higher before."""
    import torch

    torch.set_num_threads(1)
    call = _prepared(case, n, d, k)
    before = _peak()
    call()
    rise = _peak() - before
    seconds = [_seconds(call) for _ in range(CALLS)]
    return {
        "case": case,
        "size": {"n": n, "d": d, "k": k},
        "seconds": statistics.median(seconds),
        "seconds_all": seconds,
        "megabytes": rise / MEGABYTE,
        "n_k_d_megabytes": n * k * d * 8 / MEGABYTE,
        "dtype": "float64",
        "threads": 1,
        "device": "cpu",
    }


def _prepared(case: str, n: int, d: int, k: int) -> Callable[[], Any]:
    """One call at that size. A call on eight rows comes first, so that no library is loaded during the measured one."""
    import torch

    from reference_impls.chow_liu import chow_liu
    from suites.speed import cases

    for family in (deep_samplers, wavenet_cases):
        if case in family.GRID:
            return family.prepared(case, n, d, k)
    g = torch.Generator().manual_seed(0)
    if case == "chow_liu":
        bits = torch.randint(k, (n, d), generator=g, dtype=torch.uint8)
        chow_liu(bits[:8], (k,) * d)
        return lambda: chow_liu(bits, (k,) * d)
    if case == "markov.log_prob":
        chain, states = cases.a_chain(k, d, g), torch.randint(k, (n, d), generator=g)
        chain.log_prob(states[:8])
        return lambda: chain.log_prob(states)
    model = cases.a_gaussian(d, g) if case == "gaussian.log_prob" else cases.a_mixture(d, k, g)
    x = torch.empty(n, d, dtype=torch.float64).normal_(generator=g)
    if case == "mixture.em_step":
        cases.climb(model, x[: 8 * d], 1)
        return lambda: cases.climb(model, x, 1)
    model.log_prob(x[:8])
    return lambda: model.log_prob(x)


def _peak() -> float:
    """Bytes of resident memory at the highest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    name, *size = sys.argv[1:]
    print(json.dumps(point(name, *map(int, size)), allow_nan=False))
