r"""Do two samplers draw from the same distribution? Sequential tests by betting on pairs (x, y).

`PairedBets` watches the means of chosen bounded features, :math:`g(x) - g(y)`.

`ClassifierBets` learns what to watch. For a pair with difference :math:`d = \varphi(x) - \varphi(y)`, a weight vector w
fixed before the pair is seen, and the payoff :math:`\tanh(w \cdot d / 2) \in (-1, 1)`, exchanging x and y flips the
payoff's sign; so it is zero in mean when both have one distribution, and the wealth

.. math:: K_n(\lambda) = \prod_i (1 + \lambda \tanh(w_i \cdot d_i / 2)), \qquad 0 \le \lambda \le 1

is a martingale, at :math:`\lambda = 1` the likelihood ratio of a logistic classifier of swapped against unswapped pairs
to a coin (Shekhar & Ramdas 2023, https://arxiv.org/abs/2112.09162; Pandeva, Bakker, Naesseth & Forré 2024,
https://arxiv.org/abs/2210.13027; Lopez-Paz & Oquab 2017, https://arxiv.org/abs/1610.06545 for the classifier test).
The weights come from all earlier pairs by one Newton step of logistic regression from 0, in closed form,

.. math:: w = 2 G^{-1} \sum d, \qquad G = \sum d d^\top,

shrunk by the positive-part James-Stein factor :math:`(1 - k / \chi^2)_+`, where noise alone gives
:math:`\chi^2 = \sum d^\top G^{-1} \sum d` the expectation k. So nothing is staked until there is
something to stake on. Weights change at draw counts fixed in advance, so that the size of the chunks does not matter;
the state is k + k^2 sums.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64, Num
from torch import Tensor

from harness.evidence import Look
from harness.statistics.accumulator import log_mean_exp, pieces
from harness.statistics.bernstein import BoundedMean
from harness.statistics.carried import Quads

_STAKES = torch.tensor([1.0, 0.5, 0.25, 0.125], dtype=torch.float64)
_FIRST = 32


class PairedBets(BoundedMean):
    """Do k features with values in [low, high] have the same means under x and y?"""

    def __init__(self, low: float = 0.0, high: float = 1.0):
        super().__init__(low - high, high - low)

    def pair(self, features_x: Num[Tensor, " n *k"], features_y: Num[Tensor, " n *k"]) -> None:
        """Take in as many rows of features of x as of y."""
        self.update(features_x - features_y)


class ClassifierBets:
    """Can a classifier, fitted on earlier pairs, tell x from y? Features need no bounds.

    The interval is on the average payoff so far, 0 under the law. It bounds from below how far apart (x, y) and (y, x)
    are in total variation; a small payoff says only that these features and weights do not see the difference.
    """

    def __init__(self) -> None:
        self.payoffs = BoundedMean(-1.0, 1.0)
        self.log_wealth = torch.zeros(len(_STAKES), dtype=torch.float64)
        self.sum_d = torch.zeros(0, dtype=torch.float64)
        self.sum_dd = torch.zeros(0, 0, dtype=torch.float64)
        self.weights = torch.zeros(0, dtype=torch.float64)

    @property
    def n(self) -> int:
        return self.payoffs.n

    def pair(self, features_x: Num[Tensor, " n *k"], features_y: Num[Tensor, " n *k"]) -> None:
        """Take in as many rows of features of x as of y."""
        self.update(features_x - features_y)

    def update(self, values: Num[Tensor, " n *k"]) -> None:
        """Take in features of x less features of y, a row a pair. A number that is not finite poisons."""
        rows = (values[:, None] if values.dim() == 1 else values.flatten(1)).detach().double().cpu()
        if not self.n:
            k = rows.shape[1]
            self.sum_d, self.sum_dd, self.weights = rows.new_zeros(k), rows.new_zeros(k, k), rows.new_zeros(k)
        for piece, complete in pieces(rows, self.n, _FIRST):
            payoff = torch.tanh(piece @ self.weights / 2).where(piece.isfinite().all(1), math.nan)
            self.payoffs.update(payoff)
            self.log_wealth = self.log_wealth + torch.log1p(payoff[:, None] * _STAKES).sum(0)
            self.sum_d = self.sum_d + piece.sum(0)
            self.sum_dd = self.sum_dd + piece.T @ piece
            if complete:
                self.weights = fit(self.sum_d, self.sum_dd)

    def carried(self, doubt: float) -> Quads:
        """What later runs go on from: the payoffs, whatever their weights were."""
        return self.payoffs.carried(doubt)

    def allowing(self, doubt: float) -> float:
        """The log e-value against payoffs of a larger mean."""
        return log_mean_exp(self.log_wealth - self.n * torch.log1p(_STAKES * doubt))

    def look(self, confidence: float) -> Look:
        seen = self.payoffs.look(confidence)
        return Look(seen.n, seen.estimate, seen.low, seen.high, log_mean_exp(self.log_wealth) if seen.n else 0.0)


def fit(sum_d: Float64[Tensor, " k"], sum_dd: Float64[Tensor, "k k"]) -> Float64[Tensor, " k"]:
    """The weights: one Newton step in units of each feature's root mean square, shrunk towards 0."""
    scale = sum_dd.diagonal().sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    if not bool(scale.isfinite().all()):
        return torch.full_like(sum_d, math.nan)
    gram, total = sum_dd / scale[:, None] / scale, sum_d / scale
    rounding = len(sum_d) * torch.finfo(torch.float32).eps  # features that repeat others add nothing
    step = torch.linalg.solve(gram + rounding * torch.eye(len(sum_d), dtype=torch.float64), total)
    strength = float(total @ step)
    shrunk = max(1 - len(sum_d) / strength, 0.0) if strength > 0 else 0.0
    return 2 * shrunk * step / scale
