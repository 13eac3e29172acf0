"""Results of asv as they are kept: without paths of the machine, merged cell by cell, each file whole or not at all.

asv names an environment that was there already by the path of its interpreter, and writes that path into what it
stores. Here both are replaced by versions. A cell is one benchmark at one setting. Cells that do not apply are left
out; where a table of settings has a hole for that reason, asv's own sign for it stands there, NaN.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.bench.machine import machine, slug
from harness.store import write_text

COLUMNS = (
    *("result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b"),
    *("stats_q_25", "stats_q_75", "stats_number", "stats_repeat", "samples", "profile"),
)
"""As in asv 0.6, whose files have version 2."""

OF_A_ROW = ("params", "version", "started_at", "duration", "profile")
DIGITS = 6

Setting = tuple[str, ...]
Cell = dict[str, Any]
Row = dict[str, Any]


def environment(device: str = "cpu") -> dict[str, str]:
    """Versions and hardware of this process, as words; `name` is made of the versions."""
    told = machine(device)
    versions = {name: str(version) for name, version in told["versions"].items() if version is not None}
    python = ".".join(versions["python"].split(".")[:2])
    facts = {name: version for name, version in versions.items() if name not in ("python", "genharness")}
    words = ["python", python, *(word for name, version in facts.items() for word in (name, version.partition("+")[0]))]
    facts |= {"device": told["device_name"], "threads": str(told["threads"])}
    return {"name": slug(" ".join(words)), "python": python, **facts}


def asv_machine(device: str = "cpu") -> dict[str, Any]:
    """What asv wants to know of a machine; its name is the same tomorrow, and no host's."""
    told = machine(device)
    return {
        **{"machine": told["name"], "os": told["system"], "arch": told["architecture"]},
        **{"cpu": told["processor"], "num_cpu": str(told["processors"]), "ram": "", "version": 1},
    }


def path_of(folder: Path, machine_name: str, commit: str, name: str) -> Path:
    """Where asv, and we, look for the results of a commit."""
    return folder / machine_name / f"{commit[:8]}-{name}.json"


def cells(told: Mapping[str, Any]) -> Iterator[tuple[str, str, Setting, Cell]]:
    """Benchmark, its version, setting and cell of each measurement in a file; what does not apply is left out."""
    for benchmark, values in told["results"].items():
        row = dict(zip(told["result_columns"], values, strict=False))
        settings = list(itertools.product(*(row.get("params") or [])))
        results = row.get("result") or [None] * len(settings)
        for i, setting in enumerate(settings):
            if not _not_applicable(results[i]):
                cell = {key: value[i] for key, value in row.items() if key not in OF_A_ROW and value is not None}
                yield benchmark, str(row.get("version")), setting, {**cell, "result": results[i]}


def _not_applicable(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def done(file: Path, versions: Mapping[str, str]) -> set[tuple[str, Setting]]:
    """Cells of a file that hold a number, measured by the benchmark as it is now. Empty without a file."""
    if not file.exists():
        return set()
    return {
        (benchmark, setting)
        for benchmark, version, setting, cell in cells(json.loads(file.read_text(encoding="utf-8")))
        if cell["result"] is not None and versions.get(benchmark) == version
    }


def merged(old: Mapping[str, Any] | None, new: Mapping[str, Any], facts: Mapping[str, str]) -> dict[str, Any]:
    """A result file with the cells of both, the new before the old, and nothing of the machine but `facts`.

    An old cell of another version of its benchmark is dropped.
    """
    rows: dict[str, Row] = {}
    for told in filter(None, (old, new)):
        for benchmark, version, setting, cell in cells(told):
            row = rows.setdefault(benchmark, {"version": version, "cells": {}})
            if row["version"] != version:
                row |= {"version": version, "cells": {}}
            row["cells"][setting] = cell
            row["started_at"], row["duration"] = _when(told, benchmark)
    known = ("machine", "os", "arch", "cpu", "num_cpu", "ram")
    return {
        "commit_hash": new["commit_hash"],
        "env_name": facts["name"],
        "date": new["date"],
        "params": {**{key: new["params"][key] for key in known}, **{k: v for k, v in facts.items() if k != "name"}},
        "python": facts["python"],
        "requirements": {},
        "env_vars": {},
        "result_columns": list(COLUMNS),
        "results": {benchmark: _columns(row) for benchmark, row in sorted(rows.items())},
        "durations": {},
        "version": 2,
    }


def _when(told: Mapping[str, Any], benchmark: str) -> tuple[Any, Any]:
    row = dict(zip(told["result_columns"], told["results"][benchmark], strict=False))
    return row.get("started_at"), row.get("duration")


def _columns(row: Row) -> list[Any]:
    """A row of asv's: lists over the product of all values that occur in some setting."""
    settings = list(row["cells"])
    axes = [list(dict.fromkeys(setting[i] for setting in settings)) for i in range(len(settings[0]))]
    full = [row["cells"].get(setting, {"result": math.nan}) for setting in itertools.product(*axes)]
    told = {"params": axes, **{key: row.get(key) for key in OF_A_ROW if key != "params"}}
    values = [told[c] if c in OF_A_ROW else [_short(cell.get(c)) for cell in full] for c in COLUMNS]
    values = [None if isinstance(v, list) and v and all(x is None for x in v) else v for v in values]
    while values and values[-1] is None:
        values.pop()
    return values


def _short(value: Any) -> Any:
    """Numbers to six digits, of which the last is a tenth of the finest step that is ever told apart."""
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) and math.isfinite(value) else value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time in this folder; a process that dies lets go of it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def keep(source: Path, folder: Path, facts: Mapping[str, str]) -> list[Path]:
    """Merge what asv left in `source` into `folder`; the result files that were written."""
    written = []
    with locked(folder):
        about = json.loads((source / "benchmarks.json").read_text(encoding="utf-8"))
        write_text(folder / "benchmarks.json", json.dumps(about, indent=1, sort_keys=True) + "\n")
        for home in sorted(path.parent for path in source.glob("*/machine.json")):
            (folder / home.name).mkdir(exist_ok=True)
            write_text(folder / home.name / "machine.json", (home / "machine.json").read_text(encoding="utf-8"))
            for file in sorted(set(home.glob("*.json")) - {home / "machine.json"}):
                new = json.loads(file.read_text(encoding="utf-8"))
                target = path_of(folder, home.name, new["commit_hash"], facts["name"])
                old = json.loads(target.read_text(encoding="utf-8")) if target.exists() else None
                write_text(target, json.dumps(merged(old, new, facts)) + "\n")
                written.append(target)
    return written
