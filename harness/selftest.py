"""The examiner examined: how often it finds each planted defect, and how often it cries wolf.

Three kinds of rows. *Planted* defects (`mutants.planted`) go through whole runs, at several dimensions, scales and
efforts. *Mutants* and *near misses* of a check go through that check alone. *Correct* models go through whole runs at
the default false-alarm budget and at 0.05, where the rate can be seen.
"""

from __future__ import annotations

import json
import platform
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from harness.adapters import adapt
from harness.checks import CHECKS
from harness.effort import FALSE_ALARM_BUDGET, effort_named
from harness.evidence import Record, Verdict
from harness.model import Model
from harness.mutants import MUTANTS, NEAR_MISSES, mutated
from harness.mutants.planted import PLANTED, Lattice, TwoModes
from harness.plan import plan, select
from harness.run import Settings, examine
from harness.store import write_text

DIMENSIONS = (1, 10, 50)
SCALES = (1e-3, 1.0, 1e3)
EFFORTS = ("quick", "standard")
CALIBRATION_BUDGET = 0.05

CORRECT: dict[str, Callable[[], object]] = {
    "Normal": lambda: torch.distributions.Normal(1.0, 2.0),
    "StudentT(3)": lambda: torch.distributions.StudentT(3.0),
    "Exponential": lambda: torch.distributions.Exponential(0.5),
    "Beta(1/2, 1/2)": lambda: torch.distributions.Beta(0.5, 0.5),
    "Uniform": lambda: torch.distributions.Uniform(-1.0, 3.0),
    "Poisson(4)": lambda: torch.distributions.Poisson(4.0),
    "Bernoulli(0.02)": lambda: torch.distributions.Bernoulli(0.02),
    "Categorical": lambda: torch.distributions.Categorical(torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])),
    "Dirichlet": lambda: torch.distributions.Dirichlet(torch.tensor([0.5, 2.0, 3.0])),
    "correlated Normal, 10-d": lambda: torch.distributions.MultivariateNormal(
        torch.zeros(10), 0.9 * torch.ones(10, 10) + 0.1 * torch.eye(10)
    ),
    "lattice, 10-d": lambda: Lattice(10, rho=0.1),
    "two modes, 2-d": lambda: TwoModes(2, 1.0),
}


@dataclass(frozen=True)
class Case:
    """One row before it is run."""

    group: str  # planted, mutant, near miss, correct
    mutant: str
    model: str
    dimension: int
    scale: float
    effort: str
    alpha: float = FALSE_ALARM_BUDGET
    erratum: str = ""
    law: str = ""  # the check that a mutant or a near miss is made for


@dataclass(frozen=True)
class Outcome:
    """One run of one case at one seed: the first check that failed, after how many draws."""

    failed: str
    draws: int
    seconds: float


@dataclass(frozen=True)
class Row:
    """A row of the published table. `found` and `false_alarms` count seeds; `draws_median` is over those found."""

    group: str
    mutant: str
    defect: str
    model: str
    dimension: int
    scale: float
    effort: str
    check: str
    seeds: int
    found: int
    draws_median: float | None
    false_alarms: int
    alpha: float
    erratum: str


def cases() -> Iterator[Case]:
    """Every case of the published table."""
    for effort in EFFORTS:
        for planted in PLANTED:
            for kind in ("continuous", "discrete"):
                for d in DIMENSIONS:
                    for scale in SCALES if kind == "continuous" else (1.0,):
                        if planted.correct(kind, d, scale) is not None:
                            yield Case("planted", planted.name, kind, d, scale, effort)
    for mutant in MUTANTS:
        yield Case("mutant", mutant.name, "", 0, 0.0, "standard", erratum=mutant.erratum, law=mutant.check)
    for near in NEAR_MISSES:
        yield Case("near miss", near.name, "", 0, 0.0, "standard", law=near.check)
    for name in CORRECT:
        for effort, alpha in (("quick", FALSE_ALARM_BUDGET), ("quick", CALIBRATION_BUDGET)):
            yield Case("correct", "none", name, 0, 0.0, effort, alpha)


def run_case(case: Case, seed: int) -> Outcome:
    """One seed of one case."""
    torch.set_num_threads(1)
    match case.group:
        case "planted":
            planted = next(p for p in PLANTED if p.name == case.mutant)
            model = planted.broken(case.model, case.dimension, case.scale)
            assert model is not None
            return _first_failure(model, case, seed, ())
        case "mutant":
            mutant = next(m for m in MUTANTS if (m.name, m.check) == (case.mutant, case.law))
            return _first_failure(
                mutated(adapt(mutant.base()), mutant.change, mutant.name), case, seed, (mutant.check,), mutant.check
            )
        case "near miss":
            near = next(m for m in NEAR_MISSES if (m.name, m.check) == (case.mutant, case.law))
            return _first_failure(
                mutated(adapt(near.base()), near.change, near.name), case, seed, (near.check,), near.check
            )
    return _first_failure(adapt(CORRECT[case.model](), case.model), case, seed, ())


def _first_failure(model: Model, case: Case, seed: int, only: Sequence[str], which: str = "") -> Outcome:
    """Examine until the first FAIL or ERROR (of the check `which`, if given); nothing found is an empty name."""
    planned = plan(model, select(CHECKS, only), case.alpha)
    seconds = 0.0
    for record in examine(model, planned, Settings(effort_named(case.effort), seed)):
        seconds += record.seconds
        if record.verdict in (Verdict.FAIL, Verdict.ERROR) and which in ("", record.check):
            return Outcome(record.check, draws_used(record), seconds)
    return Outcome("", 0, seconds)


