"""The variance of a run, from few runs of many series: right on average, blind to steps, learnt from the others."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.bench.noise import Prior, differenced, fitted_prior, freedom_of_product, noise


def series(seed: int, count: int, n: int, deviation: float = 0.01) -> list[list[float]]:
    return (deviation * np.random.default_rng(seed).standard_normal((count, n))).tolist()


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


def test_a_moderated_variance_lies_between_its_own_and_the_common_one():
    assert Prior(4.0, 6.0).moderated(1.0, 2.0) == (pytest.approx((6 * 4 + 2 * 1) / 8), 8.0)
    assert Prior(4.0, math.inf).moderated(1.0, 2.0) == (4.0, math.inf)
    assert Prior(0.0, 3.0, least=0.1).moderated(0.0, 3.0)[0] == pytest.approx(0.01)


def test_a_product_is_known_less_well_than_its_factors():
    assert freedom_of_product(math.inf, math.inf) == math.inf
    assert freedom_of_product(10.0, math.inf) == pytest.approx(10)
    assert freedom_of_product(6.0, 3.0) == pytest.approx(2)
