r"""Autoregressive densities: that the conditionals are laws, strictly causal, and those that the sampler follows.

.. math:: \log p(x) = \sum_k \log p(x_{o_k} \mid x_{o_1}, \ldots, x_{o_{k-1}})

`conditionals` has a column for each coordinate of the flattened event, and `ordering` says which comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from harness.checks.factors import (
    NUMBERS,
    Factors,
    alphabet_of,
    conditionals,
    factors_of,
    field_of,
    order_of,
    refused,
    several,
    through,
)
from harness.checks.law import Check, NotApplicable, exact
from harness.checks.rosenblatt import rosenblatt
from harness.checks.rounding import ELEMENTARY, LAMBDA, SAFETY, compared, difference, rounding_bound
from harness.checks.surface import broken
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.numerics import integrate
from harness.states import limits
from harness.subject import Subject

NEEDS = ("conditionals",)
WELL = "autoregressive.well_formed"
BENGIO = "Bengio & Bengio 2000, https://papers.nips.cc/paper/1679; Larochelle & Murray 2011, NADE"
MASKS = (
    "Germain et al. 2015, https://arxiv.org/abs/1502.03509; van den Oord et al. 2016, https://arxiv.org/abs/1601.06759"
)

POINTS = 8
"""Draws at which an identity is tried, and as many mixtures of two of them."""

CUTS = 512
"""Most places of the order at which it is cut."""

PAIRED = 256
"""Rows that are compared at least, where an event has few coordinates."""

COORDINATES, CONTEXTS = 16, 8
"""Discrete conditionals that are summed, and draws whose context they are given."""

LINES, SLICES = 4, 3
"""The same of continuous ones, which are integrated."""

KNOTS = (48, 192)
"""Quantiles of draws between which they are; more of them before it is said that mass is missing."""

SEARCHED, PEAKS, HIGH = 2**11, 16, 40.0
"""Points among which the peaks of a line are looked for, most of these, and how many nats below the highest."""

JACOBIAN_COLUMNS, JACOBIAN_ROWS = 16, 8

BY_CHANCE = 1e-9
"""The probability at which what random draws show is taken for certain."""

SAMPLED = 256
"""Draws that both samplers make."""


@exact(WELL, needs=NEEDS, source=BENGIO)
def well_formed(subject: Subject) -> Exact:
    """conditionals(x) is a floating tensor [n, d], never NaN at draws; ordering() is a permutation of 0, ..., d - 1.

    And receptive_field() is a bool tensor [d, d]. A column is that of a coordinate of the flattened event, not of a
    place in the order.
    """
    x = subject.pilot[:POINTS]
    with torch.no_grad():
        found = conditionals(subject.model, x)
    d = found.shape[1]
    order_of(subject.model, d)
    if subject.model.can("receptive_field"):
        field_of(subject.model, d)
    wrong = found.isnan().any(1)
    return broken([f"NaN at {int(wrong.sum())} of {len(x)} draws"] if bool(wrong.any()) else [], len(x))


@exact(
    "autoregressive.sums_to_log_prob", needs=("conditionals", "log_prob"), blocked_by=(WELL,), unit="nat", source=BENGIO
)
def sums_to_log_prob(subject: Subject) -> Exact:
    """sum_i log p(x_i | the coordinates before it) = log_prob(x): d factors for d coordinates, by the chain rule.

    At draws and at mixtures of two draws that are possible.
    """
    factors = factors_of(subject)
    x = factors.events(_mixed(factors.draws))
    with torch.no_grad():
        log_p = subject.model.log_prob(x)
        x, log_p = x[log_p > -math.inf], log_p[log_p > -math.inf]
    if len(x) == 0:
        raise NotApplicable("the density is 0 at its own draws")
    found = factors.columns(x.reshape(len(x), -1))
    # Roundings of the columns are as likely up as down, so that those of their sum grow with the root of d.
    spread = factors.bounds(found).square().sum(1).sqrt()
    bounds = rounding_bound(subject, x, log_p).double() + LAMBDA * spread
    return compared(difference(found.sum(1), log_p), bounds, subject.effort.tolerance)


def _mixed(x: Tensor) -> Tensor:
    """(2 n, d): draws, and draws of which every other coordinate is another draw's."""
    x = x[:POINTS]
    mixed = x.clone()
    mixed[:, ::2] = x.roll(1, 0)[:, ::2]
    return torch.cat([x, mixed])


