"""How to see a FAIL again: one command, and a script that repeats one check at the fewest draws that still fail.

A statistical FAIL is repeated from the recorded seed, chunk by chunk, until its evidence first reaches 1/alpha; the
chunk in which that happens is then halved. An e-process may be stopped at any time, so evidence that was reached there
is evidence. Exact checks already report the few points that they need.
"""

from __future__ import annotations

import copy
import math
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.adapters import adapt
from harness.checks import CHECKS
from harness.checks.law import Check, ExactCheck, StatisticalCheck
from harness.draws import Draws
from harness.effort import CONFIDENCE, EFFORTS, FALSE_ALARM_BUDGET, Effort, Settings, effort_named
from harness.evidence import Estimated, Evidence, Exact, Look, Record, Reproducer, Verdict
from harness.judge import explain, judge
from harness.plan import Planned, select
from harness.run import caught, check_named, chunk_rows, tolerance
from harness.statistics.accumulator import Accumulator
from harness.statistics.bernstein import Sums
from harness.subject import Subject

ROOM = 0.1
"""Nats of evidence beyond the threshold that the shortest failing sample keeps, so that another machine's rounding
does not take it below."""

LEAST_SECONDS = 5.0
"""Seconds that shrinking may take however short the run was."""


@dataclass(frozen=True)
class Origin:
    """Where a model came from, as far as that can be written down: its SPEC, or a description of an object."""

    spec: str = ""
    thing: str = ""
    device: str = "cpu"
    dtype: str = ""


def described(thing: object) -> str:
    """The object's repr in one short line; its type where it has none that works."""
    try:
        return textwrap.shorten(repr(thing), 80, placeholder=" ...")
    except Exception:  # the author's own __repr__
        return f"a {type(thing).__name__}"


# ------------------------------------------------------------------------------------------- what a script calls


def model_from(spec: str) -> object:
    """The one model that a SPEC names, found from the current folder as the command line finds it."""
    from harness.resolve import resolve

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    models = resolve(spec)
    if len(models) != 1:
        raise ValueError(f"{spec} names {len(models)} models: write {models[0].spec} for the first")
    return models[0].build()


@contextmanager
def threads_of_a_run() -> Iterator[None]:
    """One thread, unless OMP_NUM_THREADS says more, as the command line has it: sums come out the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rerun(
    model: object,
    check: str,
    *,
    seed: int = 0,
    effort: str | Effort = "standard",
    n: int | None = None,
    alpha: float = FALSE_ALARM_BUDGET,
    device: str = "cpu",
    dtype: str = "",
) -> Record:
    """The record of one check alone, judged once, after the first n of the draws that a run with this seed makes.

    `alpha` is the check's own share of a run's budget; without n, the effort's draws are spent. Of several quantities,
    the record is about the one with the strongest evidence, which need not be the one that is bounded worst.
    """
    adapted = adapt(model, device=device, dtype=getattr(torch, dtype) if dtype else None)
    made, started = check_named(CHECKS, check), time.perf_counter()
    subject = Subject(adapted, effort_named(effort), seed)
    with threads_of_a_run():
        evidence = caught(lambda: _evidence(made, subject, alpha, n))
    verdict = judge(evidence, alpha)
    message = explain(evidence, verdict, alpha)
    return Record(adapted.name, check, verdict, evidence, alpha, time.perf_counter() - started, message)


def _evidence(check: Check, subject: Subject, alpha: float, n: int | None) -> Evidence:
    if isinstance(check, ExactCheck):
        return check.measure(subject)  # type: ignore[attr-defined]
    assert isinstance(check, StatisticalCheck)
    limit = max(1, int(check.share * subject.effort.draws)) if n is None else n
    statistic = _started(check, subject, alpha)
    for chunk in _chunks(check, subject, limit):
        statistic.update(chunk.first(limit - chunk.done))  # type: ignore[arg-type]
    look, where, columns = _strongest(statistic, check, subject, limit)
    return Estimated(
        (look,), tolerance(check, statistic, subject), CONFIDENCE, check.unit, where, columns, check.asymptotic
    )


# ------------------------------------------------------------------------------------------- replaying the draws


def _started(check: StatisticalCheck, subject: Subject, alpha: float) -> Accumulator:
    statistic = check.start(subject)
    if hasattr(statistic, "threshold"):
        statistic.threshold = -math.log(alpha)
    return statistic


@dataclass(frozen=True)
class _Chunk:
    """Chunk number `index` of a run, `done` draws after its start, and the check's numbers for its `rows` draws."""

    check: StatisticalCheck
    subject: Subject
    index: int
    done: int
    rows: int
    numbers: Tensor | Sums

    def first(self, rows: int) -> Tensor | Sums:
        """The numbers of the first draws only. Sums cannot be divided: as many draws are made anew."""
        if rows >= self.rows:
            return self.numbers
        if isinstance(self.numbers, Tensor):
            return self.numbers[:rows]
        return self.check.numbers(Draws(self.subject, self.index, rows))


def _chunks(check: StatisticalCheck, subject: Subject, limit: int) -> Iterator[_Chunk]:
    """The chunks of a run up to the one that holds draw number `limit`."""
    n = index = 0
    for target in subject.effort.looks():
        while n < min(target, limit):
            rows = min(target - n, chunk_rows(subject))
            yield _Chunk(check, subject, index, n, rows, check.numbers(Draws(subject, index, rows)))
            n, index = n + rows, index + 1


def _strongest(statistic: Accumulator, check: StatisticalCheck, subject: Subject, n: int) -> tuple[Look, str, int]:
    """The look after n draws at the quantity with the strongest evidence, its name, and how many there are."""
    look = getattr(statistic, "suspect", statistic.look)(CONFIDENCE)
    names = check.labels(subject) if check.labels else []
    where = names[look.column] if look.column < len(names) else ""
    return replace(look, n=n), where, max(1, len(names))


