"""Variances that draws cannot settle: what is said instead is decided, and right, for heavy tails of every kind."""

from __future__ import annotations

import pytest
import scipy.stats
import torch

from engine import record
from harness.adapters import adapt
from harness.checks.clipped import CHECKS
from harness.checks.moments import covariance_of_draws, variance_of_draws
from harness.checks.tails import tail_index
from harness.effort import effort_named
from harness.evidence import Verdict
from harness.subject import Subject

D = torch.distributions

HEAVY = {
    "t(3)": lambda: D.StudentT(3.0),
    "scipy t(3)": lambda: scipy.stats.t(3),
    "t(2.1)": lambda: D.StudentT(2.1),
    "Pareto(2.5)": lambda: D.Pareto(1.0, 2.5),
    "log-normal": lambda: D.LogNormal(0.0, 3.0),
}


@pytest.mark.parametrize("name", HEAVY)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_heavy_tail_is_decided_by_clipped_squares_and_skipped_by_plain_ones(name, seed):
    plain, clipped = (record(HEAVY[name](), check, seed=seed) for check in (variance_of_draws, *CHECKS))
    assert plain.verdict is Verdict.SKIP
    assert "moments.variance_of_density" in plain.message
    assert clipped.verdict is Verdict.PASS, clipped.message
    assert clipped.bound < clipped.evidence.tolerance


def test_a_light_tail_is_left_to_plain_squares():
    assert record(D.Normal(0.0, 3.0), variance_of_draws).verdict is Verdict.PASS
    assert record(D.Normal(0.0, 3.0), *CHECKS, effort="standard").verdict is Verdict.SKIP


def test_without_an_integral_a_heavy_tail_is_skipped_with_the_reason():
    seen = record(D.Independent(D.StudentT(torch.full((4,), 2.5)), 1), variance_of_draws)
    assert seen.verdict is Verdict.SKIP
    assert "index about" in seen.message


def test_a_covariance_of_heavy_tails_is_skipped_with_the_reason():
    """Student's t with 3 degrees of freedom in two dimensions: z / sqrt(w / 3)."""

    class Student:
        def sample(self, n, *, generator):
            z = torch.randn(n, 5, generator=generator)
            return z[:, :2] / (z[:, 2:].square().sum(1, keepdim=True) / 3).sqrt()

        def covariance(self):
            return 3 * torch.eye(2)

    seen = record(Student(), covariance_of_draws)
    assert seen.verdict is Verdict.SKIP
    assert "index about" in seen.message


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_tail_index_is_that_of_the_law_at_any_scale(scale):
    """Hill's estimate from k = 64 draws is off by 1 / 8 (one standard deviation); four of them are allowed."""
    index = tail_index(Subject(adapt(D.Pareto(scale, 3.0)), effort_named("quick"), 0))
    assert float((index / 3 - 1).abs()) < 4 / 8


def test_two_values_have_no_tail():
    assert float(tail_index(Subject(adapt(D.Bernoulli(torch.tensor(0.3))), effort_named("quick"), 0))) == torch.inf
