"""One offline page of what was measured: results/index.html from selftest.json, rivals.json and cost.json.

    python -m suites.results_page [--results FOLDER]

A file that is not there leaves its part out, and the page says which command makes it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suites.real_data.gallery import COMMAND, Picture, gallery

TEMPLATES = Path(__file__).with_name("templates")
RESULTS = Path(__file__).resolve().parent.parent / "results"
COMMANDS = {
    "selftest": "harness selftest --json results/selftest.json --workers 2",
    "rivals": "python -m suites.rivals --json results/rivals.json",
    "cost": "python -m suites.cost --json results/cost.json",
}
GOAL = 0.95
"""The share of seeds in which a bug should be found."""
SURE = 0.99
"""Confidence of the limits on rates."""
SETTINGS = [(kind, d) for kind in ("continuous", "discrete") for d in (1, 10, 50)]

Json = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what is printed, a smaller line under it, a class that colours it, a tooltip."""

    text: str
    small: str = ""
    tone: str = ""
    title: str = ""


def read(folder: Path) -> dict[str, Json]:
    """The files that are there. ValueError with one line for one that cannot be read."""
    found = {}
    for name in COMMANDS:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        try:
            found[name] = json.loads(path.read_text())
        except ValueError:
            raise ValueError(
                f"{path} is no JSON (was its run interrupted?): make it again by `{COMMANDS[name]}`"
            ) from None
        if found[name].get("schema_version") != "1.0":
            raise ValueError(f"{path} has another schema version than 1.0: make it again by `{COMMANDS[name]}`")
    return found


# ------------------------------------------------------------------------------------------------ small things


