"""What all commands share: who does the work, what stops it, where its outputs go, and how a line is printed."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CallError
from harness.processes import Processes

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

    from harness.cluster import Cluster

INTERRUPTED = 130
"""Exit status."""


def workforce(call: Any, **options: Any) -> Processes | Cluster:
    """Processes on this machine, or the workers of a Dask cluster."""
    if not call.scheduler:
        return Processes(workers=call.workers, **options)
    from harness.cluster import Cluster

    return Cluster(call.scheduler, **options)


def check_workers(call: Any) -> None:
    if call.scheduler and call.workers != 1:
        raise CallError("--workers and --scheduler are both given: the cluster has workers of its own, leave one out")


def check_outputs(outputs: Mapping[str, Path], inputs: Sequence[Path] = ()) -> None:
    """Refuse, before a long run, what could not be written after it."""
    from harness.store import check_writable

    taken = {path.resolve(): f"{path}, which is read" for path in inputs}
    for option, path in outputs.items():
        if path.resolve() in taken:
            raise CallError(f"{option} {path} would overwrite {taken[path.resolve()]}: name another file")
        taken[path.resolve()] = f"what {option} writes"
        with unwritable_is_wrong():
            check_writable(path)


def files_of(specs: Sequence[str]) -> list[Path]:
    """The files that SPECs name: what a run reads, and must not write over."""
    named = (Path(spec.rpartition(".py:")[0] + ".py") for spec in specs if ".py:" in spec)
    return [path for path in named if path.is_file()]


@contextmanager
def unwritable_is_wrong() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CallError(str(error)) from None


@contextmanager
def stoppable() -> Iterator[Any]:
    """A function that says whether Ctrl-C or SIGTERM came. The first ends the run in order, a second one at once."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def new_console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=120)


def say(console: Console, text: str) -> None:
    """One line, as it is."""
    from harness.terminal import printable

    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
