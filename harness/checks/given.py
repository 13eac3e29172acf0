"""Laws given something, p(x | y): every law of densities and samplers, for each y."""

from __future__ import annotations

from harness.checks.law import Check

CHECKS: tuple[Check, ...] = ()
