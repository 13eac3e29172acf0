"""Count n-grams: dictionaries and fractions as the oracle, all sequences, and the examiner."""

import math
from collections import Counter
from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import check_model
from reference_impls import ngram
from reference_impls.ngram import Ngram

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=25)
PRESETS = [ngram.abracadabra, ngram.smoothed]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def cases(draw):
    k, context, length = draw(st.integers(1, 4)), draw(st.integers(0, 3)), draw(st.integers(1, 4))
    text = draw(st.lists(st.integers(0, k - 1), min_size=context + 1, max_size=30))
    weight = draw(st.sampled_from([None, 0.5, 3.0]))
    options = {"vocabulary": k, "context": context, "length": length, "weight": weight}
    return Ngram(torch.tensor(text), **options, dtype=torch.float64), text


def exact(model, text, before, token):
    """p(token | before) by the recursion, with dictionaries and fractions."""
    p = Fraction(1, model.vocabulary)
    for j in range(min(model.context, len(before)) + 1):
        context = tuple(before[len(before) - j :])
        after = Counter(text[s + j] for s in range(len(text) - j) if tuple(text[s : s + j]) == context)
        total = sum(after.values())
        if total:
            w = Fraction(len(after)) if model.weight is None else Fraction(model.weight)
            p = (after[token] + w * p) / (total + w)
    return p


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(cases())
def test_conditionals_are_shares_of_counts_and_sum_to_one(case):
    model, text = case
    x = torch.tensor(list(product(range(model.vocabulary), repeat=model.length)))
    found = model.conditionals(x)
    for row in range(0, len(x), max(1, len(x) // 8)):
        events = x[row].tolist()
        for t, token in enumerate(events):
            truth = exact(model, text, events[:t], token)
            assert abs(float(found[row, t]) - math.log(truth)) <= 8 * EPS * (model.context + 2) * (
                1 + abs(math.log(truth))
            )
            p = model.next_token(x[row : row + 1, :t])[0]
            assert abs(float(p[token]) - float(truth)) <= 8 * EPS * (model.context + 2)
    slack = 16 * EPS * model.length * (model.context + 2)
    assert abs(float(model.log_prob(x).exp().sum()) - 1) <= slack * len(x)


@examples
@given(cases())
def test_prefixes_are_marginals(case):
    model, _ = case
    x = torch.tensor(list(product(range(model.vocabulary), repeat=model.length)))
    for t in range(1, model.length):
        begun = x[:, :t]
        same = (begun[:, None] == begun[None]).all(-1).double()
        total = same @ model.log_prob(x).exp()
        slack = 16 * EPS * len(x) * model.length * (model.context + 2)
        assert (model.log_prob(begun).exp() - total).abs().max() <= slack


def test_of_long_contexts_that_were_seen_once_the_text_is_repeated():
    text = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])
    model = Ngram(text, vocabulary=8, context=3, length=8, weight=1e-9, dtype=torch.float64)
    assert torch.equal(model.complete(text[None, :3].expand(20, -1), generator=generator()), text.expand(20, -1))


def test_draws_have_the_frequencies_of_the_law():
    model = ngram.abracadabra(dtype=torch.float64)
    n = 20000
    x = model.sample(n, generator=generator(1))
    assert x.dtype == torch.int64
    every = torch.tensor(list(product(range(5), repeat=4)))
    powers = torch.tensor([125, 25, 5, 1])
    shares = (x @ powers).bincount(minlength=625) / n
    truth = model.log_prob(every).exp()
    # Bernstein, for each of 625 cells, at 1e-9 together
    level = math.log(2 * 625 / 1e-9)
    assert ((shares - truth).abs() <= (2 * truth * level / n).sqrt() + level / (3 * n)).all()


def test_a_known_chain_is_learnt_to_its_entropy_rate():
    from reference_impls.markov_chain import MarkovChain

    p = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    chain = MarkovChain(torch.tensor([0.75, 0.25], dtype=torch.float64), p, 10000)
    text, test = chain.sample(2, generator=generator(2))
    model = Ngram(text, vocabulary=2, context=1, length=10000, dtype=torch.float64)
    rate = 0.3965283056
    nats = -float(model.log_prob(test[None])) / 10000
    # log p(x_t | x_{t-1}) lies in [log 0.1, 0]; the chain remembers by 0.6 a step: a factor (1 + .6) / (1 - .6) = 4.
    assert abs(nats - rate) <= 6 * 2.31 / 2 * math.sqrt(4 / 10000)


def test_what_is_no_token_is_impossible():
    model = ngram.abracadabra()
    x = torch.tensor([[0.0, 1.0, 5.0, 0.0], [0.0, 1.0, -1.0, 0.0], [0.5, 0.0, 0.0, 0.0], [math.nan, 0.0, 0.0, 0.0]])
    assert (model.log_prob(x) == -math.inf).all()
    assert model.log_prob(torch.zeros(0, 4)).shape == (0,)


def test_the_field_is_the_context():
    field = ngram.smoothed().receptive_field()
    assert field.equal(torch.ones(5, 5).diagonal(-1).diag(-1) > 0)


TEXT = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: Ngram(TEXT, vocabulary=1, context=1, length=2), "tokens from 0 to 0"),
        (lambda: Ngram(TEXT, vocabulary=0, context=1, length=2), "vocabulary = 0"),
        (lambda: Ngram(TEXT, vocabulary=2, context=4, length=2), "more than 4 tokens"),
        (lambda: Ngram(TEXT, vocabulary=2, context=1, length=2, weight=0.0), "weight = 0.0"),
        (lambda: Ngram(TEXT, vocabulary=256, context=9, length=2), "take a shorter one"),
        (lambda: ngram.abracadabra().log_prob(torch.zeros(2, 5)), "1 to 4 tokens"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
