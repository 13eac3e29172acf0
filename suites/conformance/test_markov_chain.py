"""Markov chains against enumeration of all sequences, eigenvectors of numpy, and known values."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import check_model
from reference_impls import markov_chain
from reference_impls.markov_chain import MarkovChain
from reference_impls.parameter_counts import markov_chain_parameters
from reference_impls.tables import JointTable

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=25)
PRESETS = [markov_chain.weather, markov_chain.changing]
TOLERANCE = 1e3 * EPS
"""At most 3^4 sequences, each a product of 4 factors, weighted by at most 4: below 500 roundings of numbers below 4."""


def rows(draw, *shape):
    size = math.prod(shape)
    weights = draw(st.lists(st.sampled_from([0.0, 1e-8, 1.0, 2.0, 3.0]), min_size=size, max_size=size))
    weights = torch.tensor(weights, dtype=torch.float64).reshape(shape)
    weights[..., draw(st.integers(0, shape[-1] - 1))] += 1
    return weights / weights.sum(-1, keepdim=True)


@st.composite
def chains(draw):
    """One to four steps on one to three states, with impossible steps, with one matrix or several."""
    k, length = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    if draw(st.booleans()):
        return MarkovChain(rows(draw, k), rows(draw, k, k), length)
    return MarkovChain(rows(draw, k), rows(draw, length - 1, k, k) if length > 1 else torch.empty(0, k, k).double())


def states_of(model):
    return torch.tensor(list(product(range(model.k), repeat=model.length)))


def enumerated(model):
    """The chain as a joint table, multiplied out in numpy."""
    p = model.initial.numpy()
    for t in range(model.length - 1):
        p = p[..., None] * (model.transition if model.homogeneous else model.transition[t]).numpy()
    return JointTable(torch.from_numpy(p))


def close(a, b, tolerance=TOLERANCE):
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (a, b))
    return bool((a - b).abs().max() <= tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset, dtype):
    report = check_model(preset(dtype=dtype), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(chains(), chains())
def test_a_chain_by_enumeration(model, other):
    oracle, x = enumerated(model), states_of(model)
    assert close(model.log_prob(x).exp(), oracle.log_prob(x).exp())
    assert close(model.mean(), oracle.mean())
    assert close(model.covariance(), oracle.covariance())
    assert close(model.variance(), oracle.variance())
    assert close(model.entropy(), oracle.entropy())
    assert close(model.network().log_prob(x).exp(), oracle.log_prob(x).exp())
    assert model.kl(model) == 0
    if (model.k, model.length) == (other.k, other.length):
        exact = oracle.kl(enumerated(other))
        assert model.kl(other) == exact or close(model.kl(other), exact, TOLERANCE * (1 + exact))


@examples
@given(chains(), st.randoms(use_true_random=False))
def test_marginals_conditionals_and_information(model, random):
    oracle, length = enumerated(model), model.length
    a = random.sample(range(length), random.randint(1, length))
    x = torch.tensor(list(product(range(model.k), repeat=len(a))))
    assert close(model.marginal(a).log_prob(x).exp(), oracle.marginal(a).log_prob(x).exp())
    b = [i for i in range(length) if i not in a]
    if not b:
        return
    assert close(model.mutual_information(a, b), oracle.mutual_information(a, b))
    rest = torch.tensor(list(product(range(model.k), repeat=len(b))))
    for values in x:
        if oracle.marginal(a).log_prob(values[None])[0] > -math.inf:
            assert close(
                model.conditional(a, values).log_prob(rest).exp(), oracle.conditional(a, values).log_prob(rest).exp()
            )
        else:
            with pytest.raises(ValueError, match="probability zero"):
                model.conditional(a, values)


def test_known_values():
    model = markov_chain.weather(dtype=torch.float64)
    assert close(model.stationary(), torch.tensor([0.75, 0.25]))
    assert model.entropy_rate().item() == pytest.approx(0.3965283056, abs=5e-11)
    # From the stationary law, each further step adds the rate.
    added = [model.over(t + 1).entropy() - model.over(t).entropy() for t in range(1, 30)]
    assert close(torch.stack(added), model.entropy_rate())
    # and the information between two steps t apart is that of the joint law diag(pi) P^t
    pi, p = np.array([0.75, 0.25]), np.array([[0.9, 0.1], [0.3, 0.7]])
    for t in range(1, 8):
        joint = pi[:, None] * np.linalg.matrix_power(p, t)
        exact = (joint * np.log(joint / np.outer(pi, pi))).sum()
        assert close(model.mutual_information([0], [t]), exact)


@examples
@given(st.data())
def test_the_stationary_law_is_the_left_eigenvector(data):
    k = data.draw(st.integers(1, 6))
    p = 0.9 * rows(data.draw, k, k) + 0.1 / k  # every state leads to every other
    pi = MarkovChain(torch.full((k,), 1 / k, dtype=torch.float64), p, 2).stationary()
    assert close(pi @ p, pi, 10 * k * EPS)
    values, vectors = np.linalg.eig(p.numpy().T)
    leading = np.real(vectors[:, np.argmax(np.real(values))])
    # The other eigenvalues are at most 0.9 in size, which amplifies an eigenvector's rounding by up to 10 k.
    assert close(pi, leading / leading.sum(), 1e3 * k * EPS)


def test_small_stationary_probabilities_keep_their_digits():
    for small in (1e-8, 1e-200):
        p = torch.tensor([[1.0, small], [1.0, 0.0]], dtype=torch.float64)  # rows sum to 1 as far as float64 tells
        pi = MarkovChain(torch.tensor([1.0, 0.0], dtype=torch.float64), p / p.sum(-1, keepdim=True), 2).stationary()
        assert pi[1].item() == pytest.approx(small / (1 + small), rel=1.1 * small + 10 * EPS)


def test_states_that_are_left_for_good_and_several_closed_classes():
    start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    p = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    assert close(MarkovChain(start, p, 2).stationary(), torch.tensor([0.0, 0.5, 0.5]))
    with pytest.raises(ValueError, match="several closed classes"):
        MarkovChain(start, torch.eye(3, dtype=torch.float64), 2).stationary()


@pytest.mark.parametrize("preset", PRESETS)
def test_fits_are_shares_of_steps(preset):
    model = preset(dtype=torch.float64)
    x = model.sample(300, generator=torch.Generator().manual_seed(0))
    fitted = model.fit(x)
    assert fitted.homogeneous == model.homogeneous
    assert fitted.log_prob(x).sum() >= model.log_prob(x).sum()
    steps = range(1, model.length)
    for i, j in product(range(model.k), repeat=2):
        if model.homogeneous:
            both = sum(int(((x[:, t - 1] == i) & (x[:, t] == j)).sum()) for t in steps)
            left = sum(int((x[:, t - 1] == i).sum()) for t in steps)
            assert close(fitted.transition[i, j], both / left)
        else:
            both, left = int(((x[:, 0] == i) & (x[:, 1] == j)).sum()), int((x[:, 0] == i).sum())
            assert close(fitted.transition[0, i, j], both / left)
    assert model.fit(x[:1], smoothing=1.0).log_prob(states_of(model)).isfinite().all()
    assert close(model.fit(x[:1]).transition.sum(-1), 1.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_come_back(preset):
    model = preset(dtype=torch.float64)
    theta = model.parameters()
    assert len(theta) == markov_chain_parameters(model.length, model.k, homogeneous=model.homogeneous)
    x = model.sample(50, generator=torch.Generator().manual_seed(0))
    assert close(model.with_parameters(theta).log_prob(x), model.log_prob(x))
    theta.requires_grad_()
    model.with_parameters(theta).log_prob(x).sum().backward()
    assert theta.grad.isfinite().all()


def test_counts():
    assert markov_chain_parameters(784) == 1567
    assert [markov_chain_parameters(n) for n in (1, 2, 3)] == [1, 3, 5]
    assert markov_chain_parameters(1, 3, homogeneous=True) == 2


def test_long_sequences_do_not_underflow():
    p = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    chain = MarkovChain(torch.tensor([0.5, 0.5], dtype=torch.float64), p, 5000)
    x = chain.sample(3, generator=torch.Generator().manual_seed(0))
    assert close(chain.log_prob(x), -5000 * math.log(2), 5000 * 5000 * math.log(2) * EPS)
    rest = chain.conditional(range(1, 5000), x[0, 1:])
    assert close(rest.log_prob(torch.tensor([[0], [1]])), -math.log(2))


def test_nltcs_in_file_order(nltcs):
    model = MarkovChain.from_draws(nltcs.train, 2, homogeneous=False, smoothing=1.0)
    assert model.log_prob(nltcs.test).mean().item() == pytest.approx(-7.32727, abs=1e-5)
    assert abs(model.log_prob(states_of(model)).logsumexp(0)) <= 1e-9


HALF = torch.tensor([0.5, 0.5])
CHAIN = MarkovChain(HALF, torch.eye(2), 3)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: MarkovChain(HALF, torch.full((2, 2), 0.4), 3), "transition should have rows that sum to 1"),
        (lambda: MarkovChain(torch.tensor([0.5, 0.4]), torch.eye(2), 3), "initial should have rows that sum to 1"),
        (lambda: MarkovChain(HALF, torch.eye(2)), "length should say how many steps"),
        (lambda: MarkovChain(HALF, torch.eye(2), 0), "length should say how many steps"),
        (lambda: MarkovChain(HALF, torch.eye(2).expand(3, 2, 2), 3), "has matrices for 4 steps; leave it out"),
        (lambda: MarkovChain(HALF, torch.eye(3), 3), "square of that size"),
        (lambda: MarkovChain(HALF, HALF, 3), "should have shapes"),
        (lambda: MarkovChain(HALF, torch.eye(2).expand(3, 2, 2)).entropy_rate(), "only a homogeneous chain"),
        (lambda: CHAIN.conditional([0, 2], torch.tensor([0, 1])), "probability zero"),
        (lambda: CHAIN.fit(torch.tensor([[0, 1, 2]])), "out of range"),
        (lambda: CHAIN.fit(torch.tensor([[0, 1]])), "x should have 3 steps, not 2"),
        (lambda: CHAIN.fit(torch.zeros(0, 3)), "x holds no draws"),
        (lambda: CHAIN.log_prob(torch.zeros(2, 4)), r"shape \(n, 3\)"),
        (lambda: CHAIN.kl(CHAIN.over(4)), "other should have 2 states and 3 steps"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
