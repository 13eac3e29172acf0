r"""Monotone rational-quadratic splines: a map of the line that bends as it likes, with a slope and an inverse known.

On [-B, B] there are K bins with knots (x_k, z_k) and slopes delta_k > 0 at the knots; outside, and at the ends, z = x.
In a bin of width w, height h and s = h / w, for xi = (x - x_k) / w in [0, 1],

    z(xi) = z_k + h (s xi^2 + delta_k t) / (s + (delta_{k+1} + delta_k - 2 s) t),       t = xi (1 - xi)
    dz/dx = s^2 (delta_{k+1} xi^2 + 2 s t + delta_k (1 - xi)^2) / (s + (delta_{k+1} + delta_k - 2 s) t)^2

It is the ratio of two quadratics, increasing, and its inverse solves one quadratic equation. The formula above leads
from x to z, since training asks for densities; sampling solves the equation.

Sources: Durkan, Bekasov, Murray & Papamakarios 2019, https://arxiv.org/abs/1906.04032; Gregory & Delbourgo 1982.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from reference_impls.coupling import Coupling, alternating
from reference_impls.elementwise import Elementwise
from reference_impls.flows import Flow, StandardNormal, placed

LEAST = 1e-3
"""Of the width and the height of a bin, as shares of 2 B, and of a slope at a knot, as in the paper."""


class Spline:
    """z = spline(x). Parameters a coordinate: K widths, K heights, K - 1 slopes at inner knots; 0: z = x."""

    def __init__(self, bins: int = 8, bound: float = 5.0):
        if not 2 <= bins < 1 / LEAST or not 0 < bound < math.inf:
            raise ValueError(
                f"bins = {bins} should be 2 to {round(1 / LEAST) - 1} and bound = {bound} positive, finite"
            )
        self.bins, self.bound, self.size = bins, bound, 3 * bins - 1

    def pull(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """From x to z: the bin by x, then the ratio of quadratics."""
        inside = x.abs() < self.bound
        (x_k, z_k), (w, h), (d_0, d_1) = self._bin(torch.where(inside, x, 0), theta, 0)
        s = h / w
        xi = (torch.where(inside, x, 0) - x_k) / w
        t = xi * (1 - xi)
        below = s + (d_1 + d_0 - 2 * s) * t
        z = z_k + h * (s * xi.square() + d_0 * t) / below
        log_slope = self._log_slope(xi, t, s, d_0, d_1, below)
        return torch.where(inside, z, x), torch.where(inside, -log_slope, 0)

    def push(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """From z to x: the bin by z, then the root xi in [0, 1] of a xi^2 + b xi + c = 0, with nothing cancelled."""
        inside = z.abs() < self.bound
        (x_k, z_k), (w, h), (d_0, d_1) = self._bin(torch.where(inside, z, 0), theta, 1)
        s, up = h / w, torch.where(inside, z, 0) - z_k
        bend = up * (d_1 + d_0 - 2 * s)
        a, b, c = h * (s - d_0) + bend, h * d_0 - bend, -s * up
        root = (b.square() - 4 * a * c).clamp(min=0).sqrt()  # below 0 by rounding alone
        xi = 2 * c / (-b - root)
        t = xi * (1 - xi)
        log_slope = self._log_slope(xi, t, s, d_0, d_1, s + (d_1 + d_0 - 2 * s) * t)
        return torch.where(inside, x_k + w * xi, z), torch.where(inside, -log_slope, 0)

    @staticmethod
    def _log_slope(xi, t, s, d_0, d_1, below) -> Tensor:
        """log dz/dx."""
        return ((s / below).square() * (d_1 * xi.square() + 2 * s * t + d_0 * (1 - xi).square())).log()

    def _bin(self, value: Tensor, theta: Tensor, axis: int) -> tuple[tuple[Tensor, ...], ...]:
        """Lower left corner, width and height, and the two slopes of the bin that the value is in; axis 0 is x, 1 z."""
        k, n, d = self.bins, *value.shape
        theta = theta.reshape(n, self.size, d)
        shares = theta[:, : 2 * k].reshape(n, 2, k, d).softmax(2)
        sizes = 2 * self.bound * LEAST + 2 * self.bound * (1 - k * LEAST) * shares  # (n, 2, K, d)
        corners = pad(sizes[:, :, :-1], (0, 0, 1, 0), value=-self.bound).cumsum(2)  # (n, 2, K, d)
        found = (corners[:, axis, 1:] <= value[:, None]).sum(1, keepdim=True)  # (n, 1, d), 0 to K - 1
        both = found[:, None].expand(n, 2, 1, d)
        corner, size = corners.gather(2, both), sizes.gather(2, both)
        ends = pad(theta[:, 2 * k :], (0, 0, 1, 1)).gather(1, torch.cat([found, found + 1], 1))  # 0 is a slope of 1
        slopes = LEAST + softplus(ends + math.log(math.expm1(1 - LEAST)))  # (n, 2, d)
        return corner[:, :, 0].unbind(1), size[:, :, 0].unbind(1), slopes.unbind(1)


# Ready-made models


def bent_line(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Flow:
    """One coordinate, by a spline of five bins on [-3, 3]."""
    layer = Elementwise(1, Spline(5, 3.0), spread=1.0, seed=25)
    return placed(Flow(StandardNormal(1), [layer]), dtype, device)


def spline_coupling(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Flow:
    """Two coordinates, each in turn bent by a spline of six bins that the other chooses."""
    layers = [Coupling(kept, Spline(6, 4.0), hidden=(16,), seed=i) for i, kept in enumerate(alternating(2, 2))]
    return placed(Flow(StandardNormal(2), layers), dtype, device)


def full_spline(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Flow:
    """The paper's size for POWER, 6 coordinates: 10 coupling layers, 8 bins on [-3, 3], 2 x 256 hidden units."""
    layers = [
        Coupling(kept, Spline(8, 3.0), hidden=(256, 256), activation=torch.relu, seed=i)
        for i, kept in enumerate(alternating(6, 10))
    ]
    return placed(Flow(StandardNormal(6), layers), dtype, device)
