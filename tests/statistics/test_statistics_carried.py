"""Sums go on over runs: they add up, keep the level whatever stopped a run, and forgive what is within the slack."""

from __future__ import annotations

import math

import pytest
import torch

from harness.statistics import bernstein
from harness.statistics.accumulator import log_mean_exp
from harness.statistics.band import UniformBand
from harness.statistics.bernstein import BoundedMean, Sums, log_mixture
from harness.statistics.binomial import BinomialCount
from harness.statistics.carried import Carries, of_counts, of_means
from harness.statistics.categorical import CategoricalCounts
from harness.statistics.several import Several
from harness.statistics.slack import NearlyZeroMean
from harness.statistics.two_sample import ClassifierBets

MASSES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MADE = {
    "mean": (lambda: BoundedMean(-0.5, 2.0), lambda u: u * 2.5 - 0.5),
    "slack": (lambda: NearlyZeroMean(-1.0, 1.0, 0.01), lambda u: 2 * u - 1),
    "events": (lambda: BinomialCount(torch.tensor([0.3, 0.7]), 1e-3), lambda u: u < 0.4),
    "cells": (lambda: CategoricalCounts(MASSES, 1e-3), lambda u: (3 * u[:, 0]).long()),
    "band": (UniformBand, lambda u: u),
}


def drawn(name, g, n=3000):
    make, numbers = MADE[name]
    statistic = make()
    statistic.update(numbers(torch.rand(n, 2, generator=g, dtype=torch.float64)))
    return statistic


@pytest.mark.parametrize("name", MADE)
def test_runs_add_up_to_the_run_that_saw_all_their_draws(name, g):
    parts = [MADE[name][1](torch.rand(1000, 2, generator=g, dtype=torch.float64)) for _ in range(3)]
    whole, total = MADE[name][0](), 0.0
    for part in parts:
        run = MADE[name][0]()
        run.update(part)
        whole.update(part)
        total = total + run.carried(1e-4)
    assert isinstance(whole, Carries)
    torch.testing.assert_close(total, whole.carried(1e-4), rtol=1e-12, atol=1e-8)


@pytest.mark.parametrize("slack", [0.0, 0.02])
def test_the_sums_are_those_of_the_numbers_one_by_one(g, slack):
    x = torch.rand(500, 2, generator=g, dtype=torch.float64) * 1.5 - 0.5
    seen = of_means(x.sum(0), x.square().sum(0), len(x), -0.5, 1.0, slack)
    above, below = (x - slack) / (0.5 + slack), (-x - slack) / (1.0 + slack)
    assert above.min() >= -1
    assert below.min() >= -1
    due = torch.stack([above.sum(0), above.square().sum(0), below.sum(0), below.square().sum(0)], 1)
    torch.testing.assert_close(seen, due, rtol=1e-12, atol=1e-10)


