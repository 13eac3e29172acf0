"""Where a density over two or three free numbers is integrated: around the fitted peaks, and those that the fit missed.

The reference law is fitted to the pilot, of which a mode of weight 0.1 % makes out a few draws: too few for a component
of its own. They give themselves away by a density far above that of the fitted law. From such draws the density is
climbed, and its peaks, with widths of their own, are added one by one until no draw is left far above all of them, or
there are many. Draws that are left are counted: about so much of the mass an integral may have missed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.numerics import LogDensity
from harness.numerics.location import climb
from harness.scout import Tolerant
from harness.subject import Subject

ABOVE = 3.0
"""By how many nats the density exceeds its peaks where these say little about it."""

MOST_ADDED = 8
MOST_SOUGHT = 2**16
"""Draws among which rare modes are sought."""


@dataclass(frozen=True)
class Peaks:
    """Centres (m, k) and scales (m, k, k) in coordinates; n draws, of which so many lie far above all the peaks."""

    centres: Tensor
    scales: Tensor
    n: int
    above: int

    @property
    def overlooked(self) -> float:
        """The share of draws that the peaks say little about, plus five standard errors of this share."""
        return (self.above + 5 * math.sqrt(self.above)) / self.n


def peaks_of(subject: Subject) -> Peaks:
    """The peaks of a continuous law in coordinates."""
    return subject.once("peaks", lambda: _found(subject))


def sought(subject: Subject) -> Tensor:
    """The draws [n, *event] among which rare modes are sought: more than the pilot, where the model can draw."""

    def work() -> Tensor:
        wanted = min(MOST_SOUGHT, subject.effort.draws)
        if not subject.model.can("sample") or wanted <= len(subject.pilot):
            return subject.pilot
        return subject.sample(wanted, "peaks")

    return subject.once("draws for peaks", work)


def _found(subject: Subject) -> Peaks:
    fitted, chart, x = subject.reference, subject.profile.chart, sought(subject)
    z = chart.coordinates(x)
    z = z[z.isfinite().all(1)].cpu()
    log_p = Tolerant(subject.model)
    peaks, log_q = _Covered(subject, fitted.mean.cpu(), fitted.factor.cpu()), _in_coordinates(subject, log_p)
    gap = log_q(z) - peaks(z)
    tried = torch.zeros(len(z), dtype=torch.bool)
    for _ in range(MOST_ADDED):
        left = ((gap > ABOVE) & ~tried).nonzero().flatten()
        if not len(left):
            break
        first = left[gap[left].argmax()]
        tried[first] = True
        found = climb(peaks.outside(log_q), z[first][None])
        if not log_p.refused:  # else the edge of what may be asked is a fall, and to ask beyond it costs patience
            found = climb(peaks.outside(log_q), z[first][None], log_q)
        if found.found:
            peaks.add(found.centres, found.scales, log_q(found.centres))
            gap = log_q(z) - peaks(z)
    return Peaks(torch.cat(peaks.centres), torch.cat(peaks.scales), len(x), int((gap > ABOVE).sum()))


class _Covered:
    """log of the density of all peaks so far, in coordinates: the fitted law, and Gaussians as high as the density."""

    def __init__(self, subject: Subject, centres: Tensor, scales: Tensor):
        self.fitted, self.chart = subject.reference, subject.profile.chart
        self.centres, self.scales = [centres], [scales]
        self.heights: list[Tensor] = []

    def __call__(self, z: Tensor) -> Tensor:
        there = z.to(self.chart.location.device)
        covered = (self.fitted.log_density(there) + self.chart.log_volume(there)).cpu()
        for centres, scales, heights in zip(self.centres[1:], self.scales[1:], self.heights, strict=True):
            white = torch.linalg.solve(scales[:, None], (z - centres[:, None])[..., None])[..., 0]  # (m, n, k)
            covered = torch.logaddexp(covered, torch.logsumexp(heights[:, None] - white.square().sum(-1) / 2, 0))
        return covered

    def add(self, centres: Tensor, scales: Tensor, heights: Tensor) -> None:
        self.centres.append(centres)
        self.scales.append(scales)
        self.heights.append(heights)

    def outside(self, log_q: LogDensity) -> LogDensity:
        """The density where it is far above the peaks, 0 elsewhere: a climb stays away from what is known."""

        def beyond(z: Tensor) -> Tensor:
            value = log_q(z)
            return torch.where(value - self(z) > ABOVE, value, -math.inf)

        return beyond


def _in_coordinates(subject: Subject, log_p: Tolerant) -> LogDensity:
    """log p |dx/dz| of coordinates; -inf where the model gives no number, or refuses to."""
    chart, pilot = subject.profile.chart, subject.pilot

    def log_q(z: Tensor) -> Tensor:
        there = z.to(chart.location.device)
        x = chart.events(there)
        usable = x.flatten(1).isfinite().all(1)
        x = torch.where(usable.reshape(-1, *(1,) * (x.ndim - 1)), x, pilot[:1].to(x))
        with torch.no_grad():
            value = log_p(x).to(torch.float64) + chart.log_volume(there)
        return torch.where(usable, value, -math.inf).nan_to_num(-math.inf, posinf=-math.inf).cpu()

    return log_q
