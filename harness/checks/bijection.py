"""Bijections: forward and inverse undo each other, log_det is that of the Jacobian, the density is the base's."""

from __future__ import annotations

from harness.checks.law import Check

CHECKS: tuple[Check, ...] = ()
