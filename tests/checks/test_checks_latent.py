"""Bounds, posteriors and gradients of latent-variable models: mutants are found, near misses pass."""

from __future__ import annotations

import math

import pytest
import torch

from engine import alone, changed, examined, record, troubles
from harness.checks import latent as laws
from harness.evidence import Verdict
from harness.mutants import latent
from harness.mutants.latent import Claiming, Drawn, Linear, Pixels, RightShades, WithDensity, linear

IDS = [check.id for check in laws.CHECKS]


@pytest.mark.parametrize("mutant", latent.MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is (Verdict.ERROR if mutant.error else Verdict.FAIL), seen.message


@pytest.mark.parametrize("near", latent.NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in latent.MUTANTS} == set(IDS) == {n.check for n in latent.NEAR_MISSES}


@pytest.mark.parametrize("build", [linear(), linear(Linear, 1.5), linear(Drawn), linear(Claiming), Pixels, RightShades])
@pytest.mark.parametrize("seed", range(3))
def test_correct_models_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}


@pytest.mark.parametrize("build", [linear(), linear(Claiming, dtype=torch.float64), Pixels, RightShades])
def test_a_whole_run_raises_no_alarm(build):
    assert troubles(examined(build())) == {}
