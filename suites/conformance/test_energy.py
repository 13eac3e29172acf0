"""Energies of continuous variables against scipy, quadrature and autograd; score matching; Langevin's diffusion."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from harness import check_model
from reference_impls import energy
from reference_impls.energy import GaussianEnergy, NeuralEnergy, langevin
from reference_impls.gaussian import Gaussian

PRESETS = (energy.bowl, energy.two_valleys)
EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=15)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_gaussian(d, seed, narrow=1.0, scale=1.0):
    g = generator(seed)
    axes = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q
    sizes = torch.ones(d, dtype=torch.float64)
    sizes[-1] = narrow
    precision = (axes / sizes.square()) @ axes.mT / scale**2
    return GaussianEnergy(scale * torch.randn(d, generator=g, dtype=torch.float64), (precision + precision.mT) / 2)


@examples
@given(st.integers(1, 4), st.integers(0, 10**6), st.sampled_from([1.0, 1e-3]), st.sampled_from([1.0, 1e-8, 1e8]))
def test_the_gaussian_energy_is_the_gaussian(d, seed, narrow, scale):
    model = random_gaussian(d, seed, narrow, scale)
    x = model.sample(10, generator=generator(seed))
    covariance = np.linalg.inv(model.precision.numpy())
    exact = stats.multivariate_normal(model.mean().numpy(), covariance).logpdf(x.numpy())
    bound = 100 * d**2 * EPS / narrow**2 * (1 + 2 * model.energy(x).max() + abs(math.log(scale)))
    assert np.abs(model.log_prob(x).numpy() - exact).max() <= bound
    assert np.abs(model.covariance().numpy() - covariance).max() <= bound * np.abs(covariance).max()
    entropy = stats.multivariate_normal(model.mean().numpy(), covariance).entropy()
    assert abs(model.entropy() - entropy) <= bound


@pytest.mark.parametrize("preset", PRESETS)
def test_the_score_is_the_gradient(preset):
    model = preset(dtype=torch.float64)
    x = model.sample(10, generator=generator()).requires_grad_()
    (slope,) = torch.autograd.grad(model.log_prob(x).sum(), x)
    assert torch.allclose(model.score(x), slope, rtol=100 * EPS, atol=100 * EPS)
    if isinstance(model, NeuralEnergy):
        hessian = torch.stack(
            [torch.autograd.functional.hessian(lambda u: -model.energy(u[None])[0], row) for row in x.detach()]
        )
        trace = hessian.diagonal(dim1=1, dim2=2).sum(-1)
        assert torch.allclose(model.laplacian(x), trace, rtol=100 * EPS, atol=100 * EPS)


@pytest.mark.parametrize("preset", PRESETS)
def test_conditionals_are_ratios_of_the_joint(preset):
    """log p(x_b | x_a) and log p(x) differ by log p(x_a), which does not depend on x_b."""
    model = preset(dtype=torch.float64)
    x = model.sample(10, generator=generator())
    x[:, 0] = x[0, 0]
    gap = model.log_prob(x) - model.conditional([0], x[0, :1]).log_prob(x[:, 1:])
    assert gap.max() - gap.min() <= 200 * EPS * (1 + model.log_prob(x).abs().max())


def test_log_z_by_another_quadrature():
    plane = energy.two_valleys(dtype=torch.float64)

    def density(y, x):
        return float((-plane.energy(torch.tensor([[x, y]], dtype=torch.float64))).exp())

    # Given x_1 alone the third bump acts: one-dimensional slices, each a conditional with a known log Z.
    total, error = integrate.quad(
        lambda x: integrate.quad(lambda y: density(y, x), -13.5, 13.5, epsabs=1e-7, epsrel=1e-7)[0],
        -13.5,
        13.5,
        epsabs=1e-6,
        epsrel=1e-6,
        limit=100,
    )
    assert abs(float(plane.log_partition().exp()) - total) <= 10 * error + 27 * 1e-7
    line = NeuralEnergy(0.7, plane.weight[:, :1], plane.bias, plane.height)
    total, error = integrate.quad(
        lambda x: float((-line.energy(torch.tensor([[x]], dtype=torch.float64))).exp()), -6.3, 6.3, epsabs=1e-12
    )
    assert abs(float(line.log_partition().exp()) - total) <= 10 * error + 1e-11


def test_a_flat_network_leaves_the_bowl():
    model = NeuralEnergy(1.5, torch.ones(2, 2).double(), torch.zeros(2), torch.zeros(2))
    bowl = Gaussian(torch.zeros(2).double(), 2.25 * torch.eye(2).double())
    x = bowl.sample(10, generator=generator())
    assert torch.allclose(model.log_prob(x), bowl.log_prob(x), rtol=0, atol=1e3 * EPS)  # 160 x 160 nodes


def cdf_along(model, axis):
    """The distribution function of one coordinate of a planar energy, from a fine grid."""
    side = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    log_p = model.log_prob(torch.cartesian_prod(side, side)).reshape(1201, 1201)
    density = log_p.exp().sum(1 - axis) * 0.02  # (1201,)
    ends = torch.cat([torch.zeros(1).double(), (density[1:] + density[:-1]).cumsum(0) * 0.01])
    return lambda t: np.interp(t, side.numpy(), ends.numpy())


def test_draws_and_corrected_langevin_have_the_law():
    model = energy.two_valleys(dtype=torch.float64)
    x = model.sample(5000, generator=generator(1))
    moved = langevin(model, x, step=0.3, steps=5, generator=generator(2))
    assert (moved != x).any(-1).double().mean() > 0.9
    for axis in (0, 1):
        for draws in (x, moved):  # of fixed seeds; one in a thousand would fail here
            assert stats.kstest(draws[:, axis].numpy(), cdf_along(model, axis)).pvalue > 1e-3


def test_langevin_without_correction_is_off_by_the_step():
    """On N(0, 1), x' = (1 - step) x + sqrt(2 step) z settles at the variance 1 / (1 - step / 2)."""
    model = GaussianEnergy(torch.zeros(1).double(), torch.eye(1).double())
    n, step = 20_000, 0.5
    x = torch.zeros(n, 1, dtype=torch.float64)
    for exact, variance in ((False, 1 / (1 - step / 2)), (True, 1.0)):
        moved = langevin(model, x, step=step, steps=60, generator=generator(3), exact=exact)
        assert abs(moved.var() - variance) <= 4.5 * variance * math.sqrt(2 / n)


