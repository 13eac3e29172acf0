"""Bernoullis and categoricals against enumeration, scipy and the limits at probability 0 and 1."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reference_impls import discrete
from reference_impls.discrete import Bernoulli, Categorical

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=60)
chance = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-300, 1e-12, 1 - EPS]), st.floats(0, 1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(d):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=d)), dtype=torch.float64)  # (2^d, d)


def bernoullis(d):
    return st.lists(chance, min_size=d, max_size=d).map(lambda q: Bernoulli(torch.tensor(q, dtype=torch.float64)))


@st.composite
def categoricals(draw, k):
    weight = torch.tensor(draw(st.lists(st.integers(0, 1000), min_size=k, max_size=k)), dtype=torch.float64)
    weight[draw(st.integers(0, k - 1))] += 1  # not all can be zero
    return Categorical(weight / weight.sum())


def enumerated(model, support):
    """Probabilities of all values; a value of probability zero contributes nothing to entropy or divergence."""
    log_p = model.log_prob(support)
    return log_p.exp(), log_p


def entropy(p, log_p):
    return -p[p > 0] @ log_p[p > 0]


def divergence(p, log_p, log_q):
    return p[p > 0] @ (log_p - log_q)[p > 0]


# Bernoulli


@examples
@given(bernoullis(5), bernoullis(5))
def test_pixels_by_enumeration_of_all_images(p, q):
    x = states(5)
    prob, log_p = enumerated(p, x)
    _, log_q = enumerated(q, x)
    assert abs(prob.sum() - 1) <= 50 * EPS
    assert torch.allclose(prob @ x, p.mean(), rtol=0, atol=50 * EPS)
    assert torch.allclose(prob @ (x - p.mean()).square(), p.variance(), rtol=0, atol=50 * EPS)
    assert abs(entropy(prob, log_p) - p.entropy()) <= 1e3 * EPS
    ruled_out = ((q.probs == 0) & (p.probs > 0)) | ((q.probs == 1) & (p.probs < 1))
    assert (p.kl(q) == math.inf) == ruled_out.any()
    if not ruled_out.any():
        assert abs(divergence(prob, log_p, log_q) - p.kl(q)) <= 50 * EPS * (1 + p.kl(q))
    assert p.kl(q) >= 0
    assert p.kl(p) == 0


def test_pixels_agree_with_scipy():
    model = discrete.pixels(dtype=torch.float64)
    x = model.sample(100, generator=generator())
    oracle = stats.bernoulli(model.mean().numpy()).logpmf(x.numpy()).sum(-1)
    assert abs(model.log_prob(x) - torch.from_numpy(oracle)).max() <= 50 * 50 * EPS  # 50 terms of size about 1


def test_certain_pixels_are_certain():
    model = Bernoulli(torch.tensor([0.0, 1.0, 0.5]))
    x = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert torch.equal(model.log_prob(x), torch.tensor([math.log(0.5), -math.inf, -math.inf]))
    draws = model.sample(10_000, generator=generator())
    assert (draws[:, :2] == torch.tensor([0.0, 1.0])).all()
    assert abs(model.entropy() - math.log(2)) <= torch.finfo(torch.float32).eps
    assert model.kl(Bernoulli(torch.tensor([0.5, 0.5, 0.5]))) == pytest.approx(2 * math.log(2), rel=1e-6)
    assert model.kl(Bernoulli(torch.tensor([0.5, 0.5, 0.0]))) == math.inf


def test_rare_pixels_keep_their_digits():
    model = Bernoulli(torch.full((1000,), 1e-10))
    eps = torch.finfo(torch.float32).eps
    assert model.log_prob(torch.zeros(1, 1000)).item() == pytest.approx(-1e-7, rel=10 * eps)
    # Of 10^8 pixels 0.01 are on; uniforms with the 24 bits of float32 would put 6 of them on.
    stream = generator()
    assert sum(model.sample(1000, generator=stream).sum() for _ in range(100)) == 0
    near = Bernoulli(torch.full((1000,), 1.001e-10))
    assert model.kl(near).item() == pytest.approx(1000 * 1e-10 * (1e-3 - math.log1p(1e-3)), rel=1e4 * eps)


@pytest.mark.parametrize("grey", [0.5, -1.0, 2.0, 1e-7, math.nan, math.inf])
def test_a_grey_pixel_is_impossible(grey):
    x = torch.tensor([[1.0, 0.0], [1.0, grey]])
    assert Bernoulli(torch.tensor([0.5, 0.5])).log_prob(x).tolist() == [pytest.approx(-2 * math.log(2)), -math.inf]


def test_gradients_are_finite_even_at_the_ends():
    probs = torch.tensor([0.0, 1.0, 0.3], dtype=torch.float64, requires_grad=True)
    Bernoulli(probs).log_prob(torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])).sum().backward()
    # d/dq of 2 log(1 - q) at 0, of 2 log q at 1, of log q + log(1 - q) at 0.3
    assert torch.allclose(probs.grad, torch.tensor([-2, 2, 1 / 0.3 - 1 / 0.7], dtype=torch.float64))
    probs = torch.tensor([0.0, 0.25, 0.75], dtype=torch.float64, requires_grad=True)
    Categorical(probs).log_prob(torch.tensor([1, 2, 2])).sum().backward()
    assert torch.allclose(probs.grad, torch.tensor([0, 4, 8 / 3], dtype=torch.float64))
    probs.grad = None
    log_prob = Categorical(probs).log_prob(torch.tensor([1.0, 7.0]))
    log_prob[0].backward()
    assert probs.grad.isfinite().all()


# Categorical


@examples
@given(st.integers(1, 7).flatmap(lambda k: st.tuples(categoricals(k), categoricals(k))))
def test_states_by_enumeration(pair):
    p, q = pair
    k = torch.arange(p.states)
    prob, log_p = enumerated(p, k)
    assert abs(prob.sum() - 1) <= 10 * EPS
    assert abs(prob @ k.double() - p.mean()) <= 50 * EPS
    assert abs(prob @ (k - p.mean()).square() - p.variance()) <= 500 * EPS
    assert abs(entropy(prob, log_p) - p.entropy()) <= 50 * EPS
    assert p.entropy() <= math.log(p.states) + 10 * EPS
    exact = divergence(prob, log_p, q.log_prob(k))
    assert p.kl(q) == exact or abs(p.kl(q) - exact) <= 100 * EPS * (1 + exact)
    assert p.kl(q) >= 0
    assert p.kl(p) == 0


def test_divergence_of_near_equals_keeps_its_digits():
    p, delta = (
        torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
        torch.tensor([1e-6, 1e-6, -2e-6], dtype=torch.float64),
    )
    leading = (delta.square() / p).sum() / 2  # the next term is smaller by delta
    assert Categorical(p).kl(Categorical(p + delta)).item() == pytest.approx(leading.item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_labels_may_come_in_any_dtype(dtype):
    model = discrete.die()
    log_prob = model.log_prob(torch.tensor([0, 5, 6, 7]).to(dtype))
    assert log_prob.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert log_prob.tolist() == [pytest.approx(-math.log(6))] * 2 + [-math.inf] * 2


def test_what_is_not_a_state_is_impossible():
    x = torch.tensor([-1.0, 0.5, 3.0, 7.0, 1e30, math.nan, math.inf, -math.inf])
    assert (Categorical(torch.tensor([0.5, 0.25, 0.25])).log_prob(x) == -math.inf).all()


def test_impossible_states_are_never_drawn():
    model = Categorical(torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0]))
    assert model.sample(100_000, generator=generator()).unique().tolist() == [1, 3]
    assert (Categorical(torch.tensor([1.0])).sample(5, generator=generator()) == 0).all()


# Sampling and the contract


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frequencies_are_the_probabilities(dtype):
    n = 50_000  # of all seeds, one in a thousand fails each comparison
    counts = discrete.die(dtype=dtype).sample(n, generator=generator()).bincount(minlength=6)
    assert stats.chisquare(counts).pvalue > 1e-3
    skewed = Categorical(torch.tensor([0.9, 0.09, 0.009, 0.001], dtype=dtype))
    counts = skewed.sample(n, generator=generator(1)).bincount(minlength=4)
    assert stats.chisquare(counts, [0.9 * n, 0.09 * n, 0.009 * n, 0.001 * n]).pvalue > 1e-3
    pixels = discrete.pixels(dtype=dtype)
    x = pixels.sample(n, generator=generator(2))
    z = (x.double().mean(0) - pixels.mean()) / (pixels.variance() / n).sqrt()
    assert stats.chi2(50).sf(z.square().sum()) > 1e-3
    pairs = torch.corrcoef(x.double().mT).fill_diagonal_(0) * math.sqrt(n)
    assert pairs.abs().max() <= 5.5  # 1225 pairs, each beyond that with probability 4e-8


@pytest.mark.parametrize("preset", [discrete.coin, discrete.pixels, discrete.die])
def test_contract(preset):
    model, state = preset(), torch.get_rng_state()
    x, same, other = (model.sample(50, generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(x, same)
    assert not torch.equal(x, other)
    assert torch.equal(state, torch.get_rng_state())
    together = model.log_prob(x)
    # A row of 50 terms, each below 5, may be added in another order.
    assert torch.allclose(together, torch.cat([model.log_prob(row) for row in x.split(1)]), rtol=50 * 2**-23, atol=0)
    assert torch.equal(together.flip(0), model.log_prob(x.flip(0)))
    assert model.log_prob(x[:0]).shape == (0,)
    assert model.sample(0, generator=generator()).shape[0] == 0
    assert model.log_prob(x.double()).dtype == torch.float64
    assert model.to(torch.float64).log_prob(x).dtype == torch.float64


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: Bernoulli(torch.tensor([0.5, 1.1])), "between 0 and 1"),
        (lambda: Bernoulli(torch.tensor([math.nan])), "between 0 and 1"),
        (lambda: Bernoulli(torch.tensor(0.5)), "vector"),
        (lambda: Bernoulli(torch.tensor([0.5, 0.5])).log_prob(torch.zeros(3, 1)), "shape"),
        (lambda: Categorical(torch.tensor([0.5, 0.4])), "sum to 1 -0.1"),
        (lambda: Categorical(torch.tensor([1.5, -0.5])), "between 0 and 1"),
        (lambda: Categorical(torch.tensor([0.5, 0.5 + 1e-5])), "sum to 1"),
        (lambda: discrete.die().log_prob(torch.zeros(3, 1)), "shape"),
        (lambda: discrete.die().kl(Categorical(torch.tensor([0.5, 0.5]))), "different sizes"),
    ],
)
def test_mistakes_are_named(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()
