"""The measurement of the judges, in small: rows that are shares with intervals, and noise that is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from suites.speed.judge_noise import disturbed, drifting, main, normal, planted, quiet, rate, residuals, verdicts

RESULTS = Path(__file__).parents[2] / "results" / "judge.json"


def test_a_share_has_its_exact_interval():
    """Of 20 without a hit the upper end is 1 - 0.025^(1/20)."""
    assert rate("x", 0, 20)["high"] == pytest.approx(1 - 0.025 ** (1 / 20), rel=1e-6)


def test_quiet_histories_are_quiet_and_planted_ones_are_found():
    assert quiet("normal", normal(0.003), 8, 5, 0)["rate"] == 0
    assert planted("normal", normal(0.003), 12, 6, 5, 0)["rate"] == 1
    assert verdicts("light", 1.3, 10, 0)["rate"] == 1


def test_noise_has_the_size_that_it_says():
    """A million values: the deviation of a standard deviation of 1 % is 1 % / sqrt(2 m), with m = 10^6 / 4 where four
    neighbours tell one story; six of them."""
    random = np.random.default_rng(0)
    assert drifting(random, 10**5).std() == pytest.approx(0.01, abs=6 * 0.01 / np.sqrt(2 * 10**5 / 4))
    assert (disturbed(random, 10**5) > 0.06).mean() == pytest.approx(0.01 * np.exp(-0.3), abs=6 * (0.01 / 10**5) ** 0.5)


def test_residuals_are_around_the_median():
    assert residuals({"a": [[1.0], [1.0], [np.e]]})["a"].tolist() == pytest.approx([0.0, 0.0, 1.0])


def test_a_wrong_call_is_refused():
    with pytest.raises(SystemExit):
        main(["--histories", "0"])


def test_what_is_kept_is_strict_json_in_which_nothing_equal_was_called_slower():
    told = json.loads(RESULTS.read_text(), parse_constant=lambda name: pytest.fail(name))
    equal = [row for row in told["rows"] if row["judge"] == "bench" and row["ratio"] == 1.0]
    assert {row["noise"] for row in equal} == {"measured", "light", "heavy", "drifting"}
    assert all(row["rate"] == 0 for row in equal)
    assert told["machine"]["versions"]["torch"]
