r"""Masked autoregressive flows: each coordinate is mapped as those before it say.

    MAF:  x_i = u(z_i; theta_i(x_1, ..., x_{i-1}))      one pass for a density, d steps for a draw
    IAF:  x_i = u^-1(z_i; theta_i(z_1, ..., z_{i-1}))   one pass for a draw, d steps for the density of given x

IAF is MAF the other way round. J is triangular and its determinant the product of the du/dz_i. All theta_i come from
one network with masked weights (MADE): every unit has a degree m, and sees units of degree m at most, so that a unit of
degree m is a function of the first m coordinates, and theta_i of units of degree i - 1 at most.

The degrees also say when a unit can be computed. Drawing, each unit is, once, as soon as the coordinates that it sees
are there: the d steps together cost what one pass costs, in place of d passes.

Sources: Papamakarios, Pavlakou & Murray 2017, https://arxiv.org/abs/1705.07057; Kingma et al. 2016,
https://arxiv.org/abs/1606.04934; Germain et al. 2015, https://arxiv.org/abs/1502.03509.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from reference_impls.coupling import IN_PLACE, uniform
from reference_impls.elementwise import ScaleShift
from reference_impls.flows import (
    Bijection,
    Flow,
    Inverted,
    StandardNormal,
    TriangularFlow,
    checked_order,
    in_blocks,
    placed,
)
from reference_impls.splines import Spline


class MaskedNetwork(nn.Module):
    """(n, given + d) -> (n, outputs). First come the numbers of a condition, of degree 0, then the coordinates.

    `place` (d,) are their places in the order of dependence, from 0, and `degrees` those of the outputs: how many
    coordinates each may see. Hidden units are sorted by degree; a layer has units of every degree. Raises ValueError
    for one that is too narrow for that.
    """

    def __init__(self, place: Tensor, degrees: Tensor, hidden: Sequence[int], given: int, activation, seed: int):
        super().__init__()
        d = len(place)
        source = Generator().manual_seed(seed)
        self.activation = IN_PLACE.get(activation, activation)
        first = 0 if given or d == 1 else 1  # without a condition a unit of degree 0 would be a constant
        inputs = torch.cat([torch.zeros(given, dtype=torch.int64), 1 + place])
        kinds = max(1, d - first)  # of units by their degree; without one of a degree i, x_i may not reach theta_{i+1}
        if not hidden or min(hidden) < kinds:
            raise ValueError(
                f"hidden = {list(hidden)} should be the widths of one or more layers of {kinds} units or more each: "
                f"with fewer, some of the {d} coordinates would not see some of those before them"
            )
        units = [(first + torch.arange(width) % kinds).sort().values for width in hidden]
        self.degrees = [inputs, *units, degrees]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, (before, after) in enumerate(pairwise(self.degrees)):
            mask = after[:, None] >= before  # (units, units before)
            self.register_buffer(f"mask_{i}", mask.to(torch.get_default_dtype()), persistent=False)
            fan_in = mask.sum(1).clamp(min=1)
            weight = uniform(mask.shape, 1, source)
            weight.data = weight.data.index_select(1, before.argsort(stable=True).argsort())  # drawn by degree
            weight.data *= self._mask(i) / fan_in.sqrt()[:, None]
            self.weights.append(weight)
            self.biases.append(uniform(after.shape, int(fan_in.max()), source))

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for i in range(last):
            x = self.activation(linear(x, self.masked(i), self.biases[i]))
        return linear(x, self.masked(last), self.biases[last])

    def masked(self, i: int) -> Tensor:
        return self.weights[i] * self._mask(i)

    def _mask(self, i: int) -> Tensor:
        return getattr(self, f"mask_{i}")


class Masked(Bijection):
    """A layer of MAF, with coordinates in a given order; `given` is the number of numbers in a condition."""

    def __init__(
        self,
        order: Sequence[int],
        univariate=None,
        *,
        hidden: Sequence[int] = (64, 64),
        given: int = 0,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        seed: int = 0,
    ):
        super().__init__()
        self.d, self.univariate, self.given = len(order), univariate or ScaleShift(), given
        order = checked_order(order, self.d)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("place", order.argsort(), persistent=False)  # of each coordinate in the order
        inputs = torch.cat([torch.arange(given), given + order])  # of the network, as they become known
        self.register_buffer("inputs", inputs, persistent=False)
        owner = torch.arange(self.d).repeat(self.univariate.size)  # the coordinate that a column of theta is for
        columns = [(owner == i).nonzero()[:, 0] for i in order.tolist()]  # of theta, for each step
        self.register_buffer("columns", torch.cat(columns), persistent=False)
        self.network = MaskedNetwork(self.place, self.place[owner], hidden, given, activation, seed)
        ends = [[int((degrees <= k).sum()) for degrees in self.network.degrees[1:-1]] for k in range(-1, self.d)]
        self.units = [list(zip(*pair, strict=True)) for pair in pairwise(ends)]  # of each layer, that step k adds

    def pull(self, x, given=None):
        z, log_slope = self.univariate.pull(x, self._theta(x, given))
        return z, log_slope.sum(-1)

    def push(self, z, given=None):
        with_graph = torch.is_grad_enabled() and (z.requires_grad or any(p.requires_grad for p in self.parameters()))
        return self.push_naive(z, given) if with_graph else self._push_cached(z, given)

    def push_naive(self, z: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """d passes. After the k-th, the first k coordinates are right, as their theta has seen right ones only."""
        x = torch.zeros_like(z)
        for _ in range(self.d):
            x, log_slope = self.univariate.push(z, self._theta(x, given))
        return x, log_slope.sum(-1)

    def _theta(self, x: Tensor, given: Tensor | None) -> Tensor:
        return self.network(x if given is None else torch.cat([given, x], 1))  # (n, size d)

    @torch.no_grad()
    def _push_cached(self, z: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each hidden unit once: those of degree k are computed when k coordinates are known.

        Units are rows here, and events columns, so that a product writes the new units side by side.
        """
        net, n, told = self.network, len(z), self.given
        weights, biases = [net.masked(i) for i in range(len(net.weights))], [bias[:, None] for bias in net.biases]
        weights[0] = weights[0].index_select(1, self.inputs)
        known = [z.new_empty(len(degrees), n) for degrees in net.degrees[:-1]]  # inputs, then hidden layers
        if given is not None:
            known[0][:told] = given.mT
        last = (biases[-1][self.columns], weights[-1][self.columns])
        total, size = z.new_zeros(n), self.univariate.size
        for k, place in enumerate(self.order.tolist()):
            seen = known[0][: told + k]
            for i, (units, (start, stop)) in enumerate(zip(known[1:], self.units[k], strict=True)):
                if stop > start:
                    new = torch.addmm(biases[i][start:stop], weights[i][start:stop, : len(seen)], seen)
                    units[start:stop] = net.activation(new)
                seen = units[:stop]
            bias, weight = (table[k * size : (k + 1) * size] for table in last)
            theta = torch.addmm(bias, weight[:, : len(seen)], seen)  # (size, n)
            x, log_slope = self.univariate.push(z[None, :, place], theta.reshape(1, -1))  # as n coordinates at once
            known[0][told + k] = x[0]
            total += log_slope[0]
        return known[0][told:].index_select(0, self.place).mT, total


