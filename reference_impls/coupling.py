r"""RealNVP: some coordinates stay, and choose the map of each of the others. Both directions cost one pass.

    x_a = z_a,    x_b = u(z_b; theta(z_a)),    log |det J| = sum_{i in b} log du/dz_i

J is triangular, whatever the network theta is. With u(z) = mu + exp(alpha) z this is RealNVP, with a spline in its
place a neural spline flow. Layers exchange the roles of the coordinates; a condition y is one more input of theta.

Source: Dinh, Sohl-Dickstein & Bengio 2017, https://arxiv.org/abs/1605.08803.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from reference_impls.elementwise import ScaleShift
from reference_impls.flows import Bijection, ConditionalFlow, Flow, StandardNormal, placed

IN_PLACE = {torch.relu: torch.relu_, torch.tanh: torch.tanh_}
"""For what nobody else holds, such as a product just made: the slopes of both are known from their results."""


class Perceptron(nn.Module):
    """Affine maps with an activation between them, its first weights drawn with a seed."""

    def __init__(self, sizes: Sequence[int], activation: Callable[[Tensor], Tensor], seed: int):
        super().__init__()
        source = Generator().manual_seed(seed)
        self.activation = IN_PLACE.get(activation, activation)
        self.weights = nn.ParameterList(uniform((m, k), max(1, k), source) for k, m in pairwise(sizes))
        self.biases = nn.ParameterList(uniform((m,), max(1, k), source) for k, m in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        *first, last = zip(self.weights, self.biases, strict=True)
        for weight, bias in first:
            x = self.activation(linear(x, weight, bias))
        return torch.addmm(last[1][:, None], last[0], x.mT).mT  # by columns: parts of theta stay side by side


def uniform(shape: tuple[int, ...], fan_in: int, generator: Generator) -> nn.Parameter:
    """Uniform within 1 / sqrt(inputs) of 0."""
    draws = torch.rand(shape, generator=generator, dtype=torch.float64)
    return nn.Parameter(((2 * draws - 1) / math.sqrt(fan_in)).to(torch.get_default_dtype()))


class Coupling(Bijection):
    """The coordinates where `kept` (d bools) is true stay; `given` is the number of numbers in a condition."""

    def __init__(
        self,
        kept: Sequence[bool],
        univariate=None,
        *,
        hidden: Sequence[int] = (64, 64),
        given: int = 0,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        seed: int = 0,
    ):
        super().__init__()
        kept = torch.as_tensor(kept, dtype=torch.bool)
        self.d, self.univariate = len(kept), univariate or ScaleShift()
        if kept.all() or (not kept.any() and not given):
            raise ValueError(f"kept = {kept.tolist()} should leave some coordinates to map, and some to choose by")
        a, b = kept.nonzero()[:, 0], (~kept).nonzero()[:, 0]
        self.register_buffer("a", a, persistent=False)
        self.register_buffer("b", b, persistent=False)
        self.register_buffer("back", torch.cat([a, b]).argsort(), persistent=False)
        self.network = Perceptron([len(a) + given, *hidden, len(b) * self.univariate.size], activation, seed)

    def push(self, z, given=None):
        return self._through(z, given, self.univariate.push)

    def pull(self, x, given=None):
        return self._through(x, given, self.univariate.pull)

    def _through(self, x: Tensor, given: Tensor | None, move) -> tuple[Tensor, Tensor]:
        stay, go = x.mT.index_select(0, self.a).mT, x.mT.index_select(0, self.b).mT
        theta = self.network(stay if given is None else torch.cat([stay, given], 1))  # (n, size |b|)
        moved, log_slope = move(go, theta)
        return torch.cat([stay.mT, moved.mT]).index_select(0, self.back).mT, log_slope.sum(-1)


def alternating(d: int, layers: int) -> list[list[bool]]:
    """Which coordinates stay in each layer: every other one, then the others."""
    return [[(i + layer) % 2 == 0 for i in range(d)] for layer in range(layers)]


# Ready-made models


def realnvp(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Flow:
    """Two coordinates, four layers of 16 hidden units."""
    layers = [Coupling(kept, hidden=(16,), seed=10 + i) for i, kept in enumerate(alternating(2, 4))]
    return placed(Flow(StandardNormal(2), layers), dtype, device)


def class_conditional(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ConditionalFlow:
    """Two coordinates and three classes, which choose how each coordinate is mapped."""
    layers = [Coupling(kept, hidden=(16,), given=3, seed=20 + i) for i, kept in enumerate(alternating(2, 2))]
    return placed(ConditionalFlow(StandardNormal(2), layers, classes=3), dtype, device)


def full_realnvp(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Flow:
    """For the 8 x 8 digits: 10 coupling layers with 2 x 1024 hidden units."""
    layers = [
        Coupling(kept, hidden=(1024, 1024), activation=torch.relu, seed=i) for i, kept in enumerate(alternating(64, 10))
    ]
    return placed(Flow(StandardNormal(64), layers), dtype, device)
