r"""How the line is cut: segments between knots, taken as they are, and two stretched ends.

    towards a finite end a:    x = a + w exp(-v),        dx = (x - a) dv,      int p dx = int exp(log p + log|x - a|) dv
    towards infinity from k:   x = k + s (exp(v) - 1),   dx = (x - k + s) dv

A density like |x - a|^(alpha-1), or x^(-1-alpha), turns into exp(-alpha v), and v runs until the arithmetic ends
(|x| = 1e140, |x| = 1e-290, or 2^10 units in the last place of a). Ends of the support that nobody gave are looked for.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from harness.numerics.box import find_edge
from harness.numerics.integral import Evaluator, unit_roundoff

LINE, END, TAIL = 0, 1, 2
"""How a segment maps v to x: unchanged, towards a finite end, towards infinity."""

VISIBLE = 300.0
"""A support's edge counts only where log p just inside is within this of its largest value."""

NEGLIGIBLE, FAR = 36.0, 1e6
"""Nor does an edge that is so many knot distances away, with less than exp(-36) of the mass near it: an overflow's."""


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


def cut_line(
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
