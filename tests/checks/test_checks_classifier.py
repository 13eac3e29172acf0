"""Classifiers and maps: mutants are found, near misses pass, and models that only have laws of labels are models."""

from __future__ import annotations

import pytest
import torch

from engine import alone, changed, examined, record, troubles
from harness.adapters import NotAModel, adapt
from harness.checks import classifier as classifiers
from harness.checks import maps as mappings
from harness.evidence import Verdict
from harness.mutants import classifier, maps
from harness.mutants.classifier import Discriminant, Softmax, discriminant, softmax
from harness.mutants.maps import mapped

IDS = [check.id for check in classifiers.CHECKS]
MAPS = [check.id for check in mappings.CHECKS]
MUTANTS = (*classifier.MUTANTS, *maps.MUTANTS)
NEAR_MISSES = (*classifier.NEAR_MISSES, *maps.NEAR_MISSES)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is (Verdict.ERROR if mutant.error else Verdict.FAIL), seen.message


@pytest.mark.parametrize("near", NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in MUTANTS} == {*IDS, *MAPS} == {n.check for n in NEAR_MISSES}


@pytest.mark.parametrize("build", [discriminant(), discriminant(2, 4, torch.float64), softmax(), softmax(2, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_correct_classifiers_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}


@pytest.mark.parametrize("build", [mapped(2), mapped(7), mapped(7, torch.float64)])
@pytest.mark.parametrize("seed", range(3))
def test_maps_of_correct_models_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *MAPS, seed=seed)) == {}


@pytest.mark.parametrize("build", [discriminant(), softmax()])
def test_a_whole_run_on_a_classifier_raises_no_alarm(build):
    assert troubles(examined(build())) == {}


def test_a_law_of_labels_alone_is_a_model_of_the_shape_that_it_declares():
    model = adapt(softmax(3, 4)())
    assert model.given_shape == (4,)
    assert set(model.methods) == {"posterior", "log_prob_given", "sample_given"}
    seen = alone(model, *IDS)
    assert seen["classifier.posterior_is_log_prob"].verdict is Verdict.PASS
    assert seen["classifier.calibrated"].verdict is Verdict.PASS
    assert seen["classifier.bayes_rule"].verdict is Verdict.SKIP


def test_a_classifier_that_does_not_say_what_it_takes_is_refused():
    with pytest.raises(NotAModel):
        adapt(type("Posterior", (), {"posterior": staticmethod(lambda x: x.softmax(1))})())


def test_a_generative_classifier_has_both_laws_by_one_method():
    model = adapt(discriminant()())
    assert {"log_prob", "log_prob_given", "sample", "sample_given"} <= set(model.methods)
    assert record(model, "classifier.posterior_is_log_prob").verdict is Verdict.SKIP


def test_labels_of_a_wrong_shape_are_an_error_that_says_so():
    class Column(Softmax):
        def sample(self, n, *, given, generator):
            return super().sample(n, given=given, generator=generator)[:, None]

    law = softmax()()
    seen = record(Column(law.weight, law.bias), "classifier.calibrated")
    assert seen.verdict is Verdict.ERROR
    assert "(2048, 1)" in seen.message


def test_classes_that_the_prior_does_not_count_are_an_error_that_says_so():
    class Fewer(Discriminant):
        def class_prior(self):
            return self.p[:2]

    law = discriminant()()
    seen = record(Fewer(law.p, law.means, law.scales), "classifier.posterior_sums_to_one")
    assert seen.verdict is Verdict.ERROR
    assert "shape (3,)" in seen.message


def test_a_tiny_negative_probability_is_no_rounding():
    class Negative(Softmax):
        def posterior(self, x):
            p = super().posterior(x)
            return torch.cat([p[:, :1] + 1e-9, p[:, 1:2] * 0 - 1e-9, p[:, 2:] + p[:, 1:2]], 1)

    law = softmax()()
    assert record(Negative(law.weight, law.bias), "classifier.posterior_sums_to_one").verdict is Verdict.FAIL
