"""Structure and mutual information: mutants are found, near misses pass, capabilities that are missing are named."""

from __future__ import annotations

import pytest
import torch

from harness.adapters import adapt
from harness.checks import mutual as informations
from harness.checks import structure as rules
from harness.effort import effort_named
from harness.evidence import Verdict
from harness.mutants import mutual, structure
from harness.mutants.mutant import mutated
from harness.mutants.structure import Gaussian, Table, gaussian, table
from harness.plan import plan
from harness.run import Settings, examine

torch.set_num_threads(1)

BY_ID = {check.id: check for check in (*rules.CHECKS, *informations.CHECKS)}
MUTANTS = (*structure.MUTANTS, *mutual.MUTANTS)
NEAR_MISSES = (*structure.NEAR_MISSES, *mutual.NEAR_MISSES)


def records(model, ids=tuple(BY_ID), effort="standard", seed=0):
    model = adapt(model)
    checks = [BY_ID[id] for id in ids]
    return list(examine(model, plan(model, checks, 1e-6), Settings(effort_named(effort), seed)))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    (seen,) = records(mutated(adapt(mutant.base()), mutant.change), (mutant.check,))
    assert seen.verdict is Verdict.FAIL, seen.message


@pytest.mark.parametrize("near", NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    (seen,) = records(mutated(adapt(near.base()), near.change), (near.check,))
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in MUTANTS} == set(BY_ID) == {n.check for n in NEAR_MISSES}


@pytest.mark.parametrize("build", [gaussian(2), gaussian(7, torch.float64), table(2, 2), table(5, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_correct_models_raise_no_alarm(build, seed):
    verdicts = {seen.check: seen.verdict for seen in records(build(), effort="quick", seed=seed)}
    assert not {check for check, verdict in verdicts.items() if verdict in (Verdict.FAIL, Verdict.ERROR)}


def test_a_scalar_has_no_blocks():
    law = Gaussian(torch.zeros(1), torch.eye(1))
    assert {seen.verdict for seen in records(law, effort="quick")} == {Verdict.SKIP}


def test_parts_without_a_density_are_named():
    class Blind(Table):
        def marginal(self, indices):
            whole = super().marginal(indices)
            return type("Draws", (), {"sample": staticmethod(whole.sample)})()

    seen = {record.check: record for record in records(Blind(table(3, 2)().p), effort="quick")}
    assert seen["structure.product_rule"].verdict is Verdict.SKIP
    assert "log_prob" in seen["structure.product_rule"].message
    assert seen["structure.marginal_of_draws"].verdict is Verdict.PASS


def test_a_marginal_that_is_no_model_is_an_error_that_names_it():
    class Wrong(Table):
        def marginal(self, indices):
            return 3

    (seen,) = records(Wrong(table(3, 2)().p), ("structure.product_rule",), "quick")
    assert seen.verdict is Verdict.ERROR
    assert "marginal() returned" in seen.message
