"""States of several categorical variables as numbers: checking, counting and drawing them, shared by the families.

The state (x_1, ..., x_d), with x_i in {0, ..., K_i - 1}, has the code ((x_1 K_2 + x_2) K_3 + x_3) ...: its place in a
table of shape (K_1, ..., K_d) that is read row by row.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from reference_impls.discrete import checked_parameters, from_logits, kl_terms, logits_of, uniforms
from reference_impls.indices import as_count

LARGEST_TABLE = 2**28
"""Entries of the largest table made on request: 2 GiB in float64."""

CHUNK = 2**22
"""Entries of the largest temporary while drawing."""


def as_states(x: Tensor, states: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Draws (n, d) of any dtype as int64, and which rows (n,) are states; rows that are none become zeros."""
    x = torch.as_tensor(x)
    if x.dim() != 2 or x.shape[1] != len(states):
        raise ValueError(f"draws should have shape (n, {len(states)}), not {tuple(x.shape)}")
    sizes = torch.tensor(tuple(states), device=x.device)
    possible = (x >= 0) & (x < sizes)  # (n, d)
    if x.is_floating_point():
        possible = possible & (x % 1 == 0)
    possible = possible.all(-1)  # (n,)
    return torch.where(possible[:, None], x, 0).long(), possible


def sample_states(x: Tensor, states: Sequence[int]) -> Tensor:
    """A sample to fit, (n, d) with n > 0, as int64."""
    x = torch.as_tensor(x)
    if not x.is_floating_point() and x.dim() == 2 and len(x) and x.shape[1] == len(states):
        least, most = x.aminmax()
        if least >= 0 and most < min(states):  # as nearly always, and found in a hundredth of the time
            return x.long()
    codes, possible = as_states(x, states)
    if len(codes) == 0:
        raise ValueError("x holds no draws; a fit needs one or more")
    if not possible.all():
        row = int((~possible).nonzero()[0])
        raise ValueError(
            f"x[{row}] = {x[row].tolist()} is out of range: variable i takes 0 to K_i - 1, with K = {list(states)}"
        )
    return codes


def encode(x: Tensor, states: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The code (n,) of each row of x, and which rows are states."""
    x, possible = as_states(x, states)
    return codes_of(x, states), possible


def codes_of(x: Tensor, states: Sequence[int]) -> Tensor:
    """The code (n,) of each row of states (n, d)."""
    code = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for i, k in enumerate(states):
        code = code * k + x[:, i]
    return code


def decode(code: Tensor, states: Sequence[int]) -> Tensor:
    """The states (n, d) of codes (n,)."""
    columns = []
    for k in reversed(states):
        columns.append(code % k)
        code = code // k
    return torch.stack(columns[::-1], -1)


def counts(x: Tensor, states: Sequence[int]) -> Tensor:
    """How often each state occurs among the draws (n, d): (K_1, ..., K_d)."""
    size = checked_size(states)
    x = sample_states(x, states)
    return codes_of(x, states).bincount(minlength=size).reshape(tuple(states))


def checked_size(states: Sequence[int]) -> int:
    size = math.prod(as_count(k, "each number of states") for k in states)
    if size > LARGEST_TABLE:
        raise ValueError(f"a table over {len(states)} variables has {size:,} entries, more than {LARGEST_TABLE:,}")
    return size


def as_numbers(probs: Tensor) -> Tensor:
    """0, ..., K - 1 in float64, beside probabilities (..., K)."""
    return torch.arange(probs.shape[-1], dtype=torch.float64, device=probs.device)  # (K,)


# Probabilities


def as_probabilities(probs: Tensor, name: str) -> Tensor:
    probs = torch.as_tensor(probs)
    probs = probs if probs.is_floating_point() else probs.to(torch.get_default_dtype())
    least, most = probs.aminmax() if probs.numel() else (0, 1)  # NaN is both
    if not (least >= 0 and most <= 1):
        raise ValueError(f"{name} should hold probabilities, between 0 and 1; divide each row by its sum")
    return probs


def checked_rows(probs: Tensor, name: str) -> Tensor:
    """Rows (..., K) of probabilities that sum to one.

    Each entry may be rounded, by eps / 2 of itself, and may have been divided by a sum which was rounded at each level
    of its pairwise summation: (2 + log2 K) eps in all, and as much again for the user's own rounding.
    """
    probs = as_probabilities(probs, name)
    if probs.numel() == 0:
        return probs
    excess = (probs.double().sum(-1) - 1).abs().max().item()
    if not excess <= 2 * (2 + math.log2(probs.shape[-1])) * torch.finfo(probs.dtype).eps:
        raise ValueError(f"{name} should have rows that sum to 1, not off by {excess:.2g}; divide each by its sum")
    return probs


def normalised(probs: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows (..., K) that sum to one but for rounding to `dtype`: what summed to 1 in one need not in another."""
    return (probs / probs.sum(-1, keepdim=True)).to(dtype)


def parameters_of(tables: Sequence[Tensor]) -> Tensor:
    """The free parameters of several tables of rows, one after the other: see `logits_of`."""
    return torch.cat([logits_of(table).flatten() for table in tables])


def tables_from(theta: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Its inverse: tables of the shapes that those of `like` have."""
    shapes = [(*table.shape[:-1], table.shape[-1] - 1) for table in like]
    sizes = [math.prod(shape) for shape in shapes]
    parts = checked_parameters(theta, sum(sizes)).split(sizes)
    return [from_logits(part.reshape(shape)) for part, shape in zip(parts, shapes, strict=True)]


def information_of_pair(joint: Tensor) -> Tensor:
    """I = KL(p(a, b), p(a) p(b)) from p (A, B) in float64; never negative."""
    return kl_terms(joint, joint.sum(1, keepdim=True) * joint.sum(0)).sum()


# Drawing


def interval_ends(probs: Tensor) -> Tensor:
    """(..., K) to the ends of K intervals on [0, 1), in float64. An empty one catches nothing; the last end is 1."""
    ends = probs.double().cumsum(-1)
    return ends / ends[..., -1:]


def draw_rows(probs: Tensor, rows: Tensor, generator: Generator) -> Tensor:
    """One state from that row of `probs` (r, K) which each of `rows` (n,) names: the first that ends above u."""
    ends = interval_ends(probs)  # (r, K)
    u = uniforms((len(rows),), ends, generator)
    size = max(1, CHUNK // probs.shape[-1])
    drawn = [
        torch.searchsorted(ends[r], v[:, None], right=True)[:, 0]
        for r, v in zip(rows.split(size), u.split(size), strict=True)
    ]
    return torch.cat(drawn)  # (n,)


# Ready-made parameters


def random_rows(shape: tuple[int, ...], seed: int) -> Tensor:
    """Rows (..., K) drawn uniformly from the simplex: exponential variables over their sum."""
    u = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu")
    weights = -torch.log1p(-u)
    return weights / weights.sum(-1, keepdim=True)


def placing(dtype: torch.dtype | None, device: torch.device | str | None) -> tuple:
    return device or torch.get_default_device(), dtype or torch.get_default_dtype()
