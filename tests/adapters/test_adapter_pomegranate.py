"""pomegranate: densities against scipy's, supports, and the generator."""

import numpy as np
import pytest
import scipy.stats
import torch

from harness.adapters import NotAModel, adapt
from harness.adapters import pomegranate as adapter

pytest.importorskip("pomegranate", reason="pomegranate is not installed: pip install 'genharness[bench]'")


def rows(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def test_a_mixture_of_normals_is_scipys():
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    x = torch.cat([rows(60, 2), rows(60, 2) + 4])
    fitted = adapter.trained(GeneralMixtureModel([Normal(), Normal()]), x, 3)
    model = adapt(fitted)
    parts = [
        scipy.stats.multivariate_normal(part.means.numpy(), part.covs.numpy()).pdf(x.numpy())
        for part in fitted.distributions
    ]
    told = np.log(sum(w * p for w, p in zip(fitted.priors.tolist(), parts, strict=True)))
    # float32: a dozen roundings of 6e-8 each, on numbers below 50.
    assert np.abs(model.log_prob(x).numpy() - told).max() < 12 * 6e-8 * 50
    draws = [model.sample(4, generator=torch.Generator().manual_seed(2)) for _ in range(2)]
    assert torch.equal(*draws)


def test_a_network_sums_to_one_over_all_its_states():
    from pomegranate.bayesian_network import BayesianNetwork

    x = (rows(80, 4) > 0).long()
    model = adapt(adapter.trained(BayesianNetwork(algorithm="chow-liu"), x, 0, (2,) * 4))
    states = torch.cartesian_prod(*[torch.arange(2)] * 4)
    assert abs(float(model.log_prob(states).exp().sum()) - 1) < 16 * 4 * 6e-8  # float32 factors
    assert float(model.log_prob(torch.tensor([[0, 0, 0, 2]]))) == -torch.inf


def test_values_outside_the_support_have_density_0():
    from pomegranate.distributions import Exponential

    model = adapt(adapter.trained(Exponential(), rows(50, 2).abs(), 0))
    assert float(model.log_prob(torch.tensor([[1.0, -1.0]]))) == -torch.inf


def test_what_has_no_parameters_or_no_vectors_is_refused():
    from pomegranate.distributions import Normal
    from pomegranate.hmm import DenseHMM

    with pytest.raises(NotAModel, match="no parameters yet"):
        adapt(Normal())
    with pytest.raises(NotAModel, match="no density of vectors"):
        adapt(DenseHMM())
