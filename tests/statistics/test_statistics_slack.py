"""Means within a slack: the level is kept at its very end and inside of it, and what lies beyond is found."""

from __future__ import annotations

import math

import pytest
import torch

from harness.statistics.bernstein import BoundedMean
from harness.statistics.slack import NearlyZeroMean

LOG_LEVEL = math.log(20)


@pytest.mark.parametrize("mean", [-0.1, 0.0, 0.1])
def test_keeps_its_level_within_the_slack_while_peeking(mean, g, peeks, alarms_within):
    statistic, alarms = NearlyZeroMean(-1.0, 1.0, 0.1), torch.zeros(3000, dtype=torch.bool)
    for size in peeks(2, 2000, 1.4):
        events = torch.rand(size - statistic.n, 3000, generator=g, dtype=torch.float64) < (1 + mean) / 2
        statistic.update(2 * events.double() - 1)
        alarms = alarms | (torch.logsumexp(statistic.log_e(), 1) - math.log(2) >= LOG_LEVEL)
    assert alarms_within(alarms)


@pytest.mark.parametrize("sign", [-1, 1])
def test_finds_what_lies_beyond(sign, g):
    statistic = NearlyZeroMean(-1.0, 1.0, 0.1)
    statistic.update(sign * 0.3 + (torch.rand(4000, generator=g, dtype=torch.float64) - 0.5))
    assert statistic.look(0.999).log_e > LOG_LEVEL
    low, high = statistic.interval(0.001)
    assert low <= sign * 0.3 <= high


def test_without_slack_it_is_the_mean_itself(g):
    draws = torch.rand(500, 3, generator=g, dtype=torch.float64) - 0.4
    ours, plain = NearlyZeroMean(-1.0, 1.0, 0.0), BoundedMean(-1.0, 1.0)
    ours.update(draws)
    plain.update(draws)
    assert torch.equal(ours.log_e(), plain.log_e())


@pytest.mark.parametrize("slack", [-0.1, 1.0, math.nan])
def test_a_slack_that_is_none_is_refused(slack):
    with pytest.raises(ValueError, match="slack"):
        NearlyZeroMean(-1.0, 1.0, slack)
