"""Effort: how many draws a check may use and how small a deviation it must exclude to pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FALSE_ALARM_BUDGET = 1e-6
"""Probability that a whole run on correct models raises any FAIL (DESIGN, section 5)."""

CONFIDENCE = 0.999
"""Confidence, for one check at every stopping time together, of the bound that a PASS states."""


@dataclass(frozen=True)
class Effort:
    """A sample budget and a tolerance.

    `tolerance` is in units of probability: the deviation of E g over test functions 0 <= g <= 1, of which the
    supremum is the total-variation distance. A shift of a Gaussian mean by 0.05 sd is 0.02 of it.
    """

    name: str
    draws: int
    tolerance: float
    first_look: int = 2**11
    pilot: int = 2**12

    @property
    def rarest(self) -> float:
        """The smallest probability of an event that a mean of unbounded numbers may rest on: 0.2 % at quick, where a
        smaller one would never be seen, otherwise 0.1 %."""
        return max(1e-3, self.tolerance / 25)

    def looks(self) -> tuple[int, ...]:
        """Numbers of draws at which evidence is judged: doubling, ending at the budget."""
        first = min(self.first_look, self.draws)
        sizes = []
        while first < self.draws:
            sizes.append(first)
            first *= 2
        return (*sizes, self.draws)


EFFORTS = {
    effort.name: effort
    for effort in (
        Effort("quick", draws=2**14, tolerance=0.05),
        Effort("standard", draws=2**18, tolerance=0.015),
        Effort("thorough", draws=2**22, tolerance=0.003),
    )
}


def effort_named(effort: str | Effort) -> Effort:
    """The preset of that name; an `Effort` is returned as it is."""
    if isinstance(effort, Effort):
        return effort
    if effort not in EFFORTS:
        raise ValueError(f"unknown effort {effort!r}: choose one of {', '.join(EFFORTS)}")
    return EFFORTS[effort]


@dataclass(frozen=True)
class Settings:
    """What a run is made with. `budget` is the seconds that the draws of one model may take."""

    effort: Effort
    seed: int = 0
    budget: float | None = None
    watch: Callable[[str, str, int], None] | None = None
    """Called with (model, check or stage, draws so far) for a progress display and for a watchdog."""
