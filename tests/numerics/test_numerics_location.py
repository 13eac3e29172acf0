"""A density of unknown place and size is found, or said not to be."""

import math

import numpy as np
import pytest
import scipy.stats as st
import torch

from harness.numerics import integrate, locate
from harness.numerics.location import climb


def log_density(distribution):
    return lambda x: torch.from_numpy(np.asarray(distribution.logpdf(x[:, 0].numpy()), dtype=np.float64))


@pytest.mark.parametrize(("loc", "scale"), [(0, 1), (1e6, 1e-3), (-3e4, 1e-2), (0, 1e-8), (1e8, 1e8), (12.3, 1e-6)])
@pytest.mark.parametrize("family", [st.norm, st.logistic, st.gumbel_r, st.cauchy])
def test_one_peak_on_the_line_is_found_at_any_place_and_scale(family, loc, scale):
    found = locate(log_density(family(loc, scale)))
    assert found.found
    assert abs(float(found.centres[0]) - loc) <= 0.1 * scale
    assert 0.3 * scale <= float(found.scales[0]) <= 3 * scale
    total = integrate(log_density(family(loc, scale)))
    assert abs(total.total - 1) <= total.total_error + 1e-12
    assert total.total_error < 1e-5


@pytest.mark.parametrize("rho", [0.0, 0.9, 0.99, -0.999])
@pytest.mark.parametrize("d", [2, 3])
def test_a_correlated_gaussian_is_found_with_its_shape(d, rho):
    covariance = torch.eye(d, dtype=torch.float64)
    covariance[0, 1] = covariance[1, 0] = rho
    mean = torch.tensor([30.0, -0.2, 5.0], dtype=torch.float64)[:d]
    g = torch.distributions.MultivariateNormal(mean, 0.01 * covariance)
    found = locate(g.log_prob, d)
    assert found.found
    assert len(found.centres) == 1
    assert torch.allclose(found.centres[0], mean, atol=1e-3)
    ratio = torch.linalg.eigvalsh(torch.linalg.solve(0.01 * covariance, found.scales[0] @ found.scales[0].mT).mT)
    assert float(ratio.min()) > 0.2
    assert float(ratio.max()) < 5


@pytest.mark.parametrize(
    "log_p",
    [
        lambda x: torch.full_like(x[:, 0], -math.inf),
        lambda x: x[:, 0],
        lambda x: torch.where((x[:, 0] - 12345.678).abs() < 1e-9, 0.0, -math.inf),
        lambda x: torch.full_like(x[:, 0], math.nan),
    ],
    ids=["nowhere", "rises for ever", "a needle", "no number"],
)
def test_what_cannot_be_found_is_not_found(log_p):
    found = locate(log_p)
    assert not found.found
    assert found.message


@pytest.mark.parametrize("width", [1e-1, 1e-3, 1e-6])
def test_the_edge_of_a_part_of_a_density_is_no_fall_of_it(width):
    whole = lambda x: -x.square().sum(1) / 2  # noqa: E731
    strip = lambda x: torch.where((x[:, 1] - 0.5).abs() < width, whole(x), -math.inf)  # noqa: E731
    start = torch.tensor([[0.3, 0.5]], dtype=torch.float64)
    assert float(torch.linalg.svdvals(climb(strip, start).scales[0])[-1]) < 4 * width
    found = climb(strip, start, whole)
    assert float(torch.linalg.svdvals(found.scales[0])[-1]) > 0.5
