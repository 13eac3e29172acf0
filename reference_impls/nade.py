r"""NADE, the neural autoregressive distribution estimator: bits one by one, through hidden units that they all share.

    p(x_{o_k} = 1 | x_{o_<k}) = sigma(b_k + V_k . h_k),   h_k = sigma(a_k)
    a_1 = c,   a_{k+1} = a_k + W_k x_{o_k}                                   H numbers a step, O(H D) in all

so that a_k = c + sum_{j<k} W_j x_{o_j}: what comes *before* k in one shared W, and h_1 = sigma(c). A new product for
every k would cost O(H D^2). Parameters: 2 H D + H + D. Rows of W and V (the paper has columns of W) belong to
coordinates, in whatever order these come, so the same weights in another order are another law of the family.

A bit that is off changes no hidden unit, so an event has one new vector a_k for each bit that is on. Steps are taken
STEPS at a time: all vectors of a block come from the one that it begins with by a single product with rows of W, and
all its logits by one with rows of V. For the gradient their sigmoids are kept, and nothing else of that size.

Sources: Larochelle & Murray 2011, https://proceedings.mlr.press/v15/larochelle11a.html; Uria et al. 2016,
https://jmlr.org/papers/v17/16-272.html.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import pad

from reference_impls.autoregressive import (
    Autoregressive,
    Labelled,
    bits_of,
    checked_ordering,
    log_bernoulli,
    normal,
    placed,
    uniform_numbers,
)

STEPS = 24
"""Steps at a time: of fewer the products are too small to be fast, of more they cost more than the sigmoids."""

NUMBERS = 2**16
"""Numbers (rows x hidden units) at a time: their vectors a stay in a processor's cache."""


def nade_parameters(d: int, hidden: int) -> int:
    """2 H D + H + D."""
    return 2 * hidden * d + hidden + d


