"""Uniform laws (M05) against scipy, counting and exact values."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import harness
from reference_impls import uniform
from reference_impls.uniform import DiscreteUniform, Interval, Uniform

EPS = torch.finfo(torch.float64).eps


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("preset", [uniform.grey_level, uniform.interval, uniform.box])
def test_presets_conform(preset):
    assert not harness.check_model(preset(), effort="quick", seed=0).failures


@pytest.mark.parametrize("states", [1, 2, 6, 256])
def test_discrete_uniform_by_counting(states):
    model, k = DiscreteUniform(states, dtype=torch.float64), torch.arange(states)
    p = model.log_prob(k.double()).exp()
    assert abs(p.sum() - 1) <= 4 * states * EPS
    assert abs(model.mean() - k.double().mean()) <= 4 * states * EPS
    assert abs(model.variance() - k.double().var(correction=0)) <= 8 * states**2 * EPS
    assert abs(model.entropy() - math.log(states)) <= EPS * states
    outside = torch.tensor([-1.0, 0.5, states, math.inf, math.nan])
    assert (model.log_prob(outside) == -math.inf).all()
    assert set(model.sample(20 * states, generator=generator()).tolist()) <= set(range(states))


def test_discrete_draws_are_even_and_the_fit_is_the_largest_seen():
    model = DiscreteUniform(6)
    x = model.sample(60_000, generator=generator(1))
    # The seed is fixed; of all seeds, one in a thousand would fail here.
    assert stats.chisquare(torch.bincount(x, minlength=6).numpy()).pvalue > 1e-3
    assert DiscreteUniform.fit(x).states == 6
    assert DiscreteUniform.fit(torch.tensor([0, 3, 1])).states == 4
    assert abs(DiscreteUniform(2).kl(model) - math.log(3)) <= 1e-6  # float32: a few roundings of 1.1
    assert model.kl(DiscreteUniform(2)) == math.inf
    assert model.kl(model) == 0


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_box_agrees_with_scipy(scale):
    low, high = (scale * torch.tensor(v, dtype=torch.float64) for v in ([-1.0, 0.5], [2.0, 0.75]))
    model = Uniform(low, high)
    oracle = [stats.uniform(a, b - a) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    x = low + (high - low) * (3 * torch.rand(50, 2, generator=generator(), dtype=torch.float64) - 1)
    expected = sum(o.logpdf(column.numpy()) for o, column in zip(oracle, x.mT, strict=True))
    assert np.isinf(expected).any()
    assert np.isfinite(expected).any()
    tolerance = 100 * EPS * (1 + abs(math.log(scale)))
    assert np.allclose(model.log_prob(x), expected, rtol=0, atol=tolerance)
    assert np.allclose(model.entropy(), sum(o.entropy() for o in oracle), rtol=0, atol=tolerance)
    assert np.allclose(model.mean(), [o.mean() for o in oracle], rtol=4 * EPS, atol=0)
    assert np.allclose(model.variance(), [o.var() for o in oracle], rtol=8 * EPS, atol=0)


def test_entropy_may_be_negative_and_is_minus_the_log_density():
    model = Uniform(torch.zeros(1), torch.full((1,), 0.5))
    assert model.entropy() == -model.log_prob(torch.tensor([[0.1]]))[0] < 0
    half, whole = Interval([0.0], [0.5]), Interval([0.0], [1.0])
    assert abs(half.kl(whole) - math.log(2)) <= 1e-6  # float32: a few roundings of 0.7
    assert whole.kl(half) == math.inf


def test_both_ends_belong_to_the_support_and_draws_never_leave_it():
    model = Interval(torch.tensor([1.0]), torch.tensor([1.0 + 2**-20]))  # eight float32 steps
    x = model.sample(10_000, generator=generator())
    assert model.log_prob(torch.cat([x, model.low[None], model.high[None]])).isfinite().all()
    assert len(x.unique()) == 9
    assert model.log_prob(torch.tensor([[math.nan]])).isnan().all()


def test_cdf_and_icdf_undo_each_other_and_draws_follow_them():
    model = uniform.interval(dtype=torch.float64)
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.allclose(model.cdf(model.icdf(u)), u, rtol=0, atol=4 * EPS)
    assert model.cdf(torch.tensor([[-1.0], [5.0]])).tolist() == [0.0, 1.0]
    x = model.sample(10_000, generator=generator(2))
    # The seed is fixed; of all seeds, one in a thousand would fail here.
    assert stats.kstest(model.cdf(x).numpy(), "uniform").pvalue > 1e-3


def test_fit_is_the_smallest_box_and_twice_its_gain_has_two_degrees_of_freedom_an_end():
    truth, stream, gains = uniform.interval(dtype=torch.float64), generator(3), []
    for _ in range(400):
        x = truth.sample(500, generator=stream)
        fitted = Uniform.fit(x)
        assert (fitted.low, fitted.high) == (x.min(), x.max())
        gains.append(2 * (fitted.log_prob(x) - truth.log_prob(x)).sum().item())
    # The seed is fixed; of all seeds, one in a thousand would fail here. Wilks' theorem would say chi^2 with 2.
    assert stats.kstest(gains, stats.chi2(4).cdf).pvalue > 1e-3
    assert stats.kstest(gains, stats.chi2(2).cdf).pvalue < 1e-6


def test_coordinates_are_independent():
    model = uniform.box()
    assert model.mutual_information([0], [1, 2]) == 0
    assert torch.equal(model.conditional([1], [0.5]).high, model.marginal([0, 2]).high)
    assert model.conditional([], []) is model


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: DiscreteUniform(0), "at least 1"),
        (lambda: DiscreteUniform(2.5), "whole number"),
        (lambda: DiscreteUniform.fit(torch.tensor([0.5])), "whole numbers"),
        (lambda: DiscreteUniform(3).log_prob(torch.zeros(2, 1)), "shape"),
        (lambda: Uniform([0.0], [0.0]), "above its low"),
        (lambda: Uniform([0.0], [math.nan]), "above its low"),
        (lambda: Uniform([0.0], [1.0, 2.0]), r"should be \(d,\)"),
        (lambda: Interval([0.0, 0.0], [1.0, 1.0]), "one coordinate"),
        (lambda: Uniform.fit(torch.ones(1, 2)), "constant"),
        (lambda: Uniform.fit(torch.tensor([[math.nan]])), "NaN"),
        (lambda: uniform.box().conditional([1], [2.0]), "outside the box"),
        (lambda: uniform.box().kl(uniform.interval()), "no divergence"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
