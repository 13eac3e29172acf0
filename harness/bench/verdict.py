r"""Is B slower than A? Rounds of turns to a ratio, an interval and a verdict. Pure numbers.

A round has processes of its own: A, once more A (called A'), and B, which take turns A B A' A' B A again and again, so
that a drift of the machine meets all three alike. The level of a side in a round is the lowest tenth of the logarithms
of its turns: what the work takes when nothing else disturbs it. (On two processors shared by ten busy processes, the
l_r of one program beside itself had a deviation of 1.3 %; of medians 1.9 %, of paired ratios 8 %.) In round r

    l_r = level of B - (level of A + level of A') / 2,      e_r = level of A' - level of A

Rounds are independent, as their processes are: memory layout alone makes two runs of one program differ by per cents
(Mytkowicz, Diwan, Hauswirth & Sweeney 2009, https://doi.org/10.1145/1508284.1508275), and no number of turns within a
process averages that out.

- ratio = exp(mean l_r), with Student's interval over rounds.
- floor = |mean e_r| plus the half-width of its interval: the largest difference of A from itself that was not excluded,
  on this machine and now.

The verdict is MORE when the interval lies above log(1 + policy) and the estimate above the floor, LESS likewise below,
SAME when the interval lies within plus or minus log(1 + policy), AMBIGUOUS otherwise. So MORE is wrong with probability
(1 - confidence) / 2 at most where B is truly less than `policy` slower, as far as the l_r are normal. A noisy machine
makes the answer AMBIGUOUS, not SAME.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

CONFIDENCE = 0.99
FEWEST_ROUNDS = 3
LOWEST = 0.1


class Side(StrEnum):
    """Where the interval of a difference lies."""

    MORE = "MORE"
    LESS = "LESS"
    SAME = "SAME"
    AMBIGUOUS = "AMBIGUOUS"


@dataclass(frozen=True)
class Round:
    """Seconds, or bytes, of every turn of A, B and A'."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    again: tuple[float, ...]

    @property
    def log_ratio(self) -> float:
        return level(self.b) - (level(self.a) + level(self.again)) / 2

    @property
    def log_null(self) -> float:
        return level(self.again) - level(self.a)


def level(turns: Sequence[float]) -> float:
    """The lowest tenth of the logarithms, between neighbours in proportion. ValueError without a positive value."""
    if not turns or not min(turns) > 0:
        raise ValueError("a side has no turns, or some that took no time: give positive numbers")
    ordered = sorted(math.log(turn) for turn in turns)
    place = LOWEST * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@dataclass(frozen=True)
class Difference:
    """Of B from A, in logarithms of the ratio or in nats, with what it is held against."""

    estimate: float
    low: float
    high: float
    floor: float
    policy: float
    confidence: float
    count: int  # of independent values: rounds, or points

    @property
    def side(self) -> Side:
        """NaN is never SAME: it is AMBIGUOUS."""
        if self.low > self.policy and self.estimate > self.floor:
            return Side.MORE
        if self.high < -self.policy and self.estimate < -self.floor:
            return Side.LESS
        return Side.SAME if -self.policy <= self.low and self.high <= self.policy else Side.AMBIGUOUS

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compared(rounds: Sequence[Round], policy: float, confidence: float = CONFIDENCE) -> Difference:
    """The log-ratio of B to A over rounds. ValueError for fewer than three rounds, or a policy below 0."""
    logs, nulls = [r.log_ratio for r in rounds], [r.log_null for r in rounds]
    return _difference(logs, nulls, math.log1p(_allowed(policy)), confidence)


def paired(
    deltas: Sequence[float], nulls: Sequence[float], policy: float, confidence: float = CONFIDENCE
) -> Difference:
    """The mean of differences per point; `nulls` are those of A from itself, all 0 where it repeats itself."""
    return _difference(deltas, nulls, _allowed(policy), confidence)


def _difference(values: Sequence[float], nulls: Sequence[float], policy: float, confidence: float) -> Difference:
    if len(values) < FEWEST_ROUNDS:
        raise ValueError(f"{len(values)} values are too few for an interval: give {FEWEST_ROUNDS} or more")
    estimate, half = interval(values, confidence)
    centre, noise = interval(nulls, confidence)
    return Difference(estimate, estimate - half, estimate + half, abs(centre) + noise, policy, confidence, len(values))


def _allowed(policy: float) -> float:
    if not 0 <= policy < math.inf:
        raise ValueError(f"policy is {policy}: give the difference that does not matter, 0 or more, such as 0.05")
    return policy


def interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """Mean and half-width of Student's interval for the mean of independent normal values, two or more."""
    from scipy.stats import t

    quantile = float(t.ppf((1 + confidence) / 2, len(values) - 1))
    return statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))
