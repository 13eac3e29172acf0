"""What holds of every check: a law, a mutant that it kills, a near miss that it lets pass, blockers that exist."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.checks import CHECKS
from harness.contract import CAPABILITIES
from harness.mutants import MUTANTS, NEAR_MISSES

IDS = [check.id for check in CHECKS]


def test_ids_are_unique():
    assert len(set(IDS)) == len(IDS)


@pytest.mark.parametrize("check", CHECKS, ids=IDS)
def test_a_check_states_its_law_and_why(check):
    assert check.law
    assert check.why
    assert set(check.needs) <= set(CAPABILITIES)
    assert set(check.blocked_by) <= set(IDS)


@pytest.mark.parametrize("id", IDS)
def test_a_check_has_a_mutant_and_a_near_miss(id):
    assert any(mutant.check == id for mutant in MUTANTS), f"no mutant is found by {id}"
    assert any(near.check == id for near in NEAR_MISSES), f"no near miss tries {id}"


def test_mutants_are_told_apart_by_name_and_speak_of_checks_that_exist():
    for changes in (MUTANTS, NEAR_MISSES):
        names = Counter((change.check, change.name) for change in changes)
        assert [name for name, times in names.items() if times > 1] == []
    assert {change.check for change in (*MUTANTS, *NEAR_MISSES)} <= set(IDS)
