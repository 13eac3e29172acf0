r"""What a statistic that stopped leaves for runs after it: sums with which its supermartingale goes on.

Let the law put the mean of numbers :math:`x \ge -b` at no more than :math:`s \ge 0`. Then
:math:`y = (x - s) / (b + s) \ge -1` has a mean of at most 0, and

.. math:: \exp\{\lambda \sum y_i - \psi(\lambda) \sum y_i^2\}, \qquad \psi(\lambda) = -\log(1-\lambda) - \lambda,

is a supermartingale in draws, as `bernstein` has it. It asks of each draw only that its mean, *given all that came
before*, is at most 0. So it goes on over runs with draws of their own, each stopped whenever it was: the sums add up. b
and s may change from run to run, and so may the numbers, as long as they are fixed before the draws that they see.

The slack s is what the law, or the arithmetic of its numbers, allows: a mean inside it adds nothing in any number of
runs. Four sums are kept of a quantity: those of y and y^2 for x, by which it would be seen to lie above the law's
value, and the same for -x. Where there is nothing to see on a side, its sums are 0, and its supermartingale stays 1.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor

Quads = Float64[Tensor, "k 4"]
"""Of each quantity: the sums of y and of y^2 above the law's value, and below it."""


@runtime_checkable
class Carries(Protocol):
    """A statistic that later runs can go on from."""

    def carried(self, doubt: float) -> Quads:
        """The sums so far. `doubt` is the part of the largest possible number that rounding may move a mean by."""

    def allowing(self, doubt: float) -> float:
        """The log e-value of this run against the law with that much allowed."""


def of_means(total: Tensor, squares: Tensor, n: int, low: float, high: float, slack: float) -> Quads:
    """Of n numbers in [low, high] whose mean is in [-slack, slack]: from their sums (k,) and those of their squares."""
    return torch.cat([_side(total, squares, n, -low, slack), _side(-total, squares, n, high, slack)], 1)


def _side(total: Tensor, squares: Tensor, n: int, floor: float, slack: float) -> Tensor:
    """(k, 2) for numbers that are at least -floor."""
    unit, shift = floor + slack, n * slack
    beyond = (squares - 2 * slack * total + shift * slack).clamp(min=0)  # of (x - slack)^2, but for rounding
    return torch.stack([(total - shift) / unit, beyond / unit**2], 1)


def of_counts(events: Tensor, n: int, p: Tensor, slack: Tensor | float) -> Quads:
    """Of events (k,) in n draws, each with a probability within `slack` of p (k,)."""
    most, least = (p + slack).clamp(max=1), (p - slack).clamp(min=0)
    return torch.cat([_too_many(events, n, most), _too_many(n - events, n, 1 - least)], 1)


def _too_many(events: Tensor, n: int, p: Tensor) -> Tensor:
    """(k, 2) for 1{event} - p >= -p. One that happens although p is 0 is beyond any sum, and counts in its own run."""
    unit = torch.where(p > 0, p, 1.0)
    beyond = events * (1 - p).square() + (n - events) * p.square()
    return torch.stack([(events - n * p) / unit, beyond / unit.square()], 1) * (p > 0)[:, None]
