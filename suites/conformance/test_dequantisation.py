"""Dequantised flows: masses against quadrature of the density, bounds below them, and their rise with more draws."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from harness import check_model
from reference_impls import dequantisation, training
from reference_impls.dequantisation import Dequantised
from reference_impls.flows import Flow, Squash, StandardNormal
from reference_impls.splines import LEAST

EPS = torch.finfo(torch.float64).eps
PRESETS = [dequantisation.grey_line, dequantisation.variational_pair, dequantisation.dequantised_pair]
EXACT = PRESETS[:2]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(model):
    return torch.cartesian_prod(*[torch.arange(model.levels)] * model.d).reshape(-1, model.d)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset, dtype):
    report = check_model(preset(dtype=dtype), effort="quick", seed=0)
    assert not report.failures, report.failures


@pytest.mark.parametrize("preset", EXACT)
def test_masses_sum_to_one_over_all_levels(preset):
    model = preset(dtype=torch.float64)
    x = states(model)
    assert abs(model.log_prob(x).exp().sum() - 1) <= 100 * len(x) * EPS
    assert (model.log_prob(torch.cat([x[:1] - 1, x[-1:] + 1])) == -math.inf).all()
    assert model.log_prob(x[:1] + 0.5).tolist() == [-math.inf]


def test_masses_are_integrals_of_the_density():
    model = dequantisation.grey_line(dtype=torch.float64)
    elementwise, squash = model.flow.map.layers
    spline = elementwise.univariate
    shares = elementwise.theta[: spline.bins].softmax(0)
    widths = 2 * spline.bound * (LEAST + (1 - spline.bins * LEAST) * shares)
    knots = squash.forward((widths.cumsum(0) - spline.bound)[:, None])[:, 0].tolist()  # where the density has kinks

    def density(t):
        with torch.no_grad():
            return model.flow.log_prob(torch.tensor([[t]], dtype=torch.float64)).exp().item()

    for k in range(model.levels):
        inside = [t for t in knots if k < t < k + 1]
        mass, error = integrate.quad(density, k, k + 1, limit=200, epsabs=1e-11, points=inside or None)
        assert abs(model.log_prob(torch.tensor([[k]])).exp().item() - mass) <= 2 * error + 100 * EPS


@pytest.mark.parametrize("preset", EXACT)
def test_bounds_are_below_the_mass_and_rise_to_it(preset):
    """E elbo <= E iwae <= log P(x), and E exp(elbo) = P(x): means are known to five of their standard deviations."""
    model = preset(dtype=torch.float64)
    x, repeats = states(model), 400
    many = x.repeat_interleave(repeats, 0)
    source = generator(1)
    with torch.no_grad():
        truth = model.log_prob(x)
        elbo = model.elbo(many, generator=source).reshape(len(x), repeats)
        iwae = model.iwae(many, 8, generator=source).reshape(len(x), repeats)
    for bound in (elbo, iwae):
        assert (bound.mean(1) - 5 * bound.std(1) / repeats**0.5 <= truth).all()
        if model.noise is None:  # else weights have too heavy tails for a mean of 400
            weight = (bound - truth[:, None]).exp()
            assert ((weight.mean(1) - 1).abs() <= 5 * weight.std(1) / repeats**0.5).all()
    assert iwae.mean() > elbo.mean()


def test_noise_is_a_law_on_the_unit_square():
    """By Gauss-Legendre quadrature of 60 and 80 nodes a side, whose difference says how far they are off."""
    noise = dequantisation.variational_pair(dtype=torch.float64).noise

    def density(u, x):
        z, log_det = noise.map.pull(u, 2 * x / 3 - 1)
        return noise.law.log_prob(z) - log_det

    for x in torch.tensor([[0.0, 3.0], [2.0, 1.0]], dtype=torch.float64):
        masses = []
        for nodes in (60, 80):
            t, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(nodes))
            u = torch.cartesian_prod((t + 1) / 2, (t + 1) / 2)
            mass = density(u, x.expand(len(u), 2)).exp().reshape(nodes, nodes)
            masses.append((w / 2) @ mass.detach() @ (w / 2))
        assert abs(masses[1] - 1) <= 10 * abs(masses[1] - masses[0]) + 1e3 * EPS
        told = x.expand(50, 2)
        u, log_q = noise.draw(told, generator=generator(2))
        assert ((density(u, told) - log_q).abs() <= 1e4 * EPS * (1 + log_q.abs()) / (u * (1 - u)).amin(1)).all()


def test_impossible_events_have_no_bound():
    model = dequantisation.grey_line()
    x = torch.tensor([[-1], [6], [2]])
    assert model.elbo(x, generator=generator()).isfinite().tolist() == [False, False, True]
    assert model.iwae(x, 3, generator=generator()).isfinite().tolist() == [False, False, True]


def test_a_variational_q_makes_the_bound_tighter():
    model = dequantisation.variational_pair()
    x = model.sample(400, generator=generator(5))

    def mean_bound():
        with torch.no_grad():
            return float(model.iwae(x.repeat(20, 1), 1, generator=generator(6)).mean())

    before, exact = mean_bound(), float(model.log_prob(x).mean().detach())
    noise = training.Player(list(model.noise.parameters()), model.loss, rate=0.02)
    training.train(model, [noise], x, steps=120, batch=400)
    assert before < mean_bound() <= exact + 0.01  # 8,000 draws know a mean of numbers of sd below 0.2 to 0.01
    assert float(model.log_prob(x).mean().detach()) == exact  # the flow itself was left alone


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: Dequantised(Flow(StandardNormal(1), [Squash(1, 0, 4)]), 5), "should end in Squash"),
        (lambda: dequantisation.grey_line().elbo(torch.zeros(3, 2), generator=generator()), r"shape \(n, 1\)"),
        (lambda: dequantisation.grey_line().log_prob(torch.zeros(3)), r"shape \(n, 1\)"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
