"""Bijections that do not undo each other, or stretch otherwise than they say; and right ones that look odd."""

from __future__ import annotations

from harness.mutants.mutant import Mutant, NearMiss

MUTANTS: tuple[Mutant, ...] = ()
NEAR_MISSES: tuple[NearMiss, ...] = ()
