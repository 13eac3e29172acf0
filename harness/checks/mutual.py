"""Stated mutual information between two blocks of coordinates: its bounds, its symmetry, entropies, draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from harness.checks.blocks import agree, cuts, log_marginal, marginal, rest, size_of
from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.moments import PER_PROBABILITY
from harness.checks.stated import dither, gap, precision, scalar
from harness.draws import Draws
from harness.evidence import Exact
from harness.model import Model
from harness.statistics.asymptotic import AsymptoticMean
from harness.subject import Subject

SHANNON = "Shannon 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x"
COVER = "Cover & Thomas 2006, Elements of Information Theory, sections 2.4 and 2.8"

TRIED = 64
"""Points at which it is seen whether a density is a product."""

Blocks = tuple[list[int], list[int]]


def _pairs(d: int) -> list[Blocks]:
    """Pairs of blocks that are tried: three cuts of the whole event, and two single coordinates."""
    whole = [(a, rest(a, d)) for a in cuts(d)]
    return whole if d == 2 else [*whole, ([0], [d - 1])]


def _stated(subject: Subject, a: Sequence[int], b: Sequence[int]) -> float:
    return scalar(subject, "mutual_information", list(a), list(b))


def _allowed(subject: Subject, *sizes: float) -> float:
    """Rounding of sums of numbers of these sizes, one term and more a coordinate."""
    units = precision(subject, "mutual_information", *map(list, _pairs(size_of(subject))[0]))
    return units * (size_of(subject) + sum(abs(size) for size in sizes if math.isfinite(size)))


def _worst(seen: list[tuple[str, float, float]], n: int) -> Exact:
    """Evidence of the largest excess among (where, error, allowed); NaN exceeds everything."""
    sound = [(where, math.inf if math.isnan(error) else error, allowed) for where, error, allowed in seen]
    where, error, allowed = max(sound, key=lambda each: each[1] - each[2])
    return Exact(error, allowed, n, where, "nats")


def _named(a: Sequence[int], b: Sequence[int]) -> str:
    short = [f"{list(c)}" if len(c) <= 6 else f"[{c[0]}, ..., {c[-1]}]" for c in (a, b)]
    return f"I({short[0]}; {short[1]})"


@exact("mutual.symmetric", needs=("mutual_information",), unit="nats", source=COVER)
def symmetric(subject: Subject) -> Exact:
    """I(a; b) = I(b; a), and the order of the coordinates inside a block does not matter.

    What a tells of b is what b tells of a: the definition does not tell them apart.
    """
    seen = []
    for a, b in _pairs(size_of(subject)):
        forth = _stated(subject, a, b)
        for c, e in ((b, a), (a[::-1], b[::-1])):
            other = _stated(subject, c, e)
            where = f"{_named(a, b)} = {forth:.9g} and {_named(c, e)} = {other:.9g}"
            seen.append((where, gap(forth, other), _allowed(subject, forth, other)))
    return _worst(seen, len(seen))


@exact("mutual.grows_with_the_block", needs=("mutual_information",), unit="nats", source=COVER)
def grows_with_the_block(subject: Subject) -> Exact:
    """0 <= I(a'; b) <= I(a; b) for every part a' of a.

    To leave coordinates out is to process x_a, and processing makes no information (the data-processing inequality).
    Blocks shrink one coordinate at a time, on both sides in turn.
    """
    seen = []
    for a, b in _pairs(size_of(subject)):
        above = _stated(subject, a, b)
        while True:
            seen.append((f"{_named(a, b)} = {above:.9g} is negative", max(0.0, -above), _allowed(subject, above)))
            if math.isnan(above) or len(a) + len(b) == 2 or len(seen) > TRIED:
                break
            a, b = (b, a[:-1]) if len(a) > 1 else (b[:-1], a)
            below = _stated(subject, a, b)
            where = f"{_named(a, b)} = {below:.9g}, more than {above:.9g} of a larger block"
            over = 0.0 if below <= above else below - above
            seen.append((where, over, _allowed(subject, above, below)))
            above = below
    return _worst(seen, len(seen))


@exact("mutual.of_entropies", needs=("mutual_information", "marginal"), unit="nats", source=SHANNON)
def of_entropies(subject: Subject) -> Exact:
    """I(a; b) = H(a) + H(b) - H(a, b) = H(a) - H(a | b).

    With the entropies that the marginals state. Each is compared with its density by `information.entropy` when the
    marginals are examined themselves; here it is only asked that all of them fit.
    """
    d, seen = size_of(subject), []
    for a, b in _pairs(d):
        parts = [marginal(subject.model, c) for c in (a, b)]
        parts.append(subject.model if len(a) + len(b) == d else marginal(subject.model, [*a, *b]))
        if not all(part.can("entropy") for part in parts):
            raise NotApplicable("the model or its marginals state no entropy")
        of_a, of_b, of_both = (float(part.entropy()) for part in parts)
        said, truth = _stated(subject, a, b), of_a + of_b - of_both
        where = f"{_named(a, b)} = {said:.9g}, from entropies {truth:.9g}"
        seen.append((where, gap(said, truth), _allowed(subject, said, of_a, of_b, of_both)))
    return _worst(seen, len(seen))


@exact("mutual.zero_for_products", needs=("mutual_information", "marginal", "log_prob"), unit="nats", source=COVER)
def zero_for_products(subject: Subject) -> Exact:
    """I(a; b) = 0 if and only if p(x) = p(x_a) p(x_b).

    Whether it is a product is seen at draws. Where log p(x) - log p(x_a) - log p(x_b) is 0 up to rounding at all of
    them, the information is what rounding leaves; where it is not, the information is not 0.
    """
    d, x, seen = size_of(subject), subject.pilot[:TRIED], []
    for a, b in _pairs(d):
        if len(a) + len(b) < d:
            continue
        apart, bound = agree(subject, x, partial(_terms, a, b), (1, -1, -1))
        said, rounding = _stated(subject, a, b), float(bound.max())
        where = f"{_named(a, b)} = {said:.9g}, of log-densities that differ by up to {float(apart.max()):.3g}"
        if bool((apart <= bound).all()):
            seen.append((where, abs(said), rounding + _allowed(subject, said)))
        elif float(apart.median()) > 2**10 * rounding:
            seen.append((where, 0.0 if said > 0 else float(apart.median()), 0.0))
    if not seen:
        raise NotApplicable("the density is neither clearly a product nor clearly none")
    return _worst(seen, len(x))


def _terms(a: list[int], b: list[int], model: Model, x: Tensor) -> Tensor:
    """(n, 3): log p(x_a, x_b), log p(x_a), log p(x_b)."""
    both = [*a, *b]
    whole = model.log_prob(x).double() if len(both) == x.shape[1] else log_marginal(model, both, x)
    return torch.stack([whole, log_marginal(model, a, x), log_marginal(model, b, x)], 1)


def _start(subject: Subject) -> AsymptoticMean:
    subject.once("mutual informations", lambda: _compared(subject))
    return AsymptoticMean(rarest=subject.effort.rarest)


def _compared(subject: Subject) -> list[tuple[Blocks, float, float]]:
    """Pairs of blocks, what is stated of them, and the standard deviation of the log-ratio, at least 1."""
    found = []
    for a, b in _pairs(size_of(subject)):
        said = _stated(subject, a, b)
        with torch.no_grad():
            ratio = _log_ratio(subject.model, a, b, subject.pilot)
        spread = float(ratio[ratio.isfinite()].std())
        found.append(((a, b), said, max(1.0, spread) if math.isfinite(spread) else 1.0))
    return found


def _log_ratio(model: Model, a: list[int], b: list[int], x: Tensor) -> Tensor:
    terms = _terms(a, b, model, x)
    return terms[:, 0] - terms[:, 1] - terms[:, 2]


@statistical(
    "mutual.of_draws",
    needs=("sample", "log_prob", "marginal", "mutual_information"),
    blocked_by=("structure.marginal_of_draws",),
    start=_start,
    labels=lambda subject: [_named(a, b) for a, b in _pairs(size_of(subject))],
    tolerance=PER_PROBABILITY,
    share=0.5,
    asymptotic=True,
    unit="nats, or sd of the log-ratio where that is larger",
    source=SHANNON,
)
def of_draws(draws: Draws) -> Tensor:
    """E[log p(x_a, x_b) - log p(x_a) - log p(x_b)] = I(a; b) over draws.

    The definition, KL(joint || product of marginals), read as a mean; for three cuts of the event, and for two single
    coordinates of which the joint is itself a marginal.
    """
    subject = draws.subject
    columns = []
    with torch.no_grad():
        for (a, b), said, scale in subject.once("mutual informations", lambda: _compared(subject)):
            columns.append((_log_ratio(subject.model, a, b, draws.x) - said + dither(draws, "mutual")) / scale)
    return torch.stack(columns, 1)


CHECKS: tuple[Check, ...] = (symmetric, grows_with_the_block, of_entropies, zero_for_products, of_draws)
