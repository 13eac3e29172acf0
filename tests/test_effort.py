"""Efforts: what a mean of unbounded numbers may rest on can be seen within the draws of the effort."""

from __future__ import annotations

import math

import pytest

from harness.effort import CONFIDENCE, EFFORTS, FALSE_ALARM_BUDGET, Effort
from harness.statistics.asymptotic import patience

CHECKS_OF_A_RUN = 64
SHARE = 0.5
"""The smallest share of an effort's draws that a mean of unbounded numbers is given."""


def test_the_rarest_event_is_a_twenty_fifth_of_the_tolerance_and_never_below_a_thousandth():
    assert {name: effort.rarest for name, effort in EFFORTS.items()} == {
        "quick": pytest.approx(2e-3),
        "standard": pytest.approx(1e-3),
        "thorough": pytest.approx(1e-3),
    }
    assert Effort("coarse", draws=100, tolerance=0.25).rarest == pytest.approx(0.01)


@pytest.mark.parametrize("effort", EFFORTS.values(), ids=EFFORTS)
def test_both_stages_of_a_fail_and_an_interval_fit_into_the_draws(effort):
    """Of 0.1 %, the two stages of a check would take 18 700 draws, and an interval 9 900: more than quick has."""
    fail = math.log(CHECKS_OF_A_RUN / FALSE_ALARM_BUDGET)
    assert 2 * patience(fail, effort.rarest) <= effort.draws
    interval = math.log(10 / (1 - CONFIDENCE))  # of ten columns
    assert patience(interval, effort.rarest / 2) <= SHARE * effort.draws
