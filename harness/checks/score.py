r"""Scores, s(x) = grad log p(x): against the density or the energy by autograd, and against the sampler by Stein.

By parts, for a density without jumps that vanishes at infinity and any smooth bounded f,

.. math:: E[s_j(x) f(x) + \partial f / \partial x_j] = \int \partial_j (p f) dx = 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from harness.adapters.casting import tensors_in
from harness.checks.ends import PROBES, STEP
from harness.checks.gradient import continuous, with_graph
from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.moments import PER_PROBABILITY
from harness.checks.pairing import chosen_coordinates
from harness.checks.precision import working_unit
from harness.checks.rounding import ELEMENTARY, LAMBDA, SAFETY
from harness.checks.twin import twin
from harness.draws import Draws
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.model import Model
from harness.statistics.asymptotic import AsymptoticMean
from harness.subject import Subject

HYVARINEN = "Hyvarinen 2005, https://jmlr.org/papers/v6/hyvarinen05a.html"
ROWS = 64

FAR = 1e3
"""How many scales away from draws a density must still be positive to count as one on all of R^d."""

OUTERMOST, THINNER = 8, 3.0
"""At an end where a density vanishes, so many draws take more room by this factor than they would if all lay evenly."""


@exact(
    "score.is_gradient",
    needs=("score",),
    blocked_by=("log_prob.gradient_finite", "log_prob.gradient_right", "energy.well_formed"),
    source=HYVARINEN,
)
def is_gradient(subject: Subject) -> Exact:
    """score(x) = grad log p(x) = -grad E(x), the gradient by autograd.

    In float64 where the model can be had in it, at draws. How far rounding takes both is measured by moving the events
    by one unit in the last place, and the errors of all coordinates are seen against the largest gradient. A model may
    hold one thing twice, a covariance and a precision, each rounded for itself in the dtype in which it is held; in
    float64 they are as far apart as float32 had them, and so much is allowed.
    """
    model, x = _fine(subject)
    said, truth = said_score(model, x), _gradient(subject, model, x)
    other = torch.nextafter(x, torch.full_like(x, torch.inf))
    moved = (said_score(model, other) - said).abs() + (_gradient(subject, model, other) - truth).abs()
    unit = max(torch.finfo(said.dtype).eps / 2, torch.finfo(x.dtype).eps / 2)
    if model is subject.model:  # which may work in less than it is given
        unit = max(unit, working_unit(_with_density(subject)))
    size = float(truth.abs().max()) + float((1 / _scale(subject)).max())
    held = [each.dtype for each in tensors_in(subject.model.target) if each.is_floating_point()]
    unit = max([unit, *(torch.finfo(dtype).eps / 2 for dtype in held)])
    factor = LAMBDA * (ELEMENTARY + x[0].numel()) ** 0.5
    bound = factor * unit * (size + _reach_of_rounding(subject, model, x)) + SAFETY * float(moved.max())
    gaps = (said.double() - truth.double()).abs().reshape(len(x), -1).amax(1).nan_to_num(math.inf)
    worst = int(gaps.argmax())
    return Exact(float(gaps[worst]), bound, len(x), f"draw {worst} of the pilot", "nat per unit of x")


def _reach_of_rounding(subject: Subject, model: Model, x: Tensor) -> float:
    r"""By how many units the score moves when a covariance is rounded to one unit of its entries' sizes, at most.

    (S + E)^-1 v - S^-1 v = -S^-1 (E s) to first order, with s = S^-1 v: the score moves as if x did by E s. With
    |E_ij| <= sd_i sd_j that is sd_i sum_j sd_j |s_j| at most in coordinate i. Over random signs of the coordinates.
    """
    scale = _scale(subject).to(x).reshape(x.shape[1:])
    base = said_score(model, x)
    step = scale * (scale * base.abs()).reshape(len(x), -1).sum(1).reshape(-1, *(1,) * (x.ndim - 1))
    source, most = torch.Generator().manual_seed(subject.seed_for("rounding of parameters")), 0.0
    for _ in range(PROBES):
        signs = (torch.randint(2, x.shape, generator=source) * 2 - 1).to(x)
        moved = said_score(model, x + STEP * signs * step) - base
        most = max(most, float(moved.abs().max()) / STEP)
    return most


def _fine(subject: Subject) -> tuple[Model, Tensor]:
    """The model in float64 where it has that, and draws in the dtype that its score has there."""
    if not subject.model.can("log_prob") and not subject.model.can("energy"):
        raise NotApplicable("the model has neither log_prob nor energy to differentiate")
    x = continuous(_with_density(subject), subject.pilot[:ROWS])
    model = subject.model
    if model.cast is not None:
        try:
            wide = model.cast(torch.float64)
            if wide.score(x.double()).dtype == torch.float64:
                return wide, x.double()
        except Exception as refusal:  # a model that has only one dtype
            if out_of_memory(refusal):
                raise
    return model, x


def _with_density(subject: Subject) -> Subject:
    """The subject, or its twin with the energy for a density, whose profile is the same."""
    return subject if subject.model.can("log_prob") else twin(subject)


def said_score(model: Model, x: Tensor) -> Tensor:
    """What the model states. Raises ValueError for another shape than that of x."""
    with torch.no_grad():
        value = model.score(x)
    if not isinstance(value, Tensor) or value.shape != x.shape or not value.is_floating_point():
        seen = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"score() of {tuple(x.shape)} is {seen}, not a floating tensor of that shape")
    return value


def _gradient(subject: Subject, model: Model, x: Tensor) -> Tensor:
    """grad log p, or -grad E where there is no log_prob, (n, *event)."""
    leaf = x.clone().requires_grad_()
    value = model.log_prob(leaf) if model.can("log_prob") else -model.energy(leaf)
    (gradient,) = torch.autograd.grad(with_graph(value).sum(), leaf)
    return gradient


def _scale(subject: Subject) -> Tensor:
    """(d,): the spread of each coordinate."""
    return subject.pilot.reshape(len(subject.pilot), -1).double().std(0).clamp(min=1e-300)


def whole_space(subject: Subject) -> None:
    """Raises NotApplicable unless the support is known to be all of R^d."""
    chart = subject.profile.chart
    if chart.transform is not None or bool(chart.discrete.any()) or not subject.pilot.is_floating_point():
        raise NotApplicable("the support is not all of R^d, and what the density does at its edge is not known")
    if not _everywhere(subject):
        raise NotApplicable("no support = constraints.real_vector is declared, and the density may jump at an edge")


def _start(subject: Subject) -> AsymptoticMean:
    whole_space(subject)
    subject.once("spread of Stein's numbers", lambda: _spread(subject))
    return AsymptoticMean(rarest=subject.effort.rarest)


def _everywhere(subject: Subject) -> bool:
    """Is the support declared to be R^d, or the density positive far from the draws, along every coordinate?

    Where nothing is declared and only the score is known, the contract says that its density has no jumps, and Stein's
    identity holds for it. Draws that crowd at an end of a coordinate are taken for a jump all the same.
    """
    support = subject.model.support
    if support is not None:
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        return support is constraints.real
    if not (subject.model.can("log_prob") or subject.model.can("energy")):
        return not _crowded_at_an_end(subject)
    model = _with_density(subject).model
    flat = subject.pilot[:1].reshape(1, -1)
    step = torch.diag((FAR * _scale(subject)).to(flat))
    far = torch.cat([flat + step, flat - step])
    with torch.no_grad():
        return bool((model.log_prob(far.reshape(-1, *subject.pilot.shape[1:])) > -torch.inf).all())


def _crowded_at_an_end(subject: Subject) -> bool:
    """Are the outermost draws of some coordinate as close to each other as those in the middle of its range?

    Where a density jumps, its draws there lie as near to each other as elsewhere; where it vanishes, they thin out.
    """
    x = subject.pilot.reshape(len(subject.pilot), -1).double().sort(0).values
    gaps = torch.stack([x[OUTERMOST] - x[0], x[-1] - x[-1 - OUTERMOST]])
    usual = (x[-1] - x[0]) * OUTERMOST / len(x)  # if draws lay evenly
    return bool((gaps < THINNER * usual).any())


def _numbers(subject: Subject, x: Tensor) -> Tensor:
    """(n, 2 k): for each watched coordinate, s_j and s_j tanh z_j + d tanh z_j / dx_j, in units of its scale."""
    chart, watched = subject.profile.chart, chosen_coordinates(subject)
    flat = x.reshape(len(x), -1).double()[:, watched]
    scale = chart.scale[watched]
    z = (flat - chart.location[watched]) / scale
    s = said_score(subject.model, x).reshape(len(x), -1).double()[:, watched] * scale
    f = torch.tanh(z)
    return torch.cat([s, s * f + 1 - f.square()], 1)


def _spread(subject: Subject) -> Tensor:
    """(2 k,): standard deviations of these numbers over the pilot, at least 1."""
    return _numbers(subject, subject.pilot).std(0).clamp(min=1.0)


def _labels(subject: Subject) -> list[str]:
    watched = chosen_coordinates(subject).tolist()
    return [f"E s_{j}" for j in watched] + [f"E[s_{j} f + f'] for f = tanh z_{j}" for j in watched]


@statistical(
    "score.stein",
    needs=("sample", "score"),
    blocked_by=("score.is_gradient", "sample.finite", "energy.stein", "energy.exchangeable", "sampler.stein"),
    start=_start,
    labels=_labels,
    tolerance=PER_PROBABILITY,
    share=0.5,
    asymptotic=True,
    unit="sd of the numbers, at least 1",
    source="Stein 1972; Gorham & Mackey 2015, https://arxiv.org/abs/1506.03039",
)
def stein(draws: Draws) -> Tensor:
    """E[s_j(x)] = 0 and E[s_j(x) f(x) + df/dx_j] = 0 over draws, for f = tanh of the coordinate, in its own scale.

    The support is all of R^d, where p f vanishes at infinity. It ties a score to a sampler where nothing else can: a
    model without a density. The first identity sees a location that is off, the second a scale.
    """
    subject = draws.subject
    return _numbers(subject, draws.x) / subject.once("spread of Stein's numbers", lambda: _spread(subject))


CHECKS: tuple[Check, ...] = (is_gradient, stein)
