"""Exact normalisation: the density adds up to 1."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from harness.checks.law import Check, NotApplicable, exact
from harness.checks.oracle import compared, mass_of, oracle_of, rounding
from harness.draws import log_density
from harness.evidence import Exact
from harness.numerics import Integral
from harness.peaks import peaks_of, sought
from harness.space import Charted, Integers, Line, States
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
    seen = _judged(subject, mass, name)
    if not (mass.total < 1 and seen.error > seen.allowed):
        return seen
    again = _closer(subject)
    if again is None:
        return replace(seen, uncertainty=seen.uncertainty + _unseen(subject, mass))
    mass, allowance = again
    seen = _judged(subject, mass, name)
    return replace(seen, uncertainty=seen.uncertainty + allowance)


def _judged(subject: Subject, mass: Integral, name: str) -> Exact:
    """The mass against 1, with no allowance for what was not seen."""
    where = f"{name} = {mass.total:.9g}" + (f" ({mass.message})" if mass.message else "")
    error = abs(mass.total - 1)
    return _coarse(subject, compared(subject, error, mass.total_error, rounding(subject), mass.points, where, _UNIT))


def _closer(subject: Subject) -> tuple[Integral, float] | None:
    """The mass once more, by cuts among more draws, and the mass that may still hide: for a density short of 1.

    A line is cut at every k-th of n draws in order, so a mode without a cut inside holds fewer than k of them. Of
    integers all are summed between the least and the largest of the draws. A declared finite support is known whole.
    None where these do not apply, or where so many cuts do not converge, as near a singular end they may not.
    """
    oracle = oracle_of(subject)
    space = oracle.space
    if isinstance(space, States) and space.complete and subject.model.support is not None:
        return mass_of(subject), 0.0
    if not isinstance(space, Line | Integers) or not subject.model.can("sample"):
        return None
    drawn = sought(subject)
    x = drawn.reshape(-1).to("cpu", torch.float64)
    x = x[x.isfinite()].sort().values
    if not len(x) or float(log_density(subject, drawn).isfinite().double().mean()) < 1:
        return None
    step = max(1, len(x) // CUTS)
    if isinstance(space, Integers):
        space, step = replace(space, start=(float(x[0]), float(x[-1]))), 1
    elif space.knots is not None:
        space = replace(space, knots=torch.cat([space.knots, x[::step], x[-1:]]).unique())
    mass = space.integrate(oracle.log_density, (), oracle.noise)
    return (mass, _hidden(step) / len(x)) if _settled(subject, mass) else None


def _settled(subject: Subject, mass: Integral) -> bool:
    return mass.converged or mass.total_error <= subject.effort.tolerance / 10


def _hidden(k: int) -> float:
    """The m for which fewer than k of Poisson(m) draws are seen with probability `SURPRISE`: -log(SURPRISE) for 1."""
    from scipy.special import gammainccinv  # late, as it is seldom needed

    return float(gammainccinv(k, SURPRISE))


def _coarse(subject: Subject, seen: Exact) -> Exact:
    """Where rounding alone explains more than the tolerance, as it may in bfloat16, what it explains is no PASS."""
    tolerance = subject.effort.tolerance
    if seen.allowed <= tolerance or seen.error + seen.uncertainty <= tolerance:
        return seen
    return replace(seen, allowed=tolerance, uncertainty=seen.uncertainty + seen.allowed - tolerance)


def _unseen(subject: Subject, mass: Integral) -> float:
    """How much mass the sum or integral may have missed, so that what is short of 1 is no evidence up to there.

    A mode of mass m is missed by n draws with probability (1 - m)^n, below `SURPRISE` for m > -log(SURPRISE) / n. To
    this come the draws that the peaks of a cubature say little about. Nothing is known of what did not converge.
    """
    if not subject.model.can("sample"):
        return 0.0
    if not _settled(subject, mass):
        return math.inf
    charted = isinstance(oracle_of(subject).space, Charted)
    drawn = sought(subject) if charted else subject.pilot
    if float(log_density(subject, drawn).isfinite().double().mean()) < 1:
        return 0.0  # draws that the density calls impossible: it is short of mass that was seen
    return -math.log(SURPRISE) / len(drawn) + (peaks_of(subject).overlooked if charted else 0.0)


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

CUTS = 2**12
"""At how many draws a line is cut where a density seems short of mass."""

SURPRISE = 1e-6
"""A mode that the pilot draws miss with less than this probability would have been seen."""

CHECKS: tuple[Check, ...] = (sums_to_one, integrates_to_one)
