"""NLL of two models on the same events, point by point: what the events have in common cancels in the difference."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from harness.bench.rounds import Contender, Outcome, Setting, share_pool, started
from harness.bench.side import close_all
from harness.bench.verdict import Difference, paired


def nll_difference(
    a: Contender, b: Contender, setting: Setting, policy: float, folder: Path, outcome: Outcome
) -> tuple[Difference, dict[str, Any]]:
    """(nll_B(x_i) - nll_A(x_i)) / d over the points x_i, in nats per dimension, recomputed here from log_prob.

    The interval is Student's, by the central limit theorem. The floor is what a second process of A differs by: 0 for
    a density that gives the same answer twice.
    """
    sides, said = started([a, b, a], setting)
    try:
        outcome.note(said)
        outcome.of = "log_prob"
        share_pool(sides, setting, folder, outcome)
        files = [folder / f"nll{i}.pt" for i in range(len(sides))]
        answers = [
            side.ask("nll", n=outcome.n, seed=setting.seed, file=str(file))
            for side, file in zip(sides, files, strict=True)
        ]
    finally:
        close_all(sides)
    d = max(1, math.prod(torch.load(folder / "pool.pt", weights_only=True).shape[1:]))
    ours, theirs, again = (torch.load(file, weights_only=True) / d for file in files)
    outcome.outputs = {"a": answers[0]["output"], "b": answers[1]["output"]}
    difference = paired((theirs - ours).tolist(), (again - ours).tolist(), policy)
    return difference, {
        "points": len(ours),
        "dimensions": d,
        "nll_per_dimension": {"a": float(ours.mean()), "b": float(theirs.mean())},
        "largest_difference_of_a_point": float((theirs - ours).abs().max()),
    }
