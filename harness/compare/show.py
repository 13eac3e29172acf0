"""A leaderboard in the terminal: the ranked models, a line, and those below it with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.compare.board import Board
from harness.terminal import printable

LINE_LENGTH = 240


def show(board: Board, console: Console) -> None:
    """Print it."""
    data = board["data"]
    rows = data["rows"]
    console.print(
        Text(
            printable(
                f"{data['name']}: {data['d']} {data['kind']} coordinates; {rows['train']} / {rows['valid']} / "
                f"{rows['test']} rows for training / validation / test"
            )
        )
    )
    console.print(_ranked([row for row in board["rows"] if row["rank"] is not None], board["run"]), crop=False)
    below = [row for row in board["rows"] if row["rank"] is None]
    if below:
        console.print(Text("below the line", "bold"))
    for row in below:
        line = Text("  ").append(printable(row["name"]), "bold").append(f": {printable(row['reason'])[:LINE_LENGTH]}")
        console.print(line, soft_wrap=True)
    for row in board["rows"]:
        for flag in row["flags"]:
            console.print(Text(f"  ⚑ {printable(row['name'])}: {printable(flag)}", "yellow"), soft_wrap=True)
    console.print(Text(f"ranks: {board['ranking']['rule']}.", "bright_black"), soft_wrap=True)


def _ranked(rows: list[dict[str, Any]], run: Mapping[str, Any]) -> Table:
    several, others = isinstance(run.get("seed"), list), other_devices(run)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("rank", justify="right")
    grid.add_column("model", overflow="fold")
    grid.add_column("NLL, nats", justify="right", no_wrap=True)
    if several:
        grid.add_column("sd of seeds", justify="right", no_wrap=True)
    for name in ("to the best", "bits/dim", "s/sample", "s/log_prob", "MiB", "parameters"):
        grid.add_column(name, justify="right", no_wrap=True)
    for name in (f"{of}, {device}" for device in others for of in ("s/sample", "s/log_prob", "MiB")):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("NLL is", overflow="fold")
    for row in rows:
        cost = row.get("cost") or {}
        gap = row["gap"]
        grid.add_row(
            f"{row['rank']}{'=' if row['tied'] else ''}",
            Text(printable(row["name"])),
            f"{row['nll']['mean']:.4f}",
            *([f"{row['nll']['sd_of_seeds']:.4f}"] if several else []),
            f"{gap['mean']:+.4f} ± {gap['high'] - gap['mean']:.4f}" if gap["mean"] or gap["high"] else "·",
            f"{row['bits_per_dim']:.4f}",
            *_figures(cost),
            "·" if cost.get("parameters") is None else f"{cost['parameters']:,}",
            *(text for device in others for text in _figures((row.get("cost_on") or {}).get(device) or {})),
            "exact" if row["meaning"] == "exact" else "bound",
        )
    return grid


def other_devices(run: Mapping[str, Any]) -> list[str]:
    """Devices of a call on which models were only timed: all but the first."""
    return list(run["device"][1:]) if isinstance(run.get("device"), list) else []


def _figures(cost: Mapping[str, Any]) -> list[str]:
    return [
        _short(cost.get("seconds_per_sample")),
        _short(cost.get("seconds_per_log_prob")),
        _mebibytes(cost.get("peak_memory_bytes")),
    ]


def _short(figure: dict[str, Any] | None) -> str:
    return "·" if figure is None else f"{figure['value']:.2g}"


def _mebibytes(figure: dict[str, Any] | None) -> str:
    return "·" if figure is None else f"{figure['value'] / 2**20:.1f}"
