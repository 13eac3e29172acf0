"""The only place that draws, catches and reads clocks: a model and its plan become records."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from harness.ambient import preserved
from harness.checks.carried import carried_by
from harness.checks.law import OTHER_MEASURE, Check, ExactCheck, NotApplicable, StatisticalCheck
from harness.draws import Draws
from harness.effort import CONFIDENCE, Settings
from harness.errors import out_of_memory
from harness.evidence import Absent, Cell, Estimated, Evidence, Exact, Look, Raised, Record, Verdict
from harness.judge import explain, judge
from harness.model import Model
from harness.plan import GATES, HAS_VOLUME, IN_COMMON, Planned
from harness.statistics.accumulator import Accumulator
from harness.subject import Subject

CHUNK_ROWS = 2**15
CHUNK_NUMBERS = 2**20
MESSAGE_LENGTH = 500
MEMORY_RAN_OUT = "memory ran out; on the CPU, `harness check --memory` allows more"
PROBE = 64
"""Rows by which it is found out whether a capability still answers after an exception."""

T = TypeVar("T")


def examine(
    model: Model, planned: Sequence[Planned], settings: Settings, subject: Subject | None = None
) -> Iterator[Record]:
    """Records of one model, each as soon as it is decided. A subject that was made before is not worked out again."""
    subject = subject or Subject(model, settings.effort, settings.seed)
    table = _Table(model.name, settings)
    for item in planned:
        if isinstance(item.check, ExactCheck):
            yield table.enter(item, *_measured(item, subject, table))
    yield from _sequential(subject, [item for item in planned if isinstance(item.check, StatisticalCheck)], table)


@dataclass
class _Table:
    """The verdicts so far, by which later checks are blocked."""

    model: str
    settings: Settings
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    gates: dict[str, str] = field(default_factory=dict)
    """Gates that were blocked themselves, and by what."""
    silent: dict[str, str] = field(default_factory=dict)
    """Capabilities that raise at the model's own draws, and the check that found it."""

    def absent(self, item: Planned) -> Absent | None:
        """Why the check cannot be made, if it cannot."""
        if item.skip:
            return Absent(item.skip)
        for blocker in item.blocked_by:
            if self.verdicts.get(blocker) in (Verdict.FAIL, Verdict.ERROR):
                return Absent(f"blocked: {blocker} did not pass", blocker)
            if blocker in self.gates:
                return Absent(f"blocked: {self.gates[blocker]} did not pass", self.gates[blocker])
        for other in item.yields_to:
            if self.verdicts.get(other) is Verdict.FAIL:
                return Absent(f"blocked: {other} did not pass, and this would be the same defect again", other)
        for need in item.check.needs:
            if need in self.silent:
                return Absent(f"blocked: {need} raised during {self.silent[need]}", self.silent[need])
        return None

    def silenced(self, item: Planned, evidence: Evidence | None, probes: dict[str, Callable[[], object]]) -> None:
        """After an exception: note the capabilities that do not answer any more."""
        if not isinstance(evidence, Raised):
            return
        for need in item.check.needs:
            if need in probes and need not in self.silent and isinstance(caught(probes[need]), Raised):
                self.silent[need] = item.check.id

    def enter(self, item: Planned, evidence: Evidence, seconds: float) -> Record:
        verdict = judge(evidence, item.alpha)
        self.verdicts[item.check.id] = verdict
        gate = item.check.id in (*GATES.values(), IN_COMMON, HAS_VOLUME)
        if gate and isinstance(evidence, Absent) and evidence.blocked_by:
            self.gates[item.check.id] = evidence.blocked_by
        if item.check.id == HAS_VOLUME and isinstance(evidence, Absent) and evidence.reason.startswith(OTHER_MEASURE):
            self.gates[HAS_VOLUME] = HAS_VOLUME
        message = explain(evidence, verdict, item.alpha)
        return Record(self.model, item.check.id, verdict, evidence, item.alpha, seconds, message)

    def report(self, stage: str, n: int = 0) -> None:
        if self.settings.watch is not None:
            self.settings.watch(self.model, stage, n)


def _measured(item: Planned, subject: Subject, table: _Table) -> tuple[Evidence, float]:
    """Evidence of an exact check, and the seconds that it took."""
    assert isinstance(item.check, ExactCheck)
    absent = table.absent(item)
    if absent is not None:
        return absent, 0.0
    table.report(item.check.id)
    started = time.perf_counter()
    evidence: Evidence = caught(lambda: item.check.measure(subject))  # type: ignore[attr-defined]
    table.silenced(item, evidence, _probes(subject, lambda: subject.pilot[:PROBE]))
    return evidence, time.perf_counter() - started


def _probes(subject: Subject, events: Callable[[], torch.Tensor]) -> dict[str, Callable[[], object]]:
    """Capability to a call of it that a working model answers."""
    return {
        "sample": lambda: subject.sample(PROBE, "pilot", "shape"),
        "log_prob": lambda: subject.model.log_prob(events()),
    }


