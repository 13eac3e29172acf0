"""Mode coverage: where the data are, and whether draws are there as often.

Modes are cells around centres that k-means finds in events of the data that are no evidence, each as far as such events
reach. A wrong guess of where they are costs power alone: the law holds for any cells that are fixed beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.checks.implicit_data import difference, imitated, of_data
from harness.checks.law import statistical
from harness.draws import Draws
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

CENTRES, ROUNDS = 16, 10

LEAST = 1 / 40
"""The smallest share of the data that counts as a mode. Rarer ones are for `implicit.adversary`."""


@dataclass(frozen=True)
class Modes:
    """Centres (k, d) in standard coordinates, how far (k,) events reach from them, and their shares (k,)."""

    centres: Tensor
    reach: Tensor
    share: Tensor


def modes(subject: Subject) -> Modes:
    """The modes of a subject's data."""

    def work() -> Modes:
        data = imitated(subject)
        return modes_of(data.chart.coordinates(data.steer), subject.generator("modes"))

    return subject.once("modes of the data", work)


def modes_of(z: Tensor, source: torch.Generator) -> Modes:
    """k-means of z (n, d) from centres that are seeded far apart; cells of too small a share join others."""
    centres = _seeded(z, source)
    for _ in range(ROUNDS):
        label, _ = nearest(z, centres)
        count = torch.bincount(label, minlength=len(centres))
        total = torch.zeros_like(centres).index_add(0, label, z)
        centres = torch.where((count > 0)[:, None], total / count.clamp(min=1)[:, None], centres)
    label, _ = nearest(z, centres)
    large = torch.bincount(label, minlength=len(centres)) >= LEAST * len(z)
    centres = centres[large]
    label, distance = nearest(z, centres)
    reach = torch.zeros(len(centres), dtype=z.dtype, device=z.device).scatter_reduce(0, label, distance, "amax")
    return Modes(centres, reach, torch.bincount(label, minlength=len(centres)) / len(z))


def _seeded(z: Tensor, source: torch.Generator) -> Tensor:
    """Rows of z, each drawn with a probability that grows as the square of its distance from those before."""
    chosen = z[torch.randint(len(z), (1,), generator=source, device=z.device)]
    while len(chosen) < CENTRES:
        weight = nearest(z, chosen)[1].square()
        if not bool(weight.sum() > 0):  # every event is a centre already
            break
        chosen = torch.cat([chosen, z[torch.multinomial(weight, 1, generator=source)]])
    return chosen


def nearest(z: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The number of the nearest centre and the distance from it, (n,) each."""
    distance, label = torch.cdist(z, centres).min(1)
    return label, distance


def _start(subject: Subject) -> BoundedMean:
    bound = 1 / float(modes(subject).share.min())
    return of_data(subject, BoundedMean(-bound, bound))


def _labels(subject: Subject) -> list[str]:
    found, rows = modes(subject), imitated(subject).rows
    named = [f"mode {i}, {share:.1%} of the data{rows}" for i, share in enumerate(found.share.tolist())]
    return [*named, f"what is between the modes{rows}"]


@statistical(
    "implicit.modes_covered",
    needs=("sample", "data"),
    blocked_by=("implicit.data_well_formed", "implicit.gaussian_w2", "sample.finite"),
    start=_start,
    labels=_labels,
    tolerance=10.0,
    unit="of a mode's share",
    source="Goodfellow 2016, https://arxiv.org/abs/1701.00160, section 5.1 (mode collapse); Srivastava et al. 2017, "
    "https://arxiv.org/abs/1705.07761 (the ring, and modes that are hit)",
)
def modes_covered(draws: Draws) -> Tensor:
    r"""[P(x in M) - P(y in M)] / P(y in M) = 0 for every mode M of the data, x a draw, y an event of the data.

    -1 is a mode that is never drawn. M are up to 16 cells around centres found in other events of the data, so that
    a cell is a mode, a part of one, or a few small ones; the last column is what lies in none of them. Divided by the
    share that those other events have, at least 1/40. It asks for the right share of each mode, and so for more than
    that each be hit.
    """
    found = modes(draws.subject)
    chart, k = imitated(draws.subject).chart, len(found.share)

    def columns(events: Tensor) -> Tensor:
        label, distance = nearest(chart.coordinates(events).nan_to_num(torch.inf), found.centres)
        place = torch.where(distance <= found.reach[label], label, k)
        return torch.nn.functional.one_hot(place, k + 1) / torch.cat([found.share, found.share.new_ones(1)])

    return difference(draws, columns)
