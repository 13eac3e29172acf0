"""The self-test itself: the rows it promises, the same for any number of workers, and its exit status."""

import json

import pytest

from harness import selftest
from harness.mutants.planted import PLANTED

PROMISED = {
    "mutant",
    "model",
    "dimension",
    "scale",
    "effort",
    "check",
    "seeds",
    "found",
    "draws_median",
    "false_alarms",
    "alpha",
    "group",
    "first_seed",
    "seconds",
    "cpus",
}
SOON = "log_det_sign"
"""The planted bug that is found soonest, so that its rows are cheap."""
FEW = ["float16", "one_nan", "draws_viewed", "subnormal"]
"""Two mutants and two near misses, each of one check."""


def test_a_planted_bug_becomes_rows_with_every_promised_field(tmp_path):
    path = tmp_path / "selftest.json"
    assert selftest.run_selftest(only=[SOON], seeds=1, json_path=path) == 0
    told = json.loads(path.read_text())
    assert told["schema_version"] == "1.0"
    assert set(told["versions"]) == {"python", "torch", "harness"}
    assert {(row["effort"], row["dimension"], row["scale"]) for row in told["rows"]} == {
        (effort, d, scale) for effort in selftest.EFFORTS for d in selftest.DIMENSIONS for scale in selftest.SCALES
    }
    for row in told["rows"]:
        assert set(row) >= PROMISED
        assert (row["group"], row["mutant"], row["seeds"]) == ("planted", SOON, 1)
        assert row["found"] == 1, row
        assert row["check"]
        assert row["draws_median"] >= 1
        assert row["false_alarms"] == 0
        assert row["first_seed"] == 0
        assert row["seconds"] > 0
        assert row["cpus"] >= 1
    assert told["seconds"] == pytest.approx(sum(row["seconds"] for row in told["rows"]))


def test_rows_do_not_depend_on_the_number_of_workers():
    one, two = (selftest.measure(only=FEW, seeds=40, workers=workers) for workers in (1, 2))
    assert one == two
    assert {row.group: (row.found > 0, row.false_alarms) for row in one} == {
        "mutant": (True, 0),
        "near miss": (False, 0),
    }
    assert {row.seeds for row in one} == {2}
    assert selftest.troubles(one) == []


def test_a_name_that_selects_nothing_is_refused_with_the_names_that_do():
    with pytest.raises(ValueError, match=r"no_such_bug.*mean_shifted"):
        selftest.run_selftest(only=["no_such_bug"], seeds=1)
    with pytest.raises(ValueError, match="'no_such_bug'"):
        selftest.measure(only=[SOON, "no_such_bug"], seeds=1)


def test_every_planted_bug_has_rows_at_every_effort_dimension_and_scale_it_has_a_meaning_at():
    planted = [case for case in selftest.cases() if case.group == "planted"]
    assert len(set(planted)) == len(planted)
    for effort in ("quick", "standard"):
        named = {case.mutant for case in planted if case.effort == effort}
        assert named == {bug.name for bug in PLANTED}
    for case in planted:
        bug = next(bug for bug in PLANTED if bug.name == case.mutant)
        assert bug.broken(case.model, case.dimension, case.scale) is not None


def test_correct_models_are_run_at_every_effort_and_at_a_budget_where_the_rate_is_seen():
    correct = [case for case in selftest.cases() if case.group == "correct"]
    assert {case.alpha for case in correct} == {1e-6, selftest.CALIBRATION_BUDGET}
    assert {case.effort for case in correct} == {"quick", "standard", "thorough"}


def case(group: str, alpha: float = 1e-6) -> selftest.Case:
    return selftest.Case(group, "some", "model", 1, 1.0, "quick", alpha)


def hit(draws: int) -> selftest.Outcome:
    return selftest.Outcome("some.check", draws, 0.0)


MISS = selftest.Outcome("", 0, 0.0)


def test_found_and_false_alarms_are_counted_apart_and_the_median_is_over_those_found():
    found = selftest.row_of(case("planted"), [hit(10), hit(30), MISS])
    assert (found.found, found.false_alarms, found.seeds, found.draws_median) == (2, 0, 3, 20)
    wolf = selftest.row_of(case("correct"), [hit(10), MISS])
    assert (wolf.found, wolf.false_alarms, wolf.check) == (0, 1, "some.check")
    nothing = selftest.row_of(case("planted"), [MISS])
    assert (nothing.found, nothing.draws_median, nothing.check) == (0, None, "")


@pytest.mark.parametrize(
    ("group", "alpha", "outcomes", "broken"),
    [
        ("correct", 1e-6, [hit(10), MISS], True),
        ("correct", 0.05, [hit(10), MISS], False),
        ("near miss", 1e-6, [hit(10)], True),
        ("mutant", 1e-6, [hit(10), MISS], True),
        ("mutant", 1e-6, [hit(10)], False),
        ("planted", 1e-6, [MISS], False),
    ],
)
def test_a_broken_promise_is_a_false_alarm_at_the_default_budget_or_a_mutant_that_its_check_misses(
    group, alpha, outcomes, broken
):
    assert bool(selftest.troubles([selftest.row_of(case(group, alpha), outcomes)])) is broken
