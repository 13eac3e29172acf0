"""nflows: the library's two directions are the contract's, turned round."""

import pytest
import torch

from harness.adapters import adapt

pytest.importorskip("nflows", reason="nflows is not installed: pip install 'genharness[bench]'")


@pytest.fixture(scope="module")
def model():
    from nflows.flows import MaskedAutoregressiveFlow

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = MaskedAutoregressiveFlow(3, hidden_features=8, num_layers=2, num_blocks_per_layer=1)
    return adapt(flow.double().eval())


def test_log_prob_is_that_of_the_base_less_the_volume_of_the_map(model):
    z = torch.randn(1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = model.forward(z)
    jacobian = torch.autograd.functional.jacobian(lambda one: model.forward(one[None])[0], z[0])
    log_det = torch.linalg.slogdet(jacobian).logabsdet
    expected = model.base().log_prob(z)[0] - log_det
    # Sums of some hundred products in three layers: 1e3 roundings of 2e-16 each, on numbers below 1e2.
    assert abs(float((model.log_prob(x)[0] - expected).detach())) < 1e-11
    assert abs(float((model.log_det(z)[0] - log_det).detach())) < 1e-11
    assert torch.allclose(model.inverse(x), z, atol=1e-11)


def test_draws_follow_the_generator(model):
    draws = [model.sample(4, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    assert model.sample(0, generator=torch.Generator()).shape == (0, 3)
    assert model.event_shape == (3,)


def test_a_law_without_a_sampler_has_none():
    from nflows.distributions import DiagonalNormal

    model = adapt(DiagonalNormal([2]))
    assert model.can("log_prob")
    assert not model.can("sample")
    assert "sample" in model.unfit
