"""What a rival rule is told: the exact margins and moments of the correct model that a bug was planted in.

That is more than the harness is told, which sees the model's own methods only; every rule here is given its best case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.mutants.planted import Affine, Lattice, LatticeTwoModes, Normal, TwoModes


@dataclass(frozen=True)
class Gaussians:
    """Independent margins, each a mixture of k Gaussians: weights (k,), means and standard deviations (d, k)."""

    weights: Tensor
    means: Tensor
    sds: Tensor

    @property
    def d(self) -> int:
        return len(self.means)

    def cdf(self, x: Tensor) -> Tensor:
        """P(X_j <= x_j) for draws (n, d); (n, d)."""
        return self._mixed(x, torch.special.ndtr)

    def density(self, x: Tensor) -> Tensor:
        """p_j(x_j) for draws (n, d); (n, d)."""
        return self._mixed(x, lambda e: torch.exp(-e.square() / 2) / (2 * torch.pi) ** 0.5, 1 / self.sds)

    def _mixed(self, x: Tensor, of: Any, factor: Tensor | None = None) -> Tensor:
        total = torch.zeros_like(x, dtype=torch.float64)
        for k, weight in enumerate(self.weights.tolist()):
            part = of((x.double() - self.means[:, k]) / self.sds[:, k])
            total += weight * (part if factor is None else part * factor[:, k])
        return total

    def mean(self) -> Tensor:
        return self.means @ self.weights

    def variance(self) -> Tensor:
        return (self.sds.square() + self.means.square()) @ self.weights - self.mean().square()


@dataclass(frozen=True)
class Table:
    """Margins on 0, 1, 2, ... with probabilities `masses` (values,), the same for each of d coordinates."""

    masses: Tensor
    d: int

    def cdf(self, x: Tensor) -> Tensor:
        return self.masses.cumsum(0)[x.long().clamp(0, len(self.masses) - 1)]

    def mean(self) -> Tensor:
        return (self.masses @ self._values()).expand(self.d)

    def variance(self) -> Tensor:
        return self.masses @ self._values().square() - self.mean().square()

    def _values(self) -> Tensor:
        return torch.arange(len(self.masses), dtype=self.masses.dtype)


Margins = Gaussians | Table


def margins_of(thing: object) -> Margins:
    """The exact margins of a model of `harness.mutants.planted`."""
    one = torch.ones(1, dtype=torch.float64)
    match thing:
        case Normal():
            return Gaussians(one, thing.location.double()[:, None], thing.scale.double()[:, None])
        case Affine():
            return Gaussians(one, thing.b.double()[:, None], thing.s.double()[:, None])
        case TwoModes():
            first, sds = thing.main.location.double(), thing.main.scale.double()
            weights = torch.tensor([1 - thing.WEIGHT, thing.WEIGHT], dtype=torch.float64)
            return Gaussians(weights, torch.stack([first, first + thing.offset.double()], 1), sds[:, None].repeat(1, 2))
        case Lattice():
            return Table(thing.table, thing.d)
        case LatticeTwoModes():
            low, high = (1 - thing.WEIGHT) * thing.main.table, thing.WEIGHT * thing.main.table
            return Table(torch.cat([low, torch.zeros(40 - len(low), dtype=low.dtype), high]), thing.main.d)
    raise TypeError(f"no margins are known of {type(thing).__name__}")


def covariance_of(thing: object) -> Tensor:
    """The exact covariance (d, d) of a model of `harness.mutants.planted`."""
    margins = margins_of(thing)
    variance = margins.variance()
    covariance = torch.diag(variance)
    if isinstance(thing, LatticeTwoModes):  # the whole event moves, so that all coordinates move together
        shared = 40**2 * thing.WEIGHT * (1 - thing.WEIGHT)
        covariance = torch.full((margins.d, margins.d), shared, dtype=torch.float64)
        covariance.diagonal().copy_(variance)
    if isinstance(thing, Normal | Lattice) and thing.rho:
        covariance[0, 1] = covariance[1, 0] = thing.rho * (variance[0] * variance[1]).sqrt()
    return covariance
