"""Gradients of the likelihood: over batches of the data, and in expectation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.checks.fitting import FISHER, SOUND, gradient, parameters_of, require_finite
from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.draws import Draws
from harness.evidence import Exact
from harness.model import Model
from harness.statistics.asymptotic import AsymptoticMean
from harness.subject import Subject

BESIDE = 0.25
"""Length of the step from the truth to the parameters at which gradients are compared."""


@exact(
    "estimation.minibatch_gradient_is_unbiased",
    needs=("sample", "log_prob", "parameters", "with_parameters"),
    blocked_by=SOUND,
    unit="relative",
    source="Robbins & Monro 1951, https://doi.org/10.1214/aoms/1177729586",
)
def minibatch_gradient_is_unbiased(subject: Subject) -> Exact:
    """The mean gradient over the batches of a partition of the data is the gradient over all data.

    The mean log-likelihood is a mean over rows; a gradient that depends on the company of a row (batch statistics, a
    sum where a mean is due) is another objective's.
    """
    x = subject.sample(256, "estimation", "batches")
    theta = parameters_of(subject.model)
    require_finite(theta)
    whole = _mean_gradient(subject.model, theta, x)
    parts = [_mean_gradient(subject.model, theta, part) for part in x.split(32)]
    size = torch.stack([part.abs() for part in parts]).mean()
    error = (torch.stack(parts).mean(0) - whole).abs().max() / size if float(size) > 0 else torch.tensor(0.0)
    value = float(error)
    allowed = 64 * len(x) * torch.finfo(whole.dtype).eps
    return Exact(math.inf if math.isnan(value) else value, allowed, len(x), "8 batches of 32", "relative")


def _start_slope(subject: Subject) -> AsymptoticMean:
    subject.once("slope of the divergence", lambda: _slope(subject))
    return AsymptoticMean(rarest=subject.effort.rarest)


@statistical(
    "estimation.gradient_is_that_of_the_divergence",
    needs=("sample", "log_prob", "kl", "parameters", "with_parameters"),
    start=_start_slope,
    blocked_by=(*SOUND, "information.kl_to_itself_is_zero"),
    tolerance=4.0,
    share=0.5,
    asymptotic=True,
    unit="sd of the slope",
    source=FISHER,
)
def gradient_is_that_of_the_divergence(draws: Draws) -> Tensor:
    """E_p d/d theta log p_theta(x) = -d/d theta KL(p || p_theta), along a direction, at parameters beside the truth.

    KL = E log p - E log p_theta, and the first term has no theta: to climb the expected log-likelihood is to descend
    the divergence.
    """
    subject = draws.subject
    at = subject.once("slope of the divergence", lambda: _slope(subject))
    return (_slopes(subject.model, at.theta, at.direction, draws.x) + at.divergence) / at.sd


@dataclass(frozen=True)
class _Slope:
    """Where and along what (k,) the likelihood is differentiated, dKL there, and the sd of d log p over draws."""

    theta: Tensor
    direction: Tensor
    divergence: float
    sd: float


def _slope(subject: Subject) -> _Slope:
    model = subject.model
    truth = parameters_of(model)
    require_finite(truth)
    source = torch.Generator().manual_seed(subject.seed_for("estimation slope"))
    direction = torch.randn(len(truth), generator=source, dtype=torch.float64).to(truth)
    direction = direction / direction.norm()
    theta = truth + BESIDE * direction
    divergence = float(gradient(model, theta, model.kl) @ direction)
    sd = float(_slopes(model, theta, direction, subject.pilot).double().std())
    if not (math.isfinite(divergence) and math.isfinite(sd) and sd > 0):
        raise NotApplicable("the likelihood has no finite slope beside the truth")
    return _Slope(theta, direction, divergence, sd)


def _slopes(model: Model, theta: Tensor, direction: Tensor, x: Tensor) -> Tensor:
    """(n,): the derivative of log p_theta(x_i) along a direction (k,), for every row at once.

    The gradient of sum_i w_i log p(x_i) is linear in w; its slope in w_i is the gradient of row i.
    """
    with torch.enable_grad():
        theta = theta.clone().requires_grad_()
        log_p = model.with_parameters(theta).log_prob(x)
        weights = torch.ones_like(log_p, requires_grad=True)
        (slope,) = torch.autograd.grad(log_p @ weights, theta, create_graph=True)
        (rows,) = torch.autograd.grad(slope @ direction, weights)
    return rows.detach()


def _mean_gradient(model: Model, theta: Tensor, x: Tensor) -> Tensor:
    return gradient(model, theta, lambda at: at.log_prob(x).mean())


CHECKS: tuple[Check, ...] = (minibatch_gradient_is_unbiased, gradient_is_that_of_the_divergence)
