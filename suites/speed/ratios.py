"""python -m suites.speed.ratios [--only WORD]... [--budget SECONDS] [--no-growth] [--json FILE]

Ratios of the reference models to peers, on one thread and on all, then how they grow. Wants a machine with nothing else
to do: busy cores make the intervals wide and the ratios of many threads meaningless. HARNESS_DATA says where NLTCS is.

Each case has a process of its own, so that its ratio is the same whatever ran before. It begins with freeing a tensor
of 31 MB, as most programs with data have: from then on glibc keeps what is freed, up to that size. In a process that
has not, pages of each large temporary are made anew at every call: some of ours and of theirs take twice the time.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from harness.store import check_writable, write_text
from suites.data import DataError
from suites.speed import cases as classical
from suites.speed import deep_flows, deep_samplers, growth, pixel_cases, wavenet_cases
from suites.speed.cases import SMALL, Case, Sizes, global_generator_put_back
from suites.speed.paired import compared, processors, threads

CASES = (
    *classical.CASES,
    *deep_flows.CASES,
    *deep_samplers.CASES,
    *pixel_cases.CASES,
    *wavenet_cases.CASES,
)

Row = dict[str, Any]


def ratios(wanted: Sequence[int], sizes: Sizes, budget: float, counts: Sequence[int]) -> Iterator[Row]:
    """A row for each wanted case of CASES and number of threads: a ratio with its interval, or why there is none."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        for index in wanted:
            yield from processes.submit(_rows, index, sizes, budget, counts).result()


def _rows(index: int, sizes: Sizes, budget: float, counts: Sequence[int]) -> list[Row]:
    torch.empty(31 * 2**20, dtype=torch.uint8)  # just below 32 MB, where glibc stops to learn
    return [ratio(CASES[index], sizes, budget, count) for count in counts]


def ratio(case: Case, sizes: Sizes, budget: float, count: int, fewest: int = 5) -> Row:
    """The results that were timed are those that are compared; `disagreement` is 1 at what rounding allows."""
    row: Row = {
        "case": case.name,
        "peer": case.peer,
        "note": case.note,
        "dtype": case.dtype,
        "threads": count,
        "device": "cpu",
        "bar": case.bar,
    }
    with threads(count), global_generator_put_back():
        try:
            pair = case.prepare(sizes, getattr(torch, case.dtype), count)
        except (ImportError, DataError) as error:
            return {**row, "skipped": " ".join(str(error).split())}
        with threads(count):  # again: a peer that was imported just now brings libraries of its own
            found = compared(pair.ours, pair.theirs, budget, fewest, case.bar)
        disagreement = pair.disagreement(found.result, found.peer_result)
    return {
        **row,
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "met": found.ratio >= case.bar,
        "decided": not found.low < case.bar <= found.high,
        "blocks": found.blocks,
        "seconds": found.seconds,
        "peer_seconds": found.peer_seconds,
        "disagreement": disagreement if math.isfinite(disagreement) else None,
        "agrees": disagreement <= 1,
        "versions": {name: version(name) for name in case.versions},
    }


def as_json(rows: list[Row], points: list[Row], seconds: float) -> Row:
    return {
        "schema_version": "1.0",
        "what": "ratio: seconds of the peer / seconds of ours (above 1, ours is faster), with its 95 % interval",
        "machine": {"processor": _processor(), "threads": processors(), "system": platform.system()},
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "numpy", "genharness")}},
        "seconds": seconds,
        "ratios": rows,
        "growth": points,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def chosen(only: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name has one of the words in it, in any case; without words, every name."""
    return lambda name: not only or any(word.lower() in name.lower() for word in only)


def main(arguments: list[str] | None = None) -> int:
    """Measure, show a line a row, write the rows. Status 1 where results disagree, 2 where the call was wrong."""
    parser = argparse.ArgumentParser(prog="python -m suites.speed.ratios", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, such as results/speed.json")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="cases and peers with this word")
    parser.add_argument(
        "--budget", type=float, default=5.0, help="seconds a row, five times that if in doubt of its bar"
    )
    parser.add_argument("--no-growth", action="store_true", help="ratios alone")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the command: the numbers mean nothing")
    call = parser.parse_args(arguments)
    wanted = chosen(call.only)
    cases = [i for i, case in enumerate(CASES) if wanted(f"{case.name} {case.peer} {case.dtype}")]
    if not cases:
        parser.error(f"no case has {' or '.join(call.only)}: there are {', '.join(sorted({c.name for c in CASES}))}")
    if not 0 <= call.budget < math.inf:
        parser.error("--budget should be seconds, 0 or more")
    if call.json is not None:
        if (call.only or call.small or call.no_growth) and call.json.exists():
            parser.error(f"a part would take the place of all that {call.json} holds: name a new file")
        try:
            check_writable(call.json)
        except OSError as error:
            parser.error(str(error))
    began = time.perf_counter()
    sizes, grid = (SMALL, growth.SMALL_GRID) if call.small else (Sizes(), growth.GRID)
    rows: list[Row] = []
    points: list[Row] = []

    def keep(file: Path | None) -> None:
        if file is not None:
            told = as_json(rows, points, time.perf_counter() - began)
            write_text(file, json.dumps(told, indent=1, allow_nan=False) + "\n")

    part = None if call.json is None else call.json.with_suffix(".part.json")  # what an interrupted run leaves
    for row in ratios(cases, sizes, call.budget, sorted({1, processors()})):
        rows.append(row)
        keep(part)
        print(_line(row), flush=True)
    for point in growth.grown({} if call.no_growth else grid, wanted):
        points.append(point)
        keep(part)
        size = " ".join(f"{name}={value:,}" for name, value in point["size"].items())
        print(f"{point['case']} {size}: {point['seconds']:.4f} s, {point['megabytes']:.1f} MB", flush=True)
    keep(call.json)
    if part is not None:
        part.unlink()
        print(f"{len(rows)} ratios and {len(points)} points written to {call.json}")
    return 0 if all(row.get("agrees", True) for row in rows) else 1


def _line(row: Row) -> str:
    name = f"{row['case']} {row['dtype']}, {row['threads']} thread(s), beside {row['peer']} {row['note']}".rstrip()
    if "skipped" in row:
        return f"{name}: skipped, {row['skipped']}"
    found = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f}), bar {row['bar']:g}"
    return f"{name}: {found}{'' if row['met'] else ' MISSED'}{'' if row['agrees'] else ' RESULTS DISAGREE'}"


if __name__ == "__main__":
    sys.exit(main())