def limits(count: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson: exact two-sided limits on a rate; with a count of 0 (or n) the one that matters is one-sided."""
    from scipy.stats import beta

    if n == 0:
        return 0.0, 1.0
    tail = (1 - SURE) if count in (0, n) else (1 - SURE) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, n - count + 1))
    high = 1.0 if count == n else float(beta.ppf(1 - tail, count + 1, n - count))
    return low, high


def tone(found: int, seeds: int) -> str:
    """Colour of a detection rate, in steps; the number is always printed too."""
    if not seeds:
        return "none"
    rate = found / seeds
    return "full" if rate >= GOAL else "most" if rate >= 0.5 else "some" if rate > 0.05 else "zero"


def count(number: float | None) -> str:
    """Draws as people read them."""
    return "" if number is None else f"{number:,.0f}"


def rate(found: int, seeds: int) -> str:
    return f"{100 * found / seeds:.0f} %" if seeds else "–"


def scientific(number: float) -> str:
    """1e-3 and 1e3 as powers of ten."""
    power = round(math.log10(number))
    return "1" if power == 0 else f"10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


# -------------------------------------------------------------------------------------------- planted x verdict


def planted_columns(rows: Sequence[Json]) -> list[tuple[str, int, float]]:
    """(kind, dimension, scale), in the order of the settings."""
    seen = {(row["model"], row["dimension"], row["scale"]) for row in rows}
    return sorted(seen, key=lambda key: (SETTINGS.index(key[:2]), key[2]))


def planted_table(rows: Sequence[Json], effort: str) -> Json:
    """Rows of cells, one a planted bug."""
    mine = [row for row in rows if row["group"] == "planted" and row["effort"] == effort]
    columns = planted_columns(mine)
    bugs = list(dict.fromkeys(row["mutant"] for row in mine))
    index = {(row["mutant"], row["model"], row["dimension"], row["scale"]): row for row in mine}
    body = [
        {
            "name": bug,
            "defect": next(row["defect"] for row in mine if row["mutant"] == bug),
            "cells": [_planted_cell(index.get((bug, *column))) for column in columns],
        }
        for bug in bugs
    ]
    heads: list[Json] = []
    for kind, d, scale in columns:
        if not heads or (heads[-1]["kind"], heads[-1]["d"]) != (kind, d):
            heads.append({"kind": kind, "d": d, "scales": []})
        heads[-1]["scales"].append(scientific(scale))
    return {"effort": effort, "heads": heads, "body": body, "cells": len(mine), "met": sum(map(_met, mine))}


def _met(row: Json) -> bool:
    return row["seeds"] > 0 and row["found"] >= GOAL * row["seeds"]


def _planted_cell(row: Json | None) -> Cell:
    if row is None:
        return Cell("", tone="blank", title="the bug has no meaning here")
    title = f"{row['check'] or 'not found'}: {row['found']} of {row['seeds']} seeds"
    text = rate(row["found"], row["seeds"])
    return Cell(text, count(row["draws_median"]), tone(row["found"], row["seeds"]), title)


def missed(rows: Iterable[Json]) -> list[Json]:
    """Planted bugs that stay below the goal at `standard`, the worst first."""
    short = [r for r in rows if r["group"] == "planted" and r["effort"] == "standard" and not _met(r)]
    return sorted(short, key=lambda r: r["found"] / max(1, r["seeds"]))


# ------------------------------------------------------------------------------------------------ false alarms


def false_alarms(rows: Iterable[Json]) -> list[Json]:
    """One entry an effort and budget: runs and alarms over all correct models, exact limits, and the same a model."""
    correct = [row for row in rows if row["group"] == "correct"]
    told = []
    for effort, alpha in dict.fromkeys((row["effort"], row["alpha"]) for row in correct):
        mine = [row for row in correct if (row["effort"], row["alpha"]) == (effort, alpha)]
        runs, alarms = sum(row["seeds"] for row in mine), sum(row["false_alarms"] for row in mine)
        low, high = limits(alarms, runs)
        told.append(
            {"effort": effort, "alpha": alpha, "runs": runs, "alarms": alarms, "low": low, "high": high, "models": mine}
        )
    return told


# ------------------------------------------------------------------------------------------------------ rivals


def rival_tables(rivals: Sequence[Json], ours: Sequence[Json]) -> list[Json]:
    """One table a kind of events and dimension: bugs x (ours, then each rule), and the false alarms beneath."""
    tables = []
    for kind, d in SETTINGS:
        mine = [r for r in rivals if r["model"] == kind and r["dimension"] == d and r["scale"] == 1.0]
        if not mine:
            continue
        titles = {r["rule"]: r["title"] for r in mine}
        bugs = [bug for bug in dict.fromkeys(r["mutant"] for r in mine) if bug != "none"]
        tables.append(
            {
                "kind": kind,
                "d": d,
                "titles": list(titles.values()),
                "body": [_rival_row(bug, kind, d, mine, ours, list(titles)) for bug in bugs],
                "alarms": [_alarm_cell([r for r in mine if r["rule"] == name]) for name in titles],
                "ours": _our_alarms(ours),
            }
        )
    return tables


def _rival_row(bug: str, kind: str, d: int, mine: Sequence[Json], ours: Sequence[Json], names: Sequence[str]) -> Json:
    told = [r for r in mine if r["mutant"] == bug]
    own = [
        r
        for r in ours
        if (r["mutant"], r["model"], r["dimension"], r["scale"], r["effort"]) == (bug, kind, d, 1.0, "standard")
    ]
    return {
        "name": bug,
        "defect": told[0]["defect"],
        "ours": _planted_cell(own[0]) if own else Cell("not measured", tone="blank"),
        "cells": [
            _rival_cell(
                [r for r in told if r["rule"] == name],
                {r["n"]: r for r in mine if r["mutant"] == "none" and r["rule"] == name and r["seeds"]},
            )
            for name in names
        ],
    }


def _rival_cell(rows: Sequence[Json], correct: dict[int, Json]) -> Cell:
    """The least number of draws at which the goal is met, else the rate at the largest.

    Alarms say nothing where the rule raises them on the correct model too, in more than 5 % of the seeds.
    """
    if not rows:
        return Cell("", tone="blank")
    if rows[0]["hidden"]:
        return Cell("hidden", tone="hidden", title=f"the rule never calls {rows[0]['hidden']}, where the bug is")
    if rows[0]["refused"]:
        return Cell("refuses", tone="hidden", title=rows[0]["refused"])
    rows = sorted(rows, key=lambda r: r["n"])
    best = next((r for r in rows if _met(r)), rows[-1])
    title = "; ".join(f"{r['found']} of {r['seeds']} seeds at {r['n']:,} draws" for r in rows)
    wolf = correct.get(best["n"])
    if wolf is not None and limits(wolf["false_alarms"], wolf["seeds"])[0] > 1 - GOAL:
        small = f"correct: {rate(wolf['false_alarms'], wolf['seeds'])}"
        return Cell(rate(best["found"], best["seeds"]), small, "hidden", title)
    return Cell(rate(best["found"], best["seeds"]), count(best["n"]), tone(best["found"], best["seeds"]), title)


def _alarm_cell(rows: Sequence[Json]) -> Cell:
    """False alarms on the correct model over all sizes, against what the rule says of itself."""
    correct = [r for r in rows if r["mutant"] == "none" and r["seeds"]]
    if not correct:
        return Cell("refuses" if rows and rows[0]["refused"] else "–", tone="hidden")
    alarms, runs, nominal = (
        sum(r["false_alarms"] for r in correct),
        sum(r["seeds"] for r in correct),
        correct[0]["nominal"],
    )
    low, high = limits(alarms, runs)
    wrong = "zero" if low > nominal else ""
    title = f"nominal {nominal:.2g}; measured between {low:.2g} and {high:.2g} ({SURE:.0%} sure)"
    return Cell(f"{alarms} of {runs:,}", f"nominal {nominal:.1g}", wrong, title)


def _our_alarms(ours: Sequence[Json]) -> Cell:
    told = false_alarms(ours)
    if not told:
        return Cell("not measured", tone="blank")
    return Cell(f"{told[0]['alarms']} of {told[0]['runs']:,}", f"nominal {scientific(told[0]['alpha'])}")


def miscalibrated(rivals: Iterable[Json]) -> list[Json]:
    """Correct models on which a rule raises more alarms than it says, beyond doubt."""
    told = []
    for row in rivals:
        low, high = limits(row["false_alarms"], row["seeds"])
        if row["mutant"] == "none" and row["seeds"] and low > row["nominal"]:
            told.append({**row, "low": low, "high": high, "times": row["false_alarms"] / row["seeds"] / row["nominal"]})
    return sorted(told, key=lambda row: -row["times"])


# -------------------------------------------------------------------------------------------------------- cost

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 380, 250, 52, 38, 14, 14


def drawn(curve: Json) -> Json:
    """Points, ticks and the line of slope 1 through the last point, in the coordinates of an SVG of log-log axes."""
    points = curve["points"]
    xs = [math.log10(p["x"]) for p in points]
    ys = [math.log10(max(p["seconds"], 1e-4)) for p in points]
    low, high = math.floor(min(ys)), math.ceil(max(ys) + 1e-9)
    left, right = min(xs), max(xs)

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - left) / max(right - left, 1e-9)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (y - low) / max(high - low, 1)

    reach = min(right - left, ys[-1] - low)
    return {
        **curve,
        "dots": [
            {"x": across(x), "y": up(y), "at": p["x"], "seconds": p["seconds"]}
            for x, y, p in zip(xs, ys, points, strict=True)
        ],
        "line": " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in zip(xs, ys, strict=True)),
        "linear": [across(right - reach), up(ys[-1] - reach), across(right), up(ys[-1])],
        "x_ticks": [{"at": across(x), "label": _tick(p["x"])} for x, p in _spread(list(zip(xs, points, strict=True)))],
        "y_ticks": [{"at": up(k), "label": _seconds(10.0**k)} for k in range(low, high + 1)],
    }


def _spread(ticks: list[Any]) -> list[Any]:
    """At most five of them, the last among them."""
    step = max(1, math.ceil(len(ticks) / 5))
    return ticks[::-1][::step][::-1]


def _tick(number: int) -> str:
    if number >= 1024 and number & (number - 1) == 0:
        return f"2{str(number.bit_length() - 1).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return f"{number:,}"


def _seconds(number: float) -> str:
    return f"{number:g} s"


# -------------------------------------------------------------------------------------------------------- page


def render(found: dict[str, Json], pictures: Sequence[Picture] = ()) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own, rivals = (found.get(name, {}).get("rows", []) for name in ("selftest", "rivals"))
    cost = found.get("cost", {})
    return jinja.get_template("results.html").render(
        found=found,
        commands={**COMMANDS, "pictures": COMMAND},
        pictures=pictures,
        efforts=[
            planted_table(own, effort) for effort in ("standard", "quick") if any(r["effort"] == effort for r in own)
        ],
        missed=missed(own),
        scientific=scientific,
        false_alarms=false_alarms(own),
        mutants=[row for row in own if row["group"] == "mutant"],
        near=[row for row in own if row["group"] == "near miss"],
        rivals=rival_tables(rivals, own),
        miscalibrated=miscalibrated(rivals),
        lost_tail=any(row["rule"] == "binned" for row in rivals),
        who=dict.fromkeys((row["title"], row["who"]) for row in rivals),
        cost=cost,
        curves=[drawn(curve) for curve in cost.get("curves", [])],
        size={
            "width": WIDTH,
            "height": HEIGHT,
            "left": LEFT,
            "bottom": HEIGHT - BOTTOM,
            "top": TOP,
            "right": WIDTH - RIGHT,
        },
        goal=GOAL,
        sure=SURE,
        tone=tone,
        count=count,
    )


def main(arguments: list[str] | None = None) -> int:
    """Write the page. Exit status 2 when the call was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m suites.results_page", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the JSON files are")
    call = parser.parse_args(arguments)
    try:
        found = read(call.results)
    except ValueError as error:
        parser.error(str(error))
    if not found:
        parser.error(f"{call.results} has none of {', '.join(f'{name}.json' for name in COMMANDS)}: make one first")
    path = call.results / "index.html"
    path.write_text(render(found, gallery(call.results)))
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
