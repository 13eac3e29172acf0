r"""Solvers of the probability-flow ODE: how fast their error falls, and that they solve that ODE.

    d(x / scale) / d(sigma / scale) = (x - scale D(x, t)) / sigma

The error of a solver of order p is c N^-p + O(N^-p-1) for N steps, so that d_N = |x_N - x_2N| falls by the factor 2^p
as N doubles, and (2^p x_2N - x_N) / (2^p - 1) has lost the first term (Richardson 1911).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from harness.checks.ends import base_of
from harness.checks.law import Check, NotApplicable, exact
from harness.checks.noising import CHAIN, finest, flat, floating_like, schedule, time_range, times
from harness.checks.rounding import LAMBDA, SAFETY
from harness.evidence import Exact
from harness.model import Model
from harness.subject import Subject

KARRAS = "Karras et al. 2022, https://arxiv.org/abs/2206.00364, section 3"

STARTS, NUMBERS = 16, 2**12
"""Draws of the base that are brought back: as many, and no more numbers in them."""

STEPS = (8, 16, 32, 64, 128, 256)
"""Numbers of steps. They double."""

FURTHER = (512, 1024)
"""More of them, for solvers of which these do not tell the order."""

BETWEEN = 0.5
"""Half an order: from there on the next lower one is nearer."""


def _starts(subject: Subject) -> tuple[Model, Tensor]:
    """The model in the finest dtype it has, and draws of its base."""

    def work() -> tuple[Model, Tensor]:
        base = base_of(subject.model)
        if not base.can("sample"):
            raise NotApplicable("the base has no sample to start from")
        z = base.sample(
            max(2, min(STARTS, NUMBERS // subject.profile.size)), generator=subject.generator("solver")
        ).detach()
        if not z.is_floating_point():
            raise NotApplicable("the base draws integers, and there is no flow between them")
        model, dtype = finest(subject, lambda model, kind: model.integrate(z[:1].to(kind), STEPS[0]))
        return model, z.to(dtype)

    return subject.once("starts of the solver", work)


def _solved(subject: Subject) -> dict[int, Tensor]:
    """Steps to where they lead, (n, d) in float64."""

    def work() -> dict[int, Tensor]:
        model, z = _starts(subject)
        found: dict[int, Tensor] = {}
        for steps in _allowed(model):
            if steps in FURTHER and _told(subject, z, found):
                break
            with torch.no_grad():
                x = floating_like(model.integrate(z, steps), z, "integrate")
            if not bool(x.isfinite().all()):
                raise ValueError(f"integrate(x, {steps}) is not finite at draws of the base")
            found[steps] = flat(x).double()
        return found

    return subject.once("solved", work)


def _told(subject: Subject, z: Tensor, solved: dict[int, Tensor]) -> bool:
    """Is the order as stated or not, or will it never be known, as the errors are down to rounding?"""
    slopes = _slopes(z, solved)
    if len(slopes) < 2:
        return True
    missing, unsure = max(0.0, _stated_order(subject) - slopes[-1]), _unsure(slopes)
    return missing + unsure <= BETWEEN or missing - unsure > BETWEEN


def _slopes(z: Tensor, solved: dict[int, Tensor]) -> list[float]:
    """log2 of d_N / d_2N for each N at which both are above rounding."""
    gaps = _gaps(z, solved)
    return [math.log2(a / b) for a, b in pairwise(gaps)]


def _unsure(slopes: Sequence[float]) -> float:
    """What is left of the last slope's way to the order: about as much as the last doubling changed it, twice over."""
    return 2 * abs(slopes[-1] - slopes[-2])


def _allowed(model: Model) -> list[int]:
    """A chain of T steps takes no more than T, and half as many are still a choice among them."""
    if not model.can("time_range"):
        return [*STEPS, *FURTHER]
    first, last = time_range(model)
    chain = first == round(first) and last == round(last) and last - first >= CHAIN
    few = [steps for steps in (*STEPS, *FURTHER) if not chain or steps <= (last - first) / 2]
    if len(few) < 4:
        raise NotApplicable(f"a chain of {last - first:.0f} steps is too short to see errors fall as they double")
    return few


def _order(subject: Subject) -> int:
    order = subject.model.order()
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"order() is {order!r}; a whole number from 1 on was asked for")
    return order


