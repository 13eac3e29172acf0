r"""Means of bounded numbers: the empirical-Bernstein e-process and its confidence sequence.

For numbers with :math:`X \ge -1` and mean :math:`\mu`, and any :math:`0 \le \lambda < 1`,

.. math:: M_n(\lambda; \mu) = \exp\{\lambda S_n - \psi(\lambda) Q_n - n \log(1 + \lambda\mu)\},
          \qquad S_n = \sum X_i,\; Q_n = \sum X_i^2,\; \psi(\lambda) = -\log(1-\lambda) - \lambda

is a supermartingale started at 1, because :math:`\exp\{\lambda x - \psi(\lambda) x^2\} \le 1 + \lambda x` for
:math:`x \ge -1` (Fan, Grama & Liu 2015, https://doi.org/10.1214/EJP.v20-3496; Howard, Ramdas, McAuliffe & Sekhon 2021,
https://arxiv.org/abs/1810.08240). So is every mixture of them, and by Ville's inequality a mixture exceeds
:math:`1/\alpha` at some time with probability at most :math:`\alpha`. Means that change from draw to draw are covered
too: as :math:`\log(1 + \lambda\mu)` is concave, the interval then holds their average.

The mixture is over a geometric grid of :math:`\lambda`, with weights proportional to :math:`\lambda^{1/8}`. The ratio
1.6 of its steps costs at most (0.6 / 2.6)^2 = 5 % of the exponent, and it reaches down to 2e-10: for numbers whose
floor is that small beside their deviation (the indicator of a rare event, less its probability), and for 10^18 draws,
in which a mean of 10^-8 shows. The state is three sums, so chunks add up, and so do runs (`carried`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from harness.evidence import Look
from harness.statistics.accumulator import log_mean_exp
from harness.statistics.carried import Quads, of_means

_LAMBDA = 0.95 * 1.6 ** -torch.arange(48, dtype=torch.float64)
_PSI = -torch.log1p(-_LAMBDA) - _LAMBDA
_LOG_WEIGHT = torch.log_softmax(_LAMBDA.log() / 8, 0)
BLOCK = 2**14  # rows that fit into the cache: ten times as fast as a million at once
_NEWTON_STEPS = 4  # quadratic convergence: the third moves the tenth digit


@dataclass(frozen=True)
class Sums:
    """What a chunk of `n` rows contributes: per column, the sum of the numbers and of their squares."""

    n: int
    total: Float[Tensor, " k"]
    squares: Float[Tensor, " k"]


def sums(values: Shaped[Tensor, " n *k"]) -> Sums:
    """Sums over rows, in float64."""
    rows = values[:, None] if values.dim() == 1 else values.flatten(1)
    total = squares = torch.zeros(rows.shape[1], dtype=torch.float64)
    for block in rows.detach().split(BLOCK):
        x = block.double()
        total, squares = total + x.sum(0).cpu(), squares + x.square().sum(0).cpu()
    return Sums(len(rows), total, squares)


class BoundedMean:
    """Are the means of k bounded numbers per draw 0? Streams (n,), (n, k) or ready `Sums`."""

    doubt = 0.0
    """How far from 0 the law itself may leave a mean, which is less than one run can see."""

    def __init__(self, low: float = -1.0, high: float = 1.0):
        if not low < 0 < high:
            raise ValueError(f"the law's value 0 must lie inside the range, not [{low}, {high}]")
        self.low, self.high = low, high
        self.n = 0
        self.total = self.squares = torch.zeros(1, dtype=torch.float64)

    def update(self, values: Shaped[Tensor, " n *k"] | Sums) -> None:
        """Take in a chunk. A number that is not finite poisons, and never passes; one outside the range is an error."""
        if isinstance(values, Tensor) and values.numel():
            self._check_range(values)
        chunk = values if isinstance(values, Sums) else sums(values)
        self.n += chunk.n
        self.total = self.total + chunk.total
        self.squares = self.squares + chunk.squares

    def _check_range(self, values: Tensor) -> None:
        """The guarantee needs low <= x <= high, give or take the rounding of the numbers' own arithmetic."""
        least, most = (float(extreme) for extreme in torch.aminmax(values.detach().flatten()))
        eps = torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0
        slack = 16 * eps * max(-self.low, self.high)
        if -math.inf < least < self.low - slack or self.high + slack < most < math.inf:
            raise ValueError(f"numbers in [{least}, {most}] where [{self.low}, {self.high}] was promised")

    def log_e(self) -> Float64[Tensor, "k 2"]:
        """The log e-value of each column, above and below 0."""
        return torch.stack(
            [log_mixture(self.total, self.squares, -self.low), log_mixture(-self.total, self.squares, self.high)], 1
        )

    def carried(self, doubt: float) -> Quads:
        """What later runs go on from."""
        slack = self.doubt + doubt * max(-self.low, self.high)
        return of_means(self.total, self.squares, self.n, self.low, self.high, slack)

    def allowing(self, doubt: float) -> float:
        """The log e-value against means that are further from 0 than the arithmetic explains."""
        above, above_squares, below, below_squares = self.carried(doubt).unbind(1)
        return log_mean_exp(torch.stack([log_mixture(above, above_squares), log_mixture(below, below_squares)]))

    def interval(self, alpha: float) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
        """Intervals that hold all k means at all times together with probability 1 - alpha."""
        level = alpha / (2 * len(self.total))
        low = _lower_limit(self.total, self.squares, self.n, -self.low, level)
        high = -_lower_limit(-self.total, self.squares, self.n, self.high, level)
        void = torch.where((self.total + self.squares).isfinite(), 0.0, math.nan)
        return low.clamp(min=self.low) + void, high.clamp(max=self.high) + void

    def look(self, confidence: float) -> Look:
        if self.n == 0:
            return Look(0, 0.0, self.low, self.high, 0.0)
        low, high = self.interval(1 - confidence)
        return self._look_at(int(torch.argmax(torch.maximum(-low, high))), low, high)

    def suspect(self, confidence: float) -> Look:
        """The look at the column with the strongest evidence against it, which need not be bounded worst."""
        return self._look_at(int(self.log_e().amax(1).argmax()), *self.interval(1 - confidence))

    def _look_at(self, column: int, low: Tensor, high: Tensor) -> Look:
        estimate = float(self.total[column]) / self.n
        return Look(self.n, estimate, float(low[column]), float(high[column]), log_mean_exp(self.log_e()), column)


