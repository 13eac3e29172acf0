"""RNADE: quadrature, torch's own mixtures, the Gaussian that it has as a special case, and the examiner."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from harness import check_model
from reference_impls import rnade
from reference_impls.rnade import RNADE
from reference_impls.training import train

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=15)
PRESETS = [rnade.bent_pair, rnade.three_numbers]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def models(draw):
    d, hidden, components = (draw(st.integers(1, most)) for most in (5, 6, 3))
    order = draw(st.permutations(range(d)))
    return RNADE(d, hidden, components, order=order, seed=draw(st.integers(0, 99))).to(torch.float64)


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    only = ["autoregressive", "log_prob", "sample"]
    report = check_model(preset(), effort="quick", seed=0, only=only)
    assert not report.failures, report.failures


@examples
@given(models())
def test_conditionals_by_the_paper_s_formula_and_torch_s_mixtures(model):
    model.requires_grad_(False)
    x = torch.randn(4, model.d, generator=generator(1), dtype=torch.float64)
    found, order = model.conditionals(x), model.ordering()
    for k, i in enumerate(order):
        a = model.c + sum((x[:, j, None] * model.W[j] for j in order[:k]), torch.zeros(4, model.hidden).double())
        h = torch.clamp(model.rho[i] * a, min=0)
        logits, mean, log_s = (h @ model.V[i] + model.b[i]).chunk(3, -1)
        law = MixtureSameFamily(Categorical(logits=logits), Normal(mean, log_s.exp()))
        truth = law.log_prob(x[:, i])
        # A numbers' error of eps times its terms is multiplied by the slope of log N, (|e| + 1)^2 at most.
        e = ((x[:, i, None] - mean) / log_s.exp()).abs().max()
        size = 1 + float(model.V[i].abs().sum()) * float(h.abs().max()) + float(mean.abs().max() / log_s.exp().min())
        assert (found[:, i] - truth).abs().max() <= 32 * EPS * model.d * size * float(1 + e) ** 2


def test_the_density_integrates_to_one_along_each_conditional():
    model = rnade.three_numbers(dtype=torch.float64)
    x = model.sample(1, generator=generator(2))
    for i in range(3):

        def density(value, i=i):
            moved = x.clone()
            moved[0, i] = value
            return float(model.conditionals(moved)[0, i].exp())

        mass, error = integrate.quad(density, -60, 60, points=[float(x[0, i])], limit=500)
        assert abs(mass - 1) <= error + 1e3 * EPS


def test_one_component_with_a_linear_mean_is_a_gaussian():
    """x_2 | x_1 ~ N(w x_1 + b, s^2) by two units, relu(x) and relu(-x), whose difference is x: (L D L^T) as RNADE."""
    model = RNADE(2, 2, 1).to(torch.float64)
    s, w, b = (1.5, 0.7), 0.8, (-0.3, 0.4)
    with torch.no_grad():
        for parameter in (model.W, model.c, model.V, model.b):
            parameter.zero_()
        model.W[0] = torch.tensor([1.0, -1.0])
        model.V[1, :, 1] = torch.tensor([w, -w])
        model.b[:, 1] = torch.tensor(b)
        model.b[:, 2] = torch.tensor(s).log()
    lower = torch.tensor([[s[0], 0.0], [w * s[0], s[1]]], dtype=torch.float64)
    truth = MultivariateNormal(torch.tensor([b[0], w * b[0] + b[1]], dtype=torch.float64), scale_tril=lower)
    x = 3 * torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    float32 = torch.finfo(torch.float32).eps  # b, log s and w were made in float32
    slack = 16 * float32 * (1 + x.abs().max()) ** 2
    assert (model.log_prob(x) - truth.log_prob(x)).abs().max() <= slack


def test_rosenblatt_s_transform_of_draws_is_uniform():
    """By the mixtures' own distribution functions, which the model does not use; Kolmogorov's test at 1e-6 each."""
    model = rnade.three_numbers(dtype=torch.float64)
    x = model.sample(4000, generator=generator(4))
    logits, mean, log_s = model._mixtures(x)
    u = (logits.exp() * torch.special.ndtr((x[..., None] - mean) / log_s.exp())).sum(-1).detach()
    for column in (*u.T, (u[:, 0] + u[:, 1]) % 1, (u[:, 1] + u[:, 2]) % 1):  # sums modulo 1 see pairs
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-6


@examples
@given(models())
def test_the_sampler_with_the_recurrence_is_the_one_without(model):
    ours, naive = (draw(20, generator=generator(3)) for draw in (model.sample, model.sample_naive))
    # Errors of eps are multiplied by slopes of means and scales, coordinate after coordinate.
    stretch = float(1 + model.W.detach().abs().max() * model.V.detach().abs().sum((1, 2)).max() * 30) ** (model.d - 1)
    assert (ours - naive).abs().max() <= 1e3 * EPS * stretch * float(1 + ours.abs().max())
    assert not ours.requires_grad


def test_rows_at_a_time_are_rows_together():
    model = RNADE(63, 64, 2, seed=1, std=0.1).to(torch.float64)
    x = torch.randn(100, 63, generator=generator(), dtype=torch.float64)
    with torch.no_grad():
        apart = model.log_prob(x)
    together = model.log_prob(x)  # with a graph
    assert (apart - together).abs().max() <= 1e3 * EPS * together.abs().max()


def test_gradients_against_differences():
    model = RNADE(3, 4, 2, seed=5).to(torch.float64)
    x = torch.randn(2, 3, generator=generator(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.log_prob, [x])


def test_training_goes_down():
    x = rnade.bent_pair().sample(1000, generator=generator(9))
    model = RNADE(2, 8, 2, seed=1)
    history = train(model, model.loss, x, steps=60, batch=200, rate=1e-2)
    assert history[-10:].mean() < history[:10].mean()


def test_edges():
    model = rnade.bent_pair()
    assert model.log_prob(torch.zeros(0, 2)).shape == (0,)
    assert not model.log_prob(torch.tensor([[math.nan, 0.0]])).isfinite()
    assert not model.log_prob(torch.tensor([[math.inf, 0.0]])).isfinite()


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: RNADE(4, 0, 1), "hidden = 0 and components = 1"),
        (lambda: RNADE(4, 1, 0), "hidden = 1 and components = 0"),
        (lambda: RNADE(3, 2, 1, order=(0, 0, 1)), "permutation of the d = 3"),
        (lambda: RNADE(3, 2, 1).log_prob(torch.zeros(2, 4)), r"shape \(n, 3\)"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
