r"""Means that may be negative and must not be positive: one half of the test of `asymptotic`.

For numbers of mean :math:`m \le 0`, let S and V be the sums of x - m and of its square. The evidence of `asymptotic`
grows with :math:`(S + nm)^2 / (V + 2mS + nm^2)`, which for S + nm > 0 is largest at m = 0, since with s = S/n it is
n (s + m)^2 over (V/n - s^2) + (s + m)^2. So where the sum is positive the evidence against the mean 0 is at most that
against every mean below, and where it is not there is none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.evidence import Look
from harness.statistics.asymptotic import AsymptoticMean


class MeanAtMostZero(AsymptoticMean):
    """Are the means of k unbounded numbers per draw at most 0? A look tells by how much one exceeds it."""

    def look(self, confidence: float) -> Look:
        if self.n == 0:
            return Look(0, 0.0, 0.0, math.inf, 0.0)
        low, high = (end.clamp(min=0) for end in self.interval(1 - confidence))
        worst = int(torch.argmax(high.nan_to_num(math.inf, math.inf)))
        mean = float((self.first + self.second).total[worst]) / self.n
        excess = mean if math.isnan(mean) else max(mean, 0.0)
        return Look(self.n, excess, float(low[worst]), float(high[worst]), self.log_e(), worst)

    def _columns_first(self) -> Tensor:
        return torch.where(self.first.total > 0, super()._columns_first(), -math.inf)
