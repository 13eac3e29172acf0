"""Boxes with finite or infinite limits, mapped axis by axis onto the whole space, and edges of unknown supports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from harness.numerics.integral import Evaluator, LogDensity, unit_roundoff


@dataclass(frozen=True)
class Box:
    """The product of intervals (lower_i, upper_i), as the image of R^d.

    Per axis: x = t; x = a + exp(t); x = b - exp(t); or x = a + (b - a) / (1 + exp(-t)), whichever limits are finite.
    """

    lower: Float64[Tensor, " d"]
    upper: Float64[Tensor, " d"]

    @staticmethod
    def of(
        lower: float | Sequence[float] | Float[Tensor, " d"],
        upper: float | Sequence[float] | Float[Tensor, " d"],
        d: int,
    ) -> Box:
        """Limits given once for all axes, or one for each."""
        ends = (torch.as_tensor(e, dtype=torch.float64).expand(d) for e in (lower, upper))
        return Box(*ends)

    def x(self, t: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
        """Points of the box for t."""
        a, b = self.lower, self.upper
        has_a, has_b = a.isfinite(), b.isfinite()
        grown = t.clamp(max=600).exp()
        width = torch.where(has_a & has_b, b - a, 1.0)
        a0, b0 = torch.where(has_a, a, 0.0), torch.where(has_b, b, 0.0)
        inside = torch.where(t < 0, a0 + width * torch.sigmoid(t), b0 - width * torch.sigmoid(-t))
        one_sided = torch.where(has_a, a0 + grown, torch.where(has_b, b0 - grown, t))
        return torch.where(has_a & has_b, inside, one_sided)

    def t(self, x: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
        """The inverse of `x`."""
        a, b = self.lower, self.upper
        has_a, has_b = a.isfinite(), b.isfinite()
        above, below = (x - a).log(), (b - x).log()
        one_sided = torch.where(has_a, above, torch.where(has_b, below, x))
        return torch.where(has_a & has_b, above - below, one_sided)

    def log_jacobian(self, t: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """log |det dx/dt|."""
        has_a, has_b = self.lower.isfinite(), self.upper.isfinite()
        log_width = torch.where(has_a & has_b, self.upper - self.lower, 1.0).log()
        logistic = log_width + torch.nn.functional.logsigmoid(t) + torch.nn.functional.logsigmoid(-t)
        return torch.where(has_a & has_b, logistic, torch.where(has_a | has_b, t, 0.0)).sum(-1)

    def density(self, log_density: LogDensity) -> LogDensity:
        """The same measure as a log-density of t; +inf and NaN become -inf."""

        def log_q(t: Tensor) -> Tensor:
            log_p = log_density(self.x(t))
            reached = ((t < 600) | ~(self.lower.isfinite() | self.upper.isfinite())).all(-1)
            return torch.where((log_p < math.inf) & reached, log_p + self.log_jacobian(t), -math.inf)

        return log_q


def find_edge(
    evaluate: Evaluator, inside: float, outside: float, dtype: torch.dtype = torch.float64
) -> tuple[float, float]:
    """Bisect (32 ways at a time) between a point of the support and one outside; returns the edge and log p inside it.

    If 0 lies between the two it is tried first, since edges at 0 could otherwise be resolved only by underflow.
    """
    value = -math.inf
    if inside * outside < 0:
        at_zero = float(evaluate(torch.zeros(1, 1, dtype=torch.float64)))
        near = 1e-12 * inside
        near_value = float(evaluate(torch.full((1, 1), near, dtype=torch.float64)))
        far_value = float(evaluate(torch.full((1, 1), 1e-12 * outside, dtype=torch.float64)))
        if near_value > -math.inf and far_value == -math.inf:
            return 0.0, max(near_value, at_zero)
    for _ in range(40):
        grid = inside + (outside - inside) * torch.linspace(0, 1, 33, dtype=torch.float64)
        grid = grid.to(dtype).to(torch.float64)
        log_p = evaluate(grid[:, None])
        dead = (log_p == -math.inf).nonzero()[:, 0]
        first = max(int(dead[0]), 1) if len(dead) else 32
        value = float(log_p[first - 1])
        inside, outside = float(grid[first - 1]), float(grid[first])
        if abs(outside - inside) <= 4 * unit_roundoff(dtype) * max(abs(inside), abs(outside)):
            break
    return inside, value
