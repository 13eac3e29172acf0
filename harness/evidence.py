"""What a check saw, and what follows from it: frozen values made of plain numbers, ready for JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The five outcomes of a check."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    SKIP = "SKIP"
    ERROR = "ERROR"


@dataclass(frozen=True)
class Exact:
    """A deterministic or numerical comparison: the law holds when `error <= allowed`.

    `allowed` follows from the dtype, the number of operations or the error estimate of the oracle. `uncertainty` is the
    oracle's own error: between `allowed` and `allowed + uncertainty` nothing is decided.
    """

    error: float
    allowed: float
    n: int
    where: str = ""
    unit: str = ""
    uncertainty: float = 0.0


@dataclass(frozen=True)
class Look:
    """A statistic after `n` draws: estimate, time-uniform confidence interval, natural log of the e-value.

    The law says that the estimated quantity is 0. Where several quantities were watched, this is the one of which the
    interval reaches furthest from 0, while `log_e` is the evidence against all of them together.
    """

    n: int
    estimate: float
    low: float
    high: float
    log_e: float
    column: int = 0

    @property
    def bound(self) -> float:
        """The largest deviation from 0 that the interval leaves possible; NaN when an end is."""
        ends = abs(self.low), abs(self.high)
        return math.nan if any(map(math.isnan, ends)) else max(ends)


@dataclass(frozen=True)
class Cell:
    """One cell of a partition of the events: its name, expected mass and observed mass."""

    label: str
    expected: float
    observed: float


@dataclass(frozen=True)
class Carried:
    """What later runs go on from: sums of numbers of at least -1 of which the law says that their mean is at most 0.

    Of each quantity of a statistic there are numbers that are positive in mean where it lies above the law's value, and
    others where it lies below: their sums and the sums of their squares (see `harness.statistics.carried`). `kept` are
    the places of those that are kept, among as many as `of`; which ones is settled before a draw is made. `log_e` is
    the evidence of the last look. What arithmetic explains is allowed for, in it and in the sums.
    """

    log_e: float
    of: int
    kept: tuple[int, ...]
    above: tuple[float, ...]
    above_squares: tuple[float, ...]
    below: tuple[float, ...]
    below_squares: tuple[float, ...]


@dataclass(frozen=True)
class Estimated:
    """A statistical comparison: the looks that were taken, the last of which counts.

    `tolerance` is in the unit of the statistic. `asymptotic` marks a law that leans on a central-limit argument and
    was confirmed on fresh draws. `carried` is what later runs go on from; None where they cannot: an asymptotic law, or
    one that rests on rows of a table, which every run sees again.
    """

    path: tuple[Look, ...]
    tolerance: float
    confidence: float
    unit: str
    where: str = ""
    columns: int = 1
    asymptotic: bool = False
    cells: tuple[Cell, ...] = ()
    carried: Carried | None = None

    @property
    def last(self) -> Look:
        return self.path[-1]

    @property
    def n(self) -> int:
        return self.last.n

    @property
    def log_e(self) -> float:
        """The largest evidence at any look: an e-process is valid at every stopping time. NaN when any look's is."""
        seen = [look.log_e for look in self.path]
        return math.nan if any(map(math.isnan, seen)) else max(seen)


@dataclass(frozen=True)
class Absent:
    """The check does not apply: a capability is missing, or what it builds on did not pass."""

    reason: str
    blocked_by: str = ""


@dataclass(frozen=True)
class Raised:
    """The model raised, hung, died, or returned something outside its contract."""

    kind: str
    message: str
    trace: str = ""


Evidence = Exact | Estimated | Absent | Raised


@dataclass(frozen=True)
class Reproducer:
    """How to see a FAIL again: one command, and a stand-alone script at the smallest size that still fails."""

    command: str
    script: str
    n: int


@dataclass(frozen=True)
class Record:
    """One model under one check: the evidence, the verdict that follows from it, and what a reader needs.

    `seed` and `device` are None and empty where the run has one of them, and says so itself.
    """

    model: str
    check: str
    verdict: Verdict
    evidence: Evidence
    alpha: float
    seconds: float
    message: str
    label: str = ""
    expected: str = ""
    reproducer: Reproducer | None = None
    seed: int | None = None
    device: str = ""

    @property
    def instance(self) -> str:
        """The model, with the seed and the device where the run has several."""
        return instance_name(self.model, self.seed, self.device)

    @property
    def statistic(self) -> float | None:
        """The error or the estimate."""
        match self.evidence:
            case Exact(error=error):
                return error
            case Estimated() as seen:
                return seen.last.estimate
        return None

    @property
    def bound(self) -> float | None:
        """The largest defect that could have been missed: the allowed error, or the end of the confidence interval."""
        match self.evidence:
            case Exact(allowed=allowed, uncertainty=uncertainty):
                return allowed + uncertainty
            case Estimated() as seen:
                return seen.last.bound
        return None

    @property
    def n_samples(self) -> int:
        """Draws, or points, that the verdict rests on."""
        return self.evidence.n if isinstance(self.evidence, Exact | Estimated) else 0


def instance_name(model: str, seed: int | None, device: str) -> str:
    """How a model is called where it is examined several times: "Flow (seed 1, cuda)"; its name alone where not."""
    words = [*([] if seed is None else [f"seed {seed}"]), *([device] if device else [])]
    return f"{model} ({', '.join(words)})" if words else model
