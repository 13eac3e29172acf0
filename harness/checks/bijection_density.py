"""What bijections do to densities and to draws: those of the base are moved, and nothing else."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from harness.checks.bijection_volume import gap_of_log_det, with_solver
from harness.checks.blocks import POINTS, agree
from harness.checks.ends import FUNCTIONS, JACOBI, NEEDS, REVIEW, answer, base_draws, base_of, ends_of
from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.pairing import chosen_coordinates
from harness.checks.rounding import compared
from harness.checks.solver import left_by_solver
from harness.draws import Draws
from harness.evidence import Exact
from harness.model import Model
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject


@exact(
    "bijection.change_of_variables",
    needs=(*NEEDS, "base", "log_prob"),
    blocked_by=(*FUNCTIONS, "bijection.inverse_undoes_forward", "bijection.log_det_is_jacobian"),
    unit="nat",
    source=JACOBI,
)
def change_of_variables(subject: Subject) -> Exact:
    """log_prob(x) = log base(z) - log_det(z) at z = inverse(x).

    Mass is moved, not made: p(x) dx = p(z) dz. At draws, and at points that mix two draws where they are possible. A
    solver is allowed 3e-4 nat, or four times what its log_det and its Jacobians were seen to be apart.
    """
    x = _mixed(subject)
    with torch.no_grad():
        x = x[subject.model.log_prob(x) > -math.inf]
    if len(x) == 0:
        raise NotApplicable("no draw is possible")
    errors, bounds = agree(subject, x, _terms, (1, -1, 1))
    bounds = with_solver(subject, errors, bounds, left_by_solver, gap_of_log_det)
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
    needs=("sample", "base", "forward", "log_det"),
    blocked_by=(
        "sample.finite",
        *FUNCTIONS,
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


CHECKS: tuple[Check, ...] = (change_of_variables, draws_are_pushed_forward)
