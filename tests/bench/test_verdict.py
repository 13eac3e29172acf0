"""The rule of `harness bench` on numbers that are known: intervals that cover, verdicts that are right, and power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from harness.bench.rounds import FEWEST_BLOCKS, MOST_BLOCKS, Turns, calls_per_turn, taken
from harness.bench.side import SideError
from harness.bench.verdict import Difference, Round, Side, compared, interval, level, paired
from suites.speed.judge_noise import turns


def test_the_level_is_the_lowest_tenth_as_numpy_has_it():
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    assert level(values) == pytest.approx(np.quantile(np.log(values), 0.1), abs=1e-15)  # the same interpolation
    assert level([2.0]) == math.log(2.0)


@pytest.mark.parametrize("wrong", [[], [0.0, 1.0], [float("nan")], [-1.0]])
def test_no_level_without_positive_turns(wrong):
    with pytest.raises(ValueError, match="positive"):
        level(wrong)


def test_a_round_of_equal_turns_is_the_logarithm_of_their_ratio():
    made = Round(a=(2.0, 2.0), b=(3.0, 3.0), again=(2.0, 2.0))
    assert made.log_ratio == pytest.approx(math.log(1.5), abs=1e-15)
    assert made.log_null == 0


@pytest.mark.parametrize(
    ("low", "high", "floor", "side"),
    [
        (0.06, 0.08, 0.0, Side.MORE),
        (-0.08, -0.06, 0.0, Side.LESS),
        (-0.04, 0.05, 0.0, Side.SAME),
        (0.04, 0.06, 0.0, Side.AMBIGUOUS),
        (0.06, 0.08, 0.07, Side.AMBIGUOUS),  # the machine differs from itself by as much
        (-0.04, 0.04, 0.3, Side.SAME),
        (-0.2, 0.2, 0.3, Side.AMBIGUOUS),  # a noisy machine has not shown that nothing changed
        (float("nan"), float("nan"), 0.0, Side.AMBIGUOUS),
    ],
)
def test_where_an_interval_lies(low, high, floor, side):
    assert Difference((low + high) / 2, low, high, floor, 0.05, 0.99, 5).side is side


def test_the_interval_covers_as_often_as_it_says():
    """1,000 means of five normal values at 90 %: between the 1e-6 quantiles of Binomial(1000, 0.9)."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        centre, half = interval(random.standard_normal(5).tolist(), 0.9)
        covered += abs(centre) <= half
    assert binom.ppf(1e-6, 1000, 0.9) <= covered <= binom.ppf(1 - 1e-6, 1000, 0.9)


@pytest.mark.parametrize("kind", ["light", "heavy", "drifting"])
@pytest.mark.parametrize("ratio", [1.0, 1.05])
def test_nothing_is_called_slower_that_is_not(kind, ratio):
    """At the policy itself the interval lies above it in 0.5 % of cases; the bar is the binomial 0.999 quantile."""
    found = [compared(turns(kind, ratio, np.random.default_rng([1, i])), 0.05).side for i in range(100)]
    assert found.count(Side.MORE) <= binom.ppf(1 - 1e-3, 100, 0.005)


@pytest.mark.parametrize("kind", ["light", "heavy", "drifting"])
def test_a_fifth_more_is_found(kind):
    """The l_r have a deviation of 1 % sqrt(3/2), 1.3 % with the turns: the interval is +-2.7 %, and log 1.2 - log 1.05
    is 13 %. Noise of half of the turns moves the lowest tenth of forty little."""
    found = [compared(turns(kind, 1.2, np.random.default_rng([2, i])), 0.05).side for i in range(50)]
    assert found.count(Side.MORE) >= 48


def test_equal_points_are_the_same_and_a_shift_of_all_is_found_exactly():
    zero = [0.0] * 50
    assert paired(zero, zero, 0.005).side is Side.SAME
    shifted = paired([0.01] * 50, zero, 0.005)
    assert (shifted.estimate, shifted.floor, shifted.side) == (pytest.approx(0.01), 0.0, Side.MORE)


@pytest.mark.parametrize("policy", [-0.1, float("nan"), float("inf")])
def test_a_policy_is_no_less_than_nothing(policy):
    with pytest.raises(ValueError, match="policy"):
        paired([0.0] * 5, [0.0] * 5, policy)


def test_two_rounds_are_too_few():
    with pytest.raises(ValueError, match="too few"):
        compared([Round((1.0,), (1.0,), (1.0,))] * 2, 0.05)


# ------------------------------------------------------------------------------------------------------- turns


def test_turns_are_mirrored_and_get_the_same_inputs():
    asked: list[tuple[str, int]] = []

    def side(name):
        def turn(start: int) -> float:
            asked.append((name, start))
            return 1.0

        return turn

    made = taken(side("a"), side("b"), side("c"), budget=1.0, clock=lambda: 0.0)
    assert len(made.a) == 2 * MOST_BLOCKS  # a clock that stands still never uses up the budget
    assert [name for name, _ in asked[:6]] == ["a", "b", "c", "c", "b", "a"]
    starts = {name: [start for other, start in asked if other == name] for name in "abc"}
    assert starts["a"] == starts["b"] == starts["c"]
    assert len(set(starts["a"])) == len(starts["a"])


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_turn_that_took_no_time_is_the_failure_of_its_side(value):
    class Stopped:
        label = "B"

        def ask(self, do, **request):
            return {"value": value, "output": {}, "interrupted": 0}

    with pytest.raises(SideError, match="B: a turn took"):
        Turns(Stopped(), 1)(0)


def test_the_budget_ends_the_turns_but_five_blocks_are_made():
    now = iter(range(10**6))
    made = taken(*[lambda start: 1.0] * 3, budget=0.5, clock=lambda: float(next(now)))
    assert len(made.a) == 2 * FEWEST_BLOCKS


def test_a_turn_of_the_slowest_side_is_two_milliseconds():
    assert calls_per_turn([1e-4, 2e-4]) == 10
    assert calls_per_turn([1.0, 2e-4]) == 1
    assert calls_per_turn([1e-9, 1e-9]) == 64
