"""Where is the mass of a density of which nothing else is known?

A scan over points that are log-spaced around the origin (or the finite limits) is followed by an ascent from the best
local maxima. A step probes all distances 2^k at once along the axes, the last displacement, the gradient and Newton's
direction, and the vertices of the parabolas through the probes, so that the scale of the density need not be known.
Limits: a density that is 0 at all scanned points, or whose peak is not uphill from any of them, is 'not found'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from harness.numerics.box import Box, find_edge
from harness.numerics.integral import Evaluator, LogDensity

DROPS = (0.5, 2.0, 8.0, 30.0)
"""log-density below the peak at which knots are placed on either side of it."""

FARTHEST = 1e15
"""An ascent that passes this distance is given up."""


@dataclass(frozen=True)
class Located:
    """Peaks of a density: centres and scales, x = centre + scale @ z with z of size about 1.

    `knots` (one dimension only) are places to cut the line at. Without `found`, `message` says what went wrong.
    """

    found: bool
    centres: Float64[Tensor, "m d"]
    scales: Float64[Tensor, "m d d"]
    knots: Float64[Tensor, " knots"]
    points: int
    message: str = ""


def locate(
    log_density: LogDensity,
    d: int = 1,
    *,
    lower: float | Sequence[float] | Float[Tensor, " d"] = -math.inf,
    upper: float | Sequence[float] | Float[Tensor, " d"] = math.inf,
    start: Float[Tensor, "n d"] | None = None,
    peaks: int = 8,
) -> Located:
    """Find up to `peaks` local maxima of a density on a box of d <= 3 dimensions.

    On an axis with a finite end the density is that of the log-distance to it, or of the logit between two ends.
    `start` adds points to the scan.
    """
    evaluate = log_density if isinstance(log_density, Evaluator) else Evaluator(log_density)
    box = Box.of(lower, upper, d)
    if d == 1:
        box = _tightened(evaluate, box)
    log_q = box.density(evaluate)
    t = _scan(box, d, start)
    values = log_q(t)
    alive = values > -math.inf
    if not bool(alive.any()):
        return _lost(evaluate, d, "the density is 0 at every point of the scan")
    t = _starts(t, values, d, peaks)
    t, values = _ascend(log_q, t)
    inside = (box.x(t).abs() < FARTHEST).all(-1) & values.isfinite()
    if not bool(inside.any()):
        return _lost(evaluate, d, "the density still rises 1e15 away from the origin")
    scales, knots, bounded = _scales(log_q, t[inside], values[inside])
    if not bool(bounded.any()):
        return _lost(evaluate, d, "no peak falls off on both sides")
    t, values, scales, knots = t[inside][bounded], values[inside][bounded], scales[bounded], knots[bounded]
    kept = _distinct(t, values, scales)
    t, scales, knots = t[kept], scales[kept], knots[kept]
    places = box.x(knots.reshape(-1, 1)).reshape(-1).unique() if d == 1 else torch.empty(0, dtype=torch.float64)
    places = places[(places > box.lower.min()) & (places < box.upper.max())]
    return Located(True, box.x(t), _in_x(box, t, scales), places, evaluate.points)


def climb(log_density: LogDensity, start: Float[Tensor, "m d"], whole: LogDensity | None = None) -> Located:
    """The peaks uphill from each of the points, in free space of d dimensions; points without an end are left out.

    Where `log_density` is only a part of a density, and 0 elsewhere, their widths are those in the `whole` of it: the
    edge of a part is no fall of the density, and may be as near as one likes.
    """
    evaluate = log_density if isinstance(log_density, Evaluator) else Evaluator(log_density)
    box = Box.of(-math.inf, math.inf, start.shape[1])
    log_q = box.density(evaluate)
    t, values = _ascend(log_q, start.to(torch.float64))
    inside = (t.abs() < FARTHEST).all(-1) & values.isfinite()
    if not bool(inside.any()):
        return _lost(evaluate, start.shape[1], "the density still rises 1e15 away from the origin")
    around = log_q if whole is None else box.density(Evaluator(whole))
    scales, _, bounded = _scales(around, t[inside], values[inside])
    t, values, scales = t[inside][bounded], values[inside][bounded], scales[bounded]
    kept = _distinct(t, values, scales)
    return Located(bool(kept), t[kept], scales[kept], torch.empty(0, dtype=torch.float64), evaluate.points)


def knots_for(evaluate: Evaluator, lower: float, upper: float) -> tuple[Float64[Tensor, " knots"], bool]:
    """Knots of a one-dimensional density with unknown location and scale, and whether its mass was found."""
    found = locate(evaluate, 1, lower=lower, upper=upper)
    return found.knots, found.found


def _lost(evaluate: Evaluator, d: int, message: str) -> Located:
    none = torch.empty(0, d, dtype=torch.float64)
    return Located(False, none, torch.empty(0, d, d, dtype=torch.float64), none.reshape(-1), evaluate.points, message)


def _log_spaced(low: int, high: int, per_decade: int) -> Tensor:
    """0 and both signs of 10^low ... 10^high."""
    grid = 10 ** torch.linspace(low, high, (high - low) * per_decade + 1, dtype=torch.float64)
    return torch.cat([-grid.flip(0), torch.zeros(1, dtype=torch.float64), grid])


def _axis_scan(has_lower: bool, has_upper: bool, d: int) -> Tensor:
    """Values of t to look at on one axis: fine in one dimension, coarse in three."""
    count = {1: 481, 2: 49, 3: 19}[d]
    if has_lower and has_upper:
        middle = torch.linspace(0, 1, count + 2, dtype=torch.float64)[1:-1].logit()
        return torch.cat([middle, torch.linspace(-30, 30, count, dtype=torch.float64)]).unique()
    if has_lower or has_upper:
        return torch.linspace(-30, 30, count, dtype=torch.float64)
    return {1: _log_spaced(-9, 12, 8), 2: _log_spaced(-2, 9, 2), 3: _log_spaced(-1, 7, 1)}[d]


def _scan(box: Box, d: int, start: Tensor | None) -> Tensor:
    """The points of the scan (n, d), in t, on a grid."""
    axes = [_axis_scan(bool(a.isfinite()), bool(b.isfinite()), d) for a, b in zip(box.lower, box.upper, strict=True)]
    grid = torch.cartesian_prod(*axes).reshape(-1, d)
    if start is None:
        return grid
    return torch.cat([grid, box.t(start.to(torch.float64).reshape(-1, d))])


def _tightened(evaluate: Evaluator, box: Box) -> Box:
    """The interval without what lies outside the outermost living points of a scan, if it jumps to zero there."""
    x = box.x(_scan(box, 1, None)).sort(0).values
    log_p = evaluate(x)
    alive = (log_p > -math.inf).nonzero()[:, 0]
    if not len(alive):
        return box
    finite = log_p[log_p.isfinite()]
    peak = float(finite.max()) if len(finite) else 0.0
    ends = [float(box.lower), float(box.upper)]
    for side, inner, step in ((0, int(alive[0]), -1), (1, int(alive[-1]), 1)):
        if 0 <= inner + step < len(x):
            edge, value = find_edge(evaluate, float(x[inner]), float(x[inner + step]))
            if value > peak - 300:
                ends[side] = edge
    return Box.of(ends[0], ends[1], 1) if ends[0] < ends[1] else box


def _starts(t: Tensor, values: Tensor, d: int, peaks: int) -> Tensor:
    """The highest local maxima of the scan (one dimension), or its highest points, some of them far apart."""
    order = values.argsort(descending=True)
    if d == 1:
        t, place = t[:, 0].sort()
        v = values[place]
        padded = torch.cat([v[:1] * 0 - math.inf, v, v[:1] * 0 - math.inf]).nan_to_num(nan=-math.inf, neginf=-math.inf)
        rises = (v >= padded[:-2]) & (v >= padded[2:]) & (v > -math.inf)
        t, v = t[rises][:, None], v[rises]
        return t[v.argsort(descending=True)[:peaks]]
    chosen = [order[0]]
    reach = 1 + t.abs()
    for i in order[: 40 * peaks]:
        if values[i] == -math.inf or len(chosen) == peaks:
            break
        others = t[torch.stack(chosen)]
        if bool((((t[i] - others).abs() / (reach[i] + reach[torch.stack(chosen)])).amax(-1) > 0.3).all()):
            chosen.append(i)
    return t[torch.stack(chosen)]


def _probe(log_q: LogDensity, t: Tensor, values: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Best of all t + s 2^k u and of the parabolas' vertices; directions (m, j, d). Returns t, value, step length."""
    m, j, d = directions.shape
    steps = 2.0 ** torch.arange(-60.0, 50.0, 1.0, dtype=torch.float64)
    size = (1 + t.norm(dim=-1))[:, None, None]
    s = steps * size.expand(m, j, 1)  # (m, j, k)
    ray = s[..., None] * directions[:, :, None]
    both = torch.stack([-ray, ray], 3)  # (m, j, k, 2, d)
    near = log_q((t[:, None, None, None] + both).reshape(-1, d)).reshape(m, j, -1, 2)
    down, up = near[..., 0], near[..., 1]
    here = values[:, None, None]
    bend = down + up - 2 * here
    vertex = torch.where(bend < 0, (down - up) / (2 * bend), 0.0).nan_to_num(0.0, 0.0, 0.0).clamp(-100, 100)
    parabola = t[:, None, None] + vertex[..., None] * ray
    top = log_q(parabola.reshape(-1, d)).reshape(m, -1)
    all_t = torch.cat([(t[:, None, None, None] + both).reshape(m, -1, d), parabola.reshape(m, -1, d)], 1)
    all_v = torch.cat([near.reshape(m, -1), top], 1).nan_to_num(nan=-math.inf, posinf=-math.inf, neginf=-math.inf)
    best = all_v.argmax(1)
    rows = torch.arange(m)
    better = all_v[rows, best] > values
    moved = torch.where(better[:, None], all_t[rows, best], t)
    return moved, torch.where(better, all_v[rows, best], values), (moved - t).norm(dim=-1)


