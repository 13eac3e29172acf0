"""Mixtures of Gaussians against scipy, scikit-learn, quadrature and the laws of EM."""

import csv
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reference_impls import gaussian, mixture
from reference_impls.gaussian import Gaussian, lower_factor
from reference_impls.mixture import GaussianMixture, expectation_maximisation

PRESETS = (mixture.three_modes, mixture.old_faithful_like)
EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=25)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_mixture(d, k, seed=0, apart=2.0):
    g = generator(seed)
    roots = torch.randn(k, d, d, generator=g, dtype=torch.float64) + 2 * torch.eye(d)
    means = apart * torch.randn(k, d, generator=g, dtype=torch.float64)
    weights = torch.randn(k, generator=g, dtype=torch.float64).softmax(0)
    return GaussianMixture(weights, [Gaussian(m, cholesky=lower_factor(r)) for m, r in zip(means, roots, strict=True)])


def rounding(model, x, rounding_of_log_prob, dtype):
    """The slope of log-sum-exp in the log-density of component k is p(y = k | x), so errors are averaged with these."""
    parts = torch.stack([rounding_of_log_prob(c, x, dtype) for c in model.components])
    shares = torch.exp(model.log_joint(x) - model.log_prob(x)[:, None]).double().mT
    return (shares * parts).sum(0) + 4 * torch.finfo(dtype).eps * (len(model.components) + model.log_prob(x).abs())


def grid(model, points=500, width=10):
    """A grid on which the trapezoidal rule integrates the density to rounding, with the area of a cell."""
    sides = []
    for i in range(2):
        spread = [(c.mean()[i], width * c.variance()[i].sqrt()) for c in model.components]
        low, high = min(m - s for m, s in spread), max(m + s for m, s in spread)
        sides.append(torch.linspace(float(low), float(high), points, dtype=torch.float64))
    return torch.cartesian_prod(*sides), (sides[0][1] - sides[0][0]) * (sides[1][1] - sides[1][0])


# The density


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", PRESETS)
def test_log_prob_agrees_with_scipy(preset, dtype, rounding_of_log_prob):
    model = preset(dtype=dtype)
    x = model.sample(200, generator=generator())
    exact = sum(
        w
        * torch.from_numpy(
            stats.multivariate_normal(c.mean().double(), c.to(torch.float64).covariance()).pdf(x.double())
        )
        for w, c in zip(model.weights.double(), model.components, strict=True)
    ).log()
    assert (abs(model.log_prob(x) - exact) <= 2 * rounding(model, x, rounding_of_log_prob, dtype)).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_moments_and_normalisation_by_quadrature(preset):
    model = preset(dtype=torch.float64)
    x, cell = grid(model)
    weight = model.log_prob(x).exp() * cell
    assert abs(weight.sum() - 1) <= 1e4 * EPS
    scale = x.abs().max()
    assert torch.allclose(weight @ x, model.mean(), rtol=0, atol=(1e4 * EPS * scale).item())
    offset = x - model.mean()
    covariance = (weight[:, None] * offset).mT @ offset
    assert torch.allclose(covariance, model.covariance(), rtol=0, atol=(1e4 * EPS * scale**2).item())
    assert torch.allclose(model.variance(), model.covariance().diagonal(), rtol=100 * EPS, atol=0)


def test_one_component_is_the_gaussian(rounding_of_log_prob):
    one = gaussian.correlated(dtype=torch.float64)
    model = GaussianMixture(torch.ones(1).double(), [one])
    x = one.sample(20, generator=generator())
    gap = model.log_prob(x) - one.log_prob(x)
    assert (gap.abs() <= 2 * rounding(model, x, rounding_of_log_prob, torch.float64)).all()
    assert torch.equal(model.mean(), one.mean())
    assert torch.equal(model.covariance(), one.covariance())
    given, rest = one.conditional([1], x[0, :1]), x[:, 1:]
    gap = model.conditional([1], x[0, :1]).log_prob(rest) - given.log_prob(rest)
    mixed = GaussianMixture(model.weights, [given])
    assert (gap.abs() <= 2 * rounding(mixed, rest, rounding_of_log_prob, torch.float64)).all()


def test_order_of_components_is_only_a_name():
    model = random_mixture(3, 4)
    turned = GaussianMixture(model.weights.flip(0), model.components[::-1])
    x = model.sample(50, generator=generator())
    assert torch.allclose(model.log_prob(x), turned.log_prob(x), rtol=20 * EPS, atol=20 * EPS)