def test_events_are_numbers_too(g):
    hit = (torch.rand(500, 1, generator=g) < 0.3).double()
    seen = of_counts(hit.sum(0), len(hit), torch.tensor([0.25], dtype=torch.float64), 0.01)
    for side, p in ((slice(0, 2), 0.26), (slice(2, 4), 0.24)):
        x = hit - p
        due = of_means(x.sum(0), x.square().sum(0), len(x), -p, 1 - p, 0.0)
        torch.testing.assert_close(seen[:, side], due[:, side], rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_side_on_which_nothing_can_be_seen_stays_silent(p):
    rows = of_counts(torch.tensor([40.0 if p else 0.0]), 40, torch.tensor([p], dtype=torch.float64), 0.0)
    assert rows.isfinite().all()
    assert log_mixture(rows[0, :1], rows[0, 1:2]) <= 0
    assert log_mixture(rows[0, 2:3], rows[0, 3:]) <= 0


def capital(rows):
    above, above_squares, below, below_squares = rows.unbind(1)
    return log_mean_exp(torch.stack([log_mixture(above, above_squares), log_mixture(below, below_squares)]))


WITHIN = 2e-5
"""What is allowed in the tests below, and 10^12 draws, of which the mean has a standard error of 10^-6."""
DRAWS = 10**12


def signs(mean, slack_of):
    """Sums over 10^12 signs of this mean, and one that is three standard errors further out."""
    total = DRAWS * mean + math.copysign(3 * DRAWS**0.5, mean)
    return slack_of(Sums(DRAWS, torch.tensor([total], dtype=torch.float64), torch.tensor([float(DRAWS)])))


def events(mean, slack_of):
    total = DRAWS * (0.3 + mean) + math.copysign(3 * (0.21 * DRAWS) ** 0.5, mean)
    return slack_of(DRAWS, torch.tensor([total], dtype=torch.float64))


def of_signs(statistic, doubt):
    def seen(chunk):
        statistic.update(chunk)
        return capital(statistic.carried(doubt)), statistic.allowing(doubt)

    return seen


def of_events(statistic, doubt):
    def seen(n, happened):
        statistic.add(n, happened)
        return capital(statistic.carried(doubt)), statistic.allowing(doubt)

    return seen


SLACKS = {
    "stated": (signs, lambda: of_signs(NearlyZeroMean(-1.0, 1.0, WITHIN), 0.0)),
    "of the law": (signs, lambda: of_signs(doubtful(), 0.0)),
    "of the arithmetic": (signs, lambda: of_signs(BoundedMean(), WITHIN)),
    "of both": (signs, lambda: of_signs(NearlyZeroMean(-1.0, 1.0, WITHIN / 2), WITHIN / 2)),
    "of a probability": (events, lambda: of_events(BinomialCount(0.3, WITHIN), 0.0)),
    "of a probability, by arithmetic": (events, lambda: of_events(BinomialCount(0.3), WITHIN)),
}


def doubtful():
    statistic = BoundedMean()
    statistic.doubt = WITHIN
    return statistic


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", SLACKS)
def test_a_mean_at_the_end_of_the_slack_is_no_evidence_in_any_number_of_draws(name, sign):
    """10^12 draws are 10^8 nights at quick; a mean 1.5 times as far out is found in them."""
    made, seen = SLACKS[name]
    assert all(log_e < math.log(1e3) for log_e in made(sign * WITHIN, seen()))  # and not merely below some level
    assert all(log_e > math.log(1e12) for log_e in made(sign * WITHIN * 1.5, seen()))


def test_without_its_slack_the_same_mean_is_accused():
    assert signs(WITHIN, of_signs(BoundedMean(), 0.0))[0] > math.log(1e12)
    assert events(WITHIN, of_events(BinomialCount(0.3), 0.0))[0] > math.log(1e12)


def test_the_smallest_bets_are_small_enough_for_a_mean_of_1e_8():
    n, mean = 10**18, 1e-8
    seen = log_mixture(torch.tensor([n * mean], dtype=torch.float64), torch.tensor([float(n)], dtype=torch.float64))
    assert n * mean**2 / 2 * 0.95 - 6 <= float(seen) <= n * mean**2 / 2
    assert float(bernstein._LOG_WEIGHT.exp().sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in MADE if name != "cells"])  # which are whole numbers
def test_a_number_that_is_none_poisons_what_is_carried(name, g):
    statistic = drawn(name, g)
    statistic.update(torch.tensor([[math.nan, 0.0]], dtype=torch.float64))
    assert statistic.carried(1e-5).isnan().any()
    assert math.isnan(statistic.allowing(1e-5))


def test_allowing_nothing_is_the_evidence_of_the_look(g):
    for name in ("mean", "events", "cells", "band", "slack"):
        statistic = drawn(name, g)
        assert statistic.allowing(0.0) == pytest.approx(statistic.look(0.999).log_e, abs=1e-9)
        assert statistic.allowing(0.01) <= statistic.allowing(0.0) + 1e-9


def test_bets_and_several_parts_are_carried(g):
    bets = ClassifierBets()
    x, y = torch.rand(2, 3000, 3, generator=g, dtype=torch.float64)
    bets.pair(x, y)
    assert torch.equal(bets.carried(0.01), bets.payoffs.carried(0.01))
    assert bets.allowing(0.01) < bets.allowing(0.0) == pytest.approx(bets.look(0.9).log_e)
    parts = [drawn("mean", g), drawn("events", g)]
    joint = Several(parts, [2, 2])
    assert torch.equal(joint.carried(0.01), torch.cat([part.carried(0.01) for part in parts]))
    assert joint.allowing(0.01) == pytest.approx(log_mean_exp(torch.tensor([p.allowing(0.01) for p in parts])))
    assert not joint.reused
    parts[1].reused = True
    assert joint.reused