# Each a law of its coordinate


@exact("autoregressive.each_normalised", needs=NEEDS, blocked_by=(WELL,), unit="of the mass", source=BENGIO)
def each_normalised(subject: Subject) -> Exact:
    """sum_v p(x_i = v | the coordinates before it) = 1, or the integral of a continuous one, whatever came before.

    Column i where x_i takes every value and the other coordinates are those of a draw: for the first and last
    coordinate of the order, and some between, in the context of a few draws. Where no support is declared, mass may be
    at values that no draw took: a tenth of the tolerance passes, and too little is a defect only if so many draws could
    not have missed the rest. Mass may hide in a peak between the points of a quadrature too: too little of it is left
    open, for `density.integrates_to_one` and `density.bridge_mass` to say.
    """
    factors = factors_of(subject)
    discrete = subject.profile.chart.discrete.tolist()
    seen = [_summed(factors, i) for i in _some(factors, [i for i in factors.order if discrete[i]], COORDINATES)]
    seen += [_integrated(factors, i) for i in _some(factors, [i for i in factors.order if not discrete[i]], LINES)]
    return max(seen, key=_badness)


def _some(factors: Factors, among: list[int], most: int) -> list[int]:
    """The first, the last, and coordinates between them, chosen by the seed."""
    if len(among) <= most:
        return among
    source = torch.Generator().manual_seed(factors.subject.seed_for("conditionals that are summed"))
    between = (torch.randperm(len(among) - 2, generator=source)[: most - 2] + 1).sort().values.tolist()
    return [among[0], *(among[k] for k in between), among[-1]]


def _badness(seen: Exact) -> tuple[bool, bool, float]:
    """FAIL before INCONCLUSIVE before PASS, then by how much of what is allowed is used."""
    wrong = not seen.error <= seen.allowed + seen.uncertainty
    return wrong, not seen.error <= seen.allowed, seen.error / max(seen.allowed, 1e-300)


