"""Stated marginals and conditionals: product rule, Bayes' rule, chain rule, marginalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from harness import features
from harness.checks import bridge
from harness.checks.blocks import (
    agree,
    conditional,
    cuts,
    log_conditional,
    log_marginal,
    marginal,
    points,
    rest,
    size_of,
)
from harness.checks.each import for_each
from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.oracle import flat_density, noise_of, oracle_of, roundoff
from harness.checks.rounding import compared
from harness.draws import Draws
from harness.evidence import Exact
from harness.model import Model
from harness.numerics import LogDensity
from harness.space import Line, States
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

KOLMOGOROV = "Kolmogorov 1933, Grundbegriffe der Wahrscheinlichkeitsrechnung, chapters I and V"
BAYES = "Bishop 2006, Pattern Recognition and Machine Learning, section 1.2"

STEPS = 6
"""Most factors of a chain rule; longer events are cut into as many blocks."""

SLICES, LINES = 4, 3
"""Draws through which, and coordinates along which, a density is integrated."""

MOST_STATES = 2**16
MOST_COMPARED = 4
"""Coordinates of a marginal whose draws are compared."""


def _worst(seen: Sequence[tuple[str, Tensor, Tensor]], subject: Subject) -> Exact:
    """Evidence of the largest excess over what rounding explains, among named errors and bounds (n,)."""
    results = [compared(error, bound, subject.effort.tolerance, where) for where, error, bound in seen]
    return max(results, key=lambda each: (each.error > each.allowed + each.uncertainty, each.error / each.allowed))


@exact("structure.product_rule", needs=("log_prob", "marginal", "conditional"), unit="nat", source=KOLMOGOROV)
def product_rule(subject: Subject) -> Exact:
    """log p(x) = log p(x_a) + log p(x_b | x_a), for blocks a of coordinates and b the others.

    The definition of a conditional density. At draws and at mixtures of two draws, for three blocks, one of them in
    falling order, so that coordinates in the wrong place are seen. Where p(x_a) = 0 there is no conditional law.
    """
    d, x = size_of(subject), points(subject)

    def terms(a: list[int], model: Model, x: Tensor) -> Tensor:
        whole, part = model.log_prob(x).double(), log_marginal(model, a, x)
        return torch.stack([whole, part, log_conditional(model, a, x, part > -math.inf)], 1)

    return _worst(
        [(f"a = {_short(a)}", *agree(subject, x, partial(terms, a), (1, -1, -1))) for a in cuts(d)],
        subject,
    )


def _short(a: Sequence[int]) -> str:
    return str(list(a)) if len(a) <= 6 else f"[{a[0]}, {a[1]}, ..., {a[-1]}]"


@exact("structure.bayes_rule", needs=("marginal", "conditional"), unit="nat", source=BAYES)
def bayes_rule(subject: Subject) -> Exact:
    """p(x_a | x_b) p(x_b) = p(x_b | x_a) p(x_a).

    Both sides are the joint density, so a prior, a likelihood, an evidence and a posterior that do not belong to one
    model are told apart without it. At points where neither x_a nor x_b is impossible.
    """
    d, x = size_of(subject), points(subject)

    def terms(a: list[int], model: Model, x: Tensor) -> Tensor:
        b = rest(a, d)
        of_a, of_b = log_marginal(model, a, x), log_marginal(model, b, x)
        possible = (of_a > -math.inf) & (of_b > -math.inf)
        given_b, given_a = log_conditional(model, b, x, possible), log_conditional(model, a, x, possible)
        found = torch.stack([given_b, of_b, given_a, of_a], 1)
        return torch.where(possible[:, None], found, 0.0)  # else there is nothing to compare

    return _worst(
        [(f"a = {_short(a)}", *agree(subject, x, partial(terms, a), (1, 1, -1, -1))) for a in cuts(d)],
        subject,
    )


@exact("structure.chain_rule", needs=("log_prob", "marginal", "conditional"), unit="nat", source=KOLMOGOROV)
def chain_rule(subject: Subject) -> Exact:
    """log p(x) = sum_i log p(x_{o_i} | x_{o_1}, ..., x_{o_{i-1}}), whatever the order o of the coordinates.

    Each factor is the conditional of a marginal, so that the two have to fit each other at every size. In rising, in
    falling and in a shuffled order, at draws.
    """
    d, x = size_of(subject), points(subject)[:4]
    shuffled = torch.randperm(d, generator=torch.Generator().manual_seed(subject.seed_for("order"))).tolist()

    def terms(order: list[int], model: Model, x: Tensor) -> Tensor:
        return torch.stack([model.log_prob(x).double(), *_factors(model, order, x)], 1)

    seen = []
    for order in (list(range(d)), list(range(d))[::-1], shuffled):
        signs = (1, *(-1 for _ in _stops(d)))
        found = agree(subject, x, partial(terms, order), signs)
        seen.append((f"the order {_short(order)}", *found))
    return _worst(seen, subject)


def _stops(d: int) -> list[int]:
    """Where the blocks of a chain end."""
    steps = min(d, STEPS)
    return [round(d * (i + 1) / steps) for i in range(steps)]


def _factors(model: Model, order: list[int], x: Tensor) -> list[Tensor]:
    """log p of every block given those before it, (n,) each."""
    stops = _stops(len(order))
    factors = [log_marginal(model, order[: stops[0]], x)]
    possible = factors[0] > -math.inf
    for start, stop in pairwise(stops):
        if stop < len(order):
            part, seen, y = marginal(model, order[:stop]), list(range(start)), x[:, order[:stop]]
            if not part.can("conditional"):
                raise NotApplicable("marginal() returns models without conditional")
        else:
            part, seen, y = model, order[:start], x
        factors.append(log_conditional(part, seen, y, possible))
        possible = possible & (factors[-1] > -math.inf)
    return factors


@exact("structure.marginal_of_density", needs=("log_prob", "marginal"), unit="nat", source=KOLMOGOROV)
def marginal_of_density(subject: Subject) -> Exact:
    """p(x_a) = int p(x_a, x_b) dx_b, or the sum over the values of x_b.

    Of a discrete law small enough to enumerate, for three blocks and every state. Of a continuous one along single
    coordinates: b is one of them, and the line is integrated through draws, which needs no more for a long event.
    """
    d = size_of(subject)
    if subject.profile.kind == "discrete":
        return _enumerated(subject, d)
    if subject.profile.kind == "mixed":
        raise NotApplicable("events are partly discrete; see structure.product_rule and structure.marginal_of_draws")
    return _along_lines(subject, d)


def _enumerated(subject: Subject, d: int) -> Exact:
    space = oracle_of(subject).space
    if not isinstance(space, States) or space.count > MOST_STATES:
        raise NotApplicable("the states are too many to sum over")
    codes = torch.cartesian_prod(*space.alphabets)
    x = space.decode(codes.reshape(len(codes), -1)).to("cpu", torch.float64).reshape(-1, d)
    log_p = oracle_of(subject).log_density(x)
    unknown = 0.0 if space.complete else max(0.0, 1 - float(log_p.exp().sum()))  # in values that no draw took
    seen = []
    for a in cuts(d):
        rows, group = torch.unique(x[:, a], dim=0, return_inverse=True)
        total = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, group, log_p.exp())
        events = rows.to(subject.pilot.dtype).to(subject.model.device)
        stated = marginal(subject.model, a).log_prob(events).detach()
        error = (stated.to("cpu", torch.float64).exp() - total).abs()
        bound = torch.full_like(error, 4 * noise_of(subject) * (1 + d) + roundoff(stated) + unknown)
        seen.append((f"a = {_short(a)}", error.nan_to_num(math.inf), bound))
    return _worst(seen, subject)


def _along_lines(subject: Subject, d: int) -> Exact:
    density, pilot = flat_density(subject.model, subject.pilot), subject.pilot
    along = sorted({0, d // 2, d - 1})[:LINES]
    seen = []
    for j in along:
        others = rest([j], d)
        stated = log_marginal(subject.model, others, pilot[:SLICES]).detach().cpu()
        for i in range(SLICES):
            through = pilot[i].to("cpu", torch.float64)

            on_line = partial(_on_line, density, through, j)
            level = float(on_line(through[j].reshape(1, 1))[0])
            if not math.isfinite(level):
                continue
            knots = _knots(pilot[:, j].to("cpu", torch.float64), through[j])
            line = Line(-math.inf, math.inf, knots, pilot.dtype)
            whole = line.integrate(partial(_on_line, density, through, j, level=level), (), noise_of(subject))
            error = abs(float(stated[i]) - whole.log_total - level)
            size = 1 + abs(float(stated[i])) + abs(level)
            bound = 8 * noise_of(subject) * size + 2 * whole.log_error
            named = f"the line along coordinate {j} through draw {i}"
            seen.append((named, torch.tensor([error], dtype=torch.float64).nan_to_num(math.inf), torch.tensor([bound])))
    if not seen:
        raise NotApplicable("the density is 0 or infinite at its own draws")
    return _worst(seen, subject)


def _on_line(density: LogDensity, through: Tensor, j: int, t: Tensor, level: float = 0.0) -> Tensor:
    """log p, less `level`, where coordinate j of the point `through` (d,) is t (n, 1)."""
    x = through.repeat(len(t), 1)
    x[:, j] = t[:, 0]
    return density(x) - level


def _knots(column: Tensor, place: Tensor) -> Tensor:
    """Pilot quantiles, and distances from the draw that fall by fours: its own mass is where it is, however narrow."""
    levels = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    column = column[column.isfinite()]
    quantiles = column.quantile(levels)
    spread = float(quantiles[-1] - quantiles[0]) or 1.0
    steps = spread * 0.25 ** torch.arange(1, 9, dtype=torch.float64)
    return torch.cat([quantiles, place - steps, place + steps]).unique()


def _block(subject: Subject) -> tuple[list[int], Subject]:
    """The block whose draws are compared, and its marginal under examination."""
    d = size_of(subject)
    a = cuts(d)[-1][:MOST_COMPARED]
    part = marginal(subject.model, a)
    if not part.can("sample"):
        raise NotApplicable("marginal() returns models without sample")
    return a, Subject(part, subject.effort, subject.seed_for("marginal"))


def _start_draws(subject: Subject) -> BoundedMean:
    subject.once("block", lambda: _block(subject))
    return BoundedMean(-2.0, 2.0)


def _labels(subject: Subject) -> list[str]:
    a, part = subject.once("block", lambda: _block(subject))
    pairs = [f"product of coordinates {i} and {j}" for i, j in _pairs(len(a))]
    return [f"{label} of the marginal of {_short(a)}" for label in (*features.coordinate_labels(part), *pairs)]


def _pairs(k: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(k) for j in range(i)]


@statistical(
    "structure.marginal_of_draws",
    needs=("sample", "marginal"),
    start=_start_draws,
    labels=_labels,
    unit="probability",
    source=KOLMOGOROV,
)
def marginal_of_draws(draws: Draws) -> Tensor:
    """E f(x_a) over draws of the joint = E f(y) over draws of its marginal, for bounded f.

    To leave coordinates out of a draw is to draw from the marginal. f are indicators and saturating functions of single
    coordinates, and products of two; the block is in falling order, so that exchanged coordinates are seen.
    """
    a, part = draws.subject.once("block", lambda: _block(draws.subject))
    ours, theirs = draws.x[:, a], part.sample(draws.n, "marginal", draws.index)
    return _functions(part, ours) - _functions(part, theirs)


def _functions(part: Subject, x: Tensor) -> Tensor:
    """(n, k) in [-1, 1]: functions of single coordinates, and products of two."""
    z = part.profile.chart.coordinates(x)
    level = torch.tanh(z.nan_to_num(0.0, 1e3, -1e3))
    products = [(level[:, i] * level[:, j])[:, None] for i, j in _pairs(z.shape[1])]
    return torch.cat([features.coordinate_columns(part, z).double(), *products], 1)


def _conditionals(subject: Subject) -> list[tuple[str, Subject]]:
    """Laws of the other coordinates, given what some are in a draw."""

    def work() -> list[tuple[str, Subject]]:
        found = []
        for i, a in enumerate(cuts(size_of(subject))):
            name = f"given {_short(a)} as in draw {i}"
            part = conditional(subject.model, a, subject.pilot[i, a])
            if not part.can("sample", "log_prob"):
                raise NotApplicable("conditional() returns models without sample or log_prob")
            found.append((name, Subject(part, subject.effort, subject.seed_for("conditional", name))))
        return found

    return subject.once("conditionals", work)


conditional_of_draws = for_each(
    bridge.bridge,
    _conditionals,
    id="structure.conditional_of_draws",
    says="conditional(a, x_a).sample draws from p(x_b | x_a), the density that conditional(a, x_a).log_prob states.",
    why="Of three blocks a, each as it is in a draw. With the product rule, which ties that density to the joint one, "
    "a draw of x_a and one of x_b given it make a draw of the joint law.",
    needs=("sample", "log_prob", "conditional"),
    blocked_by=("structure.product_rule", "structure.bayes_rule"),
)


CHECKS: tuple[Check, ...] = (
    product_rule,
    bayes_rule,
    chain_rule,
    marginal_of_density,
    marginal_of_draws,
    conditional_of_draws,
)
