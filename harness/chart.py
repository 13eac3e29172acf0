"""Coordinates: events to standardised numbers and back, so that no check depends on a model's scale or shape.

A continuous event in a constrained space (positive, a simplex, an interval) is mapped to unconstrained numbers u; these
are centred and scaled by robust estimates from pilot draws, and coordinates with heavy tails are compressed by asinh.
Discrete coordinates are only centred and scaled, which leaves their counting measure alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor
from torch.distributions import Transform, biject_to
from torch.distributions.constraints import Constraint

from harness.numerics.order import column_quantiles

HEAVY = 12.0
"""Ratio of 99.9 % to 75 % quantile, from the median, above which a tail is compressed (Gaussian 4.6, t_3 13)."""


@dataclass(frozen=True)
class Chart:
    """z = squash((u - location) / scale), where u is the flattened (and unconstrained) event; d coordinates."""

    event_shape: tuple[int, ...]
    dtype: torch.dtype
    transform: Transform | None
    location: Float64[Tensor, " d"]
    scale: Float64[Tensor, " d"]
    heavy: Bool[Tensor, " d"]
    discrete: Bool[Tensor, " d"]
    free_shape: tuple[int, ...] = ()
    """Shape of an unconstrained event, where there is a transform."""

    @property
    def size(self) -> int:
        """Number d of coordinates."""
        return len(self.location)

    def coordinates(self, x: Shaped[Tensor, " n *event"]) -> Float64[Tensor, "n d"]:
        """Events to coordinates, in float64."""
        t = (unconstrained(x, self.transform) - self.location) / self.scale
        return torch.where(self.heavy, torch.asinh(t), t) if self._squashes else t

    def events(self, z: Float64[Tensor, "n d"]) -> Shaped[Tensor, " n *event"]:
        """Coordinates to events, in the model's dtype."""
        u = self._stretched(z) * self.scale + self.location
        if self.transform is not None:
            return self.transform(u.reshape(len(u), *self.free_shape)).to(self.dtype)
        if bool(self.discrete.any()):
            u = torch.where(self.discrete, u.round(decimals=9), u)
        return u.reshape(len(u), *self.event_shape).to(self.dtype)

    def log_volume(self, z: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """log |dx/dz| over the continuous coordinates."""
        volume = torch.where(self.discrete, 0.0, torch.log(self.scale)).sum().expand(len(z))
        if self._squashes:
            volume = volume + torch.where(self.heavy, _log_cosh(z), 0.0).sum(1)
        if self.transform is None:
            return volume
        u = (self._stretched(z) * self.scale + self.location).reshape(len(z), *self.free_shape)
        return volume + self.transform.log_abs_det_jacobian(u, self.transform(u)).reshape(len(z), -1).sum(1)

    def faithful(self, z: Float64[Tensor, "n k"], x: Shaped[Tensor, " n *event"]) -> Bool[Tensor, " n"]:
        """Are the coordinates of x those it was made of? Not where the dtype underflows, saturates or is coarse."""
        if self._fine:
            return torch.ones(len(z), dtype=torch.bool, device=z.device)
        gap = torch.where(self.discrete, 0.0, (self.coordinates(x) - z).abs())
        return (gap < 0.25).all(1)

    @cached_property
    def _fine(self) -> bool:
        """Is the dtype so fine, without a transform, that rounding an event hardly moves its coordinates?"""
        if self.transform is not None or not self.dtype.is_floating_point:
            return self.transform is None
        spacing = torch.finfo(self.dtype).eps * (self.location.abs() + 30 * self.scale) / self.scale
        return not self._squashes and bool((self.discrete | (spacing < 0.01)).all())

    @cached_property
    def _squashes(self) -> bool:
        return bool(self.heavy.any())

    def _stretched(self, z: Tensor) -> Tensor:
        return torch.where(self.heavy, torch.sinh(z), z) if self._squashes else z


def unconstrained(x: Shaped[Tensor, " n *event"], transform: Transform | None) -> Float64[Tensor, "n d"]:
    """Events to free numbers, in float64."""
    x = x.to(torch.float64)
    return (transform.inv(x) if transform is not None else x).reshape(len(x), -1)


def transform_for(support: Constraint | None) -> Transform | None:
    """The map from free numbers onto a declared continuous support, where torch has one and it does something."""
    if support is None or support.is_discrete:
        return None
    try:
        transform = biject_to(support)
    except NotImplementedError:
        return None
    probe = torch.linspace(-2, 2, 5, dtype=torch.float64)
    try:
        if transform.domain.event_dim == transform.codomain.event_dim and torch.equal(transform(probe), probe):
            return None
    except (RuntimeError, ValueError, IndexError, AssertionError):
        pass
    return transform


def fit_chart(x: Shaped[Tensor, " n *event"], support: Constraint | None, discrete: Bool[Tensor, " d"]) -> Chart:
    """The chart that standardises the pilot draws x."""
    transform = None if bool(discrete.any()) else transform_for(support)
    u = unconstrained(x, transform)
    if transform is not None:
        discrete = torch.zeros(u.shape[1], dtype=torch.bool, device=u.device)
    u = torch.where(u.isfinite(), u, torch.nan)
    levels = torch.tensor([0.001, 0.25, 0.5, 0.75, 0.999], dtype=u.dtype, device=u.device)
    q = column_quantiles(u[: 2**14], levels)
    location = q[2].nan_to_num(0.0)
    spread = torch.maximum(q[3] - q[2], q[2] - q[1]) / 0.6745
    reach = torch.maximum(q[4] - q[2], q[2] - q[0])
    scale = torch.where(spread > 0, spread, reach)
    scale = torch.where(scale > 0, scale, 1.0).nan_to_num(1.0)
    heavy = (reach > HEAVY * spread * 0.6745) & (spread > 0) & ~discrete
    # Of a draw, not by `inverse_shape`, for which torch imports a library that takes most of a second.
    free_shape = () if transform is None else tuple(transform.inv(x[:1].double()).shape[1:])
    return Chart(tuple(x.shape[1:]), x.dtype, transform, location, scale, heavy, discrete, free_shape)


def _log_cosh(z: Tensor) -> Tensor:
    return z.abs() + torch.nn.functional.softplus(-2 * z.abs()) - math.log(2)
