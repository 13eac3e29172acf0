"""Every check, in the order in which they are made: the callable surface first, since all else relies on it."""

from __future__ import annotations

from harness.checks import sampler, surface
from harness.checks.law import Check

CHECKS: tuple[Check, ...] = (*surface.CHECKS, *sampler.CHECKS)
