"""What a history says: steps for the worse, whether they still stand, and whether code or environment made them.

Within one environment only the code changes from commit to commit, and the machine: a step of one series there is the
code's, one that all of them share may be either's, and is no regression before another measurement tells. Two
environments are told apart by the commits that were measured in both: their differences are the environment's. Where
two environments follow each other without a common commit, a step between them may be either's, and the answer says
what to measure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from harness.bench.bars import DISTURBED, Prepared, Shift, prepared
from harness.bench.history import History, Series
from harness.bench.steps import Bar, difference_needed, steps

POLICY = {"time": math.log(1.03), "memory": math.log(1.03), "nll": 0.005}
"""What does not matter: 3 % of seconds or bytes; 0.5 % of exp(NLL / dim), which is 0.005 nats per dimension."""

CODE, ENVIRONMENT, EITHER = "code", "environment", "code or environment"

LASTING = 5
"""Runs of a level, of which it is said what could have been missed; half of a short history."""


@dataclass(frozen=True)
class Found:
    """A step: in which series, at which commit, by how much (a logarithm), and how sure it had to be."""

    series: str
    metric: str
    unit: str
    commit: str
    before: str  # the commit before
    size: float
    needed: float
    cause: str
    environment: str
    note: str = ""
    stands: bool = True  # is the newest level still worse than the one before the step?
    shared: bool = False  # by all timings, so that it may be the machine's

    @property
    def worse(self) -> bool:
        return self.size > 0

    @property
    def fails(self) -> bool:
        """Worse, not taken back, and by something that a commit or an upgrade can answer for."""
        elsewhere = self.note.startswith("another machine") and self.metric != "nll"
        return self.worse and self.stands and not elsewhere and not self.shared


@dataclass(frozen=True)
class Missed:
    """The largest steps of a metric that could have been missed: in half of the series, and in the noisiest."""

    newest: tuple[float, float]  # by the newest run alone; infinite where it is too soon to tell
    lasting: tuple[float, float]  # by the newest `runs`
    runs: int


@dataclass
class Judgement:
    """All that was found in a history."""

    alpha: float
    found: list[Found] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # values that are missing or not finite
    judged: int = 0  # series with enough points
    short: int = 0  # series without
    tests: int = 0  # series, and pairs of environments, that share alpha
    missed: dict[str, Missed] = field(default_factory=dict)  # by metric

    @property
    def regressions(self) -> list[Found]:
        return [each for each in self.found if each.fails]


def judged(history: History, alpha: float = 0.01, policy: dict[str, float] | None = None) -> Judgement:
    """Every series of the history at a level of alpha over all of them. ValueError for an alpha that is no level."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}: give a probability between 0 and 1, such as 0.01")
    pairs = list(_neighbours(history.series))
    places = {(series.metric, series.environment) for series in history.series if series.metric in DISTURBED}
    answer = Judgement(alpha, tests=len(history.series) + len(pairs) + len(places))
    ready: dict[int, Prepared] = {}
    shifts: list[Shift] = []
    for metric, matters in {**POLICY, **(policy or {})}.items():
        kind = [series for series in history.series if series.metric == metric]
        if kind:
            found, shared = prepared(kind, alpha / answer.tests, matters)
            ready |= {id(one.series): one for one in found}
            shifts += shared
    for series in history.series:
        answer.failures += _lost(series)
        one = ready[id(series)]
        answer.judged, answer.short = answer.judged + one.enough, answer.short + (not one.enough)
        if one.enough:
            answer.found += _in_series(one)
    for shift in shifts:
        answer.found += _shared(shift)
    for old, new in pairs:
        answer.found += _between(ready[id(old)], ready[id(new)])
    answer.missed = _missed(ready.values())
    return answer


def _lost(series: Series) -> Iterator[str]:
    """A value that is not finite fails; one that never was there does not apply."""
    newest = series.points[-1]
    if newest.usable:
        return
    where = f"at {newest.commit[:8]} ({series.environment})"
    since = f"; it last had a value at {series.usable[-1].commit[:8]}" if series.usable else ""
    if newest.value is None:
        yield f"{series.name}: no value {where}{since}"
    elif not math.isnan(newest.value):
        yield f"{series.name}: {newest.value}, which is not positive and finite, {where}{since}"
    elif since:
        yield f"{series.name}: NaN {where}{since}"


