"""All records of a run with the facts of the run: what passed, what did not, and faces to read it by.

Nothing here imports torch, so that a stored report opens at once.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness import CONTRACT_VERSION
from harness.effort import CONFIDENCE, Effort, Settings
from harness.evidence import Absent, Estimated, Record, Verdict, instance_name

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group


T = TypeVar("T")

VERSIONED = {"harness": "genharness", "torch": "torch", "numpy": "numpy", "scipy": "scipy"}
"""Name in a report to the distribution of which it is the version."""


@dataclass(frozen=True)
class Law:
    """What a check says, so that a stored report explains itself."""

    law: str
    why: str = ""
    source: str = ""


@dataclass(frozen=True)
class Run:
    """What a run was made with. `alpha` is the false-alarm budget of the whole run, `started` is ISO 8601 in UTC.

    `device` and `seed` are one value, or a tuple of several, and then each record says its own. `dtype` is empty where
    each model kept its own; `budget` is the seconds that a model's draws could take, if limited;
    `seconds` are those of the whole run where it was timed, else the sum over its checks. `specs` has the SPEC of each
    model, by name; none of objects that were given in Python.
    """

    versions: Mapping[str, str]
    platform: str
    device: str | tuple[str, ...]
    dtype: str
    seed: int | tuple[int, ...]
    effort: Effort
    budget: float | None
    alpha: float
    confidence: float
    contract: str
    started: str
    seconds: float
    command: str = ""
    specs: Mapping[str, str] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All of them."""
        return self.seed if isinstance(self.seed, tuple) else (self.seed,)

    @property
    def devices(self) -> tuple[str, ...]:
        """All of them."""
        return self.device if isinstance(self.device, tuple) else (self.device,)

    @property
    def several(self) -> bool:
        """Was a model examined more than once?"""
        return len(self.seeds) > 1 or len(self.devices) > 1


