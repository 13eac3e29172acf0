"""What the series of one commit share: a shift is found whoever else steps, scatter is told from chance."""

from __future__ import annotations

import numpy as np
import pytest

from harness.bench.together import Together, shared_scatter, shared_shift


def logs(y: np.ndarray) -> list[dict[str, float]]:
    return [{f"{i}": float(value) for i, value in enumerate(row)} for row in y]


def test_a_shift_of_all_is_found_and_taken_out():
    y = np.zeros((9, 12))
    y[:, 5] += 0.3
    y[0, 3:] += 1.0  # a step of one series is not shared
    shift = shared_shift(logs(y), [0.01] * 9)
    assert shift["5"] == pytest.approx(0.3)
    assert all(value == 0 for commit, value in shift.items() if commit != "5")
    assert Together(shift).without(logs(y)[0]) == [0.0] * 3 + [1.0] * 9


def test_few_series_share_nothing():
    assert shared_shift(logs(np.ones((4, 6))), [0.01] * 4) == {}
    assert shared_scatter(logs(np.ones((4, 6)))) == {}
    assert Together().without({"a": 1.0}) == [1.0]


def test_noisy_series_do_not_move_the_quiet_ones():
    """Twenty quiet and twenty noisy: the weighted median is as sure as the quiet ones make it, about 1.25 s / sqrt(20),
    in sixty commits less than four of that."""
    scale = np.repeat([1.0, 50.0], 20)[:, None]
    y = scale * np.random.default_rng(0).standard_normal((40, 60))
    shift = shared_shift(logs(y), scale[:, 0])
    assert max(map(abs, shift.values())) < 4 * 1.25 / np.sqrt(20)


def test_a_commit_that_scatters_all_is_known_and_a_quiet_one_is_not():
    y = np.random.default_rng(0).standard_normal((40, 20))
    assert shared_scatter(logs(y)) == {}
    y[:, 10:] += 5 * np.random.default_rng(1).standard_normal((40, 1))
    assert max(shared_scatter(logs(y)), key=shared_scatter(logs(y)).get) in ("9", "10")


def test_a_step_in_some_series_is_no_scatter():
    y = np.random.default_rng(0).standard_normal((40, 20))
    y[:10, 10:] += 10
    assert shared_scatter(logs(y)).get("10", 0.0) < 4
