"""Mutual informations that are off, negative, lopsided, or more than the data allow; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.mutant import Change, Mutant, NearMiss
from harness.mutants.structure import diagonal, gaussian, nearly_singular, nothing, table

Edit = Callable[[Tensor, Sequence[int], Sequence[int]], Tensor]


def _stating(edit: Edit) -> Change:
    """The change that replaces I(a; b) by edit(I, a, b)."""
    return lambda model: {"mutual_information": lambda a, b: edit(model.methods["mutual_information"](a, b), a, b)}


def _up(value: Tensor, a: Sequence[int], b: Sequence[int]) -> Tensor:
    return value + 0.05


def _in_bits(value: Tensor, a: Sequence[int], b: Sequence[int]) -> Tensor:
    return value / math.log(2)


def _negative(value: Tensor, a: Sequence[int], b: Sequence[int]) -> Tensor:
    return -value


def _per_coordinate(value: Tensor, a: Sequence[int], b: Sequence[int]) -> Tensor:
    return value / len(a)


def _zero(value: Tensor, a: Sequence[int], b: Sequence[int]) -> Tensor:
    return torch.zeros_like(value)


def _without_half(value: Tensor, a: Sequence[int], b: Sequence[int]) -> Tensor:
    return 2 * value


def _conditional_entropy(model: Model) -> dict[str, Callable[..., Tensor]]:
    """H(a) - H(a, b), which is -H(b | a), for H(a) + H(b) - H(a, b)."""

    def information(a: Sequence[int], b: Sequence[int]) -> Tensor:
        return model.marginal(a).entropy() - model.marginal([*a, *b]).entropy()

    return {"mutual_information": information}


SYMMETRIC, GROWS, ENTROPIES = "mutual.symmetric", "mutual.grows_with_the_block", "mutual.of_entropies"
ZERO, DRAWN = "mutual.zero_for_products", "mutual.of_draws"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("lopsided", "I(a; b) divided by the size of a", SYMMETRIC, gaussian(5), _stating(_per_coordinate)),
    Mutant("one_entropy_forgotten", "H(a) - H(a, b)", SYMMETRIC, table(3, 2, 4), _conditional_entropy),
    Mutant("negative", "-I", GROWS, gaussian(5), _stating(_negative)),
    Mutant("shared_out", "I(a; b) divided by the size of a", GROWS, gaussian(5), _stating(_per_coordinate)),
    Mutant("information_off", "I + 0.05 nat", ENTROPIES, gaussian(5), _stating(_up)),
    Mutant("information_in_bits", "I in bits", ENTROPIES, table(3, 2, 4), _stating(_in_bits)),
    Mutant("never_zero", "I + 0.05 nat", ZERO, diagonal, _stating(_up)),
    Mutant("always_zero", "0", ZERO, gaussian(5), _stating(_zero)),
    Mutant("information_off_in_draws", "I + 0.05 nat", DRAWN, gaussian(5), _stating(_up)),
    Mutant("without_half", "log (|S_aa| |S_bb| / |S|)", DRAWN, gaussian(5), _stating(_without_half)),
    Mutant("bits_in_draws", "I in bits", DRAWN, table(3, 2, 4), _stating(_in_bits)),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("nearly_singular", "correlation 0.99 in float32", SYMMETRIC, nearly_singular, nothing),
    NearMiss("sixteen", "16 dimensions", SYMMETRIC, gaussian(16), nothing),
    NearMiss("sixteen", "16 dimensions", GROWS, gaussian(16), nothing),
    NearMiss("independent", "0 in every block", GROWS, diagonal, nothing),
    NearMiss("sixteen", "16 dimensions", ENTROPIES, gaussian(16), nothing),
    NearMiss("zero_probability", "a table with an impossible state", ENTROPIES, table(3, 2, 4), nothing),
    NearMiss("independent", "a product", ZERO, diagonal, nothing),
    NearMiss("no_product", "16 dimensions", ZERO, gaussian(16), nothing),
    NearMiss("independent", "a product", DRAWN, diagonal, nothing),
    NearMiss("zero_probability", "a table with an impossible state", DRAWN, table(3, 2, 4), nothing),
    NearMiss("correlated", "5 dimensions", DRAWN, gaussian(5), nothing),
)
