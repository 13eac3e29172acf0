"""Bijections x = f(z): forward and inverse undo each other, log_det is the Jacobian's, the density is the base's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from harness.checks.blocks import POINTS, agree
from harness.checks.ends import (
    FLOAT64,
    SOLVED,
    STRIDE,
    Ends,
    Map,
    answer,
    base_draws,
    base_of,
    determinants,
    ends_of,
    few,
    left_by_solver,
    size_of,
    tried,
)
from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.pairing import chosen_coordinates
from harness.checks.rounding import SAFETY, compared
from harness.draws import Draws
from harness.evidence import Exact
from harness.model import Model
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

NEEDS = ("forward", "inverse", "log_det")
REVIEW = "Papamakarios et al. 2021, https://jmlr.org/papers/v22/19-1028.html"
JACOBI = "Jacobi 1841, De determinantibus functionalibus; Billingsley 1995, Probability and Measure, theorem 17.2"

CUTS = 32
"""Places at which an ordering is cut."""


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
    spread = _spread(start)
    errors = ((returned - start).abs() / spread)[told].double().nan_to_num(math.inf, math.inf)
    bounds = (ends.factor * ends.granted * (behind + size_of(start)) / spread)[told].double()
    return _decided(errors.amax(1), _over(errors, bounds), subject, granted=lambda: SOLVED)


def _over(errors: Tensor, bounds: Tensor) -> Tensor:
    """(n,): for each row the largest error's own bound, where errors beside their bounds (n, d) are largest.

    Scaled so that the largest error of the row exceeds it if and only if some error exceeds its bound.
    """
    excess = (errors / bounds.nan_to_num(0.0)).nan_to_num(0.0, math.inf).amax(1)
    largest = errors.amax(1)
    return torch.where(excess > 0, largest / excess, bounds.nan_to_num(0.0).amin(1)).nan_to_num(0.0)


def _spread(points: Tensor) -> Tensor:
    """(d,): the standard deviation of each coordinate, 1 where it has none."""
    spread = points.std(0) if len(points) > 1 else torch.ones_like(points[0])
    return torch.where(spread > 0, spread, 1.0)


def _decided(
    errors: Tensor,
    bounds: Tensor,
    subject: Subject,
    unit: str = "sd of the coordinate",
    granted: Callable[[], float] = lambda: 0.0,
) -> Exact:
    """Evidence from errors and bounds (n,), of rows at which rounding does not drown the law, if there are any.

    What is granted to solvers is asked for, and allowed, only where rounding does not explain the errors: maps in
    closed form are held to their rounding.
    """
    errors, bounds = errors.nan_to_num(math.inf, math.inf), bounds.nan_to_num(math.inf, math.inf)
    settled = bounds <= subject.effort.tolerance
    settled = settled if bool(settled.any()) else bounds < math.inf
    if not bool(settled.any()):
        raise NotApplicable("rounding drowns the law at every point that was tried")
    errors, bounds = errors[settled], bounds[settled]
    if not bool((errors <= bounds).all()):
        bounds = bounds.clamp(min=granted())
    return replace(compared(errors, bounds, subject.effort.tolerance), unit=unit)


def _solver(subject: Subject, *seen: float) -> float:
    """What a solver is granted in nats: what all are, or a few times the least of what it was seen to leave, and never
    more than the effort promises to find. A defect of one part shows in some of what is seen; the steps of a solver in
    all of it, though less where the ways there and back err alike."""
    return min(SAFETY * max(SOLVED, min(seen)), subject.effort.tolerance)


@exact("bijection.inverse_undoes_forward", needs=NEEDS, source=REVIEW)
def inverse_undoes_forward(subject: Subject) -> Exact:
    """inverse(forward(z)) = z at draws of the base.

    The rounding of x = f(z) comes back stretched by the inverse's slopes, and this much is allowed: K u R_g(x) for the
    steps by which x may be off, plus K u |z|, with K = 8 sqrt(32 + d) and u that of float32. An error above that and
    up to 2^-12 sd passes as a solver's, and the verdict states that it could be as large. Where a slope of f is so
    small that x does not tell z within rounding, there is nothing to compare.
    """
    ends = ends_of(subject)
    return _round_trip(subject, ends.z, ends.forward, ends.inverse)


@exact(
    "bijection.forward_undoes_inverse",
    needs=NEEDS,
    blocked_by=("bijection.inverse_undoes_forward",),
    source=REVIEW,
)
def forward_undoes_inverse(subject: Subject) -> Exact:
    """forward(inverse(x)) = x at draws of the model.

    With the first law, of base draws, it makes f one to one *and* onto the support: an inverse that finds one of two z
    passes one of the two only. The bound is that of the other direction, mirrored.
    """
    ends = ends_of(subject)
    return _round_trip(subject, ends.x, ends.inverse, ends.forward)


@exact(
    "bijection.log_det_is_jacobian",
    needs=NEEDS,
    blocked_by=("bijection.inverse_undoes_forward",),
    unit="nat",
    source=JACOBI,
)
def log_det_is_jacobian(subject: Subject) -> Exact:
    """log_det(z) = log |det J(z)|, with J_ij = d f_i / d z_j.

    The whole Jacobian by autograd (by differences in float64 where the map keeps no graph) at 16 draws of the base; at
    fewer of more than 64 coordinates, and not above 1024. The volume counts: neither the sign of the determinant, nor
    the sizes of the entries. Relative errors e of the entries move log |det J| by e sum_ij |J^-1|_ji |J|_ij at most. A
    solver is allowed 2^-10 nat, or four times that by which the Jacobians of its two directions fail to be inverse.
    """
    errors, bounds = _log_det_errors(subject)
    return _decided(errors, bounds, subject, "nat", lambda: _solver(subject, left_by_solver(subject)))


def _log_det_errors(subject: Subject) -> tuple[Tensor, Tensor]:
    """(n,) how far log_det is from the Jacobian's, and (n,) what rounding explains of it."""
    return subject.once("errors of log_det", lambda: _measured(ends_of(subject)))


