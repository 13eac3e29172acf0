"""Noise schedules against quadrature of their rates, direct Gaussian algebra, and products over a chain."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from reference_impls.schedules import (
    EDM,
    Linear,
    Steps,
    SubVP,
    VarianceExploding,
    VariancePreserving,
    cosine_betas,
    linear_betas,
)

EPS = torch.finfo(torch.float64).eps
SCHEDULES = {
    "edm": EDM(),
    "ve": VarianceExploding(),
    "vp": VariancePreserving(),
    "sub_vp": SubVP(),
    "short_vp": VariancePreserving(Linear(2.0, 2.0, 0.02, 3.0)),
    "ddpm": VariancePreserving(Steps(linear_betas())),
    "cosine": VariancePreserving(Steps(cosine_betas(100))),
}
examples = settings(derandomize=True, deadline=None, max_examples=100)
part = st.floats(0, 1)


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def between(schedule, share):
    first, last = schedule.time_range()
    return first + share * (last - first)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_rates_are_those_of_the_kernel(schedule):
    """d log scale = f dt and d sigma^2 = (g^2 + 2 f sigma^2) dt, by quadrature between two times of one step."""
    first, last = schedule.time_range()
    for share in (0.02, 0.5, 0.9):
        a = between(schedule, share)
        a = math.floor(a) + 0.1 if last >= 100 else a  # rates of a chain jump at whole times
        b = a + min(0.5, (last - first) / 100)
        scale, sigma = schedule.schedule(times(a, b))

        def drift(t):
            return float(schedule.rates(times(t))[0])

        def growth(t):
            rate, square = (float(v) for v in schedule.rates(times(t)))
            return square + 2 * rate * float(schedule.schedule(times(t))[1]) ** 2

        for rate, gain in ((drift, (scale[1] / scale[0]).log()), (growth, sigma[1].square() - sigma[0].square())):
            value, error = integrate.quad(rate, a, b)
            assert abs(value - float(gain)) <= error + 100 * EPS * (1 + abs(value) + float(sigma[1]) ** 2)


@examples
@given(st.sampled_from(list(SCHEDULES)), part, part, part)
def test_kernels_compose_and_go_back_by_gaussian_algebra(name, x, y, z):
    """Bayes in precisions, where the model works with variances."""
    schedule = SCHEDULES[name]
    s, t, u = (times(between(schedule, share)) for share in sorted((x, y, z)))
    if not bool((s < t) & (t < u)):
        return
    (scale_s, sigma_s), (_, sigma_t), (scale_u, sigma_u) = map(schedule.schedule, (s, t, u))
    (r_st, st_), (r_tu, tu), (r_su, su) = (schedule.transition(*pair) for pair in ((s, t), (t, u), (s, u)))
    unit = 1000 * EPS * (1 + sigma_u.square())  # products over up to 1000 steps
    assert (r_su - r_tu * r_st).abs() <= unit
    assert (su.square() - r_tu.square() * st_.square() - tu.square()).abs() <= unit
    assert (sigma_u.square() - r_su.square() * sigma_s.square() - su.square()).abs() <= unit
    assert (scale_u - r_su * scale_s).abs() <= unit
    a, b, c = schedule.backward(s, t)
    precision = 1 / sigma_s.square() + r_st.square() / st_.square()
    slack = 1000 * EPS * (sigma_t / st_).square() * (1 + scale_s)  # digits of a short step
    assert (c.square() * precision - 1).abs() <= slack
    assert (a - scale_s / sigma_s.square() / precision).abs() <= slack
    assert (b - r_st / st_.square() / precision).abs() <= slack * (1 + b)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_times_of_a_solver_go_from_the_last_to_the_first_by_levels(schedule):
    like = torch.zeros(1, dtype=torch.float64)
    grid = schedule.times(20, like)
    assert (float(grid[0]), float(grid[-1])) == schedule.time_range()[::-1]
    assert (grid.diff() < 0).all()
    roots = schedule.level(grid) ** (1 / 7)
    assert (roots.diff(n=2).abs() <= 1e5 * EPS * roots.max()).all()  # evenly spaced; exp and log of a chain of 1000
    assert schedule.times(20, like.float()).dtype == torch.float32


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_ends(schedule):
    scale, sigma = schedule.schedule(times(*schedule.time_range()))
    assert scale[0] > 0.95
    assert sigma[-1] / scale[-1] > 4
    assert (sigma[1:] / scale[1:] > sigma[:-1] / scale[:-1]).all()


def test_song_and_ho():
    """Their numbers: sigma from 0.01 to 50; the products of alphas; int_0^1 beta = 10.05."""
    _, sigma = SCHEDULES["ve"].schedule(times(0.0, 0.5, 1.0))
    assert torch.allclose(sigma, times(0.01, math.sqrt(0.5), 50.0), rtol=10 * EPS, atol=0)
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    scale, sigma = SCHEDULES["ddpm"].schedule(torch.arange(1, 1001, dtype=torch.float64))
    assert np.allclose(scale.square().numpy(), kept, rtol=1000 * EPS, atol=0)
    assert np.allclose(sigma.square().numpy(), 1 - kept, rtol=0, atol=1000 * EPS)
    scale, sigma = SCHEDULES["sub_vp"].schedule(times(1.0))
    assert abs(float(scale.log()) + 10.05 / 2) <= 10 * EPS * 10.05
    assert abs(float(sigma) - (1 - math.exp(-10.05))) <= 2 * EPS
    _, one = SCHEDULES["ddpm"].transition(times(499.0), times(500.0))
    assert abs(float(one) ** 2 - np.linspace(1e-4, 0.02, 1000)[499]) <= 1000 * EPS  # beta_500


def test_small_times_keep_their_digits_in_float32():
    t = torch.tensor([1e-6])
    for schedule in (SCHEDULES["vp"], SCHEDULES["sub_vp"]):
        narrow, wide = schedule.schedule(t)[1], schedule.schedule(t.double())[1]
        assert abs(float(narrow / wide) - 1) <= 8 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: EDM(0.0, 1.0), "first = 0.0 should be positive"),
        (lambda: EDM(2.0, 1.0), "less than last"),
        (lambda: VarianceExploding(1.0, 0.5), "sigma_min"),
        (lambda: Linear(0.0), "beta_min"),
        (lambda: Steps(torch.tensor([0.1, 1.0])), "betas should be"),
        (lambda: Steps(torch.tensor([[0.1, 0.2]])), "betas should be"),
        (lambda: SCHEDULES["ddpm"].schedule(times(1001.0)), "times should be from 0 to 1000"),
        (lambda: EDM().times(0, times(1.0)), "one step or more"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
