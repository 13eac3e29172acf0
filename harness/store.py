"""Report to strict JSON and back, exactly; `harness/schema.json` describes the file.

JSON has no numbers for infinity and NaN: they are the strings "inf", "-inf" and "nan". Results are never pickled.
"""

from __future__ import annotations

import errno
import json
import math
import os
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import cache
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from harness.evidence import Absent, Carried, Estimated, Exact, Raised, Record, Reproducer, Verdict
from harness.judge import explain, judge
from harness.report import Report

SCHEMA_VERSION = "1.1"
READABLE = ("1.0", SCHEMA_VERSION)
"""Version 1.1 has runs with several seeds or devices, and evidence that later runs go on from. A report without is
written as 1.0, which can hold it."""
SCHEMA_PATH = Path(__file__).with_name("schema.json")

TYPES: dict[str, type] = {"exact": Exact, "estimated": Estimated, "absent": Absent, "raised": Raised}
"""The field `type` of stored evidence to its class."""

_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_DERIVED = ("statistic", "bound", "n_samples")
_OPTIONAL = {"seed": None, "device": ""}
"""Fields of a record that are left out where they say nothing."""


def schema() -> dict[str, Any]:
    """The published JSON Schema (draft 2020-12)."""
    loaded: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return loaded


# ---------------------------------------------------------------------------------------------------- writing


def plain(value: Any) -> Any:
    """A frozen value as what JSON can hold."""
    match value:
        case Enum():
            return value.value
        case None | bool() | str():
            return value
        case Integral():
            return int(value)
        case Real():
            number = float(value)
            if math.isfinite(number):
                return number
            return "nan" if math.isnan(number) else "inf" if number > 0 else "-inf"
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
    if is_dataclass(value):
        inside = {item.name: plain(getattr(value, item.name)) for item in fields(value)}
        if isinstance(value, Estimated) and value.carried is None:
            del inside["carried"]
        tag = [name for name, of in TYPES.items() if type(value) is of]
        return {"type": tag[0], **inside} if tag else inside
    raise TypeError(f"a report holds plain numbers and text only, not {type(value).__name__}")


def plain_record(record: Record) -> dict[str, Any]:
    """A record with the fields that follow from its evidence, for readers that do not want to work them out."""
    own = {name: value for name, value in plain(record).items() if _OPTIONAL.get(name, ...) != value}
    front = {name: own.pop(name) for name in ("model", *_OPTIONAL, "check", "verdict") if name in own}
    return {**front, **{name: plain(getattr(record, name)) for name in _DERIVED}, **own}


def dumps(report: Report) -> str:
    """The report as ASCII JSON, one record a line."""
    head = {
        "schema_version": _version(report),
        "passed": report.passed,
        "counts": plain({str(verdict): count for verdict, count in report.counts.items()}),
        "run": plain(report.run),
        "laws": plain(report.laws),
        "unmatched": plain(report.unmatched),
    }
    lines = [f" {_json(name)}: {_json(value)}" for name, value in head.items()]
    records = ",\n".join(f"  {_json(plain_record(record))}" for record in report.records)
    return "{\n" + ",\n".join(lines) + ',\n "records": [\n' + records + "\n ]\n}\n"


def _version(report: Report) -> str:
    """The oldest that holds the report."""
    seen = [record.evidence for record in report.records if isinstance(record.evidence, Estimated)]
    newer = any(evidence.carried is not None for evidence in seen)
    return SCHEMA_VERSION if report.run.several or newer else "1.0"


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def write_text(path: str | Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary neighbour first, which then takes its place.

    OSError with one line that names the fix; what was there before is then untouched.
    """
    target = Path(path).expanduser()
    if target.exists() and not target.is_file() and not target.is_dir():  # a pipe or a device cannot be replaced
        target.write_text(text, encoding="utf-8")
        return
    target = target.resolve()
    neighbour = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _refuse_directory(target)
        with open(neighbour, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(neighbour, target)
    except OSError as error:
        if error.errno != errno.EEXIST:
            with suppress(OSError):
                neighbour.unlink()
        raise _unwritable(path, error) from None


def check_writable(path: str | Path) -> None:
    """Raise the OSError that `write_text` would, before a long run is started; nothing is left behind."""
    target = Path(path).expanduser()
    if target.exists() and not target.is_file() and not target.is_dir():
        return
    target = target.resolve()
    neighbour = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _refuse_directory(target)
        with open(neighbour, "x", encoding="utf-8"):
            pass
        neighbour.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def _refuse_directory(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")


def _unwritable(path: str | Path, error: OSError) -> OSError:
    """The same kind of error in one line that says what to do."""
    parent = Path(path).expanduser().parent
    fixes = {
        errno.ENOENT: f"the folder {parent} does not exist; create it or choose another path",
        errno.ENOTDIR: f"{parent} is not a folder; choose another path",
        errno.EISDIR: "it is a folder; name a file in it",
        errno.EACCES: f"no permission to write in {parent}; choose a folder that you may write to",
        errno.EROFS: f"{parent} is read-only; choose another folder",
        errno.ENOSPC: f"no space is left in {parent}; free some or choose another folder",
    }
    fix = fixes.get(error.errno or 0, f"{error.strerror or error}; choose another path")
    return type(error)(f"cannot write {path}: {fix}")


# ---------------------------------------------------------------------------------------------------- reading


def read(path: str | Path) -> Report:
    """The report in a file. ValueError with one line that names the fix where it is none."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is no report: not UTF-8 text; give a file that `harness check --json` wrote"
        ) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"cannot read {path}: {reason}; give a file that `harness check --json` wrote") from None
    try:
        return loads(text)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None


