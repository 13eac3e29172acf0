"""Laws given something that are wrong for some of it; and right ones that look odd."""

from __future__ import annotations

from harness.mutants.mutant import Mutant, NearMiss

MUTANTS: tuple[Mutant, ...] = ()
NEAR_MISSES: tuple[NearMiss, ...] = ()
