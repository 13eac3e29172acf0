"""Bets on pairs: fair when both samplers agree, whatever was learnt before, and quick when they differ."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.statistics import two_sample
from harness.statistics.accumulator import log_mean_exp, pieces
from harness.statistics.bernstein import BoundedMean
from harness.statistics.two_sample import ClassifierBets, PairedBets, fit

LOG_LEVEL = math.log(20)
LAWS = {
    "normal": lambda shape, g: torch.randn(shape, generator=g),
    "heavy": lambda shape, g: torch.tan(math.pi * (torch.rand(shape, generator=g, dtype=torch.float64) - 0.5)),
    "rare": lambda shape, g: (torch.rand(shape, generator=g) < 0.02).double(),
}


class Cheating(ClassifierBets):
    """Fits the weights on the pairs that it is about to bet on."""

    def update(self, values):
        if not self.n:
            super().update(values[:0])
        for piece, _ in pieces(values.double(), self.n, two_sample._FIRST):
            self.weights = fit(self.sum_d + piece.sum(0), self.sum_dd + piece.T @ piece)
            super().update(piece)


def alarms(draw, g, kind=ClassifierBets, replicas=150, n=400, k=3):
    """Per replica: was 1 / alpha reached, or 0 left out by the interval, at any multiple of 50 pairs?"""
    evidence = torch.zeros(replicas, dtype=torch.bool)
    misses = evidence.clone()
    for r in range(replicas):
        bets = kind()
        for _ in range(n // 50):
            bets.pair(draw((50, k), g), draw((50, k), g))
            evidence[r] |= log_mean_exp(bets.log_wealth) >= LOG_LEVEL
        look = bets.look(0.95)
        misses[r] = not look.low <= 0 <= look.high
    return evidence, misses


@pytest.mark.parametrize("name", LAWS)
def test_classifier_keeps_its_level_while_peeking(name, g, alarms_within):
    evidence, misses = alarms(LAWS[name], g, replicas=300)
    assert alarms_within(evidence)
    assert alarms_within(misses)


def test_calibration_catches_a_classifier_that_saw_its_exam(g, alarms_within):
    assert not alarms_within(alarms(LAWS["normal"], g, kind=Cheating)[0])


def pairs_needed(shift, k, g, goal):
    bets = ClassifierBets()
    while not bets.look(0.99).log_e >= goal:
        x, y = torch.randn(100, k, generator=g), torch.randn(100, k, generator=g)
        bets.pair(x, y + shift * (torch.arange(k) == 0))
    return bets.n


@pytest.mark.parametrize("k", [1, 10])
def test_classifier_power(k, g):
    """A shift of 0.2 in one of k normal features at alpha = 1e-7.

    d ~ N(0.2, 2), so the best bet grows by T^2 / 2 a pair with T^2 = 0.2^2 / 2 (up to T^4). Weights learnt from m pairs
    with error k / m, shrunk by T^2 / (T^2 + k/m), grow by T^4 / (2 (T^2 + k/m)); summed up to n this is
    n T^2 / 2 - (k / 2) log(1 + n T^2 / k). To log(1/alpha) comes log 4 for the stakes.
    """
    goal, t2 = math.log(1e7), 0.02
    n = torch.arange(100, 20_000, 10, dtype=torch.float64)
    growth = n * t2 / 2 - k / 2 * torch.log1p(n * t2 / k) - math.log(4)
    derived = float(n[growth >= goal].min())
    needed = sorted(pairs_needed(0.2, k, g, goal) for _ in range(21))
    # refits are an eighth of n apart, so weights lag behind by up to 1.125; looks are 100 apart
    assert needed[10] <= 1.125 * derived + 100
    assert needed[10] >= goal / (t2 / 2) * 0.7


def test_classifier_finds_what_only_a_combination_of_features_shows(g):
    """Same marginals, correlation 0.5 against -0.5: seen with products among the features, not without."""
    z = torch.randn(4000, 4, generator=g)
    x = torch.stack([z[:, 0], 0.5 * z[:, 0] + 0.75**0.5 * z[:, 1]], 1)
    y = torch.stack([z[:, 2], -0.5 * z[:, 2] + 0.75**0.5 * z[:, 3]], 1)
    plain, rich = ClassifierBets(), ClassifierBets()
    plain.pair(x, y)
    rich.pair(torch.cat([x, x.prod(1, keepdim=True)], 1), torch.cat([y, y.prod(1, keepdim=True)], 1))
    assert plain.look(0.99).log_e < LOG_LEVEL
    assert rich.look(0.99).log_e > 100
    assert rich.look(0.99).low > 0


def test_weights_are_a_newton_step_and_ignore_units(g):
    d = torch.randn(500, 3, generator=g, dtype=torch.float64) + torch.tensor([0.3, 0.0, 0.0])
    w = fit(d.sum(0), d.T @ d)
    gradient, hessian = d.sum(0) / 2, d.T @ d / 4  # of the logistic log-likelihood of unswapped pairs at w = 0
    step = torch.linalg.solve(hessian, gradient)
    assert torch.allclose(w / w.norm(), step / step.norm(), atol=1e-5)
    units = torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64)
    assert torch.allclose(fit((d * units).sum(0), (d * units).T @ (d * units)) * units, w, rtol=1e-5)


def test_noise_is_not_bet_on(g):
    d = torch.randn(2000, 200, generator=g, dtype=torch.float64)
    assert fit(d.sum(0), d.T @ d).norm() <= 0.2 * fit(d.sum(0) + 2000 * 0.1, d.T @ d).norm()


@pytest.mark.parametrize("column", [torch.zeros(300), torch.ones(300), torch.full((300,), 1e-30)])
def test_degenerate_features_are_survived(column):
    bets = ClassifierBets()
    bets.update(torch.stack([column, column], 1))
    look = bets.look(0.99)
    assert look.log_e == 0 if column.max() == 0 else look.log_e > 50


@given(st.lists(st.integers(0, 500), max_size=4))
def test_chunks_do_not_matter(cuts):
    d = ((torch.arange(1000) * 7919) % 37 - 15).double().reshape(500, 2) / 16
    whole, parts = ClassifierBets(), ClassifierBets()
    whole.update(d)
    for part in torch.tensor_split(d, sorted(cuts)):
        parts.update(part)
    one, other = whole.look(0.99), parts.look(0.99)
    assert one.n == other.n
    assert [one.estimate, one.low, one.high, one.log_e] == pytest.approx(
        [other.estimate, other.low, other.high, other.log_e], rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", [0, 50, 999])
def test_numbers_that_are_not_finite_never_pass(bad, where, g):
    d = torch.randn(1000, 2, generator=g)
    d[where, 1] = bad
    bets = ClassifierBets()
    bets.update(d)
    look = bets.look(0.9)
    assert not look.bound <= 1
    assert not look.log_e < 1e9


def test_before_the_first_pair_nothing_is_known():
    look = ClassifierBets().look(0.9)
    assert (look.n, look.low, look.high, look.log_e) == (0, -1.0, 1.0, 0.0)


def test_paired_bets_are_a_bounded_mean_of_differences(g):
    x, y = torch.rand(500, 3, generator=g), torch.rand(500, 3, generator=g)
    bets, mean = PairedBets(0, 1), BoundedMean(-1, 1)
    bets.pair(x, y)
    mean.update(x - y)
    assert bets.look(0.99) == mean.look(0.99)
    with pytest.raises(ValueError, match="promised"):
        PairedBets(0, 1).pair(x + 1, y - 1)
