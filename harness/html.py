"""Reports as one HTML page that needs nothing but itself: no network, no fonts, no other file.

Jinja escapes every name and message; the embedded JSON cannot end its script element; and the page's own
content-security policy names the hashes of its one script and one style sheet, so that nothing else can run or load.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.evidence import Absent, Cell, Estimated, Exact, Raised, Record, Verdict
from harness.report import Report
from harness.store import plain, write_text

TEMPLATES = Path(__file__).with_name("templates")
SIGNS = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.SKIP: "·",
    Verdict.ERROR: "!",
}
"""A sign a verdict, so that the matrix can be read without its colours."""

MEANINGS = {
    Verdict.PASS: "the stated bound lies within the tolerance",
    Verdict.FAIL: "the evidence against the law is conclusive",
    Verdict.INCONCLUSIVE: "neither, within the effort",
    Verdict.SKIP: "does not apply, or is blocked by another check",
    Verdict.ERROR: "the model raised, hung or broke its contract",
}
CELLS_SHOWN = 40
"""Bars a plot: of a finer partition, the cells that differ most."""


def write_html(reports: Report | Sequence[Report], path: str | Path) -> None:
    """Write the page whole or not at all; OSError with one line that names the fix."""
    write_text(path, render(reports))


def render(reports: Report | Sequence[Report]) -> str:
    """The page: a matrix of models × checks, and for each cell what its verdict rests on."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    reports = [reports] if isinstance(reports, Report) else reports
    if not reports:
        raise ValueError("no report to show: name at least one")
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters["power"] = lambda number: Markup(_power(number))
    style = asset("report.css")
    script = asset("plots.js") + asset("report.js")
    rows = matrix_rows(reports)
    checks = _checks(reports)
    page = jinja.get_template("report.html").render(
        reports=reports,
        passed=all(report.passed for report in reports),
        counts={verdict: sum(report.counts[verdict] for report in reports) for verdict in Verdict},
        signs=SIGNS,
        meanings=MEANINGS,
        rows=rows,
        checks=checks,
        address=address,
        style=Markup(style),
        script=Markup(script),
        style_hash=hash_of(style),
        script_hash=hash_of(script),
        data=Markup(safe_json(_data(reports, rows))),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate in a model's name has no UTF-8


@dataclass(frozen=True)
class Row:
    """One line of the matrix: a model in one run, at one seed and on one device, and its records by check."""

    name: str
    run: int
    records: dict[str, Record]

    @property
    def bad(self) -> int:
        """How many cells need attention."""
        return sum(needs_attention(record) for record in self.records.values())


def needs_attention(record: Record) -> bool:
    """Does the record fail the run?"""
    unmet = bool(record.expected) and record.verdict is not Verdict.FAIL
    return record.verdict is Verdict.ERROR or unmet or (record.verdict is Verdict.FAIL and not record.expected)


def matrix_rows(reports: Sequence[Report]) -> list[Row]:
    """A row an instance and run. Names are unique: one that comes again says of which run it is, or its number."""
    rows: dict[str, Row] = {}
    for index, report in enumerate(reports):
        current: dict[str, Row] = {}
        for record in report.records:
            row = current.get(record.instance)
            if row is None or record.check in row.records:
                row = Row(_unique(record.instance, index, rows), index, {})
                current[record.instance] = rows[row.name] = row
            row.records[record.check] = record
    return list(rows.values())


def _unique(name: str, index: int, taken: dict[str, Row]) -> str:
    if name not in taken:
        return name
    candidate, number = f"{name} (run {index + 1})", 2
    while candidate in taken:
        candidate, number = f"{name} (run {index + 1}, number {number})", number + 1
    return candidate


def _checks(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """The columns: check ids grouped by family, families in the order in which they came."""
    ids = list(dict.fromkeys(record.check for report in reports for record in report.records))
    families = list(dict.fromkeys(id.partition(".")[0] for id in ids))
    grouped = sorted(ids, key=lambda id: families.index(id.partition(".")[0]))
    columns = []
    for position, id in enumerate(grouped):
        family, dot, name = id.partition(".")
        begins = position > 0 and grouped[position - 1].partition(".")[0] != family
        columns.append({"id": id, "family": family + dot, "name": name, "begins": begins})
    return columns


def address(model: str, check: str) -> str:
    """The link to one cell."""
    return f"#{_quoted(model)}/{_quoted(check)}"


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe="")


def _data(reports: Sequence[Report], rows: Sequence[Row]) -> dict[str, Any]:
    """What the script draws details from."""
    return {
        "laws": {id: plain(law) for report in reports for id, law in report.laws.items()},
        "runs": [plain(report.run) for report in reports],
        "signs": {str(verdict): sign for verdict, sign in SIGNS.items()},
        "rows": [
            {"name": row.name, "run": row.run, "records": {id: _detail(r) for id, r in row.records.items()}}
            for row in rows
        ],
    }


def _detail(record: Record) -> dict[str, Any]:
    """A record as the script needs it: paths as lists of numbers with six digits, empty fields left out."""
    detail = {
        "verdict": record.verdict,
        "message": record.message,
        "statistic": _short(record.statistic),
        "bound": _short(record.bound),
        "n": record.n_samples,
        "seconds": _short(record.seconds),
        "alpha": _short(record.alpha),
        "label": record.label,
        "expected": record.expected,
        "seed": "" if record.seed is None else str(record.seed),
        "device": record.device,
        "attention": needs_attention(record),
        "reproducer": plain(record.reproducer),
        "evidence": _evidence(record),
    }
    return {name: value for name, value in detail.items() if value not in (None, "", False)}


def _evidence(record: Record) -> dict[str, Any]:
    match record.evidence:
        case Estimated() as seen:
            return {
                "type": "estimated",
                "path": [[k.n, *map(_short, (k.estimate, k.low, k.high, k.log_e))] for k in seen.path],
                "tolerance": _short(seen.tolerance),
                "confidence": seen.confidence,
                "unit": seen.unit,
                "where": seen.where,
                "columns": seen.columns,
                "asymptotic": seen.asymptotic,
                "cells": [[c.label, _short(c.expected), _short(c.observed)] for c in _telling(seen.cells)],
                "cells_total": len(seen.cells),
            }
        case Exact() as seen:
            return {
                "type": "exact",
                **{name: _short(getattr(seen, name)) for name in ("error", "allowed", "uncertainty")},
                "unit": seen.unit,
                "where": seen.where,
            }
        case Absent(reason=reason, blocked_by=blocked_by):
            return {"type": "absent", "reason": reason, "blocked_by": blocked_by}
        case Raised(kind=kind, message=message, trace=trace):
            return {"type": "raised", "kind": kind, "message": message, "trace": trace}
    raise TypeError(f"no details of {type(record.evidence).__name__}")


def _telling(cells: tuple[Cell, ...]) -> list[Cell]:
    """At most CELLS_SHOWN cells, those where expectation and observation differ most, in their own order."""

    def agreement(cell: Cell) -> float:
        gap = abs(cell.expected - cell.observed)
        return -gap if gap >= 0 else float("-inf")  # NaN is shown first

    shown = sorted(range(len(cells)), key=lambda i: agreement(cells[i]))[:CELLS_SHOWN]
    return [cells[i] for i in sorted(shown)]


def _short(number: float | None) -> Any:
    return plain(None if number is None else float(f"{number:.6g}"))


def safe_json(data: object) -> str:
    r"""ASCII JSON for a script element: <, > and & as \u003c, \u003e and \u0026, which mean the same to JSON."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _power(number: float) -> str:
    """1e-06 as 10 with an exponent; another number as it is."""
    digits, _, exponent = f"{number:.6e}".partition("e")
    return f"10<sup>{int(exponent)}</sup>".replace("-", "−") if float(digits) == 1 else f"{number:.3g}"


def asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def hash_of(text: str) -> str:
    """The source expression of a content-security policy that admits exactly this text."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"


def fragment(report: Report) -> str:
    """A small table for a notebook: a row a model, what needs attention below it."""
    head = "".join(f"<th>{verdict}</th>" for verdict in Verdict)
    body = ""
    for instance in report.instances:
        own = [record.verdict for record in report.records if record.instance == instance]
        counts = "".join(f"<td>{own.count(v) or ''}</td>" for v in Verdict)
        body += f"<tr><td>{escape(instance)}</td>{counts}</tr>"
    lines = [f"{r.verdict} {r.instance} {r.check}: {r.message}" for r in (*report.errors, *report.failures)]
    listed = "".join(f"<li>{escape(line)}</li>" for line in (*lines, *report.problems))
    answer = "passed" if report.passed else "did not pass"
    return f"<table><tr><th>model</th>{head}</tr>{body}</table><ul>{listed}</ul><p><b>{answer}</b></p>"
