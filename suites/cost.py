"""What an examination costs: whole commands, our share of the time, memory, and time against draws, dimensions, checks.

    python -m suites.cost --json results/cost.json

Everything runs on one thread. Whole commands are measured on the wall; what happens inside one process, in seconds of
its CPU, which other work on the machine disturbs least. Nothing passes early where draws are counted: the tolerance
is 0, so that every check takes every draw that it may.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
MEBIBYTE = 1024.0
"""In the unit of ru_maxrss on Linux, KiB."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    repeats: int = 5
    effort: str = "standard"
    share_draws: int = 10**6
    memory_draws: tuple[int, ...] = (10**5, 10**6, 10**7, 10**8)
    longest: float = 400.0
    draws: tuple[int, ...] = tuple(2**k for k in range(14, 23))
    dimensions: tuple[int, ...] = (1, 4, 16, 64, 256)
    dimensions_draws: int = 2**14
    checks_draws: int = 2**16
    checks_steps: int = 8


SMALL = Sizes(
    repeats=1,
    effort="quick",
    share_draws=4096,
    memory_draws=(2048, 4096),
    draws=(2048, 4096, 8192),
    dimensions=(1, 4),
    dimensions_draws=2048,
    checks_draws=2048,
    checks_steps=2,
)
"""For trying the measurement itself: its numbers mean nothing."""


# ------------------------------------------------------------------------------------------- whole commands


def command(sizes: Sizes) -> Iterator[Json]:
    """Wall seconds of `harness check` on one model, and what is left of them without an import of torch."""
    bare = [sys.executable, "-c", "import torch"]
    for name, spec in (("Normal", "normal"), ("64-d Gaussian", "gaussian_64d")):
        check = ["check", f"suites.cost_models:{spec}", "--effort", sizes.effort]
        call = [sys.executable, "-m", "harness.cli", *check]
        whole, without = [], []
        for _ in range(sizes.repeats):  # in turn, so that a slow moment of the machine hits both
            without.append(_wall(bare))
            whole.append(_wall(call))
        seconds, imports = statistics.median(whole), statistics.median(without)
        yield {
            "model": name,
            "command": f"harness {' '.join(check)}",
            "repeats": sizes.repeats,
            "seconds": seconds,
            "seconds_all": whole,
            "import_torch_seconds": imports,
            "beyond_import_seconds": seconds - imports,
        }


def _wall(call: Sequence[str]) -> float:
    """Wall seconds of a command that must succeed."""
    began = time.perf_counter()
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(call)} left with status {done.returncode}: {(done.stderr or done.stdout)[-800:]}"
        )
    return seconds


# --------------------------------------------------------------------------------------- inside one process


def examined(thing: object, draws: int, only: Sequence[str] = (), watch: Any = None) -> float:
    """CPU seconds of an examination in which no check can pass before `draws` draws."""
    import torch

    from harness.adapters import adapt
    from harness.checks import CHECKS
    from harness.effort import FALSE_ALARM_BUDGET, Effort
    from harness.evidence import Verdict
    from harness.plan import plan, select
    from harness.run import Settings, examine
    from suites.stopwatch import watched

    torch.set_num_threads(1)
    model = adapt(thing, "model")
    model = model if watch is None else watched(model, watch)
    planned = plan(model, select(CHECKS, only), FALSE_ALARM_BUDGET)
    began = time.process_time()
    records = list(examine(model, planned, Settings(Effort("cost", draws=draws, tolerance=0.0))))
    seconds = time.process_time() - began
    bad = [record for record in records if record.verdict in (Verdict.FAIL, Verdict.ERROR)]
    if bad:
        raise RuntimeError(f"a correct model got {bad[0].check} {bad[0].verdict}: {bad[0].message}")
    return seconds


def share(sizes: Sizes) -> Iterator[Json]:
    """Which part of an examination's time is ours, and not spent in the model's own methods and their gradients."""
    from suites import cost_models
    from suites.stopwatch import Stopwatch

    for name, make in (
        ("Normal", cost_models.normal),
        ("64-d MultivariateNormal", cost_models.gaussian_64d),
        ("coupling flow, 16-d, 6 layers", cost_models.coupling_flow),
    ):
        watch = Stopwatch()
        seconds = examined(make(), sizes.share_draws, watch=watch)
        yield {
            "model": name,
            "draws": sizes.share_draws,
            "seconds": seconds,
            "model_seconds": watch.seconds,
            "share_ours": 1 - watch.seconds / seconds,
        }


def memory(sizes: Sizes) -> Iterator[Json]:
    """Peak resident memory of a process that examines a Normal with so many draws.

    A number of draws that would take longer than `longest`, by the time of the number before it, is left out.
    """
    seconds, before = 0.0, 0
    for draws in sizes.memory_draws:
        expected = seconds * draws / before if before else 0.0
        if expected > sizes.longest:
            yield {"draws": draws, "left_out": f"would take about {expected:.0f} s, more than {sizes.longest:.0f} s"}
            return
        call = [sys.executable, "-m", "suites.cost", "--child", str(draws)]
        done = subprocess.run(call, capture_output=True, text=True, check=True, env={**os.environ, **ONE_THREAD})
        row = json.loads(done.stdout)
        seconds, before = row["seconds"], draws
        yield row


