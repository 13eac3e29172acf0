"""Stated Kullback-Leibler divergences: against the definition, by exact sums and integrals or by draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.moments import PER_PROBABILITY
from harness.checks.oracle import Oracle, compared, mass_of, oracle_of, rounding, typical_rounding
from harness.checks.second import second_model
from harness.checks.stated import dither, gap, precision, scalar
from harness.checks.tails import integrated
from harness.draws import Draws, log_density
from harness.evidence import Exact
from harness.numerics import Function
from harness.statistics.asymptotic import AsymptoticMean
from harness.subject import Subject

KULLBACK = "Kullback & Leibler 1951, https://doi.org/10.1214/aoms/1177729694"


@exact("information.kl_to_itself_is_zero", needs=("kl", "log_prob"), unit="nats", source=KULLBACK)
def kl_to_itself_is_zero(subject: Subject) -> Exact:
    """KL(p, p) = 0.

    Up to the rounding of its terms, of which there is at least one a coordinate.
    """
    said = scalar(subject, "kl", subject.model)
    size = subject.pilot[0].numel()
    allowed = typical_rounding(subject) + size * precision(subject, "kl", subject.model)
    return Exact(gap(said, 0.0), allowed, 1, f"stated {said:.3g}", "nats")


@exact("information.kl_is_positive", needs=("kl", "log_prob"), unit="nats", source=KULLBACK)
def kl_is_positive(subject: Subject) -> Exact:
    """KL(p, q) > 0 for every second model q that is not p, in both directions.

    By Jensen's inequality, as -log is strictly convex. q is another model of the same kind, or one that `fit` makes of
    draws that were moved; that it is not p is seen in log-densities that differ. Equality is `kl_to_itself_is_zero`.
    """
    other = second_model(subject)
    x = subject.pilot
    apart = float((log_density(subject, x) - log_density(other, x)).abs().nan_to_num(0.0).median())
    if not apart > 2**10 * max(typical_rounding(subject), typical_rounding(other)):
        raise NotApplicable("the second model that was built is hardly another one")
    said = {f"KL({subject.model.name}, {other.model.name})": scalar(subject, "kl", other.model)}
    if other.model.can("kl"):
        said[f"KL({other.model.name}, {subject.model.name})"] = scalar(other, "kl", subject.model)
    least = min(said, key=lambda name: -math.inf if math.isnan(said[name]) else said[name])
    error = 0.0 if said[least] > 0 else apart - min(0.0, said[least])
    where = f"{least}, stated {said[least]:.3g} where log-densities differ by {apart:.3g}"
    return Exact(math.inf if math.isnan(error) else error, 0.0, len(x), where, "nats")


@exact("information.kl", needs=("kl", "log_prob"), unit="nats", source=KULLBACK)
def kl(subject: Subject) -> Exact:
    """KL(p, q) = int p (log p - log q) >= 0, for a second model q of the same kind, in both directions.

    By enumeration or quadrature. It is infinite where q leaves out a part of p; swapping p and q changes it. The second
    model has other parameters, or is what `fit` makes of draws that were moved.
    """
    oracle_of(subject)  # before a second model is built for nothing
    other = second_model(subject)
    mass = mass_of(other)
    if not abs(mass.total - 1) <= mass.total_error + rounding(other):
        raise NotApplicable(f"the second model that was built has mass {mass.total:.6g}")
    forth = _divergence(subject, other)
    back = _divergence(other, subject) if other.model.can("kl") else forth
    return max(forth, back, key=lambda seen: seen.error - seen.uncertainty - seen.allowed)


def _divergence(subject: Subject, other: Subject) -> Exact:
    oracle = oracle_of(subject)
    integral = oracle.integral(*_ratio_functions(oracle, other))
    value, error = integral.expectations
    said, units = scalar(subject, "kl", other.model), precision(subject, "kl", other.model)
    missing, nearly = float(value[1] - error[1]), float(value[2])
    where = f"stated {said:.9g} from {subject.model.name}"
    if missing > subject.effort.tolerance / 10 or (said == math.inf and nearly > 0):
        where = f"{where}, of which the other leaves out {max(missing, nearly):.3g}"
        return Exact(0.0 if said == math.inf else math.inf, 0.0, integral.points, where, "nats")
    truth = float(value[0])
    allowed = (rounding(subject) + rounding(other)) * (2 + abs(truth)) + units * (1 + abs(truth))
    where = f"{where}, integrated {truth:.9g}"
    return compared(subject, gap(said, truth), float(error[0]), allowed, integral.points, where, "nats")


def _ratio_functions(oracle: Oracle, other: Subject) -> tuple[Function, ...]:
    """log p - log q where q is positive, where it is not, and where a discrete q is no more than a clamped 0."""
    density = oracle_of(other).log_density
    clamped = math.log(2 * torch.finfo(torch.float32).eps) if other.profile.kind == "discrete" else -math.inf

    def log_ratio(x: Tensor, log_p: Tensor) -> Tensor:
        ratio = log_p - density(x)
        return torch.where(ratio.isfinite(), ratio, 0.0)

    def left_out(x: Tensor, log_p: Tensor, floor: float = -math.inf) -> Tensor:
        return ((density(x) <= floor) & (log_p > -math.inf)).to(torch.float64)

    return log_ratio, left_out, lambda x, log_p: left_out(x, log_p, clamped)


@exact("information.cross_entropy", needs=("kl", "entropy", "log_prob"), unit="nats", source=KULLBACK)
def cross_entropy(subject: Subject) -> Exact:
    """H(p, q) = -int p log q = H(p) + KL(p, q), for a second model q of the same kind.

    The nats that a code made for q spends on draws of p: those that no code can save, and those that q is wrong by. By
    enumeration or quadrature, so that a term forgotten in both, or added to one and taken from the other, is told.
    """
    oracle = oracle_of(subject)
    other = second_model(subject)
    divergence = scalar(subject, "kl", other.model)
    if not math.isfinite(divergence):
        raise NotApplicable("the stated divergence is not finite, and the cross entropy with it")
    density = oracle_of(other).log_density
    integral = oracle.integral(lambda x, log_p: -_finite(density(x)))
    value, error = integral.expectations
    said, truth = scalar(subject, "entropy") + divergence, float(value[0])
    units = precision(subject, "kl", other.model) + precision(subject, "entropy")
    allowed = (rounding(subject) + rounding(other)) * (2 + abs(truth)) + units * (1 + abs(truth))
    where = f"stated {said:.9g}, integrated {truth:.9g}"
    return compared(subject, gap(said, truth), float(error[0]), allowed, integral.points, where, "nats")


def _finite(log_q: Tensor) -> Tensor:
    """log q where it is finite: a stated divergence that is finite says that the rest has no mass."""
    return torch.where(log_q.isfinite(), log_q, 0.0)


def _start_kl(subject: Subject) -> AsymptoticMean:
    other = second_model(subject)
    if integrated(subject):
        raise NotApplicable("the divergence was compared with an exact sum or integral; see information.kl")
    subject.once("stated kl", lambda: _both_ways(subject, other))
    return AsymptoticMean(rarest=subject.effort.rarest)


def _both_ways(subject: Subject, other: Subject) -> tuple[float, float, float]:
    """KL(p, q), KL(q, p), and the largest standard deviation of a log-ratio, from pilot draws."""
    forth, back = scalar(subject, "kl", other.model), scalar(other, "kl", subject.model)
    if not (math.isfinite(forth) and math.isfinite(back)):
        raise NotApplicable("a stated divergence is not finite, so that draws have no average to compare with it")
    spreads = [
        float((log_density(a, a.pilot) - log_density(b, a.pilot)).std())
        for a, b in ((subject, other), (other, subject))
    ]
    return forth, back, max(1.0, *(s for s in spreads if math.isfinite(s)), 1.0)


@statistical(
    "information.kl_of_draws",
    needs=("sample", "log_prob", "kl"),
    blocked_by=("density.bridge_mass",),
    start=_start_kl,
    labels=lambda subject: ["KL(p, q)", "KL(q, p)"],
    tolerance=PER_PROBABILITY,
    share=0.5,
    asymptotic=True,
    unit="nats, or sd of log p - log q where that is larger",
    source=KULLBACK,
)
def kl_of_draws(draws: Draws) -> Tensor:
    """E_p[log p - log q] = KL(p, q), and the same with p and q swapped, for a second model q of the same kind.

    The definition, read as a mean over draws, where an exact sum or integral is out of reach.
    """
    subject = draws.subject
    other = second_model(subject)
    forth, back, scale = subject.once("stated kl", lambda: _both_ways(subject, other))
    theirs = other.sample(draws.n, "kl", draws.index)
    noise = dither(draws, "kl")
    here = draws.log_p - log_density(other, draws.x) - forth
    there = log_density(other, theirs) - log_density(subject, theirs) - back
    return torch.stack([here + noise, there + noise], 1) / scale


CHECKS: tuple[Check, ...] = (kl_to_itself_is_zero, kl_is_positive, kl, cross_entropy, kl_of_draws)
