"""Maximum likelihood: mutants are found, near misses pass, and the reference estimators of others are judged fairly."""

from __future__ import annotations

import pytest

from engine import changed, record
from harness.checks import estimation, likelihood_gradient
from harness.evidence import Verdict
from harness.mutants.estimation import MUTANTS, NEAR_MISSES

IDS = {check.id for check in (*estimation.CHECKS, *likelihood_gradient.CHECKS)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is Verdict.FAIL, seen.message


@pytest.mark.parametrize("near", NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in MUTANTS} == IDS == {n.check for n in NEAR_MISSES}