def _newton(log_q: LogDensity, t: Tensor, values: Tensor, step: Tensor) -> Tensor:
    """Directions (m, 1 + d, d): Newton's and the eigenvectors of the Hessian, by central differences."""
    gradient, hessian = (part.nan_to_num(0.0, 0.0, 0.0) for part in _differences(log_q, t, values, step))
    lam, vectors = torch.linalg.eigh(hessian)
    flat = lam.abs().clamp(min=1e-12 * float(lam.abs().max().clamp(min=1e-300)))
    newton = (vectors @ ((vectors.mT @ gradient[..., None]) / flat[..., None]))[..., 0]
    newton = newton / newton.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    return torch.cat([newton[:, None], vectors.mT], 1)


def _differences(log_q: LogDensity, t: Tensor, values: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (m, d) and Hessian (m, d, d) in units where each axis has its own step (m, d)."""
    m, d = t.shape
    shifts = torch.tensor(
        [[(k == i) * a + (k == j) * b for k in range(d)] for i in range(d) for j in range(d) for a, b in _SIGNS],
        dtype=torch.float64,
    )
    v = log_q((t[:, None] + shifts * step[:, None]).reshape(-1, d)).reshape(m, d, d, 4)
    usable = torch.where(v.isfinite(), v, values[:, None, None, None])
    mixed = (usable * torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)).sum(-1) / 4
    across = step[:, :, None] * step[:, None]
    diagonal = usable.diagonal(dim1=1, dim2=2)  # (m, 4, d): both shifts on one axis, so +-2 steps and 0
    slope = (diagonal[:, 0] - diagonal[:, 3]) / (4 * step)
    return slope, mixed / across


_SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def _ascend(log_q: LogDensity, t: Tensor, rounds: int = 60) -> tuple[Tensor, Tensor]:
    """Climb from each of the points t (m, d) until no probe is higher by 1e-9."""
    m, d = t.shape
    axes = torch.eye(d, dtype=torch.float64).expand(m, d, d)
    values = log_q(t)
    last = torch.zeros_like(t)
    step = torch.full((m,), 1.0, dtype=torch.float64)
    for _ in range(rounds):
        directions = axes
        if d > 1:
            span = step.clamp(min=1e-12)[:, None].expand(m, d) * 0.3
            moving = last / last.norm(dim=-1, keepdim=True).clamp(min=1e-300)
            directions = torch.cat([axes, moving[:, None], _newton(log_q, t, values, span)], 1)
        moved, higher, length = _probe(log_q, t, values, directions)
        gain = higher - values
        last, t, values = moved - t, moved, higher
        step = torch.where(length > 0, length, step / 4)
        if bool((gain <= 1e-9).all()):
            break
    return t, values


def _distinct(t: Tensor, values: Tensor, scales: Tensor) -> list[int]:
    """Indices of the peaks: one of each group within 0.1 scales, none that is lower than the best by 200."""
    order = values.argsort(descending=True)
    kept: list[int] = []
    for i in order.tolist():
        gaps = [float(torch.linalg.solve(scales[j], t[i] - t[j]).norm()) for j in kept]
        if values[i] > values[order[0]] - 200 and all(g > 0.1 for g in gaps):
            kept.append(i)
    return kept


def _falls(log_q: LogDensity, t: Tensor, values: Tensor, directions: Tensor) -> Tensor:
    """Distances (m, j, 2, len(DROPS)) at which the density has fallen by each of DROPS; inf where it never does."""
    m, j, d = directions.shape
    steps = 2.0 ** torch.arange(-70.0, 60.0, 0.5, dtype=torch.float64)
    s = steps * (1 + t.norm(dim=-1))[:, None]  # (m, k)
    ray = s[:, None, :, None] * directions[:, :, None]
    both = torch.stack([-ray, ray], 2)  # (m, j, 2, k, d)
    v = log_q((t[:, None, None, None] + both).reshape(-1, d)).reshape(m, j, 2, -1)
    fallen = values[:, None, None, None] - v
    out = []
    for drop in DROPS:
        below = fallen >= drop
        first = below.to(torch.int8).argmax(-1)
        distance = s[:, None, None].expand(m, j, 2, -1).gather(-1, first[..., None])[..., 0]
        out.append(torch.where(below.any(-1), distance, math.inf))
    return torch.stack(out, -1)


def _scales(log_q: LogDensity, t: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Factors (m, d, d) of the widths of the peaks, knots (m, .) in one dimension, and which peaks fall off."""
    m, d = t.shape
    axes = torch.eye(d, dtype=torch.float64).expand(m, d, d)
    falls = _falls(log_q, t, values, axes)
    bounded = falls[..., 0].isfinite().all(-1).all(-1)
    width = falls[..., 0].mean(-1)  # (m, d)
    if d == 1:
        reach = torch.where(falls.isfinite(), falls, falls[..., :1])
        knots = torch.cat([t - reach[:, 0, 0], t, t + reach[:, 0, 1]], 1)
        return width[:, :, None], knots, bounded
    safe = torch.where(width.isfinite(), width, 1.0)
    _, hessian = _differences(log_q, t, values, 0.25 * safe)
    lam, vectors = torch.linalg.eigh(-hessian * safe[:, :, None] * safe[:, None])
    good = lam.clamp(min=1e-3)
    directions = vectors.mT * safe[:, None]
    along = _falls(log_q, t, values, directions)[..., 0].mean(-1)
    size = torch.where(along.isfinite() & (along > 0), along, good**-0.5)
    return directions.mT * size[:, None], t, bounded


def _in_x(box: Box, t: Tensor, scales: Tensor) -> Tensor:
    """Scales of t as scales of x: times dx/dt."""
    speed = torch.stack([Box(box.lower[i : i + 1], box.upper[i : i + 1]).log_jacobian(t[:, i : i + 1]).exp()
                         for i in range(t.shape[1])], -1)  # fmt: skip
    return speed[:, :, None] * scales
