"""A leaderboard as one HTML page that needs nothing but itself. Names and messages of models are escaped throughout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.compare.board import Board
from harness.compare.show import other_devices
from harness.html import TEMPLATES, asset, hash_of, safe_json
from harness.store import plain, write_text

HEADS = (
    ("rank", "rank", "equal ranks are ties"),
    ("name", "model", "⚑ marks what should be known before the row is believed"),
    ("nll", "NLL, nats", "mean over test rows, in the data's units; ± is its own 95 % interval; lower is better"),
    ("gap", "to the best", "paired difference with the interval that decides ties; lower is better"),
    ("bits", "bits/dim", "NLL / (D log 2); lower is better"),
    ("sample", "s/sample", "seconds per draw, in batches; lower is better"),
    ("log_prob", "s/log_prob", "seconds per row, in batches; lower is better"),
    ("memory", "MiB", "memory: rise of the peak during log_prob of 1000 rows; lower is better"),
    ("parameters", "parameters", "free parameters"),
    ("training", "training, s", "seconds of training"),
    ("meaning", "NLL is", "exact, or an upper bound"),
    ("certificate", "certificate", "checks that passed, and those that stayed open: INCONCLUSIVE"),
)
SEEDS = ("seeds", "sd of seeds", "standard deviation over the seeds of the mean NLL; each seed trains the model once")

SHOWN = (
    *("name", "spec", "rank", "tied", "nll", "gap", "cost", "growth", "pictures"),
    *("dominated_by_log_prob", "dominated_by_sample"),
)
"""Fields of a row that the script draws."""


def write_page(board: Board, path: str | Path) -> None:
    """Write the page whole or not at all; OSError with one line that names the fix."""
    write_text(path, render(board))


def render(board: Board) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters["figure"] = lambda number: f"{number:.3g}"
    style = asset("compare.css")
    script = asset("plots.js") + asset("compare.js")
    rows = board["rows"]
    page = jinja.get_template("compare.html").render(
        data=board["data"],
        run=board["run"],
        ranking=board["ranking"],
        heads=_heads(board["run"]),
        several=isinstance(board["run"].get("seed"), list),
        others=other_devices(board["run"]),
        ranked=[row for row in rows if row["rank"] is not None],
        below=[row for row in rows if row["rank"] is None],
        style=Markup(style),
        script=Markup(script),
        style_hash=hash_of(style),
        script_hash=hash_of(script),
        payload=Markup(safe_json({"rows": [_shown(row) for row in rows]})),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate in a model's name has no UTF-8


def _heads(run: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The columns: with several seeds their spread, and with several devices what each of the others takes."""
    columns = list(HEADS)
    if isinstance(run.get("seed"), list):
        columns.insert(3, SEEDS)
    elsewhere = [
        (f"{key} {device}", f"{name}, {device}", f"{title}, on {device}")
        for device in other_devices(run)
        for key, name, title in HEADS
        if key in ("sample", "log_prob", "memory")
    ]
    return [*columns, *elsewhere]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(row.get(name)) for name in SHOWN}
