"""Models examined in processes of their own: SPECs become names, and what the children say becomes records.

A record is kept as soon as the child has said it. A model that hangs, dies or is stopped costs the check that was
running, which is an ERROR; its later checks are SKIPs that name it, and no other model notices. The order and content
of the records do not depend on the number of workers.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from harness.effort import Effort, effort_named
from harness.errors import InterruptedRunError
from harness.evidence import Absent, Evidence, Raised, Record, instance_name
from harness.judge import explain, judge
from harness.processes import Ending, Hear, Message, Request
from harness.resolve import SpecError
from harness.store import loaded_record
from harness.worker import CHANNEL_LOST

ENDED = "blocked: the examination ended at"
LOST = "verdicts do not arrive: the model closed a descriptor that it had not opened,"


@dataclass(frozen=True)
class Listed:
    """A model of the run: its name there, and the SPEC that names it alone. `trouble` is why it could not be listed.

    `seed` and `device` are its own where the run has several, else None and empty. `only` are the checks to be made on
    this model, where they are not those of the run; `alphas` are shares of alpha, by check, that are given rather than
    worked out.
    """

    name: str
    spec: str
    trouble: Raised | None = None
    only: tuple[str, ...] = ()
    alphas: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    device: str = ""

    @property
    def instance(self) -> str:
        """Its name, with the seed and device that are its own."""
        return instance_name(self.name, self.seed, self.device)


def crossed(models: Sequence[Listed], seeds: Sequence[int], devices: Sequence[str]) -> tuple[Listed, ...]:
    """Every model once for each device and seed: what a run examines, each in a process of its own."""
    return tuple(
        replace(model, seed=seed if len(seeds) > 1 else None, device=device if len(devices) > 1 else "")
        for model in models
        for device in devices
        for seed in seeds
    )


@dataclass(frozen=True)
class Options:
    """How the models of a run are examined, where they do not say it themselves. `alpha` is the false-alarm budget of
    all of them together."""

    effort: str | Effort
    seed: int
    alpha: float
    device: str = "cpu"
    dtype: str = ""
    budget: float | None = None
    only: tuple[str, ...] = ()


class Workforce(Protocol):
    """Who does jobs in processes of their own: `Processes` on this machine, or `Cluster`."""

    timeout: float
    memory: int

    def run(
        self, requests: Sequence[Request], hear: Hear, end: Callable[[int, Ending], None] = ...
    ) -> list[Ending | None]:
        """Do all jobs; their endings in the order of the requests, None for a job that was never started."""


class Watcher(Protocol):
    """Who wants to see a run as it goes."""

    def at(self, instance: str, stage: str, n: int) -> None:
        """The examination of this instance of a model is at this check or stage, after so many draws."""

    def record(self, record: Record) -> None:
        """A check was decided."""

    def done(self, instance: str) -> None:
        """The examination of this instance of a model is over."""


class Unwatched:
    """A watcher for a run that nobody looks at."""

    def at(self, instance: str, stage: str, n: int) -> None: ...

    def record(self, record: Record) -> None: ...

    def done(self, instance: str) -> None: ...


def expand(processes: Workforce, specs: Sequence[str]) -> tuple[Listed, ...]:
    """The models that the SPECs name, with distinct names. SpecError when one names none."""
    twice = next((spec for spec in specs if specs.count(spec) > 1), None)
    if twice is not None:
        raise SpecError(f"{twice} is given twice: leave one out")
    said: list[dict[str, object]] = [{} for _ in specs]
    endings = processes.run(
        [{"job": "expand", "spec": spec} for spec in specs], lambda index, message: said[index].update(message)
    )
    listed: list[Listed] = []
    for spec, heard, ending in zip(specs, said, endings, strict=True):
        if ending is None or ending.cause == "interrupted":
            raise InterruptedRunError("interrupted before anything was examined")
        listed += _listed(spec, heard, ending, processes)
    return _distinct(listed)


def _listed(spec: str, heard: dict[str, object], ending: Ending, processes: Workforce) -> list[Listed]:
    if "refused" in heard:
        raise SpecError(str(heard["refused"]))
    models = heard.get("models")
    if isinstance(models, list) and not ending.cause:
        return [Listed(str(name), str(item)) for name, item in models]
    return [Listed(spec, spec, trouble_at_end(heard.get("raised"), ending, processes, "while being imported"))]


def _distinct(listed: Sequence[Listed]) -> tuple[Listed, ...]:
    """A name that several models have gives way to their SPECs."""
    names = [model.name for model in listed]
    return tuple(
        model if names.count(model.name) == 1 else Listed(model.spec, model.spec, model.trouble) for model in listed
    )


def examine(
    processes: Workforce, models: Sequence[Listed], options: Options, watcher: Watcher
) -> tuple[tuple[Record, ...], bool]:
    """Records of all models, in their order, and whether the run was interrupted. Each has an equal share of
    alpha, so by the union bound the probability of any false FAIL in the run is at most alpha."""
    share = options.alpha / len(models)
    tables = [_Table(model, share, options, watcher) for model in models]
    jobs = [table for table in tables if table.model.trouble is None]
    requests = [
        {
            **{"job": "examine", "spec": table.model.spec, "name": table.model.name, "alpha": share},
            **{"effort": asdict(effort_named(options.effort)), "budget": options.budget},
            **{"only": list(table.only), "alphas": dict(table.model.alphas)},
            "seed": options.seed if table.model.seed is None else table.model.seed,
            **{"device": table.model.device or options.device, "dtype": options.dtype},
        }
        for table in jobs
    ]
    for table in tables:
        if table.model.trouble is not None:
            table.close(table.model.trouble)

    def hear(index: int, message: Message) -> None:
        jobs[index].hear(message)

    interrupted = False
    endings = processes.run(requests, hear, lambda index, ending: jobs[index].end(ending, processes))
    for table, ending in zip(jobs, endings, strict=True):
        interrupted = interrupted or ending is None or ending.cause == "interrupted"
        if ending is None:
            table.close(Raised("Interrupted", "the run was stopped before this model was examined"))
    return tuple(record for table in tables for record in table.in_order()), interrupted


@dataclass
class _Table:
    """What one child has said of its model."""

    model: Listed
    alpha: float
    options: Options
    watcher: Watcher
    plan: dict[str, float] = field(default_factory=dict)  # check id to alpha
    records: dict[str, Record] = field(default_factory=dict)
    stage: str = ""
    raised: object = None

    @property
    def only(self) -> tuple[str, ...]:
        return self.model.only or self.options.only

    def hear(self, message: Message) -> None:
        """Take in a message; ValueError for one that no child of ours sends."""
        try:
            self._hear(message)
        except (TypeError, KeyError) as error:
            raise ValueError(f"no message: {error}") from None

    def _hear(self, message: Message) -> None:
        if "record" in message:
            record = loaded_record(message["record"])
            if record.model != self.model.name or record.check in self.records:
                raise ValueError(f"no record of {self.model.name}")
            self._enter(replace(record, seed=self.model.seed, device=self.model.device))
        elif "plan" in message:
            self.plan = {str(id): float(alpha) for id, alpha in message["plan"]}
        elif "at" in message:
            stage, n = message["at"]
            self.stage = str(stage)
            self.watcher.at(self.model.instance, self.stage, int(n))
        elif "raised" in message:
            self.raised = message["raised"]

    def _enter(self, record: Record) -> None:
        self.records[record.check] = record
        self.watcher.record(record)

    def end(self, ending: Ending, processes: Workforce) -> None:
        """The child is gone: what it did not say is filled in."""
        self.close(trouble_at_end(self.raised, ending, processes, self._doing()))

    def _doing(self) -> str:
        stages = {"": "while being started", "import": "while being imported", "build": "while being built"}
        return stages.get(self.stage, f"during {self.stage}")

    def close(self, trouble: Raised) -> None:
        """The check that was running gets the trouble, those that would have followed are blocked by it."""
        plan = self.plan or _every_check(self.only, self.alpha)
        missing = [id for id in plan if id not in self.records]
        running = self.stage if self.stage in missing else next(iter(missing), "")
        for id in [running, *(id for id in missing if id != running)] if missing else []:
            blocked = Absent(f"{ENDED} {running}", running)
            self._enter(self._filled(id, plan[id], trouble if id == running else blocked))
        self.watcher.done(self.model.instance)

    def _filled(self, id: str, alpha: float, evidence: Evidence) -> Record:
        verdict = judge(evidence, alpha)
        return Record(
            *(self.model.name, id, verdict, evidence, alpha, 0.0, explain(evidence, verdict, alpha)),
            seed=self.model.seed,
            device=self.model.device,
        )

    def in_order(self) -> list[Record]:
        """Records in the order of the plan."""
        order = {id: place for place, id in enumerate(self.plan or self.records)}
        return sorted(self.records.values(), key=lambda record: order.get(record.check, len(order)))


def _every_check(only: tuple[str, ...], alpha: float) -> dict[str, float]:
    """The checks of a model that did not live to say which apply to it."""
    from harness.checks import CHECKS
    from harness.plan import select

    return {check.id: alpha for check in select(CHECKS, only)}


# ---------------------------------------------------------------------------------------------- why a child ended


def trouble_at_end(said: object, ending: Ending, processes: Workforce, doing: str) -> Raised:
    """The end of a child in one sentence, with the last thing that it printed."""
    if isinstance(said, dict):
        kind, message, trace = (str(said.get(key, ""))[:4000] for key in ("kind", "message", "trace"))
        if kind == "SystemExit":
            message = f"the model called sys.exit({message})"
        return Raised(kind, f"{message} ({doing})", trace)
    kind, what = _end(ending, processes)
    told = _last_words(ending.tail) if ending.cause in ("hung", "died") else ""
    return Raised(kind, f"{what} {doing}{told}", ending.tail)


def _end(ending: Ending, processes: Workforce) -> tuple[str, str]:
    match ending.cause:
        case "hung":
            return "Hung", f"no progress for {processes.timeout:g} s"
        case "memory":
            return "OutOfMemory", f"memory grew by more than {processes.memory / 2**30:.3g} GiB (--memory)"
        case "garbage":
            return "Garbage", "the model wrote on the examiner's channel"
        case "interrupted":
            return "Interrupted", "the run was stopped"
        case "cluster":
            return "Lost", f"the cluster gave it up ({ending.tail[:200]})"
        case "":
            return "Lost", LOST
    if ending.code == CHANNEL_LOST:
        return "Lost", LOST
    if ending.code is None:
        return "Died", "the process that watched the model was killed"
    if ending.code < 0:
        return "Died", f"killed by {_signal_name(-ending.code)}"
    return "Died", f"left its process with exit status {ending.code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_words(tail: str) -> str:
    """Where the interpreter was, if it could still say so, or the last line that was printed."""
    stack = re.search(r'most recent call first\):\s+File "(.+)", line (\d+) in (\S+)', tail)
    if stack:
        file, line, function = stack.groups()
        return f", in {function} ({file.rpartition('/')[2]}, line {line})"
    line = tail.rpartition("\n")[2]
    return f"; it printed last: {line[-200:]}" if line else ""
