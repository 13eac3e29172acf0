"""A subject of which the energy is read as a density, so that laws of densities apply to it."""

from __future__ import annotations

import torch

from harness.draws import Draws
from harness.model import Model
from harness.profile import HARD_EDGE, discrete_coordinates
from harness.subject import Subject
from harness.unnormalised import Inside, as_density


def twin(subject: Subject, *, normalised: bool = False) -> Subject:
    """The subject with its energy for a density, of the same seed and so of the same draws."""

    def work() -> Subject:
        free = as_density(subject.model, normalised=normalised)
        inside = _values_seen(subject, free) if subject.model.can("sample") else None
        held = as_density(subject.model, normalised=normalised, inside=inside)
        return Subject(held, subject.effort, subject.seed)

    return subject.once(f"energy as a density, normalised: {normalised}", work)


def twin_draws(draws: Draws, *, normalised: bool = False) -> Draws:
    """The same chunk of draws, seen by the twin."""

    def work() -> Draws:
        seen = Draws(twin(draws.subject, normalised=normalised), draws.index, draws.n)
        seen.x = draws.x
        return seen

    return draws.once(f"draws of the twin, normalised: {normalised}", work)


def _values_seen(subject: Subject, density: Model) -> Inside | None:
    """Have all discrete coordinates values that some coordinate of a pilot draw has?

    The energy of spins that are -1 or 1 is a number at 0 too, and means nothing there. None where a support was
    declared, and where the values fade out, as those of a count do: then the energy itself says where they end.
    """
    pilot = subject.pilot
    discrete = discrete_coordinates(density, pilot)
    if density.support is not None or not bool(discrete.any()):
        return None
    values, counts = pilot.reshape(len(pilot), -1)[:, discrete].unique(return_counts=True)
    if not bool((counts >= HARD_EDGE * counts.sum()).all()):
        return None
    return lambda x: torch.isin(x.reshape(len(x), -1)[:, discrete], values.to(x.dtype))
