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


class RareBits:
    """All bits are 1 together with probability p, else 0: their correlation is 1."""

    event_shape = (3,)

    def __init__(self, p, stuck=False):
        self.p, self.stuck = torch.tensor(p, dtype=torch.float64), stuck

    def sample(self, n, *, generator):
        on = (torch.rand(n, 1, generator=generator, dtype=torch.float64) < self.p) & (not self.stuck)
        return on.expand(n, 3).long()

    def mean(self):
        return self.p.expand(3)

    def variance(self):
        return (self.p * (1 - self.p)).expand(3)

    def covariance(self):
        return (self.p * (1 - self.p)).expand(3, 3)


@pytest.mark.parametrize("p", [1e-7, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("check", ["mean", "variance", "covariance"])
def test_moments_that_rest_on_values_that_were_never_drawn_are_no_fail(check, p):
    """A bit of probability p is 0 in all draws, and its mean is p all the same."""
    for effort in ("quick", "standard"):
        seen = record(adapt(RareBits(p)), f"moments.{check}_of_draws", effort=effort)
        assert seen.verdict in (Verdict.INCONCLUSIVE, Verdict.PASS), seen.message


@pytest.mark.parametrize("law", [D.Bernoulli(1e-6), D.Poisson(1e-6), D.Binomial(10, torch.tensor(1e-6))], ids=str)
def test_rare_laws_of_torch_have_right_means(law):
    assert record(adapt(law), "moments.mean_of_draws", effort="standard").verdict is not Verdict.FAIL


@pytest.mark.parametrize("p", [0.02, 0.5])
def test_a_bit_that_is_never_drawn_although_it_should_be_is_a_wrong_mean(p):
    seen = record(adapt(RareBits(p, stuck=True)), "moments.mean_of_draws", effort="standard")
    assert seen.verdict is Verdict.FAIL, seen.message


def test_a_far_mode_too_rare_to_be_drawn_may_decide_a_mean():
    """(1 - w) N(0, 1) + w N(1/w, 1), whose mean is 1 and sd 1/sqrt(w)."""
    w = 1e-7
    weights, centres = torch.tensor([1 - w, w], dtype=torch.float64), torch.tensor([0, 1 / w], dtype=torch.float64)
    law = D.MixtureSameFamily(D.Categorical(weights), D.Normal(centres, torch.ones_like(centres)))
    assert record(adapt(law), "moments.mean_of_draws", effort="standard").verdict is not Verdict.FAIL
