"""What bijections do to volumes: log_det is the Jacobian's, of the way there and of the way back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.checks import solver
from harness.checks.determinants import determinants, few
from harness.checks.ends import FLOAT64, FUNCTIONS, JACOBI, NEEDS, Ends, decided, ends_of
from harness.checks.law import Check, NotApplicable, exact
from harness.checks.rounding import SAFETY
from harness.checks.solver import left_by_solver
from harness.evidence import Exact
from harness.subject import Subject


@exact(
    "bijection.log_det_is_jacobian",
    needs=("forward", "log_det"),
    blocked_by=(*FUNCTIONS, "bijection.inverse_undoes_forward"),
    unit="nat",
    source=JACOBI,
)
def log_det_is_jacobian(subject: Subject) -> Exact:
    """log_det(z) = log |det J(z)|, with J_ij = d f_i / d z_j.

    The whole Jacobian by autograd (by differences in float64 where the map keeps no graph) at 16 draws of the base; at
    fewer of more than 64 coordinates, and not above 1024. The volume counts: neither the sign of the determinant, nor
    the sizes of the entries. Relative errors e of the entries move log |det J| by e sum_ij |J^-1|_ji |J|_ij at most. A
    solver is allowed 3e-4 nat, a tenth of what `thorough` promises, or four times that by which the Jacobians of its
    two directions fail to be inverse.
    """
    errors, bounds = _log_det_errors(subject)
    return decided(errors, with_solver(subject, errors, bounds, left_by_solver), subject, "nat")


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


def gap_of_log_det(subject: Subject) -> float:
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
        *FUNCTIONS,
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
    is allowed 3e-4 nat, or four times what its log_det and its Jacobian were seen, and allowed, to be apart.
    """
    ends = ends_of(subject)
    with torch.no_grad():
        there = ends.size_after(ends.inverse, ends.x)
        kept = there.isfinite().all(1)
        if not bool(kept.any()):
            raise NotApplicable("at no draw is inverse() finite, and a step beside it too")
        x, there = few(ends.x[kept]), few(there[kept])
        z = ends.inverse(x)
        stated = ends.log_det(z).double()
        reach = ends.reach(ends.log_det, z, there).double()
    truth = determinants(ends, ends.inverse, x)
    sizes = 1 + stated.abs().nan_to_num(0.0) + reach
    errors, bounds = (truth.log_abs + stated).abs(), ends.factor * ends.granted * sizes + truth.rounding
    return decided(errors, with_solver(subject, errors, bounds, gap_of_log_det, _granted_to_log_det), subject, "nat")


def _granted_to_log_det(subject: Subject) -> float:
    return solver.of_volumes(subject, left_by_solver(subject))


def with_solver(subject: Subject, errors: Tensor, bounds: Tensor, *seen: Callable[[Subject], float]) -> Tensor:
    """The bounds (n,) of errors in nats, and what is granted to a solver by what it was seen to leave."""

    def granted() -> Tensor:
        return torch.full_like(bounds, solver.of_volumes(subject, *(each(subject) for each in seen)))

    return solver.allowed(subject, errors, bounds, granted)


CHECKS: tuple[Check, ...] = (log_det_is_jacobian, log_det_of_inverse)