@dataclass(frozen=True)
class Report:
    """Records in the order in which they were made. `unmatched` are the expected failures that name no made check."""

    records: tuple[Record, ...]
    run: Run
    laws: Mapping[str, Law] = field(default_factory=dict)
    unmatched: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        records: Iterable[Record],
        settings: Settings,
        *,
        alpha: float,
        expected_failures: Mapping[str, str] | None = None,
        device: str | Sequence[str] = "cpu",
        dtype: str = "",
        seed: int | Sequence[int] | None = None,
        started: datetime | None = None,
        seconds: float | None = None,
        command: str = "",
        specs: Mapping[str, str] | None = None,
        laws: Mapping[str, Law] | None = None,
    ) -> Report:
        """The report of a finished, or interrupted, run. `laws` are those of all checks, where they are at hand.

        `expected_failures` maps "check.id", which speaks of every model on which the check was made, or
        "model::check.id" to the reason; where a model is examined several times, also "model (cuda)::check.id" or
        "model (seed 1, cuda)::check.id". It is met only while the check does FAIL. `seed` are the seeds of a run with
        several, where it is not the one of the settings.
        """
        marked, unmatched = _with_expectations(tuple(records), expected_failures or {})
        run = Run(
            versions=versions(),
            platform=platform.platform(),
            device=_one_or_all(device),
            dtype=dtype,
            seed=_one_or_all(settings.seed if seed is None else seed),
            effort=settings.effort,
            budget=settings.budget,
            alpha=alpha,
            confidence=CONFIDENCE,
            contract=CONTRACT_VERSION,
            started=(started or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
            seconds=sum(record.seconds for record in marked) if seconds is None else seconds,
            command=command,
            specs=dict(specs or {}),
        )
        wanted = {record.check for record in marked}
        known = laws_of(marked) if laws is None else {id: law for id, law in laws.items() if id in wanted}
        return cls(marked, run, known, unmatched)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in order."""
        return tuple(dict.fromkeys(record.model for record in self.records))

    @property
    def instances(self) -> tuple[str, ...]:
        """What was examined, in order: models, each with its seed and device where the run has several."""
        return tuple(dict.fromkeys(record.instance for record in self.records))

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many records have each verdict."""
        seen = Counter(record.verdict for record in self.records)
        return {verdict: seen[verdict] for verdict in Verdict}

    @property
    def failures(self) -> tuple[Record, ...]:
        """Records with FAIL, but for the expected ones."""
        return tuple(r for r in self.records if r.verdict is Verdict.FAIL and not r.expected)

    @property
    def errors(self) -> tuple[Record, ...]:
        """Records with ERROR."""
        return tuple(r for r in self.records if r.verdict is Verdict.ERROR)

    @property
    def met(self) -> tuple[Record, ...]:
        """Records that fail as was expected."""
        return tuple(r for r in self.records if r.verdict is Verdict.FAIL and r.expected)

    @property
    def undecided(self) -> tuple[Record, ...]:
        """Records with INCONCLUSIVE."""
        return tuple(r for r in self.records if r.verdict is Verdict.INCONCLUSIVE)

    @property
    def problems(self) -> tuple[str, ...]:
        """What fails the run besides its verdicts, a sentence each."""
        stale = [
            f"{r.instance}::{r.check} was expected to fail ({r.expected}) but is {r.verdict}: remove the expectation"
            for r in self.records
            if r.expected and r.verdict is not Verdict.FAIL
        ]
        lost = [
            f"expected failure {key!r} ({reason}) matches no check that was made: correct or remove it"
            for key, reason in self.unmatched.items()
        ]
        empty = [] if self.records else ["nothing was examined: name a model and a check"]
        return (*stale, *lost, *empty)

    def passes(self, *, strict: bool = False) -> bool:
        """Is there no FAIL and no ERROR but expected failures, each of them met? `strict` asks for no INCONCLUSIVE."""
        clean = not (self.failures or self.errors or self.problems)
        return clean and not (strict and self.undecided)

    @property
    def passed(self) -> bool:
        """`passes()`."""
        return self.passes()

    def to_frame(self) -> pd.DataFrame:
        """One row a record."""
        import pandas as pd

        return pd.DataFrame([row(record, self.run) for record in self.records], columns=list(COLUMNS))

    def to_json(self, path: str | Path) -> None:
        """Write the report, as `harness/schema.json` describes, whole or not at all."""
        from harness.store import dumps, write_text

        write_text(path, dumps(self))

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """The report in a file; ValueError with one line where the file is none."""
        from harness.store import read

        return read(path)

    def table(self) -> Group:
        """A summary for rich's console: a row a model, then what needs attention. Print it with crop=False, so that
        commands longer than the terminal stay whole."""
        from harness.terminal import table

        return table(self)

    def __str__(self) -> str:
        from harness.terminal import plain_text

        return plain_text(self)

    def _repr_html_(self) -> str:
        from harness.html import fragment

        return fragment(self)


COLUMNS = (
    *("model", "check", "verdict", "statistic", "bound", "n_samples", "seconds", "message"),
    *("evidence", "unit", "tolerance", "log_e", "alpha", "label", "expected", "blocked_by"),
    *("effort", "seed", "device", "dtype"),
)
"""Columns of `Report.to_frame`: the fixed ones first."""


def row(record: Record, run: Run) -> dict[str, Any]:
    """A record as a flat row; what does not apply is None."""
    seen = record.evidence
    tolerance, log_e = (seen.tolerance, seen.log_e) if isinstance(seen, Estimated) else (None, None)
    return {
        **{name: getattr(record, name) for name in COLUMNS[:8]},
        "verdict": str(record.verdict),
        "evidence": type(seen).__name__.lower(),
        "unit": getattr(seen, "unit", ""),
        "tolerance": tolerance,
        "log_e": log_e,
        "alpha": record.alpha,
        "label": record.label,
        "expected": record.expected,
        "blocked_by": seen.blocked_by if isinstance(seen, Absent) else "",
        "effort": run.effort.name,
        "seed": run.seed if record.seed is None else record.seed,
        "device": record.device or run.device,
        "dtype": run.dtype,
    }


def merge(reports: Sequence[Report]) -> Report:
    """One report of several that were made alike, on different models or checks; ValueError where they were not."""
    if not reports:
        raise ValueError("no report to merge: name at least one")
    first = reports[0]
    for other in reports[1:]:
        differing = [name for name, value in _alike(other.run).items() if value != _alike(first.run)[name]]
        if differing:
            raise ValueError(f"these reports differ in {', '.join(differing)}: merge only runs that were made alike")
    records = tuple(record for report in reports for record in report.records)
    twice = [pair for pair, times in Counter((r.instance, r.check) for r in records).items() if times > 1]
    if twice:
        raise ValueError(f"{'::'.join(twice[0])} is in two of these reports: leave one of them out")
    made = {key for r in records for key in _keys(r)}
    run = replace(
        first.run,
        started=min(report.run.started for report in reports),
        seconds=sum(report.run.seconds for report in reports),
        command=" && ".join(dict.fromkeys(report.run.command for report in reports if report.run.command)),
        specs={name: spec for report in reports for name, spec in report.run.specs.items()},
    )
    return Report(
        records,
        run,
        {id: law for report in reports for id, law in report.laws.items()},
        {key: why for report in reports for key, why in report.unmatched.items() if key not in made},
    )


def _alike(run: Run) -> dict[str, Any]:
    """The facts in which merged runs must agree."""
    return {
        name: value for name, value in asdict(run).items() if name not in ("started", "seconds", "command", "specs")
    }


def _keys(record: Record) -> tuple[str, ...]:
    """The expected failures by which a record can be named, narrow ones first: SKIPs, which were not made, only with
    their model."""
    models = (record.instance, instance_name(record.model, None, record.device), record.model)
    named = tuple(dict.fromkeys(f"{model}::{record.check}" for model in models))
    return named if record.verdict is Verdict.SKIP else (*named, record.check)


def _one_or_all(given: T | Sequence[T]) -> T | tuple[T, ...]:
    """A single value is itself, whether or not it came alone in a list."""
    values: tuple[Any, ...] = tuple(given) if isinstance(given, list | tuple) else (given,)
    return values[0] if len(values) == 1 else values


def _with_expectations(
    records: tuple[Record, ...], expected: Mapping[str, str]
) -> tuple[tuple[Record, ...], dict[str, str]]:
    """Records with the reason of their expected failure, and the expectations that name none of them."""
    empty = [key for key, reason in expected.items() if not (isinstance(reason, str) and reason.strip())]
    if empty:
        raise ValueError(f"expected failure {empty[0]!r} has no reason: say why it fails, as a string")
    marked = tuple(
        replace(record, expected=next((expected[key] for key in _keys(record) if key in expected), record.expected))
        for record in records
    )
    made = {key for record in records for key in _keys(record)}
    return marked, {key: reason for key, reason in expected.items() if key not in made}


def laws_of(records: Iterable[Record]) -> dict[str, Law]:
    """The laws of the checks that the records are of, by id."""
    from harness.checks import CHECKS

    wanted = {record.check for record in records}
    return {check.id: Law(check.law, check.why, check.source) for check in CHECKS if check.id in wanted}


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for name, distribution in VERSIONED.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[name] = "unknown"
    return found
