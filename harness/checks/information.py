"""Stated entropy: against an exact sum or integral of the density, or against draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.moments import PER_PROBABILITY
from harness.checks.oracle import compared, mass_of, rounding
from harness.checks.stated import DITHER, dither, gap, precision, scalar
from harness.checks.stretch import stretch, stretchable
from harness.checks.tails import integrated
from harness.draws import Draws, log_density
from harness.evidence import Exact
from harness.statistics.asymptotic import AsymptoticMean
from harness.subject import Subject

SHANNON = "Shannon 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x"

LEAST_GAIN = 0.8
"""The stretch asks for two more log-densities a draw: worth it where it takes a fifth off the standard deviation."""


@exact("information.entropy", needs=("entropy", "log_prob"), unit="nats", source=SHANNON)
def entropy(subject: Subject) -> Exact:
    """entropy() = -int p log p, the sum over the states of a discrete law; states of probability 0 add nothing.

    By enumeration or quadrature of the density, normalised first. A differential entropy can be negative.
    """
    mass = mass_of(subject)
    value, error = mass.expectations
    truth = float(value[1]) + mass.log_total
    doubt = float(error[1]) + mass.log_error
    said = scalar(subject, "entropy")
    allowed = rounding(subject) * (2 + abs(truth)) + precision(subject, "entropy") * (1 + abs(truth))
    where = f"stated {said:.9g}, integrated {truth:.9g}"
    return compared(subject, gap(said, truth), doubt, allowed, mass.points, where, "nats")


def _start_entropy(subject: Subject) -> AsymptoticMean:
    if integrated(subject):
        raise NotApplicable("the entropy was compared with an exact sum or integral; see information.entropy")
    subject.once("entropy controls", lambda: _controls(subject))
    return AsymptoticMean(rarest=subject.effort.rarest)


def _controls(subject: Subject) -> tuple[Tensor, bool]:
    """Coefficients of the control variates for log p, and whether the stretch, dear as it is, is one of them.

    Fitted on pilot draws, so that they are fixed before the draws that they are used on.
    """
    pilot = subject.pilot
    log_p = log_density(subject, pilot)
    weights, left = _fitted(_features(subject, pilot), log_p)
    if left <= DITHER or not stretchable(subject):
        return weights, False
    wider, less = _fitted(torch.cat([_features(subject, pilot), stretch(subject, pilot, log_p)], 1), log_p)
    return (wider, True) if less < LEAST_GAIN * left else (weights, False)


def _fitted(features: Tensor, log_p: Tensor) -> tuple[Tensor, float]:
    """Least-squares coefficients of the features, and the standard deviation of what they leave of log p."""
    usable = log_p.isfinite() & features.isfinite().all(1)
    features, log_p = features[usable], log_p[usable]
    if len(log_p) < 2:
        raise NotApplicable("log p is infinite at nearly every pilot draw")
    centred = log_p - log_p.mean()
    ridge = 1e-6 * len(log_p) * torch.eye(features.shape[1], dtype=torch.float64, device=features.device)
    weights = torch.linalg.solve(features.T @ features + ridge, features.T @ centred)
    return weights, float((centred - features @ weights).std())


def _features(subject: Subject, x: Tensor) -> Tensor:
    """(n, k): functions of the draws whose means are 0 if the stated moments are right.

    Coordinates less the mean, their squares less the variance, and the Mahalanobis distance less its dimension.
    """
    model = subject.model
    flat = x.reshape(len(x), -1).to(torch.float64)
    n, d = flat.shape
    columns = [torch.zeros(n, 1, dtype=torch.float64, device=flat.device)]
    if model.can("mean") and bool((mean := model.mean().reshape(-1).to(flat)).isfinite().all()):
        centred = flat - mean
        if model.can("variance"):
            variance = model.variance().reshape(-1).to(flat)
            known = variance.isfinite() & (variance > 0)
            unit = torch.where(known, variance, 1.0)
            columns += [centred * known / unit.sqrt(), (centred.square() / unit - 1) * known]
        if model.can("covariance"):
            factor, trouble = torch.linalg.cholesky_ex(model.covariance().reshape(d, d).to(flat))
            if not bool(trouble):
                white = torch.linalg.solve_triangular(factor, centred.T, upper=False)
                columns.append(((white.square().sum(0) - d) / math.sqrt(2 * d))[:, None])
    return torch.cat(columns, 1)


@statistical(
    "information.entropy_of_draws",
    needs=("sample", "log_prob", "entropy"),
    blocked_by=("density.bridge_mass",),
    start=_start_entropy,
    tolerance=PER_PROBABILITY,
    asymptotic=True,
    unit="nats",
    source=SHANNON,
)
def entropy_of_draws(draws: Draws) -> Tensor:
    """E[-log p(x)] = entropy() over draws.

    Numbers of known mean are subtracted, as control variates, from log p: functions of the draws whose means the model
    states (coordinates, squares, Mahalanobis distance), and how log p answers to a stretch of the event, of which the
    mean is known from the density alone. For a Gaussian nothing is left over but rounding, which noise covers.
    """
    subject = draws.subject
    weights, stretched = subject.once("entropy controls", lambda: _controls(subject))
    said = subject.once("stated entropy", lambda: scalar(subject, "entropy"))
    features = _features(subject, draws.x)
    if stretched:
        features = torch.cat([features, stretch(subject, draws.x, draws.log_p)], 1)
    return -draws.log_p + features @ weights - said + dither(draws, "entropy")


CHECKS: tuple[Check, ...] = (entropy, entropy_of_draws)
