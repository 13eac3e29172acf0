"""Variational autoencoders against torch's distributions, quadrature of scipy and numpy, and known variances."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Generator
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from harness import check_model
from reference_impls import vae
from reference_impls.expectation_gradients import (
    kl_to_standard_normal,
    log_normal,
    reparameterised,
    score_function,
)
from reference_impls.training import train
from reference_impls.vae import VAE, BernoulliDecoder, Encoder, mlp

EPS = torch.finfo(torch.float64).eps
PRESETS = [vae.six_pixels, vae.bent_line, vae.nine_pixels, vae.labelled_pixels]
SURE = 6.0
"""Standard errors: a normal mean is further off with probability 2e-9."""
TOLERANCE = 1e4 * EPS
"""Log-densities below 100 of a few hundred operations in float64, each off by EPS."""


def source(seed=0):
    return Generator().manual_seed(seed)


def events(model, n, seed=1):
    return model.sample(n, generator=source(seed))


def close(a, b, tolerance=TOLERANCE):
    return bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))


def near(numbers, truth):
    """Is the mean of independent numbers (n,) the truth, as far as they tell?"""
    return bool((numbers.mean(0) - truth).abs() <= SURE * numbers.std(0) / math.sqrt(len(numbers)))


@pytest.fixture(scope="module")
def pixels():
    return vae.six_pixels(dtype=torch.float64)


@pytest.fixture(scope="module")
def line():
    return vae.bent_line(dtype=torch.float64)


@pytest.mark.parametrize(
    ("preset", "dtype"),
    [*((preset, torch.float32) for preset in PRESETS), *((preset, torch.float64) for preset in PRESETS[2:])],
)
def test_conforms(preset, dtype):
    report = check_model(preset(dtype=dtype), effort="quick", seed=0)
    assert not report.failures, report.failures


# The density


def test_the_density_of_pixels_sums_to_one(pixels):
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 6)
    assert close(pixels.log_prob(states).exp().sum(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("name", ["pixels", "line"])
def test_the_density_by_adaptive_quadrature(name, request):
    model = request.getfixturevalue(name)
    for x in events(model, 4):

        def joint(z, x=x):
            z = torch.tensor([[z]], dtype=torch.float64)
            with torch.no_grad():
                value = model.prior().log_prob(z) + model.likelihood().log_prob(x[None], given=z)
            return float(value.exp())

        truth, error = integrate.quad(joint, -12, 12, points=[-2, 0, 2], limit=400, epsabs=0, epsrel=1e-11)
        assert abs(float(model.log_prob(x[None]).detach().exp()) - truth) <= error + 1e-11 * truth


def test_the_decoder_is_of_bits_alone(pixels):
    z = torch.zeros(3, 1, dtype=torch.float64)
    x = torch.tensor([[0.0] * 6, [0.5] * 6, [0.0] * 5 + [math.nan]], dtype=torch.float64)
    log_p = pixels.likelihood().log_prob(x, given=z)
    assert log_p[0].isfinite()
    assert log_p[1:].tolist() == [-math.inf, -math.inf]
    assert pixels.log_prob(x)[1] == -math.inf


# The bounds


@pytest.mark.parametrize("name", ["pixels", "line"])
def test_the_bound_term_by_term(name, request):
    """With the noise that the generator holds, in torch's distributions."""
    model = request.getfixturevalue(name)
    x = events(model, 50)
    with torch.no_grad():
        said = model.elbo(x, generator=source(3))
        mean, log_std = model.encoder.moments(x, x.new_zeros(50, 0))
        q, prior = Independent(Normal(mean, log_std.exp()), 1), Independent(Normal(0 * mean, 1.0), 1)
        z = mean + log_std.exp() * torch.randn(50, 1, generator=source(3), dtype=torch.float64)
        if name == "pixels":
            assert model.analytic
            p = Independent(Bernoulli(logits=model.decoder.network(z)), 1)
            truth = p.log_prob(x) - kl_divergence(q.base_dist, prior.base_dist).sum(-1)
        else:
            assert not model.analytic
            p = Independent(Normal(model.decoder.network(z), model.decoder.log_std.exp()), 1)
            truth = p.log_prob(x) + prior.log_prob(z) - q.log_prob(z)
    assert close(said, truth)


