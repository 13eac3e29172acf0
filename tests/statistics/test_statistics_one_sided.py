"""Means that must not be positive: no alarm at any mean up to 0, power above, limits that need no lower tail."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from harness.statistics.asymptotic import AsymptoticMean
from harness.statistics.one_sided import MeanAtMostZero

N = 2**14
LAWS = {
    "normal": lambda n, k, g: torch.randn(n, k, generator=g),
    "exponential": lambda n, k, g: torch.empty(n, k).exponential_(generator=g) - 1,
    "its mirror": lambda n, k, g: 1 - torch.empty(n, k).exponential_(generator=g),
    "student(3)": lambda n, k, g: (
        torch.randn(n, k, generator=g) / (2 * torch._standard_gamma(torch.full((n, k), 1.5), generator=g) / 3).sqrt()
    ),
}


def taken(values, level=0.05):
    statistic = MeanAtMostZero(threshold=math.log(1 / level), rarest=2e-3)
    for part in values.split(2**12):
        statistic.update(part)
    return statistic


def looked(values):
    return taken(values).look(0.999)


@pytest.mark.parametrize("law", LAWS)
def test_a_mean_up_to_zero_raises_no_alarm_beyond_its_level(law, g):
    """40 replicas at the level 0.05, half of them of the mean 0; too many would alarm with probability 1e-3."""
    draws = LAWS[law](2**12, 40, g) - 0.01 * torch.arange(40).remainder(2)
    alarms = [taken(x[:, None]).log_e() >= math.log(20) for x in draws.T]
    assert sum(alarms) <= stats.binom.ppf(1 - 1e-3, 40, 0.05)


@pytest.mark.parametrize("law", LAWS)
def test_a_positive_mean_is_found(law, g):
    assert taken(LAWS[law](N, 1, g) + 0.2, 1e-4).log_e() >= math.log(1e4)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("mean", [0.0, -0.02, -5.0])
def test_the_limit_is_above_the_mean(law, mean, g):
    """At 99.9 % each, of 5 replicas."""
    seen = [looked((x + mean)[:, None]) for x in LAWS[law](N, 5, g).T]
    assert all(look.high >= max(mean, 0.0) for look in seen)
    assert all(0 <= look.low <= look.high for look in seen)


def test_a_heavy_lower_tail_does_not_hinder_a_limit(g):
    """One number in a hundred is -1000: the two-sided interval is shut for long."""
    x = torch.randn(N, 1, generator=g) - 1000 * (torch.rand(N, 1, generator=g) < 0.01).float()
    look = looked(x - 1)
    assert look.high == 0.0
    plain = AsymptoticMean(rarest=2e-3)
    plain.update(torch.where(x < -500, x * torch.rand(N, 1, generator=g) ** -2, x))
    assert plain.look(0.999).high == math.inf


def test_numbers_that_are_never_positive_need_patience_alone():
    few, many = (torch.full((n, 2), -1e-6) for n in (64, N))
    assert looked(few).high == math.inf
    assert looked(many).high == 0.0


def test_a_number_that_is_none_never_passes():
    x = torch.zeros(N, 2)
    x[5, 1] = math.nan
    look = looked(x)
    assert math.isnan(look.log_e)
    assert not look.bound <= math.inf


def test_before_any_draw_nothing_is_known():
    assert MeanAtMostZero().look(0.999).high == math.inf
