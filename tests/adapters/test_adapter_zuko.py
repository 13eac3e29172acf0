"""zuko's lazy distributions: the density by a change of variables of our own, empty batches, contexts refused."""

import math

import pytest
import torch

from harness.adapters import NotAModel, adapt

pytest.importorskip("zuko", reason="zuko is not installed: pip install 'genharness[bench]'")


@pytest.fixture(scope="module")
def flow():
    from zuko.flows import MAF

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MAF(3, transforms=2, hidden_features=(8,)).double()


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_log_prob_is_that_of_the_base_less_the_volume_of_the_map(flow):
    model = adapt(flow)
    z = torch.randn(4, 3, generator=generator(), dtype=torch.float64)
    x = model.forward(z)
    jacobian = torch.autograd.functional.jacobian(lambda one: model.forward(one[None])[0], z[0])
    log_det = torch.linalg.slogdet(jacobian).logabsdet
    expected = -z[0].square().sum() / 2 - 1.5 * math.log(2 * math.pi) - log_det
    # Sums of some hundred products, and three layers: 1e3 roundings of 2e-16 each, on numbers below 1e2.
    assert abs(float(model.log_prob(x)[0].detach() - expected)) < 1e-11
    assert torch.allclose(model.inverse(x), z, atol=1e-11)
    assert abs(float(model.log_det(z)[0].detach() - log_det)) < 1e-11


def test_draws_follow_the_generator_and_no_other(flow):
    model = adapt(flow)
    state = torch.get_rng_state()
    first = model.sample(5, generator=generator())
    assert torch.equal(first, model.sample(5, generator=generator()))
    assert torch.equal(state, torch.get_rng_state())
    assert not first.requires_grad


def test_a_batch_of_none_is_a_batch(flow):
    model = adapt(flow)
    assert model.log_prob(torch.zeros(0, 3, dtype=torch.float64)).shape == (0,)
    assert model.sample(0, generator=generator()).shape == (0, 3)


def test_it_can_be_cast_and_its_shape_is_known(flow):
    model = adapt(flow)
    assert model.event_shape == (3,)
    assert model.base().event_shape == (3,)
    assert model.cast(torch.float32).sample(1, generator=generator()).dtype == torch.float32


def test_one_with_a_context_is_refused():
    from zuko.flows import MAF

    with pytest.raises(NotAModel, match="context=0"):
        adapt(MAF(2, context=1))
