"""Dirichlet-multinomial e-process: an exact mixture, valid while peeking, strong for spread and single deviations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from harness.statistics import binomial, categorical
from harness.statistics.categorical import CategoricalCounts, log_e_values

LOG_LEVEL = math.log(20)
EVEN = torch.full((64,), 1 / 64, dtype=torch.float64)
ZIPF = 1 / torch.arange(1, 31, dtype=torch.float64)
ZIPF = ZIPF / ZIPF.sum()
LOPSIDED = torch.tensor([0.999, 0.0009, 0.0001, 0.0], dtype=torch.float64)
DIE = torch.full((6,), 1 / 6, dtype=torch.float64)


def test_evidence_is_the_mixture_of_dirichlet_multinomials():
    masses, counts = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([40.0, 40.0, 5.0]).double()
    null = stats.multinomial(85, masses.numpy()).logpmf(counts.numpy())
    spread = [
        stats.dirichlet_multinomial.logpmf(counts.int().numpy(), c * masses.numpy(), 85) - null
        for c in categorical._PRIOR_DRAWS.numpy()[:6]
    ]
    spread += [categorical_by_sums(counts, masses, c) for c in categorical._PRIOR_DRAWS[6:]]
    single = binomial.log_e_value(counts, 85, masses).numpy()
    expected = np.logaddexp(np.logaddexp.reduce(spread) - math.log(10), np.logaddexp.reduce(single) - math.log(3))
    assert float(log_e_values(counts, masses)) == pytest.approx(expected - math.log(2), abs=1e-6)


def categorical_by_sums(counts, masses, c):
    def growth(size, count):
        return math.fsum(math.log1p(i / size) for i in range(int(count)))

    return sum(growth(float(c * m), float(k)) for m, k in zip(masses, counts, strict=True)) - growth(float(c), 85)


def test_expectation_is_one():
    """E exp(log_e) = 1, summed over every outcome of 12 draws in 3 cells."""
    masses = torch.tensor([0.7, 0.25, 0.05], dtype=torch.float64)
    counts = torch.tensor([(i, j, 12 - i - j) for i in range(13) for j in range(13 - i)], dtype=torch.float64)
    pmf = torch.tensor(stats.multinomial(12, masses.numpy()).pmf(counts.numpy()))
    assert float((pmf * log_e_values(counts, masses).exp()).sum()) == pytest.approx(1, abs=1e-9)


def alarms(masses, true, looks, replicas, log_e=log_e_values):
    rng = np.random.default_rng(11)
    counts, n = torch.zeros(replicas, len(true), dtype=torch.float64), 0
    found = torch.full((replicas,), math.inf)
    for size in looks:
        counts, n = counts + torch.tensor(rng.multinomial(size - n, true.numpy(), size=replicas)), size
        found = torch.where(found.isinf() & (log_e(counts, masses) >= LOG_LEVEL), float(size), found)
    return found.isfinite()


@pytest.mark.parametrize("masses", [EVEN, ZIPF, LOPSIDED, DIE], ids=["even", "zipf", "lopsided", "die"])
def test_keeps_its_level_while_peeking(masses, peeks, alarms_within):
    assert alarms_within(alarms(masses, masses, peeks(1, 20_000, 1.6), 1500))


def test_calibration_catches_the_wrong_variants(peeks, alarms_within):
    def unaveraged(counts, masses):  # the best prior size chosen after the fact, on top of a sum over cells
        single = binomial.log_e_value(counts, counts.sum(-1)[:, None].clamp(min=1), masses)
        return torch.logsumexp(single, -1) + math.log(len(binomial._PRIOR_EVENTS))

    def chi_square(counts, masses):  # Pearson's test at fixed n, at every look
        n = counts.sum(-1, keepdim=True)
        statistic = ((counts - n * masses).square() / (n * masses)).sum(-1)
        return torch.where(statistic > stats.chi2(len(masses) - 1).ppf(0.95), math.inf, -math.inf)

    for broken in (unaveraged, chi_square):
        assert not alarms_within(alarms(DIE, DIE, peeks(30, 20_000, 1.6), 1500, broken))


def test_masses_with_stated_error_keep_the_level_and_with_unstated_error_do_not(peeks, alarms_within):
    """True masses at the edge of what is stated: after 1e6 draws an error of 2e-3 in each mass is plain to see."""
    off = torch.tensor([1, -1, 1, -1, 1, -1], dtype=torch.float64) * 2e-3
    looks = peeks(1000, 1_000_000, 2.0)
    assert alarms_within(alarms(DIE, DIE + off, looks, 1500, lambda c, m: log_e_values(c, m, 2e-3)))
    assert alarms(DIE, DIE + off, looks, 1500).double().mean() > 0.5


def test_evidence_with_uncertainty_is_the_least_over_the_null_hypothesis():
    counts = torch.tensor([400.0, 300.0, 200.0, 100.0]).double()
    masses = torch.tensor([0.25, 0.25, 0.25, 0.25]).double()
    u = torch.full_like(masses, 0.08)
    best = optimize.minimize(
        lambda q: -float(counts.numpy() @ np.log(q)),
        masses.numpy(),
        bounds=[(0.17, 0.33)] * 4,
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    assert float(categorical._best_null(counts, masses, u)) == pytest.approx(-best.fun, abs=1e-4)


def misses(masses, looks, replicas):
    rng = np.random.default_rng(3)
    counts, n = torch.zeros(replicas, len(masses), dtype=torch.float64), 0
    missed = torch.zeros(replicas, dtype=torch.bool)
    for size in looks:
        counts, n = counts + torch.tensor(rng.multinomial(size - n, masses.numpy(), size=replicas)), size
        level = LOG_LEVEL + math.log(len(masses))
        low, high = binomial.interval(counts, n, masses.expand_as(counts), level)
        missed = missed | ~((low <= masses) & (masses <= high)).all(1)
    return missed


@pytest.mark.parametrize("masses", [ZIPF, LOPSIDED], ids=["zipf", "lopsided"])
def test_intervals_cover_all_cells_at_once(masses, peeks, alarms_within):
    assert alarms_within(misses(masses, peeks(1, 20_000, 1.8), 1000))


def draws_needed(masses, true, goal, looks, replicas=150):
    rng = np.random.default_rng(13)
    counts, n = torch.zeros(replicas, len(true), dtype=torch.float64), 0
    found = torch.full((replicas,), math.inf)
    for size in looks:
        counts, n = counts + torch.tensor(rng.multinomial(size - n, true.numpy(), size=replicas)), size
        found = torch.where(found.isinf() & (log_e_values(counts, masses) >= goal), float(size), found)
    return float(found.median())


def test_power_against_a_deviation_spread_over_64_cells(peeks):
    """Every mass off by 20 %, in alternation: chi^2 has mean 63 + n 0.04.

    The Dirichlet(c m) part is about (chi^2 n / (n + c) - 63 log(1 + n / c)) / 2 (Laplace), less log 20 for the mixture:
    the n at which the best c reaches log 1e7 is what theory asks, 10 % is left for the quality of Laplace's formula.
    """
    goal, true = math.log(1e7), EVEN * (1 + 0.2 * torch.tensor([1.0, -1.0]).repeat(32))
    n = torch.arange(100, 20_000, 10, dtype=torch.float64)[:, None]
    c = categorical._PRIOR_DRAWS
    growth = ((63 + 0.04 * n) * n / (n + c) - 63 * torch.log1p(n / c)) / 2 - math.log(20)
    derived = float(n[growth.amax(1) >= goal].min())
    assert draws_needed(EVEN, true, goal, peeks(200, 20_000, 1.04)) <= 1.04 * 1.1 * derived


@pytest.mark.parametrize("factor", [1.5, 0.5])
def test_power_against_a_single_wrong_cell_of_64(factor, peeks):
    """log(1/alpha) / KL is the least; to it come 5.1 for the beta-binomial mixture (see its test), log 64 for the
    choice of the cell and log 2 for the choice between the two halves: 26 in place of 16."""
    goal = math.log(1e7)
    true = EVEN.clone()
    true[5] *= factor
    true = true / true.sum()
    kl = float((true * torch.log(true / EVEN)).sum())
    needed = draws_needed(EVEN, true, goal, peeks(500, round(3 * goal / kl), 1.04))
    assert needed <= 1.04 * (goal + 5.1 + math.log(128)) / kl


def test_single_cell_deviations_are_found_at_a_hundred_million_draws():
    """5 sigma beyond what the union and mixture cost: sqrt(2 (16 + 5 + 5)) = 7.2 sigma."""
    n, counts = 10**8, (EVEN * 10**8).clone()
    sigma = math.sqrt(n / 64 * 63 / 64)
    counts[3] += 7.3 * sigma
    counts[4:] -= 7.3 * sigma / 60
    assert float(log_e_values(counts, EVEN)) >= math.log(1e7)
    counts[3] -= 3.0 * sigma
    counts[4:] += 3.0 * sigma / 60
    assert float(log_e_values(counts, EVEN)) < math.log(1e3)


def test_a_draw_where_there_is_no_mass_is_infinite_evidence():
    statistic = CategoricalCounts(LOPSIDED)
    statistic.update(torch.zeros(1000, dtype=torch.long))
    assert statistic.look(0.99).log_e < LOG_LEVEL
    statistic.update(torch.tensor([3]))
    assert statistic.look(0.99).log_e == math.inf


def test_looks_cells_and_chunks(g):
    cells = torch.multinomial(ZIPF, 5000, replacement=True, generator=g)
    whole, parts = CategoricalCounts(ZIPF), CategoricalCounts(ZIPF)
    whole.update(cells)
    for part in torch.split(cells, 777):
        parts.update(part)
    look = whole.look(0.99)
    assert look == parts.look(0.99)
    assert look.low <= 0 <= look.high
    assert look.n == 5000
    assert sum(cell.observed for cell in whole.cells()) == pytest.approx(1)
    assert look.estimate == pytest.approx(whole.cells()[look.column].observed - whole.cells()[look.column].expected)


def test_uncertainty_widens_the_interval():
    sure, unsure = CategoricalCounts(DIE), CategoricalCounts(DIE, 0.01)
    for statistic in (sure, unsure):
        statistic.add(torch.full((6,), 1000.0))
    assert unsure.look(0.99).bound == pytest.approx(sure.look(0.99).bound + 0.01)
    assert unsure.log_e() <= sure.log_e()


@given(st.lists(st.integers(0, 2000), min_size=4, max_size=4))
def test_evidence_is_never_nan_and_infinite_only_for_the_impossible(counts):
    log_e = float(log_e_values(torch.tensor(counts, dtype=torch.float64), LOPSIDED))
    assert not math.isnan(log_e)
    assert (log_e == math.inf) == (counts[3] > 0)


def test_misuse_is_an_error():
    with pytest.raises(ValueError, match="sum to 1"):
        CategoricalCounts(torch.tensor([0.5, 0.4]))
    with pytest.raises(ValueError, match="outside"):
        CategoricalCounts(DIE).update(torch.tensor([6]))
    with pytest.raises(TypeError):
        CategoricalCounts(DIE).update(torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="sum to 1"):
        CategoricalCounts(torch.tensor([math.nan, 1.0]))
    assert CategoricalCounts(torch.tensor([0.5, 0.4]), 0.06).look(0.9).n == 0
