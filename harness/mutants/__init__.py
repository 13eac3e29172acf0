"""Every mutant and near miss, by the family of the check that they try."""

from __future__ import annotations

from harness.mutants.mutant import Change, Mutant, NearMiss, mutated

MUTANTS: tuple[Mutant, ...] = ()
NEAR_MISSES: tuple[NearMiss, ...] = ()

__all__ = ["MUTANTS", "NEAR_MISSES", "Change", "Mutant", "NearMiss", "mutated"]