def test_the_laws_are_those_of_torch():
    mean, log_std = torch.randn(2, 20, 3, generator=source(), dtype=torch.float64)
    x = torch.randn(20, 3, generator=source(1), dtype=torch.float64)
    q = Normal(mean, log_std.exp())
    assert close(log_normal(x, mean, log_std), q.log_prob(x).sum(-1))
    assert close(kl_to_standard_normal(mean, log_std), kl_divergence(q, Normal(0.0 * mean, 1.0)).sum(-1))


@pytest.mark.parametrize("name", ["pixels", "line"])
def test_the_gap_is_the_divergence_from_the_posterior(name, request):
    """Both by Gauss-Hermite quadrature, exact for the encoder's Gaussian times a polynomial of degree 255."""
    model = request.getfixturevalue(name)
    x = events(model, 3)
    nodes, weights = (torch.from_numpy(t) for t in np.polynomial.hermite_e.hermegauss(128))
    weights = weights / weights.sum()
    with torch.no_grad():
        mean, log_std = model.encoder.moments(x, x.new_zeros(3, 0))
        for row, m, s, log_p in zip(x, mean, log_std, model.log_prob(x), strict=True):
            z = (m + s.exp() * nodes)[:, None]
            log_joint = model.prior().log_prob(z) + model.likelihood().log_prob(row.expand(128, -1), given=z)
            log_q = model.posterior().log_prob(z, given=row.expand(128, -1))
            bound, divergence = weights @ (log_joint - log_q), weights @ (log_q - (log_joint - log_p))
            assert close(log_p - bound, divergence, 1e-9)
            drawn = model.elbo(row.expand(20_000, -1), generator=source(4))
            assert near(drawn, bound)
            assert divergence > 0


def test_one_weight_is_the_bound_with_its_divergence_drawn(line):
    x = events(line, 40)
    assert close(line.iwae(x, 1, generator=source(5)), line.elbo(x, generator=source(5)))


@pytest.mark.parametrize("name", ["pixels", "line"])
def test_many_weights_reach_the_density(name, request):
    """w is unbiased for p(x): of k weights, log mean w is off by about sd(w) / (p sqrt k)."""
    model, k = request.getfixturevalue(name), 40_000
    x = events(model, 3)
    with torch.no_grad():
        for row, log_p in zip(x, model.log_prob(x), strict=True):
            w = (model.iwae(row.expand(k, -1), 1, generator=source(6)) - log_p).exp()
            assert near(w, 1.0)
        bound = model.iwae(x, k, generator=source(7))
        assert bool(((bound - model.log_prob(x)).abs() <= SURE * float(w.std()) / math.sqrt(k) * 4).all())


def test_a_bound_of_many_draws_takes_few_pairs_at_a_time(pixels, monkeypatch):
    monkeypatch.setattr(vae, "ROWS", 64)
    seen = []
    decode = pixels.decoder.log_density
    monkeypatch.setattr(pixels.decoder, "log_density", lambda x, odds: seen.append(len(x)) or decode(x, odds))
    x = events(pixels, 150)
    with torch.no_grad():
        bound = pixels.iwae(x, 1000, generator=source())
    assert bound.shape == (150,)
    assert max(seen) <= 64
    assert sum(seen) == 150 * 1000


