"""Sums over nights: the level by enumeration and by simulation, power that grows like 1 / bias^2, what poisons."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import binom

from harness.evidence import Carried
from harness.statistics import binomial
from harness.statistics.binomial import BinomialCount
from suites.nightly import sums
from suites.nightly.accumulate import START, grown, log_capital, reached, spent
from suites.nightly.sums import Layout, gone_on

RESULTS = Path(__file__).parents[2] / "results"


def night(rows, kept=None, log_e=0.0):
    """A night that leaves these sums, a row (above, above squared, below, below squared) a quantity."""
    kept = tuple(range(len(rows))) if kept is None else kept
    return Carried(log_e, max(len(rows), kept[-1] + 1), kept, *map(tuple, torch.tensor(rows).T.tolist()))


def of_number(y):
    return [y, y * y, -y, y * y]


# ------------------------------------------------------------------------------------------------------ level


@pytest.mark.parametrize("p", [0.5, 0.2, 0.01])
def test_the_capital_has_a_mean_of_one_at_most_after_any_history_of_nights(p):
    """All 2^8 histories of a number that is 1 - p with probability p, else -p: it is 0 in mean, and at least -1. What a
    night watches follows the nights before: after an even number of events two quantities, the second with its sign
    changed, and after an odd number one."""
    total = 0.0
    for history in itertools.product((False, True), repeat=8):
        layouts, events = (), 0
        for event in history:
            y = 1 - p if event else -p
            layouts = gone_on(layouts, night([of_number(y)] if events % 2 else [of_number(y), of_number(-y)]))
            events += event
        total += math.prod(p if event else 1 - p for event in history) * math.exp(sums.log_capital(layouts))
    assert 0.9 < total <= 1 + 1e-12


def test_it_starts_with_one_and_never_gives_away_more_than_it_has():
    assert sums.log_capital(()) == 0.0
    layouts = ()
    for k in range(1, 2 * sums.MOST_LAYOUTS):
        layouts = gone_on(layouts, night([[0.0] * 4] * k))
        assert sums.log_capital(layouts) == pytest.approx(0.0, abs=1e-12)
    assert len(layouts) == sums.MOST_LAYOUTS


ALPHA, SERIES, NIGHTS = 0.2, 200, 40
LOOKS = (16, 32, 64, 128, 256)


def tosses(seed, bias=0.0):
    """(series, nights, looks): heads of a coin at the looks of each night."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.diff(torch.tensor((0, *LOOKS))).double().expand(SERIES, NIGHTS, -1)
    return torch.binomial(steps, torch.full_like(steps, 0.5 + bias), generator=generator).cumsum(-1)


def first_beyond(heads):
    """A stopping time that favours evidence: the first look with a standard error too many heads, or the last."""
    n = torch.tensor(LOOKS)
    beyond = heads > n / 2 + n.sqrt() / 2
    beyond[..., -1] = True
    return beyond.to(torch.int8).argmax(-1)


def largest(heads):
    """No stopping time: the look with the most heads too many, chosen when all have been seen."""
    n = torch.tensor(LOOKS)
    return ((heads - n / 2) / n.sqrt()).argmax(-1)


def accused(heads, stop):
    """How many series reach 1 / ALPHA on any night."""
    n = torch.tensor(LOOKS)[stop]
    seen = heads.gather(-1, stop[..., None])[..., 0]
    found = 0
    for series in range(SERIES):
        layouts = ()
        for k in range(NIGHTS):
            statistic = BinomialCount(0.5)
            statistic.add(int(n[series, k]), seen[series, k].reshape(1))
            layouts = gone_on(layouts, night(statistic.carried(0.0).tolist()))
            if reached(sums.log_capital(layouts), ALPHA):
                found += 1
                break
    return found


def test_correct_models_are_accused_as_rarely_as_promised_whatever_stops_a_night():
    """Ville: a series is accused with probability ALPHA at most, so more than this has probability 1e-9 at most."""
    heads = tosses(0)
    assert accused(heads, first_beyond(heads)) <= binom.isf(1e-9, SERIES, ALPHA)


def test_the_same_test_catches_sums_that_are_taken_where_they_are_largest():
    heads = tosses(0)
    assert accused(heads, largest(heads)) > binom.isf(1e-9, SERIES, ALPHA)


def accused_at_the_end_of_the_slack(stated, series=400, nights=150, n=400):
    """Coins that are off by 0.02 in truth, judged by stakes and sums with `stated` allowed: series ever accused."""
    generator = torch.Generator().manual_seed(3)
    ever, total, logs = torch.zeros(series).bool(), torch.zeros(series, 1, 4).double(), [START] * series
    for _ in range(nights):
        statistic = BinomialCount(torch.full((series,), 0.3), stated)
        size = torch.full((series,), float(n), dtype=torch.float64)
        statistic.add(n, torch.binomial(size, torch.full_like(size, 0.32), generator=generator))
        total = total + statistic.carried(0.0)[:, None]
        log_e = binomial.log_e_value(statistic.events, n, statistic.p, stated).tolist()
        logs = [grown(log, value) for log, value in zip(logs, log_e, strict=True)]
        made = zip(logs, sums.log_average(total).tolist(), strict=True)
        ever |= torch.tensor([reached(log_capital(log, of_sums), ALPHA) for log, of_sums in made])
    return int(ever.sum())


def test_a_deviation_that_is_allowed_is_accused_as_rarely_as_none():
    assert accused_at_the_end_of_the_slack(0.02) <= binom.isf(1e-9, 400, ALPHA)
    assert accused_at_the_end_of_the_slack(0.01) > 0.9 * 400  # where half of it is allowed


