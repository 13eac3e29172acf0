"""Gaussian mixtures of every kind against scipy, scikit-learn, quadrature, and the laws of EM."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from harness import check_model
from reference_impls import mixture
from reference_impls.gaussian import DiagonalGaussian, Gaussian
from reference_impls.gaussian_factors import CHUNK
from reference_impls.mixture import KINDS, GaussianMixture, expectation_maximisation, fit_mixture

PRESETS = (
    mixture.three_modes,
    mixture.old_faithful_like,
    mixture.tied_modes,
    mixture.diagonal_modes,
    mixture.round_modes,
)
EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=20)
seeds = st.integers(0, 10**6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_mixture(kind, d, k, seed, scale=1.0, narrow=1.0):
    """k components; `narrow` is the smallest deviation of a component, beside 1 for the others."""
    g = generator(seed)
    weights = torch.randn(k, generator=g, dtype=torch.float64).softmax(0)
    means = scale * 2 * torch.randn(k, d, generator=g, dtype=torch.float64)
    sizes = torch.ones(d, dtype=torch.float64)
    sizes[-1] = narrow
    parts = []
    for mean in means:
        axes = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q
        if kind in ("full", "tied"):
            covariance = scale**2 * (axes * sizes.square()) @ axes.mT
            parts.append(Gaussian(mean, (covariance + covariance.mT) / 2))
        else:
            spread = torch.rand(d, generator=g, dtype=torch.float64) + 0.5
            spread = spread[:1].expand(d) if kind == "spherical" else spread * sizes
            parts.append(DiagonalGaussian(mean, (scale * spread).square()))
    if kind == "tied":
        parts = [Gaussian(mean, cholesky=parts[0].cholesky) for mean in means]
    return GaussianMixture(weights, parts, kind)


def by_scipy(model, x):
    parts = [
        math.log(w) + stats.multivariate_normal(c.mean().numpy(), c.covariance().numpy()).logpdf(x.numpy())
        for w, c in zip(model.weights.tolist(), model.components, strict=True)
    ]
    return torch.from_numpy(logsumexp(np.atleast_2d(np.stack(parts, -1)), axis=-1))


def rounding(model, x):
    """A term of ||L^-1 (x - mu)||^2 is off by d eps cond(L)^2 of the sum, in scipy's route through Sigma; x d terms."""
    condition = max(float(torch.linalg.cond(c.cholesky)) for c in model.components)
    size = max(float(c.mahalanobis(x).square().max()) for c in model.components)
    return 10 * model.d**2 * EPS * condition**2 * (1 + size)


@examples
@given(st.sampled_from(KINDS), st.integers(1, 4), st.integers(1, 4), seeds)
def test_log_prob_is_scipys(kind, d, k, seed):
    model = random_mixture(kind, d, k, seed)
    x = model.sample(20, generator=generator(seed))
    assert ((model.log_prob(x) - by_scipy(model, x)).abs() <= rounding(model, x)).all()


@pytest.mark.parametrize("kind", ["full", "tied", "diagonal"])
def test_log_prob_near_a_singular_covariance(kind):
    model = random_mixture(kind, 3, 2, seed=1, narrow=1e-4)
    x = model.sample(20, generator=generator())
    assert ((model.log_prob(x) - by_scipy(model, x)).abs() <= rounding(model, x)).all()


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("kind", KINDS)
def test_units_only_shift_the_density(kind, scale):
    here, there = (random_mixture(kind, 2, 3, seed=5, scale=s) for s in (1.0, scale))
    x = here.sample(300, generator=generator())
    shift = 2 * math.log(scale)
    assert ((there.log_prob(scale * x) + shift - here.log_prob(x)).abs() <= 2 * rounding(here, x) + 100 * EPS).all()
    fits = [fit_mixture(y, 3, kind=kind, generator=generator(2), restarts=2, iterations=20) for y in (x, scale * x)]
    gap = fits[1].log_prob(scale * x).sum() + 300 * shift - fits[0].log_prob(x).sum()
    assert abs(gap) <= 300 * 1e-9  # the same steps in other units


@examples
@given(st.sampled_from(KINDS), st.integers(2, 4), st.integers(1, 3), seeds, st.data())
def test_product_rule_and_kind(kind, d, k, seed, data):
    model = random_mixture(kind, d, k, seed)
    a = data.draw(st.permutations(range(d)))[: data.draw(st.integers(1, d - 1))]
    b = [i for i in range(d) if i not in a]
    x = model.sample(1, generator=generator(seed))
    marginal, conditional = model.marginal(a), model.conditional(a, x[0, a])
    assert marginal.kind == conditional.kind == kind
    parts = marginal.log_prob(x[:, a]) + conditional.log_prob(x[:, b])
    assert ((parts - model.log_prob(x)).abs() <= 10 * rounding(model, x)).all()


