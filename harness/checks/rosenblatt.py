r"""The sampler against the conditionals, coordinate by coordinate: Rosenblatt's transform of a draw is uniform.

.. math:: u_i = P(X_i < x_i \mid x_{<i}) + v_i P(X_i = x_i \mid x_{<i}), \qquad v_i \sim U(0, 1)

are independent and uniform on (0, 1) if x is drawn from the conditionals. So a function of u_i that is zero in mean is
so given everything that came before, and may be multiplied by any function of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.checks.factors import Factors, alphabet_of, factors_of, through
from harness.checks.law import NotApplicable, statistical
from harness.draws import Draws
from harness.errors import out_of_memory
from harness.states import limits
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

WATCHED = 8
"""Most coordinates whose conditionals are worked out."""

MOST_VALUES = 2**10
"""Values of a discrete coordinate above which there are too many to sum over for every draw."""

WORK = 2**22
"""Numbers of events that are given to the model for a chunk; of a chunk's draws as many are used as that allows."""

OFF = 1e-4
"""A sum or an integral that is further from 1 does not know u_i: a uniform number is taken for it. Which contexts that
happens in has nothing to do with x_i, so nothing is biased; and 1e-4 is a tenth of what any effort can see."""

CELLS, NODES, TAILS = 32, 6, 8
"""Between quantiles of draws, a continuous coordinate is integrated by Gauss's rule; eight cells more on each side."""


