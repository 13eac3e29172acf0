"""What a level is worth: the variance of a difference of levels, for noise with and without memory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.bench.dependence import FREEDOM, Dependence, dependence, independent


def autoregression(coefficient: float, k: int, n: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    y = random.standard_normal((k, n))
    for i in range(1, n):
        y[:, i] = coefficient * y[:, i - 1] + math.sqrt(1 - coefficient**2) * y[:, i]
    return y


def exact(coefficient: float, before: int, after: int) -> float:
    """w' C w for the covariances coefficient^|i - j|."""
    w = np.array([-1 / before] * before + [1 / after] * after)
    lag = np.abs(np.subtract.outer(np.arange(len(w)), np.arange(len(w))))
    return float(w @ coefficient**lag @ w)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (5, 2), (14, 1)])
def test_independent_noise_has_the_textbook_variance_which_is_known(before, after):
    assert independent(20).variance(before, after) == (pytest.approx(1 / before + 1 / after), math.inf)


def test_medians_of_three_or_more_are_less_sure_than_means():
    assert independent(20).variance(3, 6)[0] == pytest.approx(math.pi / 2 * (1 / 3 + 1 / 6))


@pytest.mark.parametrize(("before", "after"), [(10, 10), (14, 2), (15, 5)])
def test_the_variance_of_a_drift_is_that_of_its_covariances(before, after):
    """The exact variogram of an autoregression, 1 - c^h, gives w' C w to rounding."""
    g = np.array([1 - 0.8**h for h in range(20)])
    known = Dependence(tuple(np.concatenate([[0.0], np.cumsum(2 * np.cumsum(g))])))
    median = math.pi / 2 if min(before, after) >= 3 else 1
    assert known.variance(before, after)[0] == pytest.approx(
        median * max(1 / before + 1 / after, exact(0.8, before, after)), rel=1e-12
    )


def test_a_drift_is_seen_and_how_well_it_is_known():
    """400 series: V has 0.85 x 400 degrees of freedom, a deviation of 8 %; four of them."""
    variance, freedom = dependence(autoregression(0.8, 400, 20).tolist()).variance(10, 10)
    assert variance == pytest.approx(math.pi / 2 * exact(0.8, 10, 10), rel=4 * math.sqrt(2 / (FREEDOM * 400)))
    assert freedom == FREEDOM * 400


def test_steps_in_a_quarter_of_the_series_are_no_noise():
    """At far lags the median of squares lies at the quantile 2/3 of the others then, so g is 2.1 and V about
    2 (2.1 - 1) more than 0.2; means would make it 25 more. Six deviations of 34 degrees of freedom."""
    y = autoregression(0.0, 40, 20)
    y[:10, 10:] += 10
    assert dependence(y.tolist()).variance(10, 10)[0] < math.pi / 2 * 2.4 * (1 + 6 * math.sqrt(2 / 34))
    y[10:30, 10:] += 10  # in three quarters they are what the noise is
    assert dependence(y.tolist()).variance(10, 10)[0] > 50


def test_of_few_series_a_step_in_all_of_them_is_no_noise():
    y = autoregression(0.0, 3, 40, seed=1)
    y[:, 20:] += 10
    assert dependence(y.tolist()).variance(20, 20)[0] < 4 * independent(40).variance(20, 20)[0]


def test_a_level_of_a_drift_is_never_quite_known():
    known = dependence(autoregression(0.8, 400, 20).tolist())
    assert independent(20).variance_of_level(2) == pytest.approx(1 / 2)
    assert known.variance_of_level(10) > 2 * independent(20).variance_of_level(10)
