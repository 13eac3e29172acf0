"""A second model of the same kind, for laws about two: with other parameters, or fitted to draws that were moved."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.checks.law import NotApplicable
from harness.errors import out_of_memory
from harness.model import Model
from harness.subject import Subject

STRETCH, SHIFT = 0.5, 0.5
"""How far draws are stretched and shifted, in all: each of d coordinates by 1 / sqrt(d) of it, about half a nat."""

FITTED_ON = 2**12
"""Draws that the second model is fitted to."""


def second_model(subject: Subject) -> Subject:
    """Another model of the same kind. Raises NotApplicable where none can be had."""
    return subject.once("second model", lambda: _second(subject))


def _second(subject: Subject) -> Subject:
    model = subject.model
    if model.sibling is None and not model.can("fit"):
        raise NotApplicable("no second model of the same kind is known, and there is no fit to make one")
    other = model.sibling() if model.sibling is not None else _fitted(subject)
    return Subject(other, subject.effort, subject.seed_for("sibling"))


def _fitted(subject: Subject) -> Model:
    """What `fit` makes of the first set of moved draws that it takes."""
    reason = ""
    for x in _moved(subject):
        try:
            other = subject.model.fit(x)
            if isinstance(other, Model) and other.can("log_prob"):
                values = other.log_prob(subject.pilot[:64])
                if not bool(values.isnan().any()):
                    return other
            reason = "it returned no model with a density"
        except Exception as error:  # draws that the family cannot have: the next ones are milder
            if out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
    raise NotApplicable(f"no second model could be fitted to draws that were moved ({reason})")


def _moved(subject: Subject) -> Iterator[Tensor]:
    """Draws of another law on the same support: stretched and shifted coordinates, else a choice that favours some."""
    pilot, chart = subject.pilot[:FITTED_ON], subject.profile.chart
    z = chart.coordinates(pilot)
    if not bool(chart.discrete.any()):
        size = chart.size**0.5
        yield chart.events((1 + STRETCH / size) * z + SHIFT / size)
    # Where most of the coordinates are high, all draws; of the others every fourth: any law that has draws has these.
    high = z.sum(1) > z.sum(1).median()
    kept = high | (torch.arange(len(z), device=z.device) % 4 == 0)
    yield pilot[kept]
