"""Numbers that a model states about itself, and what comparing them needs: their shape, their rounding, their noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.checks.oracle import roundoff, typical_rounding
from harness.draws import Draws
from harness.subject import Subject

DITHER = 0.02
"""Nats of independent noise that are added to differences of logarithms, so that their rounding has no say."""


def scalar(subject: Subject, name: str, *arguments: object) -> float:
    """What the model states, a single number. Raises ValueError for anything else."""
    value = subject.model.methods[name](*arguments)
    if not isinstance(value, Tensor) or value.numel() != 1 or value.ndim > 0:
        seen = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        raise ValueError(f"{name}() has {seen}, not a tensor of shape ()")
    return float(value.detach())


def precision(subject: Subject, name: str, *arguments: object) -> float:
    """Units of roundoff of such a number, by its dtype."""
    return roundoff(subject.model.methods[name](*arguments))


def gap(said: float, truth: float) -> float:
    """|said - truth|; infinite when either is not a number."""
    distance = abs(said - truth) if said != truth else 0.0
    return math.inf if math.isnan(distance) else distance


def dither(draws: Draws, name: str) -> Tensor:
    """(n,) independent noise of mean 0, so much larger than rounding that rounding cannot be mistaken for evidence."""
    size = max(DITHER, 2**10 * typical_rounding(draws.subject))
    source = draws.subject.generator("dither", name, draws.index)
    return size * torch.randn(draws.n, generator=source, dtype=torch.float64, device=draws.subject.model.device)
