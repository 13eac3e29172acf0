r"""Counts in K cells of known mass: the Dirichlet-multinomial e-process.

For counts :math:`N_j` and any distribution :math:`w` over probability vectors that is fixed beforehand,

.. math:: M_n(\pi) = \int \prod_j (\theta_j / \pi_j)^{N_j}\, dw(\theta)

is a martingale started at 1 when the cells have masses :math:`\pi` (the multinomial version of Robbins' mixture; see
Lindon & Malek 2022, https://arxiv.org/abs/2011.03567). Half of w is Dirichlet(c m) around the stated masses m, evenly
over prior sizes c = 1, 8, 64, … 1.3e8: it finds deviations that are spread over many cells. The other half changes one
cell at a time (the K beta-binomial e-processes of `binomial`, averaged): it finds a single wrong cell for log K, where
a Dirichlet mixture pays for all K. A draw in a cell of mass 0 gives infinite evidence.

When the masses come from quadrature, with an error of at most u in each, the null hypothesis is the set of the
:math:`\pi` with :math:`|\pi_j - m_j| \le u_j` and sum 1. The evidence is then the least of :math:`M_n(\pi)` over that
set, which is no larger than at the true masses and therefore as valid: its :math:`\pi_j` is :math:`N_j / \nu` clamped
into its interval, with :math:`\nu` such that the sum is 1 (Lagrange). Intervals are widened by u.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64, Num, Shaped
from torch import Tensor

from harness.evidence import Cell, Look
from harness.statistics import binomial
from harness.statistics.carried import Quads, of_counts

_PRIOR_DRAWS = 8.0 ** torch.arange(10, dtype=torch.float64)
_HALVINGS = 60


def log_e_values(
    counts: Num[Tensor, "*b K"], masses: Float64[Tensor, " K"], uncertainty: Float64[Tensor, " K"] | float = 0.0
) -> Float64[Tensor, "*b"]:
    """Counts to their log e-values against `masses`."""
    n = counts.sum(-1)
    u = torch.as_tensor(uncertainty, dtype=torch.float64).expand_as(masses)
    centre = torch.maximum(masses, u)
    centre = centre / centre.sum()
    spread = _log_dirichlet(counts, centre) + torch.xlogy(counts, centre).sum(-1) - _best_null(counts, masses, u)
    cellwise = binomial.log_e_value(counts, n.clamp(min=1)[..., None], masses, u)
    single = torch.logsumexp(cellwise, -1) - math.log(len(masses))
    impossible = ((counts > 0) & (masses + u <= 0)).any(-1)
    return torch.where(impossible, math.inf, torch.logaddexp(spread, single) - math.log(2))


class CategoricalCounts:
    """Do draws fall into K cells with the stated masses? Streams (n,) cell indices."""

    def __init__(self, masses: Float[Tensor, " K"], uncertainty: float | Float[Tensor, " K"] = 0.0):
        self.masses = torch.as_tensor(masses, dtype=torch.float64).cpu().reshape(-1)
        self.uncertainty = torch.as_tensor(uncertainty, dtype=torch.float64).cpu().expand_as(self.masses)
        gap = abs(float(self.masses.sum()) - 1)
        rounding = 4 * len(self.masses) * torch.finfo(torch.float32).eps
        if not (bool((self.masses >= 0).all()) and gap <= float(self.uncertainty.sum()) + rounding):
            raise ValueError("masses must be non-negative and sum to 1 within their uncertainty")
        if gap > float(self.uncertainty.sum()):
            self.masses = self.masses / self.masses.sum()
        self.counts = torch.zeros_like(self.masses)

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def update(self, values: Shaped[Tensor, " n"]) -> None:
        """Take in a chunk of cell indices 0 … K-1, a row a draw. A draw outside the cells needs a cell of mass 0."""
        if values.is_floating_point():
            raise TypeError("cell indices must be integers")
        cells = values.reshape(-1).long()
        if len(cells) and not 0 <= int(cells.min()) <= int(cells.max()) < len(self.masses):
            raise ValueError(f"cell index outside 0 … {len(self.masses) - 1}")
        self.add(torch.bincount(cells, minlength=len(self.masses)).cpu())

    def add(self, counts: Num[Tensor, " K"]) -> None:
        """Take in a chunk by its counts."""
        self.counts = self.counts + counts

    def log_e(self) -> float:
        return self.allowing(0.0)

    def allowing(self, doubt: float) -> float:
        """The log e-value against masses that are further from the stated ones, in any cell."""
        return float(log_e_values(self.counts, self.masses, self.uncertainty + doubt)) if self.n else 0.0

    def carried(self, doubt: float) -> Quads:
        """What later runs go on from, of each cell."""
        return of_counts(self.counts, self.n, self.masses, self.uncertainty + doubt)

    def interval(self, alpha: float) -> tuple[Float64[Tensor, " K"], Float64[Tensor, " K"]]:
        """Ends for share less mass, all cells at all times together with probability 1 - alpha."""
        low, high = binomial.interval(self.counts, self.n, self.masses, math.log(len(self.masses) / alpha))
        return low - self.masses - self.uncertainty, high - self.masses + self.uncertainty

    def cells(self) -> tuple[Cell, ...]:
        """Expected and observed share of each cell."""
        shares = self.counts / max(self.n, 1)
        return tuple(Cell(str(j), float(m), float(s)) for j, (m, s) in enumerate(zip(self.masses, shares, strict=True)))

    def look(self, confidence: float) -> Look:
        if self.n == 0:
            return Look(0, 0.0, -1.0, 1.0, 0.0)
        low, high = self.interval(1 - confidence)
        widest = int(torch.argmax(torch.maximum(-low, high)))
        estimate = float(self.counts[widest] / self.n - self.masses[widest])
        return Look(self.n, estimate, float(low[widest]), float(high[widest]), self.log_e(), widest)


def _log_dirichlet(counts: Tensor, centre: Tensor) -> Tensor:
    """log of the Dirichlet(c centre) mixture of the likelihood ratios to `centre`, averaged over c; (...)."""
    size, seen = _PRIOR_DRAWS[:, None] * centre, counts[..., None, :]  # (c, K), (..., 1, K)
    cells = torch.where(centre > 0, binomial.log_growth(size, seen), 0.0).sum(-1)
    ratio = cells - binomial.log_growth(_PRIOR_DRAWS, counts.sum(-1)[..., None])
    return torch.logsumexp(ratio, -1) - math.log(len(_PRIOR_DRAWS))


def _best_null(counts: Tensor, masses: Tensor, u: Tensor) -> Tensor:
    """The largest log-likelihood of the masses allowed by the null hypothesis; (...)."""
    if not bool((u > 0).any()):
        return torch.xlogy(counts, masses).sum(-1)
    least, most = (masses - u).clamp(min=0), (masses + u).clamp(max=1)
    shares = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    low = torch.full_like(shares[..., :1], -200.0)  # log nu: the sum of the clamped shares falls from > 1 to < 1
    high = -low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        heavy = (shares / middle.exp()).clamp(least, most).sum(-1, keepdim=True) >= 1
        low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
    return torch.xlogy(counts, (shares / low.exp()).clamp(least, most)).sum(-1)
