"""Where a law lives, and how sums over it are made: states, integers, a line, up to three free numbers, or branches.

Every space answers `integrate(log_density, functions, noise)`, both given flattened events (n, d) in float64, with
integrals against the measure of the contract: counting on discrete coordinates, Lebesgue on continuous ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.chart import Chart
from harness.numerics import Function, Integral, LogDensity, enumerate_integers, integrate, sum_states
from harness.numerics.cubature import integrate_nd

LEVELS = (0.001, 0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99, 0.999)
"""Pilot quantiles at which a line is cut: a mode heavier than 1 % has a cut inside."""

MAX_POINTS = 500_000
"""Most points of a cubature."""

RESOLVED = 16.0
"""A cubature is asked for no more than so many times the noise of the log-density."""


class Space(Protocol):
    """A set of events that can be summed over."""

    def integrate(self, log_density: LogDensity, functions: Sequence[Function], noise: float) -> Integral:
        """Integrals of p and of f p; `noise` is the relative precision of the log-density."""


@dataclass(frozen=True)
class Line:
    """One continuous number between two limits; without knots the mass is looked for."""

    lower: float
    upper: float
    knots: Tensor | None
    dtype: torch.dtype

    def integrate(self, log_density: LogDensity, functions: Sequence[Function], noise: float) -> Integral:
        """Adaptive quadrature between the knots and towards both limits."""
        limits: dict[str, Any] = {"lower": self.lower, "upper": self.upper}
        return integrate(log_density, functions, knots=self.knots, dtype=self.dtype, noise=noise, **limits)


@dataclass
class Charted:
    """Up to three free numbers z, which the chart turns into events; densities are multiplied by |dx/dz|."""

    chart: Chart
    centres: Tensor  # (m, k) modes, in coordinates
    scales: Tensor  # (m, k, k) a factor of the covariance around each
    _last: tuple[Tensor, Tensor, Tensor] | None = field(default=None, repr=False)

    def integrate(self, log_density: LogDensity, functions: Sequence[Function], noise: float) -> Integral:
        """Quadrature or cubature over z in R^k."""

        def log_q(z: Tensor) -> Tensor:
            x, volume = self._events(z)
            log_p = log_density(x)
            return torch.where(log_p == math.inf, -math.inf, log_p + volume)  # rounded onto a singular edge

        moved = [self._moved(f) for f in functions]
        if self.chart.size == 1:
            steps = torch.tensor([-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
            return integrate(log_q, moved, knots=(self.centres + self.scales[:, 0] * steps).flatten(), noise=noise)
        limits: dict[str, Any] = {"rtol": max(1e-7, RESOLVED * noise), "max_points": MAX_POINTS}
        return integrate_nd(log_q, moved, location=self.centres, scale=self.scales, noise=noise, **limits)

    def _moved(self, f: Function) -> Function:
        def function(z: Tensor, log_qz: Tensor) -> Tensor:
            x, volume = self._events(z)
            return f(x, log_qz - volume)

        return function

    def _events(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Flattened events and log |dx/dz| of z; kept for the functions that follow a call of the density."""
        if self._last is None or self._last[0] is not z:
            there = z.to(self.chart.location.device)
            x = self.chart.events(there).to("cpu", torch.float64).reshape(len(z), -1)
            self._last = z, x, self.chart.log_volume(there).cpu()
        return self._last[1], self._last[2]


@dataclass(frozen=True)
class Integers:
    """The integers between two limits, of which one may be infinite, walked outward from where the mass is."""

    lower: float
    upper: float
    start: tuple[float, ...]

    def integrate(self, log_density: LogDensity, functions: Sequence[Function], noise: float) -> Integral:
        """Blocks of doubling length, until the tails are known."""
        limits: dict[str, Any] = {"lower": self.lower, "upper": self.upper}
        return enumerate_integers(log_density, self.start, functions, noise=noise, **limits)


