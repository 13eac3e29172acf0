"""NADE: the recurrence against the formula as it stands, all states, finite differences, and the examiner."""

import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import check_model
from reference_impls import nade
from reference_impls.autoregressive import checked_labels
from reference_impls.nade import NADE, ConditionalNADE, nade_parameters, recurrence
from reference_impls.training import train

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=20)
PRESETS = [nade.eight_bits, nade.three_by_three, nade.labelled_bits]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(d):
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * d).reshape(-1, d)


def rounding(model):
    """A logit is a sum over hidden units of sums over coordinates; each of these errs by eps of its size at most."""
    size = float(model.V.detach().abs().sum(1).max()) * (1 + float(model.W.detach().abs().sum(0).max()))
    return EPS * (model.d + model.hidden + 8) * (1 + size)


@st.composite
def models(draw):
    d, hidden = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    order, seed = draw(st.permutations(range(d))), draw(st.integers(0, 99))
    model = NADE(d, hidden, order=order, seed=seed, std=draw(st.sampled_from([0.1, 1.0, 5.0]))).to(torch.float64)
    with torch.no_grad():
        for parameter in (model.b, model.c):
            parameter.copy_(torch.randn(parameter.shape, generator=generator(seed), dtype=torch.float64))
    return model


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(models())
def test_the_recurrence_is_the_formula_and_sums_to_one(model):
    x = states(model.d)
    with torch.no_grad():
        assert (model.logits(x == 1) - model.logits_naive(x == 1)).abs().max() <= rounding(model)
        assert abs(model.log_prob(x).logsumexp(0)) <= 2 * model.d * rounding(model)


