"""Every check, in the order in which they are made: the callable surface first, since all else relies on it."""

from __future__ import annotations

from harness.checks import (
    bridge,
    clipped,
    density,
    divergence,
    estimation,
    gradient,
    information,
    kernel,
    masses,
    moments,
    mutual,
    quantiles,
    randomness,
    resolution,
    structure,
    support,
    surface,
    volume,
)
from harness.checks.law import Check

CHECKS: tuple[Check, ...] = (
    *surface.CHECKS,
    *gradient.CHECKS,
    *randomness.CHECKS,
    *resolution.CHECKS,
    *volume.CHECKS,
    *support.CHECKS,
    *density.CHECKS,
    *moments.CHECKS,
    *clipped.CHECKS,
    *information.CHECKS,
    *quantiles.CHECKS,
    *divergence.CHECKS,
    *structure.CHECKS,
    *mutual.CHECKS,
    *masses.CHECKS,
    *bridge.CHECKS,
    *kernel.CHECKS,
    *estimation.CHECKS,
)
