r"""Means of bounded numbers that the law puts near 0, no further away than a stated slack.

For a mean of at most :math:`\delta` the numbers :math:`x - \delta` have one of at most 0, which the supermartingale of
`bernstein` covers as it covers 0; and so for :math:`-x - \delta` below. Intervals are of the mean itself.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64

from harness.statistics.bernstein import BoundedMean, log_mixture


class NearlyZeroMean(BoundedMean):
    """Are the means of k bounded numbers per draw in [-slack, slack]?"""

    def __init__(self, low: float, high: float, slack: float):
        super().__init__(low, high)
        if not 0 <= slack < min(-low, high):
            raise ValueError(f"slack = {slack} should not be negative, and leave some of [{low}, {high}] out")
        self.slack = self.doubt = slack

    def log_e(self) -> Float64[torch.Tensor, "k 2"]:
        """The log e-value of each column, above the slack and below it."""
        up, down = (self._beyond(sign) for sign in (1, -1))
        return torch.stack([log_mixture(*up, self.slack - self.low), log_mixture(*down, self.slack + self.high)], 1)

    def _beyond(self, sign: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of sign x - slack, and of its square."""
        shift = self.n * self.slack
        return sign * self.total - shift, self.squares - 2 * self.slack * sign * self.total + shift * self.slack
