r"""Sharing an error budget among checks, and joining e-values.

By the union bound, checks at levels :math:`\alpha_c` with :math:`\sum \alpha_c = \alpha` raise a false alarm anywhere
with probability at most :math:`\alpha`, whatever their dependence. A product of e-values of independent runs is an
e-value, and so is a (weighted) average of arbitrarily dependent ones (Vovk & Wang 2021,
https://arxiv.org/abs/1912.06116); both are the essentially unique admissible ways.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def share(alpha: float, weights: Iterable[float]) -> tuple[float, ...]:
    """Split alpha in proportion to the weights; the parts sum to alpha, up to rounding."""
    parts = tuple(weights)
    if not (0 < alpha < 1 and parts and all(0 <= part < math.inf for part in parts) and math.fsum(parts) > 0):
        raise ValueError("alpha must lie in (0, 1), weights be non-negative, finite and not all 0")
    total = math.fsum(parts)
    return tuple(alpha * (part / total) for part in parts)


def accumulate(log_e_values: Iterable[float]) -> float:
    """log of the product: the e-value of runs on independent draws, each taken at a stopping time of its own."""
    return math.fsum(log_e_values)


def average(log_e_values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """log of the weighted average: the e-value of statistics computed on the same draws."""
    weights = weights if weights is not None else [1.0] * len(log_e_values)
    total = math.fsum(weights)
    terms = [
        log_e + math.log(weight / total) for log_e, weight in zip(log_e_values, weights, strict=True) if weight > 0
    ]
    if any(math.isnan(term) for term in terms):
        return math.nan
    largest = max(terms)
    if math.isinf(largest):
        return largest
    return largest + math.log(math.fsum(math.exp(term - largest) for term in terms))
