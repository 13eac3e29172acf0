"""The state of all nights: a JSON file that is replaced whole, and a lock that one run at a time holds.

A state is a pure function of the reports of its nights, folded in one after the other by `folded`.
"""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import CallError
from harness.evidence import Carried, Estimated
from harness.report import Report
from harness.store import plain, write_text
from suites.nightly import sums
from suites.nightly.accumulate import START, grown, log_capital, reached, spent
from suites.nightly.sums import Layout

FORMAT = 2
READABLE = (1, FORMAT)
"""Format 1 has no sums."""
ALPHA = 1e-6
"""Probability that correct models ever turn a night red by a statistical verdict."""


@dataclass(frozen=True)
class Pair:
    """A check on a model over the nights of a series: log of what each stake made of 1, the sums of all nights, and
    the strongest night."""

    logs: tuple[float, ...] = START
    layouts: tuple[Layout, ...] = ()
    nights: int = 0
    strongest: int = 0
    strongest_log_e: float = -math.inf
    crossed: int = 0  # the night on which it became a FAIL; it stays one while the code stays as it is

    @property
    def log_capital(self) -> float:
        """log of what all nights have made of 1."""
        return log_capital(self.logs, sums.log_capital(self.layouts))


@dataclass(frozen=True)
class Series:
    """The nights of one model while its code and the examiner stay as they are. `level` is that of each check."""

    name: str
    facts: Mapping[str, Any]
    fingerprint: str
    generation: int
    level: float
    first: int
    pairs: Mapping[str, Pair] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """`series` by SPEC; `closed` are those that ended, without their pairs; `nights` what each night was and found."""

    alpha: float = ALPHA
    night: int = 0
    generations: int = 0
    series: Mapping[str, Series] = field(default_factory=dict)
    closed: tuple[Mapping[str, Any], ...] = ()
    nights: tuple[Mapping[str, Any], ...] = ()


def with_series(state: State, planned: Sequence[tuple[str, str, Mapping[str, Any], str]], checks: int) -> State:
    """The state in which every planned (name, spec, facts, fingerprint) has a series: those that differ from what is
    going on start anew, with levels that are fixed before a draw is made."""
    new = [item for item in planned if _fingerprint(state, item[1]) != item[3]]
    if not new:
        return state
    generation = state.generations + 1
    level = spent(state.alpha / 2, generation) / (len(new) * checks)
    first = state.night + 1
    ended = [_ended(state.series[spec], state.night) for _, spec, _, _ in new if spec in state.series]
    started = {spec: Series(name, facts, mark, generation, level, first) for name, spec, facts, mark in new}
    return replace(
        state,
        generations=generation,
        series={**state.series, **started},
        closed=(*state.closed, *ended),
    )


def _fingerprint(state: State, spec: str) -> str:
    return state.series[spec].fingerprint if spec in state.series else ""


def _ended(series: Series, night: int) -> dict[str, Any]:
    crossed = {check: pair.crossed for check, pair in series.pairs.items() if pair.crossed}
    return {
        **{"name": series.name, "spec": series.facts["spec"], "fingerprint": series.fingerprint},
        **{"generation": series.generation, "first": series.first, "last": night, "crossed": crossed},
    }


def folded(state: State, report: Report, told: Mapping[str, Any]) -> State:
    """The state after the night of the report; `told` is what is written down of the night."""
    night = state.night + 1
    series = dict(state.series)
    specs = report.run.specs
    for record in report.records:
        evidence = record.evidence
        if record.model in specs and isinstance(evidence, Estimated) and evidence.carried is not None:
            spec = specs[record.model]
            series[spec] = _with_record(series[spec], record.check, evidence.carried, night)
    return replace(state, night=night, series=series, nights=(*state.nights, told))


def _with_record(series: Series, check: str, carried: Carried, night: int) -> Series:
    before, log_e = series.pairs.get(check, Pair()), carried.log_e
    stronger = not log_e <= before.strongest_log_e
    pair = replace(
        before,
        logs=grown(before.logs, log_e),
        layouts=sums.gone_on(before.layouts, carried),
        nights=before.nights + 1,
        strongest=night if stronger else before.strongest,
        strongest_log_e=log_e if stronger else before.strongest_log_e,
    )
    if not pair.crossed and reached(pair.log_capital, series.level):
        pair = replace(pair, crossed=night)
    return replace(series, pairs={**series.pairs, check: pair})


