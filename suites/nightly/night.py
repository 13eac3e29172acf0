"""One night: the models that are left are examined, each in a process of its own, and the state takes in the evidence.

    STATE.json  STATE.json.lock     what all nights accumulated, and who works on it
    night-0007/plan.json            how night 7 was begun: models, seed, levels
    night-0007/003.json             the report of its fourth model; a run that was stopped goes on with those that lack
    night-0007.json                 the whole night, once it is over; then the folder is removed

Reports are written whole as soon as their model is done, the state once, when all are. A model that was being examined
when the run was stopped is examined again from the same seed, so stopping a run chooses nothing.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.checks import CHECKS
from harness.checks.law import StatisticalCheck
from harness.effort import Settings, effort_named
from harness.errors import CallError, InterruptedRunError
from harness.evidence import Raised, Record
from harness.isolate import Listed, Options, Watcher, Workforce, examine
from harness.report import Law, Report, merge
from harness.store import write_text
from suites.nightly import state as states
from suites.nightly.accumulate import spent
from suites.nightly.fingerprint import commit, facts, fingerprint
from suites.nightly.state import State

STATISTICAL = sum(isinstance(check, StatisticalCheck) for check in CHECKS)
"""The checks of a model that may leave evidence to add up."""


@dataclass(frozen=True)
class Setting:
    """How nights are run. `state` names the file; the other files are beside it."""

    state: Path
    device: str = "cpu"
    effort: str = "quick"
    only: tuple[str, ...] = ()
    budget: float | None = None


@dataclass(frozen=True)
class Night:
    """What a night was and found. `red` has a sentence for each reason to fail, and the command that shows it again."""

    number: int
    report: Report
    state: State
    red: tuple[str, ...]


def seed_of(night: int) -> int:
    """The seed of a night is its number: every night draws anew, and anyone can draw it again."""
    return night


def hold(
    state: State,
    setting: Setting,
    models: Sequence[Listed],
    processes: Workforce,
    watcher: Watcher,
    laws: dict[str, Law] | None = None,
) -> Night:
    """Begin the next night or go on with it, to its end; InterruptedRunError when it is stopped before."""
    state, plan, prepared = _begun(state, setting, models)
    folder = _folder(setting, plan["night"])
    keeper = _Keeper(watcher, lambda name, records: _keep(folder, plan, setting, models, name, records, laws))
    left = [model for place, model in enumerate(models) if not _part(folder, place).exists()]
    if left:
        alpha = plan["alpha"] * len(left) / len(models)  # the share of a model is that of the whole night
        options = Options(setting.effort, plan["seed"], alpha, setting.device, "", setting.budget, setting.only)
        _, interrupted = examine(processes, left, options, keeper)
        if interrupted:
            done = sum(_part(folder, place).exists() for place in range(len(models)))
            raise InterruptedRunError(
                f"night {plan['night']} was stopped after {done} of {len(models)} models: the same command goes on"
            )
    report = merge([_read(_part(folder, place)) for place in range(len(models))])
    return _ended(prepared, setting, plan, report)


# ------------------------------------------------------------------------------------------------ how it begins


def _begun(state: State, setting: Setting, models: Sequence[Listed]) -> tuple[State, dict[str, Any], State]:
    """The state, the plan of the night, and the state in which all its models have a series."""
    planned = []
    for model in models:
        seen = facts(model.spec, setting.device)
        planned.append((model.name, model.spec, seen, fingerprint(seen)))
    wanted = _plan(state, setting, planned)
    file = _folder(setting, wanted["night"]) / "plan.json"
    if file.exists():
        plan = json.loads(file.read_text(encoding="utf-8"))
        if plan["options"] != wanted["options"]:
            raise CallError(
                f"night {plan['night']} was begun with {_words(plan['options'])}: finish it so, or name another --state"
            )
        if plan["models"] == wanted["models"]:
            return state, plan, states.with_series(state, planned, STATISTICAL)
        why = "models or code changed before it was finished"
        print(f"night {plan['night']} is given up: {why}; its parts stay in {file.parent}", file=sys.stderr)
        state = states.abandoned(state, why)
        states.write(state, setting.state)
        wanted = _plan(state, setting, planned)
        file = _folder(setting, wanted["night"]) / "plan.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(wanted, indent=1, allow_nan=False) + "\n")
    return state, wanted, states.with_series(state, planned, STATISTICAL)


def _plan(state: State, setting: Setting, planned: Sequence[tuple[str, str, Any, str]]) -> dict[str, Any]:
    number = state.night + 1
    options = {**asdict(setting), "only": list(setting.only)}
    del options["state"]
    return {
        "night": number,
        "seed": seed_of(number),
        "alpha": spent(state.alpha / 2, number),
        "options": options,
        "models": [[name, spec, mark] for name, spec, _, mark in planned],
        "commit": commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _words(options: dict[str, Any]) -> str:
    return " ".join(f"--{name} {value}" for name, value in options.items() if value)


def _folder(setting: Setting, night: int) -> Path:
    return setting.state.parent / f"night-{night:04d}"


def _part(folder: Path, place: int) -> Path:
    return folder / f"{place:03d}.json"


# ------------------------------------------------------------------------------------------------ as it goes


@dataclass
class _Keeper:
    """Keeps the records of each model as soon as it is done, and shows the watcher everything."""

    watcher: Watcher
    keep: Callable[[str, list[Record]], None]
    records: dict[str, list[Record]] = field(default_factory=dict)

    def at(self, model: str, stage: str, n: int) -> None:
        self.watcher.at(model, stage, n)

    def record(self, record: Record) -> None:
        self.records.setdefault(record.model, []).append(record)
        self.watcher.record(record)

    def done(self, model: str) -> None:
        seen = self.records.pop(model, [])
        if not any(isinstance(r.evidence, Raised) and r.evidence.kind == "Interrupted" for r in seen):
            self.keep(model, seen)
        self.watcher.done(model)


def _keep(
    folder: Path,
    plan: dict[str, Any],
    setting: Setting,
    models: Sequence[Listed],
    name: str,
    records: Iterable[Record],
    laws: dict[str, Law] | None,
) -> None:
    place = next(place for place, model in enumerate(models) if model.name == name)
    report = Report.of(
        records,
        Settings(effort_named(setting.effort), plan["seed"], setting.budget),
        alpha=plan["alpha"],
        device=setting.device,
        started=datetime.fromisoformat(plan["started"]),
        specs={name: models[place].spec},
        laws=laws,
    )
    report.to_json(_part(folder, place))


def _read(path: Path) -> Report:
    try:
        return Report.read(path)
    except ValueError as error:
        raise CallError(f"{error}; or remove it, and the model is examined again") from None


# ------------------------------------------------------------------------------------------------ how it ends


def _ended(prepared: State, setting: Setting, plan: dict[str, Any], report: Report) -> Night:
    """The night is written, then the state that has taken it in, and then its parts are removed."""
    report = replace(report, run=replace(report.run, command=f"python -m suites.nightly  # night {plan['night']}"))
    red = [_alone(record, plan, report) for record in (*report.failures, *report.errors)]
    told = {name: plan[name] for name in ("night", "seed", "commit", "started", "options")}
    told |= {"seconds": report.run.seconds, "counts": {str(v): count for v, count in report.counts.items()}}
    after = states.folded(prepared, report, told)
    specs = [spec for _, spec, _ in plan["models"]]
    red += [_together(*found, setting) for found in states.crossed(after, specs)]
    after = replace(after, nights=(*after.nights[:-1], {**told, "red": red}))
    folder = _folder(setting, plan["night"])
    report.to_json(folder.with_suffix(".json"))
    states.write(after, setting.state)
    shutil.rmtree(folder)
    return Night(plan["night"], report, after, tuple(red))


def _alone(record: Record, plan: dict[str, Any], report: Report) -> str:
    """A FAIL or an ERROR of this night."""
    options = plan["options"]
    words = ["harness", "check", report.run.specs[record.model], "--only", record.check]
    words += ["--seed", str(plan["seed"]), "--effort", options["effort"]]
    words += ["--device", options["device"]] if options["device"] != "cpu" else []
    command = record.reproducer.command if record.reproducer is not None else shlex.join(words)
    return f"{record.verdict} night {plan['night']}, {record.model} {record.check}: {record.message}\n  ↳ {command}"


def _together(series: states.Series, check: str, pair: states.Pair, setting: Setting) -> str:
    """A FAIL of all nights together. The command makes the nights again, on a state of its own."""
    words = ["python", "-m", "suites.nightly", "--models", series.facts["spec"], "--only", check]
    words += ["--effort", setting.effort, "--device", setting.device, "--first", str(series.first)]
    words += ["--nights", str(pair.crossed - series.first + 1), "--no-speed", "--state", "again/state.json"]
    return f"ACCUMULATED FAIL {states.summary(series, check, pair)}\n  ↳ {shlex.join(words)}"


def strongest(state: State, most: int = 10) -> list[tuple[states.Series, str, states.Pair]]:
    """The pairs nearest to a FAIL, of the series that are going on."""

    def margin(item: tuple[states.Series, str, states.Pair]) -> float:
        log = item[2].log_capital + math.log(item[0].level)
        return math.inf if math.isnan(log) else log

    pairs = [(series, check, pair) for series in state.series.values() for check, pair in series.pairs.items()]
    return sorted(pairs, key=margin, reverse=True)[:most]
