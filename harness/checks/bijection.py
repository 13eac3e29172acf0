"""Bijections x = f(z): they are functions, forward and inverse undo each other, and an order that is claimed is kept.

What they do to volumes is in `checks.bijection_volume`, to densities and draws in `checks.bijection_density`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.checks import bijection_density, bijection_volume, solver
from harness.checks.ends import FUNCTIONS, NEEDS, REVIEW, STRIDE, Map, decided, ends_of, over, size_of, spread, tried
from harness.checks.law import Check, NotApplicable, exact
from harness.checks.rounding import difference
from harness.evidence import Exact
from harness.model import Model
from harness.subject import Subject

CUTS = 32
"""Places at which an ordering is cut."""


@exact(
    "bijection.deterministic",
    needs=("forward", "log_det"),
    blocked_by=("log_prob.deterministic",),
)
def is_deterministic(subject: Subject) -> Exact:
    """forward(z), inverse(x) and log_det(z) are functions: two calls agree in every bit.

    Dropout left on and a trace that is estimated by random vectors break it. Then a Jacobian is one of many, and a
    density by change of variables an estimate, so that no other law of bijections is tried.
    """
    ends = ends_of(subject)
    names = [name for name in ("forward", "inverse", "log_det") if ends.model.can(name)]
    points = {"forward": ends.z, "inverse": ends.x, "log_det": ends.z}
    with torch.no_grad():
        gaps = {name: _gap_of_calls(getattr(ends, name), points[name]) for name in names}
    worst = max(gaps, key=lambda name: gaps[name])
    return Exact(gaps[worst], 0.0, len(ends.z), f"two calls of {worst}")


def _gap_of_calls(function: Map, points: Tensor) -> float:
    first = function(points).clone()
    return float(difference(first, function(points)).max())


@exact("bijection.inverse_undoes_forward", needs=NEEDS, blocked_by=FUNCTIONS, source=REVIEW)
def inverse_undoes_forward(subject: Subject) -> Exact:
    """inverse(forward(z)) = z at draws of the base.

    The rounding of x = f(z) comes back stretched by the inverse's slopes, and this much is allowed: K u R_g(x) for the
    steps by which x may be off, plus K u |z|, with K = 8 sqrt(32 + d) and u that of float32. An error above that passes
    as a solver's if it is 7.5e-4 sd at most, which moves probabilities by a tenth of what `thorough` promises, or no
    further than the inverse goes when x moves by as much; the verdict states the bound. Where a slope of f is so small
    that x does not tell z within rounding, there is nothing to compare.
    """
    ends = ends_of(subject)
    return _round_trip(subject, ends.z, ends.forward, ends.inverse)


@exact(
    "bijection.forward_undoes_inverse",
    needs=NEEDS,
    blocked_by=(*FUNCTIONS, "bijection.inverse_undoes_forward"),
    source=REVIEW,
)
def forward_undoes_inverse(subject: Subject) -> Exact:
    """forward(inverse(x)) = x at draws of the model.

    With the first law, of base draws, it makes f one to one *and* onto the support: an inverse that finds one of two z
    passes one of the two only. The bound is that of the other direction, mirrored.
    """
    ends = ends_of(subject)
    return _round_trip(subject, ends.x, ends.inverse, ends.forward)


def _round_trip(subject: Subject, start: Tensor, out: Map, back: Map) -> Exact:
    """Evidence that back(out(p)) = p at rows p of `start`, in units of each coordinate's spread.

    Rows are left out at which a step leads out of the support, or at which `out` is flat to within its rounding, as a
    sigmoid is far from 0, so that there is no way back, or has been rounded to the edge of the support.
    """
    ends = ends_of(subject)
    with torch.no_grad():
        far = out(start)
        kept = far.isfinite().all(1)
        start, far = start[kept], far[kept]
        if len(start) == 0:
            raise NotApplicable("no point is sent to finite numbers")
        returned = back(far)
        ahead = ends.reach(out, start, size_of(start))
        told_apart = STRIDE * ends.reach(out, start, size_of(start), STRIDE)
        flat = (told_apart <= ends.factor * ends.unit * size_of(far)).any(1)
        behind = ends.reach(back, far, size_of(far) + ahead)
        missing = ~returned.isfinite().all(1)
        for other in ends.around(far, ends.factor * ends.unit * size_of(far)):
            missing = missing & ~tried(back, other, start).isfinite().all(1)
    told = ~flat & (missing | (behind.isfinite().all(1) & ahead.isfinite().all(1)))
    if not bool(told.any()):
        raise NotApplicable("no point is inside of the support by a step of the probes, with a slope there")
    spreads = spread(start), spread(far)
    start, far, behind, returned = (each[told] for each in (start, far, behind, returned))
    errors = ((returned - start).abs() / spreads[0]).double().nan_to_num(math.inf, math.inf)
    bounds = (ends.factor * ends.granted * (behind + size_of(start)) / spreads[0]).double().nan_to_num(0.0)
    with torch.no_grad():
        bounds = solver.allowed(subject, errors, bounds, lambda: solver.of_points(ends, errors, back, far, spreads))
    return decided(errors.amax(1), over(errors, bounds), subject)


@exact(
    "bijection.triangular",
    needs=(*NEEDS, "ordering"),
    blocked_by=(*FUNCTIONS, "bijection.inverse_undoes_forward"),
    source="Rosenblatt 1952, https://doi.org/10.1214/aoms/1177729394",
)
def triangular(subject: Subject) -> Exact:
    """In the stated order o, x_{o_i} does not change when z_{o_j} does, for every j > i.

    Then J, its rows and columns in that order, is zero above the diagonal, and its determinant the product of it. The
    coordinates after a cut are replaced by another draw's: at every cut, or at 32 of them.
    """
    ends = ends_of(subject)
    z, d = ends.z, ends.z.shape[1]
    order = _order(subject.model, d)
    with torch.no_grad():
        x = ends.forward(z)
        allowed = ends.factor * ends.granted * ends.size_after(ends.forward, z) / spread(x)
        worst: list[tuple[Tensor, Tensor]] = []
        for cut in sorted({1 + (d - 1) * k // CUTS for k in range(CUTS)}) if d > 1 else []:
            other = z.clone()
            other[:, order[cut:]] = z.roll(1, 0)[:, order[cut:]]
            moved = ((ends.forward(other) - x).abs() / spread(x))[:, order[:cut]]
            gaps, limits = moved.double().nan_to_num(math.inf), allowed[:, order[:cut]].double()
            worst.append((gaps.amax(1), over(gaps, limits)))
    if not worst:
        raise NotApplicable("one coordinate has no order")
    errors, bounds = (torch.cat(column) for column in zip(*worst, strict=True))
    return decided(errors, bounds, subject)


def _order(model: Model, d: int) -> list[int]:
    """The stated order. Raises ValueError unless it is a permutation."""
    order = [int(i) for i in model.ordering()]
    if sorted(order) != list(range(d)):
        raise ValueError(f"ordering() is {order[:8]}{'...' if len(order) > 8 else ''}, no permutation of 0 to {d - 1}")
    return order


CHECKS: tuple[Check, ...] = (
    is_deterministic,
    inverse_undoes_forward,
    forward_undoes_inverse,
    *bijection_volume.CHECKS,
    triangular,
    *bijection_density.CHECKS,
)
