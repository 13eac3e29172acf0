"""Models that are torch modules: modes, dropout, graphs, saving and loading."""

from __future__ import annotations

from harness.checks.law import Check

CHECKS: tuple[Check, ...] = ()