def log_mixture(
    total: Float64[Tensor, " k"], squares: Float64[Tensor, " k"], floor: float = 1.0
) -> Float64[Tensor, " k"]:
    """log of the mixture over lambda for numbers >= -floor, from their sums and those of their squares."""
    exponents = total[:, None] / floor * _LAMBDA - squares[:, None] / floor**2 * _PSI
    return torch.logsumexp(exponents + _LOG_WEIGHT, 1)


def _lower_limit(total: Tensor, squares: Tensor, n: int, floor: float, alpha: float) -> Tensor:
    """The mean m below which the mixture rules out every mean at level alpha; (k,).

    log M is convex and falls as m rises, so Newton's steps from a point where it is too large stay on that side: every
    iterate is a valid limit. The first is the best limit of a single lambda.
    """
    exponents = total[:, None] / floor * _LAMBDA - squares[:, None] / floor**2 * _PSI + math.log(alpha) + _LOG_WEIGHT
    mean = (torch.expm1(exponents / n) / _LAMBDA).amax(1, keepdim=True)
    for _ in range(_NEWTON_STEPS):
        terms = exponents - n * torch.log1p(_LAMBDA * mean)
        slope = (torch.softmax(terms, 1) * _LAMBDA / (1 + _LAMBDA * mean)).sum(1, keepdim=True) * n
        mean = mean + torch.logsumexp(terms, 1, keepdim=True).clamp(min=0) / slope
    return floor * mean[:, 0]
