"""The examiner examined: how often it finds each planted defect, and how often it cries wolf.

Three kinds of rows. *Planted* defects (`mutants.planted`) go through whole runs, at several dimensions, scales and
efforts. *Mutants* and *near misses* of a check go through that check alone. *Correct* models go through whole runs at
the default false-alarm budget and at 0.05, where the rate can be seen.
"""

from __future__ import annotations

import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import active_children, get_context
from pathlib import Path

import torch
from rich.console import Console

from harness.adapters import adapt
from harness.checks import CHECKS
from harness.checks.law import Check
from harness.effort import FALSE_ALARM_BUDGET, Settings, effort_named
from harness.errors import InterruptedRunError
from harness.evidence import Record, Verdict
from harness.model import Model
from harness.mutants import MUTANTS, NEAR_MISSES, mutated
from harness.mutants.mutant import Mutant, NearMiss
from harness.mutants.planted import PLANTED, Lattice, TwoModes
from harness.plan import plan
from harness.run import examine
from harness.selftest_rows import Row, cpus, merged, read, write

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
    erratum: str = ""  # that a mutant implements, and that a near miss looks like
    law: str = ""  # the check that a mutant or a near miss is made for


@dataclass(frozen=True)
class Outcome:
    """One run of one case at one seed: the first check that failed, after how many draws; processor seconds."""

    failed: str
    draws: int
    seconds: float


@cache
def cases() -> tuple[Case, ...]:
    """Every case of the published table."""
    return tuple(_cases())


def _cases() -> Iterator[Case]:
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
        yield Case("near miss", near.name, "", 0, 0.0, "standard", erratum=near.erratum, law=near.check)
    for name in CORRECT:
        yield Case("correct", "none", name, 0, 0.0, "quick", FALSE_ALARM_BUDGET)
        for effort in (*EFFORTS, "thorough"):
            yield Case("correct", "none", name, 0, 0.0, effort, CALIBRATION_BUDGET)


def run_case(case: Case, seed: int) -> Outcome:
    """One seed of one case."""
    torch.set_num_threads(1)
    started = time.process_time()
    failed, draws = _run(case, seed)
    return Outcome(failed, draws, time.process_time() - started)


def _run(case: Case, seed: int) -> tuple[str, int]:
    match case.group:
        case "planted":
            planted = next(p for p in PLANTED if p.name == case.mutant)
            model = planted.broken(case.model, case.dimension, case.scale)
            assert model is not None
            return _first_failure(model, case, seed)
        case "mutant":
            mutant = next(m for m in MUTANTS if (m.name, m.check) == (case.mutant, case.law))
            return _first_failure(_changed(mutant), case, seed, _alone(mutant))
        case "near miss":
            near = next(m for m in NEAR_MISSES if (m.name, m.check) == (case.mutant, case.law))
            return _first_failure(_changed(near), case, seed, _alone(near))
    return _first_failure(adapt(CORRECT[case.model](), case.model), case, seed)


def _changed(change: Mutant | NearMiss) -> Model:
    return mutated(adapt(change.base()), change.change, change.name)


def _alone(change: Mutant | NearMiss) -> tuple[Check, ...]:
    """The check that the change was made for, without those before it, which may find the defect first."""
    return tuple(check for check in CHECKS if check.id == change.check)


def _first_failure(model: Model, case: Case, seed: int, checks: Sequence[Check] = CHECKS) -> tuple[str, int]:
    """Examine until the first FAIL or ERROR, and say after how many draws. Nothing found is an empty name."""
    planned = plan(model, checks, case.alpha)
    for record in examine(model, planned, Settings(effort_named(case.effort), seed)):
        if record.verdict in (Verdict.FAIL, Verdict.ERROR):
            return record.check, draws_used(record)
    return "", 0


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
        seconds=sum(outcome.seconds for outcome in outcomes),
        cpus=cpus(),
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
    """Cases that one of the words describes, or all parts of a word such as "standard+d=10"; all without words.

    Raises ValueError for a word that selects nothing.
    """
    words = tuple(only)
    everything = cases()
    if not words:
        return list(everything)
    for word in words:
        if not any(_matches(case, word) for case in everything):
            raise ValueError(f"no mutant or model of the self-test matches {word!r}: try one of {_names(everything)}")
    return [case for case in everything if any(_matches(case, word) for word in words)]


def _matches(case: Case, word: str) -> bool:
    own = _words(case)
    return word in own or all(part in own for part in word.split("+"))


def _words(case: Case) -> set[str]:
    """Group, mutant, model, check, erratum, effort and budget; dimension and scale of planted bugs."""
    own = {case.group, case.mutant, case.model, case.law, case.erratum, case.effort, f"alpha={case.alpha:g}"}
    return own | {f"d={case.dimension}", f"scale={case.scale:g}"} if case.dimension else own


