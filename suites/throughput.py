"""python -m suites.throughput [--models N] [--json FILE]: models a minute, against workers, here and on a Dask cluster.

The same models at the same effort: first by `harness check --workers 1, 2, ...`, up to the processors there are, then
by `--scheduler` with as many workers of a cluster of this machine. The records have to be the same every time.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.cluster import Cluster
from harness.evidence import Record
from harness.isolate import Listed, Options, Unwatched, Workforce, examine
from harness.processes import Processes
from harness.store import check_writable, write_text
from suites.speed.paired import processors

SPECS = ("gaussian.correlated", "mixture.three_modes", "markov_chain.weather", "bernoulli_mixture.strokes")


def models(count: int) -> list[Listed]:
    """So many models of about the same cost: a few, again and again."""
    return [Listed(f"{SPECS[i % len(SPECS)]} #{i}", SPECS[i % len(SPECS)]) for i in range(count)]


def measured(workforce: AbstractContextManager[Workforce], listed: Sequence[Listed]) -> tuple[float, list[Any]]:
    """Seconds from the first request to the last record, and what the records say."""
    with workforce as processes:
        began = time.perf_counter()
        records, interrupted = examine(processes, listed, Options("quick", 0, 1e-6), Unwatched())
        seconds = time.perf_counter() - began
    if interrupted:
        raise KeyboardInterrupt
    return seconds, [_plain(record) for record in records]


def _plain(record: Record) -> tuple[str, str, str, str]:
    return record.model, record.check, str(record.verdict), record.message


def rows(count: int) -> Iterator[dict[str, Any]]:
    """A row for each way and number of workers; `same` says that the records are those of the first."""
    from distributed import LocalCluster

    listed, first = models(count), None
    for workers in _numbers():
        seconds, found = measured(Processes(workers=workers), listed)
        first = first or found
        yield _row("--workers", workers, count, seconds, found == first)
    for workers in _numbers():
        with LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs="CRITICAL"
        ) as local:
            measured(Cluster(local.scheduler_address), listed[:workers])  # each worker starts its server, once
            seconds, found = measured(Cluster(local.scheduler_address), listed)
        yield _row("--scheduler", workers, count, seconds, found == first)


def _numbers() -> list[int]:
    """1, 2, 4, ..., and all processors."""
    most = processors()
    return sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most})


def _row(way: str, workers: int, count: int, seconds: float, same: bool) -> dict[str, Any]:
    per_minute = 60 * count / seconds
    return {
        **{"way": way, "workers": workers, "models": count, "seconds": seconds},
        **{"models_per_minute": per_minute, "same": same},
    }


def main(arguments: list[str] | None = None) -> int:
    """Status 1 where the records differ."""
    parser = argparse.ArgumentParser(prog="python -m suites.throughput", description=__doc__)
    parser.add_argument("--models", type=int, default=24, help="examined each time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows, such as results/workers.json")
    call = parser.parse_args(arguments)
    if call.models < 1:
        parser.error(f"--models is {call.models}: give a number above 0")
    if call.json is not None:
        try:
            check_writable(call.json)
        except OSError as error:
            parser.error(str(error))
    found = []
    for row in rows(call.models):
        found.append(row)
        print("{way} {workers}: {models_per_minute:.0f} models a minute ({seconds:.1f} s)".format(**row), flush=True)
    if call.json is not None:
        versions = {name: version(name) for name in ("genharness", "torch", "distributed")}
        machine = {"processors": processors(), "system": platform.system(), "python": platform.python_version()}
        told = {"effort": "quick", "versions": versions, "machine": machine, "rows": found}
        write_text(call.json, json.dumps(told, indent=1, allow_nan=False) + "\n")
    return 0 if all(row["same"] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
