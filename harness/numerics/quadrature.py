r"""Adaptive quadrature of black-box densities on the line.

The line is cut at `knots` (draws' quantiles, or what `locate` found) into segments, of which the two outer ones are
stretched so that power laws become exponentials (`segments`). All are integrated panel by panel (`panels`, `kronrod`).
What lies beyond the reach of the arithmetic is extrapolated from the local rate (`tails`), which must be stable over
the outer half of the range; otherwise the error is infinite.
No rule can see a peak that lies between all its points: bring knots to every mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor

from harness.numerics.integral import Evaluator, Function, Integral, LogDensity, unit_roundoff
from harness.numerics.location import knots_for
from harness.numerics.panels import Panels, Rule, adapt
from harness.numerics.segments import Segment, cut_line
from harness.numerics.tails import beyond

ROUNDING_SAFETY = 4
"""The noise of a panel is a first-order estimate; narrow peaks far from 0 were seen to exceed it twofold."""


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
    segments = cut_line(evaluate, places, log_p, lower, upper, dtype)
    rule = Rule(evaluate, segments, dtype, noise)
    panels, converged = adapt(rule, segments, rtol, max_points)
    if rule.shift == -math.inf:
        return _nothing(evaluate, "the density is 0 wherever it was evaluated")
    sizes = panels.size.sum(0)
    ends = [beyond(evaluate, s, rule.shift, dtype, sizes) for s in segments[-2:]]
    return _collect(panels, segments, ends, rule.shift, places, (lower, upper), rtol, converged, evaluate.points)


def _nothing(evaluate: Evaluator, message: str) -> Integral:
    """An honest 'not found': value 0, infinite error."""
    zero = torch.zeros(1 + len(evaluate.functions), dtype=torch.float64)
    return Integral(zero, zero + math.inf, evaluate.points, False, -math.inf, message=message)


def _collect(
    panels: Panels,
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