@examples
@given(models())
def test_the_formula_of_the_paper_one_event_at_a_time(model):
    """h_k = sigma(W_<k x_<k + c), columns < k of one shared W (H, D), and h_1 = sigma(c)."""
    W, V, b, c, order = model.W.detach().mT, model.V.detach(), model.b.detach(), model.c.detach(), model.ordering()
    for x in states(model.d)[:: max(1, 2**model.d // 8)]:
        total, found = 0.0, model.conditionals(x[None])[0].tolist()
        for k, i in enumerate(order):
            a = c.clone()
            for j in order[:k]:
                a = a + W[:, j] * x[j]
            p = float(torch.sigmoid(b[i] + V[i] @ torch.sigmoid(a)))
            total += math.log(p if x[i] == 1 else 1 - p)
        # 1 - p loses digits where p is close to 1: a relative error of eps / (1 - p).
        slack = sum(EPS / max(EPS, math.exp(t)) for t in found)
        assert abs(total - sum(found)) <= model.d * rounding(model) + 4 * slack


@examples
@given(models(), st.integers(1, 8), st.integers(1, 6))
def test_blocks_of_steps_and_rows_change_neither_logits_nor_gradients(model, steps, rows):
    x = torch.randint(2, (5, model.d), generator=generator(1)).bool()
    weights = torch.randn(5, model.d, generator=generator(2), dtype=torch.float64)
    with patch.multiple(nade, STEPS=steps, NUMBERS=rows * model.hidden):
        logits = model.logits(x)
    naive = model.logits_naive(x)
    assert (logits - naive).abs().max() <= rounding(model)
    found, truth = (torch.autograd.grad((out * weights).sum(), list(model.parameters())) for out in (logits, naive))
    # A gradient is a sum over rows, steps and units of products of a weight here, an entry of V and a slope.
    size = float(weights.abs().sum()) * (1 + float(model.V.detach().abs().max()))
    for ours, theirs in zip(found, truth, strict=True):
        assert (ours - theirs).abs().max() <= 4 * rounding(model) * size


def test_the_recurrence_against_finite_differences():
    on = torch.rand(3, 4, generator=generator()) < 0.5
    start, W, V = (torch.randn(*s, generator=generator(7), dtype=torch.float64) for s in ((3, 2), (4, 2), (4, 2)))
    inputs = [t.requires_grad_() for t in (start, W, V)]
    with patch.object(nade, "STEPS", 3):
        assert torch.autograd.gradcheck(lambda *t: recurrence(on, *t), inputs)
        assert torch.autograd.gradgradcheck(lambda *t: recurrence(on, *t), inputs)


@examples
@given(models())
def test_an_order_is_a_renaming_of_coordinates(model):
    order = torch.tensor(model.ordering())
    plain = NADE(model.d, model.hidden).to(torch.float64)
    with torch.no_grad():
        for name in ("W", "V", "b"):
            getattr(plain, name).copy_(getattr(model, name)[order])
        plain.c.copy_(model.c)
    x = states(model.d)
    assert torch.allclose(plain.log_prob(x[:, order]), model.log_prob(x), rtol=0, atol=2 * model.d * rounding(model))


@examples
@given(models())
def test_conditionals_are_ratios_of_sums_over_what_comes_later(model):
    x, order = states(model.d), model.ordering()
    p = model.log_prob(x).exp().detach()
    for k, i in enumerate(order):
        same = [(x[:, None, order[:m]] == x[None, :, order[:m]]).all(-1).double() @ p for m in (k, k + 1)]
        # A sum of up to 2^d probabilities errs by eps of each; where p(x_<k) is small the ratio keeps these errors.
        slack = 2**model.d * (model.d * rounding(model) + EPS)
        assert (model.conditionals(x)[:, i].exp() - same[1] / same[0]).abs().max() <= 4 * slack


@pytest.mark.parametrize("preset", PRESETS)
def test_the_sampler_with_the_recurrence_is_the_one_without(preset):
    model = preset(dtype=torch.float64)
    ours, naive = (draw(500, generator=generator(3)) for draw in (model.sample, model.sample_naive))
    assert torch.equal(ours, naive)  # a uniform number within 1e-14 of an end: one draw in 10^11
    assert not ours.requires_grad


def test_given_a_label_the_law_sums_to_one_and_without_it_is_the_mixture():
    model, x = nade.labelled_bits(dtype=torch.float64), states(6)
    with torch.no_grad():
        each = torch.stack([model.log_prob(x, given=torch.full((64,), y)) for y in range(3)])
        assert each.logsumexp(1).abs().max() <= 12 * rounding(model)
        assert (model.log_prob(x) - (each.logsumexp(0) - math.log(3))).abs().max() <= 12 * rounding(model)
    y = torch.arange(3).repeat_interleave(2000)
    shares = torch.stack([part.mean(0) for part in model.sample(6000, given=y, generator=generator(5)).split(2000)])
    expected = each.exp() @ x
    assert (shares - expected).abs().max() <= math.sqrt(math.log(2 * 18 / 1e-9) / 2 / 2000)  # Hoeffding


def test_parameters_are_counted():
    assert sum(p.numel() for p in NADE(9, 5).parameters()) == nade_parameters(9, 5) == 2 * 9 * 5 + 5 + 9


def test_training_goes_down_and_stays_above_the_entropy():
    truth = nade.eight_bits()
    x = truth.sample(2000, generator=generator(9))
    model = NADE(8, 8, seed=1)
    history = train(model, model.loss, x, steps=60, batch=200, rate=3e-2)
    assert history[-10:].mean() < history[:10].mean()
    z = states(8).float()
    p = truth.log_prob(z)
    assert -(p.exp() * model.log_prob(z)).sum() >= -(p.exp() * p).sum()  # Gibbs


def test_what_is_no_bit_is_impossible():
    x = torch.tensor([[0.5] + [0.0] * 7, [math.nan] + [1.0] * 7, [2.0] + [0.0] * 7, [0.0] * 8])
    log_p = nade.eight_bits().log_prob(x)
    assert (log_p[:3] == -math.inf).all()
    assert log_p[3] > -math.inf
    assert nade.eight_bits().log_prob(torch.zeros(0, 8)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: NADE(4, 0), "hidden = 0 should be"),
        (lambda: NADE(3, 2, order=(0, 0, 1)), "permutation of the d = 3"),
        (lambda: NADE(0, 2), "permutation of the d = 0"),
        (lambda: ConditionalNADE(3, 2, 0), "classes = 0"),
        (lambda: NADE(3, 2).log_prob(torch.zeros(2, 4)), r"shape \(n, 3\)"),
        (lambda: nade.labelled_bits().log_prob(torch.zeros(2, 6), given=torch.tensor([0, 3])), "labels from 0 to 2"),
        (lambda: nade.labelled_bits().sample(3, given=torch.tensor([0, 1]), generator=generator()), "3 labels"),
        (lambda: checked_labels(torch.tensor([0.5]), 1, 2), "labels from 0 to 1"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
