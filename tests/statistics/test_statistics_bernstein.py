"""The empirical-Bernstein e-process keeps its level at every look, covers, and finds what it should."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.statistics import bernstein
from harness.statistics.accumulator import log_mean_exp
from harness.statistics.bernstein import BoundedMean, Sums, sums

LOG_LEVEL = math.log(20)

# name: (low, high, draw(n, replicas, generator)), each with mean 0
LAWS = {
    "uniform": (-1.0, 1.0, lambda n, r, g: 2 * torch.rand(n, r, generator=g) - 1),
    "signs": (-1.0, 1.0, lambda n, r, g: 2.0 * torch.randint(0, 2, (n, r), generator=g) - 1),
    "rare": (-0.01, 0.99, lambda n, r, g: (torch.rand(n, r, generator=g, dtype=torch.float64) < 0.01).double() - 0.01),
    "skew": (-0.25, 0.75, lambda n, r, g: torch.rand(n, r, generator=g, dtype=torch.float64) ** 3 - 0.25),
    "often": (-0.99, 0.01, lambda n, r, g: 0.01 - (torch.rand(n, r, generator=g, dtype=torch.float64) < 0.01).double()),
}


def both_sides(statistic: BoundedMean) -> torch.Tensor:
    """(k,): the log e-value that each column alone would report."""
    return torch.logsumexp(statistic.log_e(), 1) - math.log(2)


def alarms_and_misses(name, g, looks, replicas=3000, log_e=both_sides):
    """Per replica (a column): was 1 / alpha ever reached, did the interval ever leave out the mean?"""
    low, high, draw = LAWS[name]
    statistic = BoundedMean(low, high)
    alarms = misses = torch.zeros(replicas, dtype=torch.bool)
    for size in looks:
        statistic.update(draw(size - statistic.n, replicas, g))
        alarms = alarms | (log_e(statistic) >= LOG_LEVEL)
        lower, upper = statistic.interval(0.05 * replicas)  # 0.05 for each column, not for all together
        misses = misses | ~((lower <= 0) & (upper >= 0))
    return alarms, misses


@pytest.mark.parametrize("name", LAWS)
def test_keeps_its_level_and_covers_while_peeking(name, g, peeks, alarms_within):
    alarms, misses = alarms_and_misses(name, g, peeks(2, 2000, 1.4))
    assert alarms_within(alarms)
    assert alarms_within(misses)


@pytest.mark.parametrize("mean", [-0.9, -0.3, 0.5])
def test_covers_means_other_than_0(mean, g, peeks, alarms_within):
    statistic = BoundedMean()
    misses = torch.zeros(3000, dtype=torch.bool)
    for size in peeks(2, 1000, 1.4):
        draws = torch.rand(size - statistic.n, 3000, generator=g, dtype=torch.float64) < (1 + mean) / 2
        statistic.update(2 * draws.double() - 1)
        lower, upper = statistic.interval(0.05 * 3000)
        misses = misses | ~((lower <= mean) & (mean <= upper))
    assert alarms_within(misses)


def test_calibration_catches_a_sum_in_place_of_an_average(g, peeks, alarms_within):
    def unweighted(s):
        return torch.logsumexp(s.total[:, None] * bernstein._LAMBDA - s.squares[:, None] * bernstein._PSI, 1)

    assert not alarms_within(alarms_and_misses("signs", g, peeks(2, 2000, 1.4), log_e=unweighted)[0])


def test_calibration_catches_peeking_at_a_fixed_n_interval(g, peeks, alarms_within):
    def fixed_n(s):
        return torch.where(s.total.abs() > 1.96 * s.squares.sqrt(), math.inf, -math.inf)

    assert not alarms_within(alarms_and_misses("signs", g, peeks(30, 2000, 1.3), log_e=fixed_n)[0])


@pytest.mark.parametrize("shift", [0.3, 0.1])
def test_needs_few_more_draws_than_theory(shift, g, peeks):
    """Signs with mean `shift`, at alpha = 1e-7.

    With mean growth lambda shift - psi(lambda) per draw, the lambda of weight w gets there after
    (log 1/alpha + log 2 + log 1/w) / growth draws, and the mixture no later. A bet that knew the shift and had no
    bound to respect would take 2 log(1/alpha) / shift^2: the mixture pays about log 2 + 4 of 16, a quarter; the range
    costs lambda / 3 of the exponent; and the grid 5 %.
    """
    goal = math.log(1e7)
    growth = bernstein._LAMBDA * shift - bernstein._PSI
    cost = goal + math.log(2) - bernstein._LOG_WEIGHT
    derived = float(torch.where(growth > 0, cost / growth, math.inf).min())
    theory = 2 * goal / shift**2
    statistic, found = BoundedMean(), torch.full((1000,), math.inf)
    for size in peeks(50, round(3 * theory), 1.02):
        draws = torch.rand(size - statistic.n, 1000, generator=g) < (1 + shift) / 2
        statistic.update(2.0 * draws - 1)
        found = torch.where(found.isinf() & (both_sides(statistic) >= goal), float(size), found)
    median = float(found.median())
    assert median <= 1.02 * derived
    assert derived <= 1.05 * 1.05 * (1 + shift / 2) * (goal + math.log(2) + 4) / goal * theory
    assert median >= 0.8 * theory  # else the level would be broken


def test_smallest_effects_of_rare_events_are_found():
    """An event of probability 1e-6 that happens twice as often: bets must be as small as 1e-6 of the range.

    For a small lambda = a p the exponent is n p (a - a^2), at best n p / 4; no bet gains more than n p (2 log 2 - 1).
    """
    p, n, events = 1e-6, 10**9, 2000.0
    statistic = BoundedMean(-p, 1 - p)
    total = torch.tensor([events - n * p])
    statistic.update(Sums(n, total, torch.tensor([events * (1 - p) ** 2 + (n - events) * p**2])))
    assert 0.9 * n * p / 4 <= statistic.look(0.999).log_e <= n * p * (2 * math.log(2) - 1)


def test_the_interval_inverts_the_mixture(g):
    """At the lower end m, the e-value against mean m is 1 / alpha; a brute-force search finds the same end."""
    x = torch.rand(500, generator=g, dtype=torch.float64) * 1.5 - 0.5
    statistic = BoundedMean(-0.5, 1.0)
    statistic.update(x)
    low = float(statistic.interval(0.01)[0])
    grid = torch.linspace(-0.5, 1, 200_001, dtype=torch.float64)
    bet = bernstein._LAMBDA
    exponents = x.sum() / 0.5 * bet - x.square().sum() / 0.25 * bernstein._PSI + bernstein._LOG_WEIGHT
    log_m = torch.logsumexp(exponents - 500 * torch.log1p(bet * grid[:, None] / 0.5), 1)
    assert low == pytest.approx(float(grid[log_m >= math.log(200)].max()), abs=2e-5)


@given(
    st.lists(st.integers(-8, 8), max_size=60), st.lists(st.integers(0, 60), max_size=4), st.sampled_from([0.5, 0.999])
)
def test_chunks_do_not_matter(eighths, cuts, confidence):
    x = torch.tensor(eighths, dtype=torch.float64) / 8
    whole, parts, added = BoundedMean(), BoundedMean(), BoundedMean()
    whole.update(x)
    for part in torch.tensor_split(x, sorted(cuts)):
        parts.update(part)
        added.update(sums(part))
    assert whole.look(confidence) == parts.look(confidence) == added.look(confidence)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_constants_are_judged_by_their_value(value):
    statistic = BoundedMean()
    statistic.update(torch.full((2000,), value))
    look = statistic.look(0.999)
    assert look.low <= value <= look.high
    assert look.low >= -1
    assert look.high <= 1
    assert (look.log_e > 100) == (value != 0)
    assert look.bound <= 0.05 if value == 0 else not look.low <= 0 <= look.high


def test_before_the_first_draw_nothing_is_known():
    statistic = BoundedMean(-0.25, 0.75)
    statistic.update(torch.zeros(0, 3))
    look = statistic.look(0.9)
    assert (look.n, look.low, look.high, look.log_e) == (0, -0.25, 0.75, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_never_pass(bad):
    statistic = BoundedMean()
    statistic.update(torch.zeros(100_000, 3))
    statistic.update(torch.tensor([[0.0, bad, 0.0]]))
    look = statistic.look(0.9)
    assert not look.bound <= 1
    assert not look.log_e < 1e9


def test_numbers_outside_the_promised_range_are_an_error():
    with pytest.raises(ValueError, match="promised"):
        BoundedMean(-0.5, 0.5).update(torch.tensor([0.1, 0.6]))
    BoundedMean(-0.5, 0.5).update(torch.tensor([0.5 + 1e-7]))  # rounding of float32


def test_look_reports_the_column_that_reaches_furthest(g):
    statistic = BoundedMean()
    statistic.update(torch.rand(1000, 3, generator=g) * torch.tensor([0.1, 1.0, 0.1]) + torch.tensor([0.0, 0.0, -0.9]))
    assert statistic.look(0.99).column == 2
    assert statistic.look(0.99).log_e == log_mean_exp(statistic.log_e())


def test_booleans_and_integers_are_numbers():
    statistic = BoundedMean()
    statistic.update(torch.tensor([True, False]))
    statistic.update(torch.tensor([-1, 1]))
    assert statistic.look(0.9).estimate == 0.25


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_sums_leave_the_numbers_alone_and_are_exact(dtype):
    x = (torch.arange(60_000) % 16).reshape(-1, 3).to(dtype)
    before = x.clone()
    seen = sums(x)
    assert torch.equal(x, before)
    assert torch.equal(seen.total, before.double().sum(0))
    assert torch.equal(seen.squares, before.double().square().sum(0))
