r"""Means of unbounded numbers: the self-normalised Gaussian mixture, guarded and confirmed on fresh draws.

With :math:`S = \sum X_i` and :math:`V = \sum X_i^2`, for numbers that are symmetric about 0 and any :math:`\lambda`,
:math:`\exp\{\lambda S - \lambda^2 V / 2\}` is a supermartingale started at 1 (de la Peña 1999, since
:math:`\cosh(\lambda x) \le e^{\lambda^2 x^2 / 2}`; https://doi.org/10.1214/aop/1022677271), and so is its average over
:math:`\lambda \sim N(0, 1/\rho)`,

.. math:: \log M = \tfrac12 \log\frac{\rho}{V + \rho} + \frac{S^2}{2 (V + \rho)},

here averaged again over :math:`\rho = 16^{-20}, …, 16^{20}`, because the scale of the numbers is unknown. For numbers
that are not symmetric this holds in the limit only (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024,
https://arxiv.org/abs/2103.06476), and no test whatever is valid for all means (Bahadur & Savage 1956). Hence guards,
with :math:`L = \log(1/\alpha)` at the level in use:

* *gate*: evidence is withheld while the largest single :math:`x^2` exceeds V / 4L (Lindeberg's condition, observed).
  The sum then has at least 4L effective terms. If it falls short of its mean because m large numbers came where r m
  were due, its exponent claims m (r - 1)^2 / 2 where the truth is m (r - 1 - log r); for m >= 4L the claim is off by
  less than a factor 2 up to claims of 5 L;
* *patience*: evidence is withheld below :math:`(L + \log 2) / 2p` draws in each stage, so that an event of probability
  p = `rarest` stays unseen in both with probability :math:`\alpha / 2` only: until then nothing is said;
* *confirmation*: once evidence passes `threshold`, a second stage starts on fresh draws only, its bet placed on the
  deviation that the first stage found, and the evidence reported is the smaller of the two. Both have to be wrong for a
  false alarm, so an exponent off by a factor 2 in each still keeps the level.

What is assumed, then, is that nothing rarer than `rarest` decides the mean. Who can bound what such an event does hands
in a bound, and the assumption is dropped:

* *the unseen*: an event of probability q stays unseen in n draws of each stage with probability
  :math:`(1 - q)^{2n} \le \alpha/2` once :math:`q \ge q_n = (L + \log 2) / 2n`. A mean within what an unseen event of
  probability q_n can explain is no evidence. By Cauchy and Schwarz that is :math:`\sqrt{q_n}\,\sigma` at most, which
  costs nothing where the draws are as wide as they should be: evidence L needs a mean of
  :math:`\sqrt{2 L / n}\,\sigma`.

Stages change at draw counts fixed in advance, so the size of the chunks does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor

from harness.evidence import Look
from harness.statistics.accumulator import pieces
from harness.statistics.bernstein import BLOCK

Numbers = Float64[Tensor, "*#b"]
"""Of any shapes that broadcast."""

Unseen = Callable[[float, Bool[Tensor, " k"]], Float64[Tensor, " k"]]
"""(q, which columns vary) -> the most by which an event of probability q can shift the means while it is unseen."""

_SAME = 2.0**-40
"""Of the sum of squares: numbers that spread by less are one number, rounded."""

_LOG_RHO = math.log(16) * torch.arange(-20, 21, dtype=torch.float64)
_HALVINGS = 60
_FIRST = 64


@dataclass
class _Stage:
    """Sums of the draws of one stage: per column, of x and x^2, and the largest x^2."""

    n: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    largest: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    def update(self, rows: Tensor) -> None:
        for block in rows.split(BLOCK):
            x = block.double()
            squares = x.square()
            self.n += len(x)
            self.total = self.total + x.sum(0).cpu()
            self.squares = self.squares + squares.sum(0).cpu()
            self.largest = torch.maximum(self.largest, squares.amax(0).cpu())

    def __add__(self, other: _Stage) -> _Stage:
        largest = torch.maximum(self.largest, other.largest)
        return _Stage(self.n + other.n, self.total + other.total, self.squares + other.squares, largest)


def log_mixture(total: Numbers, squares: Numbers) -> Numbers:
    """log M for the mean 0, averaged over rho. Arguments broadcast."""
    rho = _LOG_RHO.exp()
    spread = squares[..., None] + rho
    exponents = (_LOG_RHO - spread.log()) / 2 + total[..., None].square() / (2 * spread)
    return torch.logsumexp(exponents, -1) - math.log(len(_LOG_RHO))


def log_bet(total: Numbers, squares: Numbers, centre: Numbers, rho: Numbers) -> Numbers:
    """log of exp(lambda S - lambda^2 V / 2) averaged over lambda ~ N(centre, 1 / rho)."""
    spread = squares + rho
    return ((rho / spread).log() + (total + rho * centre).square() / spread - rho * centre.square()) / 2


def gate(
    n: int, squares: Float[Tensor, " k"], largest: Float[Tensor, " k"], level: float, rarest: float
) -> Bool[Tensor, " k"]:
    """Whether a normal approximation may speak at log-level `level` in each of two stages."""
    return (largest * (4 * level) <= squares) & (squares > 0) & (n >= patience(level, rarest))


def patience(level: float, rarest: float) -> float:
    """Draws in each of two stages that an event of probability `rarest` survives unseen with exp(-level) / 2."""
    return (level + math.log(2)) / (2 * rarest)


class AsymptoticMean:
    """Are the means of k unbounded numbers per draw 0? Streams (n,) or (n, k).

    `threshold` is log(1/alpha) at which a check fails. `rarest` is the smallest probability of an event that a mean may
    rest on; with `unseen`, it may rest on rarer ones.
    """

    def __init__(self, threshold: float = math.log(1e8), rarest: float = 1e-3, unseen: Unseen | None = None):
        if not (threshold > 0 and 0 < rarest < 1):
            raise ValueError("threshold must be positive and rarest lie in (0, 1)")
        self.threshold, self.rarest, self.unseen = threshold, rarest, unseen
        self.first, self.second = _Stage(), _Stage()
        self.confirming = False

    @property
    def n(self) -> int:
        return self.first.n + self.second.n

    @property
    def least(self) -> int:
        """Draws before which it cannot fail: both stages have their patience, and the first goes to a piece's end."""
        wait = math.ceil(patience(self.threshold, self.rarest))
        first = _FIRST
        while first < wait:
            first += -(-first // 8)
        return first + wait

    def update(self, values: Shaped[Tensor, " n *k"]) -> None:
        """Take in a chunk. A number that is not finite poisons, and never passes."""
        rows = (values[:, None] if values.dim() == 1 else values.flatten(1)).detach()
        for piece, complete in pieces(rows, self.n, _FIRST):
            (self.second if self.confirming else self.first).update(piece)
            if complete and not self.confirming:
                self.confirming = self._log_e_first() >= self.threshold

    def log_e(self) -> float:
        """The smaller of the evidence of both stages; 0 while withheld or not confirmed."""
        if not self._finite():
            return math.nan
        if not self.confirming:
            return 0.0
        log_e = min(self._log_e_first(), self._log_e_second())
        return log_e if log_e > -math.inf else 0.0

    def interval(self, alpha: float) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
        """Ends for all k means at all times together with probability about 1 - alpha; infinite while a gate is
        closed. It rests on every draw, in one stage, so patience asks twice the draws."""
        every = self.first + self.second
        level = math.log(len(every.total) / alpha)
        mean = every.total / every.n
        around = (every.squares - every.total * mean).clamp(min=0)
        # the mixture at mean + d depends on d by S = -n d and V = around + n d^2, and rises in |d| below this:
        inside, outside = torch.zeros_like(mean), (around * max(every.n - 2, 0) / every.n).sqrt()
        reached = log_mixture(every.n * outside, around + every.n * outside.square()) >= level
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            rejected = log_mixture(every.n * middle, around + every.n * middle.square()) >= level
            inside, outside = torch.where(rejected, inside, middle), torch.where(rejected, middle, outside)
        open_ = gate(every.n, around, (every.largest.sqrt() + mean.abs()).square(), level, self.rarest / 2)
        outside = torch.where(open_ & reached, outside, math.inf)
        patient = every.n >= patience(level, self.rarest / 2)
        outside = torch.where((every.squares == 0) & patient, 0.0, outside)  # nothing but zeros
        outside = torch.where((every.total + every.squares).isfinite(), outside, math.nan)
        return mean - outside, mean + outside

    def look(self, confidence: float) -> Look:
        if self.n == 0:
            return Look(0, 0.0, -math.inf, math.inf, 0.0)
        low, high = self.interval(1 - confidence)
        widest = int(torch.argmax(torch.maximum(-low, high)))
        estimate = float((self.first + self.second).total[widest]) / self.n
        return Look(self.n, estimate, float(low[widest]), float(high[widest]), self.log_e(), widest)

    def _finite(self) -> bool:
        every = self.first + self.second
        return bool((every.total + every.squares).isfinite().all())

    def _columns_first(self) -> Tensor:
        """(k,): the evidence of the first stage, -inf where withheld."""
        s = self.first
        return torch.where(self._speaks(s), log_mixture(s.total, s.squares), -math.inf)

    def _speaks(self, s: _Stage) -> Tensor:
        """(k,) bool: columns whose gate is open, and whose mean no unseen event explains."""
        speaks = gate(s.n, s.squares, s.largest, self.threshold, self.rarest)
        if self.unseen is None or not s.n:
            return speaks
        varies = s.squares - s.total.square() / s.n > _SAME * s.squares
        return speaks & (s.total.abs() / s.n > self.unseen((self.threshold + math.log(2)) / (2 * s.n), varies))

    def _log_e_first(self) -> float:
        columns = self._columns_first()
        return float(torch.logsumexp(columns, 0)) - math.log(len(columns))

    def _log_e_second(self) -> float:
        """Columns weighted by the evidence that the first stage found, each betting on the deviation found there."""
        s, weight = self.second, torch.log_softmax(self._columns_first(), 0)
        found = self.first.squares.clamp(min=1e-300)
        columns = log_bet(s.total, s.squares, self.first.total / found, found)
        return float(torch.logsumexp(torch.where(self._speaks(s), columns + weight, -math.inf), 0))