def caught(work: Callable[[], T]) -> T | Absent | Raised:
    """The result, or the exception as evidence; the process around the model is afterwards as it was.

    A model that calls `exit` ends its check, not the run. The user's interrupt passes through, and so does whatever
    else is no Exception: it was raised to be caught by someone further out, such as a test runner.
    """
    try:
        with preserved():
            return work()
    except NotApplicable as reason:
        return Absent(str(reason))
    except SystemExit as error:
        seen = raised(error)
        return replace(seen, message=f"the model called sys.exit({seen.message})")
    except (Exception, GeneratorExit) as error:
        return raised(error)


def raised(error: BaseException) -> Raised:
    """An exception as evidence: its type, the start of its message, and where it came from."""
    try:
        text = " ".join(str(error).split())[:MESSAGE_LENGTH]
    except Exception:  # the author's own __str__
        text = "(its message cannot be printed)"
    if out_of_memory(error):
        text = f"{MEMORY_RAN_OUT}: {text}" if text else MEMORY_RAN_OUT
    return Raised(type(error).__name__, text, "".join(traceback.format_exception(error))[-4000:])


@dataclass
class _Live:
    """A statistical check that has not decided."""

    item: Planned
    check: StatisticalCheck
    statistic: Accumulator
    limit: int
    path: list[Look] = field(default_factory=list)
    draws: int = 0
    seconds: float = 0.0
    trouble: Evidence | None = None

    def take(self, draws: Draws) -> None:
        """Take in one chunk."""
        if self.trouble is not None:
            return
        started = time.perf_counter()
        self.trouble = caught(
            lambda: self.statistic.update(self.check.numbers(draws))  # type: ignore[arg-type]  # a law knows its statistic
        )
        self.draws += draws.n
        self.seconds += time.perf_counter() - started

    def judged(self, subject: Subject) -> Evidence:
        """What was seen until now, after one more look."""
        started = time.perf_counter()
        evidence = self.trouble if self.trouble is not None else caught(lambda: self._looked(subject))
        self.seconds += time.perf_counter() - started
        return evidence

    def _looked(self, subject: Subject) -> Estimated:
        look = self.statistic.look(CONFIDENCE)
        if not look.log_e < -math.log(self.item.alpha):  # a FAIL is about the quantity that gives the evidence
            look = getattr(self.statistic, "suspect", self.statistic.look)(CONFIDENCE)
        self.path.append(replace(look, n=self.draws))
        labels = self.check.labels(subject) if self.check.labels else []
        column = self.path[-1].column
        cells: tuple[Cell, ...] = getattr(self.statistic, "cells", tuple)()
        return Estimated(
            path=tuple(self.path),
            tolerance=tolerance(self.check, self.statistic, subject),
            confidence=CONFIDENCE,
            unit=self.check.unit,
            where=labels[column] if column < len(labels) else "",
            columns=max(1, len(labels)),
            asymptotic=self.check.asymptotic,
            cells=tuple(cells),
        )

    def left(self, evidence: Evidence, subject: Subject) -> Evidence:
        """The evidence that it leaves with: later runs can go on from it."""
        if not isinstance(evidence, Estimated):
            return evidence
        carried = caught(lambda: carried_by(self.check, self.statistic, subject))
        return replace(evidence, carried=None if isinstance(carried, Absent | Raised) else carried)


def _sequential(subject: Subject, items: Sequence[Planned], table: _Table) -> Iterator[Record]:
    """Draw in growing chunks, shared by all checks, until each has decided or the effort is spent."""
    live: list[_Live] = []
    for item in items:
        started = time.perf_counter()
        absent = table.absent(item)
        candidate = absent if absent is not None else _started(item, subject)
        if isinstance(candidate, _Live):
            live.append(candidate)
        else:
            yield table.enter(item, candidate, time.perf_counter() - started)
    clock = time.perf_counter()
    n = index = 0
    for target in subject.effort.looks():
        late = False
        while n < target and live and not late:
            rows = _rows(subject, target - n)
            draws = Draws(subject, index, rows if isinstance(rows, int) else 0)
            failure = rows if isinstance(rows, Raised) else _caught_draws(draws)
            if failure is not None:
                yield from _stopped(live, failure, table)
                return
            for entry in live:
                if n < entry.limit and (entry.trouble is not None or table.absent(entry.item) is None):
                    table.report(entry.check.id, n)
                    entry.take(draws)
                    table.silenced(entry.item, entry.trouble, _probes(subject, lambda: draws.x))  # noqa: B023
            n, index = n + draws.n, index + 1
            late = _spent(table.settings, clock)
        live, decided = _settle(live, subject, table, n, last=late or target == subject.effort.draws)
        yield from decided


def _spent(settings: Settings, started: float) -> bool:
    """Has the time for draws been used up?"""
    return settings.budget is not None and time.perf_counter() - started > settings.budget


