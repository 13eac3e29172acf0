r"""Adaptive quadrature of black-box densities on the line.

The line is cut at `knots` (draws' quantiles, or what `locate` found). Between knots the integrand is taken as it is;
the two end segments are stretched, so that power laws become exponentials and are resolved by a few panels:

    towards a finite end a:    x = a + w exp(-v),        dx = (x - a) dv,      int p dx = int exp(log p + log|x - a|) dv
    towards infinity from k:   x = k + s (exp(v) - 1),   dx = (x - k + s) dv

A density like |x - a|^(alpha-1), or x^(-1-alpha), turns into exp(-alpha v), and v runs until the arithmetic ends
(|x| = 1e140, |x| = 1e-290, or 2^10 units in the last place of a). What lies beyond is extrapolated from the local rate
alpha, which must be stable over the outer half of the range; otherwise the error is infinite. Every panel is
integrated by the Gauss-Kronrod pair of 10 and 21 points, and all panels of a round in one call of the log-density.
Error of a panel, as in QUADPACK but never below the plain difference (Piessens et al. 1983, QUADPACK, section 2.2.1,
https://doi.org/10.1007/978-3-642-61786-7):

    max(|K - G|, A min(1, (200 |K - G| / A)^(3/2))),      A = int |f p - mean|

or A where the 11 points without Gauss's tell a different story. The rounding of log p and of x is added, and so is what
could hide behind a jump between an edge and the first point inside.
No rule can see a peak that lies between all its points: bring knots to every mode.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int, Num
from torch import Tensor

from harness.numerics.box import find_edge
from harness.numerics.integral import Evaluator, Function, Integral, LogDensity, unit_roundoff
from harness.numerics.location import knots_for

PIECES = 4
"""A panel that is not accurate enough is cut into so many."""

LINE, END, TAIL = 0, 1, 2
"""How a segment maps v to x: unchanged, towards a finite end, towards infinity."""

VISIBLE = 300.0
"""A support's edge counts only where log p just inside is within this of its largest value."""

NEGLIGIBLE, FAR = 36.0, 1e6
"""Nor does an edge that is so many knot distances away, with less than exp(-36) of the mass near it: an overflow's."""


ROUNDING_SAFETY = 4
"""The noise of a panel is a first-order estimate; narrow peaks far from 0 were seen to exceed it twofold."""


def _kronrod() -> tuple[Tensor, Tensor, Tensor]:
    """Nodes on [-1, 1] with both ends added, weights of Kronrod's 21 and of Gauss's 10 points (0 elsewhere).

    Source: QUADPACK dqk21 (https://netlib.org/quadpack/dqk21.f).
    """
    x = [
        0.995657163025808080735527280689003, 0.973906528517171720077964012084452, 0.930157491355708226001207180059508,
        0.865063366688984510732096688423493, 0.780817726586416897063717578345042, 0.679409568299024406234327365114874,
        0.562757134668604683339000099272694, 0.433395394129247190799265943165784, 0.294392862701460198131126603103866,
        0.148874338981631210884826001129720, 0.0,
    ]  # fmt: skip
    kronrod = [
        0.011694638867371874278064396062192, 0.032558162307964727478818972459390, 0.054755896574351996031381300244580,
        0.075039674810919952767043140916190, 0.093125454583697605535065465083366, 0.109387158802297641899210590325805,
        0.123491976262065851077958109585166, 0.134709217311473325928054001771707, 0.142775938577060080797094273138717,
        0.147739104901338491374841515972068, 0.149445554002916905664936468389821,
    ]  # fmt: skip
    gauss = [
        0.066671344308688137593568809893332, 0.149451349150580593145863397657697, 0.219086362515982043995534934228163,
        0.269266719309996355091226921569469, 0.295524224714752870173815619188769,
    ]  # fmt: skip
    half = [0.0] * 11
    half[1::2] = gauss

    def mirror(values: list[float], sign: float, end: float) -> list[float]:
        return [sign * end, *(sign * v for v in values), *values[-2::-1], end]

    columns = mirror(x, -1.0, 1.0), mirror(kronrod, 1.0, 0.0), mirror(half, 1.0, 0.0)
    nodes, wk, wg = (torch.tensor(c, dtype=torch.float64) for c in columns)
    return nodes, wk, wg


