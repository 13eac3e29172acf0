r"""Means that may be negative and must not be positive: one half of the test of `asymptotic`.

For numbers of mean :math:`m \le 0`, let S and V be the sums of x - m and of its square. The evidence of `asymptotic`
grows with :math:`(S + nm)^2 / (V + 2mS + nm^2)`, which for S + nm > 0 is largest at m = 0, since with s = S/n it is
n (s + m)^2 over (V/n - s^2) + (s + m)^2. So where the sum is positive the evidence against the mean 0 is at most that
against every mean below, and where it is not there is none.

An upper limit for the mean needs no lower tail: that of max(x, -c) is a limit for x as well. Where no number is
positive, a positive mean would rest on an event that patience has excluded, and the limit is 0.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Shaped
from torch import Tensor

from harness.evidence import Look
from harness.statistics.asymptotic import AsymptoticMean, patience

FLOORS = (-4.0, -1.0, -0.25)
"""-c, in the unit that numbers come in, which is their standard deviation or more. The least limit counts."""


class MeanAtMostZero(AsymptoticMean):
    """Are the means of k unbounded numbers per draw at most 0? A look tells by how much one exceeds it."""

    def __init__(self, threshold: float = math.log(1e8), rarest: float = 1e-3):
        super().__init__(threshold, rarest)
        self.cut = [AsymptoticMean(threshold, rarest) for _ in FLOORS]
        for statistic in self.cut:
            statistic.confirming = True  # its interval is asked for, and no evidence
        self.most = torch.full((1,), -math.inf, dtype=torch.float64)

    def update(self, values: Shaped[Tensor, " n *k"]) -> None:
        super().update(values)
        rows = (values[:, None] if values.dim() == 1 else values.flatten(1)).detach().double()
        for floor, statistic in zip(FLOORS, self.cut, strict=True):
            statistic.update(rows.clamp(min=floor))
        self.most = torch.maximum(self.most, rows.amax(0).cpu())

    def look(self, confidence: float) -> Look:
        if self.n == 0:
            return Look(0, 0.0, 0.0, math.inf, 0.0)
        low, high = self.interval(1 - confidence)[0].clamp(min=0), self.upper(1 - confidence)
        worst = int(torch.argmax(high.nan_to_num(math.inf, math.inf)))
        mean = float((self.first + self.second).total[worst]) / self.n
        excess = mean if math.isnan(mean) else max(mean, 0.0)
        return Look(self.n, excess, float(low[worst]), float(high[worst]), self.log_e(), worst)

    def upper(self, alpha: float) -> Tensor:
        """(k,): limits that no mean exceeds, at all times together, with probability about 1 - alpha."""
        limits = [statistic.interval(alpha / len(FLOORS))[1] for statistic in self.cut]
        high = torch.stack(limits).amin(0).clamp(min=0)
        patient = self.n >= patience(math.log(len(high) / alpha), self.rarest / 2)
        return torch.where((self.most <= 0) & patient, 0.0, high)

    def _columns_first(self) -> Tensor:
        return torch.where(self.first.total > 0, super()._columns_first(), -math.inf)