def _started(item: Planned, subject: Subject) -> _Live | Evidence:
    check = item.check
    assert isinstance(check, StatisticalCheck)
    statistic = caught(lambda: check.start(subject))
    if isinstance(statistic, Absent | Raised):
        return statistic
    if hasattr(statistic, "threshold"):
        statistic.threshold = -math.log(item.alpha)
    least = min(
        getattr(statistic, "least", 1), subject.effort.draws
    )  # below which a share of the draws decides nothing
    return _Live(item, check, statistic, max(least, int(check.share * subject.effort.draws)))


def tolerance(check: StatisticalCheck, statistic: Accumulator, subject: Subject) -> float:
    """The deviation that a PASS excludes; a statistic may ask for a stricter one where its subject allows it."""
    return check.tolerance * subject.effort.tolerance / getattr(statistic, "strictness", 1.0)


def chunk_rows(subject: Subject) -> int:
    """Rows a chunk: constant memory whatever the size of an event."""
    return max(64, min(CHUNK_ROWS, CHUNK_NUMBERS // max(1, subject.profile.size)))


def _rows(subject: Subject, wanted: int) -> int | Raised:
    """Rows of the next chunk; the profile that they depend on may raise."""
    rows = caught(lambda: min(wanted, chunk_rows(subject)))
    return rows if isinstance(rows, int | Raised) else Raised("NotApplicable", rows.reason)


def _caught_draws(draws: Draws) -> Raised | None:
    x = caught(lambda: draws.x)
    if isinstance(x, Raised):
        return x
    if isinstance(x, Absent) or x.shape[0] != draws.n:
        got = 0 if isinstance(x, Absent) else x.shape[0]
        return Raised("ContractError", f"sample({draws.n}) returned {got} draws")
    return None


def _stopped(live: list[_Live], failure: Raised, table: _Table) -> Iterator[Record]:
    """The sampler gave up in mid-run: one ERROR, and the rest blocked by it."""
    first, *others = live
    yield table.enter(first.item, failure, first.seconds)
    for entry in others:
        yield table.enter(
            entry.item, Absent(f"blocked: sample raised during {first.check.id}", first.check.id), entry.seconds
        )


def _settle(
    live: list[_Live], subject: Subject, table: _Table, n: int, *, last: bool
) -> tuple[list[_Live], list[Record]]:
    """Judge every live check; those that decided, are blocked by one that did, or ran out of draws leave."""
    staying: list[_Live] = []
    records: list[Record] = []
    for entry in sorted(live, key=lambda entry: entry.item.turn):
        absent = table.absent(entry.item)
        if absent is not None and not isinstance(entry.trouble, Raised):
            records.append(table.enter(entry.item, absent, entry.seconds))
            continue
        evidence = entry.judged(subject)
        undecided = judge(evidence, entry.item.alpha) is Verdict.INCONCLUSIVE
        if undecided and not last and n < entry.limit:
            staying.append(entry)
        else:
            records.append(table.enter(entry.item, entry.left(evidence, subject), entry.seconds))
    return staying, records


def with_precision(record: Record, model: Model, planned: Planned, settings: Settings) -> Record:
    """A FAIL in a narrow dtype is tried again in float64; one that goes away there is labelled `precision`."""
    if record.verdict is not Verdict.FAIL or model.cast is None:
        return record
    try:
        wide = model.cast(torch.float64)
        again = list(examine(wide, [replace(planned, blocked_by=())], settings))
    except Exception:
        return record
    if again and again[-1].verdict is not Verdict.PASS and _unit(again[-1]) != _unit(record):
        return record  # a check of several parts found another one: neither is the other's rounding
    if again and gone(again[-1]):
        note = " It goes away in float64: a limit of the arithmetic, not of the formula."
    elif again and _fades(record, again[-1]):
        note = f" In float64 it is {again[-1].statistic:+.2g}: a limit of the arithmetic, not of the formula."
    else:
        return record
    return replace(record, label="precision", message=record.message + "." + note)


def gone(wide: Record) -> bool:
    """Does the law hold in float64, as far as can be seen? An oracle that did not converge has seen nothing."""
    if isinstance(wide.evidence, Exact):
        return wide.verdict is Verdict.PASS
    return wide.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE)


def _unit(record: Record) -> str:
    """In which unit its error or estimate is; empty where there is none."""
    return str(getattr(record.evidence, "unit", ""))


def _fades(narrow: Record, wide: Record) -> bool:
    """Is the deviation a tenth or less in float64? An error of the formula would stay as large as it is."""
    if narrow.statistic is None or wide.statistic is None or not math.isfinite(wide.statistic):
        return False
    return abs(wide.statistic) <= abs(narrow.statistic) / 10


def check_named(checks: Sequence[Check], id: str) -> Check:
    """The check of that id; KeyError names the command that lists them."""
    for check in checks:
        if check.id == id:
            return check
    raise KeyError(f"no check is called {id!r}; `harness checks` lists them")
