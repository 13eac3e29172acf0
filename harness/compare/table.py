"""Rows as they were measured become a leaderboard: who is ranked, where, and what about a row deserves suspicion.

Everything here is a pure function of the stored rows, so that a leaderboard grows row by row and is judged anew each
time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from harness.compare.ranking import DELTA, RULE, RULE_OF_SEEDS, dominated, mean_interval, places
from harness.compare.seeds import Row, means_of, points_of

COLUMNS: dict[str, dict[str, str]] = {
    "nll": {"unit": "nats per row of the data", "direction": "lower is better"},
    "gap": {"unit": "nats per row, to the best ranked model", "direction": "lower is better"},
    "bits_per_dim": {"unit": "bits per coordinate", "direction": "lower is better"},
    "seconds_per_sample": {"unit": "seconds", "direction": "lower is better"},
    "seconds_per_log_prob": {"unit": "seconds", "direction": "lower is better"},
    "peak_memory_bytes": {"unit": "bytes", "direction": "lower is better"},
    "parameters": {"unit": "numbers", "direction": "none"},
    "training.seconds": {"unit": "seconds", "direction": "lower is better"},
}
"""What the figures are; a report repeats it."""

FLOAT32_EPS = 2.0**-23


def judged(rows: Sequence[Row], data: Mapping[str, Any]) -> list[Row]:
    """The rows, best first and those below the line last, each with its place, its reason and its flags."""
    reasons = [_reason(row, data) for row in rows]
    found = places({row["spec"]: points_of(row) or () for row, why in zip(rows, reasons, strict=True) if not why})
    new = [
        {
            **row,
            **_figures(row, data),
            "reason": why,
            "rank": None,
            "tied": False,
            "gap": None,
            "flags": _flags(row, data),
        }
        for row, why in zip(rows, reasons, strict=True)
    ]
    for row in new:
        place = found.get(row["spec"])
        if place is not None:
            gap = {"mean": place.gap.mean, "low": place.gap.low, "high": place.gap.high}
            row |= {"rank": place.rank, "tied": place.tied, "gap": gap}
    ranked = [row for row in new if row["rank"] is not None]
    for of in ("log_prob", "sample"):
        beaten = dominated({row["spec"]: _costs(row, of) for row in ranked})
        for row in new:
            row[f"dominated_by_{of}"] = beaten.get(row["spec"], False)
    order = list(found)
    below = sorted((row for row in new if row["rank"] is None), key=lambda row: (_mean(row), row["name"]))
    return sorted(ranked, key=lambda row: order.index(row["spec"])) + below


def _mean(row: Row) -> float:
    return row["nll"]["mean"] if row["nll"] else math.inf


def _figures(row: Row, data: Mapping[str, Any]) -> Row:
    """Mean NLL with its own interval, and bits a coordinate."""
    points = points_of(row)
    if points is None:
        return {"nll": None, "bits_per_dim": None}
    seen, means = mean_interval(points), means_of(row)
    nll: Row = {"mean": seen.mean, "low": seen.low, "high": seen.high}
    if len(means) > 1:
        nll |= {"seeds": means, "sd_of_seeds": statistics.stdev(means)}
    return {"nll": nll, "bits_per_dim": seen.mean / (data["d"] * math.log(2))}


def _reason(row: Row, data: Mapping[str, Any]) -> str:
    """Why the row is below the line; empty where it is ranked."""
    if row.get("trouble"):
        return str(row["trouble"])
    certificate = row.get("certificate")
    if not row.get("points") or not certificate:
        return "it was not measured to the end"
    if not certificate["passed"]:
        bad = [r for r in certificate["records"] if r["verdict"] in ("FAIL", "ERROR")]
        if not bad:
            return "no certificate: no check applies to it"
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        at = f" at seed {bad[0]['seed']}" if "seed" in bad[0] else ""
        return f"no certificate: {bad[0]['verdict']} {bad[0]['check']}{at}: {bad[0]['message']}{more}"
    if beats_ceiling(row, data):
        return (
            f"impossible: its NLL is below the entropy of the empirical law of the test rows, "
            f"{data['entropy_ceiling_nats']:.6g} nats, which no normalised model reaches"
        )
    return ""


def beats_ceiling(row: Row, data: Mapping[str, Any]) -> bool:
    """Is the mean NLL, of any seed, below H of the empirical test law, by more than float32 can round?

    An NLL is a sum of at most d terms a row, each rounded by a share of 2^-23: it is off by d 2^-23 |NLL| at most.
    """
    ceiling = data.get("entropy_ceiling_nats")
    if ceiling is None or not row.get("points") or not str(row.get("meaning", "")).startswith("exact"):
        return False
    allowed = data["d"] * FLOAT32_EPS * abs(ceiling)
    return min(means_of(row)) < ceiling - allowed


def _flags(row: Row, data: Mapping[str, Any]) -> list[str]:
    """What a reader should know before believing the row."""
    found = []
    exact = bool((row.get("certificate") or {}).get("normalised_exactly_by"))
    mean = min(means_of(row), default=math.inf)
    ceiling, frontier = data.get("entropy_ceiling_nats"), data.get("frontier_nats")
    if beats_ceiling(row, data):
        found.append("better than the entropy ceiling of the test rows: not a normalised model")
    elif ceiling is not None and mean < ceiling:
        found.append("a bound below the entropy ceiling of the test rows: the noise of dequantisation, or no density")
    if frontier is not None and mean < frontier and not exact:
        source = f" ({data['frontier_source']})" if data.get("frontier_source") else ""
        found.append(
            f"better than the best published figure, {frontier:.6g} nats{source}, without an exact normalisation "
            "certificate"
        )
    cost = row.get("cost") or {}
    for of in ("log_prob", "sample"):
        figure = cost.get(f"seconds_per_{of}")
        if figure and figure["cached"]:
            found.append(f"{of} answers a repeated input faster than a fresh one, of which the figure is: it remembers")
    undecided = (row.get("certificate") or {}).get("counts", {}).get("INCONCLUSIVE", 0)
    if undecided:
        found.append(f"{undecided} of its checks stayed undecided at this effort")
    return found


def _costs(row: Row, of: str) -> list[float | None]:
    """Quality, speed and memory, lower is better."""
    cost = row.get("cost") or {}
    figures = [cost.get(f"seconds_per_{of}"), cost.get("peak_memory_bytes")]
    return [_mean(row), *(None if figure is None else float(figure["value"]) for figure in figures)]


def ranking_words(several: bool = False) -> dict[str, Any]:
    """The rule by which rows are ranked, at one seed or several, for the file."""
    interval = "asymptotic: a central-limit argument over test rows"
    return {
        "rule": RULE_OF_SEEDS if several else RULE,
        "confidence": 1 - DELTA,
        "interval": f"{interval}, and normal means of seeds" if several else interval,
    }
