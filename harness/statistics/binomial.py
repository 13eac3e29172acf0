r"""Counts of events of known probability: the beta-binomial e-process and its confidence sequence.

For :math:`S` events in :math:`n` draws and any distribution :math:`w` fixed beforehand,

.. math:: M_n(q) = \frac{\int \theta^S (1-\theta)^{n-S}\, dw(\theta)}{q^S (1-q)^{n-S}}

is a martingale started at 1 when events have probability :math:`q` (Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon
2021, section 3, https://arxiv.org/abs/1810.08240), so :math:`M_n(p)` is evidence against a stated :math:`p`, and the
:math:`q` with :math:`M_n(q) < 1/\alpha` are a confidence sequence, whatever the true :math:`q` is.

Here :math:`w` is an even mixture of Beta(cp, c(1-p)) for prior sizes c such that the rarer outcome weighs 1/2, 4, 32, …
8 million draws (the best c is about the n at which a deviation shows, over twice the log of the evidence), of
Jeffreys' Beta(1/2, 1/2), for gross deviations, and of p itself, which narrows the interval while nothing deviates.
All is exact at every n; nothing is asymptotic. An event of probability 0 that happens gives infinite evidence.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64, Num, Shaped
from torch import Tensor

from harness.evidence import Cell, Look
from harness.statistics.accumulator import log_mean_exp
from harness.statistics.carried import Quads, of_counts

Numbers = Float64[Tensor, "*#b"]
"""Of any shapes that broadcast."""

_PRIOR_EVENTS = 0.5 * 8.0 ** torch.arange(9, dtype=torch.float64)
_HALVINGS = 55


def log_growth(size: Numbers, count: Numbers) -> Numbers:
    r"""log of :math:`\prod_{i<\text{count}} (1 + i/\text{size}) = \Gamma(a+s) / (\Gamma(a)\, a^s)`.

    Stirling's series where size is large, since there the difference of two log-gammas has no digits left.
    """
    large = size.clamp(min=16.0)
    growth = (large + count - 0.5) * torch.log1p(count / large) - count
    growth += _stirling_rest(large + count) - _stirling_rest(large)
    is_small = (size < 16).expand_as(growth)
    small, seen = size.clamp(min=1e-300).expand_as(growth)[is_small], count.expand_as(growth)[is_small]
    growth[is_small] = torch.lgamma(small + seen) - torch.lgamma(small) - seen * small.log()
    return growth


def log_likelihood(events: Numbers, n: Numbers | float, p: Numbers) -> Numbers:
    """log p^S (1 - p)^(n - S), with 0 log 0 = 0."""
    return torch.xlogy(events, p) + torch.special.xlog1py(n - events, -p)


def log_mixture(events: Numbers, n: Numbers | float, p: Numbers) -> Numbers:
    """log of the numerator of M: the likelihood averaged over the mixture centred on p. Arguments broadcast."""
    n = torch.as_tensor(n, dtype=torch.float64)
    rarer = torch.minimum(p, 1 - p)[..., None]
    size = _PRIOR_EVENTS / rarer.clamp(min=1e-300)
    centre, seen, draws = p[..., None], events[..., None], n[..., None]
    ratio = log_growth(size * centre, seen) + log_growth(size * (1 - centre), draws - seen) - log_growth(size, draws)
    ratio = torch.where(rarer > 0, ratio, 0.0)
    ratio = torch.cat([ratio, torch.zeros_like(ratio[..., :1])], -1)  # p itself
    centred = torch.logsumexp(ratio, -1) + log_likelihood(events, n, p)
    jeffreys = (
        torch.lgamma(events + 0.5) + torch.lgamma(n - events + 0.5) - torch.lgamma(n + 1) - math.log(math.pi)
    ).broadcast_to(centred.shape)
    return torch.logaddexp(centred, jeffreys) - math.log(len(_PRIOR_EVENTS) + 2)


def log_e_value(events: Numbers, n: Numbers | float, p: Numbers, uncertainty: Numbers | float = 0.0) -> Numbers:
    """log M_n(p); with `uncertainty`, the least log M_n(q) of the q within it of p. Arguments broadcast.

    log M_n(q) is convex in q and smallest at the observed share, so the least is at the q nearest to that.
    """
    p = torch.as_tensor(p, dtype=torch.float64)
    nearest = (events / n).clamp(p - uncertainty, p + uncertainty).clamp(0, 1) if _any(uncertainty) else p
    return log_mixture(events, n, p) - log_likelihood(events, n, nearest)


def interval(
    events: Numbers, n: Numbers | float, p: Numbers, log_level: Float[Tensor, "*#b"] | float
) -> tuple[Numbers, Numbers]:
    """The ends of {q: log M_n(q) < log_level}, by bisection on each side of the observed share, rounded outwards."""
    p = torch.as_tensor(p, dtype=torch.float64)
    share = events / n
    allowed = log_mixture(events, n, p) - log_level

    inside = torch.stack([share, share])
    outside = torch.stack([torch.zeros_like(share), torch.ones_like(share)])
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        rejected = log_likelihood(events, n, middle) <= allowed
        inside, outside = torch.where(rejected, inside, middle), torch.where(rejected, middle, outside)
    low, high = torch.where(allowed.isnan(), math.nan, outside)
    return low, high


class BinomialCount:
    """Do k events happen with their stated probabilities? Streams (n,) or (n, k) of 0 and 1.

    `uncertainty` bounds the error of `p` itself: the evidence is the least that any p within it leaves, and the
    interval is widened by it.
    """

    def __init__(self, p: float | Float[Tensor, "*k"], uncertainty: float = 0.0):
        self.p = torch.as_tensor(p, dtype=torch.float64).cpu().reshape(-1)
        if not bool(((self.p >= 0) & (self.p <= 1)).all()):
            raise ValueError("probabilities must lie in [0, 1]")
        self.uncertainty = uncertainty
        self.n = 0
        self.events = torch.zeros_like(self.p)

    def update(self, values: Shaped[Tensor, " n *k"]) -> None:
        """Take in a chunk of indicators. NaN poisons, and never passes."""
        rows = values[:, None] if values.dim() == 1 else values.flatten(1)
        if rows.dtype != torch.bool and not bool(((rows == 0) | (rows == 1) | rows.isnan()).all()):
            raise ValueError("indicators must be 0 or 1")
        self.add(len(rows), rows.sum(0, dtype=torch.float64).cpu())

    def add(self, n: int, events: Num[Tensor, " k"]) -> None:
        """Take in n draws by their counts of events."""
        self.n += n
        self.events = self.events + events.to(torch.float64)

    def log_e(self) -> Float64[Tensor, " k"]:
        """The log e-value of each column."""
        return log_e_value(self.events, max(self.n, 1), self.p.expand_as(self.events), self.uncertainty)

    def carried(self, doubt: float) -> Quads:
        """What later runs go on from."""
        return of_counts(self.events, self.n, self.p.expand_as(self.events), self.uncertainty + doubt)

    def allowing(self, doubt: float) -> float:
        """The log e-value against probabilities that are further from p."""
        p = self.p.expand_as(self.events)
        return log_mean_exp(log_e_value(self.events, max(self.n, 1), p, self.uncertainty + doubt))

    def interval(self, alpha: float) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
        """Ends for share less p, all k at all times together with probability 1 - alpha."""
        p = self.p.expand_as(self.events)
        low, high = interval(self.events, self.n, p, math.log(len(self.events) / alpha))
        return low - p - self.uncertainty, high - p + self.uncertainty

    def cells(self) -> tuple[Cell, ...]:
        """Each column's probability and observed share."""
        shares = self.events / max(self.n, 1)
        both = zip(self.p.expand_as(shares), shares, strict=True)
        return tuple(Cell(str(j), float(p), float(share)) for j, (p, share) in enumerate(both))

    def look(self, confidence: float) -> Look:
        if self.n == 0:
            widest = int(torch.argmax((self.p - 0.5).abs()))
            return Look(0, 0.0, -float(self.p[widest]), 1 - float(self.p[widest]), 0.0, widest)
        low, high = self.interval(1 - confidence)
        widest = int(torch.argmax(torch.maximum(-low, high)))
        estimate = float(self.events[widest] / self.n - self.p.expand_as(low)[widest])
        return Look(self.n, estimate, float(low[widest]), float(high[widest]), log_mean_exp(self.log_e()), widest)


def _stirling_rest(x: Tensor) -> Tensor:
    """log Gamma(x) less (x - 1/2) log x - x + log(2 pi) / 2, to 1e-11 for x >= 16."""
    square = x * x
    return (1 / 12 - (1 / 360 - 1 / (1260 * square)) / square) / x


def _any(uncertainty: Tensor | float) -> bool:
    return bool((torch.as_tensor(uncertainty) > 0).any())
