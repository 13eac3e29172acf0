"""Stated moments: mutants are found, near misses pass, and a wrong density is told from a wrong sampler."""

from __future__ import annotations

import pytest
import torch

from engine import changed, record
from harness.adapters import adapt
from harness.checks import clipped, moments
from harness.checks.moments import moments_of
from harness.effort import effort_named
from harness.evidence import Verdict
from harness.mutants.moments import MUTANTS, NEAR_MISSES
from harness.mutants.mutant import mutated
from harness.subject import Subject

D = torch.distributions

IDS = {check.id for check in (*moments.CHECKS, *clipped.CHECKS)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is Verdict.FAIL, seen.message


@pytest.mark.parametrize("near", NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in MUTANTS} == IDS == {n.check for n in NEAR_MISSES}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_integrated_moments_are_those_of_the_law(scale):
    law = D.Gamma(torch.tensor(3.0, dtype=torch.float64), torch.tensor(1 / scale, dtype=torch.float64))
    found = moments_of(Subject(adapt(law), effort_named("quick"), 0))
    assert float((found.mean - law.mean).abs()) <= 1e-9 * scale + float(found.mean_error)
    assert float((found.covariance - law.variance).abs()) <= 1e-9 * scale**2 + float(found.covariance_error)


def test_a_wrong_density_and_a_wrong_sampler_are_told_apart():
    right = adapt(D.Normal(0.0, 1.0))
    density = mutated(right, lambda model: {"log_prob": lambda x: model.log_prob(x - 0.1)})
    sampler = mutated(
        right, lambda model: {"sample": lambda n, *, generator: model.sample(n, generator=generator) + 0.1}
    )
    assert record(density, "moments.mean_of_density", effort="standard").verdict is Verdict.FAIL
    assert record(density, "moments.mean_of_draws", effort="standard").verdict is Verdict.PASS
    assert record(sampler, "moments.mean_of_density", effort="standard").verdict is Verdict.PASS
    assert record(sampler, "moments.mean_of_draws", effort="standard").verdict is Verdict.FAIL


def test_a_wrong_shape_is_an_error_that_names_it():
    wide = mutated(adapt(D.Normal(0.0, 1.0)), lambda model: {"mean": lambda: torch.zeros(3)})
    seen = record(wide, "moments.mean_of_density", effort="standard")
    assert seen.verdict is Verdict.ERROR
    assert "(3,)" in seen.message


def test_a_finite_mean_of_a_law_without_mean_is_undecided():
    stated = mutated(adapt(D.Cauchy(0.0, 1.0)), lambda model: {"mean": lambda: torch.tensor(0.0)})
    assert record(stated, "moments.mean_of_density", effort="standard").verdict is Verdict.INCONCLUSIVE


def test_labels_without_a_mean_are_skipped():
    seen = record(D.Categorical(torch.tensor([0.2, 0.8])), "moments.mean_of_density", effort="standard")
    assert seen.verdict is Verdict.SKIP
