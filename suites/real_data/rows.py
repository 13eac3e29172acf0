"""A figure as a row, and the file of rows: strict JSON, merged row by row, written whole or not at all."""

import json
import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from harness.store import write_text
from suites.real_data import cases
from suites.real_data.cases import Case, Figure
from suites.real_data.deep_cases import DEEP
from suites.real_data.gpu_cases import ON_GPU

Row = dict[str, Any]
EVERY = (*cases.CASES, *DEEP, *ON_GPU)

WORD = {"type": "string", "minLength": 1}
ROW = {
    "model": WORD,
    "number": {"type": "string", "pattern": "^M[0-9]{2}$"},
    "data": WORD,
    "split": WORD,
    "metric": WORD,
    "value": {"type": "number"},
    "unit": WORD,
    "exact_or_bound": WORD,
    "preprocessing": WORD,
    "chosen": WORD,
    "device": WORD,
    "seconds": {"type": "number", "minimum": 0},
    "seed": {"type": ["integer", "null"]},
    "versions": WORD,
    "command": WORD,
}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "schema_version": {"const": "1.0"},
        "what": {"const": "python -m suites.real_data"},
        "rows": {
            "type": "array",
            "items": {"type": "object", "properties": ROW, "required": list(ROW), "additionalProperties": False},
        },
    },
    "required": ["schema_version", "what", "rows"],
    "additionalProperties": False,
}
"""What the file holds (JSON Schema, draft 2020-12)."""


def row(case: Case, figure: Figure, seconds: float) -> Row:
    """ValueError for a figure that is no number."""
    if not math.isfinite(figure.value):
        raise ValueError(f"{case.name}: the {figure.metric} is {figure.value}, which is no result")
    return {
        "model": case.model,
        "number": case.number,
        "data": case.data,
        **figure._asdict(),
        "exact_or_bound": case.exact_or_bound,
        "preprocessing": case.preprocessing,
        "chosen": case.chosen,
        "device": device(case.device),
        "seconds": round(seconds, 3),
        "seed": case.seed,
        "versions": f"python {platform.python_version()}, torch {version('torch')}, genharness {version('genharness')}",
        "command": f"python -m suites.real_data{_on(case.device)} --only {case.name} --json results/real_data.json",
    }


def device(name: str) -> str:
    """The machine's part that computes, in words."""
    return f"cpu {platform.machine()}, 1 thread" if name == "cpu" else torch.cuda.get_device_name(name)


def _on(device: str) -> str:
    return "" if device == "cpu" else f" --device {device}"


def read(path: Path) -> list[Row]:
    """The rows of a file that this module wrote, none where there is no file. ValueError with one line otherwise."""
    if not path.exists():
        return []
    wrong = f"{path} is no file of `python -m suites.real_data --json`: give another path, or delete it"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        rows = told["rows"]
        if told["what"] != SCHEMA["properties"]["what"]["const"] or any(set(row) != set(ROW) for row in rows):
            raise ValueError(wrong)
    except (ValueError, KeyError, TypeError):
        raise ValueError(wrong) from None
    return rows


def merged(old: Sequence[Row], new: Row) -> list[Row]:
    """The new row instead of the one that measured the same, in the order of the cases."""
    order = {(case.data, case.model): place for place, case in enumerate(EVERY)}
    kept = [row for row in old if _measured(row) != _measured(new)]
    return sorted([*kept, new], key=lambda row: order.get((row["data"], row["model"]), len(order)))


def _measured(row: Row) -> tuple[str, ...]:
    return row["data"], row["model"], row["split"], row["metric"]


def write(path: Path, rows: Sequence[Row]) -> None:
    told = {"schema_version": "1.0", "what": "python -m suites.real_data", "rows": list(rows)}
    write_text(path, json.dumps(told, indent=1, allow_nan=False) + "\n")
