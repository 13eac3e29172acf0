"""Laws of the support: what is drawn is possible, what is impossible has density 0, what is possible is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.pairing import keys
from harness.checks.rounding import ELEMENTARY
from harness.checks.surface import ROWS, broken
from harness.draws import Draws
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.numerics.enumeration import enumerate_grid
from harness.states import supported
from harness.statistics.accumulator import Accumulator
from harness.statistics.binomial import BinomialCount
from harness.subject import Subject

MOST_STATES = 2**14
"""Values of an event that are enumerated."""


def _never(subject: Subject) -> Accumulator:
    return BinomialCount(0.0)


@statistical(
    "support.draws_are_possible",
    needs=("sample", "log_prob"),
    blocked_by=("sample.finite",),
    start=_never,
    tolerance=0.01,
    unit="probability",
)
def draws_are_possible(draws: Draws) -> Tensor:
    """P(log p(x) is -inf or NaN) = 0 for x from the sampler: nothing impossible is drawn.

    The set where p is 0 has probability 0 under p, so that one draw in it is enough to reject.
    """
    return (~(draws.log_p > -torch.inf)).float()


@statistical(
    "support.density_is_finite",
    needs=("sample", "log_prob"),
    blocked_by=("sample.finite",),
    start=_never,
    tolerance=0.01,
    unit="probability",
)
def density_is_finite(draws: Draws) -> Tensor:
    """P(log p(x) = +inf) = 0, and log p(x) <= 0 where all coordinates are discrete.

    A density may be infinite on a set of probability 0 only, and a mass is at most 1, beyond rounding.
    """
    if draws.subject.profile.kind == "discrete":
        dtype = draws.subject.model.log_prob(draws.x[:1]).dtype
        rounding = (ELEMENTARY + draws.subject.profile.size) * torch.finfo(dtype).eps
        return (draws.log_p > rounding).float()
    return (draws.log_p == torch.inf).float()


@exact("support.impossible_outside", needs=("log_prob",))
def impossible_outside(subject: Subject) -> Exact:
    """log p(x) = -inf for every x outside the support.

    One coordinate of a draw at a time is moved out: to its negative, beyond its neighbours, between two integers. Moves
    that leave the event inside the declared support are not used. Where none is declared nothing is known to lie
    outside: a pixel's log-mass may well be a formula that goes on between 0 and 1.
    """
    outside = _outside(subject)
    try:
        with torch.no_grad():
            log_p = subject.model.log_prob(outside)
    except Exception as error:  # the contract asks for an answer here, and this is none
        if out_of_memory(error):  # which says nothing of the support
            raise
        text = " ".join(str(error).split())[:160]
        return broken([f"log_prob raises {type(error).__name__} outside the support: {text}"], len(outside))
    wrong = ~(log_p == -torch.inf)
    if not bool(wrong.any()):
        return broken([], len(outside))
    worst = int(wrong.nonzero()[0])
    values = ", ".join(f"{value:g}" for value in outside[worst].flatten()[:8].tolist())
    count = f"one of {int(wrong.sum())} of {len(outside)} impossible events"
    return broken([f"log p = {float(log_p[worst]):.3g} at [{values}], {count}"], len(outside))


def _outside(subject: Subject) -> Tensor:
    """Finite events outside the support, (m, *event)."""
    x, support = subject.pilot[:ROWS], subject.model.support
    moves = _moves(x)
    if support is not None and not len(moves):
        raise NotApplicable(f"{x.dtype} has no values beside those that are drawn")
    if support is not None:
        moves = moves[~supported(subject.model, moves) & moves.reshape(len(moves), -1).isfinite().all(1)]
        if not len(moves):
            raise NotApplicable("the declared support leaves nothing outside")
        return moves
    raise NotApplicable(
        "no support is declared, so nothing is known to lie outside: declare `support` to have it tried"
    )


def _moves(x: Tensor) -> Tensor:
    """Draws x (n, *event), each with one coordinate moved, in five ways; those that the dtype can represent."""
    if not x.is_floating_point():
        low, high = (0, 1) if x.dtype == torch.bool else (torch.iinfo(x.dtype).min, torch.iinfo(x.dtype).max)
        wide = _five_moves(x.to(torch.int64))
        fits = ((wide >= low) & (wide <= high)).reshape(len(wide), -1).all(1)
        return wide[fits].to(x.dtype)
    return _five_moves(x)


def _five_moves(x: Tensor) -> Tensor:
    j = torch.arange(len(x), device=x.device) % x[0].numel()
    reach = x.abs().max() + 1
    steps = [lambda v: -v - 1, lambda v: v + 2 * reach, lambda v: v - 2 * reach, lambda v: -v]
    moved = [_at(x, j, step) for step in steps]
    if x.is_floating_point():
        moved.append(_at(x, j, lambda v: v + 0.5))
    return torch.cat(moved)


def _at(x: Tensor, j: Tensor, step: object) -> Tensor:
    flat = x.reshape(len(x), -1).clone()
    rows = torch.arange(len(x), device=x.device)
    flat[rows, j.to(x.device)] = step(flat[rows, j.to(x.device)]).to(x.dtype)  # type: ignore[operator]
    return flat.reshape(x.shape)


def _discrete_coordinates(subject: Subject) -> Tensor:
    discrete = subject.profile.chart.discrete
    size = subject.pilot[0].numel()
    return discrete if len(discrete) == size else torch.zeros(size, dtype=torch.bool, device=discrete.device)


@dataclass(frozen=True)
class _Rare:
    """The values that the pilot draws showed less than half as often as their mass says: their keys, their mass."""

    keys: Tensor
    mass: float


@statistical(
    "support.every_value_drawn",
    needs=("sample", "log_prob"),
    blocked_by=("sample.finite", "support.draws_are_possible"),
    start=lambda subject: BinomialCount(_rare(subject).mass, uncertainty=_mass_rounding(subject)),
    tolerance=0.2,
    unit="probability",
)
def every_value_is_drawn(draws: Draws) -> Tensor:
    """P(x in U) = sum of p(u) over u in U, for the set U of values that the pilot draws showed less than half as often.

    For events with at most 16384 values. U is fixed before the draws that are counted, and holds every value that has
    mass and is never drawn. Values beyond those that the pilot draws suggest count on neither side.
    """
    return torch.isin(keys(draws.x), _rare(draws.subject).keys).float()


def _rare(subject: Subject) -> _Rare:
    return subject.once("values that are drawn too rarely", lambda: _find_rare(subject))


def _find_rare(subject: Subject) -> _Rare:
    states = _states(subject)
    with torch.no_grad():
        mass = subject.model.log_prob(states).to(torch.float64).exp().nan_to_num(0.0)
    seen, known = keys(subject.pilot), keys(states)
    order = known.argsort()
    position = torch.searchsorted(known[order], seen).clamp(max=len(known) - 1)
    hit = order[position[known[order][position] == seen]]
    share = torch.bincount(hit, minlength=len(states)) / len(seen)
    rare = (share < mass / 2).nonzero().flatten()
    total = float(mass[rare].sum())
    return _Rare(known[rare], min(1.0, total))


def _states(subject: Subject) -> Tensor:
    """Every combination of the coordinates' alphabets that the declared support allows; (m, *event)."""
    profile = subject.profile
    if profile.kind != "discrete":
        raise NotApplicable("events have continuous coordinates")
    alphabets = [alphabet for alphabet in profile.alphabets if alphabet is not None]
    product = 1.0
    for alphabet in alphabets:
        product *= len(alphabet)
    if product > MOST_STATES:
        raise NotApplicable(f"an event may take {product:.1e} values; up to {MOST_STATES} are enumerated")
    x = subject.pilot
    states = torch.cat(list(enumerate_grid([alphabet.cpu() for alphabet in alphabets])))
    states = states.to(device=x.device, dtype=x.dtype).reshape(-1, *x.shape[1:])
    return states[supported(subject.model, states)]


def _mass_rounding(subject: Subject) -> float:
    """Error of a mass of at most 1: that of its logarithm, which is a sum over coordinates of terms of a few nats."""
    dtype = subject.model.log_prob(subject.pilot[:1]).dtype
    return min(1.0, (ELEMENTARY + subject.profile.size) * torch.finfo(dtype).eps * 8)


CHECKS: tuple[Check, ...] = (draws_are_possible, density_is_finite, impossible_outside, every_value_is_drawn)
