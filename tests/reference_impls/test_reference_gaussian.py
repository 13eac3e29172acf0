"""Gaussians against arithmetic in 60 digits, scipy, torch.distributions, quadrature and exact values."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reference_impls import gaussian
from reference_impls.gaussian import DiagonalGaussian, Gaussian

PRESETS = (gaussian.standard, gaussian.correlated, gaussian.gaussian_64d, gaussian.pixelwise)
DTYPES = (torch.float32, torch.float64)
EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=40)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def gaussians(draw, dtype=torch.float64, low=1, high=5, closest=-9):
    """Scales from 1e-6 to 1e6, and a correlation matrix that lies between random and singular."""
    d = draw(st.integers(low, high))
    scale = 10 ** torch.tensor(draw(st.lists(st.floats(-6, 6), min_size=d, max_size=d)), dtype=torch.float64)
    apart = 10 ** draw(st.floats(closest, 0))  # 1: any correlations; towards 0: all coordinates agree
    root = torch.randn(d, d, generator=generator(draw(st.integers(0, 10**6))), dtype=torch.float64)
    root = root / torch.linalg.vector_norm(root, dim=1, keepdim=True)
    correlation = apart * (root @ root.mT + torch.eye(d)) / 2 + (1 - apart) * torch.ones(d, d)
    mean = torch.randn(d, generator=generator(draw(st.integers(0, 10**6))), dtype=torch.float64) * scale
    return Gaussian(mean.to(dtype), (scale * correlation * scale[:, None]).to(dtype))


def log_density_in_60_digits(mean, covariance, x):
    with mpmath.workdps(60):
        sigma = mpmath.matrix(covariance.tolist())
        offsets = [
            mpmath.matrix([mpmath.mpf(a) - mpmath.mpf(b) for a, b in zip(row, mean.tolist(), strict=True)])
            for row in x.tolist()
        ]
        log_det = mpmath.log(mpmath.det(2 * mpmath.pi * sigma))
        return torch.tensor(
            [float(-((o.T * mpmath.lu_solve(sigma, o))[0] + log_det) / 2) for o in offsets], dtype=torch.float64
        )


# The density


@pytest.mark.parametrize(("dtype", "closest"), [(torch.float32, -4), (torch.float64, -9)])
def test_log_prob_is_exact_up_to_rounding_at_any_scale_and_near_singularity(dtype, closest, rounding_of_log_prob):
    @examples
    @given(st.data())
    def run(data):
        shape = data.draw(gaussians(dtype, closest=closest))
        covariance = shape.covariance()
        covariance = (covariance + covariance.mT) / 2
        model = Gaussian(shape.loc, covariance)
        x = model.loc + 3 * (model.sample(4, generator=generator()) - model.loc)
        error = model.log_prob(x).double() - log_density_in_60_digits(model.loc, covariance, x)
        assert (error.abs() <= rounding_of_log_prob(model, x, dtype)).all()

    run()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_agree_with_scipy(preset, rounding_of_log_prob):
    model = preset(dtype=torch.float64)
    x = model.sample(100, generator=generator())
    oracle = stats.multivariate_normal(model.mean(), model.covariance())
    # scipy works from an eigendecomposition, whose error is of the same kind: twice the bound covers both.
    assert (
        abs(model.log_prob(x) - torch.from_numpy(oracle.logpdf(x.numpy())))
        <= 2 * rounding_of_log_prob(model, x, torch.float64)
    ).all()
    assert abs(model.entropy() - oracle.entropy()) <= 100 * model.d * EPS


def test_density_integrates_to_one_and_entropy_is_its_mean():
    model = Gaussian(float64([1.0, -2.0]), float64([[2.0, 1.2], [1.2, 1.0]]))
    # On a smooth function that has died out at the ends, the trapezoidal rule is exact to rounding.
    a, b = (torch.linspace(-12, 12, 401, dtype=torch.float64) * s + m for s, m in ((2**0.5, 1.0), (1.0, -2.0)))
    grid = torch.cartesian_prod(a, b)
    log_p = model.log_prob(grid)
    weight = log_p.exp() * (a[1] - a[0]) * (b[1] - b[0])
    assert abs(weight.sum() - 1) <= 1e3 * EPS  # 401^2 roundings add up like their square root
    assert abs(-(weight * log_p).sum() - model.entropy()) <= 1e4 * EPS
    assert torch.allclose(weight @ grid, model.mean(), rtol=0, atol=1e4 * EPS)


def test_known_values():
    p, q = Gaussian(float64([0]), float64([[1]])), Gaussian(float64([1]), float64([[4]]))
    assert abs(p.kl(q) - 0.4431471806) <= 5e-11  # the digits that are known
    pair = Gaussian(float64([0, 0]), float64([[1, 0.8], [0.8, 1]]))
    independent = DiagonalGaussian(float64([0, 0]), float64([1, 1]))
    assert abs(pair.entropy() - 2.3270514426) <= 5e-11
    assert abs(pair.kl(independent) - 0.5108256238) <= 5e-11  # mutual information


# Divergence


@examples
@given(gaussians(high=4, closest=-3), st.integers(0, 1000))
def test_kl_agrees_with_torch_and_vanishes_only_at_equality(p, seed):
    nudge = torch.eye(p.d).double() + 0.3 * torch.randn(p.d, p.d, generator=generator(seed)).double() / p.d
    q = p.affine(nudge)
    P, Q = (torch.distributions.MultivariateNormal(m.loc, scale_tril=m.cholesky) for m in (p, q))
    oracle = torch.distributions.kl_divergence(P, Q)
    shift = torch.linalg.solve_triangular(q.cholesky, (p.loc - q.loc)[:, None], upper=False).square().sum()
    condition = torch.linalg.cond(q.cholesky / q.variance().sqrt()[:, None]) ** 2
    trace = torch.linalg.solve_triangular(q.cholesky, p.cholesky, upper=False).square().sum()
    assert abs(p.kl(q) - oracle) <= 50 * p.d * EPS * condition * (1 + trace + shift)
    assert p.kl(q) > 0
    assert 0 <= p.kl(p) <= p.d**2 * (EPS * condition) ** 2


def test_kl_of_near_equals_keeps_its_digits():
    p = gaussian.correlated(dtype=torch.float64)
    for delta in (1e-3, 1e-6):
        q = Gaussian(p.loc, cholesky=p.cholesky * (1 + delta))
        t = -2 * math.log1p(delta)
        exact = p.d / 2 * (t**2 / 2 + t**3 / 6 + t**4 / 24)  # of e^t - 1 - t; the next term is below delta^3
        # `cholesky * (1 + delta)` rounds each entry, which moves t by eps and KL by eps / t.
        assert abs(p.kl(q) / exact - 1) <= 100 * EPS / delta + delta**3


def test_diagonal_and_full_agree_on_everything():
    diagonal, other = gaussian.pixelwise(dtype=torch.float64), gaussian.gaussian_64d(dtype=torch.float64)
    full, other = Gaussian(diagonal.loc, diagonal.covariance()), other.marginal(range(16))
    x = diagonal.sample(50, generator=generator())
    A = torch.randn(3, 16, generator=generator(), dtype=torch.float64)
    second = DiagonalGaussian(diagonal.loc.flip(0), diagonal.variance().flip(0))
    pairs = [
        (diagonal.log_prob(x), full.log_prob(x)),
        (diagonal.mahalanobis(x), full.mahalanobis(x)),
        (diagonal.entropy(), full.entropy()),
        (diagonal.kl(second), full.kl(second)),
        (diagonal.kl(other), full.kl(other)),
        (other.kl(diagonal), other.kl(full)),
        (diagonal.marginal([3, 1]).covariance(), full.marginal([3, 1]).covariance()),
        (diagonal.conditional([3, 1], x[0, :2]).mean(), full.conditional([3, 1], x[0, :2]).mean()),
        (diagonal.full().affine(A).covariance(), full.affine(A).covariance()),
        (diagonal.covariance(), full.covariance()),
    ]
    for a, b in pairs:
        assert torch.allclose(a, b, rtol=1e3 * EPS, atol=1e3 * EPS)


# Structure


@examples
@given(gaussians(low=2), st.data())
def test_product_rule_and_marginal_blocks(model, data):
    a = data.draw(st.permutations(range(model.d)))[: data.draw(st.integers(1, model.d - 1))]
    b = [i for i in range(model.d) if i not in a]
    x = model.sample(1, generator=generator())
    parts = model.marginal(a).log_prob(x[:, a]) + model.conditional(a, x[0, a]).log_prob(x[:, b])
    deviation = model.variance().sqrt()
    # Reordering is a QR decomposition: backward stable in L, so the condition number of L enters once.
    condition = torch.linalg.cond(model.cholesky / deviation[:, None])
    size = 1 + model.mahalanobis(x).square() + (x - model.loc).div(deviation).abs().amax()
    assert (abs(parts - model.log_prob(x)) <= 50 * model.d**2 * EPS * condition * size).all()
    block = model.covariance()[a][:, a] / deviation[a] / deviation[a][:, None]
    ours = model.marginal(a).covariance() / deviation[a] / deviation[a][:, None]
    assert torch.allclose(ours, block, rtol=0, atol=20 * model.d**2 * EPS)


@pytest.mark.parametrize("preset", [gaussian.correlated, gaussian.gaussian_64d])
def test_conditional_by_blocks_is_conditional_by_precision(preset):
    """E[x_b | x_a] = mu_b - Lambda_bb^-1 Lambda_ba (x_a - mu_a) and Cov[x_b | x_a] = Lambda_bb^-1."""
    model = preset(dtype=torch.float64)
    a, b = [5, 2, 7], [i for i in range(model.d) if i not in (5, 2, 7)]
    values = model.mean()[a] + torch.tensor([1.0, -2.0, 0.5])
    precision = torch.linalg.inv(model.covariance())
    covariance = torch.linalg.inv(precision[b][:, b])
    mean = model.mean()[b] - covariance @ precision[b][:, a] @ (values - model.mean()[a])
    conditional = model.conditional(a, values)
    tolerance = 100 * model.d * EPS * torch.linalg.cond(model.covariance()).item()
    assert torch.allclose(conditional.mean(), mean, rtol=0, atol=tolerance)
    assert torch.allclose(conditional.covariance(), covariance, rtol=0, atol=tolerance)


@examples
@given(gaussians(low=2, closest=-3), st.integers(0, 1000))
def test_affine_images(model, seed):
    d = model.d
    A = torch.randn(d, d, generator=generator(seed)).double() + 2 * torch.eye(d)
    b = torch.randn(d, generator=generator(seed + 1)).double()
    image = model.affine(A, b)
    expected = A @ model.covariance() @ A.mT
    deviation = image.variance().sqrt()
    size = A.abs() @ model.mean().abs() + b.abs()
    assert (abs(image.mean() - A @ model.mean() - b) <= 4 * d * EPS * size).all()
    assert (abs(image.covariance() - expected) <= 50 * d**2 * EPS * deviation * deviation[:, None]).all()
    row = image.marginal([0])
    assert torch.allclose(model.affine(A[:1], b[:1]).variance(), row.variance(), rtol=50 * d**2 * EPS, atol=0)


def test_mahalanobis_is_a_distance_and_its_square_is_chi_squared():
    model = Gaussian([0.0, 0.0], [[4.0, 0.0], [0.0, 1.0]])
    assert torch.equal(model.mahalanobis(torch.tensor([[6.0, 0.0], [0.0, 0.0]])), torch.tensor([3.0, 0.0]))
    model = gaussian.gaussian_64d(dtype=torch.float64)
    squares = model.mahalanobis(model.sample(20_000, generator=generator())).square()
    # The seed is fixed; of all seeds, one in a thousand would fail here.
    assert stats.kstest(squares.numpy(), stats.chi2(64).cdf).pvalue > 1e-3


# Sampling


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_have_the_law_that_the_density_says(preset, dtype):
    """Whitened draws are standard normal in every coordinate, and in one random direction."""
    model = preset(dtype=dtype)
    n = 20_000
    z = model.whiten(model.sample(n, generator=generator(3))).double()
    direction = torch.nn.functional.normalize(torch.randn(model.d, generator=generator(4)).double(), dim=0)
    level = 1e-3 / (model.d + 1)  # of all seeds, one in a thousand would fail here
    assert all(stats.kstest(c.numpy(), "norm").pvalue > level for c in [*z.mT, z @ direction])
    offset = z.mT @ z / n - torch.eye(model.d)
    # An entry has standard deviation at most sqrt(2/n); 6 of them over at most 64^2 entries fail once in 10^5.
    assert offset.abs().max() <= 6 * math.sqrt(2 / n)


@pytest.mark.parametrize("preset", PRESETS)
def test_only_the_generator_moves_the_sampler(preset):
    model, state = preset(), torch.get_rng_state()
    x, y, other = (model.sample(7, generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(x, y)
    assert not torch.equal(x, other)
    assert torch.equal(state, torch.get_rng_state())
    assert model.sample(0, generator=generator()).shape == (0, model.d)


# Estimation


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_fit_is_the_sample_mean_and_the_covariance_divided_by_n(scale):
    truth = gaussian.correlated(dtype=torch.float64)
    x = scale * truth.sample(500, generator=generator())
    fitted, diagonal = Gaussian.fit(x), DiagonalGaussian.fit(x)
    covariance = np.cov(x.numpy(), rowvar=False, ddof=0)
    assert np.allclose(fitted.mean(), x.numpy().mean(0), rtol=0, atol=100 * EPS * scale)
    assert np.allclose(fitted.covariance(), covariance, rtol=0, atol=500 * EPS * covariance.max())
    assert np.allclose(diagonal.variance(), covariance.diagonal(), rtol=500 * EPS, atol=0)
    # At the optimum, l = -N/2 (d log 2 pi + log det S + d).
    optimum = -250 * (8 * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1] + 8)
    assert abs(fitted.log_prob(x).sum() / optimum - 1) <= 1e4 * EPS


def test_score_is_zero_at_the_estimate_and_nothing_nearby_is_better():
    x = gaussian.correlated(dtype=torch.float64).sample(300, generator=generator())
    fitted = Gaussian.fit(x)
    loc, factor = fitted.loc.clone().requires_grad_(), fitted.cholesky.clone().requires_grad_()
    Gaussian(loc, cholesky=factor).log_prob(x).mean().backward()
    assert loc.grad.abs().max() <= 1e4 * EPS
    assert factor.grad.tril().abs().max() <= 1e4 * EPS
    best = fitted.log_prob(x).sum()
    for seed in range(20):
        nudge = torch.eye(8) + 1e-3 * torch.randn(8, 8, generator=generator(seed)).double()
        assert fitted.affine(nudge).log_prob(x).sum() < best


def test_fit_follows_an_affine_map_of_the_data():
    x = gaussian.correlated(dtype=torch.float64).sample(100, generator=generator())
    A, b = torch.randn(8, 8, generator=generator(5)).double() + 3 * torch.eye(8), torch.arange(8.0).double()
    here, there = Gaussian.fit(x).affine(A, b), Gaussian.fit(x @ A.mT + b)
    assert 0 <= here.kl(there) <= (1e4 * EPS) ** 2 * 64


# The contract


@pytest.mark.parametrize("preset", PRESETS)
def test_rows_are_scored_one_by_one(preset, rounding_of_log_prob):
    model = preset()
    x = model.sample(257, generator=generator())
    together, bound = model.log_prob(x), 2 * rounding_of_log_prob(model, x, torch.float32)
    apart = torch.cat([model.log_prob(row) for row in x.split(1)])
    assert (abs(together - apart) <= bound).all()
    assert (abs(together - model.log_prob(x.flip(0)).flip(0)) <= bound).all()
    wide = torch.stack([x, x + 1], dim=-1).flatten(1)[:, ::2]  # every other column
    assert not wide.is_contiguous()
    assert (abs(together - model.log_prob(wide)) <= bound).all()
    assert model.log_prob(x[:0]).shape == (0,)


@pytest.mark.parametrize("preset", PRESETS)
def test_double_draws_are_scored_in_double(preset, rounding_of_log_prob):
    single = preset()
    x = single.sample(50, generator=generator()).double()
    before = x.clone()
    log_prob = single.log_prob(x)
    assert log_prob.dtype == torch.float64
    assert (
        abs(log_prob - single.to(torch.float64).log_prob(x)) <= rounding_of_log_prob(single, x, torch.float64)
    ).all()
    assert torch.equal(x, before)
    assert single.log_prob(x.float()).dtype == single.sample(1, generator=generator()).dtype == torch.float32


@pytest.mark.parametrize("preset", PRESETS)
def test_far_away_is_unlikely_infinity_impossible_and_nan_unknown(preset):
    model = preset()
    x = model.mean().repeat(4, 1)
    x[0], x[1, 0], x[2, -1] = 1e6, math.inf, math.nan
    log_prob = model.log_prob(x.requires_grad_())
    assert log_prob[0].isfinite()
    assert log_prob[1] == -math.inf
    assert log_prob[2].isnan()
    (slope,) = torch.autograd.grad(log_prob[[0, 3]].sum(), x)
    assert slope[[0, 3]].isfinite().all()
    centre = model.mean().clone()[None].requires_grad_()
    assert torch.autograd.grad(model.mahalanobis(centre).sum(), centre)[0].isfinite().all()


def test_gradients_reach_every_parameter():
    mean = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    root = torch.randn(3, 3, generator=generator(), dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 3, generator=generator(1), dtype=torch.float64, requires_grad=True)
    values = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    other = gaussian.correlated(dtype=torch.float64).marginal([0, 1, 2])

    def everything(mean, root, x, values):
        model = Gaussian(mean, root @ root.mT + torch.eye(3))
        rest = model.conditional([1], values)
        return model.log_prob(x).sum() + model.entropy() + model.kl(other) + rest.log_prob(x[:, :2]).sum()

    assert torch.autograd.gradcheck(everything, (mean, root, x, values))


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: Gaussian([0.0, 0.0]), "either"),
        (lambda: Gaussian([0.0, 0.0], torch.eye(2), cholesky=torch.eye(2)), "either"),
        (lambda: Gaussian([0.0, 0.0], torch.eye(3)), "shape"),
        (lambda: Gaussian([0.0, math.nan], torch.eye(2)), "finite"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]]), "not positive definite"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 0.0]]), "not positive definite"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 0.5], [0.4, 1.0]]), "not symmetric"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, math.nan]]), "not finite"),
        (lambda: Gaussian([0.0, 0.0], cholesky=[[1.0, 0.1], [0.0, 1.0]]), "lower triangular"),
        (lambda: Gaussian([0.0, 0.0], cholesky=[[1.0, 0.0], [0.0, -1.0]]), "positive diagonal"),
        (lambda: DiagonalGaussian([0.0, 0.0], [1.0, 0.0]), "positive"),
        (lambda: DiagonalGaussian([0.0, 0.0], [1.0]), "shape"),
        (lambda: gaussian.standard().log_prob(torch.zeros(3, 1)), "shape"),
        (lambda: gaussian.standard().log_prob(torch.zeros(2)), "shape"),
        (lambda: gaussian.standard().marginal([0, 0]), "name each coordinate once"),
        (lambda: gaussian.standard().marginal([2]), "should name one or more"),
        (lambda: gaussian.standard().marginal([]), "should name one or more"),
        (lambda: gaussian.standard().conditional([0], [1.0, 2.0]), "values"),
        (lambda: gaussian.standard().affine([[1.0, 2.0], [2.0, 4.0]]), "dependent"),
        (lambda: gaussian.standard().affine(torch.ones(3, 2)), "singular"),
        (lambda: gaussian.standard().kl(gaussian.correlated()), "no divergence"),
        (lambda: Gaussian.fit(torch.zeros(0, 2)), "n > 0"),
        (lambda: Gaussian.fit(torch.ones(5, 2)), "singular"),
        (lambda: Gaussian.fit(torch.eye(2)), "singular"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
