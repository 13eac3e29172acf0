"""Beta-binomial e-process: an exact mixture, valid at every look, near the information-theoretic power."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import binomial
from harness.statistics.binomial import BinomialCount, interval, log_e_value, log_growth

LOG_LEVEL = math.log(20)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("events", "n", "p"), [(3, 10, 0.3), (70, 100, 0.5), (3, 5000, 1e-3), (0, 50, 0.999), (9, 9, 0.2)]
)
def test_evidence_is_the_mixture_of_beta_binomials(events, n, p):
    sizes = binomial._PRIOR_EVENTS.numpy() / min(p, 1 - p)
    parts = [stats.betabinom(n, c * p, c * (1 - p)).logpmf(events) for c in sizes]
    parts += [stats.betabinom(n, 0.5, 0.5).logpmf(events), stats.binom(n, p).logpmf(events)]
    expected = np.logaddexp.reduce(parts) - math.log(len(parts)) - stats.binom(n, p).logpmf(events)
    assert float(log_e_value(tensor(events), n, tensor(p))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [0.01, 1.0, 15.9, 16.1, 1e3, 1e7, 1e15])
@pytest.mark.parametrize("count", [0, 1, 7, 20_000])
def test_growth_is_the_sum_of_its_logs(size, count):
    exact = math.fsum(math.log1p(i / size) for i in range(count))
    assert float(log_growth(tensor(size), tensor(count))) == pytest.approx(exact, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("p", [0.02, 0.3])
def test_expectation_is_one(p):
    """E exp(log_e) = 1, summed over all outcomes of 40 draws."""
    events = torch.arange(41, dtype=torch.float64)
    pmf = torch.tensor(stats.binom(40, p).pmf(events))
    assert float((pmf * log_e_value(events, 40, tensor(p)).exp()).sum()) == pytest.approx(1, abs=1e-9)


def alarms_and_misses(p, true, looks, replicas, log_e=log_e_value):
    rng = np.random.default_rng(5)
    events, n = torch.zeros(replicas, dtype=torch.float64), 0
    alarms = misses = torch.zeros(replicas, dtype=torch.bool)
    for size in looks:
        events, n = events + torch.tensor(rng.binomial(size - n, true, replicas)), size
        alarms = alarms | (log_e(events, n, tensor(p)) >= LOG_LEVEL)
        low, high = interval(events, n, tensor(p).expand_as(events), LOG_LEVEL)
        misses = misses | ~((low <= true) & (true <= high))
    return alarms, misses


@pytest.mark.parametrize("p", [0.5, 0.9, 0.01, 1e-4])
def test_keeps_its_level_and_covers_while_peeking(p, peeks, alarms_within):
    alarms, misses = alarms_and_misses(p, p, peeks(1, 100_000, 1.2), 4000)
    assert alarms_within(alarms)
    assert alarms_within(misses)


@pytest.mark.parametrize(("p", "true"), [(0.5, 0.1), (0.01, 0.2), (1e-4, 1e-6), (0.0, 0.01), (1.0, 0.5)])
def test_covers_whatever_the_truth_is(p, true, peeks, alarms_within):
    assert alarms_within(alarms_and_misses(p, true, peeks(1, 30_000, 1.3), 3000)[1])


def test_calibration_catches_the_wrong_variants(peeks, alarms_within):
    def chosen_afterwards(events, n, p):  # the maximum likelihood ratio is no e-value
        return binomial.log_likelihood(events, n, events / n) - binomial.log_likelihood(events, n, p)

    def unaveraged(events, n, p):  # sum of the e-values of the mixture
        return log_e_value(events, n, p) + math.log(11)

    for broken in (chosen_afterwards, unaveraged):
        assert not alarms_within(alarms_and_misses(0.3, 0.3, peeks(1, 10_000, 1.3), 3000, broken)[0])


@pytest.mark.parametrize(("p", "true"), [(0.5, 0.55), (0.01, 0.015), (0.9, 0.92), (1e-4, 3e-4)])
def test_needs_few_more_draws_than_theory(p, true, peeks):
    """log(1/alpha) / KL(true, p) is the least. The mixture pays log 11 for its parts, and at y = n KL about 20 the part
    with c nearest to n / 2y (within a factor sqrt 8) pays log(1 + n/c) / 2 + y / (1 + n/c) <= 2.7: 5.1 of 16 in all."""
    goal = math.log(1e7)
    kl = true * math.log(true / p) + (1 - true) * math.log((1 - true) / (1 - p))
    rng = np.random.default_rng(7)
    events, n, found = torch.zeros(1000, dtype=torch.float64), 0, torch.full((1000,), math.inf)
    for size in peeks(20, round(3 * goal / kl), 1.03):
        events, n = events + torch.tensor(rng.binomial(size - n, true, 1000)), size
        found = torch.where(found.isinf() & (log_e_value(events, n, tensor(p)) >= goal), float(size), found)
    assert float(found.median()) <= 1.03 * (goal + 5.1) / goal * goal / kl


def test_impossible_events_are_infinite_evidence():
    for p, event in ((0.0, 1), (1.0, 0)):
        count = BinomialCount(p)
        count.update(torch.full((10_000,), 1 - event))
        assert count.look(0.999).log_e <= 0
        assert count.look(0.999).bound < 0.001
        count.update(torch.tensor([event]))
        assert count.look(0.999).log_e == math.inf
        assert not count.look(0.999).low <= 0 <= count.look(0.999).high


def test_uncertainty_of_p_is_forgiven_and_no_more():
    count, sure = BinomialCount(0.5, uncertainty=0.01), BinomialCount(0.5)
    for each in (count, sure):
        each.add(10**6, tensor(509_000))
    assert count.look(0.999).log_e <= 0 < 100 < sure.look(0.999).log_e
    assert count.look(0.999).high == pytest.approx(sure.look(0.999).high + 0.01)
    count.add(10**6, tensor(520_000))
    assert count.look(0.999).log_e > 16


def test_the_interval_is_where_the_evidence_stays_small():
    events, n, p = tensor(37), 200, tensor(0.2)
    low, high = interval(events, n, p, math.log(1000))
    mixture = binomial.log_mixture(events, n, p)
    for end in (low, high):
        assert float(mixture - binomial.log_likelihood(events, n, end)) == pytest.approx(math.log(1000), abs=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=50), st.lists(st.integers(0, 50), max_size=3))
def test_chunks_do_not_matter(rows, cuts):
    x = torch.tensor(rows, dtype=torch.bool).reshape(-1, 2)
    whole, parts = BinomialCount(tensor(0.3, 0.8)), BinomialCount(tensor(0.3, 0.8))
    whole.update(x)
    for part in torch.tensor_split(x, sorted(cuts)):
        parts.update(part.double())
    assert whole.look(0.99) == parts.look(0.99)


def test_poison_and_misuse():
    count = BinomialCount(tensor(0.5, 0.5))
    count.update(torch.tensor([[0.0, 1.0]]))
    count.update(torch.tensor([[0.0, math.nan]]))
    look = count.look(0.9)
    assert not look.bound <= 1
    assert not look.log_e < 1e9
    with pytest.raises(ValueError, match="0 or 1"):
        count.update(torch.tensor([[0.5, 1.0]]))
    with pytest.raises(ValueError, match="probabilities"):
        BinomialCount(1.5)


def test_before_the_first_draw_nothing_is_known():
    look = BinomialCount(0.25).look(0.9)
    assert (look.n, look.low, look.high, look.log_e) == (0, -0.25, 0.75, 0.0)


def test_cells_say_what_was_expected():
    count = BinomialCount(tensor(0.25, 0.5))
    count.add(4, tensor(1, 4))
    assert [(c.expected, c.observed) for c in count.cells()] == [(0.25, 0.25), (0.5, 1.0)]
