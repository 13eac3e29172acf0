"""The rows that a self-test leaves in a file: what each says, and how later rows join earlier ones."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from harness.errors import CallError
from harness.store import write_text

SCHEMA_VERSION = "1.0"
ADDED: dict[str, Any] = {"first_seed": 0, "seconds": None, "cpus": None}
"""Fields that rows of earlier files do not have, and what was true or is unknown of those."""


@dataclass(frozen=True)
class Row:
    """A row of the published table, from seeds `first_seed` to `first_seed + seeds - 1`.

    `found` and `false_alarms` count seeds; `draws_median` is over those found. `seconds` is the processor time of all
    seeds together, on one thread each, on a machine of that many `cpus`.
    """

    group: str
    mutant: str
    defect: str
    model: str
    dimension: int
    scale: float
    effort: str
    check: str
    seeds: int
    found: int
    draws_median: float | None
    false_alarms: int
    alpha: float
    erratum: str
    first_seed: int = 0
    seconds: float | None = field(default=None, compare=False)
    cpus: int | None = field(default=None, compare=False)

    @property
    def place(self) -> tuple[object, ...]:
        """What the row is about. The check that finds a planted bug is a result; that of a mutant is given."""
        given = self.check if self.group in ("mutant", "near miss") else ""
        return self.group, self.mutant, self.model, self.dimension, self.scale, self.effort, self.alpha, given


def cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """What the rows depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "harness": version("genharness")}


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows with what they were measured with."""
    return {
        "schema_version": SCHEMA_VERSION,
        "what": "harness selftest",
        "versions": versions(),
        "seconds": sum(row.seconds or 0.0 for row in rows),
        "rows": [asdict(row) for row in rows],
    }


def write(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file at once, so that it is whole at every moment."""
    write_text(path, json.dumps(as_json(rows), indent=1, allow_nan=False) + "\n")


def read(path: Path) -> list[Row]:
    """Rows of a file that others may join. CallError for one that is no such file, or was measured with other versions.

    Nothing is there yet: no rows.
    """
    if not path.exists():
        return []
    try:
        told = json.loads(path.read_text())
        made_with = told["versions"]
        rows = [Row(**{**ADDED, **row}) for row in told["rows"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CallError(f"{path} holds no rows of a self-test ({error}): name another file") from None
    if told.get("schema_version") != SCHEMA_VERSION:
        raise CallError(f"{path} has another schema version than {SCHEMA_VERSION}: leave --merge out to replace it")
    if made_with != versions():
        raise CallError(f"{path} was measured with {_named(made_with)}, not {_named(versions())}: name another file")
    return rows


def _named(made_with: Any) -> str:
    return ", ".join(f"{name} {made_with[name]}" for name in made_with)


def merged(old: Iterable[Row], new: Iterable[Row], order: Sequence[tuple[object, ...]]) -> list[Row]:
    """Old rows, those measured again replaced by the new, in the order of their places; unknown ones at the end."""
    rows = {row.place: row for row in (*old, *new)}
    known = [rows.pop(place) for place in order if place in rows]
    return [*known, *rows.values()]