def _stated_order(subject: Subject) -> int:
    """That of Euler's method where none is stated."""
    return _order(subject) if subject.model.can("order") else 1


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@exact("diffusion.solver_order", needs=("integrate", "order", "base"), unit="orders", source=KARRAS)
def solver_order(subject: Subject) -> Exact:
    """|x_N - x_2N| = O(N^-p) for the stated order p, where x_N is integrate(z, N) at draws z of the base.

    By the slope of its logarithm from the largest N but one to the largest. A slope comes closer to p by half with each
    doubling, so what is left is about as much as the last doubling changed it, which is taken to be uncertain, twice
    over. Half an order less than stated is a FAIL. Faster is no defect. It takes 256 steps, or
    up to 1024 where these do not tell.
    """
    order, solved, (_, z) = _order(subject), _solved(subject), _starts(subject)
    slopes = _slopes(z, solved)
    if not _gaps(z, solved):
        return Exact(0.0, BETWEEN, len(z), "no error above rounding in 8 steps", "orders")
    if len(slopes) < 2:
        raise NotApplicable("errors are down to rounding before they fall as a power of the steps")
    unsure = _unsure(slopes)
    where = f"order {slopes[-1]:.2f} +- {unsure:.2f} at {list(solved)[len(slopes)]} steps, {order} is stated"
    return Exact(max(0.0, order - slopes[-1]), BETWEEN, len(z), where, "orders", uncertainty=unsure)


def _gaps(z: Tensor, solved: dict[int, Tensor]) -> list[float]:
    """d_N for each N from the first on, as long as they are larger than what rounding makes of that many steps."""
    steps = list(solved)
    gaps = [_rms(solved[n] - solved[2 * n]) for n in steps[:-1]]
    floor = LAMBDA * torch.finfo(z.dtype).eps / 2 * (float(z.abs().max()) + _rms(solved[steps[-1]]))
    told = [gap > SAFETY * floor * (2 * n) ** 0.5 for gap, n in zip(gaps, steps, strict=False)]
    return gaps[: told.index(False)] if False in told else gaps


@exact(
    "diffusion.solver_follows_flow",
    needs=("integrate", "base", "schedule", "time_range", "denoise"),
    blocked_by=(
        "diffusion.schedule_monotone",
        "diffusion.kernels_compose",
        "diffusion.tweedie",
        "diffusion.solver_order",
    ),
    unit="sd of the coordinate",
    source="Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 13",
)
def solver_follows_flow(subject: Subject) -> Exact:
    """integrate(z, N) for large N solves d(x / scale) / d(sigma / scale) = (x - scale denoise(x, t)) / sigma.

    Held against Heun's steps from the last time to the first, both extrapolated to no step size at all. By how much the
    last doubling moved either is taken to be uncertain, four times over. A last step to no noise at all is allowed.
    """
    model, z = _starts(subject)
    solved = _solved(subject)
    most = max(solved)
    order = _stated_order(subject)
    theirs, before = (_extrapolated(solved[n // 2], solved[n], order) for n in (most, most // 2))
    ours, ours_before, level = _flow(subject, model, z)
    spread = subject.profile.chart.scale.clamp(min=1e-300)
    error = _rms((theirs - ours) / spread)
    unsure = SAFETY * (_rms((theirs - before) / spread) + _rms((ours - ours_before) / spread))
    allowed = subject.effort.tolerance
    if error + unsure > allowed:
        allowed += 2 * _rms(level / spread)  # as far as a last step to no noise at all may lead
    return Exact(error, allowed, len(z), "", "sd of the coordinate", uncertainty=unsure)


def _extrapolated(coarse: Tensor, fine: Tensor, order: int) -> Tensor:
    return fine + (fine - coarse) / (2**order - 1)


def _flow(subject: Subject, model: Model, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Heun's solution extrapolated, with the step before, (n, d); and the level of noise at the first time."""
    grid = times(subject, STEPS[-1] + 1).flip(0).to(z.dtype)
    scale, sigma = schedule(model, grid)
    grid = grid[sigma > 0]
    solutions = [flat(_heun(model, z, grid[_every(len(grid), skip)])).double() for skip in (4, 2, 1)]
    ours, before = (_extrapolated(a, b, 2) for a, b in ((solutions[1], solutions[2]), (solutions[0], solutions[1])))
    return ours, before, (sigma / scale)[sigma > 0][-1]


def _every(count: int, skip: int) -> list[int]:
    """0, skip, 2 skip, ... and the last."""
    return sorted({*range(0, count, skip), count - 1})


def _heun(model: Model, x: Tensor, grid: Tensor) -> Tensor:
    scale, sigma = (part.to(x.dtype) for part in schedule(model, grid))

    def seen(x: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """What is clean in x, and what is noise."""
        with torch.no_grad():
            clean = floating_like(model.denoise(x, grid[i].expand(len(x))), x, "denoise")
        return clean, (x - scale[i] * clean) / sigma[i]

    for i in range(len(grid) - 1):
        clean, e = seen(x, i)
        ahead = scale[i + 1] * clean + sigma[i + 1] * e
        if bool(scale[i] > 0):  # and else x is noise alone, and one step of the first order leads on
            r = scale[i + 1] / scale[i]
            ahead = r * x + (sigma[i + 1] - r * sigma[i]) * (e + seen(ahead, i + 1)[1]) / 2
        x = ahead
    return x


CHECKS: tuple[Check, ...] = (solver_order, solver_follows_flow)
