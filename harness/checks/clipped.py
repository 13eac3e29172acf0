"""The variance of draws whose tails are too heavy for averages: clipped squares, against the density's own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.checks.law import Check, NotApplicable, statistical
from harness.checks.moments import PER_PROBABILITY, finite_coordinates
from harness.checks.oracle import oracle_of
from harness.checks.tails import integrated, reachable
from harness.draws import Draws
from harness.numerics import Function
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

LEVELS = (0.999, 0.998, 0.995, 0.99, 0.98, 0.95, 0.9, 0.75)
"""Quantiles of |x - median| at which squares may be clipped: the first at which a PASS is within reach."""

DEVIATIONS = 9.0
"""Standard errors within a tolerance: five for an interval, two for its centre, two for a pilot's own error."""


@dataclass(frozen=True)
class Clipped:
    """Per heavy coordinate: which one, about what, at which distance, and E min((x - m)^2, q^2) under the density.

    `error` is that of the integral.
    """

    index: Tensor
    centre: Tensor
    reach: Tensor
    expected: Tensor
    error: Tensor

    @property
    def most(self) -> float:
        """The largest number that can come of it."""
        return float((self.reach.square() / self.expected).max())


def _clipped(subject: Subject) -> Clipped:
    if not integrated(subject):
        raise NotApplicable("the expectation of a clipped square needs a density that can be integrated")
    heavy = finite_coordinates(subject, "variance") & ~reachable(subject, 4)
    if not bool(heavy.any()):
        raise NotApplicable("the tails are light enough for plain squares; see moments.variance_of_draws")
    index = heavy.nonzero().flatten()
    flat = subject.pilot.reshape(len(subject.pilot), -1).to("cpu", torch.float64)[:, index]
    centre = flat.nanmedian(0).values
    reach = torch.stack([_reach((column - c).abs(), subject) for column, c in zip(flat.T, centre, strict=True)])
    integral = oracle_of(subject).integral(*map(_square, index.tolist(), centre.tolist(), reach.tolist()))
    expected, error = integral.expectations
    # A bias of a hundredth of the tolerance has no weight: the draws know the mean to a ninth of the tolerance only.
    if not bool((error <= 1e-2 * subject.effort.tolerance * expected).all()):
        raise NotApplicable("the expectation of a clipped square could not be integrated precisely enough")
    return Clipped(index, centre, reach, expected, error)


def _reach(distance: Tensor, subject: Subject) -> Tensor:
    """The widest quantile of |x - median| for which clipped squares scatter little enough for a PASS."""
    wanted = PER_PROBABILITY * 2 * subject.effort.tolerance * math.sqrt(subject.effort.draws) / DEVIATIONS
    for level in LEVELS:
        reach = distance.quantile(level)
        square = torch.minimum(distance, reach).square()
        if float(square.std()) <= wanted * float(square.mean()):
            break
    if not float(reach) > 0:
        raise NotApplicable("most draws are the same number, so that no distance is left to clip at")
    return reach


def _square(i: int, centre: float, reach: float) -> Function:
    return lambda x, log_p: (x[:, i] - centre).abs().clamp(max=reach).square()


def _start(subject: Subject) -> BoundedMean:
    known = subject.once("clipped squares", lambda: _clipped(subject))
    statistic = BoundedMean(-known.most, known.most)
    statistic.doubt = float((known.error / known.expected).max())
    return statistic


def _names(subject: Subject) -> list[str]:
    known = subject.once("clipped squares", lambda: _clipped(subject))
    parts = zip(known.index.tolist(), known.reach.tolist(), strict=True)
    return [f"square of coordinate {j}, clipped {q:.4g} from its median" for j, q in parts]


@statistical(
    "moments.clipped_variance_of_draws",
    needs=("sample", "log_prob", "variance"),
    blocked_by=("density.integrates_to_one", "density.sums_to_one"),
    start=_start,
    labels=_names,
    tolerance=2 * PER_PROBABILITY,
    unit="of the mean clipped square",
    source="Huber 1964, https://doi.org/10.1214/aoms/1177703732",
)
def clipped_variance_of_draws(draws: Draws) -> Tensor:
    """E min((x - m)^2, q^2) over draws = int min((x - m)^2, q^2) p(x) dx, for a fixed centre m and distance q.

    For coordinates with tails so heavy that the variance of n draws settles nothing, whatever n is (a Student t with 3
    degrees of freedom). The right side is an integral of the density, the left bounded, so the evidence is exact at
    finite n. What lies beyond q is seen as a probability only: that part of the variance is the density's word.
    """
    known = draws.subject.once("clipped squares", lambda: _clipped(draws.subject))
    x = draws.x.reshape(draws.n, -1)[:, known.index.to(draws.x.device)].to("cpu", torch.float64)
    return torch.minimum((x - known.centre).abs(), known.reach).square() / known.expected - 1


CHECKS: tuple[Check, ...] = (clipped_variance_of_draws,)