class MaskedFlow(Flow):
    """A flow of masked layers, of which the draws can be made without the cache too."""

    family = "masked autoregressive flow"

    @torch.no_grad()
    def sample_naive(self, n: int, *, generator: Generator) -> Tensor:
        """What `sample` returns, by d passes through each layer."""
        x = self.law.sample(n, generator=generator)
        for layer in self.map.layers:
            x = in_blocks(lambda x, layer=layer: layer.push_naive(x)[0], x)
        return x  # (n, d)


def maf(d: int, layers: int, univariate=None, **network) -> MaskedFlow:
    """Layers whose order is that of the coordinates, then its reverse, and so on."""
    orders = [range(d)[:: (-1) ** i] for i in range(layers)]
    seeds = range(network.pop("seed", 0), 10**9)
    masked = [Masked(order, univariate, seed=seed, **network) for order, seed in zip(orders, seeds, strict=False)]
    return MaskedFlow(StandardNormal(d), masked)


def iaf(d: int, layers: int, univariate=None, **network) -> Flow:
    """The mirror image: `maf` with its map and its inverse exchanged."""
    flow = maf(d, layers, univariate, **network)
    return Flow(StandardNormal(d), [Inverted(layer) for layer in flow.map.layers])


# Ready-made models


def maf_pair(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> MaskedFlow:
    """MAF in two dimensions: three layers of 16 hidden units."""
    return placed(maf(2, 3, hidden=(16,), seed=5), dtype, device)


def triangular(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> TriangularFlow:
    """Two masked layers in three dimensions, both in the order 2, 0, 1."""
    layers = [Masked((2, 0, 1), hidden=(12, 12), seed=i) for i in range(2)]
    return placed(TriangularFlow(StandardNormal(3), layers, (2, 0, 1)), dtype, device)


def iaf_triple(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Flow:
    """IAF in three dimensions: two layers of 8 hidden units."""
    return placed(iaf(3, 2, hidden=(8,), seed=4), dtype, device)


def autoregressive_spline(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> MaskedFlow:
    """Two coordinates, splines of five bins, two layers."""
    return placed(maf(2, 2, Spline(5, 4.0), hidden=(16,), seed=9), dtype, device)


def full_maf(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> MaskedFlow:
    """The paper's MAF (5) for MNIST: 784 coordinates, five layers of 1 x 1024 hidden units."""
    return placed(maf(784, 5, hidden=(1024,), activation=torch.relu), dtype, device)
