"""Progress of a run: live on a terminal, a line for each finished model elsewhere. Written to standard error."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from harness.evidence import Record, Verdict
from harness.terminal import COLOURS, printable

FRAME_SECONDS = 0.1


@dataclass
class _Seen:
    """A model as far as it was examined."""

    started: float
    stage: str = ""
    n: int = 0
    counts: Counter[Verdict] = field(default_factory=Counter)


class Display:
    """Who watches a run (`harness.isolate.Watcher`). `tick` redraws, at most ten times a second, and never by a thread:
    the terminal is written to by one hand only."""

    def __init__(self, console: Console):
        self.console = console
        self.total = 0
        self.finished = 0
        self.stage = "starting"
        self.running: dict[str, _Seen] = {}
        self.drawn = 0.0
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self.spinner = Spinner("dots")

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, stage: str, total: int = 0) -> None:
        """What the run as a whole is doing, and on how many models."""
        self.stage, self.total = stage, total
        if self.live is None:
            self.console.print(Text(stage))

    def at(self, instance: str, stage: str, n: int) -> None:
        seen = self._seen(instance)
        seen.stage, seen.n = stage, n

    def record(self, record: Record) -> None:
        self._seen(record.instance).counts[record.verdict] += 1

    def done(self, instance: str) -> None:
        seen = self.running.pop(instance, _Seen(time.monotonic()))
        self.finished += 1
        line = Text(f"[{self.finished}/{self.total}] " if self.total else "", "bright_black")
        line.append(printable(instance), "default").append("  ").append_text(_tally(seen.counts))
        self.console.print(line.append(f"  {time.monotonic() - seen.started:.1f} s", "bright_black"))

    def tick(self) -> None:
        """Redraw when it is time."""
        now = time.monotonic()
        if self.live is not None and now - self.drawn >= FRAME_SECONDS:
            self.drawn = now
            self.live.update(self._picture(), refresh=True)

    def _seen(self, instance: str) -> _Seen:
        if instance not in self.running:
            self.running[instance] = _Seen(time.monotonic())
        return self.running[instance]

    def _picture(self) -> RenderableType:
        """A line for the run and one for each model that is being examined."""
        of = f" {self.finished} of {self.total}" if self.total else ""
        self.spinner.update(text=Text(f"{self.stage}{of}"))
        grid = Table.grid(padding=(0, 2))
        for column in range(4):
            grid.add_column(justify="right" if column == 2 else "left", overflow="ellipsis", no_wrap=True)
        for instance, seen in self.running.items():
            draws = f"{seen.n:,} draws" if seen.n else ""
            name, stage = Text(f"  {printable(instance)}"), Text(printable(seen.stage), "cyan")
            grid.add_row(name, stage, Text(draws), _tally(seen.counts))
        return Group(self.spinner, grid)


def _tally(counts: Counter[Verdict]) -> Text:
    """'14 PASS  1 FAIL', in colours."""
    line = Text()
    for verdict in Verdict:
        if counts[verdict]:
            line.append("  " if line else "").append(f"{counts[verdict]} {verdict}", COLOURS[verdict])
    return line
