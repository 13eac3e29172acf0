"""Steps in short series: a level that holds, steps that are found where they are, what could have been missed."""

from __future__ import annotations

import math

import pytest

from harness.bench.dependence import Dependence, independent
from harness.bench.steps import FEWEST_BEFORE, Bar, difference_needed, levels, steps
from harness.bench.tail import Tail

POLICY = math.log(1.03)
QUIET = Tail((0.0,) * 400, 0.1)


def bar(noise=(1e-4, math.inf), alpha=1e-3, policy=POLICY, tail=QUIET, **more) -> Bar:
    return Bar(noise, alpha, policy, more.pop("dependence", independent(40)), tail, **more)


def firsts(y, against=None) -> list[int]:
    return [step.first for step in steps(y, against or bar())]


def test_two_steps_and_a_way_back_are_told_apart():
    up_up = [0.0] * 6 + [0.1] * 6 + [0.2] * 6
    assert [(s.first, round(s.size, 12)) for s in steps(up_up, bar())] == [(6, 0.1), (12, 0.1)]
    back = [0.0] * 6 + [0.1] * 8 + [0.0] * 6
    assert [(s.first, round(s.size, 12)) for s in steps(back, bar())] == [(6, 0.1), (14, -0.1)]


def test_what_does_not_matter_is_left_out_but_adds_up():
    exact = bar((1e-8, math.inf))
    assert firsts([0.0] * 6 + [0.02] * 6, exact) == []
    stairs = [0.0] * 6 + [0.02] * 6 + [0.04] * 6 + [0.06] * 6
    assert [(s.first, round(s.size, 12)) for s in steps(stairs, exact)] == [(12, 0.04)]


def test_a_run_alone_is_no_step_unless_it_is_the_newest_of_many():
    assert firsts([0.0] * 8 + [0.2] + [0.0] * 9) == []
    assert firsts([0.0] * FEWEST_BEFORE + [0.2]) == [FEWEST_BEFORE]
    assert firsts([0.0] * (FEWEST_BEFORE - 1) + [0.2]) == []
    assert firsts([0.0] * 9 + [0.2] * 3) == [9]


def test_what_was_seen_to_disturb_runs_is_no_step():
    """Six excursions of 20 deviations: the newest run alone may be another, ten runs are not."""
    loud = bar(tail=Tail((0.0,) * 394 + (20.0,) * 6, 0.1))
    assert firsts([0.0] * 19 + [0.18], loud) == []
    assert firsts([0.0] * 10 + [0.18] * 10, loud) == [10]


def test_a_drift_needs_more_the_more_so_the_longer_the_level():
    """A random walk: between ten runs and the next ten, 27 times the variance of independent noise."""
    g = [float(h) for h in range(20)]
    sums = [0.0]
    for m in range(20):
        sums.append(sums[-1] + 2 * sum(g[: m + 1]))
    walk = bar(dependence=Dependence(tuple(sums)))
    assert walk.needed(10, 10) == pytest.approx(bar().needed(10, 10) * math.sqrt(13.4 / 0.2), rel=0.01)
    assert firsts([0.0] * 10 + [0.1] * 10, walk) == []


def test_a_commit_that_scatters_all_series_needs_more():
    y, at = [0.0] * 10 + [0.1] * 10, [0.0] * 20
    at[10] = 9.0
    assert firsts(y, bar(scatter=at)) == []
    at[10], at[7] = 0.0, 9.0
    assert firsts(y, bar(scatter=at)) == [10]


def test_of_steps_as_large_as_could_be_missed_nearly_all_are_found():
    """What is needed, or matters if that is more, and 2.33 deviations of what is measured."""
    one = bar()
    assert one.missed(10, 10) == pytest.approx(
        max(one.needed(10, 10), POLICY) + 2.3263 * one.deviation(10, 10), rel=1e-4
    )
    assert bar((1e-12, math.inf)).missed(10, 10) == pytest.approx(POLICY, rel=1e-3)


def test_levels_share_alpha():
    """Over the newest run and both ends of longer levels, H of them, it is the series' share."""
    one, n = bar(alpha=1e-3), 20
    harmonic = sum(1 / m for m in range(1, n // 2 + 1))
    total = one.level(1) + 2 * sum(one.level(m) for m in range(2, n // 2 + 1))
    assert total == pytest.approx(1e-3 * harmonic)


def test_the_levels_are_medians_that_do_not_exaggerate():
    assert levels([0.0, 1.0], [5.0, 6.0]) == (1.0, 5.0)
    assert levels([5.0, 6.0], [0.0, 1.0]) == (5.0, 1.0)
    assert levels([0.0, 9.0, 0.0], [5.0, 5.0, 99.0]) == (0.0, 5.0)


def test_two_series_are_compared_with_both_their_noises():
    """Known variances: the normal quantile of 1e-3 on both sides, 3.29, times sqrt(4 / 2 + 1 / 1)."""
    one, other = (bar((v, math.inf), alpha=1e-3, tail=None) for v in (4.0, 1.0))
    level = one.level(1)
    known = difference_needed(one, other, (2, 1))
    assert level == pytest.approx(5e-4)
    assert known == pytest.approx(3.480756 * math.sqrt(3), rel=1e-6)
    assert difference_needed(bar((math.inf, 1.0)), other, (2, 1)) == math.inf


def test_nothing_is_said_where_the_noise_is_unknown():
    assert firsts([0.0, 0.0, 1.0, 1.0, 1.0], bar((math.inf, 1.0))) == []
