"""python -m suites.nightly.power --json results/nightly_power.json

How many nights a small bias takes: a coin whose sampler gives heads with probability 0.3 + bias where its density says
0.3. At quick what is below 0.05 passes, at standard what is below 0.015. The nights are real ones, from 1 on; a history
begins where the one before found the bias. The level is that of one model among a hundred.

A check stops drawing as soon as it passes, and each night learns the deviation anew. So a bias far below what a PASS
excludes leaves less than 1 of evidence a night in mean, and no number of such nights finds it: that takes an effort
with a smaller tolerance.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import check_model
from harness.bench.machine import machine
from harness.evidence import Estimated, Verdict
from harness.store import write_text
from suites.nightly.accumulate import START, grown, reached, spent
from suites.nightly.night import STATISTICAL, seed_of
from suites.nightly.state import ALPHA

CHECK = "sampler.region_masses"
CASES = (
    *((bias, "quick", 200) for bias in (0.0, 0.008, 0.011, 0.015, 0.018, 0.025)),
    *((bias, "standard", 40) for bias in (0.002, 0.004, 0.006)),
)
"""Bias, effort, nights."""
MODELS = 100
LEVEL = spent(ALPHA / 2, 1) / (MODELS * STATISTICAL)
"""Of one check on one model, in the first generation."""


@dataclass(frozen=True)
class Coin:
    """Heads with probability 0.3, says the density."""

    bias: float
    event_shape = ()
    support = torch.distributions.constraints.boolean

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return (torch.rand(n, generator=generator) < 0.3 + self.bias).long()  # (n,)

    def log_prob(self, x: Tensor) -> Tensor:
        heads, tails = torch.tensor([0.3, 0.7]).log()
        return torch.where(x == 1, heads, torch.where(x == 0, tails, -torch.inf))  # (n,)


def evidence(bias: float, effort: str, nights: int) -> tuple[list[float], int]:
    """The log e-value of each night, and on how many of them the check failed by itself."""
    logs, failed = [], 0
    for night in range(1, nights + 1):
        alpha = spent(ALPHA / 2, night) / MODELS
        report = check_model(Coin(bias), effort=effort, seed=seed_of(night), only=[CHECK], alpha=alpha)
        (record,) = [record for record in report.records if record.check == CHECK]
        if not isinstance(record.evidence, Estimated):
            raise RuntimeError(f"night {night}: {record.message}")
        logs.append(record.evidence.path[-1].log_e)
        failed += record.verdict is Verdict.FAIL
    return logs, failed


def lengths(log_e: list[float], stakes: bool) -> list[int]:
    """Nights of each history until its product reaches the level; the last, unfinished one is left out."""
    found, state, plain, since = [], START, 0.0, 0
    for value in log_e:
        state, plain, since = grown(state, value), plain + value, since + 1
        if reached(state, LEVEL) if stakes else plain >= -math.log(LEVEL):
            found.append(since)
            state, plain, since = START, 0.0, 0
    return found


def row(bias: float, effort: str, nights: int) -> dict[str, Any]:
    """What was measured at one bias."""
    log_e, failed = evidence(bias, effort, nights)
    e = [math.exp(value) for value in log_e]
    told: dict[str, Any] = {
        "bias": bias,
        "nights": nights,
        "failed_alone": failed,
        "mean_log_e": statistics.mean(log_e),
    }
    if bias == 0.0:
        told |= {"mean_e": statistics.mean(e), "standard_error": statistics.stdev(e) / math.sqrt(nights)}
    for name, stakes in (("accumulated", True), ("plain_product", False)):
        histories = lengths(log_e, stakes)
        told[name] = {"found": len(histories), "median_nights": statistics.median(histories) if histories else None}
    return told


def main(arguments: list[str] | None = None) -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(prog="python -m suites.nightly.power", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    call = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        rows.append(row(*case))
        print(json.dumps(rows[-1]), flush=True)
    told = {
        **{"check": CHECK, "alpha": ALPHA, "level": LEVEL, "unit": "probability"},
        **{"seeds": "1 to nights", "machine": machine(), "rows": rows},
    }
    if call.json is not None:
        write_text(call.json, json.dumps(told, indent=1, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