def loads(text: str) -> Report:
    """The report in a text; ValueError with one line where it is none."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("is no report: nested too deeply; write it again with `harness check --json`") from None
    except json.JSONDecodeError as error:
        cut = not text.strip() or error.pos >= len(text.rstrip()) - 1 or "Unterminated" in error.msg
        what = "is truncated" if cut else "is not JSON"
        raise ValueError(
            f"{what} (line {error.lineno}, column {error.colno}: {error.msg}); "
            "write it again with `harness check --json`"
        ) from None
    if not isinstance(data, dict) or "schema_version" not in data:
        raise ValueError(
            "is JSON but no report: it has no schema_version; give a file that `harness check --json` wrote"
        )
    if data["schema_version"] not in READABLE:
        raise ValueError(
            f"has schema version {data['schema_version']!r}, this harness reads {' and '.join(READABLE)}; "
            "read it with the harness that wrote it, or run `harness check --json` again"
        )
    try:
        return _report(data)
    except _MisfitError as misfit:
        raise ValueError(
            f"does not conform to schema {SCHEMA_VERSION}: {misfit}; write it again with `harness check --json`"
        ) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"is not strict JSON: it holds {name}; write it again with `harness check --json`")


class _MisfitError(ValueError):
    """A stored value that does not have its type; the message begins with where it is."""


_SUMMARY = ("schema_version", "passed", "counts")


def _report(data: dict[str, Any]) -> Report:
    records = data.get("records")
    if not isinstance(records, list):
        raise _MisfitError("records is not a list")
    own = {name: value for name, value in data.items() if name not in _SUMMARY}
    report: Report = replace(
        _built(Report, {**own, "records": []}, ""),
        records=tuple(_record(record, f"records[{i}]") for i, record in enumerate(records)),
    )
    _agreeing(report)
    counts = {str(verdict): count for verdict, count in report.counts.items()}
    if (data.get("passed"), data.get("counts")) != (report.passed, counts):
        raise _MisfitError("passed or counts disagree with the records")
    return report


def _agreeing(report: Report) -> None:
    """Do the records say of which seed and device they are where the run has several, and only there?"""
    for name, of_run in (("seed", report.run.seed), ("device", report.run.device)):
        allowed = of_run if isinstance(of_run, tuple) else (_OPTIONAL[name],)
        if isinstance(of_run, tuple) and not 1 < len(of_run) == len(set(of_run)):
            raise _MisfitError(f"run.{name} is neither one nor several different ones")
        for i, record in enumerate(report.records):
            if getattr(record, name) not in allowed:
                raise _MisfitError(f"records[{i}].{name} is {getattr(record, name)!r}, which the run does not have")


def loaded_record(data: Any) -> Record:
    """The inverse of `plain_record`; ValueError with one line where `data` is no record."""
    return _record(data, "record")


def _record(data: Any, where: str) -> Record:
    if not isinstance(data, dict):
        raise _MisfitError(f"{where} is not an object")
    record: Record = _built(
        Record, {**_OPTIONAL, **{name: item for name, item in data.items() if name not in _DERIVED}}, where
    )
    for name in _DERIVED:
        if name not in data:
            raise _MisfitError(f"{where}.{name} is missing")
        if plain(getattr(record, name)) != data[name]:
            raise _MisfitError(f"{where}.{name} is {data[name]!r}, but its evidence says otherwise")
    return record


@cache
def _hints(of: type) -> dict[str, Any]:
    return get_type_hints(of)


def _built(hint: Any, data: Any, where: str) -> Any:
    """The value of the type `hint` that `data` stores: the inverse of `plain`."""
    if hint in _SCALARS:
        return _SCALARS[hint](data, where)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _chosen(inner, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise _MisfitError(f"{where} is not a list")
        return tuple(_built(inner[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if not isinstance(data, dict):
        raise _MisfitError(f"{where} is not an object")
    if origin is not None:  # Mapping[str, T]
        return {key: _built(inner[1], item, f"{where}[{key!r}]") for key, item in data.items()}
    return _dataclass(hint, data, where)


def _chosen(options: tuple[Any, ...], data: Any, where: str) -> Any:
    """The member of a union: None, one or several of a kind, or evidence by its type."""
    if data is None and type(None) in options:
        return None
    others = [option for option in options if option is not type(None)]
    lists = [option for option in others if get_origin(option) is tuple]
    if lists and isinstance(data, list):
        return _built(lists[0], data, where)
    others = [option for option in others if option not in lists]
    if len(others) == 1:
        return _built(others[0], data, where)
    tag = data.get("type") if isinstance(data, dict) else None
    if not isinstance(tag, str) or tag not in TYPES:
        raise _MisfitError(f"{where}.type is none of {', '.join(TYPES)}")
    return _dataclass(TYPES[tag], {name: item for name, item in data.items() if name != "type"}, where)


def _dataclass(of: type, data: dict[str, Any], where: str) -> Any:
    dot = f"{where}." if where else ""
    data = {"carried": None, **data} if of is Estimated else data
    names = [item.name for item in fields(of)]
    for name in (*names, *data):
        if name not in data:
            raise _MisfitError(f"{dot}{name} is missing")
        if name not in names:
            raise _MisfitError(f"{dot}{name} is unknown")
    value = of(**{name: _built(_hints(of)[name], data[name], f"{dot}{name}") for name in names})
    if isinstance(value, Estimated) and not value.path:
        raise _MisfitError(f"{dot}path is empty")
    if isinstance(value, Carried) and not _in_places(value):
        raise _MisfitError(f"{where} has not one sum of each kind for each place")
    return value


def _in_places(carried: Carried) -> bool:
    sums = carried.above, carried.above_squares, carried.below, carried.below_squares
    rising = all(a < b for a, b in pairwise((-1, *carried.kept, carried.of)))
    return rising and all(len(column) == len(carried.kept) for column in sums)


def _number(data: Any, where: str) -> float:
    if isinstance(data, str) and data in _NON_FINITE:
        return _NON_FINITE[data]
    if isinstance(data, bool) or not isinstance(data, int | float):
        raise _MisfitError(f"{where} is not a number")
    return float(data)


def _integer(data: Any, where: str) -> int:
    if isinstance(data, bool) or not isinstance(data, int):
        raise _MisfitError(f"{where} is not an integer")
    return data


def _text(data: Any, where: str) -> str:
    if not isinstance(data, str):
        raise _MisfitError(f"{where} is not text")
    return data


def _flag(data: Any, where: str) -> bool:
    if not isinstance(data, bool):
        raise _MisfitError(f"{where} is not true or false")
    return data


def _verdict(data: Any, where: str) -> Verdict:
    try:
        return Verdict(data)
    except ValueError:
        raise _MisfitError(f"{where} is none of {', '.join(Verdict)}") from None


_SCALARS = {float: _number, int: _integer, str: _text, bool: _flag, Verdict: _verdict}

# --------------------------------------------------------------------------------------------- judging again


def judged_again(report: Report, alpha: float) -> Report:
    """The stored evidence under another false-alarm budget, shared in the same proportions; no model is needed.

    A check that was blocked stays a SKIP, since there is no evidence of it.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, not between 0 and 1: give a probability such as 1e-6")
    ratio = alpha / report.run.alpha
    records = tuple(_record_again(record, _probability(record.alpha * ratio)) for record in report.records)
    return replace(report, records=records, run=replace(report.run, alpha=alpha))


def _probability(share: float) -> float:
    """A share that rounding has not taken out of (0, 1]."""
    return min(1.0, max(share, math.ulp(0.0)))


def _record_again(record: Record, alpha: float) -> Record:
    verdict = judge(record.evidence, alpha)
    before = explain(record.evidence, record.verdict, record.alpha)
    note = record.message.removeprefix(before) if record.message.startswith(before) else ""
    failing = verdict is Verdict.FAIL
    reproducer: Reproducer | None = record.reproducer if failing else None
    return replace(
        record,
        verdict=verdict,
        alpha=alpha,
        message=explain(record.evidence, verdict, alpha) + (note if failing else ""),
        label=record.label if failing else "",
        reproducer=reproducer,
    )