def test_beta_weighs_the_divergence_in_the_loss_alone():
    encoder, decoder = Encoder(mlp((4, 5, 2), seed=0), 1), BernoulliDecoder(mlp((1, 5, 4), seed=1))
    losses = {beta: VAE(encoder, decoder, 4, beta=beta) for beta in (0.0, 1.0, 4.0)}
    x = (torch.rand(20, 4, generator=source()) < 0.5).float()
    with torch.no_grad():
        value = {beta: float(model.loss(x, generator=source(1))) for beta, model in losses.items()}
        divergence = float(kl_to_standard_normal(*encoder.moments(x, x[:, :0])).mean())
        bounds = [float(model.elbo(x, generator=source(1)).mean()) for model in losses.values()]
    unit = 100 * torch.finfo(torch.float32).eps
    assert value[4.0] - value[0.0] == pytest.approx(4 * divergence, rel=unit)
    assert bounds[0] == bounds[1] == bounds[2] == -value[1.0]


# Gradients


@pytest.mark.parametrize("mu", [0.0, 1.0, -2.0])
def test_two_gradients_of_the_mean_of_a_square(mu):
    """z ~ N(mu, 1), f = z^2: both means are 2 mu, with variances 4 and mu^4 + 14 mu^2 + 15."""
    n = 200_000
    mean = torch.full((n, 1), mu, dtype=torch.float64, requires_grad=True)
    log_std = torch.zeros(n, 1, dtype=torch.float64)
    z = reparameterised(mean, log_std, generator=source())
    (by_path,) = torch.autograd.grad(z.square().sum(), mean)
    z = z.detach()
    values = score_function(z.square()[:, 0], log_normal(z, mean, log_std))
    assert torch.equal(values.detach(), z.square()[:, 0])
    (by_score,) = torch.autograd.grad(values.sum(), mean)
    for gradient, variance in ((by_path[:, 0], 4.0), (by_score[:, 0], mu**4 + 14 * mu**2 + 15)):
        assert near(gradient, 2 * mu)
        assert near((gradient - 2 * mu).square(), variance)


def test_both_estimators_have_the_gradient_of_the_bound(line):
    """That of the ELBO by Gauss-Hermite quadrature, with respect to a bias of the encoder and one of the decoder."""
    x = events(line, 1)
    nodes, weights = (torch.from_numpy(t) for t in np.polynomial.hermite_e.hermegauss(64))
    parameters = [line.encoder.network[-1].bias, line.decoder.network[-1].bias]
    mean, log_std = line.encoder.moments(x, x.new_zeros(1, 0))
    z = mean + log_std.exp() * nodes[:, None]
    rows = x.expand(64, -1)
    log_w = line.prior().log_prob(z) + line.likelihood().log_prob(rows, given=z)
    log_w = log_w - line.posterior().log_prob(z, given=rows)
    truth = torch.cat(torch.autograd.grad((weights / weights.sum()) @ log_w, parameters))
    for estimator in ("reparameterisation", "score function"):
        for analytic in (True, False):
            model = VAE(line.encoder, line.decoder, 2, analytic=analytic, estimator=estimator)
            batches = []
            for seed in range(100):
                value = model.elbo(x.expand(400, -1), generator=source(seed)).mean()
                batches.append(torch.cat(torch.autograd.grad(value, parameters)))
            for column, exact in zip(torch.stack(batches).T, truth, strict=True):
                assert near(column, exact), (estimator, analytic)


def test_draws_have_no_graph_and_training_lowers_the_loss():
    model = VAE(Encoder(mlp((6, 8, 2), seed=0), 1), BernoulliDecoder(mlp((1, 8, 6), seed=1)), 6)
    assert not model.sample(3, generator=source()).requires_grad
    assert not model.posterior().sample(3, given=torch.zeros(3, 6), generator=source()).requires_grad
    x = events(vae.labelled_pixels(), 1000)
    losses = train(model, model.loss, x, steps=150, batch=100, rate=1e-2)
    assert losses[-20:].mean() < losses[:20].mean() - 3 * losses[:20].std() / math.sqrt(20)


# Labels


