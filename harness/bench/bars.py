"""What each series of a history is held against; those of one kind learn from each other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.bench.dependence import dependence, independent
from harness.bench.history import Environment, Series
from harness.bench.noise import Prior, fitted_prior, noise
from harness.bench.steps import Bar, Step, steps
from harness.bench.tail import tail
from harness.bench.together import Together, shared_scatter, shared_shift

GRAIN = 2**20
"""Bytes, as in `job.py`."""

DISTURBED = ("time", "memory")
"""What other processes can change; NLL comes from fixed seeds."""

DRIFTING = ("time",)
"""What a machine changes for hours; bytes do not depend on the hour."""

LEAST = {"time": 1e-3, "memory": 1e-3, "nll": 1e-5}
"""Deviations that are there in any case: of a clock, of the kernel's counters, of float32 sums in another order."""

PASSES = 10
"""At most; each finds more than the one before."""


@dataclass(frozen=True)
class Prepared:
    """A series as it is judged: logarithms without what it shares with the others, and its bar."""

    series: Series
    y: list[float]
    bar: Bar
    steps: list[Step]

    @property
    def enough(self) -> bool:
        """Can any step be seen?"""
        n = len(self.y)
        return n >= self.bar.shortest + self.bar.newest(n) and math.isfinite(self.bar.noise[0])


@dataclass(frozen=True)
class Shift:
    """What all `count` series of an environment share, commit by commit."""

    environment: Environment
    metric: str
    unit: str
    count: int
    commits: tuple[str, ...]
    y: tuple[float, ...]
    bar: Bar


def prepared(kind: Sequence[Series], share: float, policy: float) -> tuple[list[Prepared], list[Shift]]:
    """The series of one metric with their steps, and the shifts; `share` is the alpha of one series.

    Steps that were found are no noise: they are taken out, noise is learnt again, and what it hid before is found then.
    A history in which nothing is found at first is judged once, so its level is not touched.
    """
    taken: list[list[float]] = [[0.0] * len(series.usable) for series in kind]
    for _ in range(PASSES):
        found, shifts = _judged(kind, taken, share, policy)
        count = sum(each != 0 for offsets in taken for each in offsets)
        taken = [_offsets(one) for one in found]
        if sum(each != 0 for offsets in taken for each in offsets) <= count:
            break
    return found, shifts


def _judged(
    kind: Sequence[Series], taken: Sequence[Sequence[float]], share: float, policy: float
) -> tuple[list[Prepared], list[Shift]]:
    """One pass: `taken` is subtracted from the points of each series wherever noise is learnt."""
    metric = kind[0].metric
    flat = [_by_commit(series, offsets) for series, offsets in zip(kind, taken, strict=True)]
    together = _together(kind, flat, LEAST[metric]) if metric in DISTURBED else {}
    alone = [
        together.get(series.environment, Together()).without(each) for series, each in zip(kind, flat, strict=True)
    ]
    bars = _bars(kind, alone, together, share, policy)
    found = []
    for series, y, offsets, bar in zip(kind, alone, taken, bars, strict=True):
        whole = [value + offset for value, offset in zip(y, offsets, strict=True)]
        found.append(Prepared(series, whole, bar, steps(whole, bar) if whole else []))
    return found, _shifts(kind, together, share, bars)


def _offsets(one: Prepared) -> list[float]:
    """How far each point's level is from the first one."""
    offsets = [0.0] * len(one.y)
    for step in one.steps:
        offsets[step.first :] = [step.after - one.steps[0].before] * (len(one.y) - step.first)
    return offsets


def _by_commit(series: Series, offsets: Sequence[float]) -> dict[str, float]:
    logs = (y - offset for y, offset in zip(series.logs(), offsets, strict=True))
    return dict(zip((point.commit for point in series.usable), logs, strict=True))


