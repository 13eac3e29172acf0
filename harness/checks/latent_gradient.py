"""The gradient of a bound with respect to the parameters, by automatic differentiation and without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.checks.fitting import parameters_of, require_finite
from harness.checks.latent_parts import elbo, parts_of
from harness.checks.law import NotApplicable, statistical
from harness.draws import Draws
from harness.errors import out_of_memory
from harness.model import Model
from harness.statistics.asymptotic import AsymptoticMean
from harness.subject import Subject

STEP = 1e-3
"""Length of the step of differences to either side, in float64."""

DIRECTIONS = 2
"""Random directions that are watched, besides that of the gradient and that in which pilot gradients differ most."""

ROWS, BATCHES = 2048, 16
"""Pilot draws, and parts of them by which the noise of a gradient is known."""

DITHER = 0.02
"""Of the unit of the numbers: noise beside which rounding, and the differences' own error, have no say."""

NO_GRAPH = "the bound has no graph to its parameters: it is not made to be differentiated"

Evaluate = Callable[[Tensor, Callable[[Model], Tensor]], Tensor]
"""(theta, f) -> f(the model at theta)."""


@dataclass(frozen=True)
class _Family:
    """The model in float64 where it has that, as a function of its parameters theta (k,), and directions (m, k)."""

    model: Model
    dtype: torch.dtype | None
    theta: Tensor
    evaluate: Evaluate
    directions: Tensor
    units: Tensor

    def events(self, x: Tensor) -> Tensor:
        return x.to(self.dtype) if x.is_floating_point() and self.dtype is not None else x


