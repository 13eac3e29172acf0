"""Volumes of the maps of a bijection, from their Jacobians: log |det J|, and how far rounding may take it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.checks.ends import FLOAT64, Ends, Map, size_of
from harness.checks.law import NotApplicable
from harness.checks.rounding import SAFETY

ENTRIES = 1024
"""Rows times coordinates of Jacobians, and the most coordinates: each takes a pass back through the map."""

JACOBIANS = 16
"""Most points at which a Jacobian is taken."""

SLOPE_STEP = 2.0**-17
"""For differences in float64: the cube root of its rounding, where the error of a slope is least."""


def few(points: Tensor) -> Tensor:
    """Rows at which a Jacobian is affordable. Raises NotApplicable where none is."""
    d = points.shape[1]
    if d > ENTRIES:
        raise NotApplicable(f"a Jacobian of {d} coordinates takes {d} passes; at most {ENTRIES} are made")
    return points[: max(1, min(JACOBIANS, ENTRIES // d))]


@dataclass(frozen=True)
class Determinants:
    """log |det J| (n,), and how far rounding of the entries of J takes it (n,)."""

    log_abs: Tensor
    rounding: Tensor


def determinants(ends: Ends, function: Map, points: Tensor) -> Determinants:
    """A relative error e of all entries moves log |det J| by at most e sum_ij |J^-1|_ji |J|_ij.

    So much is allowed for rounding.
    An output that is known to u of its size may have slopes that are known no better, as 1 - s is where s is close to
    1: where they are small beside that size, that is more than u of them.
    """
    j, off = _jacobian(ends, function, points)
    back = torch.linalg.inv_ex(j).inverse.abs().mT
    with torch.no_grad():
        told = (j.abs() @ size_of(points).double()[:, :, None])[:, :, 0]
        vague = (size_of(function(points)).double() / told).sum(1)
    shares = back * j.abs()
    rounding = ends.factor * (ends.granted * shares.sum((1, 2)) + SAFETY * ends.unit * vague)
    return Determinants(torch.linalg.slogdet(j).logabsdet, rounding + (back * off).sum((1, 2)))


def _jacobian(ends: Ends, function: Map, points: Tensor) -> tuple[Tensor, Tensor]:
    """J (n, d, d) with J_ij = d f_i / d p_j, and how far each entry may be off, by autograd or else by differences."""
    leaf = points.clone().requires_grad_()
    with torch.enable_grad():
        value = function(leaf)
        if value.requires_grad:
            rows = [
                torch.autograd.grad(value[:, i].sum(), leaf, retain_graph=True, allow_unused=True)[0]
                for i in range(value.shape[1])
            ]
            if any(row is not None for row in rows):
                j = torch.stack([torch.zeros_like(leaf) if row is None else row for row in rows], 1).detach().double()
                return j, torch.zeros_like(j)
    if ends.unit > FLOAT64:
        raise NotApplicable("the map keeps no graph, and its arithmetic is too coarse for differences")
    coarse, fine = (_slopes(function, points, step) for step in (SLOPE_STEP, SLOPE_STEP / 4))
    return fine, SAFETY * (coarse - fine).abs()


def _slopes(function: Map, points: Tensor, step: float) -> Tensor:
    """(n, d, d): central differences, one coordinate at a time."""
    size, columns = size_of(points), []
    with torch.no_grad():
        for j in range(points.shape[1]):
            h = torch.zeros_like(points)
            h[:, j] = step * size[:, j]
            ahead, behind = points + h, points - h
            columns.append((function(ahead) - function(behind)) / (ahead - behind)[:, j, None])
    return torch.stack(columns, 2).double()