def _in_series(one: Prepared) -> Iterator[Found]:
    """Steps within one environment: the code's."""
    series, points = one.series, one.series.usable
    for step in one.steps:
        yield Found(
            series=series.name,
            metric=series.metric,
            unit=series.unit,
            commit=points[step.first].commit,
            before=points[step.first - 1].commit,
            size=step.size,
            needed=step.needed,
            cause=CODE,
            environment=str(series.environment),
            stands=one.steps[-1].after - step.before > one.bar.policy,
        )


def _shared(shift: Shift) -> Iterator[Found]:
    """Steps that all series take together: of time, the machine's or what all share; of memory, the code's."""
    found = steps(shift.y, shift.bar)
    for step in found:
        commit, before = shift.commits[step.first], shift.commits[step.first - 1]
        unclear = shift.metric == "time"
        yield Found(
            series=f"all {shift.count} series",
            metric=shift.metric,
            unit=shift.unit,
            commit=commit,
            before=before,
            size=step.size,
            needed=step.needed,
            cause=EITHER if unclear else CODE,
            environment=str(shift.environment),
            note=f"`harness bench MODEL --commits {before[:8]} {commit[:8]}` tells them apart" if unclear else "",
            stands=found[-1].after - step.before > shift.bar.policy,
            shared=unclear,
        )


def _neighbours(series: Sequence[Series]) -> Iterator[tuple[Series, Series]]:
    """The same benchmark in environments that follow each other, by their first commits."""
    by_name: dict[tuple[str, str], list[Series]] = {}
    for each in series:
        if each.usable:
            by_name.setdefault((each.name, each.unit), []).append(each)
    for group in by_name.values():
        yield from pairwise(sorted(group, key=lambda each: (each.usable[0].date, each.usable[-1].date)))


def _between(before: Prepared, after: Prepared) -> Iterator[Found]:
    """A step from one environment to the next: at common commits the environment's, else of one of the two."""
    old, new = before.series, after.series
    ours = dict(zip((p.commit for p in old.usable), before.y, strict=True))
    theirs = dict(zip((p.commit for p in new.usable), after.y, strict=True))
    common = [commit for commit in theirs if commit in ours]
    if common:
        size = statistics.median(theirs[c] - ours[c] for c in common)
        counts, cause = (len(common), len(common)), ENVIRONMENT
    else:
        last, first = _level_at(before, -1), _level_at(after, 0)
        size, counts, cause = first[0] - last[0], (last[1], first[1]), EITHER
    needed = max(before.bar.policy, difference_needed(before.bar, after.bar, counts))
    if abs(size) > needed:
        note = old.environment.changes(new.environment)
        if old.environment.machine != new.environment.machine:
            note = f"another machine: {note}"
        if not common:
            note += f"; measure {old.usable[-1].commit[:8]} in {new.environment} to tell them apart"
        yield Found(
            series=new.name,
            metric=new.metric,
            unit=new.unit,
            commit=common[0] if common else new.usable[0].commit,
            before=common[0] if common else old.usable[-1].commit,
            size=size,
            needed=needed,
            cause=cause,
            environment=str(new.environment),
            note=note,
        )


def _level_at(one: Prepared, end: int) -> tuple[float, int]:
    """The first (0) or last (-1) level of a series, and of how many points it is the median."""
    ends = [0, *(step.first for step in one.steps), len(one.y)]
    part = one.y[ends[-2] :] if end else one.y[: ends[1]]
    return statistics.median(part), len(part)


def _missed(every: Iterable[Prepared]) -> dict[str, Missed]:
    """By metric, over the series that were judged."""
    kinds: dict[str, list[Prepared]] = {}
    for one in every:
        if one.enough:
            kinds.setdefault(one.series.metric, []).append(one)
    return {metric: _missed_in(kind) for metric, kind in kinds.items()}


def _missed_in(kind: Sequence[Prepared]) -> Missed:
    runs = max(min(LASTING, len(one.y) // 2) for one in kind)
    newest = [_missed_by(one.bar, len(one.y), 1) for one in kind]
    lasting = [_missed_by(one.bar, len(one.y), min(runs, len(one.y) // 2)) for one in kind]
    return Missed(_half_and_all(newest), _half_and_all(lasting), runs)


def _missed_by(bar: Bar, n: int, runs: int) -> float:
    return bar.missed(n - runs, runs) if runs >= bar.newest(n) else math.inf


def _half_and_all(sizes: Sequence[float]) -> tuple[float, float]:
    return statistics.median(sizes), max(sizes)
