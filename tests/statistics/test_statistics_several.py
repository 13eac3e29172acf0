"""Several statistics as one: their level together, their power, and which quantity is named."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from harness.statistics.bernstein import BoundedMean
from harness.statistics.several import Several

SEEDS, LEVEL = 600, 0.05


def watched(seed: int, shift: float, chunks: int, rows: int = 64) -> tuple[bool, bool]:
    """Was there an alarm, and was an interval wrong, at any of the looks?"""
    source = torch.Generator().manual_seed(seed)
    several = Several([BoundedMean(), BoundedMean()], [3, 2])
    alarm = wrong = False
    for _ in range(chunks):
        several.update([torch.rand(rows, k, generator=source) - 0.5 + shift for k in (3, 2)])
        look = several.look(1 - LEVEL)
        alarm |= look.log_e >= -math.log(LEVEL)
        wrong |= not look.low <= shift <= look.high
    return alarm, wrong


def test_alarms_and_wrong_intervals_keep_their_level_while_peeking():
    """The upper 99 % limit of both rates, by Clopper and Pearson, is at most 1.2 times the nominal one."""
    seen = [watched(seed, 0.0, chunks=4) for seed in range(SEEDS)]
    for count in map(sum, zip(*seen, strict=True)):
        assert stats.beta.ppf(0.99, count + 1, SEEDS - count) <= 1.2 * LEVEL


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_the_same_evidence_twice_is_not_more_of_it(shift):
    """A product of e-values would be none where they depend on each other; their mean is, and is each of them here."""
    numbers = torch.rand(256, 1, generator=torch.Generator().manual_seed(0)) - 0.5 + shift
    one, several = BoundedMean(), Several([BoundedMean() for _ in range(4)], [1] * 4)
    one.update(numbers)
    several.update([numbers] * 4)
    log_e = one.look(0.999).log_e
    assert abs(several.look(0.999).log_e - log_e) <= 8 * torch.finfo(torch.float64).eps * (1 + abs(log_e))


def test_a_shift_is_found_by_as_many_draws_as_the_normal_theory_says_times_a_few():
    """log E is about n mu^2 / (2 var): for mu = 0.1, var = 1/12 and log(1 / 0.05), 50 draws; the mixtures cost more."""
    needed = 2 * math.log(1 / LEVEL) / 12 / 0.1**2
    chunks = math.ceil(8 * needed / 64)
    assert all(watched(seed, 0.1, chunks)[0] for seed in range(100))


@pytest.mark.parametrize("which", [0, 1])
def test_the_quantity_that_is_off_is_named(which):
    source = torch.Generator().manual_seed(0)
    several = Several([BoundedMean(), BoundedMean()], [3, 2])
    chunks = [torch.rand(4096, 3, generator=source) - 0.5, torch.rand(4096, 2, generator=source) - 0.5]
    chunks[which][:, 1] += 0.1
    several.update(chunks)
    for look in (several.look(0.999), several.suspect(0.999)):
        assert look.column == 3 * which + 1
        assert look.log_e > -math.log(1e-6)
        assert look.low > 0


def test_there_must_be_one():
    with pytest.raises(ValueError, match="no statistic"):
        Several([], [])