def test_log_prob_survives_where_the_density_underflows():
    model = mixture.three_modes().to(torch.float32)
    x = torch.tensor([[1e4, -1e4], [math.inf, 0.0]], requires_grad=True)
    log_prob = model.log_prob(x)
    assert log_prob[0].isfinite()
    assert log_prob[1] == -math.inf
    assert torch.autograd.grad(log_prob[0], x)[0][0].isfinite().all()


# Structure


@examples
@given(st.integers(2, 4), st.integers(1, 4), st.integers(0, 10**6), st.data())
def test_product_rule(d, k, seed, data):
    model = random_mixture(d, k, seed)
    a = data.draw(st.permutations(range(d)))[: data.draw(st.integers(1, d - 1))]
    b = [i for i in range(d) if i not in a]
    x = model.sample(1, generator=generator(seed))
    parts = model.marginal(a).log_prob(x[:, a]) + model.conditional(a, x[0, a]).log_prob(x[:, b])
    condition = max(torch.linalg.cond(c.cholesky) for c in model.components)
    size = 1 + max(c.mahalanobis(x).square().max() for c in model.components)
    assert (abs(parts - model.log_prob(x)) <= 100 * d**2 * EPS * condition * size).all()


def test_conditional_weights_follow_the_evidence():
    model = mixture.three_modes(dtype=torch.float64)
    conditional = model.conditional([0], torch.tensor([-3.0]))
    assert conditional.weights[0] > 0.99  # only the first mode lives near x_0 = -3
    grid_b = torch.linspace(-20, 20, 4001, dtype=torch.float64)[:, None]
    joint = model.log_prob(torch.cat([torch.full_like(grid_b, -3.0), grid_b], dim=1)).exp()
    direct = joint / (joint.sum() * 0.01)
    assert torch.allclose(conditional.log_prob(grid_b).exp(), direct, rtol=0, atol=1e4 * EPS)


# Sampling


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", PRESETS)
def test_samples_fill_the_marginals(preset, dtype):
    model = preset(dtype=dtype)
    x = model.sample(20_000, generator=generator(11)).double()
    for direction in (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.6, -0.8]])):
        parts = [c.to(torch.float64).affine(direction) for c in model.components]

        def cdf(t, parts=parts):
            pairs = zip(model.weights.tolist(), parts, strict=True)
            return sum(w * stats.norm(p.mean().item(), p.variance().sqrt().item()).cdf(t) for w, p in pairs)

        # The seed is fixed; of all seeds, one in a thousand would fail here.
        assert stats.kstest((x @ direction.double().mT)[:, 0].numpy(), cdf).pvalue > 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_contract(preset, rounding_of_log_prob):
    model, state = preset(), torch.get_rng_state()
    x, same, other = (model.sample(101, generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(x, same)
    assert not torch.equal(x, other)
    assert torch.equal(state, torch.get_rng_state())
    apart = torch.cat([model.log_prob(row) for row in x.split(1)])
    bound = 2 * rounding(model, x, rounding_of_log_prob, torch.float32)
    assert (abs(model.log_prob(x) - apart) <= bound).all()
    assert model.log_prob(x[:0]).shape == (0,)
    assert model.sample(0, generator=generator()).shape == (0, 2)
    assert model.log_prob(x.double()).dtype == torch.float64
    assert model.to(torch.float64).sample(3, generator=generator()).dtype == torch.float64


# Estimation


@examples
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 10**6))
def test_em_never_loses_likelihood(d, k, seed):
    """Also where the floor binds: the draws stand in few places, so that components collapse onto them."""
    x = random_mixture(d, k, seed).sample(60, generator=generator(seed)).mul(2 if seed % 2 else 10).round().div(2)
    start = mixture.kmeans_plus_plus(x, k, generator=generator(seed))
    _, history = expectation_maximisation(start, x, iterations=50)
    # After the first step, which lifts a start that lies below the floor. Each total adds n terms of its own size.
    assert (history.diff()[1:] >= -60 * EPS * history.abs().max()).all()


def test_floor_is_a_share_of_the_data_in_every_direction():
    far = torch.cat([torch.randn(50, 2, generator=generator()), torch.full((5, 2), 30.0)]).double()
    x = far @ torch.tensor([[1e3, 1e3], [0.0, 1e-3]]).double()
    model, _ = expectation_maximisation(mixture.kmeans_plus_plus(x, 2, generator=generator()), x, floor=1e-3)
    whole = Gaussian.fit(x)
    white = [torch.linalg.solve_triangular(whole.cholesky, c.cholesky, upper=False) for c in model.components]
    smallest = min(torch.linalg.svdvals(w).min() ** 2 for w in white)
    assert smallest.item() == pytest.approx(1e-3, rel=1e-6)  # the five equal draws


