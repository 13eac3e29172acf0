"""Several trainings of a model are one row: what it says, when it is ranked, and what the seeds' chance makes a tie."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.compare.board import board_of, enter, kept_rows
from harness.compare.page import render
from harness.compare.ranking import RULE, mean_interval, places
from harness.compare.seeds import means_of, one_row, points_of
from harness.compare.table import judged, ranking_words
from harness.errors import CallError

ROWS = 200
DATA = {"name": "x", "d": 4, "entropy_ceiling_nats": 2.0, "frontier_nats": None, "fingerprint": "f"}


def part(name: str, points: list[float], *bad: str, trouble: str = "") -> dict:
    """What one seed's process tells."""
    records = [{"check": id, "verdict": "FAIL", "message": "it does not hold"} for id in bad]
    certificate = {
        **{
            "passed": not bad,
            "counts": {"PASS": 3, "FAIL": len(bad), "INCONCLUSIVE": 0},
            "effort": "quick",
            "seed": 0,
            "alpha": 1e-7,
        },
        **{"not_examined": ["fit"], "normalised_exactly_by": "density.sums_to_one", "records": records},
    }
    figure = {"value": 1.0, "cached": False, "batch": 1}
    return {
        **{"name": name, "spec": f"m.py:{name}", "key": "k", "meaning": "exact", "preprocessing": "none"},
        **{"training": {"how": "Adam", "seconds": 2.0, "steps": 5}, "points": points, "certificate": certificate},
        **{"machine": {"processor": "p", "threads": 1, "versions": {}}, "pictures": None, "growth": {"n": [], "d": []}},
        "cost": {f"seconds_per_{of}": figure for of in ("log_prob", "sample")}
        | {"peak_memory_bytes": figure, "parameters": 3},
        "trouble": trouble,
    }


def draws(seed: int, mean: float, sd: float, size: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, size)


def model(name: str, level: float, shifts: tuple[float, ...], noise: float = 0.01) -> dict:
    """A row whose mean NLL moves by these shifts from seed to seed."""
    own = draws(len(name), level, noise, (ROWS,))
    return one_row([part(name, (own + shift).tolist()) for shift in shifts], range(len(shifts)))


# ------------------------------------------------------------------------------------------------- one row


def test_one_seed_is_its_own_row():
    only = part("a", [1.0, 2.0])
    assert one_row([only], [7]) is only
    assert (points_of(only), means_of(only)) == ([1.0, 2.0], [1.5])


def test_the_nll_at_a_test_row_is_the_mean_over_the_seeds():
    row = one_row([part("a", [1.0, 5.0]), part("a", [3.0, 4.0])], [4, 9])
    assert row["points"] == [2.0, 4.5]
    assert points_of(row) == [[1.0, 5.0], [3.0, 4.0]]
    assert means_of(row) == [3.0, 3.5]
    assert [each["seed"] for each in row["seeds"]] == [4, 9]
    assert (row["training"]["seconds"], row["certificate"]["alpha"]) == (2.0, 2e-7)
    assert row["certificate"]["counts"] == {"PASS": 6, "FAIL": 0, "INCONCLUSIVE": 0}


def test_a_certificate_that_one_seed_lacks_is_lacking():
    row = one_row([part("a", [4.0] * 9), part("a", [4.0] * 9, "density.bridge_mass")], [0, 1])
    (seen,) = judged([row], DATA)
    assert seen["rank"] is None
    assert seen["reason"] == "no certificate: FAIL density.bridge_mass at seed 1: it does not hold"


def test_trouble_at_one_seed_is_the_row_s_and_says_where():
    dead = {name: value for name, value in part("a", []).items() if name not in ("points", "certificate")}
    row = one_row([part("a", [4.0] * 9), {**dead, "trouble": "Died: killed"}], [0, 1])
    (seen,) = judged([row], DATA)
    assert (seen["rank"], seen["reason"], seen["nll"]) == (None, "seed 1: Died: killed", None)


def test_an_impossible_seed_is_no_better_for_a_mean_that_is_possible():
    """2 nats is the entropy of the test rows."""
    rows = [model("cheat", 2.5, (-0.7, 0.7)), model("honest", 2.5, (0.0, 0.1))]
    seen = {row["name"]: row for row in judged(rows, DATA)}
    assert seen["cheat"]["reason"].startswith("impossible")
    assert seen["honest"]["rank"] == 1


# ---------------------------------------------------------------------------------------------- the ranking


