"""Ranks say what the test rows say: intervals against scipy's, ties kept at their level, differences found."""

import numpy as np
import pytest
import scipy.stats

from harness.compare.ranking import DELTA, dominated, mean_interval, places


def rows(seed: int, n: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def test_the_interval_is_scipys():
    x = rows(0)
    low, high = scipy.stats.t.interval(1 - DELTA, len(x) - 1, x.mean(), scipy.stats.sem(x))
    seen = mean_interval(x)
    assert np.allclose([seen.low, seen.high], [low, high], rtol=1e-12)  # one quantile of two libraries


def test_a_pair_gets_its_share_of_the_level():
    base = rows(0)
    models = {"a": base, "b": base + 0.1 * rows(1), "c": base + 0.1 * rows(2) + 1}
    found = places(models)
    for name, place in found.items():
        if name == place.leader:
            continue
        difference = models[name] - models[next(iter(found))]
        half = scipy.stats.t.ppf(1 - DELTA / 3 / 2, 199) * scipy.stats.sem(difference)  # three pairs
        assert np.isclose(place.gap.high - place.gap.mean, half, rtol=1e-10)


def test_what_is_common_to_all_models_cancels():
    """The rows' own spread is 100 times the difference, and no test of unpaired means would see it."""
    hard = 100 * rows(0)
    found = places({"good": hard, "bad": hard + 1 + 0.1 * rows(1)})
    assert [found[name].rank for name in ("good", "bad")] == [1, 2]
    assert not found["good"].tied


def test_equal_models_tie_and_the_next_group_counts_them():
    base = rows(0)
    found = places({"a": base, "b": base.copy(), "c": base + 1 + 0.01 * rows(1), "d": base + 1 + 0.01 * rows(2)})
    assert [found[name].rank for name in "abcd"] == [1, 1, 3, 3]
    assert all(place.tied for place in found.values())
    assert found["b"].gap.mean == found["b"].gap.high == 0


def test_models_of_one_quality_are_rarely_told_apart():
    """Of 300 tables of five equal models at most 5 % may part any; so many of 300 come with probability 1e-6."""
    rng = np.random.default_rng(7)
    parted = 0
    for _ in range(300):
        shared = rng.normal(size=60)
        models = {str(i): shared + rng.normal(size=60) for i in range(5)}
        parted += any(place.rank > 1 for place in places(models).values())
    assert parted <= scipy.stats.binom.ppf(1 - 1e-6, 300, DELTA)


def test_a_difference_of_five_standard_errors_is_found():
    """The interval reaches 2 of them: 5 are missed with probability Phi(2 - 5) = 1e-3, here with a fixed seed."""
    base = rows(3, 400)
    found = places({"good": base, "bad": base + 5 / 20 + rows(4, 400)})
    assert found["bad"].rank == 2


def test_models_asked_at_other_rows_are_not_compared():
    with pytest.raises(ValueError, match="same data"):
        places({"a": [1.0, 2.0], "b": [1.0]})
    assert places({}) == {}


def test_a_point_is_dominated_by_one_that_is_nowhere_worse():
    costs = {"best": (1, 1, 1), "worse": (2, 1, 1), "faster": (3, 0.5, 1), "twin": (1, 1, 1), "unknown": (9, None, 9)}
    assert dominated(costs) == {"best": False, "worse": True, "faster": False, "twin": False, "unknown": False}
