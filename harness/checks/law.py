"""What a check is, and the two decorators that make one of a formula.

An exact law looks at the subject and returns an error with the bound that its arithmetic allows. A statistical law maps
a chunk of draws to bounded numbers, a row a draw, that are zero in mean when the law holds. How many draws, at which
level, and what follows belong to the core.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from harness.draws import Draws
from harness.evidence import Exact
from harness.statistics.accumulator import Accumulator
from harness.statistics.bernstein import BoundedMean, Sums
from harness.subject import Subject

OTHER_MEASURE = "a density in another measure"
"""How the reason of a SKIP begins that blocks whatever compares densities."""


class NotApplicable(Exception):  # noqa: N818  # it is not an error
    """Raised by a law that has nothing to say about this subject; its message is the reason of the SKIP."""


@dataclass(frozen=True)
class Check:
    """A procedure that tests one law on one model."""

    id: str
    law: str
    why: str
    source: str
    needs: tuple[str, ...]
    blocked_by: tuple[str, ...]
    unit: str


@dataclass(frozen=True)
class ExactCheck(Check):
    """A deterministic or numerical comparison."""

    measure: Callable[[Subject], Exact]


@dataclass(frozen=True)
class StatisticalCheck(Check):
    """A comparison by draws. `start` makes the statistic; `labels` names its columns; `tolerance` multiplies the
    effort's; `share` is the part of the effort's draws that the law may use (for laws that are dear per draw)."""

    numbers: Callable[[Draws], Tensor | Sums]
    start: Callable[[Subject], Accumulator]
    labels: Callable[[Subject], list[str]] | None
    tolerance: float
    share: float
    asymptotic: bool


def exact(
    id: str, *, needs: tuple[str, ...], blocked_by: tuple[str, ...] = (), source: str = "", unit: str = ""
) -> Callable[[Callable[[Subject], Exact]], ExactCheck]:
    """Make an exact check of a function Subject -> Exact; its docstring is the law, then why it holds."""

    def wrap(function: Callable[[Subject], Exact]) -> ExactCheck:
        law, why = _docstring(function)
        return ExactCheck(id, law, why, source, needs, blocked_by, unit, function)

    return wrap


def bounded(low: float, high: float) -> Callable[[Subject], Accumulator]:
    """The statistic of numbers in [low, high] with mean 0."""
    return lambda subject: BoundedMean(low, high)


def statistical(
    id: str,
    *,
    needs: tuple[str, ...],
    start: Callable[[Subject], Accumulator],
    blocked_by: tuple[str, ...] = (),
    labels: Callable[[Subject], list[str]] | None = None,
    tolerance: float = 1.0,
    share: float = 1.0,
    asymptotic: bool = False,
    source: str = "",
    unit: str = "",
) -> Callable[[Callable[[Draws], Tensor | Sums]], StatisticalCheck]:
    """Make a statistical check of a function Draws -> numbers; its docstring is the law, then why it holds."""

    def wrap(function: Callable[[Draws], Tensor | Sums]) -> StatisticalCheck:
        law, why = _docstring(function)
        return StatisticalCheck(
            id, law, why, source, needs, blocked_by, unit, function, start, labels, tolerance, share, asymptotic
        )

    return wrap


def _docstring(function: Callable[..., object]) -> tuple[str, str]:
    """First paragraph and the rest."""
    text = inspect.getdoc(function) or ""
    law, _, why = text.partition("\n\n")
    return " ".join(law.split()), why.strip()
