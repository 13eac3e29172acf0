"""Run every rule on every planted bug, and on correct models for its false alarms."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from typing import Any

import torch

from harness.adapters import adapt
from harness.model import Model
from harness.mutants import mutated
from harness.mutants.planted import PLANTED, Lattice, Normal
from harness.streams import generator
from suites.rivals.rules import Exhibit, RefusedError, Rule, alarms, rules

DIMENSIONS = (1, 10, 50)
OTHER_SCALE = 1e3
"""One scale besides 1, at the smallest size: every rule here is about shapes, and finds the same."""
FALSE_ALARM_SEEDS = 10
"""Seeds of a correct model for each seed of a planted bug."""
NUMBERS = 100_000
"""Draws times dimensions up to which a row gets all its seeds; beyond, in proportion fewer, but 20 at least."""


@dataclass(frozen=True)
class Case:
    """One row before it is run."""

    rule: str
    mutant: str
    model: str
    dimension: int
    scale: float
    n: int
    seeds: int


@dataclass(frozen=True)
class Row:
    """One row of the table. `hidden` says that the rule never calls the method that the bug is in; `refused` quotes a
    rule that says of itself that it cannot be used. Both have no seeds."""

    rule: str
    title: str
    who: str
    mutant: str
    defect: str
    model: str
    dimension: int
    scale: float
    n: int
    nominal: float
    seeds: int
    found: int
    false_alarms: int
    hidden: str
    refused: str


def coin() -> Model:
    """A fair coin as `Lattice` would write it: the correct model on which dividing by n p (1 - p) does most harm."""
    law = Lattice(1)
    law.table = torch.tensor([0.5, 0.5], dtype=torch.float64)
    return adapt(law, "coin")


def models_of(case: Case) -> tuple[Model, Model]:
    """The model of a case, and the correct one."""
    if case.mutant == "none":
        correct = _correct(case.model, case.dimension, case.scale)
        return correct, correct
    planted = next(p for p in PLANTED if p.name == case.mutant)
    base = planted.correct(case.model, case.dimension, case.scale)
    assert base is not None
    return mutated(base, planted.change, planted.name), base


def _correct(kind: str, d: int, scale: float) -> Model:
    match kind:
        case "continuous":
            return adapt(Normal(d, scale), kind)
        case "discrete":
            return adapt(Lattice(d), kind)
        case "coin":
            return coin()
    raise ValueError(f"no correct model is called {kind!r}")


@cache
def named() -> dict[str, Rule]:
    """The rules by name."""
    return {rule.name: rule for rule in rules()}


def cases(seeds: int) -> Iterator[Case]:
    """Every row: the correct models first, then each planted bug."""
    for rule in named().values():
        for kind, d, scale, n in _settings(rule):
            if scale == 1.0:
                yield Case(
                    rule.name, "none", kind, d, scale, n, _affordable(rule, FALSE_ALARM_SEEDS * seeds, kind, n, d)
                )
            for planted in PLANTED:
                if kind != "coin" and planted.correct(kind, d, scale) is not None:
                    yield Case(rule.name, planted.name, kind, d, scale, n, _affordable(rule, seeds, kind, n, d))


def _settings(rule: Rule) -> Iterator[tuple[str, int, float, int]]:
    for kind in ("continuous", "discrete"):
        for d in DIMENSIONS:
            for n in rule.sizes(kind, d):
                yield kind, d, 1.0, n
    for n in rule.sizes("continuous", 1)[:1]:
        yield "continuous", 1, OTHER_SCALE, n
    for n in rule.sizes("discrete", 1)[:1]:
        yield "coin", 1, 1.0, n


def _affordable(rule: Rule, seeds: int, kind: str, n: int, d: int) -> int:
    """Fewer seeds where a seed is dear, but no fewer than 20 (or all, if fewer were asked for)."""
    share = min(0.06 if rule.dear(kind, d) else 1.0, NUMBERS / (n * d))
    return max(min(seeds, 20), math.floor(seeds * share))


def run_case(case: Case) -> Row:
    """One row from all its seeds."""
    torch.set_num_threads(1)
    rule = named()[case.rule]
    model, correct = models_of(case)
    hidden = _hidden(rule, model, correct)
    count = seeds = 0
    refused = ""
    try:
        for seed in range(0 if hidden else case.seeds):
            count += alarms(rule, _exhibit(case, model, correct, seed))
            seeds += 1
    except RefusedError as reason:
        count, seeds, refused = 0, 0, str(reason)
    wolf = case.mutant == "none"
    return Row(
        rule=rule.name,
        title=rule.title,
        who=rule.who,
        mutant=case.mutant,
        defect=next((p.defect for p in PLANTED if p.name == case.mutant), ""),
        model=case.model,
        dimension=case.dimension,
        scale=case.scale,
        n=case.n,
        nominal=rule.nominal(case.dimension),
        seeds=seeds,
        found=0 if wolf else count,
        false_alarms=count if wolf else 0,
        hidden=hidden,
        refused=refused,
    )


def _exhibit(case: Case, model: Model, correct: Model, seed: int) -> Exhibit:
    x = model.sample(case.n, generator=generator(seed, "rivals", case.mutant, case.n))
    return Exhibit(model, correct, x, generator(seed, "rivals", case.rule))


def _hidden(rule: Rule, model: Model, correct: Model) -> str:
    """The methods that the bug changed, if the rule calls none of them."""
    same = model is correct or model.methods.keys() != correct.methods.keys()
    changed = [] if same else [name for name in model.methods if model.methods[name] != correct.methods[name]]
    return ", ".join(changed) if changed and not set(changed) & set(rule.looks_at) else ""


def selected(only: Iterable[str], seeds: int) -> list[Case]:
    """Cases whose rule, mutant, kind of model or dimension is one of the words; all without words.

    Raises ValueError for a word that selects nothing.
    """
    words, everything = tuple(only), list(cases(seeds))
    for word in words:
        if not any(_matches(case, word) for case in everything):
            names = dict.fromkeys(name for case in everything for name in (case.rule, case.mutant))
            raise ValueError(f"no rule, planted bug or model is called {word!r}: try one of {', '.join(names)}")
    return [case for case in everything if all(_matches(case, word) for word in words)]


def _matches(case: Case, word: str) -> bool:
    return word in (case.rule, case.mutant, case.model, f"d={case.dimension}", f"n={case.n}")


Progress = Callable[[int, int, Row], None]


def measure(
    only: Iterable[str] = (), seeds: int = 100, workers: int = 1, progress: Progress | None = None
) -> list[Row]:
    """The rows, in the order of `cases`, the same for any number of workers."""
    chosen = selected(only, seeds)
    rows: list[Row] = []
    with ProcessPoolExecutor(max_workers=workers, mp_context=get_context("forkserver")) as pool:
        for row in pool.map(run_case, chosen):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(chosen), row)
    return rows


def as_json(rows: Sequence[Row], seconds: float, workers: int) -> dict[str, Any]:
    """The rows with what they were measured with."""
    return {
        "schema_version": "1.0",
        "what": "python -m suites.rivals",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "scipy": version("scipy"),
            "harness": version("genharness"),
        },
        "machine": f"{platform.machine()}, {workers} processes of one thread each",
        "seconds": round(seconds, 1),
        "rows": [vars(row) for row in rows],
    }
