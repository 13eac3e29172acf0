"""Joint tables, independent products and chain-rule tables against enumeration, in numpy and in each other."""

import math
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import check_model
from reference_impls import tables
from reference_impls.parameter_counts import (
    autoregressive_softmax_parameters,
    autoregressive_softmax_shapes,
    chain_rule_parameters,
    independent_parameters,
    joint_parameters,
)
from reference_impls.tables import ChainRuleTable, IndependentCategoricals, JointTable

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=25)
PRESETS = [tables.binary_image, tables.rgb_pixel, tables.independent, tables.chain_rule]
TOLERANCE = 200 * EPS
"""Sums of fewer than 40 products of numbers at most 9, each rounded once or twice."""


@st.composite
def joints(draw, most=3):
    """A table of up to four variables with up to three states, some impossible."""
    states = draw(st.lists(st.integers(1, most), min_size=2, max_size=4))
    size = math.prod(states)
    weights = np.array(draw(st.lists(st.sampled_from([0.0, 1e-8, 1.0, 2.0, 3.0]), min_size=size, max_size=size)))
    weights[draw(st.integers(0, size - 1))] += 1
    return JointTable(torch.from_numpy(weights / weights.sum()).reshape(states))


def all_states(states):
    return torch.tensor(list(product(*map(range, states))))