@pytest.mark.parametrize("seed", [0, 14, 20])  # from the last two, a single start of k-means++ ends in a lesser maximum
def test_fit_beats_the_truth_and_has_no_score(seed):
    truth = mixture.three_modes(dtype=torch.float64)
    x = truth.sample(1000, generator=generator(seed))
    for fitted in (truth.fit(x), truth.fit(x, generator=generator(seed))):
        assert fitted.log_prob(x).sum() >= truth.log_prob(x).sum()
        tensors = [t for c in fitted.components for t in (c.loc, c.cholesky)]
        [t.requires_grad_() for t in tensors]
        slopes = torch.autograd.grad(fitted.log_prob(x).mean(), tensors)
        # EM stops when a step gains 1e-10 nats per draw, and near the top a gain is the square of a slope.
        assert max(s.tril().abs().max() if s.dim() == 2 else s.abs().max() for s in slopes) <= 30 * math.sqrt(1e-10)


def test_fit_follows_an_affine_map_of_the_data():
    truth = mixture.three_modes(dtype=torch.float64)
    x = truth.sample(400, generator=generator())
    A, b = torch.tensor([[1e4, 2e4], [0.0, 1e-3]]).double(), torch.tensor([5.0, -1.0]).double()
    here, there = truth.fit(x, generator=generator(1)), truth.fit(x @ A.mT + b, generator=generator(1))
    log_det = torch.linalg.slogdet(A)[1]
    assert torch.allclose(here.log_prob(x) - log_det, there.log_prob(x @ A.mT + b), rtol=0, atol=1e-6)


def test_em_arrives_where_scikit_learn_does():
    skmixture = pytest.importorskip("sklearn.mixture")
    start = random_mixture(3, 3, seed=5)
    x = random_mixture(3, 3, seed=6).sample(500, generator=generator())
    ours, history = expectation_maximisation(start, x, tolerance=1e-13, iterations=3000)
    theirs = skmixture.GaussianMixture(
        3,
        tol=1e-13,
        reg_covar=0,
        max_iter=3000,
        weights_init=start.weights.numpy(),
        means_init=torch.stack([c.mean() for c in start.components]).numpy(),
        precisions_init=torch.stack([torch.linalg.inv(c.covariance()) for c in start.components]).numpy(),
    ).fit(x.numpy())
    assert abs(history[-1] / len(x) - theirs.score(x.numpy())) <= 1e-9
    assert torch.allclose(ours.log_prob(x), torch.from_numpy(theirs.score_samples(x.numpy())), rtol=0, atol=1e-4)
    assert torch.allclose(ours.weights, torch.from_numpy(theirs.weights_), rtol=0, atol=1e-4)


def test_single_precision_data_are_fitted_in_double():
    x = mixture.three_modes().sample(500, generator=generator())
    fitted, wide = (mixture.three_modes().fit(y) for y in (x, x.double()))
    assert fitted.weights.dtype == torch.float32
    assert torch.allclose(fitted.log_prob(x).double(), wide.log_prob(x.double()), rtol=0, atol=1e-4)


def test_old_faithful():
    folder = os.environ.get("HARNESS_DATA")
    if not folder:
        pytest.skip("HARNESS_DATA is not set: no Old Faithful data")
    rows = list(csv.reader((Path(folder) / "small" / "geyser.csv").open()))[1:]
    x = torch.tensor([[float(row[0]), float(row[1])] for row in rows], dtype=torch.float64)
    assert abs(Gaussian.fit(x).log_prob(x).sum() + 1289.796745) <= 1e-6
    fitted = mixture.old_faithful_like(dtype=torch.float64).fit(x, generator=generator())
    assert abs(fitted.log_prob(x).sum() + 1130.263960) <= 1e-6


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: GaussianMixture(torch.tensor([0.5, 0.4]), [gaussian.standard()] * 2), "sum to 1"),
        (lambda: GaussianMixture(torch.tensor([1.5, -0.5]), [gaussian.standard()] * 2), "between 0 and 1"),
        (lambda: GaussianMixture(torch.tensor([0.5, 0.5]), [gaussian.standard()]), "2 weights for 1"),
        (lambda: GaussianMixture(torch.tensor([0.5, 0.5]), [gaussian.standard(), gaussian.correlated()]), "differ"),
        (lambda: mixture.kmeans_plus_plus(torch.eye(3)[:, :2], 4, generator=generator()), "fewer than 4"),
        (lambda: mixture.three_modes().log_prob(torch.zeros(2)), "shape"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