def _together(kind: Sequence[Series], flat: Sequence[dict[str, float]], least: float) -> dict[Environment, Together]:
    """The shift of each environment."""
    groups: dict[Environment, list[dict[str, float]]] = {}
    for series, each in zip(kind, flat, strict=True):
        if each:
            groups.setdefault(series.environment, []).append(each)
    found = {}
    for environment, logs in groups.items():
        prior = fitted_prior([list(each.values()) for each in logs], least)
        known = [(each, noise(list(each.values()), prior)[0]) for each in logs]
        known = [(each, variance) for each, variance in known if math.isfinite(variance)]
        found[environment] = Together(shared_shift([e for e, _ in known], [math.sqrt(v) for _, v in known]))
    return found


def _bars(
    kind: Sequence[Series],
    logs: Sequence[list[float]],
    together: Mapping[Environment, Together],
    share: float,
    policy: float,
) -> list[Bar]:
    """What each series is held against, from their logarithms without shifts and known steps."""
    metric = kind[0].metric
    prior = _prior(logs, metric)
    noises = [noise(y, prior) for y in logs]
    units = [[v / math.sqrt(variance) for v in y] for y, (variance, _) in zip(logs, noises, strict=True)]
    known = [unit for unit, (variance, _) in zip(units, noises, strict=True) if math.isfinite(variance)]
    longest = max(map(len, logs), default=0)
    depends = dependence(known) if metric in DRIFTING and known else independent(longest)
    seen = tail(known) if metric in DISTURBED else None
    scatters = {where: _scatter(kind, units, where) for where in together}
    return [
        Bar(
            noise=one,
            alpha=share / harmonic(len(y) // 2),
            policy=max(policy, _grain(y)) if metric == "memory" else policy,
            dependence=depends,
            tail=seen,
            scatter=tuple(scatters.get(series.environment, {}).get(point.commit, 0.0) for point in series.usable),
        )
        for series, y, one in zip(kind, logs, noises, strict=True)
    ]


def _scatter(kind: Sequence[Series], units: Sequence[list[float]], where: Environment) -> dict[str, float]:
    """Of the commits of one environment."""
    chosen = [(series.usable, unit) for series, unit in zip(kind, units, strict=True) if series.environment == where]
    return shared_scatter([{p.commit: v for p, v in zip(points, unit, strict=True)} for points, unit in chosen])


def _shifts(
    kind: Sequence[Series], together: Mapping[Environment, Together], share: float, bars: Sequence[Bar]
) -> list[Shift]:
    """What is shared is a series, too, with a noise of its own; it is disturbed no more often than the others are."""
    dates = {point.commit: point.date for series in kind for point in series.points}
    policy, found = statistics.median(bar.policy for bar in bars), []
    for environment, each in together.items():
        commits = sorted(each.shift, key=lambda commit: (dates[commit], commit))
        y = [each.shift[commit] for commit in commits]
        own = noise(y, Prior(least=LEAST[kind[0].metric]))
        if not math.isfinite(own[0]):
            continue
        unit = [[value / math.sqrt(own[0]) for value in y]]
        bar = Bar(own, share / harmonic(len(y) // 2), policy, dependence(unit), bars[0].tail)
        count = sum(series.environment == environment for series in kind)
        found.append(Shift(environment, kind[0].metric, kind[0].unit, count, tuple(commits), tuple(y), bar))
    return found


def harmonic(n: int) -> float:
    """1 + 1 / 2 + ... + 1 / n; 1 for less than 1."""
    return sum(1 / m for m in range(1, max(n, 1) + 1))


def _grain(y: Sequence[float]) -> float:
    """What a mebibyte more is of the memory of a series, as a logarithm: the kernel's counters are off by as much."""
    return math.log1p(GRAIN / math.exp(statistics.median(y))) if y else 0.0


def _prior(logs: Iterable[Sequence[float]], metric: str) -> Prior:
    """What the series of a kind say of noise. NLL comes from fixed seeds: its noise is known to be that of sums."""
    found = fitted_prior(logs, LEAST[metric])
    if metric == "nll" and found.freedom == 0:
        return Prior(LEAST[metric] ** 2, 1e6, LEAST[metric])
    return found