class NADE(Autoregressive):
    """A law on {0, 1}^d; draws are 0.0 or 1.0. `order` names the coordinates, first drawn first."""

    number, family = "M18", "NADE"
    support = constraints.independent(constraints.boolean, 1)

    def __init__(
        self, d: int, hidden: int, *, order: Sequence[int] | None = None, seed: int = 0, std: float | None = None
    ):
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden = {hidden} should be the number of hidden units, at least 1")
        source = Generator().manual_seed(seed)
        self.d, self.hidden = d, hidden
        self.register_buffer("order", checked_ordering(order, d))
        self.W = normal((d, hidden), std or d**-0.5, source)  # a row for each coordinate, as of V
        self.V = normal((d, hidden), std or hidden**-0.5, source)
        self.b = nn.Parameter(torch.zeros(d))
        self.c = nn.Parameter(torch.zeros(hidden))

    def factors(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        on, is_bit = bits_of(x)
        return log_bernoulli(on, is_bit, self.logits(on, label))  # (n, d)

    def logits(self, on: Tensor, label: Tensor | None = None) -> Tensor:
        """Logits of p(x_i = 1 | the bits before it), from bits (n, d), in the order of the coordinates."""
        order, n = self.order, len(on)
        size = max(1, NUMBERS // self.hidden) if on.device.type == "cpu" else max(1, n)
        starts, weights = self._start(n, label).split(size), [w.index_select(0, order) for w in (self.W, self.V)]
        rows = zip(on[:, order].split(size), starts, strict=True)
        by_step = torch.cat([recurrence(x, a, *weights) for x, a in rows])  # (n, d)
        return by_step[:, order.argsort()] + self.b

    def logits_naive(self, on: Tensor, label: Tensor | None = None) -> Tensor:
        """The same by the formula as it stands, a product with the columns before k for each k: O(H D^2)."""
        columns = [self._logit_naive(k, on, label) for k in range(self.d)]
        return torch.stack(columns, 1)[:, self.order.argsort()]  # (n, d)

    def _logit_naive(self, k: int, on: Tensor, label: Tensor | None) -> Tensor:
        """Of the k-th bit in the order, by the formula as it stands."""
        i, before = self.order[k], self.order[:k]
        h = (self._start(len(on), label) + on[:, before].to(self.W) @ self.W[before]).sigmoid()  # (n, H)
        return h @ self.V[i] + self.b[i]  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """Bit by bit with the recurrence: O(H D), as a density."""
        return self.draw(n, None, generator)  # (n, d)

    def sample_naive(self, n: int, *, generator: Generator) -> Tensor:
        """What `sample` returns, up to rounding, by the formula as it stands for each bit: O(H D^2)."""
        return self.draw_naive(n, None, generator)  # (n, d)

    @torch.no_grad()
    def draw(self, n: int, label: Tensor | None, generator: Generator) -> Tensor:
        u = uniform_numbers(n, self.d, self.W, generator)
        x, start = self.W.new_zeros(n, self.d), self._start(n, label)
        state = torch.stack([start, start.sigmoid()], 1)  # (n, 2, H): a and h
        for k, i in enumerate(self.order.tolist()):
            on = u[:, k] < (state[:, 1] @ self.V[i] + self.b[i]).double().sigmoid()
            x[:, i] = on.to(x)
            rows = on.nonzero()[:, 0]
            part = state.index_select(0, rows)
            a, h = part.unbind(1)
            torch.sigmoid(a.add_(self.W[i]), out=h)
            state.index_copy_(0, rows, part)
        return x

    @torch.no_grad()
    def draw_naive(self, n: int, label: Tensor | None, generator: Generator) -> Tensor:
        u = uniform_numbers(n, self.d, self.W, generator)
        on = torch.zeros(n, self.d, dtype=torch.bool, device=self.W.device)
        for k, i in enumerate(self.order.tolist()):
            on[:, i] = u[:, k] < self._logit_naive(k, on, label).double().sigmoid()
        return on.to(self.W)

    def _start(self, n: int, label: Tensor | None) -> Tensor:
        """a_1."""
        return self.c.expand(n, -1)  # (n, H)


class ConditionalNADE(Labelled, NADE):
    """p(x | y): a label adds a row of U (classes, H) to a_1. Without `given` the law is the mixture over uniform y."""

    def __init__(self, d: int, hidden: int, classes: int, *, seed: int = 0, **options):
        super().__init__(d, hidden, seed=seed, **options)
        if classes < 1:
            raise ValueError(f"classes = {classes} should be the number of labels, at least 1")
        self.classes = classes
        self.U = normal((classes, hidden), 1.0, Generator().manual_seed(seed + 1))

    def _start(self, n: int, label: Tensor | None) -> Tensor:
        return self.c + self.U[label]  # (n, H)


def recurrence(on: Tensor, a: Tensor, W: Tensor, V: Tensor) -> Tensor:
    """V_k . sigma(a_k) for all steps k, (n, d), of bits (n, d) in their order, a_1 (n, H), and W and V (d, H)."""
    by_block = []
    for bits, w, v in zip(on.split(STEPS, 1), W.split(STEPS), V.split(STEPS), strict=True):
        logits, a = block(bits, a, w, v)
        by_block.append(logits)
    return torch.cat(by_block, 1)


def block(on: Tensor, a: Tensor, W: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """V_k . sigma(a_k) for the steps k of a block, (n, S), and the a (n, H) after the last of them.

    From bits (n, S), the first a (n, H), and W and V (S, H). There are m vectors a: those that rows begin with, and one
    after each bit that is on, row by row.
    """
    new = pad(on, (1, 0), value=True)  # (n, S + 1), where a vector is not the one before it
    row, step = new.nonzero().unbind(1)  # (m,) each
    added = on[row] & (torch.arange(len(W), device=on.device) < step[:, None])  # (m, S), rows of W that it has in it
    a = torch.addmm(a.index_select(0, row), added.to(a), W)  # (m, H)
    place = new.flatten().cumsum(0).reshape_as(new) - 1  # (n, S + 1), of the vector that a step sees
    logits = (a.sigmoid() @ V.mT).gather(0, place[:, :-1])
    return logits, a.index_select(0, place[:, -1])


# Ready-made models


def eight_bits(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> NADE:
    """Eight bits and six hidden units, in the order 3, 0, 6, 1, 7, 4, 2, 5."""
    return placed(NADE(8, 6, order=(3, 0, 6, 1, 7, 4, 2, 5), seed=18, std=1.5), dtype, device)


def three_by_three(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> NADE:
    """3 x 3 binary pixels in raster order, sixteen hidden units."""
    return placed(NADE(9, 16, seed=19, std=1.0), dtype, device)


def labelled_bits(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ConditionalNADE:
    """Six bits given one of three labels."""
    return placed(ConditionalNADE(6, 8, 3, order=range(5, -1, -1), seed=20, std=1.5), dtype, device)


def full_nade(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> NADE:
    """784 pixels and 500 hidden units, the paper's size for binarised MNIST; untrained."""
    return placed(NADE(784, 500, seed=21), dtype, device)
