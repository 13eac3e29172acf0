"""Every check, in the order in which they are made: the callable surface first, since all else relies on it."""

from __future__ import annotations

from harness.checks import (
    bridge,
    density,
    gradient,
    information,
    kernel,
    masses,
    moments,
    randomness,
    resolution,
    support,
    surface,
)
from harness.checks.law import Check

CHECKS: tuple[Check, ...] = (
    *surface.CHECKS,
    *gradient.CHECKS,
    *randomness.CHECKS,
    *resolution.CHECKS,
    *support.CHECKS,
    *density.CHECKS,
    *moments.CHECKS,
    *information.CHECKS,
    *masses.CHECKS,
    *bridge.CHECKS,
    *kernel.CHECKS,
)
