"""`harness bench`: one model is timed, or two are compared in turns. Exit status: 0 not slower, 1 slower or failed."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.bench.rounds import Contender, Outcome, Setting, capability_of, one_round, share_pool, started
from harness.bench.side import SideError, close_all
from harness.bench.trees import here, trees
from harness.bench.verdict import FEWEST_ROUNDS, Difference, Side, compared
from harness.errors import CallError, InterruptedRunError

SCHEMA_VERSION = "1.0"
METRICS = ("log_prob", "sample", "fit", "memory", "nll")
ALONE = ("sample", "log_prob", "memory")
"""What is measured of one model when nothing is named."""

GRAIN = 2**20
"""Bytes, as in `job.py`."""

CLOCKS = ("wall", "cpu")

POLICY = {"log_prob": 0.05, "sample": 0.05, "fit": 0.05, "memory": 0.05, "nll": 0.005}
"""What does not matter: a share of the seconds or bytes, or nats per dimension."""

ROWS = {"nll": 5_000}
"""Rows of a call, where it is not 1,000. NLL is the mean over twice as many."""

WORDS = {
    "time": {Side.MORE: "SLOWER", Side.LESS: "FASTER"},
    "memory": {Side.MORE: "LARGER", Side.LESS: "SMALLER"},
    "nll": {Side.MORE: "WORSE", Side.LESS: "BETTER"},
}


@dataclass(frozen=True)
class Call:
    """A call of `harness bench`, with the defaults of its options."""

    specs: tuple[str, ...]
    commits: tuple[str, ...] = ()
    metric: str = ""
    n: int | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: str = ""
    threads: int = 1
    clock: str = "wall"
    policy: float | None = None
    budget: float = 20.0
    rounds: int = 5
    timeout: float = 60.0
    data: Path | None = None
    strict: bool = False
    json: Path | None = None


def bench(call: Call) -> int:
    """Do what was called for; the table, the file, the exit status.

    CallError where the call was wrong, InterruptedRunError after Ctrl-C.
    """
    _validate(call)
    with _contenders(call) as contenders, tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
        try:
            told = (
                _alone(call, contenders[0], Path(folder)) if len(contenders) == 1 else _both(call, contenders, folder)
            )
        except SideError as error:
            return _failed(call, str(error))
        except KeyboardInterrupt:
            raise InterruptedRunError("interrupted before there was a verdict: nothing is written") from None
    from harness.bench.show import lines

    for line in lines(told):
        print(line)
    _write(call, told)
    return (
        1 if told["verdict"] in ("SLOWER", "LARGER", "WORSE") or (call.strict and told["verdict"] == "AMBIGUOUS") else 0
    )


def _validate(call: Call) -> None:
    """Refuse what makes no sense before anything is started."""
    from harness.calls import DEVICES
    from harness.commands import DTYPES

    given = len(call.specs) if not call.commits else len(call.commits)
    if call.commits and (len(call.commits) != 2 or len(call.specs) != 1):
        raise CallError("--commits takes two commits of one SPEC: harness bench SPEC --commits main HEAD")
    if not 1 <= given <= 2:
        raise CallError(f"{given} SPECs were given: give one to time it, or two to compare them")
    if call.metric not in ("", *METRICS):
        raise CallError(f"--metric is {call.metric!r}: choose one of {', '.join(METRICS)}")
    if given == 1 and call.metric in ("nll",):
        raise CallError("--metric nll compares two models: give a second SPEC, or --commits")
    for option, value, allowed in (
        ("device", call.device, DEVICES),
        ("dtype", call.dtype, DTYPES),
        ("clock", call.clock, CLOCKS),
    ):
        if value not in allowed:
            raise CallError(f"--{option} is {value!r}: choose one of {', '.join(filter(None, allowed))}")
    if call.clock == "cpu" and call.device != "cpu":
        raise CallError("--clock cpu counts the seconds of processors, not of a GPU: leave it out with --device cuda")
    for option, number, least in (
        *(("n", call.n, 2), ("threads", call.threads, 1), ("rounds", call.rounds, FEWEST_ROUNDS)),
        *(("policy", call.policy, 0), ("budget", call.budget, 0), ("timeout", call.timeout, 0)),
    ):
        if number is not None and not least <= number < math.inf:
            raise CallError(f"--{option} is {number}: give {least} or more")
    if call.data is not None and not call.data.is_file():
        raise CallError(f"--data {call.data} is no file: give a .npy or .pt file of events")
    if call.json is not None:
        from harness.calls import check_outputs, files_of

        check_outputs({"--json": call.json}, [*([call.data] if call.data else []), *files_of(call.specs)])


@contextmanager
def _contenders(call: Call) -> Iterator[list[Contender]]:
    """The models of the call; of commits, while their folders are there."""
    if call.commits:
        with trees(call.commits) as found:
            names = [f"{label} {name}" for label, name in zip("AB", call.commits, strict=True)]
            yield [Contender(f"{name}", call.specs[0], tree) for name, tree in zip(names, found, strict=True)]
    else:
        yield [Contender(f"{label} {spec}", spec, here()) for label, spec in zip("AB", call.specs, strict=False)]


def _setting(call: Call) -> Setting:
    metric = call.metric or "log_prob"
    return Setting(
        metric=metric,
        n=call.n if call.n is not None else ROWS.get(metric, 1_000),
        seed=call.seed,
        device=call.device,
        dtype=call.dtype,
        threads=call.threads,
        clock=call.clock,
        timeout=call.timeout,
        data=str(call.data.resolve()) if call.data is not None else "",
        budget=call.budget,
        rounds=call.rounds,
    )


# --------------------------------------------------------------------------------------------------- one model


def _alone(call: Call, contender: Contender, folder: Path) -> dict[str, Any]:
    """Seconds of each call of one model, its memory, and how near it comes to the machine's ceilings."""
    setting = _setting(call)
    sides, said = started([replace(contender, label=contender.spec)], setting)
    try:
        (side,), outcome = sides, Outcome(setting.n)
        outcome.note([said[0], said[0]])
        of = _capabilities(call, setting, said[0])
        if any(name != "sample" for name in of):
            share_pool(sides, setting, folder, outcome)
        side.timeout += call.budget  # one answer, after all of the work
        memory = call.metric in ("", "memory")
        measured = side.ask(
            "single", of=of, n=outcome.n, seed=call.seed, budget=call.budget, threads=call.threads, memory=memory
        )
    finally:
        close_all(sides)
    return {**_head(call, outcome), "spec": contender.spec, "name": said[0]["name"], "verdict": "", **measured}