def test_models_that_the_seeds_cannot_tell_apart_tie_though_the_rows_can():
    """0.05 nats apart at every test row, while each training is off by 0.1."""
    restless = (model("a", 4.0, (0.0, 0.1, -0.1)), model("b", 4.05, (0.1, -0.1, 0.0)))
    steady = (model("a", 4.0, (0.0, 0.001, -0.001)), model("b", 4.05, (0.001, -0.001, 0.0)))
    alone = (model("a", 4.0, (0.0,)), model("b", 4.05, (0.0,)))
    ranks = [{row["name"]: row["rank"] for row in judged(rows, DATA)} for rows in (restless, steady, alone)]
    assert ranks == [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2}]


def test_seeds_that_change_nothing_leave_the_rows_interval_at_half_of_delta():
    own = draws(0, 4.0, 1.0, (ROWS,))
    same = mean_interval([own.tolist()] * 3, delta=0.1)
    assert same.high - same.mean == pytest.approx(mean_interval(own.tolist(), delta=0.05).high - own.mean(), rel=1e-12)


def test_the_interval_covers_over_rows_and_trainings():
    """Mean 0 over both: the share of 2,000 intervals that miss it is at most delta, with four standard errors of room.
    The rows alone, as they would be without seeds, miss it far more often."""
    seeds, delta, trials = 3, 0.1, 2000
    source = np.random.default_rng(0)
    missed = naive = 0
    for _ in range(trials):
        values = source.normal(0, 1, (1, 50)) + source.normal(0, 0.3, (seeds, 1)) + source.normal(0, 0.2, (seeds, 50))
        seen, rows = mean_interval(values.tolist(), delta), mean_interval(values.mean(0).tolist(), delta)
        missed += not seen.low <= 0 <= seen.high
        naive += not rows.low <= 0 <= rows.high
    room = 4 * math.sqrt(delta * (1 - delta) / trials)
    assert missed / trials <= delta + room
    assert naive / trials > delta + room


def test_rows_of_other_seeds_are_not_ranked_together():
    with pytest.raises(ValueError, match="test rows, or seeds"):
        places({"a": [[1.0, 2.0], [1.0, 2.0]], "b": [1.0, 2.0]})
    assert ranking_words()["rule"] == RULE
    assert "widened by that of the seeds" in ranking_words(several=True)["rule"]


# ------------------------------------------------------------------------------------------ the file and the page


def run(seed: object, device: object = "cpu") -> dict:
    words = {"budget": 5.0, "effort": "quick", "threads": 1, "started": "2026-01-01T00:00:00+00:00"}
    return {"seed": seed, "device": device, **words}


@pytest.mark.parametrize(("other", "said"), [(run(0), "--seed 0,1"), (run([0, 1], ["cuda", "cpu"]), "--device cpu")])
def test_a_file_is_of_one_list_of_seeds_and_devices(tmp_path, other, said):
    path = tmp_path / "b.json"
    enter(path, [model("a", 4.0, (0.0, 0.1))], DATA, run([0, 1]), fresh=False)
    assert len(kept_rows(path, DATA, run([0, 1]), "k")) == 1
    for refused in (lambda: kept_rows(path, DATA, other, "k"), lambda: enter(path, [], DATA, other, fresh=False)):
        with pytest.raises(CallError, match=f"was made with {said}: name another file"):
            refused()
    assert enter(path, [model("a", 4.0, (0.0,))], DATA, run(0), fresh=True)["run"]["seed"] == 0


def page_of(rows: list[dict], of: dict) -> str:
    data = {**DATA, "kind": "discrete", "split": "as it was", "frontier_source": ""}
    return render(board_of(rows, data, of))


def test_the_page_says_each_seed_and_their_spread():
    page = page_of([model("a", 4.0, (0.0, 0.25)), model("b", 5.0, (0.0, 0.0))], run([0, 3]))
    assert "seeds <b>0, 3</b>" in page
    assert "sd of seeds" in page
    assert "at seed 3" in page
    assert "sd of seeds" not in page_of([model("a", 4.0, (0.0,))], run(0))


def test_the_page_has_what_the_other_devices_take_or_why_they_do_not():
    timed, refused = model("timed", 4.0, (0.0,)), model("refused", 5.0, (0.0,))
    timed["cost_on"] = {"cpu": {**timed["cost"], "peak_memory_bytes": {"value": 7 * 2**20}}}
    refused["cost_on"] = {"cpu": {"trouble": "TypeError: somebody computes elsewhere"}}
    page = page_of([timed, refused], run(0, ["cuda", "cpu"]))
    assert "s/sample, cpu" in page
    assert "timed on <b>cpu</b> too" in page
    assert 'data-value="7340032"' in page
    assert "not timed: TypeError: somebody computes elsewhere" in page
