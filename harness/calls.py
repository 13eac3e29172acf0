"""What all commands share: who does the work, what stops it, where its outputs go, and how a line is printed."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import CallError
from harness.processes import Processes

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

    from harness.cluster import Cluster

T = TypeVar("T")

INTERRUPTED = 130
"""Exit status."""


def workforce(call: Any, **options: Any) -> Processes | Cluster:
    """Processes on this machine, or the workers of a Dask cluster."""
    if not call.scheduler:
        return Processes(workers=call.workers, **options)
    from harness.cluster import Cluster

    return Cluster(call.scheduler, **options)


SEEDS_HINT = "give a whole number of 0 or more, or several with commas between them, such as 0,1,2"
DEVICES = ("cpu", "cuda")


def seeds_in(given: object) -> tuple[int, ...]:
    """The seeds of `--seed`: a number, a list, or text such as "0,1,2". CallError for what holds none, or one twice."""
    return tuple(_different("--seed", [_seed(entry) for entry in _entries("--seed", given, SEEDS_HINT)]))


def devices_in(given: object) -> tuple[str, ...]:
    """The devices of `--device`: a name, a list, or text such as "cpu,cuda". CallError as for seeds."""
    hint = f"choose one of {', '.join(DEVICES)}, or both with a comma between them"
    names = [str(entry) for entry in _entries("--device", given, hint)]
    strange = [name for name in names if name not in DEVICES]
    if strange:
        raise CallError(f"--device is {strange[0]!r}: {hint}")
    return tuple(_different("--device", names))


def in_words(models: int, seeds: Sequence[int], devices: Sequence[str]) -> str:
    """'3 models', or '3 models at 2 seeds on cpu and cuda'."""
    words = [f"{models} model{'' if models == 1 else 's'}"]
    words += [f"at {len(seeds)} seeds"] if len(seeds) > 1 else []
    words += [f"on {' and '.join(devices)}"] if len(devices) > 1 else []
    return " ".join(words)


def _entries(option: str, given: object, hint: str) -> list[object]:
    """What stands between the commas."""
    entries = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    found = list(entries) if isinstance(entries, list | tuple) else [entries]
    if not found or "" in found:
        raise CallError(f"{option} is {given!r}, which has an empty entry: {hint}")
    return found


def _seed(entry: object) -> int:
    whole = not isinstance(entry, bool) and isinstance(entry, int | str)
    if not whole or not str(entry).isascii() or not str(entry).isdecimal():
        raise CallError(f"--seed is {entry!r}: {SEEDS_HINT}")
    return int(str(entry))


def _different(option: str, values: list[T]) -> list[T]:
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise CallError(f"{option} names {twice[0]} twice: leave one out")
    return values


def check_cuda(devices: Sequence[str], scheduler: str = "") -> None:
    """Refuse `cuda` where there is none; the workers of a cluster are asked instead when the run starts."""
    if "cuda" not in devices or scheduler:
        return
    import torch

    if not torch.cuda.is_available():
        raise CallError("--device is cuda, but torch finds no CUDA device: choose --device cpu")


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