def test_marginal_is_the_integral_of_the_joint():
    model = mixture.tied_modes(dtype=torch.float64)
    side = torch.linspace(-15, 15, 3001, dtype=torch.float64)  # the trapezoidal rule is exact to rounding here
    for at in (-2.0, 0.3, 1.9):
        joint = model.log_prob(torch.stack([torch.full_like(side, at), side], dim=-1)).exp().sum() * 0.01
        alone = model.marginal([0]).log_prob(torch.tensor([[at]], dtype=torch.float64)).exp()
        assert abs(joint - alone) <= 3001 * EPS


@examples
@given(st.sampled_from(KINDS), st.integers(1, 3), st.integers(1, 3), seeds)
def test_parameters_are_free_and_complete(kind, d, k, seed):
    model = random_mixture(kind, d, k, seed)
    scales = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diagonal": k * d, "spherical": k}
    theta = model.parameters()
    assert theta.shape == (k - 1 + k * d + scales[kind],)
    x = model.sample(5, generator=generator(seed))
    again = model.with_parameters(theta)
    assert again.kind == kind
    assert ((again.log_prob(x) - model.log_prob(x)).abs() <= rounding(model, x)).all()
    moved = theta + torch.randn(len(theta), generator=generator(seed), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: model.with_parameters(t).log_prob(x), moved.requires_grad_())


# Estimation


@examples
@given(st.sampled_from(KINDS), st.integers(1, 3), st.integers(1, 4), seeds)
def test_em_never_loses_likelihood(kind, d, k, seed):
    """Also where the floor binds: the draws stand in few places, so that components collapse onto them."""
    x = random_mixture(kind, d, k, seed).sample(60, generator=generator(seed))
    x = x.mul(2 if seed % 2 else 10).round().div(2)
    start = mixture.kmeans_plus_plus(x, k, kind=kind, generator=generator(seed))
    fitted, history = expectation_maximisation(start, x, iterations=50)
    # The first step may lift a start that lies below the floor. Each total adds n terms of its own size.
    assert (history.diff()[1:] >= -60 * EPS * history.abs().max()).all()
    assert abs(history[-1] - fitted.log_prob(x).sum()) <= 60 * 1e4 * EPS * history.abs().max()
    assert torch.equal(fitted.history, history)


@pytest.mark.parametrize("kind", KINDS)
def test_em_takes_the_steps_of_scikit_learn(kind):
    skmixture = pytest.importorskip("sklearn.mixture", reason="scikit-learn is not installed")
    start = random_mixture(kind, 3, 3, seed=5)
    x = random_mixture(kind, 3, 3, seed=6).sample(400, generator=generator())
    _, history = expectation_maximisation(start, x, tolerance=0, iterations=20)
    inverse = torch.stack([torch.linalg.inv(c.covariance()) for c in start.components])
    precisions = {
        "full": inverse,
        "tied": inverse[0],
        "diagonal": inverse.diagonal(dim1=1, dim2=2),
        "spherical": inverse[:, 0, 0],
    }[kind]
    theirs = skmixture.GaussianMixture(
        3,
        covariance_type={"diagonal": "diag"}.get(kind, kind),
        tol=0,
        reg_covar=0,
        max_iter=20,
        init_params="random_from_data",
        random_state=0,
        weights_init=start.weights.numpy(),
        means_init=torch.stack([c.mean() for c in start.components]).numpy(),
        precisions_init=precisions.numpy(),
    )
    with warnings.catch_warnings(action="ignore"):  # it says that 20 steps are few
        theirs.fit(x.numpy())
    # The same 20 steps from the same start; each rounds by n d eps of a mean log-likelihood, and contracts.
    assert abs(history[-1] / len(x) - theirs.score(x.numpy())) <= 20 * 400 * 3 * EPS


@pytest.mark.parametrize("kind", KINDS)
def test_no_slope_is_left_at_the_estimate(kind):
    truth = random_mixture(kind, 2, 2, seed=7)
    x = truth.sample(500, generator=generator(1))
    fitted = truth.fit(x, tolerance=1e-13)
    assert fitted.kind == kind
    assert fitted.log_prob(x).sum() >= truth.log_prob(x).sum()
    theta = fitted.parameters().requires_grad_()
    (slope,) = torch.autograd.grad(fitted.with_parameters(theta).log_prob(x).mean(), theta)
    assert slope.abs().max() <= 100 * math.sqrt(1e-13)  # near the top a gain is the square of a slope