def abandoned(state: State, why: str) -> State:
    """The state after a night that cannot be finished as it was begun: its number, and so its seed, is used up."""
    return replace(state, night=state.night + 1, nights=(*state.nights, {"night": state.night + 1, "abandoned": why}))


def crossed(state: State, specs: Sequence[str]) -> Iterator[tuple[Series, str, Pair]]:
    """The accumulated FAILs of these models."""
    for spec in specs:
        for check, pair in state.series[spec].pairs.items():
            if pair.crossed:
                yield state.series[spec], check, pair


# ----------------------------------------------------------------------------------------------- the file


def read(path: Path, alpha: float | None = None) -> State:
    """The state in the file, or a new one. CallError, with one line that names the fix, where it cannot be used."""
    if not path.exists():
        return State(alpha=ALPHA if alpha is None else alpha)
    try:
        state = _loaded(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CallError(
            f"{path} is no state of nights ({type(error).__name__}: {error}): restore it from the last night's "
            "artifact, or name another --state"
        ) from None
    if alpha is not None and alpha != state.alpha:
        raise CallError(f"--alpha is {alpha}, but {path} was begun with {state.alpha}: leave --alpha out")
    return state


def _loaded(data: dict[str, Any]) -> State:
    if data["format"] not in READABLE:
        raise ValueError(f"format is {data['format']!r}, not one of {READABLE}")
    series = {
        spec: Series(**{**item, "pairs": {check: _pair(pair) for check, pair in item["pairs"].items()}})
        for spec, item in data["series"].items()
    }
    own = {name: data[name] for name in ("alpha", "night", "generations")}
    return State(**own, series=series, closed=tuple(data["closed"]), nights=tuple(data["nights"]))


def _pair(data: dict[str, Any]) -> Pair:
    """`plain` writes what is not finite as a string, which float reads."""
    numbers = {"logs": tuple(map(float, data["logs"])), "strongest_log_e": float(data["strongest_log_e"])}
    layouts = tuple(
        Layout(**{name: tuple(map(float, values)) for name, values in layout.items()})
        for layout in data.get("layouts", ())
    )
    return Pair(**{**data, **numbers, "layouts": layouts})


def write(state: State, path: Path) -> None:
    """Whole or not at all. CallError where the file cannot be written."""
    try:
        write_text(path, _text({"format": FORMAT, **plain(state)}))
    except OSError as error:
        raise CallError(str(error)) from None


def _text(data: dict[str, Any]) -> str:
    """JSON with one series a line."""
    series = ",\n".join(f"  {_json(spec)}: {_json(item)}" for spec, item in data.pop("series").items())
    head = ",\n".join(f" {_json(name)}: {_json(value)}" for name, value in data.items())
    return f'{{\n{head},\n "series": {{\n{series}\n }}\n}}\n'


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by one process at a time, and given back by the system when it dies. CallError where another has it."""
    lock = path.with_name(path.name + ".lock")
    try:
        file = open(lock, "a")  # noqa: SIM115
    except OSError as error:
        raise CallError(
            f"cannot write {lock}: {error.strerror}; name a --state in a folder that you may write to"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CallError(f"another run works on {path}: wait for it, or name another --state") from None
        yield


def summary(series: Series, check: str, pair: Pair) -> str:
    """The evidence of a pair in words."""
    ten = math.log(10)
    return (
        f"{series.name} {check}: {pair.nights} nights since {series.first} are evidence "
        f"10^{pair.log_capital / ten:.1f} against the law, {-math.log10(series.level):.1f} needed; "
        f"reached in night {pair.crossed}, the strongest is {pair.strongest} with 10^{pair.strongest_log_e / ten:.1f}"
        + (f"; {where}" if (where := sums.suspect(pair.layouts)) else "")
    )
