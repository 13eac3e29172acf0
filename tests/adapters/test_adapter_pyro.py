"""Pyro's distributions: what they have beyond torch's."""

import pytest
import torch

from harness import Verdict, check_model
from harness.adapters import NotAModel, adapt

LAWS = ["bijection.deterministic", "bijection.log_det_is_jacobian", "bijection.draws_are_pushed_forward"]

pytest.importorskip("pyro", reason="Pyro is not installed: pip install 'genharness[bench]'")


def test_its_normal_is_torchs():
    import pyro.distributions as dist

    x = torch.linspace(-2, 2, 6).reshape(3, 2)
    model = adapt(dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    assert torch.allclose(model.log_prob(x), expected)  # the same float32 operations
    assert model.event_shape == (2,)


def test_a_mask_makes_no_density():
    import pyro.distributions as dist

    law = dist.Normal(torch.zeros(2), torch.ones(2)).mask(torch.tensor([True, False])).to_event(1)
    with pytest.raises(NotAModel, match=r"leave \.mask\(\) out"):
        adapt(law)


def test_a_law_without_a_sampler_has_only_its_density():
    import pyro.distributions as dist

    hmm = dist.DiscreteHMM(torch.zeros(2), torch.zeros(2, 2), dist.Bernoulli(torch.tensor([0.2, 0.7])), duration=3)
    model = adapt(hmm)
    assert model.can("log_prob")
    if not model.can("sample"):
        assert "no sampler" in model.unfit["sample"]


def test_a_learnt_transform_is_asked_under_its_present_parameters():
    import pyro.distributions as dist
    from pyro.distributions.transforms import affine_autoregressive

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transform = affine_autoregressive(2, hidden_dims=[4])
    law = dist.TransformedDistribution(dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1), [transform])
    model = adapt(law)
    x = torch.tensor([[0.3, -0.4]])
    before = model.log_prob(x)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(0.1)
    after = model.log_prob(x)
    law.clear_cache()
    assert torch.equal(after, law.log_prob(x))
    assert not torch.equal(before, after)


def _with_transform(build):
    from pyro import distributions as pyro

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transform = build(pyro.transforms)
        for parameter in getattr(transform, "parameters", list)():
            parameter.data += 0.5 * torch.randn(parameter.shape)
    return pyro.TransformedDistribution(pyro.Normal(torch.zeros(3), 1.0).to_event(1), [transform])


def test_a_transform_that_goes_one_way_leaves_draws_a_map_and_its_volume():
    model = adapt(_with_transform(lambda transforms: transforms.Planar(3)))
    assert model.can("sample", "forward", "log_det", "base")
    assert not model.can("log_prob")
    assert "no way back" in model.unfit["log_prob"]
    assert adapt(_with_transform(lambda transforms: transforms.Householder(3))).can("sample", "log_prob")


def test_the_volume_of_a_map_without_a_way_back_is_examined():
    """The log-determinant of Pyro 1.9's Sylvester layer is that of another matrix; a planar layer's is right."""
    report = check_model(_with_transform(lambda transforms: transforms.sylvester(3)), effort="quick", only=LAWS)
    assert [failed.check for failed in report.failures] == ["bijection.log_det_is_jacobian"]
    report = check_model(_with_transform(lambda transforms: transforms.Planar(3)), effort="quick", only=LAWS)
    assert set(LAWS) <= {record.check for record in report.records if record.verdict is Verdict.PASS}
