"""What an integration returns, and the one place where a black-box log-density is called."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

LogDensity = Callable[[Float64[Tensor, "n d"]], Float[Tensor, " n"]]
"""Points -> log-densities; -inf outside the support, +inf allowed at a singular point."""

Function = Callable[[Float64[Tensor, "n d"], Float64[Tensor, " n"]], Float[Tensor, " n"]]
"""(points, their log-densities) -> values of which the integral against the density is wanted."""

CHUNK = 2**17
"""Most points given to the log-density in one call, so that memory stays bounded."""


def surprisal(x: Float64[Tensor, "n d"], log_p: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """-log p, of which the integral against p is the differential entropy (0 where p is 0)."""
    return torch.where(log_p == -math.inf, 0.0, -log_p)


def power(k: int, axis: int = 0) -> Function:
    """x -> x_axis^k."""
    return lambda x, log_p: x[:, axis] ** k


@dataclass(frozen=True)
class Integral:
    """Integrals of 1, f_1, ..., f_k against a density (or sums against a mass), each with a bound on its error.

    `values[0]` is the total mass and `values[i]` that of `f_i`; an infinite `error` says that nothing is known, as for
    an integral that diverges. `converged` says that every error met the tolerance that was asked for, or the floor that
    the arithmetic of the density allows. `cells` (m, 1 + k) are the shares of the m cells between consecutive `edges`,
    with `cell_error` of the same shape.
    """

    values: Float64[Tensor, " functions"]
    error: Float64[Tensor, " functions"]
    points: int
    converged: bool
    log_total: float = math.nan
    cells: Float64[Tensor, "m functions"] | None = None
    cell_error: Float64[Tensor, "m functions"] | None = None
    edges: Float64[Tensor, " m+1"] | None = None
    message: str = ""

    @property
    def total(self) -> float:
        """The integral of the density itself: 1 if it is normalised."""
        return float(self.values[0])

    @property
    def total_error(self) -> float:
        """The bound on the error of `total`."""
        return float(self.error[0])

    @property
    def log_error(self) -> float:
        """The bound on the error of `log_total`: -log(1 - r) for a relative error r of the total."""
        relative = self.total_error / self.total if self.total > 0 else math.inf
        return -math.log1p(-relative) if relative < 1 else math.inf

    @property
    def expectations(self) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
        """E f_i under the density once normalised, and its error: |d(a/b)| <= (|da| + |a/b| |db|) / (b - |db|)."""
        ratio = self.values[1:] / self.values[0]
        room = (self.values[0] - self.error[0]).clamp(min=0)
        error = (self.error[1:] + ratio.abs() * self.error[0]) / room
        return ratio, torch.nan_to_num(error, nan=math.inf, posinf=math.inf)


class Evaluator:
    """Calls a log-density in float64 on bounded batches, and counts the points."""

    def __init__(self, log_density: LogDensity, functions: Sequence[Function] = ()):
        self.log_density = log_density
        self.functions = tuple(functions)
        self.points = 0

    def __call__(self, x: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """Log-densities of the rows of x."""
        self.points += len(x)
        parts = [self._call(part) for part in x.split(CHUNK)] if len(x) > CHUNK else [self._call(x)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _call(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            log_p = self.log_density(x).detach().to("cpu", torch.float64)
        if log_p.shape != x.shape[:1]:
            raise ValueError(f"log_density gave shape {tuple(log_p.shape)} for {len(x)} points, not ({len(x)},)")
        return log_p

    def weights(self, x: Float64[Tensor, "n d"], log_p: Float64[Tensor, " n"]) -> Float64[Tensor, "n functions"]:
        """The functions 1, f_1, ..., f_k at the rows of x, 0 wherever the density is 0."""
        columns = [torch.ones_like(log_p)]
        with torch.no_grad():
            columns += [f(x, log_p).detach().to("cpu", torch.float64) for f in self.functions]
        out = torch.stack(columns, -1)
        return out if not self.functions else torch.where((log_p == -math.inf)[:, None], 0.0, out)


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the distance from 1 to the next number of the dtype."""
    return torch.finfo(dtype).eps / 2
