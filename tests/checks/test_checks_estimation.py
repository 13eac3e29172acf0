"""Maximum likelihood: mutants are found, near misses pass, and the reference estimators of others are judged fairly."""

from __future__ import annotations

import pytest
import torch

from engine import changed, record
from harness.checks import estimation, likelihood_gradient
from harness.evidence import Verdict
from harness.mutants.errata_tables import Counted
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


@pytest.mark.parametrize("rare", [1e-7, 1e-4, 5e-4])
def test_a_state_that_is_hardly_ever_drawn_is_no_large_sample(rare):
    """A correct table. Its mean gain is off by up to half of k, as Wilks' law does not say anything of it."""
    table = Counted(torch.tensor([[rare, 0.3, 0.7 - rare]], dtype=torch.float64))
    seen = record(table, "estimation.twice_the_gain_is_chi_squared", effort="standard")
    assert seen.verdict is Verdict.SKIP
    assert "edge of the family" in seen.message
