"""Exact normalisation: the density adds up to 1."""

from __future__ import annotations

import math
from dataclasses import replace

from harness.checks.law import Check, NotApplicable, exact
from harness.checks.oracle import compared, mass_of, oracle_of, rounding
from harness.draws import log_density
from harness.evidence import Exact
from harness.numerics import Integral
from harness.space import Charted, Line
from harness.subject import Subject

WITHOUT_TAILS = 1.0
"""Where tails cannot be summed, by how many times the range of the pilot draws that range is extended."""


@exact(
    "density.sums_to_one",
    needs=("log_prob",),
    unit="of the mass",
    source="Kolmogorov 1933, Grundbegriffe der Wahrscheinlichkeitsrechnung, section I.1",
)
def sums_to_one(subject: Subject) -> Exact:
    r"""sum_x exp(log p(x)) = 1 over a finite or countable support.

    Every state is visited: products of alphabets, one-hot vectors, vectors of counts, and the integers outward from
    where the mass is until the tail is known. A mass off by 1 % is an error of 0.01 nat in every log-likelihood.
    """
    if subject.profile.kind != "discrete":
        raise NotApplicable("the events are not discrete; see density.integrates_to_one")
    return _unit_mass(subject, "sum p")


@exact(
    "density.integrates_to_one",
    needs=("log_prob",),
    unit="of the mass",
    source="Piessens et al. 1983, QUADPACK, https://doi.org/10.1007/978-3-642-61786-7",
)
def integrates_to_one(subject: Subject) -> Exact:
    r"""int exp(log p(x)) dx = 1 in up to three continuous dimensions, summed over discrete ones if there are any.

    Adaptive quadrature with an error bound, cut at quantiles of pilot draws, on the unconstrained coordinates where the
    support is a surface such as the simplex. A density that is off by a constant factor ranks no model correctly.
    """
    if subject.profile.kind == "discrete":
        raise NotApplicable("the events are discrete; see density.sums_to_one")
    return _unit_mass(subject, "int p")


def _unit_mass(subject: Subject, name: str) -> Exact:
    mass = mass_of(subject)
    at_least = _at_least(subject, mass)
    if at_least > 1:
        return compared(subject, at_least - 1, 0.0, rounding(subject), mass.points, f"{name} > {at_least:.6g}", _UNIT)
    where = f"{name} = {mass.total:.9g}" + (f" ({mass.message})" if mass.message else "")
    error = abs(mass.total - 1)
    seen = compared(subject, error, mass.total_error, rounding(subject), mass.points, where, _UNIT)
    if mass.total < 1 and error > seen.allowed:
        return replace(seen, uncertainty=seen.uncertainty + _unseen(subject, mass))
    return seen


def _unseen(subject: Subject, mass: Integral) -> float:
    """How much mass the sum or integral may have missed, so that what is short of 1 is no evidence up to there.

    A mode of mass m is missed by n draws with probability (1 - m)^n, below `SURPRISE` for m > -log(SURPRISE) / n. To
    this come the draws that the peaks of a cubature say little about. Nothing is known of what did not converge.
    """
    if not subject.model.can("sample"):
        return 0.0
    if not (mass.converged or mass.total_error <= subject.effort.tolerance / 10):
        return math.inf
    n = len(subject.pilot)
    if float(log_density(subject, subject.pilot).isfinite().double().mean()) < 1:
        return 0.0  # draws that the density calls impossible: it is short of mass that was seen
    return -math.log(SURPRISE) / n + (_overlooked(subject) if isinstance(oracle_of(subject).space, Charted) else 0.0)


def _overlooked(subject: Subject) -> float:
    """Share of pilot draws where the density is far above that of the peaks, plus the error of this share."""
    chart, reference = subject.profile.chart, subject.reference
    pilot = subject.pilot
    gap = log_density(subject, pilot) - reference.log_density(chart.coordinates(pilot))
    count = int((gap > ABOVE).sum())
    return (count + 5 * math.sqrt(count)) / len(pilot)


def _at_least(subject: Subject, mass: Integral) -> float:
    """A lower bound on the integral over a line of which the tails cannot be summed: without them."""
    space = oracle_of(subject).space
    if not (math.isinf(mass.total_error) and isinstance(space, Line) and space.knots is not None and len(space.knots)):
        return 0.0
    first, last = float(space.knots[0]), float(space.knots[-1])
    reach = WITHOUT_TAILS * max(last - first, abs(last) * 1e-6, 1e-300)
    short = replace(space, lower=max(space.lower, first - reach), upper=min(space.upper, last + reach))
    inner = short.integrate(oracle_of(subject).log_density, (), oracle_of(subject).noise)
    return inner.total - inner.total_error


_UNIT = "of the mass"

SURPRISE = 1e-6
"""A mode that the pilot draws miss with less than this probability would have been seen."""

ABOVE = 3.0
"""By how many nats the density exceeds its fitted peaks where these say little about it."""

CHECKS: tuple[Check, ...] = (sums_to_one, integrates_to_one)
