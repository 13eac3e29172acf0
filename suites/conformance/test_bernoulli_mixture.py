"""Bernoulli mixtures against enumeration and the laws of EM."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import check_model
from reference_impls import bernoulli_mixture
from reference_impls.bernoulli_mixture import (
    BernoulliMixture,
    expectation_maximisation,
    fit_bernoulli_mixture,
    pool,
    random_start,
)

PRESETS = (bernoulli_mixture.strokes, bernoulli_mixture.exclusive)
EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=15)
seeds = st.integers(0, 10**6)
probabilities = st.sampled_from([0.0, 1.0, 1e-8, 0.3, 0.5, 0.9])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(d):
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * d).reshape(-1, d)


@st.composite
def mixtures(draw):
    d, k = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    weights = torch.rand(k, generator=generator(draw(seeds)), dtype=torch.float64)
    probs = [[draw(probabilities) for _ in range(d)] for _ in range(k)]
    return BernoulliMixture(weights / weights.sum(), torch.tensor(probs, dtype=torch.float64))


def naive(model, x):
    """The definition, with scipy's Bernoulli masses."""
    masses = stats.bernoulli.pmf(x[:, None].numpy(), model.probs.numpy())  # (n, k, d)
    return torch.from_numpy(masses.prod(-1)) @ model.weights


@examples
@given(mixtures())
def test_every_state_has_its_mass(model):
    x = states(model.d)
    mass = model.log_prob(x).exp()
    # Of a log-mass as large as |log 1e-8| d, with d + k terms; relative to the mass itself.
    bound = 8 * (model.d + 4) * EPS * (1 + 19 * model.d)
    assert torch.allclose(mass, naive(model, x), rtol=bound, atol=0)
    assert abs(mass.sum() - 1) <= bound
    assert torch.equal(mass == 0, naive(model, x) == 0)


@examples
@given(mixtures())
def test_moments_are_sums_over_states(model):
    x = states(model.d)
    share = naive(model, x)
    offset = x - share @ x
    covariance = (share[:, None] * offset).mT @ offset
    bound = 16 * len(x) * EPS
    assert torch.allclose(model.mean(), share @ x, rtol=0, atol=bound)
    assert torch.allclose(model.covariance(), covariance, rtol=0, atol=bound)
    assert torch.allclose(model.variance(), covariance.diagonal(), rtol=0, atol=bound)


@examples
@given(mixtures(), st.data())
def test_marginals_and_conditionals_are_sums_over_states(model, data):
    if model.d == 1:
        return
    a = data.draw(st.permutations(range(model.d)))[: data.draw(st.integers(1, model.d - 1))]
    b = [i for i in range(model.d) if i not in a]
    x = states(model.d)
    joint = naive(model, x)
    for values in states(len(a)):
        seen = (x[:, a] == values).all(-1)
        total = joint[seen].sum()
        marginal = model.marginal(a).log_prob(values[None])[0].exp()
        assert abs(marginal - total) <= 64 * len(x) * EPS * total
        if total == 0:
            with pytest.raises(ValueError, match="possible"):
                model.conditional(a, values)
            continue
        conditional = model.conditional(a, values).log_prob(x[seen][:, b]).exp()
        assert torch.allclose(conditional, joint[seen] / total, rtol=1e3 * EPS, atol=64 * EPS)


def test_what_is_no_bit_is_impossible_and_harmless():
    model = bernoulli_mixture.exclusive(dtype=torch.float64)
    x = torch.tensor([[0.5, 0, 0, 0], [2.0, 0, 0, 0], [math.nan, 0, 0, 1], [1.0, 1, 0, 0]], dtype=torch.float64)
    assert (model.log_prob(x) == -math.inf).all()
    probs = bernoulli_mixture.strokes(dtype=torch.float64).probs.requires_grad_()
    value = BernoulliMixture(torch.tensor([0.5, 0.25, 0.25]).double(), probs).log_prob(torch.zeros(1, 9).double())
    assert torch.autograd.grad(value.sum(), probs)[0].isfinite().all()


def test_parameters_are_free_and_complete():
    model = bernoulli_mixture.strokes(dtype=torch.float64)
    theta = model.parameters()
    x = model.sample(6, generator=generator())
    assert theta.shape == (3 - 1 + 3 * 9,)
    assert torch.allclose(model.with_parameters(theta).log_prob(x), model.log_prob(x), rtol=100 * EPS, atol=0)
    assert torch.autograd.gradcheck(lambda t: model.with_parameters(t).log_prob(x), theta.requires_grad_())


