"""The dtype's grid under continuous events: how coarse it is, and points drawn evenly from the cell around an event.

A float32 event near 10^6 stands for all reals within 0.03 of it. A sampler that rounds puts the mass of such a cell on
its middle: a law with atoms, of which a statistic of coordinates (a sign, a rank) sees ties that no density has. Moved
to a random place of its cell, a draw has a density again: p at the middle, to second order in the spacing, which is
also what a proposal that lands in the cell is given. Sheppard's corrections say how good that is: a spacing of s
standard deviations changes a variance by s^2 / 12, and a Gaussian by about s^2 / 50 in total variation.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from harness.chart import Chart
from harness.numerics.order import column_quantiles
from harness.subject import Subject

FINE = 2.0**-12
"""Spacing, in spreads, below which ties are too rare to be seen: an atom in the middle weighs 0.4 of it."""


def spacing(subject: Subject) -> float:
    """Median width of the cells of pilot draws, in standard deviations by quartiles of the coarsest coordinate.

    0 where the numbers of an event depend on each other, as on a simplex: its cells are no boxes.
    """
    return subject.once("spacing of events", lambda: _spacing(subject))


def _spacing(subject: Subject) -> float:
    chart, pilot = subject.profile.chart, subject.pilot[: 2**12]
    transform = getattr(chart.transform, "base_transform", chart.transform)
    if not pilot.is_floating_point() or (transform is not None and transform.domain.event_dim > 0):
        return 0.0
    below, above = (side.reshape(len(pilot), -1).to(torch.float64) for side in neighbours(pilot))
    levels = torch.tensor([0.25, 0.75], dtype=torch.float64, device=pilot.device)
    first, third = column_quantiles(pilot.reshape(len(pilot), -1).to(torch.float64), levels)
    spread = (third - first) / 1.349
    width = ((above - below) / 2).nanmedian(0).values / spread
    counts = chart.discrete | ~(spread > 0) | ~width.isfinite()
    return float(torch.where(counts, 0.0, width).max())


def spread_out(
    subject: Subject, x: Shaped[Tensor, " n *event"], source: torch.Generator
) -> Float64[Tensor, " n *event"]:
    """Events in float64, each at a random place of its cell; discrete coordinates stay, and so do float64 events."""
    chart = subject.profile.chart
    low, high = _cell(chart, x)
    u = torch.rand(low.shape, generator=source, dtype=low.dtype, device=low.device)
    return (low + u * (high - low)).reshape(x.shape)


def neighbours(x: Shaped[Tensor, " n *event"]) -> tuple[Shaped[Tensor, " n *event"], Shaped[Tensor, " n *event"]]:
    """The next numbers of the dtype below and above."""
    return torch.nextafter(x, torch.full_like(x, -torch.inf)), torch.nextafter(x, torch.full_like(x, torch.inf))


def _cell(chart: Chart, x: Shaped[Tensor, " n *event"]) -> tuple[Tensor, Tensor]:
    """Both ends (n, d) of the reals that round to each number: halfway to its neighbours."""
    flat = x.reshape(len(x), -1)
    middle = flat.to(torch.float64)
    ends = []
    for neighbour in neighbours(flat):
        end = (middle + neighbour.to(torch.float64)) / 2
        ends.append(torch.where(chart.discrete | ~end.isfinite(), middle, end))
    return ends[0], ends[1]
