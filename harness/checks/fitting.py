"""A model's own `fit` at work: the data that it is given, the models that come back, and how they are compared.

Two estimates from the same data are compared by what the data say of them: the total log-likelihood, in nats. Where it
differs by less than `INDISTINCT`, the likelihood ratio is within 0.3 % of 1, and no use of the data tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.checks.law import NotApplicable
from harness.checks.oracle import noise_of
from harness.contract import attribute
from harness.errors import out_of_memory
from harness.model import Model
from harness.subject import Subject

INDISTINCT = 0.003
"""Nats of total log-likelihood by which two estimates may differ and still be the same for every purpose."""

ENLARGEMENTS = 4
"""How often the data are made four times larger when `fit` refuses them as too few."""

FISHER = (
    "Fisher 1922, On the mathematical foundations of theoretical statistics, https://doi.org/10.1098/rsta.1922.0009"
)

SOUND = ("sample.finite", "support.draws_are_possible")
"""What has to pass before a likelihood of draws says anything."""

STEPS = ("history", "n_iter_")
"""Attributes by which a fitted model says that it was found step by step."""


def draws_for_fit(subject: Subject, name: str, n: int) -> Tensor:
    """n draws, or the least n * 4^i that `fit` accepts: some estimators need more draws than parameters."""

    def find() -> Tensor:
        for i in range(ENLARGEMENTS + 1):
            x = subject.sample(n * 4**i, "estimation", name)
            try:
                fit(subject, x)
            except (ValueError, RuntimeError) as refusal:
                if i == ENLARGEMENTS or out_of_memory(refusal):
                    raise
                continue
            break
        return x

    return subject.once(f"estimation draws {name} {n}", find)


def size_of(subject: Subject, per_dimension: int) -> int:
    """Rows for an event of d numbers: `per_dimension` times d + 1."""
    return per_dimension * (subject.pilot[0].numel() + 1)


def fit(subject: Subject, x: Tensor) -> Model:
    """The model that `fit` returns. Raises ValueError where it returns none."""
    fitted = subject.model.fit(x)
    if not isinstance(fitted, Model) or not fitted.can("log_prob"):
        raise ValueError(f"fit(x) returned a {type(fitted).__name__}, not a model that has log_prob")
    return fitted


def log_likelihoods(model: Model, x: Tensor) -> Tensor:
    """(n,) in float64, without a graph."""
    with torch.no_grad():
        return model.log_prob(x).detach().to("cpu", torch.float64)


def total(model: Model, x: Tensor) -> float:
    """The log-likelihood of all rows together, in nats."""
    return float(log_likelihoods(model, x).sum())


def difference(one: float, other: float) -> float:
    """|one - other|, where two likelihoods that are both infinite do not differ."""
    return 0.0 if one == other else abs(one - other)


def likelihood_rounding(subject: Subject, x: Tensor) -> float:
    """By how much, in nats, rounding may move a total log-likelihood of the rows x."""
    size = log_likelihoods(subject.model, x).abs()
    return len(x) * noise_of(subject) * (1 + float(size[size.isfinite()].mean()))


def steps_of(fitted: Model) -> str:
    """The name of the attribute by which the model says that it was fitted step by step; empty when it says nothing."""
    found = (name for name in STEPS if attribute(fitted.target, name) is not None)
    return next(found, "")


def history_of(fitted: Model) -> Tensor | None:
    """The log-likelihood after each step of the fit (m,), where the model keeps it as `history`."""
    kept: Any = attribute(fitted.target, "history")
    kept = kept() if callable(kept) else kept
    if kept is None:
        return None
    return torch.as_tensor(kept).detach().to("cpu", torch.float64).flatten()


def parameters_of(model: Model) -> Tensor:
    """The free parameters (k,) as a leaf of their own. Raises ValueError for anything but a vector of numbers."""
    theta = model.parameters()
    if not isinstance(theta, Tensor) or theta.dim() != 1 or not theta.is_floating_point():
        seen = f"shape {tuple(theta.shape)}" if isinstance(theta, Tensor) else f"type {type(theta).__name__}"
        raise ValueError(f"parameters() has {seen}, not a vector of floating numbers")
    return theta.detach().clone()


def require_finite(theta: Tensor) -> None:
    if not bool(theta.isfinite().all()):
        raise NotApplicable("the parameters are not finite: the model lies on the edge of its family")


def ascend(model: Model, theta: Tensor, x: Tensor, steps: int = 10) -> float:
    """The largest total log-likelihood of x that L-BFGS finds from `theta`, itself included."""
    theta = theta.clone().requires_grad_()
    best = -math.inf
    optimiser = torch.optim.LBFGS([theta], max_iter=steps, line_search_fn="strong_wolfe", tolerance_change=0.0)

    def loss() -> Tensor:
        nonlocal best
        optimiser.zero_grad()
        value = -model.with_parameters(theta).log_prob(x).mean()
        value.backward()
        reached = -float(value.detach().double()) * len(x)
        best = max(best, reached) if math.isfinite(reached) else best
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[arg-type]
    return best


def gradient(model: Model, theta: Tensor, objective: Callable[[Model], Tensor]) -> Tensor:
    """d objective(model at theta) / d theta (k,)."""
    theta = theta.clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(objective(model.with_parameters(theta)), theta)
    return slope.detach()