def _names(everything: Sequence[Case]) -> str:
    listed = [name for case in everything for name in (case.group, case.mutant)]
    errata = sorted({case.erratum for case in everything if case.erratum})
    return ", ".join(dict.fromkeys([*listed, *errata, *EFFORTS, *(f"d={d}" for d in DIMENSIONS)]))


def seeds_for(case: Case, seeds: int) -> int:
    """All seeds for correct models at quick effort, and for planted defects at scale 1 and standard effort; fewer
    elsewhere.

    Other scales repeat what scale 1 says, long events cost much, and mutants of one check are nearly deterministic.
    """
    if case.group in ("mutant", "near miss"):
        return max(1, seeds // 20)
    if case.group == "correct":
        return max(1, seeds // {"quick": 1, "standard": 2, "thorough": 20}[case.effort])
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
    strangers = active_children()
    with ProcessPoolExecutor(max_workers=workers, mp_context=context, initializer=_deaf_to_interrupts) as pool:
        try:
            pending = [[pool.submit(run_case, case, seed) for seed in range(seeds_for(case, seeds))] for case in chosen]
            for i, (case, futures) in enumerate(zip(chosen, pending, strict=True)):
                rows.append(row_of(case, [future.result() for future in futures]))
                if progress is not None:
                    progress(i + 1, len(chosen), rows[-1])
        except BaseException:  # Ctrl-C above all: what is running is of no use to anybody
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():
                if worker not in strangers:
                    worker.terminate()
            raise
    return rows


def _deaf_to_interrupts() -> None:
    """Ctrl-C goes to all processes of the terminal: the one that writes the rows decides what follows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def troubles(rows: Iterable[Row]) -> list[Row]:
    """Rows that break a promise: a false alarm at the default budget, or a mutant of a check that it does not find."""
    return [
        row
        for row in rows
        if (row.false_alarms and row.alpha == FALSE_ALARM_BUDGET) or (row.group == "mutant" and row.found < row.seeds)
    ]


def run_selftest(
    only: Iterable[str] = (),
    seeds: int | None = None,
    workers: int = 1,
    json_path: Path | None = None,
    merge: bool = False,
) -> int:
    """The command: a line a row on the terminal, rows as JSON; exit status 1 when a promise, or a worker, is broken.

    With `merge`, the rows replace those of the same cases in the file, which keeps its others. Raises ValueError for a
    name that selects nothing, InterruptedRunError, with what was kept, at Ctrl-C.
    """
    console = Console()
    chosen = selected(only)
    before = read(json_path) if merge and json_path is not None else []
    order = [row_of(case, ()).place for case in cases()]
    rows: list[Row] = []

    def keep(done: int, total: int, row: Row) -> None:
        rows.append(row)
        console.print(f"[{done}/{total}] {_told(row)}", highlight=False, markup=False, soft_wrap=True)
        if json_path is not None:  # after every row, so that an interrupted run keeps what it measured
            write(json_path, merged(before, rows, order))

    try:
        measure(only, 100 if seeds is None else seeds, workers, keep)
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted after {_kept(rows, chosen, json_path)}") from None
    except BrokenProcessPool:  # what killed it is not known here: memory that ran out, most often
        print(
            f"harness: a worker process was killed after {_kept(rows, chosen, json_path)}. "
            "Give it more memory or fewer --workers; --only and --merge measure what is missing",
            file=sys.stderr,
        )
        return 1
    if json_path is not None:
        console.print(f"rows written to {json_path}", soft_wrap=True)
    for row in troubles(rows):
        console.print(f"broken promise: {row}", style="red", markup=False)
    return 1 if troubles(rows) else 0


def _kept(rows: Sequence[Row], chosen: Sequence[Case], path: Path | None) -> str:
    """How far a run came that did not end, and what is left of it."""
    kept = "without --json nothing is kept" if path is None else f"what was measured is in {path}"
    return f"{len(rows)} of {len(chosen)} rows; {kept}"


def _told(row: Row) -> str:
    """A row as a line for the terminal."""
    what = f"{row.false_alarms} false alarms" if row.group in ("correct", "near miss") else f"{row.found} found"
    draws = "" if row.draws_median is None else f", median {row.draws_median:,.0f} draws"
    place = f" d={row.dimension} scale={row.scale:g}" if row.dimension else ""
    return (
        f"{row.group} {row.mutant} {row.model}{place} {row.effort} alpha={row.alpha:g}: "
        f"{what} in {row.seeds}{draws}, {row.seconds or 0:.1f} s {row.check}"
    )
