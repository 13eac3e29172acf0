"""What runs leave for later ones: settled before the draws, bounded in size, with the arithmetic allowed for."""

from __future__ import annotations

import math

import pytest
import torch

from harness import check_model
from harness.adapters import adapt
from harness.checks.carried import MOST_KEPT, carried_by, doubt
from harness.checks.clipped import clipped_variance_of_draws
from harness.checks.implicit import agrees_with_data
from harness.checks.implicit_memory import Excess
from harness.checks.law import statistical
from harness.checks.masses import REGIONS, RegionCounts, region_masses
from harness.draws import Draws
from harness.effort import effort_named
from harness.evidence import Estimated
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

QUICK = effort_named("quick")
NORMAL = torch.distributions.Normal(0.0, 1.0)


def subject(model, seed=0):
    return Subject(adapt(model), QUICK, seed)


def taken(check, seen, n=2048):
    """The statistic of a check after one chunk."""
    statistic = check.start(seen)
    statistic.update(check.numbers(Draws(seen, 0, n)))
    return statistic


@statistical("test.wide", needs=("sample",), start=lambda subject: BoundedMean())
def wide(draws: Draws) -> torch.Tensor:
    """Two hundred numbers of mean 0.

    All the same.
    """
    return torch.tanh(draws.z).expand(-1, 200)


@pytest.mark.parametrize("model", [NORMAL, torch.distributions.Poisson(3.0)], ids=["continuous", "discrete"])
def test_a_run_leaves_sums_wherever_its_evidence_is_not_asymptotic(model):
    families = ["sample", "sampler", "support", "moments.mean_of_draws"]
    report = check_model(model, effort="quick", seed=0, only=families)
    seen = {r.check: r.evidence for r in report.records if isinstance(r.evidence, Estimated)}
    assert len(seen) >= 12
    assert {check for check, left in seen.items() if left.carried is None} == {"moments.mean_of_draws"}
    bridge = seen["sampler.bridge"]
    assert bridge.carried.of == bridge.columns
    assert bridge.carried.log_e <= bridge.last.log_e  # rounding is allowed for
    assert bridge.carried.log_e == pytest.approx(bridge.last.log_e, abs=0.1)


def test_of_many_quantities_some_are_kept_that_the_seed_and_nothing_else_chooses():
    one, two = subject(NORMAL, seed=1), subject(NORMAL, seed=2)
    kept = [carried_by(wide, taken(wide, made, n), made) for made, n in ((one, 64), (one, 4096), (two, 64))]
    assert [left.of for left in kept] == [200] * 3
    assert kept[0].kept == kept[1].kept != kept[2].kept
    assert all(len(left.kept) == len(left.above) == MOST_KEPT for left in kept)
    assert kept[0].above != kept[1].above


def test_in_the_long_run_each_quantity_has_its_turn():
    """Of 200, 128 are kept a night: one is left out of 20 nights with probability 0.36^20 = 1e-9."""
    turns = {
        place for seed in range(20) for place in carried_by(wide, taken(wide, subject(NORMAL), 64), seeded(seed)).kept
    }
    assert turns == set(range(200))


def seeded(seed):
    made = subject(NORMAL)
    made.seed = seed
    return made


def test_regions_that_are_cut_elsewhere_by_another_seed_are_comparable():
    seen = [taken(region_masses, subject(torch.distributions.StudentT(3.0), seed)) for seed in range(3)]
    assert len({len(statistic.masses) for statistic in seen}) > 1  # else the test shows nothing
    assert {len(statistic.carried(0.0)) for statistic in seen} == {2 * REGIONS - 1}


def test_levels_of_the_mass_hold_the_cells_between_them():
    masses = torch.full((256,), 1 / 256, dtype=torch.float64)
    statistic = RegionCounts(masses, torch.zeros_like(masses), [""] * 256, intervals=True)
    statistic.add(torch.arange(256.0, dtype=torch.float64))
    rows = statistic.carried(0.0)
    n, part = statistic.n, torch.arange(256.0, dtype=torch.float64).reshape(64, 4).sum(1)
    torch.testing.assert_close(rows[:64, 0], (part - n / 64) * 64)
    below = torch.arange(1, 64, dtype=torch.float64) / 64
    torch.testing.assert_close(rows[64:, 0], (part.cumsum(0)[:-1] - n * below) / below)


@pytest.mark.parametrize("intervals", [True, False])
def test_a_single_region_says_nothing(intervals):
    statistic = RegionCounts(*torch.tensor([[1.0], [0.0]], dtype=torch.float64), ["all"], intervals=intervals)
    statistic.add(torch.tensor([10.0], dtype=torch.float64))
    assert torch.equal(statistic.carried(0.0), torch.zeros(1, 4, dtype=torch.float64))


def test_the_arithmetic_is_allowed_what_its_dtype_needs():
    """A density is exact to some units of its dtype; comparisons of draws with draws rest on none."""
    narrow = subject(torch.distributions.Normal(torch.tensor(0.0), torch.tensor(1.0)))
    wide_ = subject(torch.distributions.Normal(torch.tensor(0.0).double(), torch.tensor(1.0).double()))
    eps = torch.finfo(torch.float32).eps
    assert 16 * eps < doubt(region_masses, narrow) < 1e3 * eps
    assert doubt(region_masses, wide_) == pytest.approx(16 * eps, rel=1e-6)
    assert doubt(wide, narrow) == 16 * eps
    assert doubt(region_masses, narrow) < QUICK.tolerance / 100


class Imitator:
    """Draws of a normal law, beside a table or a law."""

    def __init__(self, data):
        self.data = lambda: data

    def sample(self, n, *, generator):
        return torch.randn(n, generator=generator)


@pytest.mark.parametrize("table", [True, False])
def test_rows_of_a_table_are_evidence_once(table):
    """They are the same rows in every run, so that runs do not add up; events of a law are new ones."""
    rows = torch.randn(2000, generator=torch.Generator().manual_seed(5))
    made = subject(Imitator(rows if table else NORMAL))
    assert (carried_by(agrees_with_data, taken(agrees_with_data, made), made) is None) == table


def test_only_an_excess_adds_up_where_only_an_excess_is_held_against_a_model():
    for sign in (1, -1):
        statistic = Excess(-1.0, 1.0)
        statistic.update(torch.full((4000,), 0.5 * sign))
        assert torch.equal(statistic.carried(0.0)[:, 2:], torch.zeros(1, 2, dtype=torch.float64))
        assert (statistic.allowing(0.0) > math.log(1e6)) == (sign > 0)


def test_an_integral_that_is_known_to_some_digits_is_allowed_the_rest():
    made = subject(torch.distributions.StudentT(3.0))
    statistic = clipped_variance_of_draws.start(made)
    assert 0 < statistic.doubt <= 0.01 * QUICK.tolerance
