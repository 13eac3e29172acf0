"""The dictionary of test functions: its sums do not drift, however near to 1 the weights are."""

from __future__ import annotations

import pytest
import torch

from harness.adapters import adapt
from harness.effort import effort_named
from harness.features import coordinate_columns, labels, weighted_sums
from harness.subject import Subject

N = 2**16


def sums(weight):
    subject = Subject(adapt(torch.distributions.Normal(0.0, 1.0)), effort_named("quick"), 0)
    x = subject.sample(N, "test")
    z, log_p = subject.profile.chart.coordinates(x), subject.model.log_prob(x).double()
    total, squares = weighted_sums(subject, z, log_p, weight)
    return subject, z, total, squares


@pytest.mark.parametrize("near", [1 - 1e-5, 1 - 3e-6, 1 + 1e-6])
def test_sums_of_weights_near_one_are_those_of_float64(near):
    """Only w - 1 is rounded; 1 itself is added up exactly."""
    subject, _, total, _ = sums(torch.full((N,), near, dtype=torch.float64))
    assert labels(subject)[-1] == "all events together"
    allowed = N * abs(near - 1) * 2**-8  # 2^16 additions of float32 in a row, at the very worst
    assert abs(float(total[-1]) - N * near) <= allowed


def test_sums_of_columns_are_weighted_sums():
    weight = 2 * torch.rand(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    subject, z, total, squares = sums(weight)
    columns = coordinate_columns(subject, z).double()
    k = columns.shape[1]
    allowed = N * 2**-12
    assert bool(((total[:k] - weight @ columns).abs() <= allowed).all())
    assert bool(((squares[:k] - weight.square() @ columns.square()).abs() <= 2 * allowed).all())