# ------------------------------------------------------------------------------------------------------ power


def nights_until(bias, level=1e-10, draws=4096):
    """Nights until a coin that is off by `bias` is found, if every night is as it is in mean; a bisection."""

    def log_e(nights):
        statistic = BinomialCount(0.3)
        statistic.add(nights * draws, torch.tensor([(0.3 + bias) * nights * draws], dtype=torch.float64))
        return log_capital(START, sums.log_capital(gone_on((), night(statistic.carried(0.0).tolist()))))

    low, high = 1, 1
    while not reached(log_e(high), level):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(log_e(middle), level) else (middle, high)
    return high


def test_nights_until_found_grow_like_one_over_the_square_of_the_bias():
    """From a tenth to a thousandth of the tolerance of quick.

    The exponent is n bias^2 / 2v, but for up to 5 % for the grid. It must reach log(1 / level), log 2 for the half of
    the capital, log(pi^2 / 6) for the layout, log 2 for the sides, and up to 6 for the weights of the grid, of which
    smaller bets have less."""
    found = {part: nights_until(0.05 / part) for part in (10, 30, 100, 1000)}
    for part, nights in found.items():
        needed = math.log(1e10) + math.log(4) + math.log(math.pi**2 / 6)
        unit = 2 * 0.21 / (4096 * (0.05 / part) ** 2)
        assert needed * unit <= nights <= 1.05 * (needed + 6) * unit + 1
    assert 90 <= found[100] / found[10] <= 125


def test_a_bias_that_stakes_never_find_is_found_by_the_sums():
    """0.006 of probability, where quick excludes 0.05, in nights of 4,096 draws."""
    generator = torch.Generator().manual_seed(1)
    logs, layouts, nights, level = START, (), 0, spent(1e-6 / 2, 1) / 100
    for _ in range(200):
        nights += 1
        statistic = BinomialCount(0.3)
        size = torch.tensor([4096.0], dtype=torch.float64)
        statistic.add(4096, torch.binomial(size, torch.full_like(size, 0.306), generator=generator))
        seen = night(statistic.carried(0.0).tolist(), log_e=statistic.allowing(0.0))
        logs, layouts = grown(logs, seen.log_e), gone_on(layouts, seen)
        if reached(log_capital(logs, sums.log_capital(layouts)), level):
            break
    assert 20 <= nights <= 160
    assert log_capital(logs, 0.0) < 3  # by themselves the stakes have found next to nothing
    assert sums.suspect(layouts) == "quantity 1 of 1 is too high"


def test_the_stored_figures_say_what_is_claimed_of_them():
    told = json.loads((RESULTS / "nightly_power.json").read_text())
    small = [row for row in told["biased"] if row["part_of_tolerance"] <= 0.1]
    assert min(row["part_of_tolerance"] for row in small) <= 0.01
    for row in small:
        assert row["accumulated"]["found"] == row["series"]
        assert row["stakes"]["found"] == row["nights_failed_alone"] == 0
    scaled = [row["median_draws_times_bias_squared"] for row in small]
    assert max(scaled) <= 1.1 * min(scaled)  # draws until found grow like 1 / bias^2
    for row in told["correct"]:
        assert row["series_with_an_alarm"]["accumulated"] <= row["level"] * row["series"]
    assert [row.get("alarms", 0) for row in told["real"]] == [0, 0]


# ---------------------------------------------------------------------------------------------------- keeping


def test_a_quantity_that_a_night_leaves_out_stays_as_it_was():
    layouts = gone_on((), night([of_number(0.5), of_number(-0.25), of_number(1.0)]))
    layouts = gone_on(layouts, night([of_number(2.0)], kept=(2,)))
    (layout,) = layouts
    assert layout == Layout((0.5, -0.25, 3.0), (0.25, 0.0625, 5.0), (-0.5, 0.25, -3.0), (0.25, 0.0625, 5.0))


def test_nights_with_other_numbers_of_quantities_have_sums_of_their_own():
    layouts = ()
    for rows in (2, 3, 2, 3, 2):
        layouts = gone_on(layouts, night([of_number(0.5)] * rows))
    assert [layout.above for layout in layouts] == [(1.5, 1.5), (1.0, 1.0, 1.0)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_sum_that_is_no_number_is_a_failure_for_good(bad):
    layouts = gone_on((), night([of_number(0.5), [bad, bad, bad, bad]]))
    for _ in range(3):
        assert reached(log_capital(START, sums.log_capital(layouts)), 1e-300)
        layouts = gone_on(layouts, night([of_number(-0.5)] * 2))


def test_totals_of_a_million_nights_keep_their_digits():
    """The rounding of 10^4 additions beside an exact sum, in the unit of the evidence: far below what decides."""
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(10_000, generator=generator, dtype=torch.float64) * 1e5).tolist()
    layouts = (Layout((0.0,), (0.0,), (0.0,), (0.0,)),)
    for value in values:
        layouts = gone_on(layouts, Carried(0.0, 1, (0,), (value,), (1e10,), (-value,), (1e10,)))
    exact = math.fsum(values)
    assert abs(layouts[0].above[0] - exact) * (abs(exact) / 1e14) <= 1e-9  # the best bet is total / squares
    assert layouts[0].above_squares[0] == 1e14


def test_sums_are_plain_numbers():
    layouts = gone_on((), night([of_number(0.5)]))
    json.dumps(layouts[0].above, allow_nan=False)
