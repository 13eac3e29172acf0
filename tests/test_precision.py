"""Limits of the arithmetic are told apart from errors of the formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness import Verdict, check_model
from harness.evidence import Exact, Record
from harness.run import gone

GAMMA = torch.distributions.Gamma
LAWS = ["sampler.pit_uniform", "sampler.exchangeable", "sampler.bridge"]


def test_gamma_near_zero_fails_in_float32_for_want_of_small_numbers():
    """Gamma(0.01) puts 42 % of its float32 draws on the smallest number."""
    for law in LAWS:  # one at a time: together, the first that fails speaks for all
        (record,) = check_model(GAMMA(0.01, 1.0), only=[law]).failures
        assert (record.check, record.label) == (law, "precision")


def test_the_same_law_passes_in_float64_but_for_the_last_tail_of_its_transform():
    report = check_model(GAMMA(torch.tensor(0.01, dtype=torch.float64), 1.0), only=LAWS[1:])
    assert report.passed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_error_of_the_formula_is_not_labelled(dtype):
    class Wide(torch.distributions.Normal):
        def sample(self, sample_shape=()):
            return super().sample(sample_shape) * 1.3

    report = check_model(Wide(torch.tensor(0.0, dtype=dtype), 1.0), only=LAWS[:1], effort="quick")
    (record,) = report.failures
    assert record.verdict is Verdict.FAIL
    assert record.label == ""


def test_what_is_found_in_another_unit_is_no_rounding_of_the_first():
    """A law that keeps its scale: the copy in float64 has lost the graph by which it was told from a constant."""

    class Keeps(torch.nn.Module):
        event_shape = (2,)

        def __init__(self):
            super().__init__()
            self.log_scale = torch.nn.Parameter(torch.tensor([0.1, 0.2]))
            self.law = torch.distributions.Normal(0.0, self.log_scale.exp())

        def log_prob(self, x):
            return self.law.log_prob(x).sum(1)

    (record,) = check_model(Keeps(), only=["module.saved_and_loaded"], effort="quick").failures
    assert (record.check, record.label) == ("module.saved_and_loaded", "")


def test_an_integral_that_did_not_converge_in_float64_takes_nothing_back():
    seen = Record(
        "m", "density.integrates_to_one", Verdict.INCONCLUSIVE, Exact(3e3, 0.03, 1, uncertainty=1e4), 0, 0, ""
    )
    assert not gone(seen)
    assert gone(replace(seen, verdict=Verdict.PASS))
