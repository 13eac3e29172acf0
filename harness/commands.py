"""What the commands of `harness` do. Each returns its exit status: 0 no FAIL or ERROR, 1 some.

A call that is wrong raises CallError: one line on standard error, exit status 2.
"""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import config
from harness.calls import (
    INTERRUPTED,
    check_cuda,
    check_outputs,
    check_workers,
    devices_in,
    files_of,
    in_words,
    new_console,
    say,
    seeds_in,
    stoppable,
    unwritable_is_wrong,
    workforce,
)
from harness.effort import EFFORTS, Settings, effort_named
from harness.errors import CallError
from harness.isolate import Listed, Options, crossed, examine, expand
from harness.processes import DEFAULT_TIMEOUT, Processes
from harness.resolve import close_to

if TYPE_CHECKING:
    from harness.checks.law import Check
    from harness.evidence import Record
    from harness.report import Law, Report

DTYPES = ("", "float32", "float64")


@dataclass(frozen=True)
class Call:
    """A call of `harness check`, with the defaults of its options. Every model is examined at each seed and device."""

    specs: tuple[str, ...] = ()
    effort: str = "standard"
    seed: tuple[int, ...] = (0,)
    device: tuple[str, ...] = ("cpu",)
    dtype: str = ""
    only: tuple[str, ...] = ()
    strict: bool = False
    budget: float | None = None
    timeout: float = 60.0
    memory: float = 4.0
    alpha: float = 1e-6
    workers: int = 1
    scheduler: str = ""
    json: Path | None = None
    junit: Path | None = None
    html: Path | None = None

    def outputs(self) -> dict[str, Path]:
        """The files to be written, by option."""
        files = {"--json": self.json, "--junit": self.junit, "--html": self.html}
        return {option: path for option, path in files.items() if path is not None}


def check(specs: Sequence[str], given: Mapping[str, Any]) -> int:
    """Examine the models of the SPECs, or of pyproject.toml when there are none; `given` are options of the call."""
    read = None if specs else config.load(Path(config.FILE))
    call = Call(tuple(specs) if read is None else read.models, **_plain({**(read.options if read else {}), **given}))
    _validate(call)
    check_outputs(call.outputs(), files_of(call.specs))
    status, _ = run(call, {} if read is None else read.expected_failures)
    return status


def run(call: Call, expected: Mapping[str, str]) -> tuple[int, Report]:
    """The run itself: live progress, the files, the table; exit status and report."""
    from harness.display import Display
    from harness.report import Law

    started, clock = datetime.now(UTC), time.perf_counter()
    with stoppable() as stop, Display(new_console(stderr=True)) as display:
        memory = int(call.memory * 2**30)
        with workforce(call, timeout=call.timeout, memory=memory, stop=stop, tick=display.tick) as processes:
            display.say("importing")
            _validate_checks(call)
            laws = {id: Law(*texts) for id, *texts in processes.greeting()}
            models = expand(processes, call.specs)
            instances = crossed(models, call.seed, call.device)
            display.say(f"examining {in_words(len(models), call.seed, call.device)}", len(instances))
            seed, device = call.seed[0], call.device[0]  # of instances that have none of their own
            options = Options(call.effort, seed, call.alpha, device, call.dtype, call.budget, call.only)
            records, interrupted = examine(processes, instances, options, display)
    report = _report(call, records, models, expected, laws, started, time.perf_counter() - clock)
    _show(report, call, interrupted)
    if interrupted:
        return INTERRUPTED, report
    return (0 if report.passes(strict=call.strict) else 1), report