def _child(draws: int) -> Json:
    """In a process of its own: peak memory before and after."""
    from suites import cost_models

    examined(cost_models.normal(), 2048)  # whatever is imported late is imported now
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE
    seconds = examined(cost_models.normal(), draws)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE
    return {"draws": draws, "peak_mib": peak, "before_mib": before, "seconds": seconds}


def curves(sizes: Sizes) -> Iterator[Json]:
    """CPU seconds against the number of draws, of dimensions and of checks."""
    from suites import cost_models

    examined(cost_models.normal(), 2048)  # imports and first calls are not part of a curve
    yield _curve(
        "draws", "Normal", sizes.draws, lambda draws: examined(cost_models.normal(), draws), "every check, 1 dimension"
    )
    yield _curve(
        "dimensions",
        "independent normals",
        sizes.dimensions,
        lambda d: examined(cost_models.independent_normals(d), sizes.dimensions_draws),
        f"every check, {sizes.dimensions_draws:,} draws",
    )
    names = _statistical("sampler.", "density.bridge", "moments.", "sample.")
    counts = sorted({max(1, round(len(names) * k / sizes.checks_steps)) for k in range(1, sizes.checks_steps + 1)})
    yield _curve(
        "checks",
        "independent normals",
        counts,
        lambda k: examined(cost_models.independent_normals(10), sizes.checks_draws, names[:k]),
        f"the first k statistical checks, 10 dimensions, {sizes.checks_draws:,} draws",
    )


def _statistical(*families: str) -> list[str]:
    from harness.checks import CHECKS
    from harness.checks.law import StatisticalCheck

    return [check.id for check in CHECKS if isinstance(check, StatisticalCheck) and check.id.startswith(families)]


def _curve(name: str, model: str, sizes: Sequence[int], seconds: Callable[[int], float], setting: str) -> Json:
    points = [{"x": size, "seconds": min(seconds(size) for _ in range(2))} for size in sizes]
    return {"curve": name, "model": model, "setting": setting, "points": points, "slope": slope(points)}


def slope(points: Sequence[Json]) -> float:
    """Least-squares slope of log seconds on log size over the larger half of the points, where constants weigh least.

    1 is linear; below 1 the start still weighs.
    """
    upper = points[len(points) // 2 - (len(points) < 4) :]
    x = [math.log(point["x"]) for point in upper]
    y = [math.log(point["seconds"]) for point in upper]
    return statistics.linear_regression(x, y).slope


SECTIONS: dict[str, Callable[[Sizes], Iterator[Json]]] = {
    "command": command,
    "share": share,
    "memory": memory,
    "curves": curves,
}


# ------------------------------------------------------------------------------------------------ the command


def measured(sections: Sequence[str], sizes: Sizes) -> Json:
    """All sections, with what they were measured with; a line a row as it comes."""
    began, load = time.perf_counter(), os.getloadavg()[0]
    told: Json = {
        "schema_version": "1.0",
        "what": "python -m suites.cost",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scipy", "genharness")},
        },
        "machine": {"kind": platform.machine(), "cores": os.cpu_count(), "threads": 1, "load_before": round(load, 2)},
        "sizes": vars(sizes),
    }
    for section in sections:
        told[section] = []
        for row in SECTIONS[section](sizes):
            told[section].append(row)
            print(f"[{time.perf_counter() - began:5.0f} s] {section}: {_line(row)}", flush=True)
    told["seconds"] = round(time.perf_counter() - began, 1)
    return told


def _line(row: Json) -> str:
    if "points" in row:
        seen = ", ".join(f"{point['x']:,}: {point['seconds']:.2f} s" for point in row["points"])
        return f"{row['curve']}: {seen}; slope {row['slope']:.2f}"
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure and write. Exit status 2 when the call was wrong."""
    parser = argparse.ArgumentParser(prog="python -m suites.cost", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write here, such as results/cost.json")
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="one section; may be repeated")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the measurement itself")
    parser.add_argument("--child", type=int, metavar="DRAWS", help=argparse.SUPPRESS)
    call = parser.parse_args(arguments)
    os.environ.update(ONE_THREAD)
    if call.child is not None:
        print(json.dumps(_child(call.child)))
        return 0
    if call.json is not None and not call.json.parent.is_dir():
        parser.error(f"{call.json.parent} is no folder: make it first")
    told = measured(call.only or list(SECTIONS), SMALL if call.small else Sizes())
    if call.json is not None:
        call.json.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n")
        print(f"written: {call.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
