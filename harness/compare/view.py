"""The data as a model is given it, and how its densities are brought back to the data's own units.

raw            as it is: for models that come trained, and for discrete models of discrete rows
standardised   z = (x - m) / s, m and s of the training rows: log p(x) = log q(z) - sum_j log s_j
dequantised    discrete rows for a density: x + u with u uniform on [0, 1)^d, then standardised. By Jensen's inequality
               E_u log p(x + u) <= log int p(x + u) du = log P(x), so the NLL is an upper bound on that of the states
               (Theis, van den Oord & Bethge 2016, https://arxiv.org/abs/1511.01844)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.compare.data import Dataset
from harness.streams import generator as stream

COPIES = 8
"""Draws of u for each test row, over which its log-density is averaged; the same for all models."""


@dataclass(frozen=True)
class View:
    """Rows in a model's coordinates: `test` is [copies, n, d], all copies of one test point."""

    train: Tensor
    valid: Tensor
    test: Tensor
    log_jacobian: float
    """To be added to log q: - sum_j log s_j."""
    discrete: bool
    exact: bool
    how: str
    shift: Tensor | None = None
    scale: Tensor | None = None
    levels: tuple[int, ...] | None = None

    def on(self, device: torch.device) -> View:
        """The same rows on that device, to train there; what is for the test stays where it is."""
        return replace(self, train=self.train.to(device), valid=self.valid.to(device))

    def in_data_units(self, z: Tensor) -> Tensor:
        """Draws of the model as rows of the data."""
        return z if self.shift is None or self.scale is None else z.double() * self.scale + self.shift


def as_events(rows: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    """Rows [n, d] in the shape that a model declares for its events, where it has d numbers."""
    fits = shape is not None and math.prod(shape) == rows.shape[1]
    return rows.reshape(len(rows), *shape) if fits and shape is not None else rows


def raw(data: Dataset) -> View:
    """Rows as they are."""
    how = "data's own units" if data.levels is None else "states as they are"
    return View(data.train, data.valid, data.test[None], 0.0, data.levels is not None, True, how, levels=data.levels)


def standardised(data: Dataset, seed: int) -> View:
    """Rows for a density that is trained: standardised, after dequantisation where they are discrete."""
    train, valid, test = data.train.double(), data.valid.double(), data.test.double()[None]
    discrete = data.levels is not None
    if discrete:
        train, valid = (part + _noise(part, seed, name) for part, name in ((train, "train"), (valid, "valid")))
        test = data.test.double() + torch.stack([_noise(test[0], seed, "test", k) for k in range(COPIES)])
    shift, scale = train.mean(0), train.std(0)
    how = "standardised by the training rows, the log-Jacobian counted"
    if discrete:
        how = f"dequantised by uniform noise ({COPIES} draws a test row), then {how}"
    return View(
        train=(train - shift) / scale,
        valid=(valid - shift) / scale,
        test=(test - shift) / scale,
        log_jacobian=float(-scale.log().sum()),
        discrete=False,
        exact=not discrete,
        how=how,
        shift=shift,
        scale=scale,
    )


def _noise(part: Tensor, seed: int, name: str, k: int = 0) -> Tensor:
    return torch.rand(part.shape, dtype=torch.float64, generator=stream(seed, "dequantise", name, str(k)))
