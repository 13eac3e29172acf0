"""Structure and mutual information: mutants are found, near misses pass, capabilities that are missing are named."""

from __future__ import annotations

import pytest
import torch

from engine import alone, changed, record, troubles
from harness.checks import mutual as informations
from harness.checks import structure as rules
from harness.evidence import Verdict
from harness.mutants import mutual, structure
from harness.mutants.structure import Gaussian, Table, gaussian, table

IDS = [check.id for check in (*rules.CHECKS, *informations.CHECKS)]
MUTANTS = (*structure.MUTANTS, *mutual.MUTANTS)
NEAR_MISSES = (*structure.NEAR_MISSES, *mutual.NEAR_MISSES)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is Verdict.FAIL, seen.message


@pytest.mark.parametrize("near", NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in MUTANTS} == set(IDS) == {n.check for n in NEAR_MISSES}


@pytest.mark.parametrize("build", [gaussian(2), gaussian(7, torch.float64), table(2, 2), table(5, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_correct_models_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}


def test_a_scalar_has_no_blocks():
    law = Gaussian(torch.zeros(1), torch.eye(1))
    assert {seen.verdict for seen in alone(law, *IDS).values()} == {Verdict.SKIP}


def test_parts_without_a_density_are_named():
    class Blind(Table):
        def marginal(self, indices):
            whole = super().marginal(indices)
            return type("Draws", (), {"sample": staticmethod(whole.sample)})()

    seen = alone(Blind(table(3, 2)().p), *IDS)
    assert seen["structure.product_rule"].verdict is Verdict.SKIP
    assert "log_prob" in seen["structure.product_rule"].message
    assert seen["structure.marginal_of_draws"].verdict is Verdict.PASS


def test_a_marginal_that_is_no_model_is_an_error_that_names_it():
    class Wrong(Table):
        def marginal(self, indices):
            return 3

    seen = record(Wrong(table(3, 2)().p), "structure.product_rule")
    assert seen.verdict is Verdict.ERROR
    assert "marginal() returned" in seen.message
