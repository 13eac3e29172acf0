"""What a factor of an autoregressive density may see: the coordinates before its own, and those of its field."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from harness.checks.factors import NEEDS, WELL, Factors, conditionals, factors_of, field_of, several, some
from harness.checks.law import Check, NotApplicable, exact
from harness.checks.rounding import ELEMENTARY, LAMBDA, compared, difference
from harness.checks.surface import broken
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.subject import Subject

MASKS = (
    "Germain et al. 2015, https://arxiv.org/abs/1502.03509; van den Oord et al. 2016, https://arxiv.org/abs/1601.06759"
)

CUTS = 512
"""Most places of the order at which it is cut."""

PAIRED = 256
"""Rows that are compared at least, where an event has few coordinates."""

JACOBIAN_COLUMNS, JACOBIAN_ROWS = 16, 8


@exact("autoregressive.causal_by_perturbation", needs=NEEDS, blocked_by=(WELL,), unit="nat", source=MASKS)
def causal_by_perturbation(subject: Subject) -> Exact:
    """log p(x_i | ...) does not change when coordinates after i in the ordering do.

    The order is cut at every place (at 512 of a longer event), and all that comes after the cut is taken from another
    draw. What comes before, the coordinate at the cut itself included, stays as it is, and so do its columns, but for
    rounding: a product of other numbers may be summed in another way. A mask that lets a pixel see its successor, or
    channels in another order than R, G, B, is found here; one that lets it see itself, by `each_normalised`.
    """
    factors = factors_of(subject)
    several(factors.d)
    base, other, cuts = _cut(factors)
    place = torch.tensor(factors.place, device=base.device)
    later = place > cuts[:, None]  # (n, d)
    return _unchanged(factors, base, torch.where(later, other, base), ~later, "the order cut after place", cuts)


def _cut(factors: Factors) -> tuple[Tensor, Tensor, Tensor]:
    """Rows: draws, other draws, and the last place (n,) that is kept of each."""
    d, x = factors.d, factors.draws
    source = torch.Generator().manual_seed(factors.subject.seed_for("cuts"))
    cuts = torch.randperm(d - 1, generator=source)[:CUTS].sort().values
    cuts = cuts.repeat(max(1, PAIRED // len(cuts))).to(x.device)
    first = torch.randint(len(x), (len(cuts),), generator=source)
    second = (first + torch.randint(1, max(2, len(x)), (len(cuts),), generator=source)) % len(x)
    return x[first.to(x.device)], x[second.to(x.device)], cuts


def _unchanged(factors: Factors, base: Tensor, moved: Tensor, kept: Tensor, what: str, label: Tensor) -> Exact:
    """Evidence that columns are as they were where `kept` (n, d) is true."""
    before, after = factors.columns(base), factors.columns(moved)
    errors = torch.where(kept, difference(before, after), 0.0)
    bounds = factors.bounds(torch.where(before.isfinite(), before, 0.0))
    excess = torch.where(errors == 0, 0.0, errors / bounds)
    row, column = divmod(int(excess.argmax()), factors.d)
    where = f"coordinate {column}, {what} {int(label[row])}" if float(errors[row, column]) > 0 else ""
    seen = compared(errors.flatten(), bounds.flatten(), factors.subject.effort.tolerance, where)
    return replace(seen, n=len(base))


@exact(
    "autoregressive.causal_by_jacobian",
    needs=NEEDS,
    blocked_by=(WELL, "autoregressive.causal_by_perturbation", "log_prob.gradient_finite"),
    unit="nat per sd of the coordinate",
    source=MASKS,
)
def causal_by_jacobian(subject: Subject) -> Exact:
    """d log p(x_i | ...) / d x_j = 0 for every j after i in the ordering, by autograd.

    Triangular, in that order, at every draw: a leak too small to be seen in a density steers a gradient all the same.
    In float64 where the model can be had in it, for up to 16 columns. Of discrete events only where conditionals are
    finite between their values too, as those of a formula in x are; else there is nothing to differentiate.
    """
    factors = factors_of(subject)
    several(factors.d)
    model, x = _fine(factors)
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        value = conditionals(model, leaf)
    if not value.requires_grad:
        raise NotApplicable("conditionals keep no graph")
    unit = max(factors.unit if model is subject.model else 0.0, torch.finfo(value.dtype).eps / 2)
    spread = factors.draws.double().std(0).to(x)
    place = torch.tensor(factors.place)
    errors, sizes, n = [], [], len(x)
    for i in some(factors, list(factors.order), JACOBIAN_COLUMNS):
        (slope,) = torch.autograd.grad(value[:, i].sum(), leaf, retain_graph=True, allow_unused=True)
        slope = torch.zeros_like(x) if slope is None else slope
        slope = (slope.reshape(n, -1) * spread).double().abs().nan_to_num(math.inf, math.inf)
        later = (place > factors.place[i]).to(x.device)
        errors.append(torch.where(later, slope, 0.0).amax(1))
        sizes.append(torch.where(later, 0.0, slope).amax(1))
    error, size = torch.stack(errors), torch.stack(sizes)
    bound = LAMBDA * (ELEMENTARY + factors.d) ** 0.5 * unit * (1 + size.nan_to_num(0.0, 0.0))
    column, row = divmod(int((error - bound).argmax()), n)
    where = f"coordinate {some(factors, list(factors.order), JACOBIAN_COLUMNS)[column]} at draw {row}"
    return Exact(float(error[column, row]), float(bound[column, row]), n, where)


def _fine(factors: Factors):  # type: ignore[no-untyped-def]  # (Model, events)
    """The model in float64 where it answers in that, and draws; NotApplicable where they cannot be moved a little."""
    subject = factors.subject
    x = subject.pilot[:JACOBIAN_ROWS]
    if not x.is_floating_point():
        raise NotApplicable(f"events are {x.dtype}, which has no derivatives")
    if bool(subject.profile.chart.discrete.any()):
        try:
            with torch.no_grad():
                between = conditionals(subject.model, x + 0.37)
        except (ValueError, IndexError, RuntimeError) as refusal:
            if out_of_memory(refusal):
                raise
            between = torch.full((1,), -math.inf)
        if not bool(between.isfinite().all()):
            raise NotApplicable("events are discrete, and between their values there are no conditionals")
    if subject.model.cast is not None:
        try:
            wide = subject.model.cast(torch.float64)
            if conditionals(wide, x[:1].double()).dtype == torch.float64:
                return wide, x.double()
        except Exception as refusal:  # a model that has only one dtype
            if out_of_memory(refusal):
                raise
    return subject.model, x


@exact(
    "autoregressive.receptive_field",
    needs=("conditionals", "receptive_field"),
    blocked_by=(WELL, "autoregressive.causal_by_perturbation"),
    unit="nat",
    source=MASKS,
)
def receptive_field(subject: Subject) -> Exact:
    """log p(x_i | ...) does not change when coordinates outside of its stated field do; and the field comes before i.

    All of them at once, for every i (512 of a longer event). That it does change with what is inside is a statement
    about some parameters, not about these: where nothing inside of any field matters, the verdict is left open.
    """
    factors = factors_of(subject)
    several(factors.d)
    d, x = factors.d, factors.draws
    field = field_of(subject.model, d).to(x.device) & ~torch.eye(d, dtype=torch.bool, device=x.device)
    place = torch.tensor(factors.place, device=x.device)
    ahead = field & (place >= place[:, None])
    if bool(ahead.any()):
        i, j = ahead.nonzero()[0].tolist()
        return broken([f"coordinate {i} is said to see {j}, which comes after it in the ordering"], d)
    source = torch.Generator().manual_seed(subject.seed_for("fields"))
    which = torch.randperm(d, generator=source)[:CUTS].sort().values
    which = which.repeat(max(1, PAIRED // len(which))).to(x.device)
    rows = torch.arange(len(which), device=x.device) % len(x)
    base, other = x[rows], x[(rows + 1 + torch.arange(len(which), device=x.device) // len(x)) % len(x)]
    own = torch.zeros(len(which), d, dtype=torch.bool, device=x.device)
    own[torch.arange(len(which)), which] = True
    outside = ~field[which] & ~own
    seen = _unchanged(factors, base, torch.where(outside, other, base), own, "outside of the field of", which)
    if seen.error > seen.allowed or not bool(field.any()):
        return seen
    inside = torch.where(field[which], other, base)
    changed = (difference(factors.columns(inside), factors.columns(base)) * own).amax()
    if float(changed) > 0:
        return seen
    return Exact(1.0, 0.0, seen.n, "nothing inside of any field matters, with these parameters", "", uncertainty=1.0)


CHECKS: tuple[Check, ...] = (causal_by_perturbation, causal_by_jacobian, receptive_field)