def _capabilities(call: Call, setting: Setting, said: dict[str, Any]) -> list[str]:
    """What is called: of the metric, or whatever the model has."""
    if call.metric:
        return [capability_of(call.metric, [said], setting.data)]
    has_events = bool(setting.data) or "sample" in said["can"]
    found = [name for name in ALONE if name in said["can"] and (name == "sample" or has_events)]
    if not found:
        raise CallError(
            f"{call.specs[0]} can neither sample nor be asked for log_prob at --data FILE: there is no work"
        )
    return found


# ------------------------------------------------------------------------------------------------------- both


def _both(call: Call, contenders: Sequence[Contender], folder: str) -> dict[str, Any]:
    """The difference of B from A, and the verdict."""
    a, b = contenders
    setting, policy = _setting(call), call.policy
    outcome = Outcome(setting.n)
    if setting.metric == "nll":
        from harness.bench.quality import nll_difference

        difference, values = nll_difference(
            a, b, setting, POLICY["nll"] if policy is None else policy, Path(folder), outcome
        )
        kind, measured = "nll", values
    else:
        for _ in range(call.rounds):
            one_round(a, b, setting, Path(folder), outcome)
        policy = POLICY[setting.metric] if policy is None else policy
        if setting.metric == "memory":  # a difference that the kernel's counters make does not matter
            policy = max(policy, GRAIN / min(outcome.rounds[0].a))
        difference = compared(outcome.rounds, policy)
        kind, measured = "memory" if setting.metric == "memory" else "time", _sides(outcome)
    return {
        **_head(call, outcome),
        "metric": setting.metric,
        "of": outcome.of,
        "clock": call.clock,
        "unit": {
            "time": "log of seconds B / seconds A",
            "memory": "log of bytes B / bytes A",
            "nll": "nats per dimension",
        }[kind],
        "direction": "lower is better",
        "verdict": WORDS[kind].get(difference.side, str(difference.side)),
        "difference": difference.as_json(),
        **({} if kind == "nll" else _ratio(difference)),
        "a": {"label": a.label, "spec": a.spec, "commit": a.tree.commit, "name": outcome.names["a"]},
        "b": {"label": b.label, "spec": b.spec, "commit": b.tree.commit, "name": outcome.names["b"]},
        "outputs": outcome.outputs,
        **measured,
    }


def _ratio(difference: Difference) -> dict[str, float]:
    """B over A: above 1, B takes more."""
    return {
        name: math.exp(getattr(difference, key))
        for name, key in (("ratio", "estimate"), ("low", "low"), ("high", "high"))
    }


def _sides(outcome: Outcome) -> dict[str, Any]:
    """What was measured, turn by turn, so that it can be judged again."""
    return {
        "calls_per_turn": outcome.number,
        "first_seconds": outcome.first,
        "turns_interrupted": outcome.interrupted,
        "rounds": [asdict(each) for each in outcome.rounds],
    }


def _head(call: Call, outcome: Outcome) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "what": "harness bench",
        "n": outcome.n,
        "seed": call.seed,
        "data": call.data.name if call.data is not None else "",
        "dtype": call.dtype,
        "machine": outcome.machine,
    }


# ------------------------------------------------------------------------------------------------------ the end


def _failed(call: Call, message: str) -> int:
    """A side failed: one line, and a file that says so."""
    import sys

    line = " ".join(message.split())
    print(f"harness bench: {line}", file=sys.stderr)
    _write(call, {"schema_version": SCHEMA_VERSION, "what": "harness bench", "verdict": "ERROR", "message": line})
    return 1


def _write(call: Call, told: dict[str, Any]) -> None:
    if call.json is not None:
        from harness.store import write_text

        try:
            write_text(call.json, json.dumps(told, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise CallError(str(error)) from None