def close(a, b, tolerance=TOLERANCE):
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (a, b))
    return bool((a - b).abs().max() <= tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset, dtype):
    report = check_model(preset(dtype=dtype), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(joints())
def test_a_table_by_enumeration_in_numpy(model):
    x = all_states(model.states)
    p = model.probs.numpy().ravel()
    assert np.array_equal(model.log_prob(x).exp().numpy() > 0, p > 0)
    assert close(model.log_prob(x).exp(), torch.from_numpy(p))
    mean = p @ x.numpy()
    offset = x.numpy() - mean
    assert close(model.mean(), torch.from_numpy(mean))
    assert close(model.covariance(), torch.from_numpy((p[:, None] * offset).T @ offset))
    assert close(model.variance(), model.covariance().diagonal())
    assert close(model.entropy(), -(p[p > 0] @ np.log(p[p > 0])))


@examples
@given(joints(), st.randoms(use_true_random=False))
def test_marginals_conditionals_and_information(model, random):
    p, d = model.probs.numpy(), model.d
    a = random.sample(range(d), random.randint(1, d - 1))
    b = [i for i in range(d) if i not in a]
    both = np.transpose(p, a + b)
    assert close(model.marginal(a).probs, torch.from_numpy(both.reshape(*both.shape[: len(a)], -1).sum(-1)))
    for values in product(*(range(model.states[i]) for i in a)):
        rest = both[values]
        if rest.sum() > 0:
            conditional = model.conditional(a, torch.tensor(values))
            assert close(conditional.probs, torch.from_numpy(rest / rest.sum()))
        else:
            with pytest.raises(ValueError, match="probability zero"):
                model.conditional(a, torch.tensor(values))
    entropies = [model.marginal(block).entropy() for block in (a, b)]
    information = model.mutual_information(a, b)
    assert information >= 0
    assert close(information, sum(entropies) - model.entropy(), 1e3 * EPS)


@examples
@given(joints(most=2))
def test_the_chain_rule_gives_the_table_back_in_every_order(model):
    x = all_states(model.states)
    for order in permutations(range(model.d)):
        chain = ChainRuleTable.from_joint(model, order)
        assert close(chain.joint().probs, model.probs)
        assert close(chain.log_prob(x).exp(), model.log_prob(x).exp())
        assert close(chain.entropy(), model.entropy(), 1e3 * EPS)
        assert chain.kl(ChainRuleTable.from_joint(model, range(model.d))) <= TOLERANCE


def test_each_conditional_is_one_of_the_order():
    chain = tables.chain_rule(dtype=torch.float64)
    x = all_states(chain.states)
    assert close(chain.log_conditionals(x).sum(-1), chain.log_prob(x))
    for k in range(1, chain.d + 1):
        prefix = chain.joint().marginal(chain.order[:k])
        assert close(chain.log_conditionals(x)[:, :k].sum(-1), prefix.log_prob(x[:, chain.order[:k]]), 1e3 * EPS)


def test_the_nearest_product_is_that_of_the_marginals_at_the_total_correlation():
    model = tables.binary_image(dtype=torch.float64)
    singles = [model.marginal([i]) for i in range(model.d)]
    nearest = IndependentCategoricals([single.probs for single in singles])
    total_correlation = sum(single.entropy() for single in singles) - model.entropy()
    assert close(model.kl(nearest.joint()), total_correlation, 1e3 * EPS)
    x = all_states(model.states)
    assert close(nearest.log_prob(x), nearest.joint().log_prob(x))
    assert close(nearest.entropy(), nearest.joint().entropy(), 1e3 * EPS)
    assert close(nearest.covariance(), nearest.joint().covariance())
    other = IndependentCategoricals([torch.tensor([0.4, 0.6], dtype=torch.float64)] * 6)
    assert model.kl(other.joint()) >= total_correlation
    assert close(nearest.kl(other), nearest.joint().kl(other.joint()))


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_as_many_as_they_should_be_and_come_back(preset):
    model = preset(dtype=torch.float64)
    independent = isinstance(model, IndependentCategoricals)
    count = independent_parameters(model.states) if independent else joint_parameters(model.states)
    theta = model.parameters()
    assert theta.shape == (count,)
    x = all_states(model.states)
    assert close(model.with_parameters(theta).log_prob(x), model.log_prob(x), 1e3 * EPS)
    moved = theta.clone().requires_grad_()
    few = x[:: max(1, len(x) // 50)]
    model.with_parameters(moved).log_prob(few).mean().backward()
    assert moved.grad.isfinite().all()
    step = torch.zeros_like(theta)
    step[0] = 1e-5  # central differences: an error of 1e-10 times third derivatives, and EPS / 1e-5
    rise = [model.with_parameters(theta + s * step).log_prob(few).mean() for s in (1, -1)]
    assert abs((rise[0] - rise[1]) / 2e-5 - moved.grad[0]) <= 1e-9


@pytest.mark.parametrize("preset", PRESETS)
def test_fits_are_shares_and_beat_the_truth(preset):
    model = preset(dtype=torch.float64)
    x = model.sample(500, generator=torch.Generator().manual_seed(0))
    fitted = model.fit(x)
    assert fitted.log_prob(x).sum() >= model.log_prob(x).sum()
    assert torch.equal(fitted.log_prob(x), model.fit(x.flip(0)).log_prob(x))
    assert close(fitted.mean(), x.double().mean(0), 1e3 * EPS)
    assert model.fit(x, smoothing=1.0).log_prob(all_states(model.states)).isfinite().all()
    one = model.fit(x[:1])
    assert close(one.log_prob(x[:1]), 0.0)
    if not isinstance(model, IndependentCategoricals):
        assert close(fitted.log_prob(x).exp() * len(x), (x[:, None] == x).all(-1).sum(-1), 1e3 * EPS * len(x))


def test_counts_are_those_of_arrays():
    assert joint_parameters([2] * 16) + 1 == torch.empty([2] * 16, dtype=torch.uint8).numel()
    assert joint_parameters([256] * 3) == 16_777_215 == torch.empty([256] * 3, dtype=torch.uint8).numel() - 1
    assert joint_parameters([2] * 784) == 2**784 - 1
    assert independent_parameters([2] * 784) == 784
    assert chain_rule_parameters([256] * 3) == 255 + 256 * 255 + 256**2 * 255 == joint_parameters([256] * 3)
    assert [chain_rule_parameters(k) for k in permutations([2, 3, 4])] == [23] * 6
    allocated = sum(torch.empty(shape, dtype=torch.uint8).numel() for shape in autoregressive_softmax_shapes(784))
    assert allocated == autoregressive_softmax_parameters(784) == 78_776_320
    chain = tables.chain_rule()
    assert sum(t.numel() - t[..., 0].numel() for t in chain.tables) == joint_parameters(chain.states)


def test_a_whole_rgb_pixel_fits():
    model = JointTable(torch.full((256, 256, 256), 2.0**-24))
    x = model.sample(1000, generator=torch.Generator().manual_seed(0))
    assert close(model.log_prob(x), -24 * math.log(2), 24 * torch.finfo(torch.float32).eps)
    assert model.marginal([2, 0]).states == (256, 256)
    assert x.min() >= 0
    assert x.max() <= 255


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_no_state_is_impossible(preset):
    model = preset()
    x = model.sample(6, generator=torch.Generator().manual_seed(0)).double()
    x[0, 0], x[1, 1], x[2, 0], x[3, 1], x[4, 0] = -1, 9, 0.5, math.nan, math.inf
    assert model.log_prob(x).isinf().tolist() == [True] * 5 + [False]
    assert model.log_prob(x[:0]).shape == (0,)


def test_nltcs_independent(nltcs):
    model = IndependentCategoricals.from_draws(nltcs.train, [2] * 16, smoothing=1.0)
    assert model.log_prob(nltcs.test).mean().item() == pytest.approx(-9.23361, abs=1e-5)
    assert abs(model.log_prob(all_states([2] * 16)).logsumexp(0)) <= 1e-9


JOINT = JointTable(torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
CHAIN = [torch.tensor([0.5, 0.5]), torch.tensor([[0.5, 0.5], [0.1, 0.9]])]


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: JointTable(torch.tensor([[0.5, 0.4]])), "probs should have rows that sum to 1, not off by 0.1"),
        (lambda: JointTable(torch.tensor([1.5, -0.5])), "between 0 and 1; divide each row by its sum"),
        (lambda: JointTable(torch.tensor([math.nan, 1.0])), "between 0 and 1"),
        (lambda: JointTable(torch.tensor(1.0)), "an axis of one or more states"),
        (lambda: JOINT.conditional([0], torch.tensor([1])), "probability zero; condition on possible values"),
        (lambda: JOINT.conditional([0], torch.tensor([2])), "probability zero"),
        (lambda: JOINT.fit(torch.tensor([[0, 2]])), r"x\[0\] = \[0, 2\] is out of range"),
        (lambda: JOINT.fit(torch.zeros(0, 2)), "x holds no draws"),
        (lambda: JOINT.log_prob(torch.zeros(3)), r"draws should have shape \(n, 2\)"),
        (lambda: JOINT.kl(JointTable(torch.tensor([1.0]))), "other should be a law on the states"),
        (lambda: JointTable.from_draws(torch.zeros(1, 40), [2] * 40), "entries, more than"),
        (lambda: IndependentCategoricals([]), "at least one"),
        (lambda: IndependentCategoricals([torch.tensor([0.5, 0.6])]), r"tables\[0\] should have rows that sum to 1"),
        (lambda: ChainRuleTable([0, 0], CHAIN), "order should name each of 0 to d - 1 once"),
        (lambda: ChainRuleTable([0, 1], CHAIN[::-1]), "tables should have the shapes"),
        (lambda: ChainRuleTable([0, 1], [CHAIN[0], torch.full((2, 2), 0.4)]), r"tables\[1\] should have rows"),
        (lambda: ChainRuleTable.from_joint(JOINT, [0]), "order should name each of 0 to 1 once"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
