"""The linear autoencoder against scipy's Gaussians, torch's divergences and numbers worked out by hand."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Generator
from torch.distributions import MultivariateNormal, kl_divergence

from harness import check_model
from reference_impls import vae_linear
from reference_impls.linear_gaussian import FactorAnalysis
from reference_impls.vae_linear import LinearVAE, exact_encoder

EPS = torch.finfo(torch.float64).eps
PRESETS = [vae_linear.exact_posterior, vae_linear.broad_posterior]
SURE = 6.0
"""Standard errors: a normal mean is further off with probability 2e-9."""
examples = settings(derandomize=True, deadline=None, max_examples=25)


def source(seed=0):
    return Generator().manual_seed(seed)


def near(numbers, truth):
    return bool((numbers.mean(0) - truth).abs() <= SURE * numbers.std(0) / math.sqrt(len(numbers)))


def close(a, b, size=1.0):
    """Within the rounding of a few hundred operations on numbers below `size`, amplified by conditions below 1e4."""
    return bool((a - b).abs().max() <= 1e6 * EPS * (size + b.abs().max()))


@st.composite
def models(draw):
    """Up to 5 coordinates of up to 3 latent ones, with noise from 0.1 to 10, and any encoder."""
    d, q = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    random = Generator().manual_seed(draw(st.integers(0, 2**20)))
    normal = [
        torch.randn(*shape, generator=random, dtype=torch.float64)
        for shape in ((d,), (d, q), (d,), (q, d), (q,), (q, q))
    ]
    loc, loading, log_noise, matrix, shift, factor = normal
    factor = factor.tril(-1) + factor.diagonal().exp().diag()
    return LinearVAE(loc, loading, (1.1 * log_noise.clamp(-2, 2)).exp(), matrix / d, shift, factor)


def posterior_of(model, x):
    """p(z | x) by the rule for blocks of a Gaussian, in torch."""
    law = model.law
    joint = law.loading @ law.loading.mT + law.noise.diag()
    gain = torch.linalg.solve(joint, law.loading).mT  # (q, d)
    mean = (x - law.loc) @ gain.mT
    covariance = torch.eye(model.q, dtype=torch.float64) - gain @ law.loading
    return MultivariateNormal(mean, (covariance + covariance.mT) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset, dtype):
    report = check_model(preset(dtype=dtype), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(models())
def test_the_bound_is_the_density_less_a_divergence(model):
    """log p(x) by scipy, KL(q || p(z | x)) by torch, and the bound by its own formula."""
    x = model.sample(4, generator=source())
    law = model.law
    covariance = (law.loading @ law.loading.mT + law.noise.diag()).numpy()
    log_p = torch.from_numpy(stats.multivariate_normal(law.loc.numpy(), covariance).logpdf(x.numpy()).reshape(4))
    q = MultivariateNormal(model.encoder.mean(x), scale_tril=model.encoder.factor)
    gap = kl_divergence(q, posterior_of(model, x))
    assert close(model.log_prob(x), log_p)
    assert close(model.expected_elbo(x), log_p - gap, float(gap.max()))
    assert close(
        model.kl_to_prior(x),
        kl_divergence(q, MultivariateNormal(torch.zeros(model.q).double(), torch.eye(model.q).double())),
    )


@examples
@given(models())
def test_the_exact_encoder_leaves_no_gap(model):
    law = model.law
    parts = (law.loc, law.loading, law.noise)
    exact = LinearVAE(*parts, *exact_encoder(*parts))
    x = model.sample(5, generator=source())
    truth = posterior_of(model, x)
    assert close(exact.encoder.mean(x), truth.mean)
    assert close(exact.encoder.factor @ exact.encoder.factor.mT, truth.covariance_matrix[0])
    assert close(exact.expected_elbo(x), exact.log_prob(x))
    for k in (1, 7):  # every weight is p(x)
        assert close(exact.iwae(x, k, generator=source(k)), exact.log_prob(x))


@examples
@given(models())
def test_the_bound_at_its_own_noise(model):
    x = model.sample(6, generator=source())
    noise = torch.randn(6, model.q, generator=source(1), dtype=torch.float64)
    z = model.encoder.mean(x) + noise @ model.encoder.factor.mT
    q = MultivariateNormal(model.encoder.mean(x), scale_tril=model.encoder.factor)
    decoded = MultivariateNormal(model.law.loc + z @ model.law.loading.mT, model.law.noise.diag())
    truth = decoded.log_prob(x)
    assert close(model.encoder.log_prob(z, given=x), q.log_prob(z))
    assert close(model.likelihood().log_prob(x, given=z), truth)
    assert close(model.elbo(x, generator=source(1)), truth - model.kl_to_prior(x))


def test_the_bound_in_numbers():
    """d = q = 1, mu = 0, W = psi = 1, so that p(x) = N(0, 2) and p(z | x) = N(x / 2, 1 / 2); q = N(0, 1), x = 2."""
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    model = LinearVAE(zero, one, one[0], 0 * one, zero, one)
    x = 2 * one
    assert float(model.log_prob(x)) == pytest.approx(-math.log(4 * math.pi) / 2 - 1, rel=10 * EPS)
    assert float(model.expected_elbo(x)) == pytest.approx(-math.log(2 * math.pi) / 2 - 2.5, rel=10 * EPS)
    gap = (1 + 2 - math.log(2)) / 2  # KL(N(0, 1) || N(1, 1/2)) = (2 + 2 - 1 - log 2) / 2
    assert float(model.log_prob(x) - model.expected_elbo(x)) == pytest.approx(gap, rel=10 * EPS)


@pytest.mark.parametrize("preset", PRESETS)
def test_means_of_bounds_and_of_their_gradients(preset):
    """Against the closed form and its derivatives, by 200 batches."""
    model = preset(dtype=torch.float64)
    x = model.sample(1, generator=source())
    theta = model.parameters().requires_grad_()
    exact = model.with_parameters(theta).expected_elbo(x)
    (slope,) = torch.autograd.grad(exact.sum(), theta)
    values, slopes = [], []
    for seed in range(200):
        value = model.with_parameters(theta).elbo(x.expand(200, -1), generator=source(seed)).mean()
        slopes.append(torch.autograd.grad(value, theta)[0])
        values.append(value.detach())
    assert near(torch.stack(values), exact.detach())
    for column, truth in zip(torch.stack(slopes).T, slope, strict=True):
        assert bool(column.std() == 0) or near(column, truth)


def test_bounds_rise_with_the_number_of_weights():
    model = vae_linear.broad_posterior(dtype=torch.float64)
    x = model.sample(20_000, generator=source())
    log_p = model.log_prob(x)
    gaps = [log_p - model.iwae(x, k, generator=source(k)) for k in (1, 2, 4, 16)]
    assert near(gaps[0], (log_p - model.expected_elbo(x)).mean())
    for low, high in pairwise(gaps):
        assert (low - high).mean() > SURE * (low - high).std() / math.sqrt(len(x))
    assert gaps[-1].mean() > 0


def test_parameters_and_moves():
    model = vae_linear.broad_posterior(dtype=torch.float64)
    again = model.with_parameters(model.parameters())
    x = model.sample(5, generator=source())
    assert close(again.expected_elbo(x), model.expected_elbo(x))
    narrow = vae_linear.exact_posterior(dtype=torch.float64).to(torch.float32)
    assert narrow.posterior_is_exact
    assert narrow.log_prob(x.float()).dtype == torch.float32
    law = FactorAnalysis(model.law.loc, model.law.loading, model.law.noise)
    assert torch.equal(model.log_prob(x), law.log_prob(x))


def test_what_cannot_be_is_refused():
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"matrix of the encoder should be finite, of shape \(1, 1\), not \(1,\)"):
        LinearVAE(zero, one, one[0], zero, zero, one)
    with pytest.raises(ValueError, match="positive diagonal"):
        LinearVAE(zero, one, one[0], one, zero, -one)
    model = LinearVAE(zero, one, one[0], one, zero, one)
    with pytest.raises(ValueError, match=r"theta should have shape \(6,\), not \(5,\)"):
        model.with_parameters(torch.zeros(5))
    with pytest.raises(ValueError, match=r"x should be events of shape \(n, 1\)"):
        model.elbo(torch.zeros(3, 2), generator=source())
