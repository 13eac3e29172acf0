"""The one interface of every statistic: numbers stream in, a `Look` comes out, memory stays constant."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from harness.evidence import Look


@runtime_checkable
class Accumulator(Protocol):
    """A streaming statistic that is valid at every stopping time."""

    def update(self, values: Shaped[Tensor, " n *k"]) -> None:
        """Take in one chunk: a row a draw."""

    def look(self, confidence: float) -> Look:
        """Where the statistic stands: its time-uniform interval at `confidence`, and the log of its e-value."""


def log_mean_exp(log_values: Float[Tensor, "*k"]) -> float:
    """log of the mean of exp: the average of e-values is an e-value."""
    flat = log_values.flatten()
    return float(torch.logsumexp(flat, 0)) - math.log(flat.numel())


def pieces(rows: Shaped[Tensor, " n *k"], n: int, first: int) -> Iterator[tuple[Shaped[Tensor, " _n *k"], bool]]:
    """Cut a chunk that follows n earlier draws at draw counts fixed in advance, so that chunks do not matter.

    The counts are `first`, then each an eighth more than the one before. Yields each piece and whether it ends at one.
    """
    stop = first
    while stop <= n:
        stop += -(-stop // 8)
    while len(rows):
        piece, rows = rows[: stop - n], rows[stop - n :]
        n += len(piece)
        yield piece, n == stop
        if n == stop:
            stop += -(-stop // 8)
