"""What a history says: steps for the worse, whether they still stand, and whether code or environment made them.

Within one environment only the code changes from commit to commit, so a step there is the code's. Two environments are
told apart by the commits that were measured in both: their differences are the environment's. Where two environments
follow each other without a common commit, a step between them may be either's, and the answer says what to measure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from harness.bench.history import History, Series
from harness.bench.steps import Prior, difference_needed, fitted_prior, needed, noise, places, steps

POLICY = {"time": math.log(1.03), "memory": math.log(1.03), "nll": 0.005}
"""What does not matter: 3 % of seconds or bytes; 0.5 % of exp(NLL / dim), which is 0.005 nats per dimension."""

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
    priors = {metric: _prior(history, metric) for metric in POLICY}
    pairs = list(_neighbours(history.series))
    logs = [series.logs() for series in history.series]
    answer = Judgement(alpha, tests=places(logs) + len(pairs))
    level = alpha / max(answer.tests, 1)
    for series, y in zip(history.series, logs, strict=True):
        answer.failures += _lost(series)
        prior, least = priors[series.metric], policy[series.metric]
        enough = len(y) >= 3 or (len(y) == 2 and prior.freedom > 0)
        answer.judged, answer.short = answer.judged + enough, answer.short + (not enough)
        if enough:
            answer.found += _in_series(series, y, prior, level, least)
    for old, new in pairs:
        answer.found += _between(old, new, priors[old.metric], level, policy[old.metric])
    answer.smallest = _sensitivity(history, priors, level, policy)
    return answer


def _prior(history: History, metric: str) -> Prior:
    """What the series of a kind say of noise. NLL comes from fixed seeds: its noise is known to be that of sums."""
    found = fitted_prior((s.logs() for s in history.series if s.metric == metric), LEAST[metric])
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


def _in_series(series: Series, y: Sequence[float], prior: Prior, level: float, policy: float) -> Iterator[Found]:
    """Steps within one environment: the code's."""
    points, found = series.usable, steps(y, prior, level, policy)
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
            stands=found[-1].after - step.before > policy,
        )


def _neighbours(series: Sequence[Series]) -> Iterator[tuple[Series, Series]]:
    """The same benchmark in environments that follow each other, by their first commits."""
    by_name: dict[tuple[str, str], list[Series]] = {}
    for each in series:
        if each.usable:
            by_name.setdefault((each.name, each.unit), []).append(each)
    for group in by_name.values():
        yield from pairwise(sorted(group, key=lambda each: (each.usable[0].date, each.usable[-1].date)))


def _between(old: Series, new: Series, prior: Prior, level: float, policy: float) -> Iterator[Found]:
    """A step from one environment to the next: at common commits the environment's, else of one of the two."""
    ours = dict(zip((p.commit for p in old.usable), old.logs(), strict=True))
    theirs = dict(zip((p.commit for p in new.usable), new.logs(), strict=True))
    common = [commit for commit in theirs if commit in ours]
    if common:
        size = statistics.fmean(theirs[c] - ours[c] for c in common)
        counts, cause = (len(common), len(common)), ENVIRONMENT
    else:
        before, after = _level_at(old, -1, prior, level, policy), _level_at(new, 0, prior, level, policy)
        size, counts, cause = after[0] - before[0], (before[1], after[1]), EITHER
    bar = max(policy, difference_needed(noise(old.logs(), prior), noise(new.logs(), prior), counts, level))
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


def _level_at(series: Series, end: int, prior: Prior, level: float, policy: float) -> tuple[float, int]:
    """The first or last level of a series, and how many points it is the mean of."""
    y = series.logs()
    cuts = [step.first for step in steps(y, prior, level, policy)]
    part = y[cuts[-1] :] if end == -1 and cuts else y[: cuts[0]] if cuts else y
    return statistics.fmean(part), len(part)


def _sensitivity(
    history: History, priors: dict[str, Prior], level: float, policy: dict[str, float]
) -> dict[str, float]:
    """By metric, the step at the newest commit that half of the series would have shown."""
    found: dict[str, list[float]] = {}
    for series in history.series:
        y = series.logs()
        if len(y) >= 2:
            bar = needed(noise(y, priors[series.metric]), 1, len(y) - 1, level)
            found.setdefault(series.metric, []).append(max(policy[series.metric], bar))
    return {metric: statistics.median(bars) for metric, bars in found.items()}