@dataclass(frozen=True)
class Transform:
    """The watched coordinates, in their order, and for each the map from events (n, d) to u (n,), NaN where unknown."""

    factors: Factors
    watched: list[int]
    maps: list[Callable[[Tensor, Tensor], Tensor]]
    cost: int
    centre: Tensor
    spread: Tensor

    def uniforms(self, x: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """(n, m): u of each watched coordinate, and where it is known."""
        v = torch.rand(2, len(x), len(self.watched), generator=source, dtype=torch.float64, device=x.device)
        found = torch.stack([of(x, v[0, :, k]) for k, of in enumerate(self.maps)], 1)
        known = ~found.isnan()
        return torch.where(known, found, v[1]), known

    def levels(self, x: Tensor) -> Tensor:
        """(n, m) in [-1, 1]: tanh of the watched coordinates, in their own scale."""
        return torch.tanh((x[:, self.watched].double() - self.centre) / self.spread).nan_to_num(0.0)


def transform_of(subject: Subject) -> Transform:
    return subject.once("Rosenblatt's transform", lambda: _made(subject))


def _made(subject: Subject) -> Transform:
    factors = factors_of(subject)
    discrete = subject.profile.chart.discrete.tolist()
    watched = _watched(factors)
    maps, costs = [], []
    for i in watched:
        if discrete[i]:
            values = alphabet_of(subject, i).values
            if len(values) > MOST_VALUES:
                raise NotApplicable(f"coordinate {i} has {len(values)} values, too many to sum over for every draw")
            maps.append(_by_sum(factors, i, values))
            costs.append(len(values))
        else:
            maps.append(_by_quadrature(factors, i))
            costs.append((CELLS + 2 * TAILS + 1) * NODES)
    x = factors.draws[: 2**12][:, watched].double()
    spread = x.nan_to_num(0.0).std(0)
    return Transform(factors, watched, maps, sum(costs), x.nanmedian(0).values, torch.where(spread > 0, spread, 1.0))


def _watched(factors: Factors) -> list[int]:
    """All coordinates, or pairs of neighbours in the order at places that the seed chooses."""
    if factors.d <= WATCHED:
        return list(factors.order)
    source = torch.Generator().manual_seed(factors.subject.seed_for("watched conditionals"))
    starts = torch.randperm(factors.d // 2, generator=source)[: WATCHED // 2].sort().values.tolist()
    return [factors.order[place] for start in starts for place in (2 * start, 2 * start + 1)]


def _by_sum(factors: Factors, i: int, values: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def u(x: Tensor, v: Tensor) -> Tensor:
        p = _masses(factors, x, i, values)
        at = values.to(x.device) - x[:, i, None].double()
        total = p.sum(1)
        found = (p * (at < 0)).sum(1) + v * (p * (at == 0)).sum(1)
        return torch.where(((total - 1).abs() <= OFF), (found / total).clamp(0, 1), math.nan)

    return u


def _masses(factors: Factors, x: Tensor, i: int, values: Tensor) -> Tensor:
    """(n, k): the densities of coordinate i at values (k,) or (n, k), in the context of each row; 0 where refused."""
    try:
        return factors.columns(through(x, i, values.to(x.device)))[:, i].reshape(len(x), -1).exp()
    except (ValueError, IndexError, RuntimeError) as refusal:
        if out_of_memory(refusal) or values.shape[-1] == 1:
            raise
    parts = [_or_none(lambda v=v: _masses(factors, x, i, v), x) for v in values.split(1, -1)]  # type: ignore[misc]
    return torch.cat(parts, 1)


def _or_none(work: Callable[[], Tensor], x: Tensor) -> Tensor:
    try:
        return work()
    except (ValueError, IndexError, RuntimeError) as refusal:
        if out_of_memory(refusal):
            raise
        return torch.zeros(len(x), 1, dtype=torch.float64, device=x.device)


def _by_quadrature(factors: Factors, i: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Gauss's rule in each cell of a grid that has nothing to do with x_i, and once more from a cell's start to x_i."""
    edges = _edges(factors, i).to(factors.draws.device)
    nodes, weights = (torch.from_numpy(t).to(edges) for t in np.polynomial.legendre.leggauss(NODES))
    widths = edges.diff()
    grid = (edges[:-1, None] + widths[:, None] * (1 + nodes) / 2).flatten()

    def u(x: Tensor, v: Tensor) -> Tensor:
        cells = _masses(factors, x, i, grid).reshape(len(x), -1, NODES) @ weights * widths / 2  # (n, cells)
        below = torch.cat([torch.zeros_like(cells[:, :1]), cells.cumsum(1)], 1)
        place = x[:, i].double()
        cell = (torch.searchsorted(edges, place.contiguous()) - 1).clamp(0, len(widths) - 1)
        width = (place - edges[cell]).clamp(min=0)
        within = _masses(factors, x, i, edges[cell, None] + width[:, None] * (1 + nodes) / 2) @ weights * width / 2
        total = below[:, -1]
        found = (below.gather(1, cell[:, None])[:, 0] + within) / total
        return torch.where(((total - 1).abs() <= OFF), found.clamp(0, 1), math.nan)

    return u


def _edges(factors: Factors, i: int) -> Tensor:
    """Quantiles of draws, and beyond them cells that double in width, within the declared limits."""
    column = factors.draws[:, i].cpu().double()[: 2**14]
    cuts = column[column.isfinite()].quantile(torch.linspace(0, 1, CELLS + 1, dtype=torch.float64)).unique()
    steps = (float(cuts[-1] - cuts[0]) or 1.0) * (2.0 ** torch.arange(1, TAILS + 1, dtype=torch.float64) - 1) / 16
    lower, upper = (float(end.flatten()[i]) for end in limits(factors.subject.model, factors.subject.pilot.shape[1:]))
    edges = torch.cat([cuts, cuts[0] - steps, cuts[-1] + steps])
    ends = torch.tensor([end for end in (lower, upper) if math.isfinite(end)], dtype=torch.float64)
    return torch.cat([edges[(edges > lower) & (edges < upper)], ends]).unique()


# The law


def _functions(u: Tensor, levels: Tensor) -> Tensor:
    """(n, k) in [-1, 1]: of single u, of pairs, and of u with what came before."""
    t = 2 * u - 1
    folded, extreme = t.abs() - 0.5, (t.abs() > 0.9).double() - 0.1
    j, i = _pairs(u.shape[1])
    return torch.cat([t, folded, extreme, t[:, i] * t[:, j], t[:, i] * levels[:, j], folded[:, i] * levels[:, j]], 1)


def _pairs(m: int) -> tuple[list[int], list[int]]:
    """Earlier and later of two watched coordinates."""
    both = [(j, i) for i in range(m) for j in range(i)]
    return [j for j, _ in both], [i for _, i in both]


def _labels(subject: Subject) -> list[str]:
    watched = transform_of(subject).watched
    j, i = _pairs(len(watched))
    pairs = [(watched[b], watched[a]) for a, b in zip(j, i, strict=True)]
    single = [f"{what} of u_{c}" for what in ("mean", "spread", "ends") for c in watched]
    return [
        *single,
        *(f"u_{b} u_{a}" for b, a in pairs),
        *(f"u_{b} with x_{a}" for b, a in pairs),
        *(f"spread of u_{b} with x_{a}" for b, a in pairs),
        "the worst of all on pilot draws",
    ]


def _start(subject: Subject) -> BoundedMean:
    subject.once("Rosenblatt's adversary", lambda: _adversary(subject))
    statistic = BoundedMean(-1.0, 1.0)
    statistic.doubt = 4 * OFF  # u moves by OFF, 2 u - 1 by twice that, and there are two in a product
    return statistic


def _adversary(subject: Subject) -> Tensor:
    """(k,) weights, of sizes that add up to 1: how far, in standard errors, each function is off on other draws."""
    transform = transform_of(subject)
    x = subject.sample(_affordable(transform, len(subject.pilot)), "Rosenblatt's adversary")
    x = x.reshape(len(x), -1)
    u, known = transform.uniforms(x, subject.generator("Rosenblatt's adversary", "ties"))
    if float(known.double().mean()) < 0.5:
        raise NotApplicable("conditionals are too narrow, or their tails too heavy, for quadrature between quantiles")
    numbers = _functions(u, transform.levels(x))
    z = numbers.mean(0) / (numbers.std(0) + 1e-9) * len(x) ** 0.5
    z = torch.where(z.abs() > 1, z, 0.0)
    return z / z.abs().sum().clamp(min=1e-9)


def _affordable(transform: Transform, n: int) -> int:
    return max(min(n, 64), min(n, WORK // (transform.cost * transform.factors.d)))


@statistical(
    "autoregressive.rosenblatt",
    needs=("sample", "conditionals"),
    blocked_by=(
        "sample.finite",
        "autoregressive.well_formed",
        "autoregressive.each_normalised",
        "autoregressive.causal_by_perturbation",
    ),
    start=_start,
    labels=_labels,
    tolerance=2.0,
    share=1 / 4,
    unit="probability",
    source="Rosenblatt 1952, https://doi.org/10.1214/aoms/1177729394; Brockwell 2007, https://doi.org/10.1016/j.spl.2007.02.008",
)
def rosenblatt(draws: Draws) -> Tensor:
    """u_i = F(x_i | the coordinates before it) are independent and uniform on (0, 1), for x from the sampler.

    F by a sum over the values of a discrete coordinate, randomised over its jumps, or by quadrature of a continuous
    one. Looked at are single u_i, products of two, u_i times the level of what came before, and the combination of all
    that was furthest off on other draws. A sampler that draws in another order than the stated one, keeps an old
    hidden state, or draws from other conditionals does not pass.
    """
    subject, transform = draws.subject, transform_of(draws.subject)
    x = draws.x.reshape(draws.n, -1)[: _affordable(transform, draws.n)]
    u, _ = transform.uniforms(x, subject.generator("Rosenblatt", draws.index))
    numbers = _functions(u, transform.levels(x))
    weights = subject.once("Rosenblatt's adversary", lambda: _adversary(subject))
    return torch.cat([numbers, (numbers @ weights)[:, None]], 1)
