"""Disturbed runs: excursions that steps do not leave, a tail that is exceeded as often as stated, clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from harness.bench.tail import LARGEST, Tail, excursions, tail


def test_a_step_leaves_no_excursion_and_a_disturbed_run_or_two_does():
    assert excursions([0.0] * 8 + [5.0] * 8) == [0.0] * 13
    assert excursions([0.0] * 6 + [5.0] + [0.0] * 10)[6] == 5.0
    assert excursions([0.0] * 6 + [5.0, 5.0] + [0.0] * 9)[6:8] == [5.0, 5.0]


def test_the_newest_runs_are_on_trial():
    assert len(excursions([0.0] * 20)) == 16
    assert len(excursions([0.0] * 6)) == 4
    assert excursions([0.0, 1.0]) == []


@pytest.mark.parametrize("law", ["normal", "exponential", "Student 3", "Student 4", "disturbed"])
def test_the_next_run_exceeds_the_tail_as_seldom_as_stated(law):
    """1 % asked for, from 200 runs, 2,000 times: at most the 0.9999 quantile of Binomial(2000, 0.01), 39."""
    random = np.random.default_rng(0)
    draw = {
        "normal": lambda n: random.standard_normal(n),
        "exponential": lambda n: random.exponential(1, n),
        "Student 3": lambda n: random.standard_t(3, n),
        "Student 4": lambda n: random.standard_t(4, n),
        "disturbed": lambda n: random.standard_normal(n) + (random.random(n) < 0.05) * random.exponential(20, n),
    }[law]
    exceeded = 0
    for _ in range(2000):
        seen = Tail(tuple(sorted(np.abs(draw(200)))))
        exceeded += abs(draw(1)[0]) > seen.quantile(0.01)
    assert exceeded <= binom.ppf(0.9999, 2000, 0.01)


def test_of_stretched_exponentials_it_is_exact():
    """sqrt x exponential, 4,000 times, far beyond what was seen: between the 0.001 and 0.999 quantiles of
    Binomial(4000, 0.005), where 80 runs show p = 1 / 80 at best."""
    random = np.random.default_rng(1)
    exceeded = 0
    for _ in range(4000):
        x = (3 + random.exponential(1, 81)) ** 2
        exceeded += x[0] > Tail(tuple(sorted(x[1:]))).quantile(0.005)
    assert binom.ppf(0.001, 4000, 0.005) <= exceeded <= binom.ppf(0.999, 4000, 0.005)


def test_few_excursions_tell_nothing():
    assert Tail((1.0,) * 11).quantile(0.1) == math.inf
    assert tail([[0.0] * 4]).beyond(2, 0.01) == math.inf
    assert math.isfinite(Tail((1.0,) * 12).quantile(0.1))


def test_bursts_are_told_from_single_disturbances():
    """Ten disturbed runs in pairs, or alone: the former make a level of two runs far less sure."""
    alone, pairs = np.zeros((40, 20)), np.zeros((40, 20))
    for i in range(LARGEST):
        alone[i, 4 + i] = 30.0
        pairs[i // 2, 4 + i // 2 + i % 2] = 30.0
    quiet = 0.1 * np.random.default_rng(2).standard_normal((40, 20))
    single, clustered = tail((quiet + alone).tolist()), tail((quiet + pairs).tolist())
    assert (single.followed, clustered.followed) == (pytest.approx(1 / 11), pytest.approx(6 / 11))
    assert clustered.beyond(2, 1e-3) >= 30.0 > single.beyond(2, 1e-3)


def test_a_longer_level_needs_less():
    seen = tail(np.random.default_rng(3).standard_t(3, (40, 20)).tolist())
    needed = [seen.beyond(points, 1e-4) for points in (1, 2, 4, 8)]
    assert needed == sorted(needed, reverse=True)
