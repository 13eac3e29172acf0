"""One model's examination, shared by the tests of its checks: plan, records, and each verdict as an outcome of pytest.

Nothing here imports torch before a model is at hand: the plugin is imported at the start of every pytest run.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.effort import Effort, Settings
from harness.evidence import Absent, Raised, Record, Verdict

if TYPE_CHECKING:
    import torch

    from harness.model import Model
    from harness.plan import Planned

OWN_FOLDER = str(Path(__file__).parent)


class InconclusiveWarning(pytest.PytestWarning):
    """The draws did not decide: neither a FAIL nor a bound small enough for a PASS."""


class ModelError(Exception):
    """The model raised, or returned something outside its contract; the message ends with its own traceback."""

    __module__ = "harness"  # as it is printed


@dataclass
class Examination:
    """One model's plan, and its records once the first of its tests has asked for one.

    `wanted` are the ids of the checks that this session is going to ask for; empty means all.
    """

    name: str
    thing: object
    seed: int
    effort: Effort
    share: float
    only: tuple[str, ...] = ()
    spec: str = ""
    device: str = "cpu"
    dtype: torch.dtype | None = None
    expected: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    wanted: set[str] = field(default_factory=set)
    records: dict[str, Record] = field(default_factory=dict)

    def adapted(self, thing: object) -> Model:
        from harness.adapters import adapt

        return adapt(thing, self.name, self.device, self.dtype)

    def plan(self, model: Model) -> tuple[Planned, ...]:
        """Pure: the budget is shared over models and checks before a draw."""
        from harness.checks import CHECKS
        from harness.plan import plan, select

        return plan(model, select(CHECKS, self.only), self.share)

    def record(self, id: str, thing: object) -> Record:
        """The record of one check. An object other than the parametrised one is examined by this check alone."""
        if thing is not self.thing:
            return self._made(thing, {id})[id]
        if id not in self.records:
            self.records |= self._made(thing, self.wanted | {id})
        return self.records[id]

    def _made(self, thing: object, ids: set[str]) -> dict[str, Record]:
        from harness.checks import CHECKS
        from harness.examine import examine_model
        from harness.plan import select
        from harness.reproduce import Origin, described, threads_of_a_run

        model = self.adapted(thing)
        needed = {check.id for check in select(CHECKS, ids)}  # with those that could block them
        planned = [item for item in self.plan(model) if item.check.id in needed]
        origin = Origin(self.spec, described(thing), self.device, str(self.dtype or "").removeprefix("torch."))
        found: dict[str, Record] = {}
        with threads_of_a_run():
            try:
                for record in examine_model(model, planned, Settings(self.effort, self.seed), origin):
                    found[record.check] = record
            except SystemExit as end:
                trouble = Raised("SystemExit", f"the model called sys.exit({end})")
                found |= _ended(self.name, [item for item in planned if item.check.id not in found], trouble)
        return found

    def expectation(self, record: Record) -> str:
        """Why this record is expected to fail, if it is. SKIPs, which were not made, must be named in full."""
        named = self.expected.get(f"{self.name}::{record.check}", "")
        return named or ("" if record.verdict is Verdict.SKIP else self.expected.get(record.check, ""))


@dataclass(frozen=True)
class ModelCheck:
    """What a decorated test calls: `check(model)` passes, fails, skips or warns, as the verdict says."""

    id: str
    examination: Examination

    def __repr__(self) -> str:
        return f"<check {self.id}>"

    def __call__(self, model: object) -> None:
        __tracebackhide__ = True
        record = self.examination.record(self.id, model)
        settle(record, self.examination.expectation(record), strict=self.examination.strict)


def _ended(name: str, missing: Sequence[Planned], trouble: Raised) -> dict[str, Record]:
    """Records of checks that were not made since the model ended the examination: one ERROR, the rest blocked by it."""
    from harness.judge import explain, judge

    blocked = Absent(f"blocked: the examination ended at {missing[0].check.id}", missing[0].check.id)
    found = {}
    for item in missing:
        evidence = trouble if item is missing[0] else blocked
        verdict = judge(evidence, item.alpha)
        message = explain(evidence, verdict, item.alpha)
        found[item.check.id] = Record(name, item.check.id, verdict, evidence, item.alpha, 0.0, message)
    return found


def settle(record: Record, expected: str = "", *, strict: bool = False) -> None:
    """The verdict as pytest's outcome."""
    __tracebackhide__ = True
    named = f"{record.model}::{record.check}"
    if expected and record.verdict is Verdict.FAIL:
        pytest.xfail(f"{expected} ({record.message})")
    if record.verdict is Verdict.ERROR:
        raise ModelError(f"{named} is an ERROR: {record.message}{_own_trace(record)}") from None
    if expected:
        pytest.fail(f"{named} was expected to fail ({expected}) but is {record.verdict}: remove the expectation", False)
    if record.verdict is Verdict.FAIL:
        raise AssertionError(_failure(record)) from None
    if record.verdict is Verdict.SKIP:
        pytest.skip(record.message)
    if record.verdict is Verdict.INCONCLUSIVE:
        if strict:
            raise AssertionError(f"{named} is INCONCLUSIVE: {record.message}") from None
        warnings.warn(InconclusiveWarning(f"{named} is INCONCLUSIVE: {record.message}"), stacklevel=3)


def _failure(record: Record) -> str:
    """What was seen, the bound, and how to see it again."""
    lines = [f"{record.model}::{record.check} is a FAIL: {record.message}"]
    if record.bound is not None and record.statistic is not None:
        lines.append(f"statistic {record.statistic:.3g}, bound {record.bound:.3g}, {record.n_samples:,} draws")
    if record.reproducer is not None:
        script = "\n".join(f"    {line}" for line in record.reproducer.script.splitlines())
        lines += [f"reproduce: {record.reproducer.command}", f"or, with n = {record.reproducer.n}:", script]
    return "\n".join(lines)


def _own_trace(record: Record) -> str:
    """The traceback of the model, without the examiner's frames."""
    if not isinstance(record.evidence, Raised) or not record.evidence.trace:
        return ""
    kept, ours = [], False
    for line in record.evidence.trace.splitlines():
        place = re.match(r'  File "(.+)", line', line)
        ours = place[1].startswith(OWN_FOLDER) if place else ours and line.startswith("    ")
        kept += [] if ours else [line]
    return "\n" + "\n".join(kept)
