"""What can be measured of one model alone: seconds of its calls with their parts, memory, and the roofline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.bench.ceilings import Ceilings, ceilings, roofline, work_of
from harness.bench.clock import Timing, timed
from harness.bench.job import Job
from harness.model import Model

Row = dict[str, Any]


def measured(
    model: Model,
    pool: Tensor | None,
    *,
    of: Sequence[str],
    n: int,
    seed: int,
    budget: float,
    threads: int,
    memory: bool,
) -> dict[str, Any]:
    """A row for each capability in `of`, and the ceilings that they are held against."""
    jobs = [Job(model, capability, n, seed, pool) for capability in of]
    device = str(model.device)
    times = [_timed(job, budget / len(jobs), device, threads) for job in jobs]
    limits = ceilings(device, _dtype(pool), threads=threads)
    rows = [_row(job, time, limits) for job, time in zip(jobs, times, strict=True)]
    if memory:  # last, as it changes how the C library hands out memory
        for row, job in zip(rows, jobs, strict=True):
            row["bytes"] = max(job.bytes(i) for i in range(3))
    return {"rows": rows, "ceilings": limits.as_json()}


def _timed(job: Job, budget: float, device: str, threads: int) -> Timing:
    return timed(
        job.call, device=device, fresh=job.fresh, inspect=job.inspect, budget=budget, fewest=5, threads=threads
    )


def _row(job: Job, time: Timing, limits: Ceilings) -> Row:
    given = job.fresh(0)
    touched = [*([given] if isinstance(given, Tensor) else []), *_parameters(job.model.target)]
    work = work_of(lambda: job.call(given), touched)
    return {
        "of": job.capability,
        "n": job.n,
        "unit": "seconds per row",
        "direction": "lower is better",
        "seconds_per_row": time.median / job.n,
        "roofline": roofline(time.median, work, limits),
        "flops": work.flops,
        "least_bytes": work.bytes,
        "output": job.seen,
        "timing": time.as_json(),
    }


def _parameters(target: object) -> Iterator[Tensor]:
    """What the model keeps, where it is a module or has tensors as attributes."""
    if isinstance(target, torch.nn.Module):
        yield from target.parameters()
        yield from target.buffers()
    else:
        yield from (
            (value for value in vars(target).values() if isinstance(value, Tensor))
            if hasattr(target, "__dict__")
            else ()
        )


def _dtype(pool: Tensor | None) -> torch.dtype:
    """Of the arithmetic that the ceilings are those of: the events', where they are numbers with a fraction."""
    return pool.dtype if pool is not None and pool.is_floating_point() else torch.float32
