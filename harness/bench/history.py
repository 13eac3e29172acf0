"""A stored history, as asv 0.6 writes it, read into series: one benchmark at one setting in one environment.

    results/benchmarks.json                     what there is: units, versions
    results/MACHINE/machine.json
    results/MACHINE/COMMIT-ENVIRONMENT.json     what one run of one commit gave

A file that is damaged, cut off or of another kind costs one line and nothing else.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.bench.verdict import level

API_VERSIONS = (2,)  # of result files
METRICS = {"seconds": "time", "bytes": "memory", "exp(nats/dim)": "nll", "exp(nll/dim)": "nll"}
"""By unit; all others are held against the policy of time."""

AGREES = 1e-3
"""`result` is the median of `samples`, to what rounding the file allows; else `result` is believed."""


@dataclass(frozen=True)
class Environment:
    """Where a run was made; `facts` are versions and hardware, as the file gives them."""

    machine: str
    name: str
    facts: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.machine}, {self.name}"

    def changes(self, other: Environment) -> str:
        """What is different there: `torch 2.9.0 -> 2.13.0`."""
        ours, theirs = dict(self.facts), dict(other.facts)
        names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        told = [f"{name} {ours.get(name, 'none')} -> {theirs.get(name, 'none')}" for name in names]
        return "; ".join(told) or f"{self} -> {other}"


@dataclass(frozen=True)
class Point:
    """One measurement: None where it failed, NaN where asv says that it does not apply."""

    commit: str
    date: float
    value: float | None
    samples: tuple[float, ...] = ()

    @property
    def usable(self) -> bool:
        """A positive, finite number: what a logarithm can be taken of."""
        return self.value is not None and math.isfinite(self.value) and self.value > 0


@dataclass(frozen=True)
class Series:
    """Points of one benchmark in the order of their commits' dates."""

    benchmark: str
    params: str
    unit: str
    environment: Environment
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        return f"{self.benchmark}({self.params})" if self.params else self.benchmark

    @property
    def metric(self) -> str:
        return METRICS.get(self.unit.lower(), "time")

    @property
    def usable(self) -> tuple[Point, ...]:
        return tuple(point for point in self.points if point.usable)

    def logs(self) -> list[float]:
        """Logarithms of the usable values; of timings with stored samples, which agree with the value, their levels."""
        points = self.usable
        if self.metric == "time" and all(_agrees(point) for point in points):
            return [level(point.samples) for point in points]
        return [math.log(point.value or math.nan) for point in points]


def _agrees(point: Point) -> bool:
    """Are there samples, of which the value is the median?"""
    if len(point.samples) < 3 or not min(point.samples) > 0 or point.value is None:
        return False
    ordered = sorted(point.samples)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return abs(middle / point.value - 1) <= AGREES


@dataclass
class History:
    """All series, and a line for each file that could not be read."""

    series: list[Series] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    files: int = 0


Key = tuple[Environment, str, str, str]  # environment, benchmark, params, version


def read(folder: Path) -> History:
    """The history in a folder. ValueError, with the fix, where there is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give the results folder of asv, such as results/asv")
    history = History()
    known = _benchmarks(folder / "benchmarks.json", history)
    points: dict[Key, list[Point]] = {}
    for file in sorted(folder.glob("*/*.json")):
        if file.name == "machine.json":
            continue
        try:
            _take(_load(file), file.parent.name, known, points)
            history.files += 1
        except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError) as error:
            history.troubles.append(f"{file.relative_to(folder)}: {_why(error)}")
    if not points:
        more = f"; {history.troubles[0]}" if history.troubles else ""
        raise ValueError(f"{folder} holds no results of asv that can be read{more}: run the benchmarks first")
    for (environment, benchmark, params, _), found in points.items():
        ordered = tuple(sorted(found, key=lambda point: (point.date, point.commit)))
        unit = known.get(benchmark, {}).get("unit") or _unit_of(benchmark)
        history.series.append(Series(benchmark, params, str(unit), environment, ordered))
    return history


def _benchmarks(file: Path, history: History) -> dict[str, dict[str, Any]]:
    """What benchmarks.json says of each; nothing, and a line, where it cannot be read."""
    try:
        loaded = _load(file)
        return {str(name): about for name, about in loaded.items() if isinstance(about, dict)}
    except (ValueError, OSError, RecursionError) as error:
        history.troubles.append(f"{file.name}: {_why(error)}: units are told from names")
        return {}


def _load(file: Path) -> dict[str, Any]:
    text = file.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError("is empty")
    loaded = json.loads(text)  # asv writes NaN, which is no strict JSON
    if not isinstance(loaded, dict):
        raise ValueError("is no object")
    return loaded


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is cut off or damaged (line {error.lineno}, column {error.colno})"
    if isinstance(error, KeyError):
        return f"has no {error.args[0]}"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or type(error).__name__})"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _take(data: dict[str, Any], machine: str, known: dict[str, dict[str, Any]], points: dict[Key, list[Point]]) -> None:
    """Add what one file holds: all of it, or nothing where any of it has the wrong form."""
    if data.get("version") not in API_VERSIONS:
        raise ValueError(f"has version {data.get('version')!r}, where 2 can be read")
    commit, date = str(data["commit_hash"]), float(data["date"])
    environment = Environment(machine, str(data["env_name"]), tuple(_facts(data)))
    columns = [str(column) for column in data["result_columns"]]
    taken: list[tuple[Key, Point]] = []
    for benchmark, row in data["results"].items():
        cells = dict(zip(columns, row, strict=False))
        version = str(cells.get("version"))
        if known and known.get(benchmark, {}).get("version", version) != version:
            continue  # measured by another version of the benchmark: not comparable
        if known and benchmark not in known:
            continue
        for params, value, samples in _cells(cells):
            taken.append(((environment, benchmark, params, version), Point(commit, date, value, samples)))
    for key, point in taken:
        points.setdefault(key, []).append(point)


def _facts(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Versions and hardware; not the size of the memory, which Linux counts differently after each start."""
    yield "python", str(data.get("python", ""))
    for part in ("requirements", "env_vars", "params"):
        told = {str(key): str(value) for key, value in (data.get(part) or {}).items() if key != "ram"}
        yield from sorted(told.items())


def _cells(cells: dict[str, Any]) -> Iterator[tuple[str, float | None, tuple[float, ...]]]:
    """Setting, value and samples of each combination of parameters."""
    combinations = [", ".join(map(str, each)) for each in itertools.product(*(cells.get("params") or []))]
    values = cells.get("result")
    if values is None:  # the whole benchmark failed
        values = [None] * len(combinations)
    if len(values) != len(combinations):
        raise ValueError(f"has {len(values)} values for {len(combinations)} settings")
    samples = cells.get("samples") or [None] * len(combinations)
    for setting, value, measured in zip(combinations, values, samples, strict=True):
        yield setting, None if value is None else float(value), tuple(map(float, measured or ()))


def _unit_of(benchmark: str) -> str:
    """A guess from the name, where benchmarks.json does not say."""
    last = benchmark.rpartition(".")[2].lower()
    if any(word in last for word in ("mem", "bytes")):
        return "bytes"
    return "exp(nats/dim)" if any(word in last for word in ("perplexity", "nll")) else "seconds"
