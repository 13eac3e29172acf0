"""What a history says: steps for the worse, whether they still stand, and whether code or environment made them.

Within one environment only the code changes from commit to commit, so a step there is the code's. Two environments are
told apart by the commits that were measured in both: their differences are the environment's. Where two environments
follow each other without a common commit, a step between them may be either's, and the answer says what to measure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from harness.bench.history import History, Series
from harness.bench.steps import Bar, Prior, difference_needed, excursions, fitted_prior, noise, places, steps

POLICY = {"time": math.log(1.03), "memory": math.log(1.03), "nll": 0.005}
"""What does not matter: 3 % of seconds or bytes; 0.5 % of exp(NLL / dim), which is 0.005 nats per dimension."""

GRAIN = 2**20
"""Bytes, as in `job.py`."""

DISTURBED = ("time", "memory")
"""What other processes can change; NLL comes from fixed seeds."""

LEAST = {"time": 1e-3, "memory": 1e-3, "nll": 1e-5}
"""Deviations that are there in any case: of a clock, of the kernel's counters, of float32 sums in another order."""

CODE, ENVIRONMENT, EITHER = "code", "environment", "code or environment"


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

    @property
    def worse(self) -> bool:
        return self.size > 0

    @property
    def fails(self) -> bool:
        """Worse, not taken back, and by something that a commit or an upgrade can answer for."""
        return self.worse and self.stands and not (self.note.startswith("another machine") and self.metric != "nll")


@dataclass
class Judgement:
    """All that was found in a history."""

    alpha: float
    found: list[Found] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # values that are missing or not finite
    judged: int = 0  # series with enough points
    short: int = 0  # series without
    tests: int = 0
    smallest: dict[str, float] = field(default_factory=dict)  # by metric: the step that a middling series could show

    @property
    def regressions(self) -> list[Found]:
        return [each for each in self.found if each.fails]


def judged(history: History, alpha: float = 0.01, policy: dict[str, float] | None = None) -> Judgement:
    """Every series of the history at a level of alpha over all of them. ValueError for an alpha that is no level."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}: give a probability between 0 and 1, such as 0.01")
    policy = {**POLICY, **(policy or {})}
    pairs = list(_neighbours(history.series))
    logs = {id(series): series.logs() for series in history.series}
    answer = Judgement(alpha, tests=places(logs.values()) + len(pairs))
    bars = _bars(history, logs, alpha / max(answer.tests, 1), policy)
    for series in history.series:
        answer.failures += _lost(series)
        y, bar = logs[id(series)], bars[id(series)]
        enough = len(y) > bar.shortest and math.isfinite(bar.noise[0])
        answer.judged, answer.short = answer.judged + enough, answer.short + (not enough)
        if enough:
            answer.found += _in_series(series, y, bar)
    for old, new in pairs:
        answer.found += _between(old, new, bars[id(old)], bars[id(new)])
    answer.smallest = _sensitivity(history, bars)
    return answer


def _bars(history: History, logs: dict[int, list[float]], level: float, policy: dict[str, float]) -> dict[int, Bar]:
    """What each series is held against; those of one kind learn from each other."""
    bars: dict[int, Bar] = {}
    for metric in POLICY:
        kind = {id(series): logs[id(series)] for series in history.series if series.metric == metric}
        prior = _prior(kind.values(), metric)
        tail = excursions(kind.values(), prior) if metric in DISTURBED else None
        for key, y in kind.items():
            matters = max(policy[metric], _grain(y)) if metric == "memory" else policy[metric]
            bars[key] = Bar(noise(y, prior), level, matters, tail)
    return bars


def _grain(y: Sequence[float]) -> float:
    """What a mebibyte more is of the memory of a series, as a logarithm: the kernel's counters are off by as much."""
    return math.log1p(GRAIN / math.exp(statistics.median(y))) if y else 0.0


def _prior(logs: Iterable[Sequence[float]], metric: str) -> Prior:
    """What the series of a kind say of noise. NLL comes from fixed seeds: its noise is known to be that of sums."""
    found = fitted_prior(logs, LEAST[metric])
    if metric == "nll" and found.freedom == 0:
        return Prior(LEAST[metric] ** 2, 1e6, LEAST[metric])
    return found


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


def _in_series(series: Series, y: Sequence[float], bar: Bar) -> Iterator[Found]:
    """Steps within one environment: the code's."""
    points, found = series.usable, steps(y, bar)
    for step in found:
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
            stands=found[-1].after - step.before > bar.policy,
        )


def _neighbours(series: Sequence[Series]) -> Iterator[tuple[Series, Series]]:
    """The same benchmark in environments that follow each other, by their first commits."""
    by_name: dict[tuple[str, str], list[Series]] = {}
    for each in series:
        if each.usable:
            by_name.setdefault((each.name, each.unit), []).append(each)
    for group in by_name.values():
        yield from pairwise(sorted(group, key=lambda each: (each.usable[0].date, each.usable[-1].date)))


def _between(old: Series, new: Series, ours_bar: Bar, theirs_bar: Bar) -> Iterator[Found]:
    """A step from one environment to the next: at common commits the environment's, else of one of the two."""
    ours = dict(zip((p.commit for p in old.usable), old.logs(), strict=True))
    theirs = dict(zip((p.commit for p in new.usable), new.logs(), strict=True))
    common = [commit for commit in theirs if commit in ours]
    if common:
        size = statistics.median(theirs[c] - ours[c] for c in common)
        counts, cause = (len(common), len(common)), ENVIRONMENT
    else:
        before, after = _level_at(old, -1, ours_bar), _level_at(new, 0, theirs_bar)
        size, counts, cause = after[0] - before[0], (before[1], after[1]), EITHER
    bar = max(ours_bar.policy, difference_needed(ours_bar.noise, theirs_bar.noise, counts, ours_bar.level))
    if abs(size) > bar:
        first = common[0] if common else new.usable[0].commit
        note = old.environment.changes(new.environment)
        if old.environment.machine != new.environment.machine:
            note = f"another machine: {note}"
        if not common:
            note += f"; measure {old.usable[-1].commit[:8]} in {new.environment} to tell them apart"
        yield Found(
            series=new.name,
            metric=new.metric,
            unit=new.unit,
            commit=first,
            before=first if common else old.usable[-1].commit,
            size=size,
            needed=bar,
            cause=cause,
            environment=str(new.environment),
            note=note,
        )


def _level_at(series: Series, end: int, bar: Bar) -> tuple[float, int]:
    """The first (0) or last (-1) level of a series, and of how many points it is the median."""
    y = series.logs()
    ends = [0, *(step.first for step in steps(y, bar)), len(y)]
    part = y[ends[-2] :] if end else y[: ends[1]]
    return statistics.median(part), len(part)


def _sensitivity(history: History, bars: dict[int, Bar]) -> dict[str, float]:
    """By metric, the step at the newest commit that half of the series would have shown."""
    found: dict[str, list[float]] = {}
    for series in history.series:
        count, bar = len(series.usable), bars[id(series)]
        if count > bar.shortest:
            found.setdefault(series.metric, []).append(max(bar.policy, bar.needed(count - 1, 1)))
    return {metric: statistics.median(sizes) for metric, sizes in found.items()}