# Score matching


def test_score_matching_of_a_gaussian_is_maximum_likelihood():
    truth = energy.bowl(dtype=torch.float64)
    x = truth.sample(500, generator=generator(4))
    fitted = GaussianEnergy.fit(x)
    S = torch.cov(x.mT, correction=0)
    assert torch.allclose(fitted.precision @ S, torch.eye(3).double(), rtol=0, atol=1e3 * EPS)
    theta = fitted.parameters().requires_grad_()
    score = fitted.with_parameters(theta).score(x)
    loss = score.square().sum(-1).mean() / 2 - fitted.with_parameters(theta).precision.trace()
    assert torch.autograd.grad(loss, theta)[0].abs().max() <= 1e4 * EPS  # J has no slope left
    theta = fitted.parameters().requires_grad_()
    likelihood = fitted.with_parameters(theta).log_prob(x).mean()
    assert torch.autograd.grad(likelihood, theta)[0].abs().max() <= 1e4 * EPS  # nor has the likelihood


def test_the_loss_is_the_distance_of_scores_up_to_a_constant():
    """J(q) - J(p) = E_p ||score_q - score_p||^2 / 2, by quadrature over p."""
    p = energy.two_valleys(dtype=torch.float64)
    q = p.with_parameters(p.parameters() + 0.2)
    side = torch.linspace(-12, 12, 401, dtype=torch.float64)
    x = torch.cartesian_prod(side, side)
    weight = p.log_prob(x).exp() * 0.06**2

    def loss(model):
        return weight @ (model.laplacian(x) + model.score(x).square().sum(-1) / 2)

    distance = weight @ (q.score(x) - p.score(x)).square().sum(-1) / 2
    assert abs(loss(q) - loss(p) - distance) <= 1e-9  # 401 nodes: the trapezoidal rule is exact to rounding


def test_score_matching_finds_the_valleys():
    truth = energy.two_valleys(dtype=torch.float64)
    x = truth.sample(2000, generator=generator(5))
    start = truth.with_parameters(0.5 * truth.parameters() + 0.1)
    fitted = start.match_score(x, steps=300)
    assert fitted.losses.shape == (300,)
    assert fitted.score_matching(x) <= fitted.losses[0] == start.score_matching(x)
    fresh = truth.sample(2000, generator=generator(6))

    def distance(model):  # on draws that the fit has not seen
        return float((model.score(fresh) - truth.score(fresh)).square().sum(-1).mean() / 2)

    assert distance(fitted) <= distance(start) / 4


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_conform(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert report.passed, report.failures


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: GaussianEnergy(torch.zeros(2), torch.eye(3)), "shapes"),
        (lambda: GaussianEnergy(torch.zeros(2), torch.zeros(2, 2)), "precision"),
        (lambda: NeuralEnergy(0.0, torch.ones(1, 1), torch.ones(1), torch.ones(1)), "positive"),
        (lambda: NeuralEnergy(1.0, torch.ones(1, 1), torch.ones(2), torch.ones(1)), "biases"),
        (lambda: NeuralEnergy(1.0, torch.ones(1, 3), torch.ones(1), torch.ones(1)).log_partition(), "d = 1 or 2"),
        (
            lambda: NeuralEnergy(1.0, torch.ones(1, 1), torch.ones(1), torch.full((1,), 30.0)).sample(
                1, generator=generator()
            ),
            "langevin",
        ),
        (lambda: energy.two_valleys().match_score(torch.full((2, 2), math.nan)), "finite"),
        (lambda: energy.bowl().log_prob(torch.zeros(3)), "shape"),
        (lambda: langevin(energy.bowl(), torch.zeros(1, 3), step=0.0, steps=1, generator=generator()), "step"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
