"""python -m suites.nightly [--device cpu|cuda] [--state FILE] [--effort NAME] [--models SPEC...] [--budget S] ...

Examine the reference models with the seed of this night, add up what all nights saw, then measure speed.

Exit status: 0 nothing is wrong; 1 a FAIL or an ERROR, of this night or accumulated, or a failed measurement of speed;
2 the call was wrong; 130 it was stopped, and the same command goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.display import Display
from harness.effort import EFFORTS
from harness.errors import CallError, InterruptedRunError
from harness.isolate import Listed, expand
from harness.processes import DEFAULT_TIMEOUT, Processes
from harness.report import Law
from harness.resolve import registered
from harness.terminal import show
from suites.nightly import state as states
from suites.nightly.night import Night, Setting, hold
from suites.nightly.site import publish

LARGE = "full_"
"""What the presets of a paper's size are called: a draw of some takes a CPU a second."""

NO_TF32 = "NVIDIA_TF32_OVERRIDE"
"""At 0, the libraries of CUDA round no factor to TF32, whatever a model sets: laws are held against full float32."""


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    call = _parser().parse_args(arguments)
    try:
        _validate(call)
        call.state.parent.mkdir(parents=True, exist_ok=True)
        with states.locked(call.state):
            night = _nights(call)
            speed, trouble = (None, []) if call.no_speed else _speed(call, night)
            night = replace(night, red=(*night.red, *trouble))
            if call.site is not None:
                publish(call.site, night, call.state, speed, history=not call.no_speed)
    except CallError as error:
        print(f"nightly: {error}", file=sys.stderr)
        return 2
    except InterruptedRunError as error:
        print(f"nightly: {error}", file=sys.stderr)
        return 130
    for line in night.red:
        print(line)
    print(f"night {night.number}: {'red' if night.red else 'green'}; accumulated in {call.state}")
    return 1 if night.red else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m suites.nightly", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--state", type=Path, default=Path("nightly/state.json"), metavar="FILE", help="what all nights accumulated")
    add("--effort", choices=tuple(EFFORTS), default="quick", help="draws and tolerance of a night")
    add(
        "--models",
        nargs="+",
        default=[],
        metavar="SPEC",
        help=f"instead of all that are registered (on a CPU, without those of a paper's size: {LARGE}*)",
    )
    add("--only", action="append", default=[], metavar="ID", help="only this check, or family of checks")
    add(
        "--budget", type=float, default=60.0, metavar="S", help="seconds that the draws of a model may take; default 60"
    )
    add("--timeout", type=float, default=DEFAULT_TIMEOUT, metavar="S", help="seconds without progress: a model hangs")
    add("--workers", type=int, default=1, help="models examined at once")
    add("--alpha", type=float, help="probability of a false FAIL over all nights ever; default 1e-6, fixed by night 1")
    add("--nights", type=int, default=1, help="so many nights, one after the other; the first that is red is the last")
    add("--first", type=int, metavar="N", help="the number of the first night of a new state")
    add("--site", type=Path, metavar="FOLDER", help="publish HTML pages there")
    add("--no-speed", action="store_true", help="leave the measurements of speed out")
    return parser


def _validate(call: argparse.Namespace) -> None:
    for option, number, least in (
        ("budget", call.budget, 0.0),
        ("timeout", call.timeout, 0.0),
        ("workers", call.workers, 0),
        ("nights", call.nights, 0),
        ("first", call.first, 0),
    ):
        if number is not None and not least < number < math.inf:
            raise CallError(f"--{option} is {number}: give a number above 0")
    if call.alpha is not None and not 0 < call.alpha < 1:
        raise CallError(f"--alpha is {call.alpha}: give a probability between 0 and 1, such as 1e-6")
    if call.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise CallError("--device is cuda, but torch finds no CUDA device: choose --device cpu")


# --------------------------------------------------------------------------------------------- conformance


def _nights(call: argparse.Namespace) -> Night:
    """The nights that are asked for, until one is red; the last of them."""
    state = states.read(call.state, call.alpha)
    if call.first is not None and call.first != state.night + 1:
        if call.state.exists():
            raise CallError(f"--first is {call.first}, but {call.state} goes on with {state.night + 1}: leave it out")
        state = states.State(alpha=state.alpha, night=call.first - 1)
    setting = Setting(call.state, call.device, call.effort, tuple(call.only), call.budget)
    specs = call.models or _models_for(call.device)
    with ExitStack() as held:
        stop, display = held.enter_context(_stoppable()), held.enter_context(Display(_console(stderr=True)))
        held.enter_context(_without_tf32())
        processes = held.enter_context(
            Processes(workers=call.workers, timeout=call.timeout, stop=stop, tick=display.tick)
        )
        laws = {id: Law(*texts) for id, *texts in processes.greeting()}
        models = expand(processes, specs)
        for _ in range(call.nights):
            display.finished = 0
            display.say(f"night {state.night + 1}: {_counted(models)}", len(models))
            night = hold(state, setting, models, processes, display, laws)
            state = night.state
            if night.red:
                break
    show(night.report, _console())
    return night


def _models_for(device: str) -> list[str]:
    """The registered models that a night on the device is long enough for."""
    names = [entry.name for entry in registered()]
    return [name for name in names if device != "cpu" or not name.partition(".")[2].startswith(LARGE)]


def _counted(models: Sequence[Listed]) -> str:
    return f"{len(models)} {'model' if len(models) == 1 else 'models'}"


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=120)


@contextmanager
def _stoppable() -> Iterator[Any]:
    """A function that says whether Ctrl-C or SIGTERM came."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """For the processes that are started meanwhile."""
    before = os.environ.get(NO_TF32)
    os.environ[NO_TF32] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_TF32]
        else:
            os.environ[NO_TF32] = before


# --------------------------------------------------------------------------------------------------- speed


def _speed(call: argparse.Namespace, night: Night) -> tuple[Path | None, list[str]]:
    """The ceilings of the machine, then asv's history, judged; the file of the first, and what failed.

    The history of all nights is kept beside their state: a runner has a fresh checkout each night.
    """
    file = call.state.parent / f"night-{night.number:04d}.speed.json"
    trouble = _run("suites.nightly.throughput", "--device", call.device, "--json", str(file))
    measured = None if trouble else file
    if importlib.util.find_spec("suites.history") is None:
        print("no history of speed: suites/history.py is not here, so nothing was measured for it")
        return measured, trouble
    folder = str(call.state.parent.resolve() / "asv")
    failed = _run("suites.history", "--device", call.device, "--results", folder)
    return measured, trouble + (failed or _run("harness.cli", "regressions", folder))


def _run(module: str, *words: str) -> list[str]:
    """Run a module in a process of its own; a sentence when it failed."""
    status = subprocess.run([sys.executable, "-m", module, *words], check=False).returncode
    said = " ".join(["python", "-m", module, *words])
    return [f"FAILED with exit status {status}\n  ↳ {said}"] if status else []


if __name__ == "__main__":
    sys.exit(main())
