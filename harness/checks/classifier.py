r"""Classifiers, p(y | x) of labels y = 0, 1, ...: that it is a law, that Bayes' rule makes it, that it is calibrated.

    p(x) = sum_y p(y) p(x | y),     p(y | x) = p(y) p(x | y) / p(x)

A generative classifier has a law of x for each label, and a `class_prior`; it is asked at its own draws. A model of the
label alone has a law of y for each x; it is asked at standard normal x of its `given_shape`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from harness.checks.blocks import agree
from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.pairing import chosen_coordinates
from harness.checks.rounding import ELEMENTARY, LAMBDA, compared
from harness.draws import Draws
from harness.evidence import Exact
from harness.model import Model
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

BAYES = "Bayes 1763, https://doi.org/10.1098/rstl.1763.0053"
DAWID = "Dawid 1982, The well-calibrated Bayesian, https://doi.org/10.1080/01621459.1982.10477856"

ROWS = 256
TRIED = 32
"""Points at which the posterior is worked out another way, once a class."""

MOST_CLASSES = 16
"""Classes that are watched; of more, as many chosen at random."""


@exact("classifier.posterior_sums_to_one", needs=("posterior",), unit="probability", source=BAYES)
def posterior_sums_to_one(subject: Subject) -> Exact:
    """0 <= p(y | x) <= 1 and sum_y p(y | x) = 1 for every x; the same of p(y), where it is stated.

    A tensor [n, classes] of floating numbers, of which rounding alone may move the sums of the rows.
    """
    rows = {"p(y | x)": _posterior(subject.model, subject.pilot[:ROWS])}
    if subject.model.can("class_prior"):
        rows["p(y)"] = _prior(subject.model, rows["p(y | x)"].shape[1])[None]
    seen = []
    for name, p in rows.items():
        unit = torch.finfo(p.dtype).eps / 2
        allowed = LAMBDA * (ELEMENTARY + p.shape[1]) ** 0.5 * unit
        below = (-p.double()).amax(1).clamp(min=0)  # a negative number is wrong however small it is: no sum makes one
        error = (p.double().sum(1) - 1).abs() + torch.where(below > 0, below + allowed, 0.0)
        worst = int(error.nan_to_num(torch.inf).argmax())
        where = f"{name} of row {worst}: sum {float(p[worst].sum()):.9g}, least {float(p[worst].min()):.3g}"
        seen.append(Exact(float(error.nan_to_num(torch.inf).max()), allowed, len(p), where, "probability"))
    return max(seen, key=lambda each: each.error - each.allowed)


def _posterior(model: Model, x: Tensor) -> Tensor:
    """(n, classes). Raises ValueError for anything else."""
    with torch.no_grad():
        p = model.posterior(x)
    if not isinstance(p, Tensor) or not p.is_floating_point() or p.ndim != 2 or len(p) != len(x) or not p.shape[1]:
        seen = f"{tuple(p.shape)} {p.dtype}" if isinstance(p, Tensor) else type(p).__name__
        raise ValueError(
            f"posterior() of {tuple(x.shape)} is {seen}, not a floating tensor of shape ({len(x)}, classes)"
        )
    return p


def _prior(model: Model, classes: int) -> Tensor:
    """(classes,). Raises ValueError for anything else."""
    p = model.class_prior()
    if not isinstance(p, Tensor) or not p.is_floating_point() or p.shape != (classes,):
        seen = f"{tuple(p.shape)} {p.dtype}" if isinstance(p, Tensor) else type(p).__name__
        raise ValueError(
            f"class_prior() is {seen}, not a floating tensor of shape ({classes},) as the posterior's rows"
        )
    return p


def _log_joint(model: Model, x: Tensor) -> Tensor:
    """(n, classes): log p(y) + log p(x | y), in float64."""
    prior = model.class_prior().double()
    columns = [model.log_prob_given(x, given=_label(y, x)).double() for y in range(len(prior))]
    return prior.log() + torch.stack(columns, 1)


def _label(y: int, x: Tensor) -> Tensor:
    """(n,): the label y for every row."""
    return torch.full((len(x),), y, dtype=torch.int64, device=x.device)


@exact(
    "classifier.total_probability",
    needs=("log_prob", "log_prob_given", "class_prior"),
    blocked_by=("classifier.posterior_sums_to_one",),
    unit="nat",
    source=BAYES,
)
def total_probability(subject: Subject) -> Exact:
    """p(x) = sum_y p(y) p(x | y).

    At draws, in logarithms; rounding is bounded as in `checks.rounding`.
    """
    errors, bounds = agree(subject, subject.pilot[:TRIED], _total, (1, -1))
    return compared(errors, bounds, subject.effort.tolerance)


def _total(model: Model, x: Tensor) -> Tensor:
    return torch.stack([model.log_prob(x).double(), _log_joint(model, x).logsumexp(1)], 1)


@exact(
    "classifier.bayes_rule",
    needs=("posterior", "log_prob_given", "class_prior"),
    blocked_by=("classifier.posterior_sums_to_one",),
    unit="probability",
    source=BAYES,
)
def bayes_rule(subject: Subject) -> Exact:
    """p(y | x) = p(y) p(x | y) / sum_y' p(y') p(x | y').

    For each class at draws. Where log p(x, y) is large, its rounding moves the posterior in proportion, and counts.
    """
    return _worst(subject, _by_bayes)


def _by_bayes(y: int, model: Model, x: Tensor) -> Tensor:
    """(n, 3): the posterior of y, Bayes' rule, and the size of the logarithms that it is made of."""
    joint = _log_joint(model, x)
    size = torch.where(joint.isfinite(), joint.abs(), 0.0).amax(1)
    return torch.stack([_posterior(model, x)[:, y].double(), joint.softmax(1)[:, y], size], 1)


@exact(
    "classifier.posterior_is_log_prob",
    needs=("posterior", "log_prob_given"),
    blocked_by=("classifier.posterior_sums_to_one",),
    unit="probability",
    source=BAYES,
)
def posterior_is_log_prob(subject: Subject) -> Exact:
    """p(y | x) = exp(log_prob(y, given=x)), of a model of the label alone.

    Its events are labels, and the posterior lists the probabilities of all of them.
    """
    if subject.model.can("class_prior") or subject.model.given_shape is None:
        raise NotApplicable("log_prob(x, given=y) is a law of x here; see classifier.bayes_rule")
    return _worst(subject, _by_log_prob)


def _by_log_prob(y: int, model: Model, x: Tensor) -> Tensor:
    """(n, 3): the posterior of y, exp log p(y | x), and |log p(y | x)|."""
    log_p = model.log_prob_given(_label(y, x), given=x).double()
    size = torch.where(log_p.isfinite(), log_p.abs(), 0.0)
    return torch.stack([_posterior(model, x)[:, y].double(), log_p.exp(), size], 1)


def _worst(subject: Subject, terms: Callable[[int, Model, Tensor], Tensor]) -> Exact:
    """Evidence that the first two of the terms agree for the classes that are watched; the third bounds rounding."""
    x = subject.pilot[:TRIED]
    seen = []
    for y in _watched(subject, _posterior(subject.model, x).shape[1]):
        errors, bounds = agree(_rounded(subject), x, partial(terms, y), (1, -1, 0))
        evidence = compared(errors, bounds, subject.effort.tolerance, f"class {y}")
        seen.append(replace(evidence, unit="probability"))
    return max(seen, key=lambda each: each.error - each.allowed - each.uncertainty)


def _rounded(subject: Subject) -> Subject:
    """The subject; where it has no log_prob, with the one of class 0 instead, by which its arithmetic is known."""

    def closed(model: Model) -> Model:
        methods = {**model.methods, "log_prob": lambda x: model.posterior(x)[:, 0].log()}
        cast = model.cast
        return replace(model, methods=methods, cast=None if cast is None else lambda dtype: closed(cast(dtype)))

    if subject.model.can("log_prob"):
        return subject
    return subject.once("closed", lambda: Subject(closed(subject.model), subject.effort, subject.seed))


def _watched(subject: Subject, classes: int) -> list[int]:
    """The classes that are looked at one by one."""
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(subject.seed_for("classes")))
    return order[:MOST_CLASSES].sort().values.tolist()