def test_labels_are_latent_variables_that_are_told():
    model, n = vae.labelled_pixels(dtype=torch.float64), 50_000
    x = events(model, n)
    y = torch.randint(3, (n,), generator=source(2))
    with torch.no_grad():
        told, drawn = model.elbo(x, given=y, generator=source(3)), model.elbo(x, generator=source(4))
    difference = told - drawn  # a uniform label of one's own, or one of the generator's
    assert near(difference, 0.0)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 6)
    with torch.no_grad():
        k = 2000
        mixture = model.iwae(states, 3 * k, generator=source(5)).exp()
        each = [model.iwae(states, k, given=torch.full((64,), y), generator=source(6 + y)).exp() for y in range(3)]
    # Each p(x | y) and their mean are mean weights; those are off by SURE standard errors, of weights within 30 p(x).
    assert close(torch.stack(each).mean(0), mixture, SURE * 30 / math.sqrt(k))
    assert abs(float(mixture.sum()) - 1) <= SURE * 30 / math.sqrt(64 * k)


def test_a_label_chooses_the_events():
    model = vae.labelled_pixels(dtype=torch.float64)
    for y in range(3):
        given = torch.full((20_000,), y)
        x = model.sample(20_000, given=given, generator=source(y))
        z = torch.linspace(-9, 9, 289, dtype=torch.float64)[:, None]
        code = torch.nn.functional.one_hot(torch.full((289,), y), 3).double()
        weight = (-z[:, 0].square() / 2).softmax(0)
        with torch.no_grad():
            chance = weight @ model.decoder.network(torch.cat([z, code], 1)).sigmoid()
        assert all(near(x[:, j], chance[j]) for j in range(6))


# Bad input


def test_what_cannot_be_is_refused(pixels):
    with pytest.raises(ValueError, match=r"x should be events of shape \(n, 6\), not \(3, 5\)"):
        pixels.elbo(torch.zeros(3, 5), generator=source())
    with pytest.raises(ValueError, match="k = 0"):
        pixels.iwae(torch.zeros(3, 6), 0, generator=source())
    with pytest.raises(ValueError, match="beta = -1"):
        VAE(pixels.encoder, pixels.decoder, 6, beta=-1)
    with pytest.raises(ValueError, match="estimator = 'pathwise'"):
        VAE(pixels.encoder, pixels.decoder, 6, estimator="pathwise")
    model = vae.labelled_pixels()
    with pytest.raises(ValueError, match="labels outside of 0 to 2"):
        model.sample(2, given=torch.tensor([0, 3]), generator=source())
    with pytest.raises(ValueError, match="2 integers"):
        model.elbo(torch.zeros(2, 6), given=torch.zeros(2), generator=source())
    two = vae.QuadratureVAE(Encoder(mlp((6, 4), seed=0), 2), BernoulliDecoder(mlp((2, 6), seed=1)), 6)
    with pytest.raises(ValueError, match="use iwae instead"):
        two.log_prob(torch.zeros(2, 6))


def test_no_rows_and_numbers_of_another_type(pixels):
    empty = torch.zeros(0, 6)
    assert pixels.elbo(empty, generator=source()).shape == pixels.log_prob(empty).shape == (0,)
    assert pixels.iwae(empty, 3, generator=source()).shape == (0,)
    x = events(pixels, 5)
    assert torch.equal(pixels.log_prob(x.long()), pixels.log_prob(x))


def test_the_full_model_has_the_size_of_the_paper():
    model = vae.full_mnist()
    x = (torch.rand(3, 784, generator=source()) < 0.5).float()
    with torch.no_grad():
        assert bool(model.elbo(x, generator=source()).isfinite().all())
    assert model.sample(2, generator=source()).shape == (2, 784)
    assert model.first.latent == 50


def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    vae.six_pixels()
    vae.full_mnist()
    assert torch.equal(state, torch.random.get_rng_state())
