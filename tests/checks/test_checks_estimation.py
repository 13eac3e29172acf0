"""Maximum likelihood: mutants are found, near misses pass, and the reference estimators of others are judged fairly."""

from __future__ import annotations

import pytest

from harness.adapters import adapt
from harness.checks.estimation import CHECKS
from harness.effort import effort_named
from harness.evidence import Verdict
from harness.mutants.estimation import MUTANTS, NEAR_MISSES
from harness.mutants.mutant import mutated
from harness.plan import plan
from harness.run import Settings, examine

BY_ID = {check.id: check for check in CHECKS}


def record(model, check, effort="standard"):
    (seen,) = examine(model, plan(model, [BY_ID[check]], 1e-6), Settings(effort_named(effort)))
    return seen


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(mutated(adapt(mutant.base()), mutant.change), mutant.check)
    assert seen.verdict is Verdict.FAIL, seen.message


@pytest.mark.parametrize("near", NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(mutated(adapt(near.base()), near.change), near.check)
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in MUTANTS} == set(BY_ID) == {n.check for n in NEAR_MISSES}
