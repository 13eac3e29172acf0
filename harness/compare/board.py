"""The file of a leaderboard: strict JSON, written whole after every row, so that an interrupted run goes on.

Two runs may write to one file: each reads, adds its row and writes while it holds a lock on the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.compare.table import COLUMNS, Row, judged, ranking_words
from harness.errors import CallError
from harness.store import plain, write_text

SCHEMA_VERSION = "1.0"
WHAT = "harness compare"
HINT = "name another file, delete it, or give --fresh"

Board = dict[str, Any]


def key_of(data: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What a row depends on besides its SPEC: rows of another key are measured again."""
    text = json.dumps([data["fingerprint"], plain(settings)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def board_of(rows: Sequence[Row], data: Mapping[str, Any], run: Mapping[str, Any]) -> Board:
    """The whole file: everything that is not measured follows from the rows."""
    named = judged(rows, data)
    alphas = [row["certificate"]["alpha"] for row in named if row.get("certificate")]
    return {
        "schema_version": SCHEMA_VERSION,
        "what": WHAT,
        "data": dict(data),
        "run": {**run, "alpha": sum(alphas), "logarithm": "natural"},
        "columns": COLUMNS,
        "ranking": ranking_words(several=isinstance(run.get("seed"), list)),
        "rows": named,
    }


def read(path: Path) -> Board:
    """The leaderboard in a file. CallError with one line where it is none."""
    try:
        board = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        wrong = not isinstance(board, dict) or board.get("what") != WHAT or not isinstance(board.get("rows"), list)
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CallError(f"{path} is no leaderboard of `harness compare` ({reason}): {HINT}") from None
    if wrong:
        raise CallError(f"{path} is no leaderboard of `harness compare`: {HINT}")
    if board.get("schema_version") != SCHEMA_VERSION:
        raise CallError(f"{path} has schema version {board.get('schema_version')!r}, not {SCHEMA_VERSION!r}: {HINT}")
    try:
        board["data"]["fingerprint"]
        judged(board["rows"], board["data"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CallError(f"{path} is damaged ({type(error).__name__}: {error}): {HINT}") from None
    return board


def kept_rows(path: Path | None, data: Mapping[str, Any], run: Mapping[str, Any], key: str) -> list[Row]:
    """Rows of the file that were made alike, on the same data. CallError for a file about other data, seeds or devices.

    A row with a trouble is none of them: it is made again, since a library may be there by now, or a bug repaired.
    """
    if path is None or not path.exists():
        return []
    return [row for row in _about(path, data, run)["rows"] if row.get("key") == key and not row.get("trouble")]


def _about(path: Path, data: Mapping[str, Any], run: Mapping[str, Any]) -> Board:
    """The leaderboard in a file, which has to be about that data, those seeds and devices: rows are ranked together."""
    board = read(path)
    if board["data"]["fingerprint"] != data["fingerprint"]:
        raise CallError(f"{path} is about other data ({board['data'].get('name')}, or another split): {HINT}")
    for name in ("seed", "device"):
        if board["run"].get(name) != run[name]:
            raise CallError(f"{path} was made with --{name} {_listed(board['run'].get(name))}: {HINT}")
    return board


def _listed(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def enter(path: Path, new: Sequence[Row], data: Mapping[str, Any], run: Mapping[str, Any], *, fresh: bool) -> Board:
    """Add the rows to the file, in place of those of the same SPEC; with `fresh` what it held is dropped first.

    OSError with one line that names the fix where the file cannot be written; CallError where it is about other data.
    """
    with _locked(path):
        old = [] if fresh or not path.exists() else _about(path, data, run)["rows"]
        specs = {row["spec"] for row in new}
        board = board_of([*(row for row in old if row["spec"] not in specs), *new], data, run)
        write_text(path, dumps(board))
    return board


def dumps(board: Board) -> str:
    """Strict JSON, one row a line."""
    head = {name: value for name, value in board.items() if name != "rows"}
    lines = [f" {json.dumps(name)}: {_json(value)}" for name, value in head.items()]
    rows = ",\n".join(f"  {_json(row)}" for row in board["rows"])
    return "{\n" + ",\n".join(lines) + ',\n "rows": [\n' + rows + "\n ]\n}\n"


def _json(value: Any) -> str:
    return json.dumps(plain(value), allow_nan=False)


def _refuse(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no strict JSON")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time: a lock on the folder, which leaves no file behind and ends with the process."""
    folder = os.open(path.expanduser().resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
