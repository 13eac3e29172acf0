"""Torch modules with dropout, graphs and state in the wrong place; and right ones that look odd."""

from __future__ import annotations

from harness.mutants.mutant import Mutant, NearMiss

MUTANTS: tuple[Mutant, ...] = ()
NEAR_MISSES: tuple[NearMiss, ...] = ()