def _summed(factors: Factors, i: int) -> Exact:
    subject = factors.subject
    alphabet = alphabet_of(subject, i)
    k = len(alphabet.values)
    rows = max(1, min(CONTEXTS, 4 * NUMBERS // (COORDINATES * k * factors.d)))
    log_p = _at_values(factors, factors.draws[:rows], i, alphabet.values)
    p = log_p.exp().nan_to_num(math.inf)
    rounding = (p * factors.bounds(log_p)).sum(1).nan_to_num(math.inf) + 2 * k * torch.finfo(torch.float64).eps
    over = (p * alphabet.inside.to(p.device)).sum(1) - 1
    under = 1 - p.sum(1)
    where = f"coordinate {i}, {k} values"
    worst = int((over - rounding).argmax())
    if not float(over[worst]) <= float(rounding[worst]):
        return Exact(float(over[worst]), float(rounding[worst]), rows * k, where)
    worst = int((under - rounding).argmax())
    short, allowed = max(0.0, float(under[worst])), float(rounding[worst])
    if alphabet.complete or short <= allowed:
        return Exact(short, allowed, rows * k, where)
    allowed = max(allowed, subject.effort.tolerance / 10)
    # Values drawn from those laws were all inside; if sum_n M_n is the mass outside, that has probability exp(-sum M).
    missed = float(under.clamp(min=0).sum())
    certain = -math.log(BY_CHANCE) + 2 * math.log(k)
    unknown = 0.0 if short <= allowed or missed > certain else 1.0
    return Exact(short, allowed, rows * k, f"{where}, as far as draws show", uncertainty=unknown)


def _at_values(factors: Factors, x: Tensor, i: int, values: Tensor) -> Tensor:
    """(n, k): column i at the events x (n, d) with coordinate i set to each value; -inf where the model refuses it."""
    rows = through(x, i, values)
    try:
        return factors.columns(rows)[:, i].reshape(len(x), -1)
    except (ValueError, IndexError, RuntimeError) as refusal:
        if out_of_memory(refusal):
            raise
    one = [refused(lambda v=v: factors.columns(through(x, i, v))[:, i : i + 1], len(x)) for v in values.split(1)]  # type: ignore[misc]
    return torch.cat([column.to(x.device) for column in one], 1)


def _integrated(factors: Factors, i: int) -> Exact:
    """The line along coordinate i through a few draws.

    A peak can hide between the points of any quadrature, so that a mass below 1 is left open, while one above 1 is not.
    """
    subject, factors = factors.subject, factors.wide
    lower, upper = (float(end.flatten()[i]) for end in limits(subject.model, subject.pilot.shape[1:]))
    rounding = SAFETY * factors.unit * (factors.amplified + LAMBDA * ELEMENTARY**0.5)
    seen = []
    for row in range(min(SLICES, len(factors.draws))):
        at = factors.draws[row : row + 1].to(factors.dtype)

        def density(t: Tensor, at: Tensor = at) -> Tensor:
            return _at_values(factors, at, i, t[:, 0])[0].cpu()

        for count in KNOTS:
            knots = _knots(density, factors.draws[:, i], float(at[0, i]), count)
            options = {"lower": lower, "upper": upper, "dtype": factors.dtype, "noise": 16 * factors.unit}
            found = integrate(density, knots=knots, **options)  # type: ignore[arg-type]
            error = abs(found.total - 1)
            allowed = rounding + 2 * min(found.total_error, subject.effort.tolerance / 10)
            if error <= allowed:
                break
        if error <= allowed:
            unknown = 0.0 if found.total_error <= subject.effort.tolerance / 10 else math.inf
        else:
            unknown = found.total_error if found.converged and not found.total < 1 else math.inf
        where = f"coordinate {i} through draw {row}: {found.total:.9g}"
        seen.append(Exact(error if error == error else math.inf, allowed, found.points, where, uncertainty=unknown))
    return max(seen, key=_badness)


def _knots(density: Callable[[Tensor], Tensor], column: Tensor, place: float, count: int) -> Tensor:
    """Quantiles of draws, places around a draw at distances that fall by fours, and the peaks between many points."""
    column = column[column.isfinite()].cpu().double()[: 2**14]
    cuts = column.quantile(torch.linspace(0.0, 1.0, count, dtype=torch.float64))
    spread = float(cuts[-1] - cuts[0]) or 1.0
    steps = spread * 0.25 ** torch.arange(1, 9, dtype=torch.float64)
    even = torch.linspace(float(cuts[0]) - spread / 2, float(cuts[-1]) + spread / 2, SEARCHED, dtype=torch.float64)
    points = torch.cat([even, column[:SEARCHED]]).unique()
    log_p = density(points[:, None]).nan_to_num(-math.inf, math.inf)
    peaks = (log_p[1:-1] >= log_p[:-2]) & (log_p[1:-1] >= log_p[2:]) & (log_p[1:-1] > log_p.max() - HIGH)
    peaks = peaks.nonzero()[:, 0] + 1
    peaks = peaks[log_p[peaks].argsort(descending=True)[:PEAKS]]
    beside = [points[peaks - 1], points[peaks], points[peaks + 1]]
    return torch.cat([cuts, place - steps, place + steps, *beside]).unique()


# What a column may see


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
    for i in _some(factors, list(factors.order), JACOBIAN_COLUMNS):
        (slope,) = torch.autograd.grad(value[:, i].sum(), leaf, retain_graph=True, allow_unused=True)
        slope = torch.zeros_like(x) if slope is None else slope
        slope = (slope.reshape(n, -1) * spread).double().abs().nan_to_num(math.inf, math.inf)
        later = (place > factors.place[i]).to(x.device)
        errors.append(torch.where(later, slope, 0.0).amax(1))
        sizes.append(torch.where(later, 0.0, slope).amax(1))
    error, size = torch.stack(errors), torch.stack(sizes)
    bound = LAMBDA * (ELEMENTARY + factors.d) ** 0.5 * unit * (1 + size.nan_to_num(0.0, 0.0))
    column, row = divmod(int((error - bound).argmax()), n)
    where = f"coordinate {_some(factors, list(factors.order), JACOBIAN_COLUMNS)[column]} at draw {row}"
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


# The sampler


@exact(
    "autoregressive.cached_is_naive",
    needs=("sample", "sample_naive"),
    blocked_by=(WELL, "sample.well_formed", "sample.finite"),
    unit="of the draws",
    source="Le Paine et al. 2016, https://arxiv.org/abs/1611.09482",
)
def cached_is_naive(subject: Subject) -> Exact:
    """sample(n, generator) = sample_naive(n, generator) for two generators in the same state, up to rounding.

    A cache is a way to compute and no model of its own. A continuous number may differ in half of its digits; a
    discrete one changes where rounding carries a uniform number over an end of its interval, and what follows changes
    with it: so many draws as rounding of the conditionals explains may do so, a billion to one.
    """
    model = subject.model
    if model.cast is not None:
        try:
            wide = model.cast(torch.float64)
            model = wide if wide.can("sample", "sample_naive") else model
            wide.sample(1, generator=subject.generator("cached"))
        except Exception as refusal:  # a model that has only one dtype
            if out_of_memory(refusal):
                raise
            model = subject.model
    with torch.no_grad():
        cached = model.sample(SAMPLED, generator=subject.generator("cached"))
        naive = model.sample_naive(SAMPLED, generator=subject.generator("cached"))
    if not isinstance(naive, Tensor) or naive.shape != cached.shape or naive.dtype != cached.dtype:
        seen = f"{tuple(naive.shape)} {naive.dtype}" if isinstance(naive, Tensor) else f"a {type(naive).__name__}"
        raise ValueError(
            f"sample_naive({SAMPLED}) is {seen}, and sample({SAMPLED}) {tuple(cached.shape)} {cached.dtype}"
        )
    flat = cached.reshape(SAMPLED, -1).double()
    gap = (flat - naive.reshape(SAMPLED, -1).double()).abs().nan_to_num(math.inf, math.inf)
    spread = subject.pilot.reshape(len(subject.pilot), -1).double().std(0).nan_to_num(0.0)
    digits = torch.finfo(cached.dtype).eps ** 0.5 if cached.is_floating_point() else 0.0
    differing = (gap > digits * (spread + flat.abs())).any(1)
    allowed = _flips(subject, cached, wide=model is not subject.model)
    first = int(differing.nonzero()[0]) if bool(differing.any()) else 0
    where = f"draw {first}, coordinate {int(gap[first].argmax())}" if bool(differing.any()) else ""
    return Exact(float(differing.double().mean()), allowed / SAMPLED, SAMPLED, where)


def _flips(subject: Subject, x: Tensor, wide: bool) -> int:
    """How many draws rounding may change: for a mean m of a Poisson law, the k above which it is not by chance.

    The ends of k intervals move by at most half of the error of the log-probabilities each.
    """
    discrete = subject.profile.chart.discrete.tolist()
    if not any(discrete):
        return 0
    values = sum(len(a) for a in subject.profile.alphabets if a is not None)
    unit = torch.finfo(torch.float64 if wide else torch.float32).eps / 2
    size = 1.0
    if subject.model.can("conditionals"):
        factors = factors_of(subject)
        size += factors.amplified
        unit = unit if wide else max(unit, factors.unit)
    error = SAFETY * unit * (LAMBDA * (ELEMENTARY + len(discrete)) ** 0.5 + size)
    mean = SAMPLED * values * error
    flips = 0
    while _poisson_tail(mean, flips + 1) > BY_CHANCE:
        flips += 1
    return min(flips, SAMPLED)


def _poisson_tail(mean: float, k: int) -> float:
    """Chernoff's bound on P(N >= k) of a Poisson law, which is exp(-m) (e m / k)^k for k above m."""
    return 1.0 if k <= mean else math.exp(k - mean + k * math.log(mean / k)) if mean > 0 else 0.0


CHECKS: tuple[Check, ...] = (
    well_formed,
    sums_to_log_prob,
    each_normalised,
    causal_by_perturbation,
    causal_by_jacobian,
    receptive_field,
    cached_is_naive,
    rosenblatt,
)
