"""Models that only draw, beside the data that they are to imitate."""

from __future__ import annotations

from harness.checks.law import Check

CHECKS: tuple[Check, ...] = ()
