"""Bernoullis and categoricals: parameters, fits, marginals and conditionals; the examiner finds nothing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import check_model
from reference_impls import discrete
from reference_impls.discrete import Bernoulli, Categorical

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=30)
chance = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-8, 1 - 1e-8]), st.floats(0, 1))


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", [discrete.coin, discrete.pixels, discrete.die])
def test_conforms(preset, dtype):
    report = check_model(preset(dtype=dtype), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(st.lists(chance, min_size=1, max_size=6))
def test_parameters_and_back(q):
    model = Bernoulli(f64(*q))
    again = model.with_parameters(model.parameters())
    assert len(model.parameters()) == model.d
    # theta is off by eps |theta| at most, which moves q by q (1 - q) |theta| eps; |theta| q (1 - q) < 1 always
    assert torch.allclose(again.probs, model.probs, rtol=0, atol=4 * EPS)


@examples
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6))
def test_parameters_of_a_categorical_and_back(counts):
    counts[-1] += 1
    model = Categorical(f64(*counts) / sum(counts))
    assert len(model.parameters()) == model.states - 1
    again = model.with_parameters(model.parameters())
    assert torch.allclose(again.probs, model.probs, rtol=0, atol=20 * EPS)  # |log| < 7, and a sum of 6


def test_a_certain_state_comes_back_and_two_do_not():
    certain = Categorical(f64(0, 1, 0))
    assert torch.equal(certain.with_parameters(certain.parameters()).probs, certain.probs)
    lost = Categorical(f64(0.5, 0.5, 0))
    with pytest.raises(ValueError, match="reorder the states so that the last is possible"):
        lost.with_parameters(lost.parameters())


def test_log_prob_is_differentiable_in_the_parameters():
    x = torch.tensor([0, 2, 2, 1, 2])
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    Categorical(f64(0.2, 0.3, 0.5)).with_parameters(theta).log_prob(x).sum().backward()
    assert torch.allclose(theta.grad, f64(1 - 5 / 3, 1 - 5 / 3), atol=10 * EPS)  # counts less n pi
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    Bernoulli(f64(0.5, 0.5)).with_parameters(theta).log_prob(f64([1, 0], [1, 1], [1, 0])).sum().backward()
    assert torch.allclose(theta.grad, f64(3 - 1.5, 1 - 1.5), atol=10 * EPS)


@examples
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_fits_are_shares(draws):
    x = torch.tensor(draws)
    start = Categorical(f64(0.1, 0.2, 0.3, 0.4))
    shares = [draws.count(k) / len(draws) for k in range(4)]
    assert start.fit(x).probs.tolist() == shares
    assert start.fit(x, smoothing=1.0).probs.tolist() == pytest.approx(
        [(draws.count(k) + 1) / (len(draws) + 4) for k in range(4)], rel=2 * EPS
    )
    bits = torch.stack([x == 0, x > 1], -1).double()
    fitted = Bernoulli.fit(bits)
    assert fitted.probs.tolist() == pytest.approx([shares[0], shares[2] + shares[3]], rel=2 * EPS)
    assert fitted.log_prob(bits).sum() >= Bernoulli(f64(0.4, 0.6)).log_prob(bits).sum() - 1e3 * EPS


def test_pixels_say_nothing_of_each_other():
    model = Bernoulli(f64(0.1, 0.2, 0.3, 1.0))
    assert model.marginal([2, 0]).probs.tolist() == [0.3, 0.1]
    assert model.conditional([3, 1], torch.tensor([1, 0])).probs.tolist() == [0.1, 0.3]
    assert model.mutual_information([0, 1], [2]) == 0
    assert torch.equal(model.covariance().diagonal(), model.variance())
    assert math.isinf(Bernoulli(f64(0, 1)).parameters().abs().min())


DIE = discrete.die()
PIXELS = Bernoulli(f64(0.5, 1.0))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: PIXELS.marginal([]), "indices should name one or more"),
        (lambda: PIXELS.marginal([2]), "coordinates 0 to 1"),
        (lambda: PIXELS.marginal([0, 0]), "each coordinate once"),
        (lambda: PIXELS.conditional([0, 1], torch.ones(2)), "leave out at least one"),
        (lambda: PIXELS.conditional([1], torch.zeros(1)), "probability zero; condition on possible values"),
        (lambda: PIXELS.conditional([0], torch.zeros(2)), "values should have shape"),
        (lambda: PIXELS.mutual_information([0], [0, 1]), r"both hold \[0\]"),
        (lambda: Bernoulli.fit(torch.full((3, 1), 0.5)), "binarise it first"),
        (lambda: Bernoulli.fit(torch.zeros(0, 2)), "n > 0"),
        (lambda: DIE.fit(torch.tensor([0, 6])), "states .* from 0 to 5"),
        (lambda: DIE.fit(torch.zeros(0)), "n > 0"),
        (lambda: DIE.fit(torch.tensor([math.nan])), "from 0 to 5"),
        (lambda: DIE.fit(torch.tensor([0]), smoothing=-1.0), "smoothing should be a finite number"),
        (lambda: DIE.with_parameters(torch.zeros(6)), r"theta should have shape \(5,\)"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
