"""Probabilistic PCA and factor analysis (M12) against the full Gaussian, scikit-learn and themselves by EM."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import harness
from reference_impls import linear_gaussian
from reference_impls.gaussian import Gaussian
from reference_impls.linear_gaussian import (
    FactorAnalysis,
    ProbabilisticPCA,
    factor_analysis,
    parameter_count,
    probabilistic_pca,
    probabilistic_pca_by_em,
)

EPS = torch.finfo(torch.float64).eps
PRESETS = (linear_gaussian.one_factor, linear_gaussian.plane_in_noise)
examples = settings(derandomize=True, deadline=None, max_examples=15)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def models(draw, lowest=-6):
    """Up to 6 coordinates, 3 factors, any scale from 1e-8 to 1e8, noise down to 10^lowest of the signal."""
    d, q = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    scale = 10.0 ** draw(st.sampled_from([-8, 0, 8]))
    numbers = torch.randn(d, q + 2, generator=generator(draw(st.integers(0, 10**6))), dtype=torch.float64)
    noise = 10 ** draw(st.floats(lowest, 1)) * (0.5 + numbers[:, -1].abs())
    return FactorAnalysis(scale * numbers[:, -2], scale * numbers[:, :q], scale**2 * noise)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_conform(preset):
    assert not harness.check_model(preset(), effort="quick", seed=0).failures


@examples
@given(models())
def test_the_law_of_x_is_the_gaussian_with_covariance_wwt_plus_psi(model):
    full = Gaussian(model.loc, model.covariance())
    x = model.sample(5, generator=generator())
    deviation = model.variance().sqrt()
    condition = torch.linalg.cond(full.cholesky / deviation[:, None]) ** 2
    size = 1 + full.squared_mahalanobis(x) + full.cholesky.diagonal().log().abs().sum()
    tolerance = 100 * (model.d + model.q) ** 2 * EPS * condition * (1 + (model.loc / deviation).abs().max())
    assert (abs(model.log_prob(x) - full.log_prob(x)) <= tolerance * size).all()
    assert (abs(model.gaussian().log_prob(x) - full.log_prob(x)) <= tolerance * size).all()


@examples
@given(models(lowest=-3))
def test_posterior_is_the_conditional_of_the_joint_law(model):
    """(z, x) is Gaussian with blocks I, W^T and W W^T + Psi; p(z | x) is its conditional."""
    q = model.q
    identity = torch.eye(q, dtype=torch.float64)
    joint = torch.cat([torch.cat([identity, model.loading.mT], 1), torch.cat([model.loading, model.covariance()], 1)])
    oracle = Gaussian(torch.cat([model.loc.new_zeros(q), model.loc]), joint)
    x = model.sample(1, generator=generator())
    given_x, posterior = oracle.conditional(range(q, q + model.d), x[0]), model.infer(x[0])
    deviation = oracle.variance().sqrt()
    condition = (torch.linalg.cond(oracle.cholesky / deviation[:, None]) ** 2).item()
    tolerance = 100 * (model.d + q) ** 2 * EPS * condition * (1 + (x[0] / deviation[q:]).abs().max().item())
    assert torch.allclose(posterior.mean(), given_x.mean(), rtol=0, atol=tolerance)
    assert torch.allclose(posterior.covariance(), given_x.covariance(), rtol=0, atol=tolerance)
    assert torch.allclose(model.posterior_covariance(), given_x.covariance(), rtol=0, atol=tolerance)
    # Bayes' rule at any z: log p(x) = log p(z) + log p(x | z) - log p(z | x).
    z = posterior.sample(1, generator=generator(1))
    bayes = model.prior().log_prob(z) + model.likelihood(z[0]).log_prob(x) - posterior.log_prob(z)
    size = 1 + abs(model.log_prob(x)) + (z.square().sum() + model.noise.log().abs().sum())
    assert abs(bayes - model.log_prob(x)) <= tolerance * size * model.d * 10


def test_pairs_have_the_law_that_they_should():
    model = linear_gaussian.plane_in_noise(dtype=torch.float64)
    z, x = model.sample_joint(20_000, generator=generator(1))
    white = model.gaussian().whiten(x)
    rest = (z - model.posterior_mean(x)) @ torch.linalg.inv(torch.linalg.cholesky(model.posterior_covariance())).mT
    columns = [*white.mT, *rest.mT, *z.mT]
    # The seed is fixed; of all seeds, one in a thousand would fail here.
    assert all(stats.kstest(column.numpy(), "norm").pvalue > 1e-3 / len(columns) for column in columns)
    information = model.gaussian().entropy() - torch.log(2 * math.pi * math.e * model.noise).sum() / 2
    assert abs(model.latent_information() - information) <= 100 * EPS * model.d


@pytest.mark.parametrize("preset", PRESETS)
def test_marginals_and_conditionals_stay_in_the_family(preset):
    model = preset(dtype=torch.float64)
    full, a = model.gaussian(), [3, 0]
    x = model.sample(1, generator=generator())[0]
    tolerance = 1e3 * EPS * torch.linalg.cond(full.covariance()).item()
    assert torch.allclose(model.marginal(a).covariance(), full.marginal(a).covariance(), rtol=0, atol=tolerance)
    ours, theirs = model.conditional(a, x[a]), full.conditional(a, x[a])
    assert torch.allclose(ours.mean(), theirs.mean(), rtol=0, atol=tolerance)
    assert torch.allclose(ours.covariance(), theirs.covariance(), rtol=0, atol=tolerance)


# Estimation


def test_closed_form_and_em_of_probabilistic_pca_meet_and_em_never_falls():
    plane = linear_gaussian.plane_in_noise(dtype=torch.float64)
    x = ProbabilisticPCA(plane.loc, plane.loading, 0.5).sample(300, generator=generator())  # EM is slow without noise
    closed, climbed = probabilistic_pca(x, 2), probabilistic_pca_by_em(x, 2, generator=generator(1), tolerance=1e-13)
    rounding = 1e3 * len(x) * EPS * (1 + climbed.history.abs().max() / len(x))
    assert (climbed.history.diff() >= -rounding).all()
    assert abs(climbed.history[-1] - climbed.log_prob(x).sum()) <= rounding * 10
    assert climbed.log_prob(x).sum() <= closed.log_prob(x).sum() + rounding
    # EM stops at a gain of 1e-13 nats a row; a likelihood that near its top is within about its root of the estimate.
    assert closed.kl(climbed) <= 1e-7
    covariance = torch.cov(x.mT, correction=0)
    discarded = torch.linalg.eigvalsh(covariance)[:-2]
    assert abs(closed.noise[0] / discarded.mean() - 1) <= 1e4 * EPS * covariance.trace() / discarded.min()


def test_probabilistic_pca_agrees_with_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = linear_gaussian.plane_in_noise(dtype=torch.float64).sample(200, generator=generator())
    oracle = decomposition.PCA(2, svd_solver="full").fit(x.numpy())
    n = len(x)
    ours = probabilistic_pca(x, 2)
    # scikit-learn divides by N - 1, so that its law is ours with all variances larger by N / (N - 1).
    wider = ProbabilisticPCA(ours.loc, ours.loading * math.sqrt(n / (n - 1)), ours.noise[0] * n / (n - 1))
    assert abs(wider.log_prob(x).mean() - oracle.score(x.numpy())) <= 1e5 * EPS
    assert ours.log_prob(x).mean() > oracle.score(x.numpy())


def test_factor_analysis_is_at_least_as_likely_as_scikit_learns_and_its_score_is_zero():
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = linear_gaussian.one_factor(dtype=torch.float64).sample(400, generator=generator())
    oracle = decomposition.FactorAnalysis(1, tol=1e-12, max_iter=20_000, svd_method="lapack").fit(x.numpy())
    ours = factor_analysis(x, 1)
    rounding = 1e4 * len(x) * EPS * (1 + ours.history.abs().max() / len(x))
    assert (ours.history.diff() >= -rounding).all()
    assert abs(ours.history[-1] - ours.log_prob(x).sum()) <= rounding
    # EM stops when a step gains 1e-12 nats a row; what is left after it is a few hundred times that at most.
    assert abs(ours.log_prob(x).mean() - oracle.score(x.numpy())) <= 1e-9
    theta = ours.parameters().requires_grad_()
    (slope,) = torch.autograd.grad(ours.with_parameters(theta).log_prob(x).mean(), theta)
    assert slope.abs().max() <= 1e-5  # about the root of 1e-12
    units = torch.logspace(-8, 8, 5, dtype=torch.float64)
    assert torch.allclose(factor_analysis(x * units, 1).noise, ours.noise * units**2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_as_many_as_the_law_has_and_give_it_back(preset):
    model = preset(dtype=torch.float64)
    theta = model.parameters()
    own = not isinstance(model, ProbabilisticPCA)
    assert len(theta) == parameter_count(model.d, model.q, own_noise=own)
    assert model.with_parameters(theta).kl(model) <= (1e4 * EPS) ** 2
    assert type(model.with_parameters(theta)) is type(model)
    x = model.sample(3, generator=generator())
    assert torch.autograd.gradcheck(lambda t: model.with_parameters(t).log_prob(x), theta.clone().requires_grad_())
    # No direction is idle: the Fisher information, the covariance of the slopes, has full rank.
    x = model.sample(200, generator=generator(1))
    slopes = torch.autograd.functional.jacobian(lambda t: model.with_parameters(t).log_prob(x), theta)
    assert torch.linalg.matrix_rank(slopes) == len(theta)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: FactorAnalysis([0.0, 0.0], torch.ones(3, 1), [1.0, 1.0]), "loading"),
        (lambda: FactorAnalysis([0.0, 0.0], torch.ones(2, 0), [1.0, 1.0]), "DiagonalGaussian"),
        (lambda: FactorAnalysis([0.0, 0.0], torch.ones(2, 1), [1.0]), "noise"),
        (lambda: FactorAnalysis([0.0, 0.0], torch.ones(2, 1), [1.0, 0.0]), "positive"),
        (lambda: ProbabilisticPCA([0.0, 0.0], torch.ones(2, 1), torch.ones(2)), "FactorAnalysis"),
        (lambda: probabilistic_pca(torch.randn(9, 3, generator=generator()), 3), "q should be"),
        (lambda: probabilistic_pca(torch.randn(3, 5, generator=generator()), 3), "leaves no noise"),
        (lambda: probabilistic_pca(torch.ones(1, 3), 1), "constant"),
        (lambda: factor_analysis(torch.tensor([[0.0, math.nan]]), 1), "NaN"),
        (lambda: factor_analysis(torch.randn(5, 5, generator=generator()), 1, iterations=300), "creeps to 0"),
        (lambda: linear_gaussian.one_factor().log_prob(torch.zeros(2)), "shape"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()


def test_a_fit_that_stops_early_for_want_of_steps_is_no_creeping_noise():
    x = linear_gaussian.one_factor(dtype=torch.float64).sample(500, generator=generator())
    assert len(factor_analysis(x, 1, iterations=3).history) == 4
