r"""Draws that were there before: among the rows that a model was trained on, or among its own earlier draws.

Let A be a fixed set of events and d(x, A) the distance from x to the nearest of them. If draws x follow the law of
held-out events y, then d(x, A) and d(y, A) have one law, whatever A is: being nearer than y is knowing A (Meehan,
Chaudhuri & Dasgupta 2020, https://arxiv.org/abs/2004.05675, who compare ranks of both). Copies are equal to a member of
A, near copies nearer than all but 1 % of the data. Only an excess is held against a model.

A sampler that shrinks towards the centre of the data is nearer to everything. `implicit.agrees_with_data` sees that,
and these checks are silent once it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.checks.implicit_data import difference, events, imitated, of_data
from harness.checks.law import statistical
from harness.checks.pairing import keys
from harness.draws import Draws
from harness.evidence import Look
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

LEVELS = (0.01, 0.1, 0.5)
MOST_ANCHORS, LEAST_ANCHORS, ANCHOR_NUMBERS = 2**11, 2**8, 2**20
BLOCK_NUMBERS = 2**22
"""Distances that are made at a time."""


class Excess(BoundedMean):
    """Are the means of k bounded numbers at most 0? The half of `BoundedMean` above 0."""

    def log_e(self) -> Tensor:
        return super().log_e()[:, :1]

    def carried(self, doubt: float) -> Tensor:
        """What later runs go on from: above 0 only."""
        return super().carried(doubt) * torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)

    def interval(self, alpha: float) -> tuple[Tensor, Tensor]:
        low, high = super().interval(alpha)
        return low.clamp(min=0), high.clamp(min=0)

    def _look_at(self, column: int, low: Tensor, high: Tensor) -> Look:
        look = super()._look_at(column, low, high)
        return look if look.estimate != look.estimate else replace(look, estimate=max(look.estimate, 0.0))


@dataclass(frozen=True)
class Anchors:
    """A: keys of all its events, standard coordinates (a, d) of some, and what distances of the data are at LEVELS."""

    keys: Tensor
    some: Tensor
    limits: Tensor


def _anchors(subject: Subject, name: str, rows: Callable[[], Tensor]) -> Anchors:
    def work() -> Anchors:
        data, all_rows = imitated(subject), rows().to(subject.pilot.dtype)
        most = max(LEAST_ANCHORS, min(MOST_ANCHORS, ANCHOR_NUMBERS // max(1, all_rows[0].numel())))
        order = torch.randperm(len(all_rows), generator=subject.generator("anchors", name), device=all_rows.device)
        some = data.chart.coordinates(all_rows[order[:most]])
        near = distances(data.chart.coordinates(data.steer.to(subject.pilot.dtype)), some)
        limits = torch.quantile(near, torch.tensor(LEVELS, dtype=near.dtype, device=near.device))
        return Anchors(keys(all_rows).unique(), some, limits)

    return subject.once(f"anchors: {name}", work)


def distances(z: Tensor, some: Tensor) -> Tensor:
    """(n,): from each row of z (n, d) to the nearest of `some` (a, d), to 1e-8 of the size of z."""
    rows = max(1, BLOCK_NUMBERS // len(some))
    mode = "use_mm_for_euclid_dist"  # ten times as fast
    return torch.cat([torch.cdist(part, some, compute_mode=mode).amin(1) for part in z.split(rows)])


def _numbers(draws: Draws, anchors: Anchors) -> Tensor:
    """(rows, 4): x against y, equal to a member of A, and as near as the data at each level."""
    chart, dtype = imitated(draws.subject).chart, draws.subject.pilot.dtype

    def columns(seen: Tensor) -> Tensor:
        seen = seen.to(dtype)
        equal = torch.isin(keys(seen), anchors.keys)[:, None]
        near = distances(chart.coordinates(seen), anchors.some)[:, None] <= anchors.limits
        return torch.cat([equal, near], 1).double()

    return difference(draws, columns)


def _labels(what: str) -> Callable[[Subject], list[str]]:
    names = [f"equal to {what}", *(f"as near to {what} as {level:.0%} of the data" for level in LEVELS)]
    return lambda subject: [f"{name}{imitated(subject).rows}" for name in names]


def _training(subject: Subject) -> Anchors:
    said = subject.model.methods["training_data"]
    return _anchors(subject, "training data", lambda: events(subject, said(), "training_data()"))


def _start_training(subject: Subject) -> Excess:
    _training(subject)
    return of_data(subject, Excess(-1.0, 1.0))


def _start_pilot(subject: Subject) -> Excess:
    return of_data(subject, Excess(-1.0, 1.0))


FOUNDATIONS = ("implicit.data_well_formed", "implicit.gaussian_w2", "sample.finite", "sample.resolution")


@statistical(
    "implicit.not_memorised",
    needs=("sample", "data", "training_data"),
    blocked_by=FOUNDATIONS,
    start=_start_training,
    labels=_labels("a training row"),
    tolerance=2.0,
    share=1 / 4,
    unit="of the draws",
    source="Meehan, Chaudhuri & Dasgupta 2020, https://arxiv.org/abs/2004.05675",
)
def not_memorised(draws: Draws) -> Tensor:
    """P(d(x, T) <= r) <= P(d(y, T) <= r) for draws x, held-out events y, the training rows T, and any r.

    A model that has learnt the law, and not the rows, is as far from them as fresh events are. r = 0 finds copies,
    small r near copies, in distances between standardised coordinates. Of many rows some thousand are looked at, and
    all for copies. A model that was fitted to few rows is nearer to them by right: the check then says so.
    """
    return _numbers(draws, _training(draws.subject))


@statistical(
    "implicit.not_repeated",
    needs=("sample", "data"),
    blocked_by=(*FOUNDATIONS, "sample.varies_with_seed", "sample.advances_generator", "sample.not_repeated"),
    start=_start_pilot,
    labels=_labels("an earlier draw"),
    tolerance=2.0,
    share=1 / 4,
    unit="of the draws",
    source="Arora & Zhang 2017, https://arxiv.org/abs/1706.08224 (the birthday paradox tells the size of a support)",
)
def not_repeated(draws: Draws) -> Tensor:
    """P(d(x, S) <= r) <= P(d(y, S) <= r) for draws x, events y of the data, earlier draws S of the model, and any r.

    S are some thousand draws of other calls. A sampler with k different draws returns one of S again with a probability
    of about |S| / k, and one that varies too little around so many comes near them. `sample.not_repeated` cannot see
    it, as such repeats are as frequent between unrelated draws; what the data repeat is on both sides here.
    """
    subject = draws.subject
    return _numbers(draws, _anchors(subject, "pilot draws", lambda: subject.pilot))
