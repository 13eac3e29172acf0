r"""The mu-law of telephony: amplitudes in [-1, 1] become few levels, close to each other where speech is quiet.

    f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu),      f^-1(v) = sign(v) ((1 + mu)^|v| - 1) / mu,      mu = K - 1

The range [-1, 1] of f is cut into K equal bins. A level is the number of its bin, and stands for the middle v of it.
The slope of f^-1 grows with |v|, so that the outer end of a bin is farthest from what stands for it, and the error of
the way there and back is at most, and at that end just,

    |x - x'| <= (|x'| + 1 / mu) ((1 + mu)^(1 / K) - 1),      x' = f^-1(v).

That is 2.2 % of the amplitude for K = 256, and 1 / 11,600 near silence, where K even bins would be off by 1 / 256.

Sources: ITU-T Recommendation G.711 (1988), https://www.itu.int/rec/T-REC-G.711; van den Oord et al. 2016,
https://arxiv.org/abs/1609.03499, section 2.2.
"""

import math

import torch
from torch import Tensor

from reference_impls.discrete import is_state


def compress(x: Tensor, levels: int = 256) -> Tensor:
    """f(x), of amplitudes in [-1, 1] and in the same range. Raises ValueError for any others."""
    mu = _mu(levels)
    if not bool((x.abs() <= 1).all()):
        raise ValueError("x should hold amplitudes from -1 to 1; divide by the largest, and leave out NaN")
    return x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)


def expand(v: Tensor, levels: int = 256) -> Tensor:
    """f^-1(v)."""
    mu = _mu(levels)
    return v.sign() * torch.expm1(v.abs() * math.log1p(mu)) / mu


def encode(x: Tensor, levels: int = 256) -> Tensor:
    """The number of the bin, 0, ..., K - 1, of each amplitude in [-1, 1]: int64. Bins hold their lower ends."""
    return ((compress(x, levels) + 1) / 2 * levels).floor().long().clamp(max=levels - 1)  # 1 is in the last bin


def decode(level: Tensor, levels: int = 256, *, dtype: torch.dtype | None = None) -> Tensor:
    """The amplitude that a level stands for. Raises ValueError for what is no level."""
    if not bool(is_state(level, levels).all()):
        raise ValueError(f"level should hold integers from 0 to {levels - 1}")
    middle = (2 * level.to(dtype or torch.get_default_dtype()) + 1) / levels - 1
    return expand(middle, levels)


def round_trip_bound(x: Tensor, levels: int = 256) -> Tensor:
    """How far amplitudes with this decoded x' can be from it."""
    mu = _mu(levels)
    return (x.abs() + 1 / mu) * math.expm1(math.log1p(mu) / levels)


def _mu(levels: int) -> int:
    if levels < 2:
        raise ValueError(f"levels = {levels} should be at least 2; 256 is usual")
    return levels - 1
