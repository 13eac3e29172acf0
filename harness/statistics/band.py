r"""Numbers that should be Uniform(0, 1), such as probability integral transforms: a time-uniform band for their
distribution function.

At each point t of a fixed grid, the number of draws below t is Binomial(n, t) under the law, so the beta-binomial
confidence sequence of `binomial` holds G(t) = P(U < t) at all times; a union bound over the grid makes it a band. It is
as tight in the tails as the variance t(1 - t) allows, unlike the Dvoretzky-Kiefer-Wolfowitz band (Howard & Ramdas 2022,
https://arxiv.org/abs/1906.09712, treat quantiles in this way). The grid has 2048 equal steps and, on each side, the
tail points 2^-12 … 2^-16; half of the error probability goes evenly to all points, half to the powers of 2.

*Discretisation.* Evidence has none: the law fixes G(t) = t at every grid point. The interval is about all t in [0, 1]:
between neighbouring points s < t a distribution function is monotone, so its deviation lies between that at s less
t - s and that at t plus t - s; the step, at most 1/2048, is part of the interval that is reported.

*Evidence* is the average of the e-processes of the points, which sees shifts of the distribution function, and of a
`categorical` e-process over 64 equal cells, which sees waves and spikes that leave it nearly unmoved.

"Below t", not "up to t": numbers that are multiples of 2^-24, as those of float32 generators, are then exact on this
dyadic grid. Numbers equal to 0 and to 1 are counted in the first and the last cell.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64, Num
from torch import Tensor

from harness.evidence import Cell, Look
from harness.statistics import binomial, categorical
from harness.statistics.accumulator import log_mean_exp
from harness.statistics.carried import Quads, of_counts

_STEPS = 2048
_FINEST = 2**16
_TAIL = 2.0 ** -torch.arange(1, 17, dtype=torch.float64)
POINTS = torch.cat([torch.arange(1, _STEPS, dtype=torch.float64) / _STEPS, _TAIL, 1 - _TAIL]).unique()
_IS_TAIL = torch.isin(POINTS, torch.cat([_TAIL, 1 - _TAIL]))
_LOG_WEIGHT = torch.log(0.5 / len(POINTS) + 0.5 * _IS_TAIL / _IS_TAIL.sum())
_CELLS = 64
_EDGES = torch.searchsorted(POINTS, torch.arange(1, _CELLS, dtype=torch.float64) / _CELLS)
_MASSES = torch.full((_CELLS,), 1 / _CELLS, dtype=torch.float64)


def log_e_values(below: Float64[Tensor, "*b m"], n: int, uncertainty: float = 0.0) -> Float64[Tensor, "*b"]:
    """Counts of draws below each of `POINTS` to their log e-values, with so much of every probability allowed."""
    pointwise = torch.logsumexp(binomial.log_e_value(below, n, POINTS, uncertainty) + _LOG_WEIGHT, -1)
    histogram = categorical.log_e_values(_cell_counts(below, n), _MASSES, uncertainty)
    return torch.logaddexp(pointwise, histogram) - math.log(2)


class UniformBand:
    """Are k streams of numbers each Uniform(0, 1)? Streams (n,) or (n, k); each column is judged alone."""

    points = POINTS

    def __init__(self) -> None:
        self.n = 0
        self.counts = torch.zeros(1, len(POINTS), dtype=torch.float64)
        self.void = torch.zeros(1, dtype=torch.bool)

    def update(self, values: Num[Tensor, " n *k"]) -> None:
        """Take in a chunk. NaN poisons its column, and never passes; a number outside [0, 1] is an error."""
        rows = (values[:, None] if values.dim() == 1 else values.flatten(1)).detach()
        if bool(((rows < 0) | (rows > 1)).any()):
            raise ValueError("numbers must lie in [0, 1]")
        self.n += len(rows)
        self.counts = self.counts + torch.stack([_below(column) for column in rows.T])
        self.void = self.void | rows.isnan().any(0).cpu()

    def below(self) -> Float64[Tensor, "k m"]:
        """Draws below each grid point."""
        return torch.where(self.void[:, None], math.nan, self.counts)

    def log_e(self) -> Float64[Tensor, " k"]:
        """The log e-value of each column."""
        return log_e_values(self.below(), self.n) if self.n else torch.zeros(len(self.counts), dtype=torch.float64)

    def carried(self, doubt: float) -> Quads:
        """What later runs go on from: of each column, the 64 cells and the 63 points between them."""
        below = self.below()
        events = torch.cat([_cell_counts(below, self.n), below[:, _EDGES]], 1)
        p = torch.cat([_MASSES, POINTS[_EDGES]]).expand_as(events)
        return of_counts(events.flatten(), self.n, p.flatten(), doubt)

    def allowing(self, doubt: float) -> float:
        """The log e-value against distribution functions that are further from the uniform one."""
        return log_mean_exp(log_e_values(self.below(), self.n, doubt)) if self.n else 0.0

    def interval(self, alpha: float) -> tuple[Float64[Tensor, "k m"], Float64[Tensor, "k m"]]:
        """Ends for G(t) - t at the grid points, all together at all times with probability 1 - alpha."""
        level = math.log(len(self.counts) / alpha) - _LOG_WEIGHT
        low, high = binomial.interval(self.below(), self.n, POINTS.expand(len(self.counts), -1), level)
        return low - POINTS, high - POINTS

    def cells(self, column: int = 0) -> tuple[Cell, ...]:
        """The 64-cell histogram of one column."""
        shares = _cell_counts(self.below()[column], self.n) / max(self.n, 1)
        return tuple(Cell(f"[{j}/64, {j + 1}/64)", 1 / _CELLS, float(share)) for j, share in enumerate(shares))

    def look(self, confidence: float) -> Look:
        """The interval holds G(t) - t for all t, at the column where that reaches furthest."""
        if self.n == 0:
            return Look(0, 0.0, -1.0, 1.0, 0.0)
        low, high = self.interval(1 - confidence)
        step = torch.diff(POINTS, prepend=torch.zeros(1), append=torch.ones(1))
        edge = torch.zeros_like(low[:, :1])  # G(0) = 0, and no more than 1 at 1
        least = (torch.cat([edge, low], 1) - step).amin(1)
        most = (torch.cat([high, edge], 1) + step).amax(1)
        widest = int(torch.argmax(torch.maximum(-least, most)))
        deviation = self.below()[widest] / self.n - POINTS
        estimate = float(deviation[int(torch.argmax(deviation.abs()))])
        return Look(self.n, estimate, float(least[widest]), float(most[widest]), log_mean_exp(self.log_e()), widest)


def _below(u: Tensor) -> Tensor:
    """(m,): how many of the numbers are below each grid point, by way of the 2^16 cells between its finest steps."""
    if u.dtype not in (torch.float32, torch.float64):
        u = u.double()
    cell = (u.nan_to_num(0.0) * _FINEST).long()
    return torch.bincount(cell, minlength=_FINEST + 1).cumsum(0).cpu()[(POINTS * _FINEST).long() - 1].double()


def _cell_counts(below: Tensor, n: int) -> Tensor:
    """(..., 64) counts of the equal cells."""
    edges = below[..., _EDGES]
    return torch.diff(
        edges, prepend=torch.zeros_like(edges[..., :1]), append=torch.full_like(edges[..., :1], float(n)), dim=-1
    )
