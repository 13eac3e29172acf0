r"""MADE, the masked autoencoder: all conditionals of an autoregressive law on bits from one pass through one network.

Every unit has a degree m and is a function of the first m coordinates of the order alone: the k-th input has degree k,
a hidden unit may see units of its own degree at most, and the k-th output, which is a logit, units of degree k - 1 at
most. A mask is 0 where a weight would break that:

    mask[unit, unit before] = 1{m(unit) >= m(unit before)},      A[k, j] = 0 unless j < k

for weights A straight from inputs to outputs, so that the autoregressive logistic regression is a special case. Hidden
degrees are spread evenly over 1, ..., d - 1. Drawing takes d passes through the network; or one in all, as the degrees
say when a unit can be computed: those of degree m as soon as m bits are there.

Source: Germain, Gregor, Murray & Larochelle 2015, https://arxiv.org/abs/1502.03509.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import linear, relu

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


class MADE(Autoregressive):
    """A law on {0, 1}^d; draws are 0.0 or 1.0. `hidden` are the widths of the hidden layers."""

    family = "MADE"
    support = constraints.independent(constraints.boolean, 1)

    def __init__(
        self,
        d: int,
        hidden: Sequence[int],
        *,
        order: Sequence[int] | None = None,
        seed: int = 0,
        gain: float = 1.0,
    ):
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden = {list(hidden)} should be the widths of one or more layers")
        source = Generator().manual_seed(seed)
        self.d = d
        self.register_buffer("order", checked_ordering(order, d))
        self.degrees = [torch.arange(1, d + 1), *(_spread(width, d) for width in hidden), torch.arange(d)]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, (before, after) in enumerate(pairwise(self.degrees)):
            mask = after[:, None] >= before  # (units, units before)
            self.register_buffer(f"mask_{i}", mask, persistent=False)
            self.weights.append(normal(mask.shape, gain, source))
            self.weights[-1].data *= mask / mask.sum(1, keepdim=True).clamp(min=1).sqrt()
            self.biases.append(nn.Parameter(torch.zeros(len(after))))
        self.direct = nn.Parameter(torch.zeros(d, d))  # A
        self.register_buffer("mask_direct", torch.ones(d, d, dtype=torch.bool).tril(-1), persistent=False)

    def factors(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        on, is_bit = bits_of(x)
        return log_bernoulli(on, is_bit, self.logits(on, label))  # (n, d)

    def logits(self, on: Tensor, label: Tensor | None = None) -> Tensor:
        """Logits of p(x_i = 1 | the bits before it), from bits (n, d), in the order of the coordinates."""
        x = on[:, self.order].to(self.direct)
        units = x
        for i in range(len(self.weights) - 1):
            units = relu(linear(units, self._weight(i), self._bias(i, label)))
        last = len(self.weights) - 1
        by_step = linear(units, self._weight(last), self._bias(last, label)) + linear(x, self.direct * self.mask_direct)
        return by_step[:, self.order.argsort()]  # (n, d)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """Each hidden unit once: the d steps together cost what one pass costs."""
        return self.draw(n, None, generator)  # (n, d)

    def sample_naive(self, n: int, *, generator: Generator) -> Tensor:
        """What `sample` returns, up to rounding, by a pass for each bit."""
        return self.draw_naive(n, None, generator)  # (n, d)

    @torch.no_grad()
    def draw(self, n: int, label: Tensor | None, generator: Generator) -> Tensor:
        """Units are rows here, sorted by degree, and events columns."""
        u = uniform_numbers(n, self.d, self.direct, generator)
        last = len(self.weights) - 1
        weights = [self._weight(i) for i in range(len(self.weights))]
        biases = [self._bias(i, label).expand(n, -1).mT for i in range(len(self.weights))]  # (units, n)
        known = [u.new_zeros(len(degrees), n, dtype=self.direct.dtype) for degrees in self.degrees[:-1]]
        ends = [[int((degrees <= m).sum()) for m in range(-1, self.d)] for degrees in self.degrees[:-1]]
        for k in range(self.d):  # k bits are there
            for i in range(last):
                start, stop, seen = ends[i + 1][k], ends[i + 1][k + 1], ends[i][k + 1]
                if stop > start:
                    new = torch.addmm(biases[i][start:stop], weights[i][start:stop, :seen], known[i][:seen])
                    known[i + 1][start:stop] = relu(new)
            seen = ends[last][k + 1]
            logit = biases[last][k] + weights[last][k, :seen] @ known[last][:seen] + self.direct[k, :k] @ known[0][:k]
            known[0][k] = u[:, k] < logit.double().sigmoid()
        return known[0].mT[:, self.order.argsort()]

    @torch.no_grad()
    def draw_naive(self, n: int, label: Tensor | None, generator: Generator) -> Tensor:
        u = uniform_numbers(n, self.d, self.direct, generator)
        on = torch.zeros(n, self.d, dtype=torch.bool, device=self.direct.device)
        for k, i in enumerate(self.order.tolist()):
            on[:, i] = u[:, k] < self.logits(on, label)[:, i].double().sigmoid()
        return on.to(self.direct)

    def _weight(self, i: int) -> Tensor:
        return self.weights[i] * getattr(self, f"mask_{i}")

    def _bias(self, i: int, label: Tensor | None) -> Tensor:
        return self.biases[i]


class ConditionalMADE(Labelled, MADE):
    """p(x | y): a label has a bias of its own for every unit. Without `given` the law is the mixture over uniform y."""

    def __init__(self, d: int, hidden: Sequence[int], classes: int, *, seed: int = 0, **options):
        super().__init__(d, hidden, seed=seed, **options)
        if classes < 1:
            raise ValueError(f"classes = {classes} should be the number of labels, at least 1")
        self.classes = classes
        source = Generator().manual_seed(seed + 1)
        self.of_label = nn.ParameterList([normal((classes, len(bias)), 1.0, source) for bias in self.biases])

    def _bias(self, i: int, label: Tensor | None) -> Tensor:
        return self.biases[i] + self.of_label[i][label]  # (n, units)


def _spread(width: int, d: int) -> Tensor:
    """(width,) degrees in rising order, evenly spread over 1, ..., d - 1; where d is 1, units that nobody sees."""
    return 1 + torch.arange(width) * (d - 1) // width if d > 1 else torch.ones(width, dtype=torch.int64)


# Ready-made models


def eight_bits(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> MADE:
    """Eight bits, two hidden layers of 14 units, in the order 3, 0, 6, 1, 7, 4, 2, 5."""
    return placed(MADE(8, (14, 14), order=(3, 0, 6, 1, 7, 4, 2, 5), seed=15, gain=2.0), dtype, device)


def labelled_bits(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ConditionalMADE:
    """Six bits given one of three labels."""
    return placed(ConditionalMADE(6, (12,), 3, order=range(5, -1, -1), seed=16, gain=2.0), dtype, device)


def full_made(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> MADE:
    """784 pixels and two hidden layers of 500 units, for binarised MNIST; untrained."""
    return placed(MADE(784, (500, 500), seed=17), dtype, device)