# ------------------------------------------------------------------------------------------- the fewest draws


def fewest_draws(subject: Subject, planned: Planned, settings: Settings, seconds: float = math.inf) -> int | None:
    """The smallest number of draws found at which the check still fails; None when repeating it does not fail.

    The search ends after `seconds`, or after the run's budget, with what it has.
    """
    assert isinstance(planned.check, StatisticalCheck)
    statistic = _started(planned.check, subject, planned.alpha)
    needed = ROOM - math.log(planned.alpha)
    limit = min(seconds, math.inf if settings.budget is None else settings.budget)
    end = time.perf_counter() + limit
    for chunk in _chunks(planned.check, subject, settings.effort.draws):
        if settings.watch is not None:
            settings.watch(subject.model.name, planned.check.id, chunk.done)
        before = copy.deepcopy(statistic)
        statistic.update(chunk.numbers)  # type: ignore[arg-type]
        if not statistic.look(CONFIDENCE).log_e < needed:
            return chunk.done + _fewest_rows(before, chunk, needed, end)
        if time.perf_counter() > end:
            return None
    return None


def _fewest_rows(before: Accumulator, chunk: _Chunk, needed: float, end: float) -> int:
    """By halving, until the clock shows `end`: how many draws of the chunk reach the evidence, one fewer not."""
    enough, too_few = chunk.rows, 0
    while enough - too_few > 1 and time.perf_counter() <= end:
        rows = (enough + too_few) // 2
        trial = copy.deepcopy(before)
        trial.update(chunk.first(rows))  # type: ignore[arg-type]
        if trial.look(CONFIDENCE).log_e < needed:
            too_few = rows
        else:
            enough = rows
    return enough


# ------------------------------------------------------------------------------------------- writing it down


def with_reproducer(
    record: Record, subject: Subject, planned: Planned, settings: Settings, origin: Origin, *, seconds: float = math.inf
) -> Record:
    """A FAIL with its reproducer; every other record as it is. Shrinking takes `seconds` at most, or LEAST_SECONDS."""
    if record.verdict is not Verdict.FAIL:
        return record
    n = record.n_samples
    if isinstance(record.evidence, Estimated):
        found = caught(lambda: fewest_draws(subject, planned, settings, max(seconds, LEAST_SECONDS)))
        # A model that raises only sometimes: the whole sample is what is known to fail.
        n = min(n, found) if isinstance(found, int) else n
    return replace(record, reproducer=reproducer(record, origin, seed=settings.seed, effort=settings.effort, n=n))


def reproducer(record: Record, origin: Origin, *, seed: int, effort: Effort, n: int) -> Reproducer:
    """The command and the script for a FAIL that is seen again with n draws, or points."""
    return Reproducer(_command(record, origin, seed, effort), _script(record, origin, seed, effort, n), n)


def _command(record: Record, origin: Origin, seed: int, effort: Effort) -> str:
    """A run of this check, and of those that could block it, in which its share of alpha is no smaller than it was."""
    sharing = [check for check in select(CHECKS, [record.check]) if isinstance(check, StatisticalCheck)]
    alpha = max(FALSE_ALARM_BUDGET, record.alpha * len(sharing))
    given = {"alpha": alpha} if alpha > FALSE_ALARM_BUDGET else {}
    if origin.spec and EFFORTS.get(effort.name) == effort:
        options = {"only": record.check, "seed": seed, "effort": effort.name, **_place(origin), **given}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return shlex.join(["harness", "check", origin.spec, *words])
    model = f"model_from({origin.spec!r})" if origin.spec else "model"
    dtype = {"dtype": _Code(f"torch.{origin.dtype}")} if origin.dtype else {}
    options = {"only": [record.check], "seed": seed, "effort": _short(effort), **_place(origin), **dtype, **given}
    return f"check_model({model}, {_keywords(options)})"


def _script(record: Record, origin: Origin, seed: int, effort: Effort, n: int) -> str:
    law = check_named(CHECKS, record.check).law
    points = "n" if isinstance(record.evidence, Exact) else "the number of draws"
    about = [f"{record.check} on {record.model}, at {points} = {n}: {law}", f"Seen: {record.message}"]
    about.append("Exit status: 1 while the defect is there, 0 when it is not seen any more.")
    names = "rerun" if not origin.spec else "model_from, rerun"
    options = {"seed": seed, "effort": _short(effort), "n": n, "alpha": record.alpha, **_place(origin)}
    lines = [
        *(f"# {line}" for text in about for line in textwrap.wrap(text, 116)),
        "import sys",
        "",
        *(["from harness import Effort"] if isinstance(_short(effort), Effort) else []),
        f"from harness.reproduce import {names}",
        "",
        f"model = model_from({origin.spec!r})" if origin.spec else f"model = ...  # your model: {origin.thing}",
        f"record = rerun(model, {record.check!r}, {_keywords(options)})",
        'print(f"{record.verdict}: {record.message}")',
        'sys.exit(1 if record.verdict in ("FAIL", "ERROR") else 0)',
    ]
    return "\n".join(lines) + "\n"


class _Code(str):
    """Text that is written as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _place(origin: Origin) -> dict[str, object]:
    """Device and dtype, where they are not the model's own."""
    found = {"device": origin.device if origin.device != "cpu" else "", "dtype": origin.dtype}
    return {name: value for name, value in found.items() if value}


def _short(effort: Effort) -> str | Effort:
    return effort.name if EFFORTS.get(effort.name) == effort else effort


def _keywords(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
