"""A report in the terminal: a row a model, then what needs attention."""

from __future__ import annotations

import io

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.evidence import Record, Verdict
from harness.report import Report, Run

COLOURS = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.SKIP: "bright_black",
    Verdict.ERROR: "bold magenta",
}
WIDTH = 120
SHOWN = 40
"""Records and problems that are listed in full; the files hold all of them."""


def table(report: Report) -> Group:
    """The whole summary as one renderable."""
    attention = [*report.errors, *report.failures, *report.met, *report.undecided]
    parts: list[RenderableType] = [_models(report)]
    parts += [part for record in attention[:SHOWN] for part in (_sentence(record), *_command(record))]
    parts += [Text(f"✗ {problem}", COLOURS[Verdict.FAIL]) for problem in map(printable, report.problems[:SHOWN])]
    left = len(attention) + len(report.problems) - SHOWN
    if left > 0:
        parts.append(Text(f"… and {left} more: see --json or --html", "bright_black"))
    return Group(*parts, _verdict(report))


def show(report: Report, console: Console) -> None:
    """Print the summary. Lines longer than the terminal, which are commands to be copied, are not cut."""
    console.print(table(report), crop=False)


def plain_text(report: Report) -> str:
    """The summary without colours."""
    console = Console(file=io.StringIO(), width=WIDTH, no_color=True, color_system=None, legacy_windows=False)
    show(report, console)
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in written.splitlines())


def _models(report: Report) -> Table:
    """Counts of verdicts and seconds by model."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("model", overflow="fold")
    for verdict in Verdict:
        grid.add_column(Text(verdict), justify="right")
    grid.add_column("seconds", justify="right")
    for instance in report.instances:
        own = [record for record in report.records if record.instance == instance]
        tally = {verdict: sum(record.verdict is verdict for record in own) for verdict in Verdict}
        cells = [Text(str(n or "·"), COLOURS[verdict] if n else "bright_black") for verdict, n in tally.items()]
        grid.add_row(Text(printable(instance)), *cells, Text(f"{sum(r.seconds for r in own):.2f}"))
    return grid


def _sentence(record: Record) -> Text:
    """One record that needs attention: verdict, where, and what was seen."""
    line = Text(f"{record.verdict} ", COLOURS[record.verdict])
    line.append(printable(f"{record.instance} {record.check}"), "bold")
    if record.label:
        line.append(f" [{printable(record.label)}]", "cyan")
    line.append(f": {printable(record.message)}")
    if record.expected:
        line.append(f" (expected: {printable(record.expected)})", "bright_black")
    return line


def _command(record: Record) -> list[Text]:
    """How to see it again: one line however long, so that it can be copied and run."""
    if record.reproducer is None:
        return []
    return [Text(f"  ↳ {printable(record.reproducer.command)}", "bright_black", no_wrap=True, overflow="ignore")]


def _verdict(report: Report) -> Text:
    """The last line: the answer, and what was not expected to be otherwise."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n in report.counts.items() if n)
    met = f", {len(report.met)} of them expected failures" if report.met else ""
    run = report.run
    where = f", {' and '.join(run.devices)}" if len(run.devices) > 1 else ""
    facts = f"effort {run.effort.name}, {seeds_in_words(run)}{where}, false alarms ≤ {run.alpha:.0e} for the whole run"
    answer = Text("passed", "bold green") if report.passed else Text("did not pass", "bold red")
    return answer.append(f": {counts or 'no checks'}{met}; {printable(facts)}", "default not bold")


def seeds_in_words(run: Run) -> str:
    """'seed 0', or 'seeds 0, 1, 2'."""
    return f"seed{'s' if len(run.seeds) > 1 else ''} {', '.join(map(str, run.seeds))}"


def printable(text: str) -> str:
    """Text without control characters, which could rewrite the reader's terminal, on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
