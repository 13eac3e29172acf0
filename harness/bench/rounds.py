"""The turns of a comparison: rounds of fresh processes, and in each turns A B A' A' B A, as in `verdict.py`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.bench.side import Side, SideError, close_all
from harness.bench.trees import Tree
from harness.bench.verdict import Round

TURN_SECONDS = 2e-3
"""A turn lasts this long at least, by several calls: a process that was just woken is slow for some 10 us."""

MOST_CALLS = 64
FEWEST_BLOCKS, MOST_BLOCKS = 5, 100
FIRST_INPUT = 1000
"""The repetitions before are those of the warm-up."""


@dataclass(frozen=True)
class Contender:
    """A model to be compared: how it is called in the output, its SPEC, and where it is imported from."""

    label: str
    spec: str
    tree: Tree


@dataclass(frozen=True)
class Setting:
    """What both sides are asked to do."""

    metric: str
    n: int
    seed: int = 0
    device: str = "cpu"
    dtype: str = ""
    threads: int = 1
    clock: str = "wall"
    timeout: float = 60.0
    data: str = ""  # a file of events, by its absolute path
    budget: float = 20.0
    rounds: int = 5


@dataclass
class Outcome:
    """What the rounds gave. `n` is the rows of a call, `of` the capability that is called."""

    n: int
    of: str = ""
    rounds: list[Round] = field(default_factory=list)
    number: int = 1  # calls of a turn
    interrupted: int = 0  # turns during which another process had the processor
    first: dict[str, list[float]] = field(default_factory=dict)  # seconds of the first call, by side
    outputs: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def note(self, said: Sequence[dict[str, Any]]) -> None:
        """What A and B said when they were built."""
        self.machine = said[0]["machine"]
        self.names = {"a": said[0]["name"], "b": said[1]["name"]}


def opened(contender: Contender, setting: Setting) -> Side:
    """The process of a contender, which has been asked to build its model and not yet answered."""
    tree = contender.tree
    side = Side(contender.label, tree.cwd, threads=setting.threads, timeout=setting.timeout)
    side.send(
        "build",
        spec=contender.spec,
        folders=list(map(str, tree.folders)),
        instead_of=tree.checkout,
        device=setting.device,
        dtype=setting.dtype,
        threads=setting.threads,
    )
    return side


def started(contenders: Sequence[Contender], setting: Setting) -> tuple[list[Side], list[dict[str, Any]]]:
    """A process each, started at once, and what they said of their models."""
    sides: list[Side] = []
    try:
        for contender in contenders:
            sides.append(opened(contender, setting))  # noqa: PERF401 - those that started must be closed
        return sides, [side.receive("build") for side in sides]
    except BaseException:
        close_all(sides)
        raise


def capability_of(metric: str, said: Sequence[dict[str, Any]], data: str) -> str:
    """What is called: memory is that of log_prob where all have it and there are events for it, else of sample."""
    if metric != "memory":
        return {"nll": "log_prob"}.get(metric, metric)
    able = all("log_prob" in answer["can"] for answer in said)
    return "log_prob" if able and (data or "sample" in said[0]["can"]) else "sample"


def share_pool(sides: Sequence[Side], setting: Setting, folder: Path, outcome: Outcome) -> None:
    """The same events for every side: the first side's draws, made once, or the rows of the file of --data."""
    file = folder / "pool.pt"
    if not file.exists():
        made = sides[0].ask("make_pool", n=setting.n, seed=setting.seed, data=setting.data, file=str(file))
        outcome.n = min(setting.n, made["shape"][0])
    for side in sides:
        side.ask("read_pool", file=str(file))


def one_round(a: Contender, b: Contender, setting: Setting, folder: Path, outcome: Outcome) -> None:
    """Fresh processes for A, B and A', their turns for a share of the budget; added to the outcome."""
    sides, said = started([a, b, a], setting)
    try:
        outcome.note(said)
        outcome.of = capability_of(setting.metric, said, setting.data)
        if outcome.of != "sample":
            share_pool(sides, setting, folder, outcome)
        asked = {
            "metric": setting.metric,
            "of": outcome.of,
            "n": outcome.n,
            "seed": setting.seed,
            "clock": setting.clock,
        }
        ready = [side.ask("prepare", **asked) for side in sides]
        same_work(a, b, ready[0]["output"], ready[1]["output"])
        for label, answer in (("a", ready[0]), ("b", ready[1])):
            outcome.first.setdefault(label, []).append(answer["first"])
        outcome.number = 1 if setting.metric == "memory" else calls_per_turn([answer["fastest"] for answer in ready])
        turns = [Turns(side, outcome.number) for side in sides]
        outcome.rounds.append(taken(*turns, budget=setting.budget / setting.rounds))
        outcome.interrupted += sum(each.interrupted for each in turns)
        outcome.outputs = {"a": turns[0].output, "b": turns[1].output}
        same_work(a, b, turns[0].output, turns[1].output)
    finally:
        close_all(sides)


def calls_per_turn(fastest: Sequence[float]) -> int:
    """So many that the slowest side's turn is about TURN_SECONDS long; the same for all sides."""
    return max(1, min(MOST_CALLS, math.ceil(TURN_SECONDS / max(max(fastest), 1e-9))))


def same_work(a: Contender, b: Contender, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """SideError where the two outputs differ in shape or dtype: then the seconds are not of the same work."""
    for what in ("shape", "dtype"):
        if ours.get(what) != theirs.get(what):
            raise SideError(
                f"not the same work: {a.label} gave the {what} {ours.get(what)}, {b.label} {theirs.get(what)}"
                + (": give --dtype" if what == "dtype" else "")
            )


class Turns:
    """Turns of one side, called with the repetition whose inputs come first; `output` is what the last one gave."""

    def __init__(self, side: Side, number: int):
        self.side, self.number = side, number
        self.output: dict[str, Any] = {}
        self.interrupted = 0

    def __call__(self, start: int) -> float:
        answer = self.side.ask("turn", number=self.number, start=start)
        self.output = answer["output"]
        self.interrupted += answer["interrupted"]
        if not 0 < answer["value"] < math.inf:  # NaN too
            raise SideError(f"{self.side.label}: a turn took {answer['value']}: leave the clock of its process alone")
        return float(answer["value"])


Turn = Callable[[int], float]


def taken(a: Turn, b: Turn, again: Turn, *, budget: float, clock: Callable[[], float] = time.monotonic) -> Round:
    """Blocks of six turns until the budget is used, within FEWEST_BLOCKS and MOST_BLOCKS.

    The two turns of a side in a block have different inputs, which are those of the other sides too.
    """
    ours: list[float] = []
    theirs: list[float] = []
    same: list[float] = []
    began, blocks = clock(), 0
    while blocks < FEWEST_BLOCKS or (blocks < MOST_BLOCKS and clock() - began < budget):
        start = FIRST_INPUT + 2 * (MOST_CALLS + 1) * blocks
        later = start + MOST_CALLS + 1
        for turn, kept, at in ((a, ours, start), (b, theirs, start), (again, same, start)):
            kept.append(turn(at))
        for turn, kept, at in ((again, same, later), (b, theirs, later), (a, ours, later)):
            kept.append(turn(at))
        blocks += 1
    return Round(tuple(ours), tuple(theirs), tuple(same))
