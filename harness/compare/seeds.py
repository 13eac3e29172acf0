"""One row of a leaderboard from the trainings of one model at several seeds.

The row has what a row of one seed has: costs, pictures and curves of the first seed, the NLL at each test row as its
mean over the seeds, and one certificate, which passes where every seed's does. `seeds` keeps what each of them saw.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]

OF_EACH = ("training", "meaning", "points", "certificate")
"""Parts of a row that each seed has its own of."""


def one_row(rows: Sequence[Row], seeds: Sequence[int]) -> Row:
    """The row of a model from those of its seeds; of one seed, its row. What one seed lacks, the row lacks."""
    if len(rows) == 1:
        return rows[0]
    trouble = [f"seed {seed}: {row['trouble']}" for seed, row in zip(seeds, rows, strict=True) if row.get("trouble")]
    each = [
        {"seed": seed, **{name: row[name] for name in OF_EACH if name in row}}
        for seed, row in zip(seeds, rows, strict=True)
    ]
    whole = {name: value for name, value in rows[0].items() if all(name in row for row in rows) or name not in OF_EACH}
    if "training" in whole:
        whole["training"] = _training([row["training"] for row in rows])
    if "points" in whole:
        mean = np.asarray([row["points"] for row in rows]).mean(0)
        whole["points"] = [float(f"{value:.10g}") for value in mean]
    if "certificate" in whole:
        whole["certificate"] = _certificate([row["certificate"] for row in rows], seeds)
    return {**whole, "seeds": each, "trouble": "; ".join(trouble)}


def _training(trainings: Sequence[Mapping[str, Any]]) -> Row:
    """How, of the first seed, and the mean of the seconds; steps are each seed's own."""
    return {**trainings[0], "seconds": statistics.fmean(each["seconds"] for each in trainings), "steps": None}


def _certificate(certificates: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> Row:
    """One that passes where all do: counts and shares of alpha are sums, records say their seed."""
    first = certificates[0]
    records = [
        {**record, "seed": seed}
        for seed, certificate in zip(seeds, certificates, strict=True)
        for record in certificate["records"]
    ]
    exact = all(certificate["normalised_exactly_by"] for certificate in certificates)
    return {
        **first,
        "passed": all(certificate["passed"] for certificate in certificates),
        "counts": {verdict: sum(each["counts"][verdict] for each in certificates) for verdict in first["counts"]},
        "seed": list(seeds),
        "alpha": sum(certificate["alpha"] for certificate in certificates),
        "normalised_exactly_by": first["normalised_exactly_by"] if exact else "",
        "records": records,
    }


def points_of(row: Mapping[str, Any]) -> Sequence[float] | Sequence[Sequence[float]] | None:
    """The NLL at each test row, or at each seed and test row; None where a seed has none."""
    if not row.get("points"):
        return None
    return [each["points"] for each in row["seeds"]] if "seeds" in row else row["points"]


def means_of(row: Mapping[str, Any]) -> list[float]:
    """The mean NLL of each seed; nothing where one has none."""
    points = points_of(row)
    return [] if points is None else np.atleast_2d(np.asarray(points, dtype=np.float64)).mean(1).tolist()