class _Host(nn.Module):
    """Answers a question while its parameters are replaced by others."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, question: Callable[[], Tensor]) -> Tensor:
        return question()


def _start(subject: Subject) -> AsymptoticMean:
    subject.once("family of the bound", lambda: _family(subject))
    return AsymptoticMean(rarest=subject.effort.rarest)


def _family(subject: Subject) -> _Family:
    model, dtype = _fine(subject)
    theta, evaluate = _parameters(model)
    require_finite(theta)
    source = torch.Generator().manual_seed(subject.seed_for("directions of the bound"))
    directions = torch.randn(DIRECTIONS, len(theta), generator=source, dtype=torch.float64).to(theta)
    bare = _Family(model, dtype, theta, evaluate, directions, torch.ones(1))
    x = bare.events(subject.pilot[:ROWS])
    directions = torch.cat([directions, _telling(bare, x, subject.generator("bound", "directions"))])
    norm = directions.norm(dim=1, keepdim=True)
    bare = _Family(model, dtype, theta, evaluate, (directions / norm)[norm[:, 0] > 0], torch.ones(1))
    slopes, differences = _compared(bare, x, subject.generator("bound", "pilot"))
    spread = torch.maximum((slopes - differences).std(0), slopes.square().mean(0).sqrt())
    if not bool((spread.isfinite() & (spread > 0)).all()):
        raise NotApplicable("the bound has no finite slope with respect to the parameters")
    return _Family(model, dtype, theta, evaluate, bare.directions, spread)


def _fine(subject: Subject) -> tuple[Model, torch.dtype | None]:
    if subject.model.cast is not None:
        try:
            wide = subject.model.cast(torch.float64)
            x = subject.pilot[:4]
            elbo(wide, x.double() if x.is_floating_point() else x, subject.generator("bound", "wide"))
            return wide, torch.float64
        except Exception as refusal:  # a model that has only one dtype
            if out_of_memory(refusal):
                raise
    return subject.model, None


def _parameters(model: Model) -> tuple[Tensor, Evaluate]:
    """theta, and the family over it: by `with_parameters`, or by the parameters of a torch module."""
    if model.can("parameters", "with_parameters"):
        return parameters_of(model), lambda theta, f: f(model.with_parameters(theta))
    module = model.target
    if not isinstance(module, nn.Module):
        raise NotApplicable("the model has no parameters and no with_parameters, and is no torch module")
    named = {name: value for name, value in module.named_parameters() if value.requires_grad}
    if not named:
        raise NotApplicable("the module has no parameters that are trained")
    sizes = [value.numel() for value in named.values()]
    host = _Host(module)

    def evaluate(theta: Tensor, f: Callable[[Model], Tensor]) -> Tensor:
        pieces = zip(named.items(), theta.split(sizes), strict=True)
        replaced = {f"module.{name}": part.reshape(value.shape).to(value.dtype) for (name, value), part in pieces}
        return torch.func.functional_call(host, replaced, (lambda: f(model),))

    return torch.cat([value.detach().flatten() for value in named.values()]), evaluate


def _bound(family: _Family, theta: Tensor, x: Tensor, source: torch.Generator) -> Tensor:
    with torch.enable_grad():
        value = family.evaluate(theta, lambda model: elbo(model, x, source))
    if not value.requires_grad:
        raise NotApplicable(NO_GRAPH)
    return value


def _telling(family: _Family, x: Tensor, source: torch.Generator) -> Tensor:
    """(2, k): the gradient of the mean bound, and that less the score function's, both by autograd.

    Of the latter each parameter is weighed by its noise. It is 0 where the parts have no graph; whatever comes out, a
    direction is only where one looks.
    """
    own, apart = [], []
    for batch in x.chunk(BATCHES):
        theta = family.theta.clone().requires_grad_()
        (slope,) = torch.autograd.grad(_bound(family, theta, batch, source).mean(), theta, allow_unused=True)
        if slope is None:
            raise NotApplicable(NO_GRAPH)
        own.append(slope)
        apart.append(slope - _by_score(family, batch, source, slope))
    difference = torch.stack(apart)
    noise = difference.var(0) + 1e-6 * difference.var(0).mean()
    return torch.stack([torch.stack(own).mean(0), (difference.mean(0) / noise).nan_to_num(0.0, 0.0, 0.0)]).detach()


def _by_score(family: _Family, x: Tensor, source: torch.Generator, default: Tensor) -> Tensor:
    """(k,): the mean of grad log w + (log w - baseline) grad log q at fixed z; the default where there is no graph."""
    theta = family.theta.clone().requires_grad_()
    with torch.no_grad():
        parts = parts_of(family.model)
        z, baseline = parts.draw_posterior(x, source), parts.log_weight(x, parts.draw_posterior(x, source))
    with torch.enable_grad():
        log_w, log_q = family.evaluate(theta, _asked(x, z)).unbind(0)
        value = (log_w + (log_w.detach() - baseline) * log_q).mean()
    slope = torch.autograd.grad(value, theta, allow_unused=True)[0] if value.requires_grad else None
    return default if slope is None else slope


def _slopes(family: _Family, x: Tensor, source: torch.Generator) -> Tensor:
    """(n, m): the derivative of each row's bound along each direction, by autograd.

    The gradient of sum_i w_i elbo(x_i) is linear in w; its slope in w_i is the gradient of row i.
    """
    theta = family.theta.clone().requires_grad_()
    value = _bound(family, theta, x, source)
    with torch.enable_grad():
        weights = torch.ones_like(value, requires_grad=True)
        (gradient,) = torch.autograd.grad(value @ weights, theta, create_graph=True)
        columns = [
            torch.autograd.grad(gradient @ direction, weights, retain_graph=True)[0] for direction in family.directions
        ]
    return torch.stack(columns, 1).detach().double()


def _compared(family: _Family, x: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """(n, m) twice: slopes by autograd, and by the score function as a difference."""
    slopes = _slopes(family, x, source)
    with torch.no_grad():
        parts = parts_of(family.model)
        z, other = parts.draw_posterior(x, source), parts.draw_posterior(x, source)
        baseline, log_q = parts.log_weight(x, other), parts.log_posterior(z, x)
        columns = []
        for direction in family.directions:
            ends = []
            for sign in (1.0, -1.0):
                log_w, moved = family.evaluate(family.theta + sign * STEP * direction, _asked(x, z)).unbind(0)
                ends.append((moved - log_q).exp() * (log_w - baseline))
            columns.append((ends[0] - ends[1]) / (2 * STEP))
    return slopes, torch.stack(columns, 1)


def _asked(x: Tensor, z: Tensor) -> Callable[[Model], Tensor]:
    """The question for log w and log q at fixed (z, x), (2, n)."""

    def ask(model: Model) -> Tensor:
        parts: Any = parts_of(model)
        return torch.stack([parts.log_weight(x, z), parts.log_posterior(z, x)])

    return ask


@statistical(
    "latent.reparameterised_gradient",
    needs=("sample", "elbo", "prior", "likelihood", "latent_posterior"),
    blocked_by=("latent.elbo_well_formed", "latent.parts_agree", "latent.bound_matches_parts", "sample.finite"),
    start=_start,
    tolerance=4.0,
    asymptotic=True,
    unit="sd of the slopes",
    source="Kingma & Welling 2014, https://arxiv.org/abs/1312.6114; "
    "Mohamed et al. 2020, https://jmlr.org/papers/v21/19-346.html",
)
def reparameterised_gradient(draws: Draws) -> Tensor:
    r"""E[d elbo_theta(x) / d theta] = d/d theta E_q[log w], along directions: as a score-function gradient has it.

    The latter is the difference of r log w at theta +- h v, over 2 h, at fixed z from q_theta with the likelihood ratio
    r = q_{theta +- h v}(z) / q_theta(z): no gradient, and no z that moves. "The mean of the gradient" of log w at
    fixed z leaves out that q has the parameters as well, and so does a draw that was detached. The mean of r is 1, so
    that an independent log w may be taken off, which leaves less noise.
    """
    subject = draws.subject
    family = subject.once("family of the bound", lambda: _family(subject))
    x = family.events(draws.x)
    slopes, differences = _compared(family, x, subject.generator("bound", "slopes", draws.index))
    noise = torch.randn(
        slopes.shape,
        generator=subject.generator("bound", "dither", draws.index),
        dtype=torch.float64,
        device=slopes.device,
    )
    return (slopes - differences) / family.units + DITHER * noise
