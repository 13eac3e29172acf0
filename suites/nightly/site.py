"""What is published: the last night's report, what all nights accumulated, and the history of speed and quality."""

from __future__ import annotations

import html
import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path

from harness.errors import CallError
from harness.html import write_html
from harness.store import write_text
from suites.nightly.night import Night, strongest
from suites.nightly.state import State

HISTORY = Path(__file__).parents[2] / ".asv" / "html"
"""Where `python -m suites.history` publishes."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Night {night}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;margin:1rem 0}}td,th{{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #ccc}}
.red{{color:#b00020}}pre{{white-space:pre-wrap}}</style></head><body>
<h1>Night {night}: <span class="{colour}">{colour}</span></h1>
<p>{words}</p>
{red}
<p><a href="night.html">The report of this night</a> · <a href="night.json">its evidence</a> ·
<a href="state.json">all nights</a>{history}</p>
<h2>The strongest evidence of all nights together</h2>
<table><tr><th>model<th>check<th>nights<th>since<th>evidence<th>needed<th>strongest night</tr>
{pairs}</table>
<h2>Nights</h2>
<table><tr><th>night<th>started<th>commit<th>verdicts</tr>
{nights}</table>
{speed}
</body></html>
"""


def publish(folder: Path, night: Night, state_file: Path, speed: Path | None, *, history: bool) -> None:
    """Write index.html, the report and the evidence of the night into the folder, and asv's pages with `history`."""
    report, history = night.report, history and HISTORY.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_html([report], folder / "night.html")
        report.to_json(folder / "night.json")
        write_text(folder / "state.json", state_file.read_text(encoding="utf-8"))
        if history:
            shutil.copytree(HISTORY, folder / "history", dirs_exist_ok=True)
        write_text(folder / "index.html", page(night, history, speed))
    except OSError as error:
        raise CallError(f"cannot publish in {folder}: {error}; name another --site") from None


def page(night: Night, history: bool, speed: Path | None) -> str:
    """index.html."""
    state, ten = night.state, math.log(10)
    pairs = [
        (
            *(series.name, check, pair.nights, series.first),
            *(f"10^{pair.log_capital / ten:.1f}", f"10^{-math.log10(series.level):.1f}", pair.strongest),
        )
        for series, check, pair in strongest(state)
    ]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in night.report.counts.items())
    return PAGE.format(
        night=night.number,
        colour="red" if night.red else "green",
        words=html.escape(f"{len(night.report.models)} models, seed {night.report.run.seed}: {counts}"),
        red="".join(f'<pre class="red">{html.escape(line)}</pre>\n' for line in night.red),
        history=' · <a href="history/index.html">history of speed and quality</a>' if history else "",
        pairs="".join(map(_row, pairs)),
        nights="".join(map(_row, _nights(state))),
        speed=_speed(speed),
    )


def _row(cells: Iterable[object]) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(str(cell))}" for cell in cells) + "</tr>\n"


def _nights(state: State) -> list[tuple[object, ...]]:
    """The last thirty, the latest first."""
    rows: list[tuple[object, ...]] = []
    for told in reversed(state.nights[-30:]):
        what = told.get("abandoned") or ", ".join(f"{n} {v}" for v, n in told["counts"].items() if n)
        rows.append((told["night"], told.get("started", ""), told.get("commit", "")[:9], what))
    return rows


def _speed(file: Path | None) -> str:
    if file is None:
        return ""
    rows = json.loads(file.read_text(encoding="utf-8"))["ceilings"]
    cells = [
        (
            *(row["device"], row["dtype"], "on" if row["tf32"] else "off"),
            *(f"{row['copy_bytes_per_second']:.3g}", f"{row['matmul_flops_per_second']:.3g}"),
        )
        for row in rows
    ]
    head = "<tr><th>device<th>dtype<th>TF32<th>copied, bytes/s<th>matmul, operations/s</tr>\n"
    return f"<h2>Ceilings of this machine</h2>\n<table>{head}{''.join(map(_row, cells))}</table>"
