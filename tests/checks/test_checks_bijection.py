"""Bijections: mutants are found, near misses pass, and maps of every shape and dtype raise no alarm."""

from __future__ import annotations

import pytest
import torch

from engine import alone, changed, examined, record, troubles
from harness.checks import bijection as checks
from harness.evidence import Verdict
from harness.mutants import bijection
from harness.mutants.bijection import Fold, Graphless, Ordered, Pictures, Pushed, pushed

IDS = [check.id for check in checks.CHECKS]
BUILDS = [
    pushed(1),
    pushed(3, Ordered),
    pushed(70),
    pushed(3, dtype=torch.float64, spread=100.0),
    pushed(4, Pictures),
    Fold,
    Graphless,
]


@pytest.mark.parametrize("mutant", bijection.MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is (Verdict.ERROR if mutant.error else Verdict.FAIL), seen.message


@pytest.mark.parametrize("near", bijection.NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in bijection.MUTANTS} == set(IDS) == {n.check for n in bijection.NEAR_MISSES}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("seed", range(3))
def test_correct_maps_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}
