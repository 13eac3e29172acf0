"""python -m suites.nightly.power --json results/nightly_power.json

How many nights a small bias takes, and how often a correct model is accused: a coin whose sampler gives heads with
probability 0.3 + bias where its density says 0.3. At quick what is below 0.05 passes, at standard what is below 0.015.

`sampler.region_masses` sees of a coin how often it came up heads and nothing else, so nights are made by drawing these
counts, as many as a run takes between its looks, and judging them by the statistic and the judge of a run. So there can
be many series of many nights. Real nights are made beside them: of a biased coin, and of a correct model with all its
checks. The level is that of one check on one model among a hundred. `stakes` is what multiplying alone finds, with the
whole capital.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import check_model
from harness.adapters import adapt
from harness.bench.machine import machine
from harness.checks.carried import doubt
from harness.checks.masses import RegionCounts, region_masses
from harness.effort import CONFIDENCE, Effort, effort_named
from harness.evidence import Estimated
from harness.report import Report
from harness.statistics import binomial, categorical
from harness.statistics.carried import of_counts
from harness.store import write_text
from harness.subject import Subject
from suites.nightly.accumulate import START, grown, log_stakes, spent
from suites.nightly.night import STATISTICAL, seed_of
from suites.nightly.state import ALPHA, State, folded, with_series
from suites.nightly.sums import log_average

CASES = (
    ("quick", 0.05, 200, 10),
    ("quick", 0.025, 200, 30),
    ("quick", 0.0125, 200, 100),
    ("quick", 0.005, 200, 500),
    ("quick", 0.001, 40, 12_000),
    ("quick", 0.0005, 20, 50_000),
    ("standard", 0.00375, 200, 100),
    ("standard", 0.0015, 200, 600),
    ("standard", 0.001, 200, 1_200),
)
"""Effort, bias, series, nights of each."""
CORRECT = (("quick", 2000, 300, 0.05), ("standard", 500, 300, 0.05))
"""Effort, series, nights, and the level at which alarms of the correct coin are counted."""
REAL_COIN, REAL_COIN_NIGHTS = 0.0125, 60
REAL_NIGHTS = 20
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


# ------------------------------------------------------------------------------------------------ nights by counts


@dataclass(frozen=True)
class Seen:
    """What runs have seen at a look, (u,): their evidence, do they end there, by a FAIL, and what do they leave?"""

    evidence: Tensor
    ends: Tensor
    fails: Tensor
    log_e: Tensor  # with what the arithmetic explains allowed for
    sums: Tensor  # (u, quantities, 4)


@dataclass(frozen=True)
class Nights:
    """Of each night of each series, (series, nights): draws, evidence, whether it failed alone; and the sums."""

    n: Tensor
    log_e: Tensor
    failed: Tensor
    sums: Tensor  # (series, nights, quantities, 4)


@cache
def _begin(effort: Effort) -> tuple[RegionCounts, float]:
    """The statistic of a run, and what is allowed for its arithmetic."""
    subject = Subject(adapt(Coin(0.0)), effort, 0)
    statistic = region_masses.start(subject)
    assert isinstance(statistic, RegionCounts)
    return statistic, doubt(region_masses, subject)


def seen(effort: Effort, n: int, heads: Tensor) -> Seen:
    """The look after n tosses of which so many (u,) were heads: all at once what `RegionCounts` says of each."""
    statistic, allowed = _begin(effort)
    counts = torch.stack([n - heads, heads, torch.zeros_like(heads)], 1).double()
    below = counts.cumsum(1)[:, :-1]
    events = torch.cat([counts, below], 1)
    masses = torch.cat([statistic.masses, statistic.union_masses])
    errors = torch.cat([statistic.uncertainty, statistic.union_uncertainty])

    def log_e(more: float) -> Tensor:
        cells = categorical.log_e_values(counts, statistic.masses, statistic.uncertainty + more)
        unions = binomial.log_e_value(below, n, statistic.union_masses, statistic.union_uncertainty + more)
        return torch.logaddexp(cells, unions.logsumexp(1) - math.log(unions.shape[1])) - math.log(2)

    low, high = binomial.interval(events, n, masses, math.log(len(masses) / (1 - CONFIDENCE)))
    bound = torch.maximum((low - masses - errors).abs(), (high - masses + errors).abs()).amax(1)
    evidence = log_e(0.0)
    fails = evidence >= -math.log(LEVEL)
    ends = fails | (bound <= effort.tolerance) | (n == effort.draws)
    rows = of_counts(events.flatten(), n, masses.repeat(len(heads)), (errors + allowed).repeat(len(heads)))
    return Seen(evidence, ends, fails, log_e(allowed), rows.reshape(len(heads), -1, 4))


def nights(effort: Effort, bias: float, series: int, length: int, seed: int) -> Nights:
    """Series of nights of a coin with this bias."""
    looks = torch.tensor(effort.looks())
    steps = torch.diff(looks, prepend=looks.new_zeros(1)).double().expand(series, length, -1)
    source = torch.Generator().manual_seed(seed)
    heads = torch.binomial(steps, torch.full_like(steps, 0.3 + bias), generator=source).cumsum(-1).long()
    n, log_e = torch.zeros(series, length).long(), torch.zeros(series, length).double()
    failed, sums = torch.zeros(series, length).bool(), torch.zeros(series, length, 5, 4).double()
    going = torch.ones(series, length).bool()
    for j, drawn in enumerate(looks.tolist()):
        if not bool(going.any()):
            break
        counts, place = heads[..., j][going].unique(return_inverse=True)
        found = seen(effort, drawn, counts)
        here = going.clone()
        here[going] = found.ends[place]
        place = place[here[going]]
        n[here], log_e[here] = drawn, found.log_e[place]
        failed[here], sums[here] = found.fails[place], found.sums[place]
        going &= ~here
    return Nights(n, log_e, failed, sums)


def capital_of_sums(made: Nights) -> Tensor:
    """(series, nights): log of what the sums have made of 1 after each night; there is one layout."""
    share = spent(1.0, 1)
    logs = torch.stack([log_average(one.cumsum(0)) for one in made.sums])
    return torch.logaddexp(logs + math.log(share), torch.tensor(math.log1p(-share)).double())


def capital_of_stakes(made: Nights) -> Tensor:
    """(series, nights)"""
    rows = []
    for values in made.log_e.tolist():
        logs, row = START, []
        for value in values:
            logs = grown(logs, value)
            row.append(log_stakes(logs))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def together(sums: Tensor, stakes: Tensor) -> Tensor:
    """The whole capital: half of it in each."""
    return torch.logaddexp(sums, stakes) - math.log(2)


def found(log_capital: Tensor, level: float) -> dict[str, Any]:
    """In how many series the capital reached 1 / level, and after how many nights."""
    reached = log_capital >= -math.log(level)
    first = [int(row.to(torch.int8).argmax()) + 1 if bool(row.any()) else math.inf for row in reached]
    tenth, median, ninth = (value if value < math.inf else None for value in _deciles(first))
    return {"found": sum(bool(row.any()) for row in reached), "nights": {"10 %": tenth, "50 %": median, "90 %": ninth}}


def _deciles(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return tuple(ordered[math.ceil(part * len(ordered)) - 1] for part in (0.1, 0.5, 0.9))  # type: ignore[return-value]


def biased(name: str, bias: float, series: int, length: int) -> dict[str, Any]:
    """What was measured at one bias."""
    effort = effort_named(name)
    made = nights(effort, bias, series, length, seed=1)
    sums, stakes = capital_of_sums(made), capital_of_stakes(made)
    told: dict[str, Any] = {
        **{"effort": name, "bias": bias, "part_of_tolerance": bias / effort.tolerance},
        **{"series": series, "nights": length, "draws_a_night": float(made.n.double().mean())},
        **{"nights_failed_alone": int(made.failed.sum())},
        **{"accumulated": found(together(sums, stakes), LEVEL), "stakes": found(stakes, LEVEL)},
    }
    median = told["accumulated"]["nights"]["50 %"]
    return {**told, "median_draws_times_bias_squared": median and median * told["draws_a_night"] * bias**2}


def correct(name: str, series: int, length: int, level: float) -> dict[str, Any]:
    """Alarms of the correct coin on any night of a series, at a level at which some can be seen."""
    made = nights(effort_named(name), 0.0, series, length, seed=2)
    sums, stakes = capital_of_sums(made), capital_of_stakes(made)
    parts = {"accumulated": together(sums, stakes), "sums": sums, "stakes": stakes}
    alarms = {part: found(capital, level)["found"] for part, capital in parts.items()}
    return {"effort": name, "series": series, "nights": length, "level": level, "series_with_an_alarm": alarms}


# --------------------------------------------------------------------------------------------------- real nights


def real_coin(bias: float, length: int) -> dict[str, Any]:
    """Real nights of the coin, until it is found. ValueError where one is not what its counts say."""
    state = _begun("coin")
    effort = effort_named("quick")
    for night in range(1, length + 1):
        report = check_model(Coin(bias), effort=effort, seed=seed_of(night), only=[region_masses.id], alpha=LEVEL)
        (record,) = [record for record in report.records if record.check == region_masses.id]
        evidence = record.evidence
        if not isinstance(evidence, Estimated) or evidence.carried is None:
            raise ValueError(f"night {night}: {record.message}")
        due = seen(effort, evidence.n, torch.tensor([round(evidence.cells[1].observed * evidence.n)]))
        if not math.isclose(evidence.last.log_e, float(due.evidence), rel_tol=1e-9) or not due.ends:
            raise ValueError(f"night {night}: a real run says {evidence.last.log_e}, its counts {float(due.evidence)}")
        state = folded(state, _named(report, "coin"), {"night": night})
        if state.series["coin"].pairs[region_masses.id].crossed:
            break
    pair = state.series["coin"].pairs[region_masses.id]
    return {"effort": "quick", "bias": bias, "nights": pair.nights, "found_in": pair.crossed or None}


def real_model(length: int) -> dict[str, Any]:
    """Real nights of a correct model with all its checks."""
    state = _begun("normal")
    for night in range(1, length + 1):
        report = check_model(torch.distributions.Normal(0.0, 1.0), effort="quick", seed=seed_of(night))
        state = folded(state, _named(report, "normal"), {"night": night})
    pairs = state.series["normal"].pairs
    logs = [pair.log_capital for pair in pairs.values()]
    return {
        **{"model": "Normal(0, 1)", "effort": "quick", "nights": length, "checks": len(pairs)},
        **{"alarms": sum(pair.crossed > 0 for pair in pairs.values())},
        **{"largest_evidence": math.exp(max(logs)), "mean_evidence": statistics.mean(map(math.exp, logs))},
    }


def _begun(spec: str) -> State:
    return with_series(State(), [(spec, spec, {"spec": spec}, "as it is")], MODELS * STATISTICAL)


def _named(report: Report, spec: str) -> Report:
    """The report as one of a night: with a SPEC."""
    return replace(report, run=replace(report.run, specs={record.model: spec for record in report.records}))


def main(arguments: list[str] | None = None) -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(prog="python -m suites.nightly.power", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    call = parser.parse_args(arguments)
    torch.set_num_threads(1)
    told: dict[str, Any] = {
        **{"check": region_masses.id, "alpha": ALPHA, "level": LEVEL, "unit": "probability"},
        **{"seeds": "1 where biased, 2 where correct; of real nights their number", "machine": machine()},
    }
    measured = {
        "correct": [_shown(correct(*case)) for case in CORRECT],
        "biased": [_shown(biased(*case)) for case in CASES],
        "real": [_shown(real_coin(REAL_COIN, REAL_COIN_NIGHTS)), _shown(real_model(REAL_NIGHTS))],
    }
    if call.json is not None:
        write_text(call.json, json.dumps({**told, **measured}, indent=1, allow_nan=False) + "\n")
    return 0


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
