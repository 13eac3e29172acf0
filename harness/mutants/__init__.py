"""Every mutant and near miss, by the family of the check that they try."""

from __future__ import annotations

from harness.mutants import (
    classifier,
    density,
    energy,
    errata,
    estimation,
    information,
    maps,
    moments,
    mutual,
    randomness,
    sampler,
    structure,
    support,
    surface,
    volume,
)
from harness.mutants.mutant import Change, Mutant, NearMiss, mutated

MUTANTS: tuple[Mutant, ...] = (
    *surface.MUTANTS,
    *randomness.MUTANTS,
    *support.MUTANTS,
    *volume.MUTANTS,
    *density.MUTANTS,
    *moments.MUTANTS,
    *information.MUTANTS,
    *structure.MUTANTS,
    *mutual.MUTANTS,
    *maps.MUTANTS,
    *classifier.MUTANTS,
    *energy.MUTANTS,
    *sampler.MUTANTS,
    *estimation.MUTANTS,
    *errata.MUTANTS,
)
NEAR_MISSES: tuple[NearMiss, ...] = (
    *surface.NEAR_MISSES,
    *randomness.NEAR_MISSES,
    *support.NEAR_MISSES,
    *volume.NEAR_MISSES,
    *density.NEAR_MISSES,
    *moments.NEAR_MISSES,
    *information.NEAR_MISSES,
    *structure.NEAR_MISSES,
    *mutual.NEAR_MISSES,
    *maps.NEAR_MISSES,
    *classifier.NEAR_MISSES,
    *energy.NEAR_MISSES,
    *sampler.NEAR_MISSES,
    *estimation.NEAR_MISSES,
    *errata.NEAR_MISSES,
)

__all__ = ["MUTANTS", "NEAR_MISSES", "Change", "Mutant", "NearMiss", "mutated"]