NODES, KRONROD, GAUSS = _kronrod()
LOG_KRONROD = KRONROD.log()


def _others() -> Tensor:
    """Weights of the interpolatory rule on the 11 Kronrod points that are not Gauss points (0 elsewhere)."""
    chosen = ((KRONROD > 0) & (GAUSS == 0)).nonzero()[:, 0]
    degrees = np.polynomial.legendre.legvander(NODES[chosen].numpy(), len(chosen) - 1).T
    weights = np.linalg.solve(degrees, 2.0 * (np.arange(len(chosen)) == 0))
    return torch.zeros_like(NODES).index_put((chosen,), torch.from_numpy(weights))


OTHER_SHARE = torch.where(KRONROD > 0, _others() / KRONROD.clamp(min=1e-300), 0.0)
GAUSS_SHARE = torch.where(KRONROD > 0, GAUSS / KRONROD.clamp(min=1e-300), 0.0)


@dataclass(frozen=True)
class Segment:
    """A stretch of the line, x = anchor + sign * d(v) for 0 <= v <= length (see LINE, END, TAIL).

    It covers the cell `cell` up to the first of the `cuts` (in v), then `cell + step`, and so on. `fuzz` is how far a
    finite end, where it had to be found, may be off; `origin` is the v from which on the end is near.
    """

    kind: int
    anchor: float
    sign: float
    scale: float
    length: float
    cell: int = 0
    step: int = 0
    cuts: tuple[float, ...] = ()
    fuzz: float = 0.0
    origin: float = 0.0

    def x(self, v: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """The points at v."""
        far = self.scale * torch.expm1(v) if self.kind == TAIL else torch.exp(math.log(self.scale) - v)
        d = v if self.kind == LINE else far
        return self.anchor + self.sign * d

    def v(self, x: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """The v of given points."""
        d = self.sign * (x - self.anchor)
        return d if self.kind == LINE else -(d / self.scale).log() if self.kind == END else torch.log1p(d / self.scale)

    def log_speed(self, x: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """log |dx/dv| at given points of an end segment."""
        d = self.sign * (x - self.anchor)
        return d.log() if self.kind == END else (d + self.scale).log()

    def mesh(self) -> tuple[Float64[Tensor, " edges"], Int[Tensor, " edges-1"]]:
        """First cut of 0 ... length, at `cuts` and doubling towards an end or infinity: edges, and cells between."""
        steps = [0.0, self.length]
        grow = 0.5
        while self.kind != LINE and grow < 0.9 * self.length:
            steps.append(grow)
            grow *= 2
        cuts = [c for c in self.cuts if 0 < c < self.length]
        edges = torch.tensor(sorted({*steps, *cuts}), dtype=torch.float64)
        passed = torch.searchsorted(torch.tensor(cuts, dtype=torch.float64), edges[:-1], right=True)
        return edges, self.cell + self.step * passed


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
class _Panels:
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

    def take(self, index: Tensor) -> _Panels:
        return _Panels(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def join(self, other: _Panels) -> _Panels:
        columns = (torch.cat([getattr(self, name), getattr(other, name)]) for name in self.__dataclass_fields__)
        return _Panels(*columns)

    def scaled(self, factor: float) -> _Panels:
        return replace(
            self,
            value=self.value * factor,
            size=self.size * factor,
            error=torch.where(self.error == math.inf, math.inf, self.error * factor),
            noise=self.noise * factor,
        )


class _Rule:
    """Evaluates panels; keeps the largest log-contribution seen as the shift against underflow."""

    def __init__(self, evaluate: Evaluator, segments: Sequence[Segment], dtype: torch.dtype, noise: float):
        self.evaluate, self.dtype, self.noise = evaluate, dtype, noise
        self.segments = _Segments.of(segments)
        self.roundoff = unit_roundoff(dtype)
        self.shift = -math.inf
        self.undefined = 0

    def __call__(
        self, segment: Tensor, cell: Tensor, low: Tensor, high: Tensor, stall: Tensor
    ) -> tuple[_Panels, float]:
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
        return _Panels(segment, cell, low, high, value, size, error, noise, stall, final), factor


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


def _split(panels: _Panels, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cut the chosen panels into equal pieces: segments, cells, lower and upper edges, stall counts."""
    parent = panels.take(chosen)
    cuts = torch.linspace(0, 1, PIECES + 1, dtype=torch.float64)
    edges = parent.low[:, None] + (parent.high - parent.low)[:, None] * cuts
    edges[:, -1] = parent.high
    segment, cell, stall = (c.repeat_interleave(PIECES) for c in (parent.segment, parent.cell, parent.stall))
    return segment, cell, edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1), stall


def _count_stalls(parent: _Panels, children: _Panels, factor: float) -> _Panels:
    """Count, from parent to child, cuts of a resolved panel that did not help: what is left there is noise."""
    before = parent.error * factor
    after = children.error.reshape(len(before), PIECES, -1).sum(1)
    small = parent.error <= 1e-3 * parent.size
    stalled = ((after > 0.5 * before) & small | (before == 0)).all(1)
    count = torch.where(stalled, parent.stall + 1, 0).repeat_interleave(PIECES)
    return replace(children, stall=count)


def _adapt(rule: _Rule, segments: Sequence[Segment], rtol: float, max_points: int) -> tuple[_Panels, bool]:
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


def _limit(evaluate: Evaluator, outer: float, limit: float, sign: float, width: float, dtype: torch.dtype,
           peak: float) -> float:  # fmt: skip
    """The limit of the support beyond the outermost knot: where the density drops to 0, but not gradually."""
    segment = _towards(outer, limit, sign, width, dtype)
    x = segment.x(segment.length * torch.linspace(0, 1, 49, dtype=torch.float64) ** 2).to(dtype).to(torch.float64)
    log_p = evaluate(x[:, None])
    zero = (log_p == -math.inf).nonzero()[:, 0]
    inside = int(zero[0]) if len(zero) else 0
    if inside == 0 or bool((log_p[inside:] > -math.inf).any()):
        return limit
    edge, value = find_edge(evaluate, float(x[inside - 1]), float(x[inside]), dtype)
    away = sign * (edge - outer)
    if not away > 0:
        return limit
    overflow = value + math.log(away / width) < peak - NEGLIGIBLE and away > FAR * width  # the arithmetic's edge
    return limit if value < peak - VISIBLE or overflow else edge


def _anchor(outward: list[float], limit: float, roundoff: float) -> int:
    """From which of the knots, given from the inside outward, the stretched end should start.

    Knots whose distances to a finite limit shrink threefold from one to the next, or whose gaps grow fourfold towards
    infinity, are better served by the stretched coordinate than by straight lines.
    """
    i = len(outward) - 1
    if math.isfinite(limit):
        away = [abs(limit - x) for x in outward]
        while i > 0 and (away[i - 1] > 3 * away[i] or away[i] < 1e9 * roundoff * abs(limit)):
            i -= 1
        return i
    gaps = [0.0, *(abs(b - a) for a, b in itertools.pairwise(outward))]
    while i > 1 and gaps[i] > 4 * gaps[i - 1]:
        i -= 1
    return i


def _end_segment(
    evaluate: Evaluator, outward: list[float], limit: float, sign: float, width: float, dtype: torch.dtype
) -> tuple[Segment, int]:
    """The stretched segment over the outer knots, ended where the density stops giving numbers; index of its anchor."""
    i = _anchor(outward, limit, unit_roundoff(dtype))
    gap = abs(outward[i] - outward[i - 1]) if i > 0 else width
    segment = _towards(outward[i], limit, sign, gap, dtype)
    if segment.kind == END:
        typical = sorted(abs(limit - x) for x in outward)[len(outward) // 2]
        length = max(math.log(segment.scale) - math.log(_nearest(limit, typical, dtype)), 0.7)
        segment = replace(segment, length=length, origin=min(math.log(segment.scale / typical), length / 2))
    v = segment.length * torch.linspace(0, 1, 49, dtype=torch.float64) ** 2
    log_p = evaluate(segment.x(v).to(dtype).to(torch.float64)[:, None])
    broken = (log_p.isnan() | (log_p == math.inf)).nonzero()[:, 0]
    if len(broken) and int(broken[0]) > 0:
        segment = replace(segment, length=float(v[max(int(broken[0]) - 1, 1)]))
    cuts = segment.v(torch.tensor(outward[i + 1 :], dtype=torch.float64)).tolist()
    return replace(segment, cuts=tuple(cuts)), i


def _nearest(limit: float, gap: float, dtype: torch.dtype) -> float:
    """How close to go to a finite limit: halfway, in the logarithm, from the gap to the rounding of points there."""
    least = 1e-290 if dtype == torch.float64 else 1e-35
    rounding = unit_roundoff(dtype) * abs(limit)
    return max(least, 2048 * rounding, math.sqrt(min(gap, abs(limit)) * rounding))


def _towards(outer: float, limit: float, sign: float, width: float, dtype: torch.dtype) -> Segment:
    """The end segment from a knot to a finite or an infinite limit, as long as the dtype can tell its points apart."""
    double = dtype == torch.float64
    if math.isinf(limit):
        reach = (1e140 if double else 1e18) * min(1.0, width)
        return Segment(TAIL, outer, sign, width, math.log(max(reach / width, abs(outer) / width * 1e3)))
    gap = abs(limit - outer)
    return Segment(END, limit, -sign, gap, max(math.log(gap) - math.log(_nearest(limit, gap, dtype)), 0.7))


def _beyond(
    evaluate: Evaluator, segment: Segment, shift: float, dtype: torch.dtype, sizes: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Integrals beyond the end V of a segment, where |f p dx/dv| = g(v) ~ C v^c exp(-alpha v), and how uncertain.

    alpha and c are fitted through three points twice, over a wide and over a narrow outer part of the segment; the
    uncertainty is four times the difference of the two integrals, plus that to a plain exponential. At a finite end a
    function that is linear in v, as log p is there, is kept apart from the density. A rate alpha V below 1/50, or fits
    that differ by more than half, give infinity: the integral may diverge.
    """
    places = [1.0, 0.83, 0.66, 0.915] if segment.kind == END and segment.anchor != 0 else [1.0, 0.75, 0.5, 0.875]
    near = segment.length - segment.origin
    x = segment.x(segment.origin + near * torch.tensor(places, dtype=torch.float64)).to(dtype).to(torch.float64)
    v = segment.v(x) - segment.origin
    log_p = evaluate(x[:, None])
    log_p = torch.where(log_p.isnan(), math.inf, log_p)
    f = evaluate.weights(x[:, None], log_p)
    log_g = f.abs().log() + (log_p + segment.log_speed(x) - shift)[:, None]  # (4, k)
    log_g = torch.nan_to_num(log_g, nan=math.inf, posinf=math.inf, neginf=-math.inf)
    negligible = log_g[0] + math.log(segment.length + 1) < sizes.clamp(min=1e-300).log() - 60
    u, size = v / v[0], log_g[0].clamp(max=600).exp() * f[0].sign() * v[0]
    fits = [_fitted_tail(u[p], log_g[p], f[p]) for p in ([0, 1, 2], [0, 3, 1], [0, 3, 3])]
    bend = (f[0] - f[1] - (f[1] - f[2]) * (u[0] - u[1]) / (u[1] - u[2])).abs()
    linear = (bend <= 0.05 * (f[0] - f[1]).abs() + 1e-3 * f[0].abs()) & (segment.kind == END)
    wide, narrow, plain = (torch.where(linear, along, own) for own, along in fits)
    size = size * torch.exp((v[0] - near) / (plain.nan_to_num(1.0).abs() * v[0]))  # from the rounded point to V itself
    known = ((wide / narrow - 1).abs() < 0.5) & wide.isfinite()
    rate = 1 / (plain[:1].nan_to_num(1.0).abs() * v[0])
    fuzz = 2 * (segment.fuzz / abs(float(x[0]) - segment.anchor)) ** rate if segment.fuzz else 0.0
    spread = 4 * (wide - narrow).abs() + (wide - plain).abs() + (1e-14 + fuzz) * wide.abs()
    error = torch.where(known, size.abs() * spread, math.inf).nan_to_num(nan=math.inf, posinf=math.inf)
    rest = torch.where(known & ~negligible, size * wide, 0.0).nan_to_num()
    return rest, torch.where(negligible, 0.0, error)


def _fitted_tail(u: Tensor, log_g: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Integrals over u > 1 relative to g(1), g fitted as u^c exp(-b (u - 1)) at three points (two equal: c = 0).

    First with b and c for each column of g; then for the first column's b and c, times f linear in u. NaN if b <= 1/50.
    """
    rise, run, turn = log_g[1:] - log_g[0], (u[1:] - u[0])[:, None], (u[1:].log() - u[0].log())[:, None]
    if u[1] == u[2]:
        b, c = -rise[0] / run[0], torch.zeros_like(rise[0])
    else:
        determinant = run[0] * turn[1] - run[1] * turn[0]
        b = -(rise[0] * turn[1] - rise[1] * turn[0]) / determinant
        c = (run[0] * rise[1] - run[1] * rise[0]) / determinant
    s = torch.linspace(-36, 4, 321, dtype=torch.float64).exp()[:, None] / b.abs().clamp(min=1e-9)
    density = s * torch.exp(c * torch.log1p(s) - b * s) * 0.125  # trapezoid in log s, exact to 1e-15
    own = torch.where(b > 0.02, density.sum(0), math.nan)
    slope = (f[0] - f[1]) / (u[0] - u[1]) / torch.where(f[0] == 0, 1.0, f[0])
    linear = density[:, :1].sum(0) + slope * (density[:, :1] * s[:, :1]).sum(0)
    return own, torch.where(b[:1] > 0.02, linear, math.nan)


def _segments(
    evaluate: Evaluator, knots: Tensor, log_p: Tensor, lower: float, upper: float, dtype: torch.dtype
) -> list[Segment]:
    """Segments that cover the support: lines between knots and, as the last two, the stretched ends."""
    limits = (lower, upper)
    finite = log_p[log_p.isfinite()]
    peak = float(finite.max()) if len(finite) else -math.inf
    k = knots.tolist()
    n = len(k)
    size = max(abs(k[0]), abs(k[-1]), max((abs(e) for e in (lower, upper) if math.isfinite(e)), default=0.0))
    widths = (k[1] - k[0], k[-1] - k[-2]) if n > 1 else (size or 1.0, size or 1.0)
    if log_p[0] > -math.inf:
        lower = _limit(evaluate, k[0], lower, -1.0, widths[0], dtype, peak)
    if log_p[-1] > -math.inf:
        upper = _limit(evaluate, k[-1], upper, 1.0, widths[1], dtype, peak)
    reach = n if math.isfinite(lower) else 1 if math.isfinite(upper) else n // 2 + 1
    left, inner = _end_segment(evaluate, k[:reach][::-1], lower, -1.0, widths[0], dtype)
    first = reach - 1 - inner
    right, inner = _end_segment(evaluate, k[first:], upper, 1.0, widths[1], dtype)
    last = first + inner
    found = ((lower, limits[0]), (upper, limits[1]))
    ulps = [0.0 if now == given else 4 * unit_roundoff(dtype) * abs(now) for now, given in found]
    left = replace(left, cell=first, step=-1, fuzz=ulps[0])
    right = replace(right, cell=last + 1, step=1, fuzz=ulps[1])
    return [*(Segment(LINE, k[i], 1.0, 1.0, k[i + 1] - k[i], i + 1) for i in range(first, last)), left, right]


def _clean_knots(
    knots: Tensor | np.ndarray | Sequence[float], lower: float, upper: float, dtype: torch.dtype
) -> Tensor:
    """Finite knots strictly between the limits, sorted, rounded to the dtype, without repetitions."""
    k = torch.as_tensor(knots, dtype=torch.float64).detach().cpu().reshape(-1).to(dtype).to(torch.float64)
    return torch.from_numpy(np.unique(k[k.isfinite() & (k > lower) & (k < upper)].numpy()))


def integrate(
    log_density: LogDensity,
    functions: Sequence[Function] = (),
    *,
    lower: float = -math.inf,
    upper: float = math.inf,
    knots: Num[Tensor | np.ndarray, "*knots"] | Sequence[float] | None = None,
    rtol: float = 1e-10,
    max_points: int = 400_000,
    dtype: torch.dtype = torch.float64,
    noise: float | None = None,
) -> Integral:
    """Integrals of p and of f p over (lower, upper), as a whole and for every cell between knots.

    `knots` should reach every mode (about 10 quantiles of draws do); without them `locate` looks for the mass.
    `dtype` is the precision in which the density computes: points are rounded to it, and the reach of the tails and
    `noise`, |error of log p| <= noise (1 + |log p|), follow from it (default: 8 units of roundoff). `rtol` is relative
    to the integral of |f| p. Points cost: about 500 for a smooth density, 3000 for jumps or singular ends.
    """
    evaluate = Evaluator(log_density, functions)
    if knots is None:
        knots, found = knots_for(evaluate, lower, upper)
        if not found:
            return _nothing(evaluate, "the mass was not found: give knots")
    places = _clean_knots(knots, lower, upper, dtype)
    if not len(places):
        return _nothing(evaluate, "no knot lies between the limits")
    log_p = evaluate(places[:, None])
    if bool((log_p == math.inf).any()):
        return _nothing(evaluate, "the density is infinite at a knot: make it a limit, or integrate on either side")
    noise = 8 * unit_roundoff(dtype) if noise is None else noise
    segments = _segments(evaluate, places, log_p, lower, upper, dtype)
    rule = _Rule(evaluate, segments, dtype, noise)
    panels, converged = _adapt(rule, segments, rtol, max_points)
    if rule.shift == -math.inf:
        return _nothing(evaluate, "the density is 0 wherever it was evaluated")
    sizes = panels.size.sum(0)
    ends = [_beyond(evaluate, s, rule.shift, dtype, sizes) for s in segments[-2:]]
    return _collect(panels, segments, ends, rule.shift, places, (lower, upper), rtol, converged, evaluate.points)


def _nothing(evaluate: Evaluator, message: str) -> Integral:
    """An honest 'not found': value 0, infinite error."""
    zero = torch.zeros(1 + len(evaluate.functions), dtype=torch.float64)
    return Integral(zero, zero + math.inf, evaluate.points, False, -math.inf, message=message)


def _collect(
    panels: _Panels,
    segments: Sequence[Segment],
    ends: Sequence[tuple[Tensor, Tensor]],
    shift: float,
    knots: Tensor,
    limits: tuple[float, float],
    rtol: float,
    converged: bool,
    points: int,
) -> Integral:
    """Add the panels up by cell, and the extrapolated ends to the outer cells."""
    cells = len(knots) + 1
    value = torch.zeros(cells, panels.value.shape[1], dtype=torch.float64)
    error, noise = value.clone(), value.clone()
    value.index_add_(0, panels.cell, panels.value)
    error.index_add_(0, panels.cell, panels.error)
    noise.index_add_(0, panels.cell, panels.noise)
    small = True
    allowed = rtol * panels.size.sum(0) + noise.sum(0)
    for place, segment, (rest, doubt) in zip((0, cells - 1), segments[-2:], ends, strict=True):
        value[place] += rest
        error[place] += doubt
        for hidden in range(sum(c >= segment.length for c in segment.cuts)):  # cells that begin beyond the reach
            error[place - hidden * segment.step] += rest.abs() + doubt
            error[place - (hidden + 1) * segment.step] += rest.abs() + doubt
        small = small and bool((doubt <= allowed).all())
    error = error + ROUNDING_SAFETY * noise
    whole = panels.error.sum(0) + ROUNDING_SAFETY * panels.noise.sum(0) + sum(doubt for _, doubt in ends)
    scale = math.exp(min(shift, 690.0))
    total = float(value[:, 0].sum())
    edges = torch.cat([knots.new_tensor(limits[:1]), knots, knots.new_tensor(limits[1:])])
    return Integral(
        values=value.sum(0) * scale,
        error=torch.nan_to_num(whole * scale, nan=math.inf, posinf=math.inf),
        points=points,
        converged=converged and small,
        log_total=shift + math.log(total) if total > 0 else -math.inf,
        cells=value * scale,
        cell_error=torch.nan_to_num(error * scale, nan=math.inf, posinf=math.inf),
        edges=edges,
        message="" if converged and small else "did not converge: see error",
    )
