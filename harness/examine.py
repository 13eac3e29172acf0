"""`check_model`: the whole path for one object in this process, and the report it returns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from harness.adapters import adapt
from harness.checks import CHECKS
from harness.effort import FALSE_ALARM_BUDGET, Effort, Settings, effort_named
from harness.evidence import Record, Verdict
from harness.model import Model
from harness.plan import Planned, plan, select
from harness.reproduce import Origin, described, with_reproducer
from harness.run import examine, with_precision
from harness.subject import Subject

if TYPE_CHECKING:
    from harness.report import Report


def check_model(
    model: object,
    *,
    effort: str | Effort = "standard",
    seed: int = 0,
    only: Iterable[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    budget: float | None = None,
    alpha: float = FALSE_ALARM_BUDGET,
    name: str = "",
) -> Report:
    """Examine any object that an adapter knows, or that has a method of the contract.

    `alpha` is the probability of any false FAIL in the whole run, shared among its statistical checks. `budget` limits
    the seconds that draws may take. `expected_failures` maps check ids to reasons; one that does not fail, or names no
    check, fails the run. Raises NotAModel for an object without any capability.
    """
    from harness.report import Report

    adapted = adapt(model, name, device, dtype)
    settings = Settings(effort_named(effort), seed, budget)
    planned = plan(adapted, select(CHECKS, only), alpha)
    kept = str(dtype).removeprefix("torch.") if dtype is not None else ""
    records = examine_model(adapted, planned, settings, Origin(thing=described(model), device=device, dtype=kept))
    return Report.of(
        records, settings, alpha=alpha, expected_failures=expected_failures or {}, device=device, dtype=kept
    )


def examine_model(
    adapted: Model, planned: Sequence[Planned], settings: Settings, origin: Origin | None = None
) -> Iterator[Record]:
    """Records of one adapted model, each as soon as it is decided and a FAIL has been tried in float64.

    With an origin, a FAIL carries its reproducer.
    """
    items = {item.check.id: item for item in planned}
    subject = Subject(adapted, settings.effort, settings.seed)
    spent = 0.0
    started = time.perf_counter()
    for record in examine(adapted, planned, settings, subject):
        spent += time.perf_counter() - started
        item = items[record.check]
        seen = with_precision(record, adapted, item, settings)
        yield seen if origin is None else with_reproducer(seen, subject, item, settings, origin, seconds=spent)
        started = time.perf_counter()


def failing(records: Iterable[Record]) -> list[Record]:
    """Records with FAIL or ERROR."""
    return [record for record in records if record.verdict in (Verdict.FAIL, Verdict.ERROR)]
