"""normflows: unconditional flows; the other classes of the library are refused with what to give instead."""

import pytest
import torch

from harness.adapters import NotAModel, adapt

pytest.importorskip("normflows", reason="normflows is not installed: pip install 'genharness[bench]'")


@pytest.fixture(scope="module")
def model():
    from normflows import NormalizingFlow
    from normflows.distributions import DiagGaussian
    from normflows.flows import MaskedAffineAutoregressive

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return adapt(NormalizingFlow(DiagGaussian(3), [MaskedAffineAutoregressive(3, 8) for _ in range(2)]).double())


def test_log_prob_is_that_of_the_base_less_the_volume_of_the_map(model):
    z = torch.randn(1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = model.forward(z)
    jacobian = torch.autograd.functional.jacobian(lambda one: model.forward(one[None])[0], z[0])
    log_det = torch.linalg.slogdet(jacobian).logabsdet
    # Sums of some hundred products in three layers: 1e3 roundings of 2e-16 each, on numbers below 1e2.
    assert abs(float((model.log_prob(x)[0] - model.base().log_prob(z)[0] + log_det).detach())) < 1e-11
    assert torch.allclose(model.inverse(x), z, atol=1e-11)


def test_draws_follow_the_generator(model):
    draws = [model.sample(4, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    assert model.event_shape == (3,)


def test_a_conditional_flow_is_refused():
    from normflows import ConditionalNormalizingFlow
    from normflows.distributions import DiagGaussian

    with pytest.raises(NotAModel, match="give a NormalizingFlow"):
        adapt(ConditionalNormalizingFlow(DiagGaussian(2), []))


def test_a_flow_without_a_way_back_has_no_density():
    from normflows import NormalizingFlow
    from normflows.distributions import DiagGaussian
    from normflows.flows import Planar

    model = adapt(NormalizingFlow(DiagGaussian(2), [Planar((2,))]))
    assert model.can("sample", "forward", "log_det")
    assert not model.can("log_prob")
    assert not model.can("inverse")
    assert model.unfit["log_prob"] == "NormalizingFlow does not implement it: This flow has no algebraic inverse."


def test_a_flow_that_sets_itself_up_at_its_first_call_is_not_called():
    from normflows import NormalizingFlow
    from normflows.distributions import DiagGaussian
    from normflows.flows import ActNorm

    flow = NormalizingFlow(DiagGaussian(2), [ActNorm(2)])
    adapt(flow)
    assert float(flow.flows[0].data_dep_init_done) == 0
