r"""Panels of the line: the Gauss-Kronrod pair on each, the errors of its sums, and adaptive refinement.

Every panel is integrated by 21 points, and all panels of a round in one call of the log-density. Error of a panel, as
in QUADPACK but never below the plain difference (Piessens et al. 1983, QUADPACK, section 2.2.1,
https://doi.org/10.1007/978-3-642-61786-7):

    max(|K - G|, A min(1, (200 |K - G| / A)^(3/2))),      A = int |f p - mean|

or A where the 11 points without Gauss's tell a different story. The rounding of log p and of x is added, and so is what
could hide behind a jump between an edge and the first point inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.numerics.integral import Evaluator, unit_roundoff
from harness.numerics.kronrod import GAUSS_SHARE, KRONROD, LOG_KRONROD, NODES, OTHER_SHARE
from harness.numerics.segments import END, LINE, TAIL, Segment

PIECES = 4
"""A panel that is not accurate enough is cut into so many."""


@dataclass(frozen=True)
class _Segments:
    """Segments as columns, for indexing by panel."""

    kind: Tensor
    anchor: Tensor
    sign: Tensor
    scale: Tensor

    @staticmethod
    def of(segments: Sequence[Segment]) -> _Segments:
        rows = torch.tensor([[s.kind, s.anchor, s.sign, s.scale] for s in segments], dtype=torch.float64)
        return _Segments(rows[:, 0].long(), rows[:, 1], rows[:, 2], rows[:, 3])

    def points(self, segment: Tensor, v: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points rounded to the dtype, log dx/dv, how far v lies beyond the rounded point's, rounding of x in v."""
        kind, anchor, sign, scale = (a[segment][:, None] for a in (self.kind, self.anchor, self.sign, self.scale))
        speed = torch.exp(scale.log() + torch.where(kind == END, -v, torch.where(kind == TAIL, v, 0.0)))
        d = torch.where(kind == LINE, v, torch.where(kind == END, speed, scale * torch.expm1(v)))
        x = anchor + sign * d
        if dtype != torch.float64:
            x = x.to(dtype).to(torch.float64)
        rounded = sign * (x - anchor)
        ahead = (d - rounded) / speed
        ulp = unit_roundoff(dtype) * x.abs() / speed
        return x, speed.log(), torch.where(kind == END, -ahead, ahead), ulp


