"""Coordinates that are chosen, and the others: the arguments of marginals and conditionals, shared by the families."""

import operator
from collections.abc import Sequence

from torch import Tensor


def as_indices(indices: Sequence[int], name: str = "indices") -> list[int]:
    """Whole numbers as ints; ValueError for fractions, names and masks, which would pass for other coordinates."""
    try:
        chosen = [i.tolist() if isinstance(i, Tensor) else i for i in indices]
        if not any(isinstance(i, bool) for i in chosen):
            return [operator.index(i) for i in chosen]
    except TypeError:
        pass
    raise ValueError(f"{name} should be a list of whole numbers, not {indices!r}")


def split(indices: Sequence[int], d: int) -> tuple[list[int], list[int]]:
    """The chosen coordinates, in the order given, and the others, in theirs."""
    chosen = as_indices(indices)
    if not chosen or not all(-d <= i < d for i in chosen):
        raise ValueError(f"indices should name one or more of the coordinates 0 to {d - 1}, not {chosen}")
    chosen = [i % d for i in chosen]
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"indices should name each coordinate once, not {chosen}")
    return chosen, [i for i in range(d) if i not in set(chosen)]


def split_evidence(indices: Sequence[int], d: int) -> tuple[list[int], list[int]]:
    """The coordinates given, which may be none, and the others, of which something must be left to have a law."""
    chosen = as_indices(indices)
    a, b = split(chosen, d) if chosen else ([], list(range(d)))
    if not b:
        raise ValueError(f"indices give all {d} coordinates and leave none; leave out at least one")
    return a, b


def split_pair(a: Sequence[int], b: Sequence[int], d: int) -> tuple[list[int], list[int]]:
    """Two blocks of coordinates that have none in common."""
    (a, _), (b, _) = split(a, d), split(b, d)
    if set(a) & set(b):
        raise ValueError(f"the blocks a = {a} and b = {b} share coordinates; choose disjoint ones")
    return a, b


def as_count(value: int, name: str, least: int = 1) -> int:
    """A number of things, `least` or more of them, as an int."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name} should be a whole number of at least {least}, not {value!r}")
    return number