def draws_used(record: Record) -> int:
    """Draws, or points, that a FAIL needed."""
    return record.n_samples


def row_of(case: Case, outcomes: Sequence[Outcome]) -> Row:
    """The row of a case from its seeds."""
    hits = [outcome for outcome in outcomes if outcome.failed]
    wolf = case.group in ("correct", "near miss")
    names = Counter(outcome.failed for outcome in hits)
    return Row(
        group=case.group,
        mutant=case.mutant,
        defect=_defect(case),
        model=case.model,
        dimension=case.dimension,
        scale=case.scale,
        effort=case.effort,
        check=names.most_common(1)[0][0] if names else case.law,
        seeds=len(outcomes),
        found=0 if wolf else len(hits),
        draws_median=statistics.median(outcome.draws for outcome in hits) if hits else None,
        false_alarms=len(hits) if wolf else 0,
        alpha=case.alpha,
        erratum=case.erratum,
    )


def _defect(case: Case) -> str:
    for planted in PLANTED:
        if case.group == "planted" and planted.name == case.mutant:
            return planted.defect
    for mutant in MUTANTS:
        if case.group == "mutant" and (mutant.name, mutant.check) == (case.mutant, case.law):
            return mutant.defect
    for near in NEAR_MISSES:
        if case.group == "near miss" and (near.name, near.check) == (case.mutant, case.law):
            return near.change_made
    return ""


def selected(only: Iterable[str]) -> list[Case]:
    """Cases whose group, mutant, model or check is one of the words; all without words.

    Raises ValueError for a word that selects nothing.
    """
    words = tuple(only)
    everything = list(cases())
    if not words:
        return everything
    for word in words:
        if not any(_matches(case, word) for case in everything):
            raise ValueError(f"no mutant or model of the self-test matches {word!r}: try one of {_names(everything)}")
    return [case for case in everything if any(_matches(case, word) for word in words)]


def _matches(case: Case, word: str) -> bool:
    return word in (case.group, case.mutant, case.model, case.law)


def _names(everything: Sequence[Case]) -> str:
    return ", ".join(dict.fromkeys(name for case in everything for name in (case.group, case.mutant)))


def seeds_for(case: Case, seeds: int) -> int:
    """All seeds for correct models, and for planted defects at scale 1 and standard effort; fewer elsewhere.

    Other scales repeat what scale 1 says, long events cost much, and mutants of one check are nearly deterministic.
    """
    if case.group in ("mutant", "near miss"):
        return max(1, seeds // 20)
    if case.group == "planted" and (case.scale != 1 or case.effort != "standard"):
        return max(1, seeds // (10 if case.dimension >= 50 else 5))
    return (
        max(1, seeds // 4) if case.group == "planted" and case.dimension >= 50 and case.model == "discrete" else seeds
    )


Progress = Callable[[int, int, Row], None]


def measure(
    only: Iterable[str] = (), seeds: int = 100, workers: int = 1, progress: Progress | None = None
) -> list[Row]:
    """Run the cases; rows in the order of `cases`, the same for any number of workers."""
    chosen = selected(only)
    rows = []
    context = get_context("forkserver")
    context.set_forkserver_preload(["harness.selftest"])
    with ProcessPoolExecutor(max_workers=workers, mp_context=context) as pool:
        pending = [[pool.submit(run_case, case, seed) for seed in range(seeds_for(case, seeds))] for case in chosen]
        for i, (case, futures) in enumerate(zip(chosen, pending, strict=True)):
            rows.append(row_of(case, [future.result() for future in futures]))
            if progress is not None:
                progress(i + 1, len(chosen), rows[-1])
    return rows


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows with what they were measured with."""
    return {
        "schema_version": "1.0",
        "what": "harness selftest",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "harness": version("genharness")},
        "rows": [asdict(row) for row in rows],
    }


def troubles(rows: Iterable[Row]) -> list[Row]:
    """Rows that break a promise: a false alarm at the default budget, or a mutant of a check that it does not find."""
    return [
        row
        for row in rows
        if (row.false_alarms and row.alpha == FALSE_ALARM_BUDGET) or (row.group == "mutant" and row.found < row.seeds)
    ]


def run_selftest(
    only: Iterable[str] = (), seeds: int | None = None, workers: int = 1, json_path: Path | None = None
) -> int:
    """The command: a live table on the terminal, rows as JSON; exit status 1 when a promise is broken.

    Raises ValueError for a name that selects nothing.
    """
    console = Console()
    selected(only)

    def show(done: int, total: int, row: Row) -> None:
        what = f"{row.false_alarms} false alarms" if row.group in ("correct", "near miss") else f"{row.found} found"
        draws = "" if row.draws_median is None else f", median {row.draws_median:,.0f} draws"
        place = f" d={row.dimension} scale={row.scale:g}" if row.dimension else ""
        console.print(
            f"[{done}/{total}] {row.group} {row.mutant} {row.model}{place} {row.effort} alpha={row.alpha:g}: "
            f"{what} in {row.seeds}{draws} {row.check}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    rows: list[Row] = []

    def keep(done: int, total: int, row: Row) -> None:
        rows.append(row)
        show(done, total, row)
        if json_path is not None:  # after every row, so that an interrupted run keeps what it measured
            write_text(json_path, json.dumps(as_json(rows), indent=1, allow_nan=False) + "\n")

    measure(only, 100 if seeds is None else seeds, workers, keep)
    if json_path is not None:
        console.print(f"rows written to {json_path}")
    for row in troubles(rows):
        console.print(f"broken promise: {row}", style="red", markup=False)
    return 1 if troubles(rows) else 0
