"""The factors of an autoregressive density: each is a law of its coordinate, whatever the others are."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from harness.checks.factors import (
    BENGIO,
    BY_CHANCE,
    NEEDS,
    NUMBERS,
    WELL,
    Factors,
    alphabet_of,
    factors_of,
    refused,
    some,
    through,
)
from harness.checks.law import Check, exact
from harness.checks.rounding import ELEMENTARY, LAMBDA, SAFETY
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.numerics import integrate
from harness.states import limits
from harness.subject import Subject

COORDINATES, CONTEXTS = 16, 8
"""Discrete conditionals that are summed, and draws whose context they are given."""

LINES, SLICES = 4, 3
"""The same of continuous ones, which are integrated."""

KNOTS = (48, 192)
"""Quantiles of draws between which they are; more of them before it is said that mass is missing."""

SEARCHED, PEAKS, HIGH = 2**11, 16, 40.0
"""Points among which the peaks of a line are looked for, most of these, and how many nats below the highest."""


@exact("autoregressive.each_normalised", needs=NEEDS, blocked_by=(WELL,), unit="of the mass", source=BENGIO)
def each_normalised(subject: Subject) -> Exact:
    """sum_v p(x_i = v | the coordinates before it) = 1, or the integral of a continuous one, whatever came before.

    Column i where x_i takes every value and the other coordinates are those of a draw: for the first and last
    coordinate of the order, and some between, in the context of a few draws. Where no support is declared, mass may be
    at values that no draw took: a tenth of the tolerance passes, and too little is a defect only if so many draws could
    not have missed the rest. Mass may hide in a peak between the points of a quadrature too: too little of it is left
    open, for `density.integrates_to_one` and `density.bridge_mass` to say.
    """
    factors = factors_of(subject)
    discrete = subject.profile.chart.discrete.tolist()
    seen = [_summed(factors, i) for i in some(factors, [i for i in factors.order if discrete[i]], COORDINATES)]
    seen += [_integrated(factors, i) for i in some(factors, [i for i in factors.order if not discrete[i]], LINES)]
    return max(seen, key=_badness)


def _badness(seen: Exact) -> tuple[bool, bool, float]:
    """FAIL before INCONCLUSIVE before PASS, then by how much of what is allowed is used."""
    wrong = not seen.error <= seen.allowed + seen.uncertainty
    return wrong, not seen.error <= seen.allowed, seen.error / max(seen.allowed, 1e-300)


def _summed(factors: Factors, i: int) -> Exact:
    subject = factors.subject
    alphabet = alphabet_of(subject, i)
    k = len(alphabet.values)
    rows = max(1, min(CONTEXTS, 4 * NUMBERS // (COORDINATES * k * factors.d)))
    log_p = _at_values(factors, factors.draws[:rows], i, alphabet.values)
    p = log_p.exp().nan_to_num(math.inf)
    rounding = (p * factors.bounds(log_p)).sum(1).nan_to_num(math.inf) + 2 * k * torch.finfo(torch.float64).eps
    over = (p * alphabet.inside.to(p.device)).sum(1) - 1
    under = 1 - p.sum(1)
    where = f"coordinate {i}, {k} values"
    worst = int((over - rounding).argmax())
    if not float(over[worst]) <= float(rounding[worst]):
        return Exact(float(over[worst]), float(rounding[worst]), rows * k, where)
    worst = int((under - rounding).argmax())
    short, allowed = max(0.0, float(under[worst])), float(rounding[worst])
    if alphabet.complete or short <= allowed:
        return Exact(short, allowed, rows * k, where)
    allowed = max(allowed, subject.effort.tolerance / 10)
    # Values drawn from those laws were all inside; if sum_n M_n is the mass outside, that has probability exp(-sum M).
    missed = float(under.clamp(min=0).sum())
    certain = -math.log(BY_CHANCE) + 2 * math.log(k)
    unknown = 0.0 if short <= allowed or missed > certain else 1.0
    return Exact(short, allowed, rows * k, f"{where}, as far as draws show", uncertainty=unknown)


def _at_values(factors: Factors, x: Tensor, i: int, values: Tensor) -> Tensor:
    """(n, k): column i at the events x (n, d) with coordinate i set to each value; -inf where the model refuses it."""
    rows = through(x, i, values)
    try:
        return factors.columns(rows)[:, i].reshape(len(x), -1)
    except (ValueError, IndexError, RuntimeError) as refusal:
        if out_of_memory(refusal):
            raise
    one = [refused(lambda v=v: factors.columns(through(x, i, v))[:, i : i + 1], len(x)) for v in values.split(1)]  # type: ignore[misc]
    return torch.cat([column.to(x.device) for column in one], 1)


def _integrated(factors: Factors, i: int) -> Exact:
    """The line along coordinate i through a few draws.

    A peak can hide between the points of any quadrature, so that a mass below 1 is left open, while one above 1 is not.
    """
    subject, factors = factors.subject, factors.wide
    lower, upper = (float(end.flatten()[i]) for end in limits(subject.model, subject.pilot.shape[1:]))
    rounding = SAFETY * factors.unit * (factors.amplified + LAMBDA * ELEMENTARY**0.5)
    seen = []
    for row in range(min(SLICES, len(factors.draws))):
        at = factors.draws[row : row + 1].to(factors.dtype)

        def density(t: Tensor, at: Tensor = at) -> Tensor:
            return _at_values(factors, at, i, t[:, 0])[0].cpu()

        for count in KNOTS:
            knots = _knots(density, factors.draws[:, i], float(at[0, i]), count)
            options = {"lower": lower, "upper": upper, "dtype": factors.dtype, "noise": 16 * factors.unit}
            found = integrate(density, knots=knots, **options)  # type: ignore[arg-type]
            error = abs(found.total - 1)
            allowed = rounding + 2 * min(found.total_error, subject.effort.tolerance / 10)
            if error <= allowed:
                break
        if error <= allowed:
            unknown = 0.0 if found.total_error <= subject.effort.tolerance / 10 else math.inf
        else:
            unknown = found.total_error if found.converged and not found.total < 1 else math.inf
        where = f"coordinate {i} through draw {row}: {found.total:.9g}"
        seen.append(Exact(error if error == error else math.inf, allowed, found.points, where, uncertainty=unknown))
    return max(seen, key=_badness)


def _knots(density: Callable[[Tensor], Tensor], column: Tensor, place: float, count: int) -> Tensor:
    """Quantiles of draws, places around a draw at distances that fall by fours, and the peaks between many points."""
    column = column[column.isfinite()].cpu().double()[: 2**14]
    cuts = column.quantile(torch.linspace(0.0, 1.0, count, dtype=torch.float64))
    spread = float(cuts[-1] - cuts[0]) or 1.0
    steps = spread * 0.25 ** torch.arange(1, 9, dtype=torch.float64)
    even = torch.linspace(float(cuts[0]) - spread / 2, float(cuts[-1]) + spread / 2, SEARCHED, dtype=torch.float64)
    points = torch.cat([even, column[:SEARCHED]]).unique()
    log_p = density(points[:, None]).nan_to_num(-math.inf, math.inf)
    peaks = (log_p[1:-1] >= log_p[:-2]) & (log_p[1:-1] >= log_p[2:]) & (log_p[1:-1] > log_p.max() - HIGH)
    peaks = peaks.nonzero()[:, 0] + 1
    peaks = peaks[log_p[peaks].argsort(descending=True)[:PEAKS]]
    beside = [points[peaks - 1], points[peaks], points[peaks + 1]]
    return torch.cat([cuts, place - steps, place + steps, *beside]).unique()


CHECKS: tuple[Check, ...] = (each_normalised,)
