"""`harness compare`: data and SPECs are listed, each model is trained, examined and measured in a process of its own,
and the rows become a leaderboard as they come.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.calls import (
    INTERRUPTED,
    check_cuda,
    check_outputs,
    check_workers,
    files_of,
    in_words,
    new_console,
    say,
    stoppable,
    unwritable_is_wrong,
    workforce,
)
from harness.compare import board as boards
from harness.compare.seeds import Row, one_row
from harness.display import Display
from harness.effort import EFFORTS, effort_named
from harness.errors import CallError, InterruptedRunError
from harness.evidence import Raised, Record, Verdict, instance_name
from harness.isolate import Workforce, trouble_at_end
from harness.processes import Ending, Message
from harness.report import versions
from harness.resolve import SpecError
from harness.store import loaded_record

THREADS = 1


@dataclass(frozen=True)
class Call:
    """A call of `harness compare`, with the defaults of its options.

    The data is split by the first seed; each seed trains every model once. Models are trained, examined and asked on
    the first device, and timed on each.
    """

    specs: tuple[str, ...]
    data: str
    budget: float = 60.0
    effort: str = "quick"
    seed: tuple[int, ...] = (0,)
    device: tuple[str, ...] = ("cpu",)
    workers: int = 1
    scheduler: str = ""
    timeout: float = 60.0
    memory: float = 4.0
    alpha: float = 1e-6
    as_it_is: bool = False
    fresh: bool = False
    json: Path | None = None
    html: Path | None = None

    def settings(self) -> dict[str, Any]:
        """What a row depends on, besides the data and its SPEC."""
        made_by = {name: each for name, each in versions().items() if name in ("harness", "torch")}
        return {
            **{name: getattr(self, name) for name in ("budget", "effort")},
            **{"seed": _one_or_all(self.seed), "as_it_is": self.as_it_is},
            **{"device": _one_or_all(self.device), "threads": THREADS, "versions": made_by},
        }

    def outputs(self) -> dict[str, Path]:
        files = {"--json": self.json, "--html": self.html}
        return {option: path for option, path in files.items() if path is not None}


def _one_or_all(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def compare(call: Call) -> int:
    """Exit status: 0 when every model is ranked, 1 when some are below the line, 130 after Ctrl-C."""
    from harness.compare.show import show

    _validate(call)
    check_outputs(call.outputs(), [Path(call.data), *files_of(call.specs)])
    with (
        stoppable() as stop,
        Display(new_console(stderr=True)) as display,
        workforce(
            call,
            # A fit of somebody else's gives no sign of life while it takes its budget.
            timeout=call.timeout + call.budget,
            memory=int(call.memory * 2**30),
            stop=stop,
            tick=display.tick,
        ) as processes,
    ):
        display.say("reading the data")
        data = _data(processes, call)
        models = _models(processes, call)
        key = boards.key_of(data, call.settings())
        run = _run(call)
        kept = [] if call.fresh else boards.kept_rows(call.json, data, run, key)
        todo = [m for m in models if m.spec not in {row["spec"] for row in kept}]
        if len(todo) < len(models):
            display.say(f"{len(models) - len(todo)} of {len(models)} rows are kept from {call.json}")
        total = len(todo) * len(call.seed)
        display.say(f"comparing {in_words(len(todo), call.seed, call.device)}", total)
        measured, interrupted = _measured(processes, todo, call, display, data, run, key)
    specs = {model.spec for model in models}
    rows = [row for row in kept if row["spec"] in specs] + measured
    with unwritable_is_wrong():
        if call.json is not None:
            table = boards.enter(call.json, rows, data, run, fresh=False)
        else:
            table = boards.board_of(rows, data, run)
        if call.html is not None:
            from harness.compare.page import write_page

            write_page(table, call.html)
    console = new_console()
    show(table, console)
    if call.outputs():
        say(console, f"written: {', '.join(map(str, call.outputs().values()))}")
    if interrupted:
        way = "the same call goes on from what was finished" if call.json else "with --json FILE it could go on"
        console.print(f"interrupted: {way}", style="bold magenta")
        return INTERRUPTED
    return 0 if all(row["rank"] is not None for row in table["rows"] if row["spec"] in specs) else 1


# -------------------------------------------------------------------------------------------- before the models


def _validate(call: Call) -> None:
    if not call.specs:
        raise CallError("no SPEC is given: name the models to compare")
    twice = next((spec for spec in call.specs if call.specs.count(spec) > 1), None)
    if twice is not None:
        raise CallError(f"{twice} is given twice: leave one out")
    if call.effort not in EFFORTS:
        raise CallError(f"--effort is {call.effort!r}: choose one of {', '.join(EFFORTS)}")
    for option in ("budget", "timeout", "memory", "workers"):
        if not 0 < getattr(call, option) < math.inf:
            raise CallError(f"--{option} is {getattr(call, option)}: give a number above 0")
    if not 0 < call.alpha < 1:
        raise CallError(f"--alpha is {call.alpha}: give a probability between 0 and 1, such as 1e-6")
    check_workers(call)
    check_cuda(call.device, call.scheduler)


def _run(call: Call) -> dict[str, Any]:
    """Facts of the call, for the file. Versions and machine are those of each row."""
    return {
        **call.settings(),
        "timeout": call.timeout,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["harness", *sys.argv[1:]]),
    }


def _asked(processes: Workforce, requests: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], Ending]]:
    """What each child said, all messages in one, and how it ended."""
    said: list[dict[str, Any]] = [{} for _ in requests]
    endings = processes.run(
        [{"job": "compare", **request} for request in requests], lambda index, message: said[index].update(message)
    )
    for ending in endings:
        if ending is None or ending.cause == "interrupted":
            raise InterruptedRunError("interrupted before anything was measured")
    return [(heard, ending) for heard, ending in zip(said, endings, strict=True) if ending is not None]


def _data(processes: Workforce, call: Call) -> dict[str, Any]:
    """The facts of the data. CallError where it cannot be had."""
    ((said, ending),) = _asked(processes, [{"do": "data", "data": call.data, "seed": call.seed[0]}])
    if "refused" in said:
        raise CallError(said["refused"])
    if "data" not in said:
        trouble = trouble_at_end(said.get("raised"), ending, processes, "while the data was read")
        raise CallError(f"--data {call.data}: {trouble.kind}: {trouble.message}")
    return dict(said["data"])


@dataclass(frozen=True)
class Model:
    """A model to be compared; `trouble` says why its SPEC names none."""

    name: str
    spec: str
    trouble: str = ""


def _models(processes: Workforce, call: Call) -> list[Model]:
    """What the SPECs name, with distinct names. One that names nothing costs its own row."""
    listed: list[Model] = []
    for spec, (said, ending) in zip(
        call.specs, _asked(processes, [{"do": "list", "spec": spec} for spec in call.specs]), strict=True
    ):
        if isinstance(said.get("models"), list) and not ending.cause:
            listed += [Model(str(name), str(one)) for name, one in said["models"]]
        elif "refused" in said:
            listed.append(Model(spec, spec, said["refused"]))
        else:
            trouble = trouble_at_end(said.get("raised"), ending, processes, "while being imported")
            listed.append(Model(spec, spec, f"{trouble.kind}: {trouble.message}"))
    if all(model.trouble for model in listed):
        raise SpecError(listed[0].trouble)
    names = [model.name for model in listed]
    return [m if names.count(m.name) == 1 else Model(m.spec, m.spec, m.trouble) for m in listed]


# -------------------------------------------------------------------------------------------------- the models


@dataclass
class _Making:
    """A row in the making: what one child has said of its model, at one of several seeds or at the only one (None)."""

    model: Model
    seed: int | None = None
    parts: Row = field(default_factory=dict)
    stage: str = ""
    raised: object = None
    failed: list[Record] = field(default_factory=list)
    done: Row | None = None

    @property
    def instance(self) -> str:
        return instance_name(self.model.name, self.seed, "")

    def hear(self, message: Message, display: Display) -> None:
        """Take in a message; ValueError for one that no child of ours sends."""
        try:
            if "part" in message:
                self.parts |= dict(message["part"])
            elif "record" in message:
                record = replace(loaded_record(message["record"]), seed=self.seed)
                display.record(record)
                if record.verdict in (Verdict.FAIL, Verdict.ERROR):
                    self.failed.append(record)
            elif "at" in message:
                self.stage, n = str(message["at"][0]), int(message["at"][1])
                display.at(self.instance, self.stage, n)
            elif "refused" in message:
                self.parts["trouble"] = str(message["refused"])
            elif "raised" in message:
                self.raised = message["raised"]
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            raise ValueError(f"no message: {error}") from None

    def row(self, key: str, ending: Ending | None, processes: Workforce) -> Row:
        """The finished row."""
        trouble = self.model.trouble or self.parts.pop("trouble", "")
        if not trouble and ending is not None and (ending.cause or self.raised):
            end: Raised = trouble_at_end(self.raised, ending, processes, f"during {self.stage or 'its start'}")
            trouble = f"{end.kind}: {end.message}"
            if self.failed:
                first = self.failed[0]
                trouble += f"; before that, {first.verdict} {first.check}: {first.message}"
        return {"name": self.model.name, "spec": self.model.spec, "key": key, **self.parts, "trouble": trouble}


def _measured(
    processes: Workforce,
    models: Sequence[Model],
    call: Call,
    display: Display,
    data: Mapping[str, Any],
    run: Mapping[str, Any],
    key: str,
) -> tuple[list[Row], bool]:
    """Rows of the models, each written to the file as soon as it is finished, and whether the run was interrupted."""
    seeds = call.seed if len(call.seed) > 1 else (None,)
    sound = [_Making(model, seed) for model in models if not model.trouble for seed in seeds]
    rows = [_Making(model).row(key, None, processes) for model in models if model.trouble]
    first = call.fresh
    share = call.alpha / max(1, len(models) * len(seeds))

    def keep(new: Sequence[Row]) -> None:
        nonlocal first
        if call.json is not None and new:
            with unwritable_is_wrong():
                boards.enter(call.json, new, data, run, fresh=first)
            first = False

    def end(index: int, ending: Ending) -> None:
        made = sound[index]
        if ending.cause != "interrupted":
            made.done = made.row(key, ending, processes)
        parts = [each.done for each in sound if each.model is made.model]
        finished = [part for part in parts if part is not None]
        if made.done is not None and len(finished) == len(parts):
            rows.append(one_row(finished, call.seed))
            keep(rows[-1:])
        display.done(made.instance)

    keep(rows)
    endings = processes.run(
        [_request(each, call, share) for each in sound],
        lambda index, message: sound[index].hear(message, display),
        end,
    )
    return rows, any(ending is None or ending.cause == "interrupted" for ending in endings)


def _request(making: _Making, call: Call, share: float) -> dict[str, Any]:
    """The job of one model at one seed. What a model costs is measured at the first seed alone."""
    measured = making.seed in (None, call.seed[0])
    devices = call.device if measured else call.device[:1]
    return {
        **{"job": "compare", "do": "row", "spec": making.model.spec, "name": making.model.name},
        **{"data": call.data, "split": call.seed[0], "budget": call.budget, "as_it_is": call.as_it_is},
        **{"seed": call.seed[0] if making.seed is None else making.seed, "costs": measured},
        **{"effort": asdict(effort_named(call.effort)), "alpha": share},
        "devices": list(devices),
        "device": "cuda" if "cuda" in devices else "cpu",  # what the worker has to offer
    }
