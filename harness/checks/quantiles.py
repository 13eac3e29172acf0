"""Stated distribution and quantile functions of a single number, against the density."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.checks.law import Check, NotApplicable, exact
from harness.checks.oracle import compared, oracle_of, rounding, roundoff
from harness.evidence import Exact
from harness.numerics import Function
from harness.space import Line
from harness.subject import Subject

LEVELS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""Probabilities at which quantiles are asked for."""

PLACES = 24
"""Number of places at which a distribution function is compared."""

QUANTILES = "DeGroot & Schervish 2012, Probability and Statistics, section 3.3"


def _number(subject: Subject) -> None:
    if subject.pilot[0].numel() != 1:
        raise NotApplicable("distribution and quantile functions are those of a single number")


def _cdf_at(subject: Subject, places: Tensor) -> tuple[Tensor, Tensor, int]:
    """P(X <= x) at sorted places (m,), its error, and the points spent: by the oracle, of the normalised density."""
    oracle = oracle_of(subject)
    if isinstance(oracle.space, Line):
        line = Line(oracle.space.lower, oracle.space.upper, places, oracle.space.dtype)
        cells = line.integrate(oracle.log_density, (), oracle.noise)
        if cells.cells is not None and cells.cell_error is not None and cells.edges is not None:
            below = cells.cells[:, 0].cumsum(0) / cells.total
            doubt = torch.minimum(cells.cell_error[:, 0].cumsum(0), cells.cell_error[:, 0].flip(0).cumsum(0).flip(0))
            index = torch.searchsorted(cells.edges[1:-1].contiguous(), places)
            return below[index], doubt[index] + cells.total_error, cells.points
    integral = oracle.integral(*(_not_above(float(place)) for place in places))
    value, error = integral.expectations
    return value, error, integral.points


def _not_above(place: float) -> Function:
    return lambda x, log_p: (x[:, 0] <= place).to(torch.float64)


def _events(subject: Subject, numbers: Tensor) -> Tensor:
    pilot = subject.pilot
    return numbers.to(pilot.dtype).to(pilot.device).reshape(-1, *pilot.shape[1:])


def _places(subject: Subject) -> Tensor:
    """Distinct pilot quantiles (m,), sorted, as the model's dtype has them."""
    flat = subject.pilot.flatten()
    flat = flat[torch.isfinite(flat)].to("cpu", torch.float64).sort().values
    index = torch.linspace(0.002, 0.998, PLACES) * (len(flat) - 1)
    return flat[index.round().long()].unique()


def _steepness(subject: Subject, numbers: Tensor) -> Tensor:
    """|x| p(x) of numbers (m,): how far a relative change of x moves a probability; 0 for a discrete law."""
    if subject.profile.kind == "discrete":
        return torch.zeros(len(numbers), dtype=torch.float64)
    log_p = oracle_of(subject).log_density(numbers[:, None])
    return (log_p.clamp(max=600).exp() * numbers.abs()).nan_to_num(0.0, 1.0, 0.0)


@exact("information.cdf", needs=("cdf", "log_prob"), unit="probability", source=QUANTILES)
def cdf(subject: Subject) -> Exact:
    """cdf(x) = P(X <= x) = int_{-inf}^x p, at quantiles of pilot draws; at the values themselves for a discrete law.

    A cumulative sum or integral of the density, normalised first. That it rises, and runs from 0 to 1, follows.
    """
    _number(subject)
    places = _places(subject)
    truth, doubt, points = _cdf_at(subject, places)
    stated = subject.model.cdf(_events(subject, places))
    if tuple(stated.shape) != (len(places),):
        raise ValueError(f"cdf has shape {tuple(stated.shape)} for {len(places)} events, not ({len(places)},)")
    said = stated.detach().to("cpu", torch.float64)
    gap = (said - truth).abs()
    gap = torch.where(gap.isnan(), math.inf, gap)
    worst = int((gap - doubt).argmax())
    allowed = rounding(subject) + roundoff(stated) * (1 + float(_steepness(subject, places)[worst]))
    where = f"x = {float(places[worst]):.6g}: stated {float(said[worst]):.9g}, summed {float(truth[worst]):.9g}"
    return compared(subject, float(gap[worst]), float(doubt[worst]), allowed, points, where, "probability")


@exact("information.cdf_is_monotone", needs=("cdf",), unit="probability")
def cdf_is_monotone(subject: Subject) -> Exact:
    """x <= y implies cdf(x) <= cdf(y), and 0 <= cdf <= 1.

    Over sorted pilot draws; a step down is allowed the rounding of the cdf's own dtype.
    """
    _number(subject)
    x = subject.pilot.flatten().sort().values
    stated = subject.model.cdf(x.reshape(-1, *subject.pilot.shape[1:])).detach()
    value = stated.to("cpu", torch.float64)
    problems = {
        "step down": float((value[:-1] - value[1:]).max()),
        "below 0": float((-value).max()),
        "above 1": float((value - 1).max()),
    }
    worst = max(problems, key=lambda key: math.inf if math.isnan(problems[key]) else problems[key])
    error = math.inf if math.isnan(problems[worst]) else max(0.0, problems[worst])
    return Exact(error, roundoff(stated), len(x), worst if error > 0 else "", "probability")


@exact(
    "information.icdf", needs=("icdf", "log_prob"), unit="probability", source="DeGroot & Schervish 2012, section 3.3"
)
def icdf(subject: Subject) -> Exact:
    """P(X <= icdf(u)) >= u, and P(X < icdf(u)) <= u: the quantile is the smallest x whose cdf reaches u.

    For a continuous law both say cdf(icdf(u)) = u. Measured in probability, by a cumulative sum or integral of the
    density, so that a flat stretch of the cdf, where quantiles are ill-conditioned, costs nothing.
    """
    _number(subject)
    u = torch.tensor(LEVELS, dtype=torch.float64).to(_number_dtype(subject))
    stated = subject.model.icdf(u.to(subject.model.device))
    if stated.numel() != len(u) or len(stated) != len(u):
        raise ValueError(f"icdf has shape {tuple(stated.shape)} for {len(u)} probabilities")
    x = stated.detach().flatten().to("cpu", torch.float64)
    if not bool(x.isfinite().all()) or bool((x.diff() < 0).any()):
        return Exact(math.inf, 0.0, len(u), "quantiles that are not finite or fall", "probability")
    level = u.to(torch.float64)
    short, over, doubt, points = _missed(subject, x, level)
    gap = torch.maximum(short, over).clamp(min=0)
    worst = int((gap - doubt).argmax())
    allowed = rounding(subject) + roundoff(stated) * (1 + float(_steepness(subject, x)[worst]))
    where = f"u = {float(level[worst]):.4g}, icdf(u) = {float(x[worst]):.6g}"
    return compared(subject, float(gap[worst]), float(doubt[worst]), allowed, points, where, "probability")


def _number_dtype(subject: Subject) -> torch.dtype:
    return subject.pilot.dtype if subject.pilot.is_floating_point() else torch.float32


def _missed(subject: Subject, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """u - P(X <= x), P(X < x) - u, the error of both, and the points spent."""
    places, back = torch.unique(x, return_inverse=True)
    upto, doubt, points = _cdf_at(subject, places)
    if subject.profile.kind != "discrete":
        return level - upto[back], upto[back] - level, doubt[back], points
    below, more, again = _cdf_at(subject, places - 0.5)
    return level - upto[back], below[back] - level, doubt[back] + more[back], points + again


CHECKS: tuple[Check, ...] = (cdf, cdf_is_monotone, icdf)