# ------------------------------------------------------------------------------------------- before the run


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the file and of the command line, in the types of the call."""
    types: dict[str, Callable[[Any], Any]] = {"only": tuple, "seed": seeds_in, "device": devices_in}
    return {name: types[name](value) if name in types else value for name, value in given.items()}


def _validate(call: Call) -> None:
    for option, value, allowed in (
        ("effort", call.effort, EFFORTS),
        ("dtype", call.dtype, DTYPES),
    ):
        if value not in allowed:
            raise CallError(f"--{option} is {value!r}: choose one of {', '.join(filter(None, allowed))}")
    for option, number, least, unit in (
        ("budget", call.budget, 0.0, "seconds"),
        ("timeout", call.timeout, 0.0, "seconds"),
        ("memory", call.memory, 0.0, "GiB"),
        ("workers", call.workers, 0, "processes"),
    ):
        if number is not None and not least < number < math.inf:
            raise CallError(f"--{option} is {number}: give a number of {unit} above 0")
    if not 0 < call.alpha < 1:
        raise CallError(f"--alpha is {call.alpha}: give a probability between 0 and 1, such as 1e-6")
    check_workers(call)


def _validate_checks(call: Call) -> None:
    """What only torch can tell; it is imported here, while the server does so there, where there is a question."""
    if call.only:
        from harness.checks import CHECKS
        from harness.plan import select

        for name in call.only:
            try:
                select(CHECKS, (name,))
            except KeyError:
                raise CallError(_unknown_check(name, CHECKS)) from None
    check_cuda(call.device, call.scheduler)


def _unknown_check(name: str, checks: Sequence[Check]) -> str:
    hint = close_to(name, [check.id for check in checks], otherwise="; `harness checks` lists them")
    return f"no check is called {name!r}{hint}"


# -------------------------------------------------------------------------------------------- after the run


def _report(
    call: Call,
    records: Sequence[Record],
    models: Sequence[Listed],
    expected: Mapping[str, str],
    laws: Mapping[str, Law],
    started: datetime,
    seconds: float,
) -> Report:
    from harness.report import Report

    return Report.of(
        records,
        Settings(effort_named(call.effort), call.seed[0], call.budget),
        seed=call.seed,
        alpha=call.alpha,
        expected_failures=_by_name(expected, models),
        device=call.device,
        dtype=call.dtype,
        started=started,
        seconds=seconds,
        command=shlex.join(["harness", *sys.argv[1:]]),
        specs={model.name: model.spec for model in models},
        laws=laws or None,
    )


def _by_name(expected: Mapping[str, str], models: Sequence[Listed]) -> dict[str, str]:
    """Expected failures of a model may be given under its SPEC, too."""
    names = {model.spec: model.name for model in models}
    keys = {key: key.partition("::") for key in expected}
    return {(f"{names.get(model, model)}::{id}" if id else key): expected[key] for key, (model, _, id) in keys.items()}


def _show(report: Report, call: Call, interrupted: bool) -> None:
    """The table, then where the files are and what the verdicts mean."""
    from harness.terminal import show

    console = new_console()
    show(report, console)
    _write(report, call)
    if interrupted:
        console.print("interrupted: what was finished is kept, what was not is an ERROR", style="bold magenta")
    if call.outputs():
        say(console, f"written: {', '.join(map(str, call.outputs().values()))}")
    say(console, guarantee(report))


def guarantee(report: Report) -> str:
    """What the verdicts of a run mean, in words."""
    return (
        f"Correct models get any false FAIL in this run with probability {report.run.alpha:.0e} at most; every PASS "
        f"of a statistical law states the largest defect that it could have missed ({report.run.confidence:.1%} sure)."
    )


def _write(report: Report, call: Call) -> None:
    from harness.html import write_html
    from harness.junit import write_junit

    with unwritable_is_wrong():
        if call.json is not None:
            report.to_json(call.json)
        if call.junit is not None:
            write_junit(report, call.junit, strict=call.strict)
        if call.html is not None:
            write_html([report], call.html)


# ---------------------------------------------------------------------------------------- the other commands


def report(paths: Sequence[Path], html: Path | None) -> int:
    """Show stored results, side by side."""
    from harness.html import write_html
    from harness.store import read
    from harness.terminal import show

    try:
        reports = [read(path) for path in paths]
    except ValueError as error:
        raise CallError(str(error)) from None
    console = new_console()
    check_outputs({} if html is None else {"--html": html}, paths)
    for each in reports:
        show(each, console)
    if html is not None:
        with unwritable_is_wrong():
            write_html(reports, html)
        say(console, f"written: {html}")
    return 0 if all(each.passed for each in reports) else 1


def verify(path: Path, timeout: float = DEFAULT_TIMEOUT) -> int:
    """Re-run a part of a stored result and compare."""
    from harness.display import Display

    if not 0 < timeout < math.inf:
        raise CallError(f"--timeout is {timeout}: give a number of seconds above 0")
    with stoppable() as stop, Display(new_console(stderr=True)) as display:
        display.say(f"making a part of {path} again")
        with Processes(timeout=timeout, stop=stop, tick=display.tick) as processes:
            from harness.verify import verify as verified  # imports torch here while the server does so there

            try:
                outcome = verified(path, processes=processes, watcher=display)
            except ValueError as error:
                raise CallError(str(error)) from None
    console = new_console()
    for line in str(outcome).splitlines():
        say(console, line)
    return outcome.status


def selftest(only: Sequence[str], seeds: int | None, workers: int, json_path: Path | None, merge: bool = False) -> int:
    """Measure false alarms on correct models and detection of planted bugs."""
    from harness.selftest import run_selftest

    if workers < 1:
        raise CallError(f"--workers is {workers}: give a number of processes above 0")
    if seeds is not None and seeds < 1:
        raise CallError(f"--seeds is {seeds}: give a number above 0")
    if merge and json_path is None:
        raise CallError("--merge joins rows to those of a file: name it with --json FILE")
    check_outputs({} if json_path is None else {"--json": json_path})
    try:
        return run_selftest(only=tuple(only), seeds=seeds, workers=workers, json_path=json_path, merge=merge)
    except ValueError as error:
        raise CallError(str(error)) from None
