"""Images of known laws against scipy, quadrature, autograd Jacobians and exact values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

import harness
from reference_impls import change_of_variables as line
from reference_impls import change_of_variables_nd as space
from reference_impls import gaussian
from reference_impls.change_of_variables import Branch, PiecewiseMonotone, SquaredUniform
from reference_impls.change_of_variables_nd import AffineImage, AffineMap, Image, TriangularMap
from reference_impls.uniform import Interval

EPS = torch.finfo(torch.float64).eps
ON_THE_LINE = {
    line.squared_uniform: stats.beta(0.5, 1, scale=4),
    line.squared_normal: stats.chi2(1),
    line.lognormal: stats.lognorm(0.5, scale=math.exp(0.5)),
    line.decreasing: stats.expon(),
}
PRESETS = (*ON_THE_LINE, line.squared_interval, space.parallelogram, space.banana)
examples = settings(derandomize=True, deadline=None, max_examples=15)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_conform(preset):
    assert not harness.check_model(preset(), effort="quick", seed=0).failures


# The line


@pytest.mark.parametrize("preset", ON_THE_LINE)
def test_densities_and_draws_agree_with_scipy(preset):
    model, oracle = preset(dtype=torch.float64), ON_THE_LINE[preset]
    z = torch.from_numpy(oracle.ppf(np.linspace(0.01, 0.99, 50)))[:, None]
    assert np.allclose(model.log_prob(z), oracle.logpdf(z[:, 0].numpy()), rtol=100 * EPS, atol=100 * EPS)
    assert model.log_prob(torch.tensor([[-1.0], [math.inf]]).double()).tolist() == [-math.inf, -math.inf]
    x = model.sample(10_000, generator=generator(1))[:, 0].numpy()
    # The seed is fixed; of all seeds, one in a thousand would fail here.
    assert stats.kstest(x, oracle.cdf).pvalue > 1e-3


@examples
@given(st.sampled_from([1e-8, 1e-3, 0.5, 2.0, 1e8]))
def test_square_of_a_uniform_has_its_moments_and_entropy(a):
    model = SquaredUniform(torch.tensor(a, dtype=torch.float64))
    oracle = stats.beta(0.5, 1, scale=a * a)
    assert model.mean().item() == pytest.approx(oracle.mean(), rel=20 * EPS)
    assert model.variance().item() == pytest.approx(oracle.var(), rel=100 * EPS)
    exact = 2 * math.log(a) + math.log(2) - 1
    assert model.entropy().item() == pytest.approx(exact, rel=10 * EPS, abs=10 * EPS)
    u = torch.linspace(0.05, 1, 9, dtype=torch.float64)
    assert torch.allclose(model.cdf(model.icdf(u)), u, rtol=10 * EPS, atol=0)


def test_known_values():
    model = line.squared_uniform(dtype=torch.float64)
    assert abs(model.mean() - 4 / 3) <= 4 * EPS
    assert abs(model.variance() - 64 / 45) <= 8 * EPS
    assert abs(model.entropy() - 1.0794415) <= 5e-8  # the digits that are known
    assert SquaredUniform(1.0).entropy() < 0  # ln 2 - 1


def test_the_support_is_that_of_z_and_its_density_ends_where_it_is_infinite():
    model = line.squared_uniform(dtype=torch.float64)
    inside, outside = (
        model.log_prob(torch.tensor([[1e-300], [4.0]], dtype=torch.float64)),
        torch.tensor([[0.0], [4.0001], [-1.0]]),
    )
    assert inside.isfinite().all()
    assert (model.log_prob(outside.double()) == -math.inf).all()
    for dtype in (torch.float32, torch.float64):
        some = SquaredUniform(torch.tensor(1.7, dtype=dtype))
        assert some.log_prob(some.sample(100_000, generator=generator())).isfinite().all()
    z = model.sample(100, generator=generator())
    fitted = SquaredUniform.fit(z)
    assert fitted.log_prob(z).sum() >= model.log_prob(z).sum()
    assert abs(fitted.a.square() / z.max() - 1) <= 4 * EPS


def test_two_branches_add_up_and_the_density_jumps_where_one_ends():
    model = line.squared_interval(dtype=torch.float64)
    below, above = model.log_prob(torch.tensor([[0.81], [1.21]], dtype=torch.float64)).exp()
    assert abs(below - 2 / (3 * 2 * 0.9)) <= 10 * EPS  # two x of density 1/3, slope 2 * 0.9
    assert abs(above - 1 / (3 * 2 * 1.1)) <= 10 * EPS
    # With z = x^2 the integral is over |x|, on which the density is smooth but for the jump.
    mass, error = integrate.quad(
        lambda x: 2 * x * model.log_prob(torch.tensor([[x * x]], dtype=torch.float64)).exp().item(), 0, 2, points=[1.0]
    )
    assert abs(mass - 1) <= max(error, 1e-12)


def test_an_increasing_and_a_decreasing_map_of_the_same_law_mirror_each_other():
    base = gaussian.DiagonalGaussian(torch.zeros(1).double(), torch.ones(1).double())
    zero = torch.zeros_like
    up = Branch(-math.inf, math.inf, -math.inf, math.inf, lambda x: x + 1, lambda z: z - 1, zero)
    down = Branch(-math.inf, math.inf, -math.inf, math.inf, lambda x: 1 - x, lambda z: 1 - z, zero)
    z = torch.linspace(-3, 4, 9).double()[:, None]
    assert torch.equal(PiecewiseMonotone(base, [up]).log_prob(z), PiecewiseMonotone(base, [down]).log_prob(z))


# Many dimensions


@examples
@given(st.integers(1, 5), st.integers(0, 1000), st.floats(-8, 8))
def test_affine_image_of_a_gaussian_is_the_gaussian(d, seed, power):
    matrix = 10**power * (torch.randn(d, d, generator=generator(seed)).double() + 2 * torch.eye(d))
    shift = 10**power * torch.randn(d, generator=generator(seed + 1)).double()
    base = gaussian.gaussian_64d(dtype=torch.float64).marginal(range(d))
    image, oracle = AffineImage(base, AffineMap(matrix, shift)), base.affine(matrix, shift)
    z = oracle.sample(4, generator=generator())
    condition = torch.linalg.cond(matrix) * torch.linalg.cond(oracle.cholesky)
    tolerance = 100 * d**2 * EPS * condition
    size = 1 + oracle.squared_mahalanobis(z) + abs(power) * d
    assert (abs(image.log_prob(z) - oracle.log_prob(z)) <= tolerance * size).all()
    assert abs(image.entropy() - oracle.entropy()) <= tolerance * size.max()
    assert torch.allclose(image.mean(), oracle.mean(), rtol=tolerance.item(), atol=tolerance.item() * 10**power)


@pytest.mark.parametrize("preset", [space.parallelogram, space.banana])
def test_log_det_is_that_of_the_jacobian_and_inverse_undoes_forward(preset):
    model = preset(dtype=torch.float64)
    x = model.base.sample(6, generator=generator())
    assert torch.allclose(model.inverse(model.forward(x)), x, rtol=0, atol=1e3 * EPS)
    for row in x:
        jacobian = torch.autograd.functional.jacobian(lambda r: model.forward(r[None])[0], row)
        oracle = torch.linalg.slogdet(jacobian).logabsdet
        assert abs(model.log_det(row[None])[0] - oracle) <= 100 * EPS


def test_banana_agrees_with_its_conditionals():
    """z_1 is standard normal, and each next one is normal given those before it."""
    model = space.banana(dtype=torch.float64)
    z = model.sample(50, generator=generator())
    x, (s, t, u) = model.inverse(z), (model.bijection.scale, model.bijection.linear, model.bijection.quadratic)
    scale, loc = (x @ s.mT).tanh().exp(), x @ t.mT + x.square() @ u.mT
    oracle = stats.norm(loc.numpy(), scale.numpy()).logpdf(z.numpy()).sum(1)
    assert np.allclose(model.log_prob(z), oracle, rtol=1e3 * EPS, atol=1e3 * EPS)


def test_a_point_so_far_out_that_its_base_point_is_no_number_is_impossible():
    far = torch.diag(torch.full((3,), 1e300, dtype=torch.float64))
    assert (space.banana(dtype=torch.float64).log_prob(far) == -math.inf).all()
    assert space.banana(dtype=torch.float64).log_prob(torch.full((1, 3), math.nan).double()).isnan()


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: SquaredUniform(0.0), "above 0"),
        (lambda: SquaredUniform(math.nan), "above 0"),
        (lambda: SquaredUniform.fit(torch.tensor([[-1.0]])), "above 0"),
        (lambda: PiecewiseMonotone(Interval([0.0], [1.0]), []), "not empty"),
        (lambda: PiecewiseMonotone(gaussian.standard(), line.squares()), "on the line"),
        (lambda: PiecewiseMonotone(Interval([0.0], [1.0]), line.squares() + line.squares(0.5, 1.0)), "overlap"),
        (
            lambda: PiecewiseMonotone(Interval([-1.0], [1.0]), line.squares(0.0, 1.0)).sample(9, generator=generator()),
            "no branch covers",
        ),
        (lambda: AffineMap(torch.ones(2, 2), torch.zeros(2)), "singular"),
        (lambda: AffineMap(torch.ones(2, 3), torch.zeros(2)), "finite"),
        (lambda: TriangularMap(torch.eye(2), torch.zeros(2, 2), torch.zeros(2, 2)), "on or above the diagonal"),
        (lambda: Image(gaussian.correlated(), space.banana().bijection), "same dimension"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
