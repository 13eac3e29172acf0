"""The measurement of the judges, in small: rows that are shares with intervals, and noise that is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from suites.speed import judge_noise
from suites.speed.judge_noise import (
    HELD_OUT,
    KINDS,
    disturbed,
    drifting,
    in_order,
    main,
    normal,
    planted,
    quiet,
    rate,
    resampled,
    residuals,
    verdicts,
)

RESULTS = Path(__file__).parents[2] / "results" / "judge.json"


def test_a_share_has_its_exact_interval():
    """Of 20 without a hit the upper end is 1 - 0.025^(1/20)."""
    assert rate("x", 0, 20)["high"] == pytest.approx(1 - 0.025 ** (1 / 20), rel=1e-6)


def test_quiet_histories_are_quiet_and_planted_ones_are_found():
    assert quiet("normal", normal(0.003), 8, 5, 0)["rate"] == 0
    assert planted("normal", normal(0.003), 12, 6, 5, 0)["rate"] == 1
    assert verdicts("light", 1.3, 10, 0)["rate"] == 1


@pytest.mark.parametrize("commits", [6, 20])
@pytest.mark.parametrize("name", [name for name in KINDS if name != "disturbed once"])
def test_no_kind_of_noise_is_a_regression(name, commits):
    """At a level of 0.01, in 8 histories: more than one of them with probability 28 x 0.01^2 at most, 0.3 %."""
    assert quiet(name, KINDS[name], commits, 8, 1)["rate"] <= 1 / 8


@pytest.mark.parametrize("first", [10, 18, 19])
def test_five_per_cent_are_found_at_half_a_per_cent_of_noise(first):
    """And 0.01 nats, and nothing else; 9 of 10 are found at least, so fewer than 6 of 8 with probability 0.4 %."""
    assert planted("normal", normal(0.005), 20, first, 8, 2)["rate"] >= 6 / 8


def test_noise_has_the_size_that_it_says():
    """A hundred thousand values: the deviation of a standard deviation of 1 % is 1 % / sqrt(2 m), with m = 10^5 / 4
    where four neighbours tell one story; six of them."""
    random = np.random.default_rng(0)
    assert drifting(0.6)(random, 1000, 100).std() == pytest.approx(0.01, abs=6 * 0.01 / np.sqrt(2 * 10**5 / 4))
    share = (disturbed(random, 1000, 100) > 0.06).mean()
    assert share == pytest.approx(0.01 * np.exp(-0.3), abs=6 * (0.01 / 10**5) ** 0.5)


@pytest.mark.parametrize("noise", [*KINDS.values(), *HELD_OUT.values()], ids=[*KINDS, *HELD_OUT])
def test_noise_is_as_large_as_the_history_and_follows_from_its_seed(noise):
    one, again = (noise(np.random.default_rng(3), 5, 7) for _ in range(2))
    assert one.shape == (5, 7)
    assert (one == again).all()


def test_measured_runs_are_drawn_or_stay_in_order():
    cases = {"a": np.arange(12.0)}
    ordered = in_order(cases)(np.random.default_rng(0), 3, 6)
    assert (np.diff(ordered) % 12 == 1).all()
    assert set(resampled(cases)(np.random.default_rng(0), 3, 6).ravel()) <= set(cases["a"])


def test_residuals_are_around_the_median():
    assert residuals({"a": [[1.0], [1.0], [np.e]]})["a"].tolist() == pytest.approx([0.0, 0.0, 1.0])


@pytest.mark.parametrize("call", [["--histories", "0"], ["--runs", "-1"], ["--again", "nowhere.json"]])
def test_a_wrong_call_is_refused(call):
    with pytest.raises(SystemExit):
        main(call)


def test_noise_of_before_is_judged_again_and_the_rows_of_bench_are_kept(tmp_path, monkeypatch):
    before = {"measured": {"a": [0.0, 0.1]}, "rows": [{**verdicts("light", 1.3, 10, 0)}]}
    (tmp_path / "before.json").write_text(json.dumps(before))
    monkeypatch.setattr(judge_noise, "rows_of_histories", lambda cases, count: iter([quiet("n", normal(0.1), 6, 1, 0)]))
    assert main(["--again", str(tmp_path / "before.json"), "--json", str(tmp_path / "after.json")]) == 0
    told = json.loads((tmp_path / "after.json").read_text())
    assert told["measured"] == before["measured"]
    assert [row["judge"] for row in told["rows"]] == ["regressions", "bench"]


def test_what_is_kept_is_strict_json_in_which_nothing_equal_was_called_slower():
    told = json.loads(RESULTS.read_text(), parse_constant=lambda name: pytest.fail(name))
    equal = [row for row in told["rows"] if row["judge"] == "bench" and row["ratio"] == 1.0]
    assert {row["noise"] for row in equal} == {"measured", "light", "heavy", "drifting"}
    assert all(row["rate"] == 0 for row in equal)
    assert told["machine"]["versions"]["torch"]


def test_what_is_kept_says_that_false_alarms_are_as_rare_as_stated():
    """No row whose interval lies above the level, but that of what no history can warn of: 1 / (e n) more."""
    told = json.loads(RESULTS.read_text())
    rows = [row for row in told["rows"] if row["judge"] == "regressions"]
    quiet_ones = [row for row in rows if row["planted"] == 0]
    assert {row["noise"] for row in quiet_ones} >= {"measured", "measured, in order", *KINDS, *HELD_OUT}
    for row in quiet_ones:
        more = 1 / (np.e * row["commits"]) if row["noise"] == "disturbed once" else 0.0
        assert row["low"] <= told["alpha"] + more, row
    assert all(row["rate"] >= 0.9 for row in rows if row["planted"])
