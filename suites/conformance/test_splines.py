"""Rational-quadratic splines against a plain evaluation in numpy, roots by bracketing, and autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize

from harness import check_model
from reference_impls import splines
from reference_impls.elementwise import Elementwise
from reference_impls.flows import Flow, StandardNormal
from reference_impls.splines import LEAST, Spline

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=20)
PRESETS = [splines.bent_line, splines.spline_coupling]


def softmax(a):
    e = np.exp(a - a.max())
    return e / e.sum()


def plain(x, theta, bins, bound):
    """z and dz/dx at one x, by the paper's equations (4) and (5)."""
    if abs(x) >= bound:
        return x, 1.0
    shares = [LEAST + (1 - bins * LEAST) * softmax(part) for part in (theta[:bins], theta[bins : 2 * bins])]
    xs, zs = (np.concatenate([[-bound], 2 * bound * np.cumsum(s) - bound]) for s in shares)
    slopes = np.concatenate([[1.0], LEAST + np.log1p(np.exp(theta[2 * bins :] + np.log(np.expm1(1 - LEAST)))), [1.0]])
    k = min(int(np.searchsorted(xs, x, side="right")) - 1, bins - 1)
    w, h = xs[k + 1] - xs[k], zs[k + 1] - zs[k]
    s, xi = h / w, (x - xs[k]) / w
    below = s + (slopes[k + 1] + slopes[k] - 2 * s) * xi * (1 - xi)
    z = zs[k] + h * (s * xi**2 + slopes[k] * xi * (1 - xi)) / below
    slope = s**2 * (slopes[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + slopes[k] * (1 - xi) ** 2) / below**2
    return z, slope


@st.composite
def cases(draw):
    bins, bound = draw(st.integers(2, 9)), draw(st.sampled_from([0.5, 3.0, 20.0]))
    size, seed = draw(st.sampled_from([0.0, 0.5, 2.0])), draw(st.integers(0, 99))
    theta = size * torch.randn(3 * bins - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Spline(bins, bound), theta


def rounding(spline, *values):
    """Some 50 roundings of numbers up to the bound, magnified by the steepest slope a bin can have, 1 / LEAST."""
    return 50 * EPS * (1 + spline.bound) / LEAST


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(cases())
def test_values_and_slopes_are_the_papers(case):
    spline, theta = case
    x = torch.linspace(-1.2 * spline.bound, 1.2 * spline.bound, 37, dtype=torch.float64)[:, None]
    z, log_slope = spline.pull(x, theta.expand(37, -1))
    expected = [plain(t, theta.numpy(), spline.bins, spline.bound) for t in x[:, 0].tolist()]
    allowed = rounding(spline)
    for found, slope, (value, derivative) in zip(z[:, 0].tolist(), log_slope[:, 0].tolist(), expected, strict=True):
        assert abs(found - value) <= allowed
        assert abs(-slope - np.log(derivative)) <= allowed / spline.bound * 10


@examples
@given(cases())
def test_the_way_back_is_the_root_that_bracketing_finds(case):
    spline, theta = case
    z = torch.linspace(-1.1 * spline.bound, 1.1 * spline.bound, 23, dtype=torch.float64)[:, None]
    x, log_slope = spline.push(z, theta.expand(23, -1))
    for found, slope, target in zip(x[:, 0].tolist(), log_slope[:, 0].tolist(), z[:, 0].tolist(), strict=True):
        ends = (-2 * spline.bound, 2 * spline.bound)
        function = lambda t, target=target: plain(t, theta.numpy(), spline.bins, spline.bound)[0] - target  # noqa: E731
        root = optimize.brentq(function, *ends, xtol=1e-14)
        derivative = plain(root, theta.numpy(), spline.bins, spline.bound)[1]
        assert abs(found - root) <= rounding(spline) / min(1.0, derivative)
        assert abs(slope + np.log(derivative)) <= rounding(spline) / LEAST


@examples
@given(cases())
def test_slopes_are_those_of_autograd_and_nothing_is_nan(case):
    spline, theta = case
    x = torch.linspace(-1.3 * spline.bound, 1.3 * spline.bound, 41, dtype=torch.float64)[:, None].requires_grad_()
    leaf = theta.clone().requires_grad_()
    for move, sign in ((spline.pull, -1), (spline.push, 1)):
        value, log_slope = move(x, leaf.expand(41, -1))
        by_x, by_theta = torch.autograd.grad(value.sum(), (x, leaf), retain_graph=True)
        gap = (by_x.log() - sign * log_slope).abs()
        assert gap.max() <= rounding(spline) / LEAST
        assert by_theta.isfinite().all()
        assert torch.autograd.grad(log_slope.sum(), leaf)[0].isfinite().all()


def test_zero_parameters_are_the_identity():
    spline = Spline(6, 2.0)
    x = torch.linspace(-3, 3, 25, dtype=torch.float64)[:, None]
    for move in (spline.pull, spline.push):
        value, log_slope = move(x, torch.zeros(25, spline.size, dtype=torch.float64))
        assert (value - x).abs().max() <= 20 * EPS
        assert log_slope.abs().max() <= 40 * EPS


def test_a_spline_flow_integrates_to_one():
    model = splines.bent_line(dtype=torch.float64)
    density = lambda t: model.log_prob(torch.tensor([[t]], dtype=torch.float64)).exp().item()  # noqa: E731
    (layer,) = model.map.layers
    knots = layer.univariate._bin(torch.zeros(1, 1, dtype=torch.float64), layer.theta[None], 0)
    assert len(knots) == 3
    parts = [integrate.quad(density, a, b, limit=200) for a, b in ((-9, -3), (-3, 0), (0, 3), (3, 9))]
    assert abs(sum(p for p, _ in parts) - 1) <= sum(e for _, e in parts) + 1e-12  # less the tails beyond 9


def test_the_full_preset_is_a_law():
    model = splines.full_spline()
    x = model.sample(5, generator=torch.Generator().manual_seed(0))
    assert model.log_prob(x).isfinite().all()


def test_far_outside_the_map_is_the_identity():
    model = Flow(StandardNormal(1), [Elementwise(1, Spline(4, 1.0), seed=1)])
    x = torch.tensor([[1e6], [-1e30], [1.0]])
    assert torch.equal(model.inverse(x), x)
    assert model.log_prob(torch.tensor([[torch.inf]])).tolist() == [-torch.inf]


@pytest.mark.parametrize("arguments", [{"bins": 1}, {"bins": 1000}, {"bound": 0.0}, {"bound": torch.inf}])
def test_mistakes_are_named(arguments):
    with pytest.raises(ValueError, match=r"bins = .* and bound = "):
        Spline(**arguments)
