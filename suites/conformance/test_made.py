"""MADE: masks by counting paths, by perturbation, all states, and the examiner."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import check_model
from reference_impls import made
from reference_impls.autoregressive_logistic import AutoregressiveLogistic
from reference_impls.made import MADE, ConditionalMADE
from reference_impls.training import train

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=20)
PRESETS = [made.eight_bits, made.labelled_bits]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(d):
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * d).reshape(-1, d)


@st.composite
def models(draw):
    d = draw(st.integers(1, 7))
    hidden = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    seed = draw(st.integers(0, 99))
    model = MADE(d, hidden, order=draw(st.permutations(range(d))), seed=seed, gain=draw(st.sampled_from([0.5, 2.0])))
    with torch.no_grad():
        model.direct.copy_(torch.randn(d, d, generator=generator(seed)))
    return model.to(torch.float64)


def rounding(model):
    """Products of layers, each a sum of as many terms as it has units; sizes by the triangle inequality."""
    size = 1.0
    for i in range(len(model.weights)):
        size = float(model._weight(i).detach().abs().sum(1).max()) * size + 1
    size += float(model.direct.detach().abs().sum(1).max())
    return EPS * (sum(map(len, model.degrees)) + 8) * (1 + size)


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(models())
def test_no_path_leads_from_a_bit_to_itself_or_to_one_before_it(model):
    """The product of the masks counts paths: entry (k, j) is 0 unless j < k, and a path is there where one can be."""
    paths = torch.eye(model.d)
    for i in range(len(model.weights)):
        paths = getattr(model, f"mask_{i}").float() @ paths
    assert not paths.triu().any()
    if all(len(degrees) >= model.d - 1 for degrees in model.degrees[1:-1]):
        assert (paths > 0).equal(torch.ones_like(paths).tril(-1) > 0)


@examples
@given(models())
def test_the_law_sums_to_one_and_is_causal_in_every_bit(model):
    x = states(model.d)
    with torch.no_grad():
        assert abs(model.log_prob(x).logsumexp(0)) <= 4 * model.d * rounding(model)
        logits = model.logits(x == 1)
        for k, i in enumerate(model.ordering()):
            changed = x.clone()
            changed[:, i] = 1 - changed[:, i]
            kept = model.ordering()[: k + 1]
            assert torch.equal(model.logits(changed == 1)[:, kept], logits[:, kept])


@examples
@given(st.integers(1, 6), st.integers(0, 99))
def test_without_hidden_weights_it_is_autoregressive_logistic_regression(d, seed):
    model = MADE(d, (3,), seed=seed).to(torch.float64)
    weight = torch.randn(d, d, generator=generator(seed), dtype=torch.float64).tril(-1)
    bias = torch.randn(d, generator=generator(seed + 1), dtype=torch.float64)
    with torch.no_grad():
        model.weights[-1].zero_()
        model.biases[-1].copy_(bias)
        model.direct.copy_(weight)
    x = states(d)
    assert torch.allclose(
        model.log_prob(x), AutoregressiveLogistic(weight, bias).log_prob(x), rtol=0, atol=8 * d * rounding(model)
    )


@examples
@given(models())
def test_the_sampler_of_one_pass_is_that_of_d_passes(model):
    ours, naive = (draw(200, generator=generator(3)) for draw in (model.sample, model.sample_naive))
    assert torch.equal(ours, naive)  # a uniform number within 1e-13 of an end: one draw in 10^10
    assert not ours.requires_grad


def test_units_of_every_degree_are_there_whatever_the_width():
    for width, d in ((500, 784), (3, 784), (1000, 20)):
        degrees = MADE(d, (width,)).degrees[1]
        assert len(degrees.unique()) == min(width, d - 1)
        assert degrees.min() == 1
        assert degrees.max() >= (d - 1) * (1 - 1 / width)


def test_given_a_label_the_law_sums_to_one_and_without_it_is_the_mixture():
    model, x = made.labelled_bits(dtype=torch.float64), states(6)
    with torch.no_grad():
        each = torch.stack([model.log_prob(x, given=torch.full((64,), y)) for y in range(3)])
        mixed = model.log_prob(x)
    slack = 1e3 * EPS * 64  # labels' biases are of size 1 as well; logits are sums of under a hundred terms below ten
    assert each.logsumexp(1).abs().max() <= slack
    assert (mixed - (each.logsumexp(0) - math.log(3))).abs().max() <= slack


def test_training_goes_down():
    x = made.eight_bits().sample(2000, generator=generator(9))
    model = MADE(8, (16,), seed=1)
    history = train(model, model.loss, x, steps=60, batch=200, rate=1e-2)
    assert history[-10:].mean() < history[:10].mean()


def test_what_is_no_bit_is_impossible():
    x = torch.tensor([[0.5] + [0.0] * 7, [math.nan] + [1.0] * 7, [0.0] * 8])
    assert (made.eight_bits().log_prob(x) == -math.inf).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: MADE(4, ()), r"hidden = \[\] should be"),
        (lambda: MADE(4, (3, 0)), r"hidden = \[3, 0\] should be"),
        (lambda: MADE(3, (2,), order=(0, 0, 1)), "permutation of the d = 3"),
        (lambda: ConditionalMADE(3, (2,), 0), "classes = 0"),
        (lambda: MADE(3, (2,)).log_prob(torch.zeros(2, 4)), r"shape \(n, 3\)"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