@dataclass(frozen=True)
class Panels:
    """Panels as columns: place, integrals (n, k) relative to exp(shift), their sizes, errors and rounding errors."""

    segment: Tensor
    cell: Tensor
    low: Tensor
    high: Tensor
    value: Tensor
    size: Tensor
    error: Tensor
    noise: Tensor
    stall: Tensor
    final: Tensor

    def take(self, index: Tensor) -> Panels:
        return Panels(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def join(self, other: Panels) -> Panels:
        columns = (torch.cat([getattr(self, name), getattr(other, name)]) for name in self.__dataclass_fields__)
        return Panels(*columns)

    def scaled(self, factor: float) -> Panels:
        return replace(
            self,
            value=self.value * factor,
            size=self.size * factor,
            error=torch.where(self.error == math.inf, math.inf, self.error * factor),
            noise=self.noise * factor,
        )


class Rule:
    """Evaluates panels; keeps the largest log-contribution seen as the shift against underflow."""

    def __init__(self, evaluate: Evaluator, segments: Sequence[Segment], dtype: torch.dtype, noise: float):
        self.evaluate, self.dtype, self.noise = evaluate, dtype, noise
        self.segments = _Segments.of(segments)
        self.roundoff = unit_roundoff(dtype)
        self.shift = -math.inf
        self.undefined = 0

    def __call__(self, segment: Tensor, cell: Tensor, low: Tensor, high: Tensor, stall: Tensor) -> tuple[Panels, float]:
        """The panels' integrals, and the factor by which earlier ones must be multiplied."""
        half = (high - low) / 2
        v = (low + half)[:, None] + half[:, None] * NODES  # (p, 23)
        x, log_speed, ahead, ulp = self.segments.points(segment, v, self.dtype)
        log_p = self.evaluate(x.reshape(-1, 1)).reshape(v.shape)
        undefined, infinite = log_p.isnan(), log_p == math.inf
        usable = torch.where(undefined | infinite, -math.inf, log_p)
        step, doubt = _back_to_node(usable, v, ahead, ulp)
        log_c = usable + step + log_speed + (half.log()[:, None] + LOG_KRONROD)
        top = float(log_c.max())
        factor = math.exp(self.shift - top) if top > self.shift > -math.inf else 1.0
        self.shift = max(self.shift, top)
        shift = self.shift if self.shift > -math.inf else 0.0
        c = (log_c - shift).exp()
        f = self.evaluate.weights(x.reshape(-1, 1), usable.reshape(-1)).reshape(*v.shape, -1)
        terms = c[..., None] * torch.where((c > 0)[..., None], f, 0.0)  # (p, 23, k)
        value, size = terms.sum(1), terms.abs().sum(1)
        difference = (value - (terms * GAUSS_SHARE[:, None]).sum(1)).abs()
        spread = (terms - value[:, None] * (KRONROD / 2)[:, None]).abs().sum(1)
        other = (value - (terms * OTHER_SHARE[:, None]).sum(1)).abs()
        error = _quadpack_error(difference, other, spread)
        error = torch.maximum(error, _edge_error(usable + log_speed, v, shift)[:, None])
        relative = self.noise * (1 + torch.where(c > 0, usable.abs(), 0.0)) + doubt
        noise = (terms.abs() * relative[..., None]).sum(1) + 2e-16 * size
        final = (x[:, -1] - x[:, 0]).abs() <= 32 * self.roundoff * torch.maximum(x[:, -1].abs(), x[:, 0].abs())
        final |= half < torch.where(self.segments.kind[segment] == LINE, 1e-300, 1e-13 * (1 + high.abs()))
        unknown = infinite[:, 1:-1].any(1) & ~(final & (usable[:, 1:-1] > -math.inf).any(1))
        bad = undefined.any(1) | unknown | ~torch.isfinite(size).all(1)
        error = torch.where((infinite.any(1) | final)[:, None], torch.maximum(error, 20 * size), error)
        error = torch.where(bad[:, None], math.inf, error)
        value, size = torch.nan_to_num(value, 0.0, 0.0, 0.0), torch.nan_to_num(size, 0.0, 0.0, 0.0)
        noise = torch.nan_to_num(noise, 0.0, 0.0, 0.0)
        return Panels(segment, cell, low, high, value, size, error, noise, stall, final), factor


def _back_to_node(log_p: Tensor, v: Tensor, ahead: Tensor, ulp: Tensor) -> tuple[Tensor, Tensor]:
    """Change of log p from a rounded point to the node it stands for, to first order, and what that leaves open.

    The slope is the smaller of the two one-sided slopes in v where they agree in sign, else 0. Open are their distance
    and a rounding of x inside the model (backward error): |d log p / dx| u |x|.
    """
    slope = (log_p[:, 1:] - log_p[:, :-1]) / (v[:, 1:] - v[:, :-1])
    slope = torch.nan_to_num(slope, 0.0, 0.0, 0.0)
    left = torch.cat([slope[:, :1], slope], 1)
    right = torch.cat([slope, slope[:, -1:]], 1)
    smaller = torch.where(left.abs() < right.abs(), left, right)
    step = torch.where(left * right > 0, smaller, 0.0) * ahead
    doubt = (left - right).abs() * ahead.abs() + smaller.abs() * ulp
    return step.nan_to_num(0.0).clamp(-1, 1), doubt.nan_to_num(1.0).clamp(max=1)


def _quadpack_error(difference: Tensor, other: Tensor, spread: Tensor) -> Tensor:
    """max(|K - G|, A min(1, (200 |K - G| / A)^1.5)), or A where a rule on the points that G lacks differs by A / 100.

    The second opinion is for jumps, at which K and G may agree by chance.
    """
    ratio = 200 * difference / spread.clamp(min=1e-300)
    estimate = torch.maximum(difference, spread * ratio.clamp(max=1) ** 1.5)
    return torch.where(other > 0.01 * spread, torch.maximum(estimate, spread), estimate)


def _edge_error(log_q: Tensor, v: Tensor, shift: float) -> Tensor:
    """How much could hide between an edge and the first point inside.

    That is their gap times the distance of the edge's value to the line through the first two points, where this
    exceeds 1/100 of the range inside: on a panel that is resolved the curve departs by some thousandths only.
    """
    q = torch.where(log_q < math.inf, log_q - shift, -math.inf).clamp(max=600).exp()
    inside = q[:, 1:-1]
    allowed = 0.01 * (inside.amax(1) - inside.amin(1)) + 1e-6 * inside.amax(1)
    total = torch.zeros_like(allowed)
    for edge, first, second in ((0, 1, 2), (-1, -2, -3)):
        away = (v[:, edge] - v[:, first]) / (v[:, first] - v[:, second])
        jump = (q[:, edge] - q[:, first] - away * (q[:, first] - q[:, second])).abs()
        total += torch.where(jump > allowed, jump * (v[:, edge] - v[:, first]).abs(), 0.0)
    return total


def _split(panels: Panels, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cut the chosen panels into equal pieces: segments, cells, lower and upper edges, stall counts."""
    parent = panels.take(chosen)
    cuts = torch.linspace(0, 1, PIECES + 1, dtype=torch.float64)
    edges = parent.low[:, None] + (parent.high - parent.low)[:, None] * cuts
    edges[:, -1] = parent.high
    segment, cell, stall = (c.repeat_interleave(PIECES) for c in (parent.segment, parent.cell, parent.stall))
    return segment, cell, edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1), stall


def _count_stalls(parent: Panels, children: Panels, factor: float) -> Panels:
    """Count, from parent to child, cuts of a resolved panel that did not help: what is left there is noise."""
    before = parent.error * factor
    after = children.error.reshape(len(before), PIECES, -1).sum(1)
    small = parent.error <= 1e-3 * parent.size
    stalled = ((after > 0.5 * before) & small | (before == 0)).all(1)
    count = torch.where(stalled, parent.stall + 1, 0).repeat_interleave(PIECES)
    return replace(children, stall=count)


def adapt(rule: Rule, segments: Sequence[Segment], rtol: float, max_points: int) -> tuple[Panels, bool]:
    """Refine, a batch of panels a round, until the errors add up to rtol of the sizes, or to the rounding error."""
    meshes = [s.mesh() for s in segments]
    segment = torch.cat([torch.full_like(cell, i) for i, (_, cell) in enumerate(meshes)])
    low, high = torch.cat([m[:-1] for m, _ in meshes]), torch.cat([m[1:] for m, _ in meshes])
    cell = torch.cat([cell for _, cell in meshes])
    panels, _ = rule(segment, cell, low, high, torch.zeros(len(low), dtype=torch.long))
    while True:
        allowed = rtol * panels.size.sum(0) + panels.noise.sum(0)
        if bool((panels.error.sum(0) <= allowed).all()):
            return panels, True
        worth = (panels.error > torch.maximum(allowed / (2 * len(panels.low)), panels.noise)).any(1)
        chosen = worth & ~panels.final & (panels.stall < 2)
        index = chosen.nonzero()[:, 0]
        if not len(index) or rule.evaluate.points + len(index) * PIECES * len(NODES) > max_points:
            floor = (panels.stall >= 2)[:, None] | (panels.error <= panels.noise)
            left = torch.where(floor, 0.0, panels.error).sum(0)
            return panels, not len(index) and bool((left <= allowed).all())
        children, factor = rule(*_split(panels, index))
        if factor != 1.0:
            panels = panels.scaled(factor)
        parent = panels.take(index)
        panels = panels.take((~chosen).nonzero()[:, 0]).join(_count_stalls(parent, children, 1.0))
