"""Where a dtype is too coarse for a law of continuous events to be told from its rounding."""

from __future__ import annotations

import torch

from harness.cells import FINE, spacing
from harness.checks.law import NotApplicable
from harness.subject import Subject

COARSEST = 1 / 8
"""Spacing in spreads: rounding then moves a Gaussian by s^2 / 50 = 0.0003 in total variation, a tenth of the tolerance
of a thorough examination."""


def require_resolution(subject: Subject) -> None:
    """Raise NotApplicable where the dtype holds too few different events for a comparison of densities."""
    found = spacing(subject)
    widest = subject.pilot.dtype == torch.float64  # places between its numbers cannot be written down
    if not found <= (FINE if widest else COARSEST):
        dtype = str(subject.pilot.dtype).removeprefix("torch.")
        raise NotApplicable(
            f"{dtype} tells these events apart only to {found:.2g} of their spread: "
            + ("sample nearer to 0" if widest else "sample in a wider dtype, or nearer to 0")
        )
