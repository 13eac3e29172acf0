"""What lies beyond the reach of the arithmetic at a stretched end: extrapolated from the local rate of decay."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.numerics.integral import Evaluator
from harness.numerics.segments import END, Segment


def beyond(
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
