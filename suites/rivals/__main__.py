"""python -m suites.rivals [--json FILE] [--only WORD]... [--seeds N] [--workers N]"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from suites.rivals.measure import Row, as_json, measure, selected


def main(arguments: list[str] | None = None) -> int:
    """Measure, show a line a row, write the rows. Exit status 2 when the call was wrong."""
    parser = argparse.ArgumentParser(prog="python -m suites.rivals", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, such as results/rivals.json")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="a rule, a planted bug, d=10, ...")
    parser.add_argument("--seeds", type=int, default=100, help="seeds of a cheap row; a correct model gets ten times")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    call = parser.parse_args(arguments)
    if call.seeds < 1 or call.workers < 1:
        parser.error("--seeds and --workers must be above 0")
    if call.json is not None and not call.json.parent.is_dir():
        parser.error(f"{call.json.parent} is no folder: make it first")
    try:
        selected(call.only, call.seeds)
    except ValueError as error:
        parser.error(str(error))
    clock = time.perf_counter()
    rows = measure(call.only, call.seeds, call.workers, _show)
    if call.json is not None:
        told = as_json(rows, time.perf_counter() - clock, call.workers)
        call.json.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n")
        print(f"{len(rows)} rows written to {call.json}")
    return 0


def _show(done: int, total: int, row: Row) -> None:
    what = f"found {row.found} of {row.seeds}"
    if row.mutant == "none":
        what = f"{row.false_alarms} false alarms in {row.seeds}, nominal {row.nominal:.2g}"
    what = f"hidden: in {row.hidden}" if row.hidden else f"refused: {row.refused}" if row.refused else what
    place = f"{row.model} d={row.dimension} scale={row.scale:g}"
    print(f"[{done}/{total}] {row.rule} n={row.n:,} {place} {row.mutant}: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