def test_draws_follow_the_masses():
    model = bernoulli_mixture.strokes(dtype=torch.float64)
    x = model.sample(20_000, generator=generator(3))
    code = (x @ (2.0 ** torch.arange(9, dtype=torch.float64))).long()
    counts = torch.bincount(code, minlength=512).double()
    order = (states(9).flip(-1) @ (2.0 ** torch.arange(9, dtype=torch.float64))).long()
    expected = torch.empty(512, dtype=torch.float64)
    expected[order] = 20_000 * model.log_prob(states(9).flip(-1)).exp()
    common = expected >= 5
    if not common.all():  # the rare states are taken together
        counts = torch.cat([counts[common], counts[~common].sum()[None]])
        expected = torch.cat([expected[common], expected[~common].sum()[None]])
    # The seed is fixed; of all seeds, one in a thousand would fail here.
    assert stats.chisquare(counts.numpy(), (expected * 20_000 / expected.sum()).numpy()).pvalue > 1e-3


# Estimation


@examples
@given(mixtures(), st.sampled_from([0.0, 0.1, 2.0]), seeds)
def test_em_never_loses(truth, prior, seed):
    x = truth.sample(40, generator=generator(seed))
    start = random_start(x, 3, generator=generator(seed))
    if prior:  # a start of certain pixels has prior density 0
        start = BernoulliMixture(start.weights, start.probs.clamp(0.01, 0.99))
    history = expectation_maximisation(start, x, prior=prior, iterations=30).history
    size = history.abs().max() + 40
    assert (history.diff() >= -40 * 100 * EPS * size).all()


def test_a_pixel_that_never_changes_is_smoothed_like_the_others():
    """The start allows all draws, though the prior does not allow the start; q = (n x + prior) / (n + 2 prior)."""
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    fitted = fit_bernoulli_mixture(x, 1, generator=generator(0), prior=1.0)
    torch.testing.assert_close(fitted.probs[0], torch.tensor([4 / 5, 2 / 5], dtype=torch.float64))


def test_one_component_is_the_mean():
    x = bernoulli_mixture.strokes(dtype=torch.float64).sample(200, generator=generator())
    fitted = fit_bernoulli_mixture(x, 1, generator=generator(1))
    assert torch.allclose(fitted.probs[0], x.mean(0), rtol=100 * EPS, atol=0)
    smoothed = fit_bernoulli_mixture(x, 1, generator=generator(1), prior=0.5)
    assert torch.allclose(smoothed.probs[0], (x.sum(0) + 0.5) / 201, rtol=100 * EPS, atol=0)


def test_one_draw_is_learnt_by_heart():
    x = torch.tensor([[1.0, 0.0, 1.0]])
    fitted = fit_bernoulli_mixture(x, 2, generator=generator())
    assert fitted.log_prob(x).exp().item() == pytest.approx(1, rel=8 * torch.finfo(torch.float32).eps)


def test_fit_beats_the_truth_and_leaves_no_slope():
    truth = bernoulli_mixture.strokes(dtype=torch.float64)
    x = truth.sample(1000, generator=generator(4))
    for fitted in (truth.fit(x, tolerance=1e-13), truth.fit(x, generator=generator(5), tolerance=1e-13)):
        assert fitted.log_prob(x).sum() >= truth.log_prob(x).sum()
        theta = fitted.parameters().requires_grad_()
        assert theta.isfinite().all()
        (slope,) = torch.autograd.grad(fitted.with_parameters(theta).log_prob(x).mean(), theta)
        assert slope.abs().max() <= 10 * math.sqrt(1e-13)  # near the top a gain is the square of a slope


def test_a_pool_is_the_even_mixture():
    parts = [bernoulli_mixture.strokes(dtype=torch.float64)]
    parts.append(BernoulliMixture(parts[0].weights.flip(0), parts[0].probs))
    x = states(9)
    even = (parts[0].log_prob(x).exp() + parts[1].log_prob(x).exp()) / 2
    assert torch.allclose(pool(parts).log_prob(x).exp(), even, rtol=200 * EPS, atol=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_conform(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert report.passed, report.failures


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: BernoulliMixture(torch.ones(1), torch.tensor([[1.2]])), "between 0 and 1"),
        (lambda: BernoulliMixture(torch.ones(1), torch.tensor([[math.nan]])), "between 0 and 1"),
        (lambda: BernoulliMixture(torch.ones(1), torch.ones(2, 3) / 2), "1 weights"),
        (lambda: BernoulliMixture(torch.tensor([0.5, 0.4]), torch.ones(2, 3) / 2), "sum to 1"),
        (lambda: bernoulli_mixture.strokes().log_prob(torch.zeros(3)), "shape"),
        (lambda: fit_bernoulli_mixture(torch.tensor([[0.5]]), 1, generator=generator()), "values 0 and 1"),
        (lambda: fit_bernoulli_mixture(torch.zeros(0, 2), 1, generator=generator()), "n > 0"),
        (lambda: fit_bernoulli_mixture(torch.zeros(2, 2), 0, generator=generator()), "positive"),
        (lambda: expectation_maximisation(bernoulli_mixture.exclusive(), torch.zeros(2, 4)), "probability 0"),
        (lambda: bernoulli_mixture.strokes().fit(torch.zeros(2, 9), prior=-1.0), "prior"),
        (lambda: bernoulli_mixture.strokes().conditional([0], torch.zeros(2)), "1 pixels"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