@pytest.mark.parametrize("kind", KINDS)
def test_no_component_falls_below_the_floor(kind):
    cloud = torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    x = torch.cat([cloud, torch.full((5, 2), 30.0).double()])  # five equal draws, on which a component collapses
    start = mixture.kmeans_plus_plus(x, 2, kind=kind, generator=generator())
    model, _ = expectation_maximisation(start, x, floor=1e-2)
    whole = Gaussian.fit(x).covariance()
    if kind == "diagonal":
        whole = whole.diagonal().diag()
    elif kind == "spherical":
        whole = whole.diagonal().mean() * torch.eye(2).double()
    ratios = [torch.linalg.eigvals(torch.linalg.solve(whole, c.covariance())).real.min() for c in model.components]
    assert min(ratios) >= 1e-2 * (1 - 1e-9)
    if kind != "tied":
        assert min(ratios) == pytest.approx(1e-2, rel=1e-9)  # it binds


@pytest.mark.parametrize("kind", KINDS)
def test_one_component_has_a_closed_form(kind):
    x = random_mixture(kind, 3, 2, seed=3).sample(100, generator=generator())
    fitted = fit_mixture(x, 1, kind=kind, generator=generator())
    covariance = torch.cov(x.mT, correction=0)
    if kind == "diagonal":
        covariance = covariance.diagonal().diag()
    elif kind == "spherical":
        covariance = covariance.diagonal().mean() * torch.eye(3).double()
    assert torch.allclose(fitted.mean(), x.mean(0), rtol=0, atol=1e4 * EPS)
    assert torch.allclose(fitted.covariance(), covariance, rtol=1e4 * EPS, atol=1e4 * EPS)


def test_old_faithful(old_faithful):
    x = old_faithful
    one, two = (fit_mixture(x, k, generator=generator()) for k in (1, 2))
    assert abs(one.log_prob(x).sum() + 1289.796745) <= 1e-6  # the digits that are known
    assert abs(two.log_prob(x).sum() + 1130.263960) <= 1e-6
    assert two.history[-1] >= two.history[0]


# Form


def test_log_prob_looks_at_few_rows_at_a_time():
    model = mixture.three_modes(dtype=torch.float64)
    seen = []
    most = CHUNK * torch.get_num_threads()
    x = torch.zeros(most + 1, 2, dtype=torch.float64)
    whole = mixture.in_chunks(lambda rows: seen.append(len(rows)) or rows.sum(-1), x, 64)
    assert max(seen) * 64 <= most
    assert whole.shape == (len(x),)
    few = model.sample(7, generator=generator())
    many = few.repeat(30_000, 1)
    gap = model.log_prob(many) - model.log_prob(few).repeat(30_000)
    assert (gap.abs() <= rounding(model, few)).all()  # a product of another size may add in another order


def test_the_given_dtype_is_kept():
    for preset in PRESETS:
        model = preset(dtype=torch.float32)
        assert model.kind == preset(dtype=torch.float64).kind
        x = model.sample(50, generator=generator())
        assert x.dtype == model.log_prob(x).dtype == model.fit(x).weights.dtype == torch.float32
        assert model.log_prob(x.double()).dtype == torch.float64


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_conform(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert report.passed, report.failures


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: GaussianMixture(torch.ones(1), [Gaussian(torch.zeros(2), torch.eye(2))], "round"), "one of full"),
        (lambda: GaussianMixture(torch.ones(1), [Gaussian(torch.zeros(2), torch.eye(2))], "diagonal"), "cannot be"),
        (lambda: GaussianMixture(torch.full((2,), 0.5), mixture.three_modes().components[:2], "tied"), "same covar"),
        (
            lambda: GaussianMixture(
                torch.ones(1), [DiagonalGaussian(torch.zeros(2), torch.tensor([1.0, 2]))], "spherical"
            ),
            "one variance",
        ),
        (lambda: fit_mixture(torch.eye(2), 1, kind="round", generator=generator()), "kind"),
        (lambda: fit_mixture(torch.eye(3), 0, generator=generator()), "positive"),
        (lambda: fit_mixture(torch.zeros(1, 2), 1, generator=generator()), "draw|singular|sample"),  # no covariance
        (lambda: fit_mixture(torch.full((9, 2), math.nan), 1, generator=generator()), "finite|NaN"),
        (lambda: mixture.three_modes().fit(torch.randn(9, 2, generator=generator()), floor=0.0), "floor"),
        (lambda: mixture.three_modes().with_parameters(torch.zeros(3)), "shape"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
