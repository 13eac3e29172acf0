r"""Monotone maps of single coordinates, whose parameters theta somebody else computes: the heart of most flows.

    x_i = u(z_i; theta_i),      log |det J| = sum_i log du/dz_i

A map has `size` parameters a coordinate. They come as columns of theta (n, size d), the first parameter of all
coordinates, then the second, and so on. `push` gives x (n, d) and log du/dz (n, d), `pull` gives z and the same.

In `Elementwise` theta is the same for all events, so that coordinates stay independent; `coupling` and `masked_flows`
make it a function of other coordinates.

Source: Papamakarios et al. 2021, https://jmlr.org/papers/v22/19-1028.html, section 3.1.
"""

import math

import torch
from torch import Generator, Tensor, nn

from reference_impls.flows import Bijection


class ScaleShift:
    """x = mu + exp(alpha) z, with alpha = a / (1 + |a| / B) in (-B, B), so that no slope leaves (1/1000, 1000)."""

    size = 2
    bound = math.log(1e3)

    def push(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        mu, alpha = self._read(theta)
        return torch.addcmul(mu, z, alpha.exp()), alpha  # (n, d) each

    def pull(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        mu, alpha = self._read(theta)
        return (x - mu) / alpha.exp(), alpha

    def _read(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        mu, a = theta.chunk(2, -1)
        return mu, a / a.abs().div_(self.bound).add_(1)


class Elementwise(Bijection):
    """A map of each coordinate with parameters of its own."""

    def __init__(self, d: int, univariate, *, spread: float = 1.0, seed: int = 0):
        super().__init__()
        self.d, self.univariate = d, univariate
        draws = torch.randn(d * univariate.size, generator=Generator().manual_seed(seed), dtype=torch.float64)
        self.theta = nn.Parameter((spread * draws).to(torch.get_default_dtype()))

    def push(self, z, given=None):
        x, log_slope = self.univariate.push(z, self.theta.expand(len(z), -1))
        return x, log_slope.sum(-1)

    def pull(self, x, given=None):
        z, log_slope = self.univariate.pull(x, self.theta.expand(len(x), -1))
        return z, log_slope.sum(-1)
