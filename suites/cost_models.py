"""The models of which the cost of an examination is measured."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch import distributions as td


def normal() -> td.Distribution:
    """The smallest model."""
    return td.Normal(1.0, 2.0)


def gaussian_64d() -> td.Distribution:
    """A full covariance in 64 dimensions."""
    source = torch.Generator().manual_seed(0)
    a = torch.randn(64, 64, generator=source) / 8
    return td.MultivariateNormal(torch.zeros(64), a @ a.T + torch.eye(64))


def independent_normals(d: int) -> td.Distribution:
    """d independent coordinates."""
    return td.Independent(td.Normal(torch.zeros(d), torch.ones(d)), 1)


class CouplingFlow:
    """x = f(e), e standard Gaussian: affine coupling layers x_b = e_b exp(s(e_a)) + t(e_a), halves alternating.

    The conditioners are networks with one hidden layer and fixed random weights, as a trained flow's would be in cost
    (Dinh, Sohl-Dickstein & Bengio 2017, https://arxiv.org/abs/1605.08803).
    """

    def __init__(self, d: int = 16, layers: int = 6, hidden: int = 64):
        source = torch.Generator().manual_seed(0)
        half = d // 2
        self.d, self.half = d, half
        self.layers = [
            (
                torch.randn(half, hidden, generator=source) / math.sqrt(half),
                torch.randn(hidden, 2 * half, generator=source) * 0.3 / math.sqrt(hidden),
            )
            for _ in range(layers)
        ]

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        a, b = torch.randn(n, self.d, generator=generator).split(self.half, 1)
        for weights in self.layers:
            log_s, t = self._conditioned(a, weights)
            a, b = b * log_s.exp() + t, a  # the halves change places
        return torch.cat([a, b], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        a, b = x.split(self.half, 1)
        log_det = x.new_zeros(len(x))
        for weights in reversed(self.layers):
            log_s, t = self._conditioned(b, weights)
            a, b = b, (a - t) * torch.exp(-log_s)
            log_det = log_det + log_s.sum(1)
        e = torch.cat([a, b], 1)
        return -e.square().sum(1) / 2 - self.d * math.log(2 * math.pi) / 2 - log_det

    def _conditioned(self, given: Tensor, weights: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Bounded log-scales and shifts, each (n, half)."""
        first, second = (matrix.to(given) for matrix in weights)
        log_s, t = (torch.tanh(given @ first) @ second).split(self.half, 1)
        return torch.tanh(log_s), t


def coupling_flow() -> CouplingFlow:
    """16 dimensions, 6 layers."""
    return CouplingFlow()
