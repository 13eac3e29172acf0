"""Gaussians (M01, M02) against scipy, exact values, and against themselves by a second route."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, linalg, stats

import harness
from reference_impls import gaussian, gaussian_precision
from reference_impls.gaussian import DiagonalGaussian, Gaussian
from reference_impls.gaussian_factors import CHUNK
from reference_impls.gaussian_missing import fit_diagonal_observed, fit_observed, impute, log_prob_observed
from reference_impls.gaussian_precision import PrecisionGaussian, complete_the_square
from reference_impls.gaussian_streaming import Statistics, fit_stream, statistics_of

EPS = torch.finfo(torch.float64).eps
PRESETS = (gaussian.standard, gaussian.correlated, gaussian.pixelwise, gaussian.gaussian_64d, gaussian_precision.chain)
examples = settings(derandomize=True, deadline=None, max_examples=15)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def gaussians(draw, low=2, high=6, closest=-8):
    """Scales from 1e-8 to 1e8, and correlations from any to nearly all 1 (smallest eigenvalue 10^closest)."""
    d = draw(st.integers(low, high))
    scale = 10 ** float64(draw(st.lists(st.floats(-8, 8), min_size=d, max_size=d)))
    apart = 10 ** draw(st.floats(closest, 0))
    root = torch.randn(d, d, generator=generator(draw(st.integers(0, 10**6))), dtype=torch.float64)
    root = root / torch.linalg.vector_norm(root, dim=1, keepdim=True)
    correlation = apart * (root @ root.mT + torch.eye(d)) / 2 + (1 - apart) * torch.ones(d, d)
    mean = torch.randn(d, generator=generator(draw(st.integers(0, 10**6))), dtype=torch.float64) * scale
    return Gaussian(mean, scale * correlation * scale[:, None])


def condition_of(model):
    """Condition number of the correlation matrix: units play no part in it."""
    return torch.linalg.cond(model.cholesky / model.variance().sqrt()[:, None]).item() ** 2


def relative(matrix, deviation):
    """A covariance in units of standard deviations."""
    return matrix / deviation / deviation[:, None]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_conform(preset):
    assert not harness.check_model(preset(), effort="quick", seed=0).failures


# Two forms, two routes


@examples
@given(gaussians(), st.data())
def test_conditionals_and_marginals_by_blocks_and_by_precision_agree(model, data):
    a = data.draw(st.permutations(range(model.d)))[: data.draw(st.integers(1, model.d - 1))]
    b = [i for i in range(model.d) if i not in a]
    values = model.sample(1, generator=generator())[0, a]
    dual = PrecisionGaussian.of(model)
    deviation = model.variance().sqrt()
    tolerance = 50 * model.d**2 * EPS * condition_of(model)  # both routes are backward stable factorisations
    blocks, precision = model.conditional(a, values), dual.conditional(a, values)
    size = 1 + ((values - model.loc[a]) / deviation[a]).abs().max() + (model.loc / deviation).abs().max()
    assert (((blocks.mean() - precision.mean()) / deviation[b]).abs() <= tolerance * size).all()
    apart = relative(blocks.covariance() - precision.covariance(), deviation[b])
    assert (apart.abs() <= tolerance).all()
    apart = relative(model.marginal(a).covariance() - dual.marginal(a).covariance(), deviation[a])
    assert (apart.abs() <= tolerance).all()
    assert (dual.marginal(a).mean() == model.marginal(a).mean()).all()


def test_conditional_is_the_schur_complement_with_a_minus_sign_in_the_precision():
    model, a, b = gaussian.correlated(dtype=torch.float64), [6, 1], [0, 2, 3, 4, 5, 7]
    sigma, precision, values = model.covariance(), torch.linalg.inv(model.covariance()), float64([0.3, -2.0])
    schur = sigma[b][:, b] - sigma[b][:, a] @ torch.linalg.solve(sigma[a][:, a], sigma[a][:, b])
    mean = model.loc[b] - torch.linalg.solve(precision[b][:, b], precision[b][:, a] @ (values - model.loc[a]))
    tolerance = 100 * model.d * EPS * torch.linalg.cond(sigma).item()
    for conditional in (model.conditional(a, values), PrecisionGaussian.of(model).conditional(a, values)):
        assert torch.allclose(conditional.covariance(), schur, rtol=0, atol=tolerance)
        assert torch.allclose(conditional.mean(), mean, rtol=0, atol=tolerance)
    assert model.conditional([], []) is model  # nothing is known, nothing changes


@examples
@given(gaussians(closest=-4))
def test_the_two_forms_are_one_law(model):
    dual = PrecisionGaussian.of(model)
    x = model.sample(5, generator=generator())
    scale, condition = model.variance().sqrt(), condition_of(model)
    tolerance = 50 * model.d**2 * EPS * condition * (1 + (model.loc / scale).abs().max())
    size = model.d + model.squared_mahalanobis(x) + model.cholesky.diagonal().log().abs().sum()
    assert (abs(dual.log_prob(x) - model.log_prob(x)) <= tolerance * size).all()
    assert abs(dual.entropy() - model.entropy()) <= tolerance * size.max()
    assert (relative(dual.covariance() - model.covariance(), scale).abs() <= tolerance).all()
    assert torch.allclose(dual.variance(), model.variance(), rtol=float(tolerance), atol=0)
    assert 0 <= dual.kl(model) <= (tolerance * model.d) ** 2


def test_samples_of_the_information_form_have_its_law():
    model = gaussian_precision.chain(dtype=torch.float64)
    z = model.moments().whiten(model.sample(20_000, generator=generator(1)))
    # The seed is fixed; of all seeds, one in a thousand would fail here.
    assert all(stats.kstest(column.numpy(), "norm").pvalue > 1e-3 / 6 for column in z.mT)
    precision = model.precision()
    assert abs(precision[0, 2]) <= 4 * EPS  # no edge between the ends of 0 - 1 - 2:
    ends = model.moments().conditional([1], float64([0.7])).marginal([0, 1])
    assert abs(ends.covariance()[0, 1]) <= 4 * EPS  # independent given what is between them


# Completing the square


@examples
@given(gaussians(low=1, high=4, closest=-4), st.floats(-5, 5))
def test_completing_the_square_gives_the_exponent_back(model, c):
    A = model.precision()
    A = (A + A.mT) / 2
    b = -A @ model.loc
    square, log_integral = complete_the_square(A, b, c)
    x = model.sample(3, generator=generator())
    exponent = -((x @ A * x).sum(-1) + 2 * x @ b + c) / 2
    scale = model.variance().sqrt()
    log_det = model.cholesky.diagonal().log().abs().sum()
    size = (x.abs() @ A.abs() * x.abs()).sum(-1) + 2 * x.abs() @ b.abs() + abs(c) + log_det
    tolerance = 100 * model.d**2 * EPS * condition_of(model) * (1 + (model.loc / scale).abs().max()) ** 2
    assert (abs(square.log_prob(x) + log_integral - exponent) <= tolerance * (size + 40 * model.d)).all()


def test_completing_the_square_has_a_minus_sign_and_the_integral_of_quadrature():
    A, b, c = float64([[2.0, 0.5], [0.5, 1.0]]), float64([1.0, -0.5]), 0.7
    model, log_integral = complete_the_square(A, b, c)
    assert torch.allclose(model.mean(), -torch.linalg.solve(A, b), rtol=8 * EPS, atol=8 * EPS)
    assert torch.allclose(model.precision(), A, rtol=8 * EPS, atol=8 * EPS)

    def integrand(y, x):
        return math.exp(-(2 * x * x + x * y + y * y + 2 * (x - 0.5 * y) + c) / 2)

    value, error = integrate.dblquad(integrand, -12, 12, -12, 12, epsabs=1e-10)
    assert abs(math.exp(log_integral) - value) <= max(error, 1e-9)
    with pytest.raises(ValueError, match="matrix A is not positive definite"):
        complete_the_square(float64([[1.0, 2.0], [2.0, 1.0]]), b)  # invertible, but the integral diverges


def test_evidence_multiplies():
    p, q = (PrecisionGaussian.of(gaussian.correlated(dtype=torch.float64).marginal(i)) for i in ([0, 1], [5, 7]))
    both, x = p.times(q), torch.randn(6, 2, generator=generator(), dtype=torch.float64)
    gap = p.log_prob(x) + q.log_prob(x) - both.log_prob(x)  # the log of the normaliser, the same everywhere
    assert (gap - gap[0]).abs().max() <= 1e3 * EPS
    assert torch.allclose(both.shift(), p.shift() + q.shift(), rtol=100 * EPS, atol=100 * EPS)


# Information


def test_known_values():
    p, q = Gaussian(float64([0]), float64([[1]])), Gaussian(float64([1]), float64([[4]]))
    assert abs(p.kl(q) - 0.4431471806) <= 5e-11  # the digits that are known
    assert abs(PrecisionGaussian.of(p).kl(PrecisionGaussian.of(q)) - 0.4431471806) <= 5e-11
    pair = Gaussian(float64([0, 0]), float64([[1, 0.8], [0.8, 1]]))
    assert abs(pair.mutual_information([0], [1]) - 0.5108256238) <= 5e-11
    assert abs(pair.entropy() - 2.3270514426) <= 5e-11


@examples
@given(gaussians(low=3), st.data())
def test_mutual_information_is_kl_to_the_product_and_loss_of_entropy(model, data):
    order = data.draw(st.permutations(range(model.d)))
    cut = data.draw(st.integers(1, model.d - 2))
    a, b = order[:cut], order[cut:-1]  # one coordinate is in neither
    both = model.marginal(a + b)
    first, second = model.marginal(a), model.marginal(b)
    information = model.mutual_information(a, b)
    product = Gaussian(both.loc, torch.block_diag(first.covariance(), second.covariance()))
    tolerance = 100 * model.d**2 * EPS * condition_of(model)
    size = 1 + model.cholesky.diagonal().log().abs().sum()
    assert abs(information - both.kl(product)) <= tolerance * size
    assert abs(information - (first.entropy() + second.entropy() - both.entropy())) <= tolerance * size
    given_a = both.conditional(range(len(a)), first.mean())
    assert abs(information - (second.entropy() - given_a.entropy())) <= tolerance * size
    assert information == pytest.approx(model.mutual_information(b, a).item(), abs=float(tolerance * size))


def test_independent_blocks_have_no_information_and_weak_dependence_keeps_its_digits():
    assert gaussian.pixelwise().full().mutual_information([0, 3], [1, 5]) == 0
    assert gaussian.pixelwise().mutual_information([0, 3], [1, 5]) == 0
    rho = 1e-9
    weak = Gaussian(float64([0, 0]), float64([[1, rho], [rho, 1]]))
    assert abs(weak.mutual_information([0], [1]) / (rho**2 / 2) - 1) <= 10 * EPS + rho**2
    with pytest.raises(ValueError, match="disjoint"):
        weak.mutual_information([0], [0, 1])


def test_squared_mahalanobis_is_the_quadratic_form():
    model = gaussian.correlated(dtype=torch.float64)
    x = model.sample(3000, generator=generator())
    offset = (x - model.loc).numpy()
    oracle = np.einsum("ni,ni->n", offset, linalg.solve(model.covariance().numpy(), offset.T, assume_a="pos").T)
    tolerance = 20 * model.d * EPS * condition_of(model)
    assert np.allclose(model.squared_mahalanobis(x), oracle, rtol=tolerance, atol=0)
    assert torch.allclose(model.mahalanobis(x).square(), model.squared_mahalanobis(x), rtol=4 * EPS, atol=0)
    # The seed is fixed; of all seeds, one in a thousand would fail here.
    assert stats.kstest(oracle, stats.chi2(8).cdf).pvalue > 1e-3


def test_whitening_by_the_inverse_factor_is_as_accurate_as_substitution():
    """A factor of condition 1e9, in float32 and float64; the bound is componentwise (Higham 2002, section 14.2)."""
    for dtype in (torch.float32, torch.float64):
        d = 12
        kahan = torch.eye(d).double() - 0.9 * torch.ones(d, d).double().tril(-1)
        factor = (kahan * torch.logspace(0, -3, d).double()).to(dtype)
        model = Gaussian(torch.zeros(d, dtype=dtype), cholesky=factor)
        x = model.sample(100, generator=generator())
        exact = torch.linalg.solve_triangular(factor.double(), x.double().mT, upper=False).mT
        inverse = torch.linalg.inv(factor.double()).abs()
        bound = (d + 2) * torch.finfo(dtype).eps * exact.abs() @ (inverse @ factor.double().abs()).mT
        allowed = 3 * bound if dtype is torch.float64 else bound  # in float64 the oracle is off by as much, too
        assert ((model.whiten(x) - exact).abs() <= allowed).all()


# Estimation


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_estimate_attains_the_optimum_and_divides_by_n(scale):
    x = scale * gaussian.correlated(dtype=torch.float64).sample(300, generator=generator())
    fitted, (n, d) = Gaussian.fit(x), x.shape
    s = np.cov(x.numpy().T, ddof=0)
    optimum = -n / 2 * (d * math.log(2 * math.pi) + np.linalg.slogdet(s / scale**2)[1] + 2 * d * math.log(scale) + d)
    assert abs(fitted.log_prob(x).sum() - optimum) <= 100 * d * n * EPS * condition_of(fitted)
    biased = Gaussian(fitted.loc, fitted.covariance() * n / (n - 1))  # what dividing by N - 1 would give
    assert biased.log_prob(x).sum() < fitted.log_prob(x).sum()


def test_twice_the_gain_of_the_estimate_is_chi_squared():
    """Wilks: 2 (l(estimate) - l(truth)) -> chi^2 with d + d (d + 1) / 2 degrees of freedom."""
    truth = gaussian.correlated(dtype=torch.float64).marginal([0, 3, 7])
    stream = generator(7)
    gains = []
    for _ in range(200):
        x = truth.sample(500, generator=stream)
        gains.append(2 * (Gaussian.fit(x).log_prob(x) - truth.log_prob(x)).sum().item())
    assert len(truth.parameters()) == 9
    # The seed is fixed; of all seeds, one in a thousand would fail here.
    assert stats.kstest(gains, stats.chi2(9).cdf).pvalue > 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_go_there_and_back_and_have_a_slope(preset):
    model = preset(dtype=torch.float64)
    theta = model.parameters()
    assert model.with_parameters(theta).kl(model) <= (100 * model.d * EPS) ** 2
    x = model.sample(8, generator=generator())
    theta = theta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.with_parameters(theta).log_prob(x).sum(), theta)
    assert slope.isfinite().all()
    if model.d <= 8:
        assert torch.autograd.gradcheck(lambda t: model.with_parameters(t).log_prob(x), theta)
    with pytest.raises(ValueError, match="theta should hold"):
        model.with_parameters(theta[:-1])


def test_score_is_zero_at_every_estimate():
    x = gaussian.correlated(dtype=torch.float64).sample(200, generator=generator())
    for fitted in (Gaussian.fit(x), DiagonalGaussian.fit(x), PrecisionGaussian.fit(x)):
        theta = fitted.parameters().requires_grad_()
        (slope,) = torch.autograd.grad(fitted.with_parameters(theta).log_prob(x).mean(), theta)
        assert slope.abs().max() <= 1e4 * EPS


@examples
@given(st.integers(9, 60), st.integers(1, 20), st.sampled_from([1e-8, 1.0, 1e8]))
def test_a_stream_is_fitted_like_the_whole(n, rows, scale):
    x = scale * (gaussian.correlated(dtype=torch.float64).sample(n, generator=generator(n)) + 100)
    whole, stream = Gaussian.fit(x), fit_stream(x.split(rows))
    deviation = whole.variance().sqrt()
    # The mean of numbers of size 100 is off by n eps 100 at most, in the one way as in the other.
    moved = 2 * n * EPS * (x.abs().max() / deviation).max()
    assert ((whole.loc - stream.loc).abs() <= moved * deviation).all()
    tolerance = 50 * n * EPS + 10 * moved
    assert (relative(whole.covariance() - stream.covariance(), deviation).abs() <= tolerance).all()
    total = statistics_of(x.split(rows))
    assert total.n == n
    assert torch.allclose(
        total.diagonal().variance(), DiagonalGaussian.fit(x).variance(), rtol=float(tolerance), atol=0
    )


def test_statistics_merge_in_any_order_and_hold_one_row():
    x = gaussian.correlated(dtype=torch.float64).sample(50, generator=generator())
    a, b, c = (Statistics.of(part) for part in (x[:1], x[1:20], x[20:]))
    left, right = a.merge(b).merge(c), c.merge(a.merge(b))
    assert left.gaussian().kl(right.gaussian()) <= (1e4 * EPS) ** 2
    for mistake, complaint in [
        (lambda: a.gaussian(), "singular"),
        (lambda: fit_stream([]), "no draws"),
        (lambda: a.merge(Statistics.of(x[:, :2])), "columns"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            mistake()


# Missing values


def with_holes(n, seed=0, share=0.3):
    x = gaussian.correlated(dtype=torch.float64).sample(n, generator=generator(seed))
    holes = torch.rand(x.shape, generator=generator(seed + 1)) < share
    return x, torch.where(holes, math.nan, x)


def test_what_is_observed_is_scored_by_its_marginal():
    model = gaussian.correlated(dtype=torch.float64)
    _, x = with_holes(60, share=0.6)
    x[0] = math.nan
    ours = log_prob_observed(model, x)
    assert ours[0] == 0
    for row, value in zip(x[1:].numpy(), ours[1:], strict=True):
        seen = ~np.isnan(row)
        if seen.any():
            block = model.covariance().numpy()[np.ix_(seen, seen)]
            oracle = stats.multivariate_normal(model.mean().numpy()[seen], block).logpdf(row[seen])
            assert abs(value - oracle) <= 1e3 * EPS * condition_of(model) * (1 + abs(oracle))


def test_em_with_missing_values_climbs_to_where_the_score_is_zero():
    x, holes = (rows[:, :4] for rows in with_holes(400, share=0.2))
    fitted = fit_observed(holes, tolerance=1e-13)
    rounding = 1e3 * len(x) * EPS * (1 + fitted.history.abs().max() / len(x))
    assert (fitted.history.diff() >= -rounding).all()
    assert abs(fitted.history[-1] - log_prob_observed(fitted, holes).sum()) <= rounding
    theta = fitted.parameters().requires_grad_()
    (slope,) = torch.autograd.grad(log_prob_observed(fitted.with_parameters(theta), holes).mean(), theta)
    # EM gains at least what a gradient step would; it stops at 1e-13 nats a row, where slopes are about its root.
    assert slope.abs().max() <= 1e-5
    complete = fit_observed(x)
    assert complete.kl(Gaussian.fit(x)) <= (1e3 * EPS * condition_of(complete)) ** 2
    assert fit_observed(holes * 1e-8 + 1e-7).kl(fit_observed(holes).affine(1e-8 * torch.eye(4), 1e-7)) <= 1e-12
    seen = holes[:, 2][~holes[:, 2].isnan()]
    assert abs(fit_diagonal_observed(holes).variance()[2] - seen.var(correction=0)) <= 1e3 * EPS


def test_imputation_is_regression_and_keeps_what_was_seen():
    model = gaussian.correlated(dtype=torch.float64)
    x, holes = with_holes(20)
    filled = impute(model, holes)
    assert torch.equal(filled[~holes.isnan()], x[~holes.isnan()])
    seen = (~holes[3].isnan()).nonzero()[:, 0].tolist()
    oracle = model.conditional(seen, x[3, seen]).mean()
    assert torch.allclose(filled[3][holes[3].isnan()], oracle, rtol=0, atol=1e3 * EPS)
    rows = torch.full((20_000, 8), math.nan, dtype=torch.float64)
    rows[:, 0] = 2.0
    z = model.conditional([0], [2.0]).whiten(impute(model, rows, generator=generator(5))[:, 1:])
    # The seed is fixed; of all seeds, one in a thousand would fail here.
    assert all(stats.kstest(column.numpy(), "norm").pvalue > 1e-3 / 7 for column in z.mT)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: Gaussian.fit(float64([[1.0, math.nan], [0.0, 1.0]])), "fit_observed"),
        (lambda: Gaussian.fit(torch.ones(1, 3)), "more rows, or fewer columns"),
        (lambda: DiagonalGaussian.fit(torch.ones(4, 2)), "constant"),
        (lambda: DiagonalGaussian.fit(torch.ones(1, 2)), "constant"),
        (lambda: DiagonalGaussian.fit(torch.full((7, 1), 0.1)), "constant"),
        (lambda: fit_observed(torch.full((4, 2), math.nan)), "never observed"),
        (lambda: fit_observed(float64([[1.0, 2.0], [1.0, 3.0]])), "constant"),
        (lambda: fit_observed(float64([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])), "singular"),
        (lambda: PrecisionGaussian([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]]), "precision is not positive definite"),
        (lambda: PrecisionGaussian([0.0]), "either"),
        (lambda: gaussian_precision.chain().times(PrecisionGaussian([0.0], [[1.0]])), "no product"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()


# Real data


def test_old_faithful_has_the_published_likelihood(old_faithful):
    log_likelihood = Gaussian.fit(old_faithful).log_prob(old_faithful).sum()
    assert abs(log_likelihood + 1289.796745) <= 5e-7  # the digits that are known


def test_draws_mapped_in_their_own_memory_are_those_mapped_at_once():
    """By the last bits: a product of another size may add in another order."""
    a = torch.randn(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model, n = Gaussian(torch.arange(5.0).double(), a @ a.mT + torch.eye(5).double()), CHUNK * torch.get_num_threads()
    x = model.sample(n, generator=torch.Generator().manual_seed(4))
    z = torch.randn(n, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    allowed = 8 * torch.finfo(torch.float64).eps * (z.abs() @ model.cholesky.abs().mT + model.loc.abs())
    assert ((x - (model.loc + z @ model.cholesky.mT)).abs() <= allowed).all()


def test_draws_are_differentiable_in_the_parameters_however_many():
    loc = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    n = CHUNK * torch.get_num_threads()
    model = Gaussian(loc, cholesky=torch.eye(5, dtype=torch.float64))
    model.sample(n, generator=torch.Generator().manual_seed(0)).sum().backward()
    assert torch.equal(loc.grad, torch.full((5,), float(n), dtype=torch.float64))
