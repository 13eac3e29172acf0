"""Steps in short series: estimators that are right on average, a level that holds, steps that are found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from harness.bench.steps import (
    Bar,
    Prior,
    difference_needed,
    differenced,
    excursions,
    fitted_prior,
    levels,
    needed,
    noise,
    places,
    steps,
)

POLICY = math.log(1.03)


def series(seed: int, count: int, n: int, deviation: float = 0.01) -> list[list[float]]:
    return (deviation * np.random.default_rng(seed).standard_normal((count, n))).tolist()


def bar(found: tuple[float, float] = (1e-4, math.inf), level: float = 1e-4, policy: float = POLICY, tail=None) -> Bar:
    return Bar(found, level, policy, tail)


@pytest.mark.parametrize("n", [3, 6, 8])
def test_the_variance_from_differences_is_right_on_average(n):
    """Of 4,000 series of variance 1 and at least one degree of freedom each: the mean has a deviation of sqrt(2 / 4000)
    = 0.022 times at most sqrt(3) for the trimming; six of them."""
    mean = np.mean([differenced(y)[0] for y in series(0, 4000, n, 1.0)])
    assert abs(mean - 1) < 6 * 0.022 * math.sqrt(3) / math.sqrt(differenced([0.0] * n)[1]) + 0.05 * (n > 3)


def test_a_step_is_no_noise():
    flat = [0.0, 0.1, 0.0, 0.1, 0.0, 0.1, 0.0, 0.1]
    stepped = [y + (i >= 4) for i, y in enumerate(flat)]
    assert differenced(stepped)[0] == pytest.approx(differenced(flat)[0], rel=1e-12)


def test_the_prior_is_that_of_the_series():
    """Variances s0^2 d0 / chi^2(d0) with d0 = 10 and s0 = 1 %: of 2,000 series both are found to a fifth, which is six
    standard errors of the moments of 2,000 logarithms, whose deviation is about 1."""
    random = np.random.default_rng(0)
    scale = 0.01 * np.sqrt(10 / random.chisquare(10, 2000))
    found = fitted_prior((scale[:, None] * random.standard_normal((2000, 9))).tolist(), 1e-6)
    assert 0.8 < math.sqrt(found.variance) / 0.01 < 1.2
    assert 5 < found.freedom < 20


def test_equal_noise_is_one_variance():
    found = fitted_prior(series(1, 500, 9), 1e-6)
    assert found.freedom > 30
    assert math.sqrt(found.variance) == pytest.approx(0.01, rel=0.1)


def test_few_series_teach_nothing_and_nothing_is_known_of_two_points():
    assert fitted_prior(series(0, 4, 9), 1e-3) == Prior(0.0, 0.0, 1e-3)
    assert noise([0.0, 1.0], Prior())[0] == math.inf
    assert needed((math.inf, 1.0), 1, 1, 0.01) == math.inf
    assert steps([0.0, 1.0], bar(noise([0.0, 1.0], Prior()))) == []


def test_a_moderated_variance_lies_between_its_own_and_the_common_one():
    assert Prior(4.0, 6.0).moderated(1.0, 2.0) == (pytest.approx((6 * 4 + 2 * 1) / 8), 8.0)
    assert Prior(4.0, math.inf).moderated(1.0, 2.0) == (4.0, math.inf)
    assert Prior(0.0, 3.0, least=0.1).moderated(0.0, 3.0)[0] == pytest.approx(0.01)


def test_false_steps_are_as_rare_as_stated():
    """200 histories of 20 series of 10 points at 5 % over each: at most the 0.9999 quantile of Binomial(200, 0.05)."""
    alarms = 0
    for seed in range(200):
        told = series(seed, 20, 10, 0.05)
        prior = fitted_prior(told, 1e-3)
        tail, level = excursions(told, prior), 0.05 / places(told)
        alarms += any(steps(y, bar(noise(y, prior), level, tail=tail)) for y in told)
    assert alarms <= binom.ppf(0.9999, 200, 0.05)


@pytest.mark.parametrize("first", [2, 10, 18, 19])
def test_a_step_is_found_where_it_is(first):
    """5 % at noise of 0.3 %: 16 deviations, and at the newest commit alone half more than four of them is needed."""
    told = series(first, 40, 20, 0.003)
    told[0] = [y + 0.05 * (i >= first) for i, y in enumerate(told[0])]
    prior = fitted_prior(told, 1e-3)
    tail, level = excursions(told, prior), 0.01 / places(told)
    found = [[step.first for step in steps(y, bar(noise(y, prior), level, tail=tail))] for y in told]
    assert found == [[first], *[[]] * 39]


def test_two_steps_and_a_way_back_are_told_apart():
    up_up = [0.0] * 6 + [0.1] * 6 + [0.2] * 6
    assert [(s.first, round(s.size, 12)) for s in steps(up_up, bar())] == [(6, 0.1), (12, 0.1)]
    back = [0.0] * 6 + [0.1] * 8 + [0.0] * 6
    assert [(s.first, round(s.size, 12)) for s in steps(back, bar())] == [(6, 0.1), (14, -0.1)]


def test_what_does_not_matter_is_left_out_but_adds_up():
    small = [0.0] * 6 + [0.02] * 6
    assert steps(small, bar((1e-8, math.inf))) == []
    stairs = [0.0] * 6 + [0.02] * 6 + [0.04] * 6 + [0.06] * 6
    assert [(s.first, round(s.size, 12)) for s in steps(stairs, bar((1e-8, math.inf)))] == [(12, 0.04)]


def test_one_disturbed_run_is_no_step_even_if_it_is_the_newest():
    """Its size was seen before in another series; a size twice the largest seen is a step."""
    tail = (0.0,) * 198 + (1.0, 20.0)
    found = (1e-4, math.inf)
    assert steps([0.0] * 5 + [0.2] + [0.0] * 5, bar(found, tail=tail)) == []
    assert steps([0.0] * 10 + [0.2], bar(found, tail=tail)) == []
    assert [s.first for s in steps([0.0] * 10 + [0.4], bar(found, tail=tail))] == [10]


def test_the_more_often_runs_are_disturbed_the_longer_a_level_must_last():
    """With p = 1/10, of twelve points seven at once have C(12, 7) 10^-7 < 1e-4, two of three more."""
    tail = (0.0,) * 900 + (50.0,) * 100
    loud = bar(tail=tail)
    assert loud.needed(20, 3) == pytest.approx(0.5)  # as much as was seen
    assert loud.needed(20, 12) < 0.1


def test_the_levels_are_medians_that_do_not_exaggerate():
    assert levels([0.0, 1.0], [5.0, 6.0]) == (1.0, 5.0)
    assert levels([5.0, 6.0], [0.0, 1.0]) == (5.0, 1.0)
    assert levels([0.0, 9.0, 0.0], [5.0, 5.0, 99.0]) == (0.0, 5.0)


def test_two_series_are_compared_with_both_their_noises():
    """Known variances: the normal quantile of 1e-3 on both sides, 3.29, times sqrt(4 / 2 + 1 / 1)."""
    known = difference_needed((4.0, math.inf), (1.0, math.inf), (2, 1), 1e-3)
    assert known == pytest.approx(3.290527 * math.sqrt(3), rel=1e-6)
    assert difference_needed((math.inf, 1.0), (1.0, 5.0), (2, 1), 1e-3) == math.inf
