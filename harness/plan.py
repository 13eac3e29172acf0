"""Which checks apply to a model, and which share of the false-alarm budget each one gets. Pure, before any draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.checks.law import Check, StatisticalCheck
from harness.model import Model

GATES = {"sample": "sample.well_formed", "log_prob": "log_prob.well_formed"}
"""The check that must pass before a capability is relied on."""


@dataclass(frozen=True)
class Planned:
    """One check on one model: its share `alpha` of the budget, what blocks it, or why it is skipped."""

    check: Check
    alpha: float
    blocked_by: tuple[str, ...]
    skip: str = ""


def plan(model: Model, checks: Sequence[Check], alpha: float) -> tuple[Planned, ...]:
    """Every check in order; `alpha` is shared equally among the statistical ones that apply.

    The shares sum to `alpha`, so by the union bound the probability that a correct model gets any FAIL is at most it.
    """
    missing = {check.id: [need for need in check.needs if not model.can(need)] for check in checks}
    statistical = [check for check in checks if isinstance(check, StatisticalCheck) and not missing[check.id]]
    share = alpha / max(1, len(statistical))
    return tuple(
        Planned(
            check,
            share,
            _blockers(check),
            _missing(model, missing[check.id]) if missing[check.id] else "",
        )
        for check in checks
    )


def _missing(model: Model, names: Sequence[str]) -> str:
    """Which capabilities are not there, and why not where a method of that name did not fit."""
    reasons = "; ".join(model.unfit[name] for name in names if name in model.unfit)
    return f"the model has no {' and no '.join(names)}" + (f": {reasons}" if reasons else "")


def _blockers(check: Check) -> tuple[str, ...]:
    gates = (GATES[need] for need in check.needs if need in GATES)
    return tuple(dict.fromkeys(gate for gate in (*gates, *check.blocked_by) if gate != check.id))


def select(checks: Sequence[Check], only: Iterable[str]) -> tuple[Check, ...]:
    """The checks whose id is named, or begins with a name followed by a dot; all when nothing is named.

    Gates are kept, since nothing can be said of a model that they stop. Raises KeyError for a name that matches none.
    """
    names = tuple(only)
    if not names:
        return tuple(checks)
    for name in names:
        if not any(_named(check.id, name) for check in checks):
            raise KeyError(f"no check is called {name!r}; `harness checks` lists them")
    wanted = {check.id for check in checks if any(_named(check.id, name) for name in names)}
    by_id = {check.id: check for check in checks}
    grown: set[str] = set()
    while wanted != grown:
        grown = set(wanted)
        wanted |= {blocker for id in grown for blocker in _blockers(by_id[id]) if blocker in by_id}
    return tuple(check for check in checks if check.id in wanted)


def _named(id: str, name: str) -> bool:
    return id == name or id.startswith(name.rstrip(".*") + ".")
