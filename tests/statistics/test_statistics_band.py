"""The uniform band covers the whole distribution function at all times, and finds shifts, waves and tails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.statistics import band, binomial
from harness.statistics.band import POINTS, UniformBand, log_e_values

LOG_LEVEL = math.log(20)
STEPS = torch.diff(POINTS, prepend=torch.zeros(1).double(), append=torch.ones(1).double())


def counts_below(rng, n, replicas, shares=STEPS):
    return torch.tensor(rng.multinomial(n, shares.numpy(), size=replicas)).double().cumsum(1)[:, :-1]


def ever(looks, replicas, alarm):
    """Per replica: did `alarm` go off at any look, when the numbers are uniform?"""
    rng = np.random.default_rng(17)
    below, n, seen = torch.zeros(replicas, len(POINTS), dtype=torch.float64), 0, torch.zeros(replicas, dtype=torch.bool)
    for size in looks:
        below, n = below + counts_below(rng, size - n, replicas), size
        seen = seen | alarm(below, n)
    return seen


def test_keeps_its_level_while_peeking(peeks, alarms_within):
    assert alarms_within(ever(peeks(3, 10_000, 4.0), 200, lambda below, n: log_e_values(below, n) >= LOG_LEVEL))


def test_covers_all_points_at_once_while_peeking(peeks, alarms_within):
    def misses(below, n):  # an interval leaves out the truth where its e-value is too large (test_statistics_binomial)
        return (binomial.log_e_value(below, n, POINTS) >= LOG_LEVEL - band._LOG_WEIGHT).any(1)

    assert alarms_within(ever(peeks(3, 10_000, 4.0), 200, misses))


def test_calibration_catches_the_wrong_variants(peeks, alarms_within):
    def without_weights(below, n):
        return torch.logsumexp(binomial.log_e_value(below, n, POINTS), -1) >= LOG_LEVEL

    def kolmogorov(below, n):  # its 5 % point for one fixed n, at every look
        return (below / n - POINTS).abs().amax(-1) > 1.358 / math.sqrt(n)

    assert not alarms_within(ever(peeks(3, 10_000, 8.0), 100, without_weights))
    assert not alarms_within(ever(peeks(50, 20_000, 1.5), 200, kolmogorov))


def first_alarm(shares, goal, looks, replicas=15):
    rng = np.random.default_rng(19)
    below, n, found = torch.zeros(replicas, len(POINTS), dtype=torch.float64), 0, torch.full((replicas,), math.inf)
    for size in looks:
        below, n = below + counts_below(rng, size - n, replicas, shares), size
        found = torch.where(found.isinf() & (log_e_values(below, n) >= goal), float(size), found)
    return float(found.median())


def binomial_cost(p):
    """What evidence at one point pays: log 11 + 2.7 for its mixture (see its test), its weight in the band, log 2."""
    return 5.1 - float(band._LOG_WEIGHT[p == POINTS]) + math.log(2)


def test_power_against_a_shift(peeks):
    """Density 1 + 0.1 above and 1 - 0.1 below the median: G(1/2) = 0.45, and one point alone must suffice."""
    goal = math.log(1e7)
    shares = STEPS * torch.where(torch.arange(len(STEPS)) < len(STEPS) // 2, 0.9, 1.1)
    shares = shares / shares.sum()
    kl = 0.45 * math.log(0.9) + 0.55 * math.log(1.1)
    assert first_alarm(shares, goal, peeks(1000, 20_000, 1.1)) <= 1.1 * (goal + binomial_cost(0.5)) / kl


def test_power_in_a_tail(peeks):
    """An event of probability 2^-10 that happens 3 times as often: the point 2^-10 alone must suffice."""
    goal, p = math.log(1e7), 2.0**-10
    edges = torch.cat([torch.zeros(1).double(), POINTS])
    shares = torch.where(edges < p, 3 * STEPS, STEPS * (1 - 3 * p) / (1 - p))
    kl = 3 * p * math.log(3) + (1 - 3 * p) * math.log((1 - 3 * p) / (1 - p))
    assert first_alarm(shares, goal, peeks(2000, 60_000, 1.1)) <= 1.1 * (goal + binomial_cost(p)) / kl


def test_power_against_a_wave_that_leaves_the_distribution_function_nearly_unmoved(peeks):
    """64 cells off by 20 % in alternation move G by at most 0.2/64 = 0.003; the histogram finds them as `categorical`
    does by its own test, in about 3700 draws, log 2 later."""
    wave = 1 + 0.2 * (1 - 2 * ((torch.cat([torch.zeros(1).double(), POINTS]) * 64).floor() % 2))
    assert first_alarm(STEPS * wave / (STEPS * wave).sum(), math.log(1e7), peeks(1000, 10_000, 1.1)) <= 5000


def test_the_interval_covers_between_grid_points_too():
    """All mass just above a grid point: the deviation between points is larger than at them, and still inside."""
    statistic = UniformBand()
    statistic.update(torch.full((200_000,), 0.5 + 1e-5, dtype=torch.float64))
    look = statistic.look(0.999)
    assert look.low <= -0.5
    assert look.high >= 0.5 - 1e-5


def test_bound_shrinks_to_the_grid_step(g):
    statistic = UniformBand()
    statistic.update(torch.rand(2**20, generator=g))
    look = statistic.look(0.999)
    assert look.log_e < LOG_LEVEL
    # widest at t = 1/2: sqrt(2 (log(1 / 0.001) + 8.3 + 5.1) / 4n), plus the estimate's own error, plus 1/2048
    assert look.bound <= math.sqrt((6.9 + 8.3 + 5.1) / 2 / 2**20) + abs(look.estimate) + 1 / 2048


def test_numbers_at_0_and_1_are_counted(g):
    statistic = UniformBand()
    statistic.update(torch.cat([torch.rand(1000, generator=g), torch.tensor([0.0, 1.0])]))
    assert statistic.look(0.99).log_e < LOG_LEVEL
    statistic.update(torch.zeros(200))
    assert statistic.look(0.99).log_e > 100


def test_float32_generators_are_uniform_on_the_grid():
    """torch.rand in float32 gives multiples of 2^-24: exactly a share t of those lies below each t of the grid."""
    assert torch.equal(POINTS * 2**24, (POINTS * 2**24).round())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_and_columns(g, dtype):
    u = torch.rand(3000, 2, generator=g, dtype=dtype)
    u[:, 1] = u[:, 1].square()
    whole, parts, alone = UniformBand(), UniformBand(), UniformBand()
    whole.update(u)
    alone.update(u[:, 1])
    for part in torch.split(u, 700):
        parts.update(part)
    assert whole.look(0.99) == parts.look(0.99)
    assert whole.look(0.99).column == 1
    assert whole.look(0.99).log_e == pytest.approx(alone.look(0.99).log_e - math.log(2))
    assert torch.equal(whole.below()[1], (u[:, 1, None].double() < POINTS).sum(0).double())


def test_poison_misuse_and_nothing():
    statistic = UniformBand()
    assert statistic.look(0.9).bound == 1
    assert statistic.look(0.9).log_e == 0
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        statistic.update(torch.tensor([1.5]))
    statistic.update(torch.rand(1000, generator=torch.Generator().manual_seed(0)))
    statistic.update(torch.tensor([math.nan]))
    look = statistic.look(0.9)
    assert not look.bound <= 1
    assert not look.log_e < 1e9


def test_cells_are_the_histogram(g):
    statistic = UniformBand()
    u = torch.rand(5000, generator=g)
    statistic.update(u)
    assert [round(c.observed * 5000) for c in statistic.cells()] == torch.histc(u, 64, 0, 1).int().tolist()
