"""Vector events cut into blocks: which cuts are tried, at which points, and how far rounding moves log-densities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.checks.law import NotApplicable
from harness.checks.precision import working_unit
from harness.checks.rounding import ELEMENTARY, LAMBDA, SAFETY, difference, working_dtype
from harness.errors import out_of_memory
from harness.model import Model
from harness.subject import Subject

POINTS = 8
"""Draws at which an identity between log-densities is tried, and as many points made by mixing two draws."""

Terms = Callable[[Model, Tensor], Tensor]
"""(model, events (n, d)) -> (n, k): the log-densities of which an identity is made."""


def size_of(subject: Subject) -> int:
    """The number d of coordinates. Raises NotApplicable where an event is no vector of two or more."""
    shape = tuple(subject.pilot.shape[1:])
    if len(shape) != 1 or shape[0] < 2:
        raise NotApplicable(f"blocks are those of a vector of two or more numbers, and an event has shape {shape}")
    return shape[0]


def cuts(d: int) -> list[list[int]]:
    """Blocks that are tried: the last coordinate, the first half, and every other one from the end on."""
    wanted = ([d - 1], list(range(d // 2)), list(range(0, d, 2))[::-1])
    return [list(block) for block in dict.fromkeys(map(tuple, wanted)) if len(block) < d]


def rest(a: Sequence[int], d: int) -> list[int]:
    """The coordinates that are not in a, in their order."""
    return [i for i in range(d) if i not in set(a)]


def points(subject: Subject) -> Tensor:
    """(n, d): draws, and draws of which every other coordinate is another draw's."""
    x = subject.pilot[:POINTS]
    mixed = x.clone()
    mixed[:, ::2] = x.roll(1, 0)[:, ::2]
    return torch.cat([x, mixed])


def marginal(model: Model, a: Sequence[int]) -> Model:
    """The model of x_a. Raises ValueError where it is none."""
    return _model(model.marginal(list(a)), "marginal")


def conditional(model: Model, a: Sequence[int], values: Tensor) -> Model:
    """The model of the other coordinates given x_a = values. Raises ValueError where it is none."""
    return _model(model.conditional(list(a), values), "conditional")


def _model(answer: object, name: str) -> Model:
    if not isinstance(answer, Model):
        raise ValueError(f"{name}() returned a {type(answer).__name__}, not a model")
    return answer


def log_marginal(model: Model, a: Sequence[int], x: Tensor) -> Tensor:
    """(n,): log p(x_a) at events x (n, d)."""
    part = marginal(model, a)
    if not part.can("log_prob"):
        raise NotApplicable("marginal() returns models without log_prob")
    return part.log_prob(x[:, list(a)]).double()


def log_conditional(model: Model, a: Sequence[int], x: Tensor, possible: Tensor) -> Tensor:
    """(n,): log p(x_b | x_a), one model a row; 0 at rows that are not `possible`, where there is no such law."""
    b = rest(a, x.shape[1])
    values = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for i in possible.nonzero().flatten().tolist():
        part = conditional(model, a, x[i, list(a)])
        if not part.can("log_prob"):
            raise NotApplicable("conditional() returns models without log_prob")
        values[i] = part.log_prob(x[i : i + 1, b]).double()[0]
    return values


def agree(subject: Subject, x: Tensor, terms: Terms, signs: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(n,) error of sum_i signs_i terms_i = 0 at x (n, *event), and (n,) how much of it rounding can explain.

    Rounding is bounded as in `checks.rounding`; how much the formulas amplify it is measured in a second dtype, in
    which the model is rebuilt, or else by moving the events by one unit in the last place.
    """
    with torch.no_grad():
        found = terms(subject.model, x)
        other, unit_of_other = _again(subject, x, terms)
    sign = torch.tensor(signs, device=found.device)
    left, right = found[:, sign > 0].sum(1), found[:, sign < 0].sum(1)
    unit = max(torch.finfo(working_dtype(x, x)).eps / 2 if x.is_floating_point() else 2.0**-25, working_unit(subject))
    apart = difference(found, other).sum(1)
    amplified = float(apart[apart.isfinite()].max()) / unit_of_other if bool(apart.isfinite().any()) else 0.0
    size = found.abs().nan_to_num(0.0, 0.0, 0.0).sum(1) + found.shape[1]
    bound = LAMBDA * (ELEMENTARY + math.prod(x.shape[1:])) ** 0.5 * unit * size + SAFETY * amplified * unit
    return difference(left, right), bound


def _again(subject: Subject, x: Tensor, terms: Terms) -> tuple[Tensor, float]:
    """The terms once more, with other rounding, and the unit roundoff of the coarser of the two."""
    model = subject.model
    if model.cast is not None:
        try:
            wide = x.dtype == torch.float64
            narrow = x.to(torch.float32) if x.is_floating_point() else x
            if wide:
                apart = terms(model.cast(torch.float32), narrow) - terms(model, narrow.double())
                return terms(model, x) + apart, torch.finfo(torch.float32).eps / 2
            return terms(model.cast(torch.float64), x.double() if x.is_floating_point() else x), 2.0**-24
        except Exception as refusal:  # a model that has only one dtype
            if out_of_memory(refusal):
                raise
    if not x.is_floating_point() or bool(subject.profile.chart.discrete.any()):
        return terms(model, x), 2.0**-24
    return terms(model, torch.nextafter(x, torch.full_like(x, torch.inf))), torch.finfo(x.dtype).eps / 2
