"""The dictionary of test functions: its sums do not drift, however near to 1 the weights are."""

from __future__ import annotations

import pytest
import torch

from harness.adapters import adapt
from harness.checks.kernel import sums_of_changes as changes
from harness.effort import effort_named
from harness.features import coordinate_columns, coordinate_labels, labels, weighted_sums
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


@pytest.mark.parametrize(
    "law",
    [
        torch.distributions.MultivariateNormal(torch.zeros(9), torch.eye(9)),
        torch.distributions.Independent(torch.distributions.Poisson(torch.tensor([0.5, 40.0])), 1),
    ],
)
def test_sums_of_changes_are_those_of_columns(law, monkeypatch):
    """Made a few rows at a time, of which the last are fewer."""
    monkeypatch.setattr("harness.features.BLOCK_NUMBERS", 9 * 100)
    subject = Subject(adapt(law), effort_named("quick"), 0)
    z, new = (subject.profile.chart.coordinates(subject.sample(1234, name)) for name in ("here", "there"))
    weight = torch.rand(1234, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = changes(subject, z, torch.Generator(), lambda *_: (new, weight))
    change = weight.float()[:, None] * (coordinate_columns(subject, new) - coordinate_columns(subject, z))
    assert (found.n, found.total.shape) == (1234, (len(coordinate_labels(subject)),))
    # float32 numbers in [-1, 1]: in a sum of at most so many of them, each addition rounds by half a unit at most
    allowed = 1234**2 * torch.finfo(torch.float32).eps / 2
    assert bool(((found.total - change.double().sum(0)).abs() <= allowed).all())
    assert bool(((found.squares - change.double().square().sum(0)).abs() <= allowed).all())


@pytest.mark.parametrize("far", [1e4, 1e30, 1e300, torch.inf, -torch.inf, torch.nan])
def test_columns_of_far_coordinates_are_bounded_numbers(far):
    subject, *_ = sums(torch.ones(N, dtype=torch.float64))
    columns = coordinate_columns(subject, torch.tensor([[far]], dtype=torch.float64))
    assert bool(((columns >= -0.5) & (columns <= 1)).all())