def _labels(subject: Subject) -> list[str]:
    functions = ["", " times p", *(f" times tanh z_{j}" for j in chosen_coordinates(subject).tolist())]
    classes = _watched(subject, _posterior(subject.model, subject.pilot[:1]).shape[1])
    return [f"class {y}{function}" for function in functions for y in classes]


def _start(subject: Subject) -> BoundedMean:
    if subject.model.given_shape is None and not subject.model.can("class_prior"):
        raise NotApplicable("labels cannot be drawn: the model has neither class_prior() nor a given_shape")
    bound = 1 + 1e-6  # of a residual, whose posterior may exceed 1 by rounding
    return BoundedMean(-bound, bound)


@statistical(
    "classifier.calibrated",
    needs=("posterior", "sample_given"),
    blocked_by=("classifier.posterior_sums_to_one",),
    start=_start,
    labels=_labels,
    unit="probability",
    source=DAWID,
)
def calibrated(draws: Draws) -> Tensor:
    """E[(1{y = c} - p(c | x)) g(x)] = 0 over pairs (x, y) of the model, for every class c and every bounded g.

    Among all x at which a class has a posterior of 30 %, it is the right one in 30 %. g is 1, the posterior itself, and
    tanh of the coordinates. Pairs are a label from `class_prior` and x given it, or x and a label given that.
    """
    subject = draws.subject
    x, y = _pairs(draws)
    p = _posterior(subject.model, x).double()
    classes = _watched(subject, p.shape[1])
    p = p[:, classes]
    residual = (y[:, None] == torch.tensor(classes, device=y.device)).double() - p  # (n, classes)
    z = torch.tanh(subject.profile.chart.coordinates(x)[:, chosen_coordinates(subject)])
    columns = [residual, residual * (2 * p - 1), *(residual * g[:, None] for g in z.unbind(1))]
    return torch.cat(columns, 1)


def _pairs(draws: Draws) -> tuple[Tensor, Tensor]:
    """x (n, *event) and labels y (n,) from their joint law."""
    subject, model, n = draws.subject, draws.subject.model, draws.n
    source = subject.generator("labels", draws.index)
    if not model.can("class_prior"):
        y = model.sample_given(n, given=draws.x, generator=source)
        return draws.x, _checked(y, (n,), "labels")
    prior = model.class_prior().detach().double()
    y = torch.multinomial(prior, n, replacement=True, generator=source)
    return _checked(model.sample_given(n, given=y, generator=source), (n, *subject.pilot.shape[1:]), "draws"), y


def _checked(drawn: object, shape: tuple[int, ...], what: str) -> Tensor:
    if not isinstance(drawn, Tensor) or drawn.shape != shape:
        seen = f"of shape {tuple(drawn.shape)}" if isinstance(drawn, Tensor) else f"a {type(drawn).__name__}"
        raise ValueError(f"sample({shape[0]}, given=...) is {seen}; {what} of shape {shape} were asked for")
    return drawn.detach()


CHECKS: tuple[Check, ...] = (
    posterior_sums_to_one,
    total_probability,
    bayes_rule,
    posterior_is_log_prob,
    calibrated,
)
