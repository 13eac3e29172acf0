"""Diffusions whose kernels, denoisers, scores and solvers do not belong together; and right ones that look odd."""

from __future__ import annotations

from harness.mutants.mutant import Mutant, NearMiss

MUTANTS: tuple[Mutant, ...] = ()
NEAR_MISSES: tuple[NearMiss, ...] = ()
