"""Every check, in the order in which they are made: the callable surface first, since all else relies on it."""

from __future__ import annotations

from harness.checks import bridge, density, kernel, masses, surface
from harness.checks.law import Check

CHECKS: tuple[Check, ...] = (*surface.CHECKS, *density.CHECKS, *masses.CHECKS, *bridge.CHECKS, *kernel.CHECKS)
