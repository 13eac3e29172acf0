"""What there is: the checks, one check explained, the registered models."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from itertools import groupby
from typing import Any

from harness.adapters import adapt
from harness.checks import CHECKS
from harness.checks.law import Check, StatisticalCheck
from harness.contract import CAPABILITIES, attribute
from harness.effort import EFFORTS
from harness.job import LEFT_CLEAN
from harness.mutants import MUTANTS
from harness.resolve import close_to, registered, resolve


def every_check() -> tuple[Check, ...]:
    """The checks in their order, and the one that only a process of its own allows."""
    return (*CHECKS, LEFT_CLEAN)


def as_json(rows: Sequence[dict[str, Any]]) -> str:
    """A list of objects, for programs."""
    return json.dumps(list(rows), indent=1, ensure_ascii=False)


def check_rows() -> list[dict[str, Any]]:
    """Each check as plain data."""
    return [
        {
            **{"id": check.id, "law": check.law, "needs": list(check.needs), "blocked_by": list(check.blocked_by)},
            **{"kind": _kind(check), "unit": check.unit, "why": check.why, "source": check.source},
            **{"tolerance": _tolerances(check), "mutants": [m.name for m in MUTANTS if m.check == check.id]},
        }
        for check in every_check()
    ]


def model_rows() -> list[dict[str, Any]]:
    """Each registered model as plain data: what it is, what it can do, the SPEC that names it.

    `number` and `family` are attributes that a model may have; `error` says of one that cannot be built why not.
    """
    return [_model_row(entry) for entry in registered()]


def _model_row(entry: EntryPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"name": entry.name, "spec": entry.value, "preset": entry.attr}
    row |= {"distribution": entry.dist.name if entry.dist else "", "number": "", "family": ""}
    row |= {"summary": "", "capabilities": [], "error": ""}
    try:
        thing = resolve(entry.name)[0].build()
        found = adapt(thing, entry.name).methods
    except Exception as trouble:
        return row | {"error": one_line(f"{type(trouble).__name__}: {trouble}")}
    said = {name: value for name in ("number", "family") if isinstance(value := attribute(thing, name), str)}
    summary, _, _ = (inspect.getdoc(entry.load()) or "").partition("\n\n")
    return row | said | {"summary": one_line(summary), "capabilities": [name for name in CAPABILITIES if name in found]}


def one_line(text: str) -> str:
    """The text on one line."""
    return " ".join(text.split())


def list_checks() -> str:
    """A paragraph a check."""
    return "\n".join(
        f"{row['id']}\n    {row['law']}\n    needs {', '.join(row['needs']) or 'nothing'}" for row in check_rows()
    )


def list_models() -> str:
    """A paragraph a family, in it a line a model; then how to examine one."""
    rows = model_rows()
    if not rows:
        return "no model is registered; a package registers its own as entry points of the group harness.models"
    rows.sort(key=lambda row: (not row["number"], row["number"], row["family"], row["name"]))
    families = groupby(rows, key=lambda row: (row["number"], row["family"]))
    parts = [f"{number} {family}".strip() + _listed(list(members)) for (number, family), members in families]
    return "\n\n".join([*parts, f"examine one with: harness check {rows[0]['name']}"])


def _listed(rows: Sequence[dict[str, Any]]) -> str:
    """The models of one family: what each can do is said once where they are alike."""
    width = max(len(row["name"]) for row in rows)
    abilities = {", ".join(row["capabilities"]) for row in rows if not row["error"]}
    lines = [f"    {row['name']:{width}}  {row['error'] or row['summary'] or row['spec']}".rstrip() for row in rows]
    return "\n" + "\n".join([*lines, *(f"    can: {text}" for text in sorted(abilities))])


def explain(id: str) -> str:
    """A page on one check. KeyError, with close ids, when there is none."""
    row = next((row for row in check_rows() if row["id"] == id), None)
    if row is None:
        known = [check.id for check in every_check()]
        raise KeyError(f"no check is called {id!r}{close_to(id, known, otherwise='; `harness checks` lists them')}")
    parts = {
        "Law": row["law"],
        "Why": row["why"],
        "Source": row["source"],
        "Needs": ", ".join(row["needs"]),
        "Blocked by": ", ".join(row["blocked_by"]),
        "Tolerance": _tolerance_text(row),
        "Known to find": _mutant_text(id),
    }
    return "\n\n".join([id, *(f"{title}\n{_indented(text)}" for title, text in parts.items() if text)])


def _kind(check: Check) -> str:
    return "statistical" if isinstance(check, StatisticalCheck) else "exact"


def _tolerances(check: Check) -> dict[str, float]:
    """The largest deviation that a PASS leaves possible, by effort; an exact law derives its own."""
    if not isinstance(check, StatisticalCheck):
        return {}
    return {name: check.tolerance * effort.tolerance for name, effort in EFFORTS.items()}


def _tolerance_text(row: dict[str, Any]) -> str:
    if row["kind"] == "exact":
        return "exact: the allowed error follows from the dtype and the operations, and is stated with the verdict"
    return "\n".join(f"{name:9} {value:.3g} {row['unit']}".rstrip() for name, value in row["tolerance"].items())


def _mutant_text(id: str) -> str:
    return "\n".join(f"{mutant.name}: {mutant.defect}" for mutant in MUTANTS if mutant.check == id)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
