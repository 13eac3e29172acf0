"""The guarded Gaussian mixture: exact for symmetric numbers, and held to its level where they are skewed and heavy.

The replicas of one simulation run side by side (`Replicas`), as a copy of the class in a few lines; that the copy is
faithful is itself a test.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import asymptotic
from harness.statistics.accumulator import pieces
from harness.statistics.asymptotic import AsymptoticMean, gate, log_bet, log_mixture, patience

LOG_LEVEL = math.log(20)
RAREST = 1e-3


def student(nu):
    def draw(n, r, g):
        chi2 = 2 * torch._standard_gamma(torch.full((n, r), nu / 2), generator=g)
        return torch.randn(n, r, generator=g) * (nu / chi2).sqrt()

    return draw


def pareto(a):
    return lambda n, r, g: (1 - torch.rand(n, r, generator=g, dtype=torch.float64)).pow(-1 / a) - a / (a - 1)


LAWS = {
    "normal": lambda n, r, g: torch.randn(n, r, generator=g),
    "exponential": lambda n, r, g: torch.empty(n, r).exponential_(generator=g) - 1,
    "lognormal": lambda n, r, g: torch.randn(n, r, generator=g).exp() - math.exp(0.5),
    "pareto(2.1)": pareto(2.1),
    "student(3)": student(3.0),
    "student(2.1)": student(2.1),
    "rare": lambda n, r, g: (torch.rand(n, r, generator=g) < RAREST).float() - RAREST,
    "rarely not": lambda n, r, g: RAREST - (torch.rand(n, r, generator=g) < RAREST).float(),
}


class Replicas:
    """r independent copies of `AsymptoticMean` on one column each."""

    def __init__(self, r, threshold=LOG_LEVEL, guarded=True):
        self.stages = [torch.zeros(4, r, dtype=torch.float64) for _ in range(3)]  # n, S, V, max x^2: first, second, all
        self.confirming = torch.zeros(r, dtype=torch.bool)
        self.threshold, self.guarded = threshold, guarded

    def update(self, x):
        x = x.double()
        new = torch.stack([torch.full_like(x[0], len(x)), x.sum(0), x.square().sum(0), x.square().amax(0)])
        for stage, takes in zip(self.stages, (~self.confirming, self.confirming, self.confirming | True), strict=True):
            stage[:3] += torch.where(takes, new[:3], 0.0)
            stage[3] = torch.where(takes, torch.maximum(stage[3], new[3]), stage[3])

    def speaks(self, n, squares, largest):
        if not self.guarded:
            return squares > 0
        return (largest * 4 * self.threshold <= squares) & (squares > 0) & (n >= patience(self.threshold, RAREST))

    def first(self):
        n, s, v, m = self.stages[0]
        return torch.where(self.speaks(n, v, m), log_mixture(s, v), -math.inf)

    def log_e(self):
        n, s, v, m = self.stages[1]
        found = self.stages[0][2].clamp(min=1e-300)
        bet = torch.where(self.speaks(n, v, m), log_bet(s, v, self.stages[0][1] / found, found), -math.inf)
        both = torch.minimum(self.first(), bet)
        return torch.where(self.confirming & (both > -math.inf), both, 0.0)

    def confirm(self):
        self.confirming |= self.first() >= self.threshold

    def misses(self):
        """Does the interval at 0.95 leave out 0? It does where the gates are open and the mixture at 0 is too large."""
        n, s, v, m = self.stages[2]
        mean = s / n
        around = v - s * mean
        is_open = gate(int(n[0]), around, (m.sqrt() + mean.abs()).square(), LOG_LEVEL, RAREST / 2)
        return is_open & (log_mixture(s, v) >= LOG_LEVEL)


def run(draw, g, last, r, watch, threshold=LOG_LEVEL, guarded=True):
    """Per replica: was `watch` true at any of the fixed draw counts up to `last`?"""
    replicas, n, stop = Replicas(r, threshold, guarded), 0, asymptotic._FIRST
    ever = torch.zeros(r, dtype=torch.bool)
    while stop <= last:
        replicas.update(draw(stop - n, r, g))
        n, stop = stop, stop + -(-stop // 8)
        ever = ever | watch(replicas)
        replicas.confirm()
    return ever


@pytest.mark.parametrize("name", ["normal", "lognormal", "rare"])
def test_the_replicas_are_faithful(name, g):
    x = LAWS[name](20_000, 3, g) + torch.tensor([0.0, 0.1, -0.2])
    replicas = Replicas(3)
    single = [AsymptoticMean(LOG_LEVEL, RAREST) for _ in range(3)]
    for piece, complete in pieces(x, 0, asymptotic._FIRST):
        replicas.update(piece)
        for j, statistic in enumerate(single):
            statistic.update(piece[:, j])
            assert statistic.log_e() == pytest.approx(float(replicas.log_e()[j]), rel=1e-6, abs=1e-6)
            low, high = statistic.interval(0.05)
            assert bool(not low <= 0 <= high) == bool(replicas.misses()[j])
        if complete:
            replicas.confirm()
    assert single[1].confirming or name != "normal"


@pytest.mark.parametrize("name", LAWS)
def test_keeps_its_level_while_peeking(name, g, alarms_within):
    assert alarms_within(run(LAWS[name], g, 9000, 1000, lambda s: s.log_e() >= LOG_LEVEL))


@pytest.mark.parametrize("name", ["normal", "exponential", "pareto(2.1)", "rare"])
def test_covers_while_peeking(name, g, alarms_within):
    assert alarms_within(run(LAWS[name], g, 14_000, 700, Replicas.misses))


def test_calibration_catches_missing_guards(g, alarms_within):
    """Without gate and patience, a mean that rests on events not yet seen looks like a certain deviation."""
    assert not alarms_within(run(LAWS["rare"], g, 5000, 700, lambda s: s.log_e() >= LOG_LEVEL, guarded=False))


def test_calibration_catches_a_missing_confirmation(g, alarms_within):
    assert not alarms_within(run(LAWS["rare"], g, 9000, 700, lambda s: s.first() >= LOG_LEVEL))


def test_calibration_catches_peeking_at_a_central_limit_interval(g, alarms_within):
    def clt(s):
        return s.stages[2][1].abs() > 1.96 * s.stages[2][2].sqrt()

    assert not alarms_within(run(LAWS["normal"], g, 9000, 700, clt))


@pytest.mark.parametrize("p", [RAREST, 0.01, 0.1])
@pytest.mark.parametrize("alpha", [1e-8, 1e-4, 0.05])
def test_two_stages_keep_small_levels_on_rare_events_exactly(p, alpha):
    """Counts of events are binomial, so the probability that one stage alone speaks up, at any one look, is a sum; both
    stages have to, so its square must stay below alpha, for the most skewed law that `rarest` admits."""
    level = math.log(1 / alpha)
    for n in np.geomspace(patience(level, RAREST) + 1, 10 * level / RAREST, 20).astype(int):
        events = np.arange(int(n * p + 12 * math.sqrt(n * p) + 100))
        total = torch.tensor(events - n * p)
        squares = torch.tensor(events * (1 - p) ** 2 + (n - events) * p**2)
        largest = torch.where(torch.tensor(events) > 0, (1 - p) ** 2, p**2)
        speaks = gate(int(n), squares, largest, level, RAREST) & (log_mixture(total, squares) >= level)
        assert stats.binom(n, p).pmf(events)[speaks.numpy()].sum() ** 2 <= alpha


def test_two_stages_keep_the_level_1e8_on_exponential_numbers():
    """P(a stage speaks up at n) by importance sampling; the dangerous side is a small sum, drawn at rate 1 + theta."""
    rng, level = np.random.default_rng(23), math.log(1e8)
    n = int(patience(level, RAREST)) + 1
    theta = math.sqrt(2 * (level + 5)) / math.sqrt(n)
    y = rng.exponential(1 / (1 + theta), size=(300, n))
    weight = np.exp(theta * y.sum(1) - n * math.log1p(theta))
    x = torch.tensor(y - 1)
    squares = x.square().sum(1)
    speaks = log_mixture(x.sum(1), squares) >= level
    speaks &= gate(n, squares, x.square().amax(1), level, RAREST)
    assert 0.2 < float(speaks.double().mean()) < 0.95  # the tilt is at the boundary, so that the estimate is good
    assert float((torch.tensor(weight) * speaks).mean()) ** 2 <= 1e-8
    assert float((torch.tensor(weight) * speaks).mean()) <= 1e-8  # here even one stage is enough


def test_mixture_is_the_integral_over_lambda():
    total, squares, rho = 12.0, 80.0, 16.0
    grid = torch.linspace(-3, 3, 200_001, dtype=torch.float64)
    prior = torch.exp(-rho * grid.square() / 2) * math.sqrt(rho / (2 * math.pi))
    integral = torch.trapezoid(prior * torch.exp(grid * total - grid.square() * squares / 2), grid)
    t = torch.tensor
    formula = log_bet(t(total).double(), t(squares).double(), t(0.0).double(), t(rho).double())
    assert float(formula) == pytest.approx(math.log(float(integral)), abs=1e-9)
    parts = [
        0.5 * math.log(r / (squares + r)) + total**2 / (2 * (squares + r)) for r in asymptotic._LOG_RHO.exp().tolist()
    ]
    mixture = float(log_mixture(t(total).double(), t(squares).double()))
    assert mixture == pytest.approx(np.logaddexp.reduce(parts) - math.log(41), abs=1e-9)


def test_needs_few_more_draws_than_theory(g):
    """Normal numbers with mean 0.05 sd at alpha = 1e-7: theory asks 2 log(1/alpha) / 0.05^2 = 12 900 draws.

    The first stage pays log 41 for its rhos and, with rho within a factor 4 of V / 2y at y = 20, at most
    log(1 + V / rho) / 2 + y / (1 + V / rho) = 3: it needs (16 + 6.7) / 16 of that. The second starts from the deviation
    found, with an error of one sd of the first: log 2 / 2 and 1/2 on average: (16 + 1) / 16. Each stage
    ends at a look, at most an eighth late, and so does the count of `run`.
    """
    goal = math.log(1e7)
    theory = 2 * goal / 0.05**2
    limit = 1.125**2 * ((goal + 6.7) + (goal + 1)) / goal * theory
    found = run(lambda n, r, g: torch.randn(n, r, generator=g) + 0.05, g, limit, 200, lambda s: s.log_e() >= goal, goal)
    assert found.double().mean() >= 0.5


@pytest.mark.parametrize("scale", [1e-5, 1e6])
def test_units_do_not_matter_much(scale, g):
    """The grid of rhos has a ratio of 16: between its points evidence changes by less than 1."""
    x = torch.randn(60_000, generator=g) + 0.06
    one, other = AsymptoticMean(math.log(1e7)), AsymptoticMean(math.log(1e7))
    one.update(x)
    other.update(x * scale)
    assert one.look(0.99).log_e >= math.log(1e7)
    assert other.look(0.99).log_e == pytest.approx(one.look(0.99).log_e, abs=1)
    assert other.look(0.99).bound == pytest.approx(one.look(0.99).bound * scale, rel=0.1)


def test_the_interval_shrinks_like_the_normal_one(g):
    """At 0.999: level 6.9, and 6.7 for the mixture as above."""
    statistic = AsymptoticMean()
    statistic.update(3 * torch.randn(100_000, generator=g) + 7)
    low, high = statistic.interval(0.001)
    half = float(high - low) / 2
    assert 3.29 <= half / (3 / math.sqrt(100_000)) <= math.sqrt(2 * (6.9 + 6.7))
    assert low <= 7 <= high


def test_a_single_huge_number_closes_the_gate():
    statistic = AsymptoticMean(math.log(1e6))
    statistic.update(torch.full((20_000,), 0.1))
    statistic.update(torch.tensor([1e4]))
    assert statistic.look(0.99).bound == math.inf


def of_sd(sd):
    """An unseen event of probability q shifts the mean by sqrt(q) sd at most."""
    return lambda q, varies: torch.tensor([math.sqrt(q) * sd], dtype=torch.float64)


@pytest.mark.parametrize("p", [1e-8, 1e-6, 1e-5])
def test_a_mean_that_an_unseen_event_explains_is_no_evidence(p):
    """A bit of probability p that was 0 each time, less its mean; without a bound `rarest` is trusted."""
    zeros, sd = torch.full((30_000,), -p, dtype=torch.float64), math.sqrt(p * (1 - p))
    bounded, trusting = AsymptoticMean(unseen=of_sd(sd)), AsymptoticMean()
    bounded.update(zeros)
    trusting.update(zeros)
    assert bounded.log_e() == 0
    assert trusting.log_e() >= trusting.threshold


@pytest.mark.parametrize("p", [0.01, 0.3])
def test_an_event_that_ought_to_have_been_seen_is_evidence(p):
    statistic = AsymptoticMean(unseen=of_sd(math.sqrt(p * (1 - p))))
    statistic.update(torch.full((30_000,), -p, dtype=torch.float64))
    assert statistic.log_e() >= statistic.threshold


def test_a_bound_on_the_unseen_costs_nothing_where_draws_are_as_wide_as_they_should_be(g):
    x = torch.randn(30_000, generator=g) + 0.08
    bounded, trusting = AsymptoticMean(unseen=of_sd(1.0)), AsymptoticMean()
    for rows in x.split(1000):
        bounded.update(rows)
        trusting.update(rows)
        if trusting.log_e() >= trusting.threshold:
            assert bounded.log_e() == trusting.log_e()
    assert trusting.log_e() >= trusting.threshold


def test_which_columns_vary_is_told(g):
    told = []
    statistic = AsymptoticMean(unseen=lambda q, varies: told.append(varies) or torch.zeros(3))
    third = torch.full((30_000,), 1 / 3, dtype=torch.float64)
    rounded = third * (1 + 2**-52 * torch.randint(0, 2, (30_000,), generator=g))
    statistic.update(torch.stack([third, rounded, third + 1e-3 * torch.randn(30_000, generator=g)], 1))
    assert told[-1].tolist() == [False, False, True]


def test_too_few_draws_say_nothing(g):
    statistic = AsymptoticMean(math.log(1e6))
    statistic.update(torch.randn(1000, generator=g) + 5)
    look = statistic.look(0.999)
    assert look.log_e == 0
    assert look.bound == math.inf


def test_nothing_but_zeros_is_a_mean_of_0():
    statistic = AsymptoticMean()
    statistic.update(torch.zeros(10_000, 2))
    assert statistic.look(0.999).bound == 0
    assert statistic.look(0.999).log_e == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("before", [0, 100_000])
def test_numbers_that_are_not_finite_never_pass(bad, before):
    statistic = AsymptoticMean()
    statistic.update(torch.ones(before, 2))
    statistic.update(torch.tensor([[0.0, bad]]))
    statistic.update(torch.zeros(1000, 2))
    look = statistic.look(0.9)
    assert math.isnan(look.bound)
    assert math.isnan(look.log_e)
    assert look.column == 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 30_000), max_size=5))
def test_chunks_do_not_matter(cuts):
    x = ((torch.arange(30_000) * 7919) % 64 - 28).double()[:, None] * torch.tensor([1.0, 0.25])
    whole, parts = AsymptoticMean(LOG_LEVEL), AsymptoticMean(LOG_LEVEL)
    whole.update(x)
    for part in torch.tensor_split(x, sorted(cuts)):
        parts.update(part)
    assert whole.look(0.99) == parts.look(0.99)
    assert whole.confirming
    assert whole.look(0.99).log_e > LOG_LEVEL


def test_before_the_first_draw_nothing_is_known():
    assert AsymptoticMean().look(0.9).bound == math.inf
    assert AsymptoticMean().look(0.9).log_e == 0


@pytest.mark.parametrize("threshold", [math.log(1e3), math.log(1e8)])
@pytest.mark.parametrize("rarest", [0.05, 0.002])
def test_what_is_least_is_the_first_number_of_draws_at_which_it_can_fail(threshold, rarest):
    """Numbers that are 1 or 1.1 by turns: nothing could speak more clearly against a mean of 0."""
    statistic = AsymptoticMean(threshold, rarest)
    x = torch.tensor([1.0, 1.1], dtype=torch.float64).repeat(statistic.least)
    statistic.update(x[: statistic.least - 1])
    assert statistic.log_e() < threshold
    statistic.update(x[:1])
    assert statistic.n == statistic.least
    assert statistic.log_e() >= threshold
