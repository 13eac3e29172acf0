"""The engine as the tests drive it: a model and some checks in, records out, in this process and without a report."""

from __future__ import annotations

from collections.abc import Iterable

from harness.adapters import adapt
from harness.checks import CHECKS
from harness.checks.law import Check
from harness.effort import FALSE_ALARM_BUDGET, effort_named
from harness.evidence import Record, Verdict
from harness.model import Model
from harness.mutants import mutated
from harness.mutants.mutant import Mutant, NearMiss
from harness.plan import Planned, plan, select
from harness.run import Settings, examine

BY_ID = {check.id: check for check in CHECKS}


def changed(change: Mutant | NearMiss) -> Model:
    """The model of a mutant, or of a near miss."""
    return mutated(adapt(change.base()), change.change, change.name)


def examined(
    model: object, *ids: str, effort: str = "quick", seed: int = 0, alpha: float = FALSE_ALARM_BUDGET
) -> dict[str, Record]:
    """Records by id: of the named checks and of the gates before them, of all checks if none is named."""
    adapted = adapt(model)
    return _records(adapted, plan(adapted, select(CHECKS, ids), alpha), effort, seed)


def alone(
    model: object, *checks: str | Check, effort: str = "quick", seed: int = 0, alpha: float = FALSE_ALARM_BUDGET
) -> dict[str, Record]:
    """Records by id of these checks without the gates before them, which may have spoken first."""
    adapted = adapt(model)
    made = [BY_ID[check] if isinstance(check, str) else check for check in checks]
    return _records(adapted, plan(adapted, made, alpha), effort, seed)


def record(
    model: object, check: str | Check, *, effort: str = "quick", seed: int = 0, alpha: float = FALSE_ALARM_BUDGET
) -> Record:
    """The record of one check, without its gates."""
    (seen,) = alone(model, check, effort=effort, seed=seed, alpha=alpha).values()
    return seen


def troubles(records: dict[str, Record]) -> dict[str, str]:
    """The checks that end a run with exit status 1: id to verdict and message, so that a test that fails shows them."""
    return {
        id: f"{seen.verdict}: {seen.message}"
        for id, seen in records.items()
        if seen.verdict in (Verdict.FAIL, Verdict.ERROR)
    }


def _records(model: Model, planned: Iterable[Planned], effort: str, seed: int) -> dict[str, Record]:
    return {seen.check: seen for seen in examine(model, tuple(planned), Settings(effort_named(effort), seed))}
