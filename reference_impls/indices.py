"""Coordinates that are chosen, and the others: the arguments of marginals and conditionals, shared by the families."""

from collections.abc import Sequence


def split(indices: Sequence[int], d: int) -> tuple[list[int], list[int]]:
    """The chosen coordinates, in the order given, and the others, in theirs."""
    chosen = [int(i) for i in indices]
    if not chosen or not all(-d <= i < d for i in chosen):
        raise ValueError(f"indices should name one or more of the coordinates 0 to {d - 1}, not {chosen}")
    chosen = [i % d for i in chosen]
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"indices should name each coordinate once, not {chosen}")
    return chosen, [i for i in range(d) if i not in set(chosen)]


def split_evidence(indices: Sequence[int], d: int) -> tuple[list[int], list[int]]:
    """The coordinates given, which may be none, and the others, of which something must be left to have a law."""
    a, b = split(indices, d) if len(indices) else ([], list(range(d)))
    if not b:
        raise ValueError(f"indices give all {d} coordinates and leave none; leave out at least one")
    return a, b


def split_pair(a: Sequence[int], b: Sequence[int], d: int) -> tuple[list[int], list[int]]:
    """Two blocks of coordinates that have none in common."""
    (a, _), (b, _) = split(a, d), split(b, d)
    if set(a) & set(b):
        raise ValueError(f"the blocks a = {a} and b = {b} share coordinates; choose disjoint ones")
    return a, b
