"""Laws given something: mutants are found, near misses pass, and a model of such laws alone is a model."""

from __future__ import annotations

import pytest
import torch

from engine import alone, changed, examined, record, troubles
from harness.adapters import NotAModel, adapt
from harness.checks import given as laws
from harness.evidence import Verdict
from harness.mutants import given
from harness.mutants.classifier import Discriminant, discriminant, softmax
from harness.mutants.given import Completed, Told

IDS = [check.id for check in laws.CHECKS]


@pytest.mark.parametrize("mutant", given.MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is (Verdict.ERROR if mutant.error else Verdict.FAIL), seen.message


@pytest.mark.parametrize("near", given.NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in given.MUTANTS} == set(IDS) == {n.check for n in given.NEAR_MISSES}


@pytest.mark.parametrize("build", [discriminant(), discriminant(5, 4, torch.float64), softmax(), softmax(6, 3), Told])
@pytest.mark.parametrize("seed", range(2))
def test_correct_models_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}


@pytest.mark.parametrize("build", [Told, Completed, discriminant()])
def test_a_whole_run_on_a_model_of_laws_given_something_raises_no_alarm(build):
    assert troubles(examined(build())) == {}


ONE_BY_ONE = ("given.normalised", "given.row_by_row", "given.exchangeable", "given.adversary")


@pytest.mark.parametrize(
    "mutant", [m for m in given.MUTANTS if m.check in ONE_BY_ONE], ids=lambda mutant: f"{mutant.check}-{mutant.name}"
)
def test_one_defect_is_one_fail(mutant):
    """Of this family: a density that is deaf to y, say, is wrong in Bayes' rule as well."""
    seen = examined(changed(mutant), effort="standard")
    wrong = [id for id in troubles(seen) if id.startswith("given.")]
    assert len(wrong) == 1, troubles(seen)


def test_labels_that_cannot_be_had_are_not_asked_for():
    seen = alone(Discriminant(torch.tensor([0.5, 0.0, 0.5]), torch.zeros(3, 2), torch.ones(3)), *IDS)
    assert seen["given.normalised"].verdict is Verdict.PASS
    assert seen["given.normalised"].evidence.n > 0


def test_what_says_not_what_may_be_given_is_refused_or_skipped():
    class Mute(Told):
        given_shape = None

    with pytest.raises(NotAModel):
        adapt(Mute())

    class Drawn(Mute):
        def sample(self, n, *, generator, given=None):
            return torch.randn(n, generator=generator)

    seen = alone(Drawn(), *IDS)
    assert seen["given.normalised"].verdict is Verdict.SKIP
    assert "class_prior" in seen["given.normalised"].message


def test_a_sampler_of_too_few_rows_is_an_error():
    class Short(Told):
        def sample(self, n, *, given, generator):
            return super().sample(n, given=given, generator=generator)[:-1]

    seen = record(Short(), "given.well_formed")
    assert seen.verdict is Verdict.ERROR
    assert "a draw a row of what is given was asked for" in seen.message
