"""Entropy, cdf, icdf and divergence: mutants are found, near misses pass, integrals agree with closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from engine import changed, record
from harness.adapters import adapt
from harness.checks import divergence, information, quantiles
from harness.evidence import Verdict
from harness.mutants.information import MUTANTS, NEAR_MISSES
from harness.mutants.mutant import mutated

D = torch.distributions

IDS = {check.id for check in (*information.CHECKS, *quantiles.CHECKS, *divergence.CHECKS)}


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


def test_the_entropy_of_an_unnormalised_density_is_that_of_its_law():
    """A density that is off by a factor fails its own check; its entropy is right, and passes."""
    heavy = mutated(adapt(D.Normal(0.0, 3.0)), lambda model: {"log_prob": lambda x: model.log_prob(x) + 0.3})
    assert record(heavy, "information.entropy", effort="standard").verdict is Verdict.PASS


def test_rounding_is_not_evidence_against_the_entropy():
    """With the control variates only rounding is left of log p; ten seeds at thorough draws raise no alarm."""
    law = D.MultivariateNormal(torch.arange(8.0), torch.eye(8) + 0.5)
    verdicts = {record(law, "information.entropy_of_draws", seed=seed).verdict for seed in range(10)}
    assert verdicts == {Verdict.PASS}


def test_a_divergence_that_should_be_infinite():
    finite = mutated(adapt(D.Uniform(0.0, 1.0)), lambda model: {"kl": lambda other: torch.tensor(1.0)})
    assert record(finite, "information.kl", effort="standard").verdict is Verdict.FAIL


def test_without_a_second_model_the_divergence_is_skipped():
    class Own:
        def log_prob(self, x):
            return -0.5 * x**2 - 0.5 * math.log(2 * math.pi)

        def kl(self, other):
            return torch.tensor(0.0)

    seen = record(Own(), "information.kl", effort="standard")
    assert seen.verdict is Verdict.SKIP
    assert "second model" in seen.message


def test_a_cdf_of_a_vector_is_not_asked_for():
    vector = mutated(
        adapt(D.MultivariateNormal(torch.zeros(2), torch.eye(2))), lambda model: {"cdf": lambda x: torch.zeros(len(x))}
    )
    assert record(vector, "information.cdf", effort="standard").verdict is Verdict.SKIP


def test_a_discrete_cdf_counts_the_value_itself():
    """P(X <= k) and not P(X < k); a quantile is the smallest value that reaches its probability."""
    table = torch.tensor([0.2, 0.3, 0.5])
    die = adapt(D.Categorical(table))
    right = mutated(die, lambda model: {"cdf": lambda x: table.cumsum(0)[x.long().clamp(0, 2)]})
    late = mutated(die, lambda model: {"cdf": lambda x: table.cumsum(0)[x.long().clamp(0, 2)] - table[x.long()]})
    assert record(right, "information.cdf", effort="standard").verdict is Verdict.PASS
    assert record(late, "information.cdf", effort="standard").verdict is Verdict.FAIL

    def quantile(u, shift=0):
        return (torch.searchsorted(table.cumsum(0), u) + shift).clamp(0, 2)

    right = mutated(die, lambda model: {"icdf": lambda u: quantile(u)})
    early = mutated(die, lambda model: {"icdf": lambda u: quantile(u, -1)})
    assert record(right, "information.icdf", effort="standard").verdict is Verdict.PASS
    assert record(early, "information.icdf", effort="standard").verdict is Verdict.FAIL