def _measured(ends: Ends) -> tuple[Tensor, Tensor]:
    z = few(ends.z)

    def gap(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            stated = ends.log_det(z).double()
        truth = determinants(ends, ends.forward, z)
        return stated - truth.log_abs, ends.factor * ends.granted * (1 + stated.abs().nan_to_num(0.0)) + truth.rounding

    error, bounds = gap(z)
    if ends.unit > FLOAT64:  # coarse arithmetic: its noise, seen a unit in the last place aside
        bounds = bounds + SAFETY * (gap(z + 2 * ends.unit * z.abs())[0] - error).abs()
    return error.abs(), bounds


def _gap_of_log_det(subject: Subject) -> float:
    """The largest of these errors that rounding does not explain; 0 where they could not be had."""
    try:
        errors, bounds = _log_det_errors(subject)
    except NotApplicable:
        return 0.0
    gaps = torch.where(errors > bounds, errors, 0.0)
    gaps = gaps[gaps.isfinite()]
    return float(gaps.max()) if len(gaps) else 0.0


@exact(
    "bijection.log_det_of_inverse",
    needs=NEEDS,
    blocked_by=(
        "bijection.inverse_undoes_forward",
        "bijection.forward_undoes_inverse",
        "bijection.log_det_is_jacobian",
        "log_prob.gradient_right",
    ),
    unit="nat",
    source=JACOBI,
)
def log_det_of_inverse(subject: Subject) -> Exact:
    """log |det dg/dx| = -log_det(g(x)) for the inverse g, at draws x of the model.

    What one direction stretches the other squeezes. After the laws before it this one speaks of the derivatives of
    `inverse`, which densities are trained by: a root that is found without a graph has none, or half of them. A solver
    is allowed 2^-10 nat, or four times what its log_det and its Jacobians were seen to be apart.
    """
    ends = ends_of(subject)
    with torch.no_grad():
        there = _size_after(ends, ends.inverse, ends.x)
        kept = there.isfinite().all(1)
        if not bool(kept.any()):
            raise NotApplicable("at no draw is inverse() finite, and a step beside it too")
        x, there = few(ends.x[kept]), few(there[kept])
        z = ends.inverse(x)
        stated = ends.log_det(z).double()
        reach = ends.reach(ends.log_det, z, there).double()
    truth = determinants(ends, ends.inverse, x)
    sizes = 1 + stated.abs().nan_to_num(0.0) + reach
    bounds = ends.factor * ends.granted * sizes + truth.rounding
    return _decided(
        (truth.log_abs + stated).abs(),
        bounds,
        subject,
        "nat",
        lambda: _solver(subject, left_by_solver(subject), _gap_of_log_det(subject)),
    )


def _size_after(ends: Ends, function: Map, points: Tensor) -> Tensor:
    """(n, d): what a relative error of points, and of what they are sent to, may come to there."""
    return size_of(function(points)) + ends.reach(function, points, size_of(points))


@exact(
    "bijection.triangular",
    needs=(*NEEDS, "ordering"),
    blocked_by=("bijection.inverse_undoes_forward",),
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
        allowed = ends.factor * ends.granted * _size_after(ends, ends.forward, z) / _spread(x)
        worst: list[tuple[Tensor, Tensor]] = []
        for cut in sorted({1 + (d - 1) * k // CUTS for k in range(CUTS)}) if d > 1 else []:
            other = z.clone()
            other[:, order[cut:]] = z.roll(1, 0)[:, order[cut:]]
            moved = ((ends.forward(other) - x).abs() / _spread(x))[:, order[:cut]]
            gaps, limits = moved.double().nan_to_num(math.inf), allowed[:, order[:cut]].double()
            worst.append((gaps.amax(1), _over(gaps, limits)))
    if not worst:
        raise NotApplicable("one coordinate has no order")
    errors, bounds = (torch.cat(column) for column in zip(*worst, strict=True))
    return _decided(errors, bounds, subject)


def _order(model: Model, d: int) -> list[int]:
    """The stated order. Raises ValueError unless it is a permutation."""
    order = [int(i) for i in model.ordering()]
    if sorted(order) != list(range(d)):
        raise ValueError(f"ordering() is {order[:8]}{'...' if len(order) > 8 else ''}, no permutation of 0 to {d - 1}")
    return order


# Densities and draws


@exact(
    "bijection.change_of_variables",
    needs=(*NEEDS, "base", "log_prob"),
    blocked_by=("bijection.inverse_undoes_forward", "bijection.log_det_is_jacobian", "log_prob.deterministic"),
    unit="nat",
    source=JACOBI,
)
def change_of_variables(subject: Subject) -> Exact:
    """log_prob(x) = log base(z) - log_det(z) at z = inverse(x).

    Mass is moved, not made: p(x) dx = p(z) dz. At draws, and at points that mix two draws where they are possible. A
    solver is allowed 2^-10 nat, or four times what its log_det and its Jacobians were seen to be apart.
    """
    x = _mixed(subject)
    with torch.no_grad():
        x = x[subject.model.log_prob(x) > -math.inf]
    if len(x) == 0:
        raise NotApplicable("no draw is possible")
    errors, bounds = agree(subject, x, _terms, (1, -1, 1))
    if not bool((errors <= bounds).all()):
        bounds = bounds.clamp(min=_solver(subject, left_by_solver(subject), _gap_of_log_det(subject)))
    return compared(errors, bounds, subject.effort.tolerance)


def _mixed(subject: Subject) -> Tensor:
    """(n, *event): draws, and the same with every other coordinate of the next draw."""
    ends, pilot = ends_of(subject), subject.pilot
    x = ends.x[:POINTS].reshape(-1, *ends.shape).to(pilot.dtype)
    mixed = x.reshape(len(x), -1).clone()
    mixed[:, ::2] = x.roll(1, 0).reshape(len(x), -1)[:, ::2]
    return torch.cat([x, mixed.reshape(x.shape)])


def _terms(model: Model, x: Tensor) -> Tensor:
    """(n, 3): log p(x), log base(z), log_det(z)."""
    base = base_of(model)
    if not base.can("log_prob"):
        raise NotApplicable("the base has no log_prob")
    z = answer(model, "inverse", x, x.shape)
    of_base = answer(base, "log_prob", z, x.shape[:1])
    log_det = answer(model, "log_det", z, x.shape[:1])
    return torch.stack([model.log_prob(x).double(), of_base.double(), log_det.double()], 1)


SHAPES = ("sign", "tanh", "square", "beyond 2", "below -2")


def _functions(subject: Subject, x: Tensor) -> Tensor:
    """(n, k) in [-1/2, 1]: functions of watched coordinates, and products of neighbours among them."""
    z = subject.profile.chart.coordinates(x)[:, chosen_coordinates(subject)].nan_to_num(0.0, 1e3, -1e3)
    square, level = z.square(), torch.tanh(z)
    single = torch.stack(
        [(z > 0).to(z) - 0.5, level / 2, square / (1 + square) - 0.5, (z > 2).to(z), (z < -2).to(z)], 1
    )
    return torch.cat([single.flatten(1), level[:, 1:] * level[:, :-1] / 2], 1)


def _labels(subject: Subject) -> list[str]:
    watched = chosen_coordinates(subject).tolist()
    single = [f"{shape} of coordinate {j}" for shape in SHAPES for j in watched]
    return single + [f"product of coordinates {i} and {j}" for i, j in pairwise(watched)]


def _start(subject: Subject) -> BoundedMean:
    x = subject.pilot[:POINTS]
    if not x.is_floating_point():
        raise NotApplicable("events are integers, and no map of continuous numbers makes those")
    z = base_draws(subject, len(x), "start")
    if z is None:
        raise NotApplicable("the base has no sample")
    answer(subject.model, "forward", z, x.shape)
    return BoundedMean(-1.0, 1.0)


@statistical(
    "bijection.draws_are_pushed_forward",
    needs=("sample", "base", *NEEDS),
    blocked_by=(
        "sample.finite",
        "bijection.inverse_undoes_forward",
        "bijection.change_of_variables",
    ),
    start=_start,
    labels=_labels,
    unit="probability",
    source=REVIEW,
)
def draws_are_pushed_forward(draws: Draws) -> Tensor:
    """E u(x) over draws = E u(f(z)) over draws z of the base, for functions u of a range of 1.

    That is what a flow is. They look at single coordinates and at pairs.
    """
    subject = draws.subject
    z = base_draws(subject, draws.n, "pushed", draws.index)
    assert z is not None
    with torch.no_grad():
        pushed = subject.model.forward(z)
    return _functions(subject, draws.x) - _functions(subject, pushed)


CHECKS: tuple[Check, ...] = (
    inverse_undoes_forward,
    forward_undoes_inverse,
    log_det_is_jacobian,
    log_det_of_inverse,
    triangular,
    change_of_variables,
    draws_are_pushed_forward,
)