@dataclass(frozen=True)
class States:
    """Finitely many states: a grid of alphabets, each point of which stands for an event.

    Where the grid is not known to hold every event (`complete` is False) the sum is a lower bound, and what may be
    missing from 1 is its error.
    """

    alphabets: tuple[Tensor, ...]
    decode: Callable[[Tensor], Tensor] = lambda codes: codes
    complete: bool = True

    @property
    def count(self) -> int:
        """Number of states."""
        return math.prod(len(alphabet) for alphabet in self.alphabets)

    def integrate(self, log_density: LogDensity, functions: Sequence[Function], noise: float) -> Integral:
        """The sum over every state."""
        decode = self.decode
        moved = [_decoded(f, decode) for f in functions]
        found = sum_states(lambda codes: log_density(decode(codes)), self.alphabets, moved, noise=noise)
        return found if self.complete else _lower_bound(found)


def _decoded(f: Function, decode: Callable[[Tensor], Tensor]) -> Function:
    return lambda codes, log_p: f(decode(codes), log_p)


def _lower_bound(found: Integral) -> Integral:
    """States may be missing: as much as is missing from 1, and nothing is known of other functions."""
    missing = max(0.0, 1 - found.total)
    if missing <= found.total_error:
        return found
    error = torch.full_like(found.error, math.inf)
    error[0] = missing + found.error[0]
    return Integral(found.values, error, found.points, False, found.log_total, message="not all values are known")


@dataclass(frozen=True)
class Growing:
    """Integers in a few dimensions: boxes around the pilot draws, widened until the added shells weigh nothing."""

    low: Tensor
    high: Tensor
    lower: Tensor
    upper: Tensor
    limit: int

    def integrate(self, log_density: LogDensity, functions: Sequence[Function], noise: float) -> Integral:
        """The sum over the last box that is small enough; its error is twice what the last widening added."""
        before = after = self._box(0).integrate(log_density, functions, noise)
        width = 1
        while (box := self._box(width)).count <= self.limit:
            before, after = after, box.integrate(log_density, functions, noise)
            gain = (after.values - before.values).abs()
            if bool((gain <= 1e-12 * after.values.abs().clamp(min=after.total)).all()):
                break
            width *= 2
        added = (after.values - before.values).abs() if after is not before else torch.full_like(after.error, math.inf)
        return Integral(after.values, after.error + 2 * added, after.points, True, after.log_total)

    def _box(self, width: int) -> States:
        """The hull of the pilot draws widened by so many quarters of itself on each side."""
        pad = ((self.high - self.low) / 4).ceil().clamp(min=1) * width
        low = torch.maximum(self.low - pad, self.lower)
        high = torch.minimum(self.high + pad, self.upper)
        ranges = zip(low.tolist(), high.tolist(), strict=True)
        return States(tuple(torch.arange(int(a), int(b) + 1, dtype=torch.float64) for a, b in ranges))


@dataclass(frozen=True)
class Branches:
    """Mixed events: a continuous space for each combination of the discrete values."""

    parts: tuple[tuple[Tensor, Space], ...]  # discrete values (d of them; NaN where continuous), and the rest's space
    continuous: Tensor  # (d,) bool

    def integrate(self, log_density: LogDensity, functions: Sequence[Function], noise: float) -> Integral:
        """The sum of the branches' integrals."""
        found = []
        for values, space in self.parts:
            join = self._join(values)
            moved = [_decoded(f, join) for f in functions]
            found.append(space.integrate(_joined(log_density, join), moved, noise))
        total = sum((part.values for part in found), torch.zeros_like(found[0].values))
        error = sum((part.error for part in found), torch.zeros_like(found[0].error))
        points = sum(part.points for part in found)
        messages = [part.message for part in found if part.message]
        converged = all(part.converged for part in found)
        return Integral(
            total, error, points, converged, math.log(max(float(total[0]), 1e-300)), message="; ".join(messages[:1])
        )

    def _join(self, values: Tensor) -> Callable[[Tensor], Tensor]:
        def join(rest: Tensor) -> Tensor:
            x = values.expand(len(rest), -1).clone()
            x[:, self.continuous] = rest
            return x

        return join


def _joined(log_density: LogDensity, join: Callable[[Tensor], Tensor]) -> LogDensity:
    return lambda rest: log_density(join(rest))


def quantiles(column: Tensor) -> Tensor:
    """Pilot quantiles and both ends of the finite values of (n,)."""
    finite = column[column.isfinite()].to(torch.float64)
    if not len(finite):
        return finite
    levels = torch.tensor((0.0, *LEVELS, 1.0), dtype=torch.float64, device=column.device)
    return torch.quantile(finite[: 2**14], levels).cpu()
