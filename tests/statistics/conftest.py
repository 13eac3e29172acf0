"""What the tests of statistics share: an exact limit on a false-alarm rate, and draw counts at which to peek."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats

ALPHA = 0.05


@pytest.fixture
def g() -> torch.Generator:
    return torch.Generator().manual_seed(20)


@pytest.fixture
def alarms_within() -> Callable[[torch.Tensor], bool]:
    """Is the rate of these alarms at most 1.2 times the nominal 0.05, with 99 % confidence (Clopper & Pearson 1934)?"""

    def within(alarms: torch.Tensor) -> bool:
        hits, replicas = int(alarms.sum()), alarms.numel()
        return bool(stats.beta.ppf(0.99, hits + 1, replicas - hits) <= 1.2 * ALPHA)

    return within


@pytest.fixture
def peeks() -> Callable[[int, int, float], list[int]]:
    """Draw counts first, first * growth, … up to last."""

    def counts(first: int, last: int, growth: float) -> list[int]:
        number = int(math.log(last / first) / math.log(growth)) + 1
        return sorted({round(first * growth**i) for i in range(number)} | {last})

    return counts
