r"""Normalizing flows: x = f(z) for z from a simple law, with f a composition of maps whose volumes are known.

    log p(x) = log p_base(z) - log |det J(z)|,   z = f^-1(x),   J_ij = df_i / dz_j
    f = f_L o ... o f_1,                         log |det J| = sum_l log |det J_l|

A layer is a `Bijection` of R^d, or of a part of it. It has two passes, `push` from z to x and `pull` from x to z, and
each gives log |det J| at z besides, as whoever has computed one has most of the other. Here are the plain layers and
what they are composed by; other files have `planar`, `coupling`, `masked_flows` and, for single coordinates,
`elementwise` and `splines`.

Sources: Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770;
Papamakarios et al. 2021, https://jmlr.org/papers/v22/19-1028.html.
"""

import math
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid, one_hot

ROWS = 4096
"""Rows at a time, for each thread, where no graph is kept: calls cost little beside their work, and memory is small."""


# Laws to start from


class StandardNormal(nn.Module):
    """N(0, I) on R^d."""

    def __init__(self, d: int):
        super().__init__()
        self.d = d
        self.register_buffer("origin", torch.zeros(d))

    def log_prob(self, z: Tensor) -> Tensor:
        return -z.square().sum(-1) / 2 - self.d * math.log(2 * math.pi) / 2  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return torch.randn(n, self.d, generator=generator, dtype=self.origin.dtype, device=self.origin.device)


class UniformBase(nn.Module):
    """Uniform on (0, a]^d."""

    def __init__(self, d: int, a: float):
        super().__init__()
        if not 0 < a < math.inf:
            raise ValueError(f"a = {a} should be a length, finite and above 0")
        self.d = d
        self.register_buffer("a", torch.tensor(float(a)))

    def log_prob(self, z: Tensor) -> Tensor:
        inside = ((z > 0) & (z <= self.a)).all(-1)
        return torch.where(inside, -self.d * self.a.log(), -math.inf)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        u = torch.rand(n, self.d, generator=generator, dtype=self.a.dtype, device=self.a.device)
        return self.a * (1 - u)  # (n, d), never 0


# Layers


class Bijection(nn.Module):
    """x = f(z). A layer defines `d`, `push` and `pull`; where no z is sent to x, `pull` has NaN for z."""

    d: int

    def push(self, z: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (n, d) and log |det J(z)| (n,)."""
        raise NotImplementedError

    def pull(self, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (n, d) and log |det J(z)| (n,)."""
        raise NotImplementedError

    def forward(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        return self.push(z, given)[0]

    def inverse(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        return self.pull(x, given)[0]

    def log_det(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        return self.push(z, given)[1]


class Affine(Bijection):
    """x = L z + b with L lower triangular and exp(s) on its diagonal: log |det J| = sum_i s_i."""

    def __init__(self, lower: Tensor, log_diagonal: Tensor, shift: Tensor):
        super().__init__()
        self.d = len(shift)
        if lower.shape != (self.d, self.d) or log_diagonal.shape != (self.d,):
            raise ValueError(
                f"lower and log_diagonal of shapes {tuple(lower.shape)} and {tuple(log_diagonal.shape)} "
                f"should be ({self.d}, {self.d}) and ({self.d},), as shift has {self.d} numbers"
            )
        self.lower, self.log_diagonal, self.shift = (nn.Parameter(t.clone()) for t in (lower, log_diagonal, shift))

    def push(self, z, given=None):
        return z @ self._matrix().mT + self.shift, self.log_diagonal.sum().expand(len(z))

    def pull(self, x, given=None):
        z = torch.linalg.solve_triangular(self._matrix(), (x - self.shift).mT, upper=False).mT
        return z, self.log_diagonal.sum().expand(len(x))

    def _matrix(self) -> Tensor:
        return self.lower.tril(-1) + self.log_diagonal.exp().diag()  # (d, d)


class Permutation(Bijection):
    """x_i = z_{order_i}: no volume changes."""

    def __init__(self, order: Sequence[int]):
        super().__init__()
        self.d = len(order)
        order = checked_order(order, self.d)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)

    def push(self, z, given=None):
        return z[:, self.order], z.new_zeros(len(z))

    def pull(self, x, given=None):
        return x[:, self.back], x.new_zeros(len(x))


class Square(Bijection):
    """x = z^2 on z > 0, onto x > 0: log |det J| = sum_i log(2 z_i). Elsewhere it is not one to one."""

    def __init__(self, d: int):
        super().__init__()
        self.d = d

    def push(self, z, given=None):
        inside = z > 0
        z = torch.where(inside, z, 1)
        return torch.where(inside, z.square(), math.nan), torch.where(inside, (2 * z).log(), math.nan).sum(-1)

    def pull(self, x, given=None):
        inside = x > 0
        z = torch.where(inside, x, 1).sqrt()  # 1 has a slope, so that no NaN enters the gradient of other rows
        return torch.where(inside, z, math.nan), torch.where(inside, (2 * z).log(), math.nan).sum(-1)


class Squash(Bijection):
    """x = low + (high - low) / (1 + exp(-z)), coordinate by coordinate, onto the open interval (low, high)."""

    def __init__(self, d: int, low: float = 0.0, high: float = 1.0):
        super().__init__()
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"low = {low} and high = {high} should be finite, and low the smaller")
        self.d, self.low, self.width = d, low, high - low

    def push(self, z, given=None):
        return self.low + self.width * z.sigmoid(), self._log_slope(z).sum(-1)

    def pull(self, x, given=None):
        share = (x - self.low) / self.width
        inside = (share > 0) & (share < 1)
        share = torch.where(inside, share, 0.5)
        z = share.log() - (-share).log1p()
        log_det = self._log_slope(z)
        return torch.where(inside, z, math.nan), torch.where(inside, log_det, math.nan).sum(-1)

    def _log_slope(self, z: Tensor) -> Tensor:
        return math.log(self.width) + logsigmoid(z) + logsigmoid(-z)


class Inverted(Bijection):
    """The layer the other way round: f^-1 for f, and log |det| with the other sign."""

    def __init__(self, layer: Bijection):
        super().__init__()
        self.layer, self.d = layer, layer.d

    def push(self, z, given=None):
        x, log_det = self.layer.pull(z, given)
        return x, -log_det

    def pull(self, x, given=None):
        z, log_det = self.layer.push(x, given)
        return z, -log_det


# Flows


class Composed(Bijection):
    """f_L o ... o f_1, the first layer next to the base."""

    def __init__(self, layers: Sequence[Bijection]):
        super().__init__()
        sizes = {layer.d for layer in layers}
        if len(sizes) != 1:
            raise ValueError(f"layers should be one or more, all of one size d; they have {sorted(sizes)}")
        self.layers, self.d = nn.ModuleList(layers), sizes.pop()

    def push(self, z, given=None):
        total = 0.0
        for layer in self.layers:
            z, log_det = layer.push(z, given)
            total = total + log_det
        return z, total

    def pull(self, x, given=None):
        total = 0.0
        for layer in reversed(self.layers):
            x, log_det = layer.pull(x, given)
            total = total + log_det
        return x, total


class Flow(nn.Module):
    """The law of f(z) for z from a base law, a module with `d`, `log_prob` and `sample`. Events are (n, d)."""

    number, family = "M25", "normalizing flow"

    def __init__(self, base: nn.Module, layers: Sequence[Bijection]):
        super().__init__()
        self.law, self.map = base, Composed(layers)
        if base.d != self.map.d:
            raise ValueError(f"the base has d = {base.d} and the layers {self.map.d}: give both the same size")
        self.d = base.d
        self.event_shape = (self.d,)

    def base(self) -> nn.Module:
        return self.law

    def forward(self, z: Tensor) -> Tensor:
        return self.map.forward(checked(z, self, "z"))  # (n, d)

    def inverse(self, x: Tensor) -> Tensor:
        return self.map.inverse(checked(x, self, "x"))  # (n, d)

    def log_det(self, z: Tensor) -> Tensor:
        return self.map.log_det(checked(z, self, "z"))  # (n,)

    def log_prob(self, x: Tensor) -> Tensor:
        return in_blocks(lambda x: log_density(self, x, None), checked(x, self, "x"))  # (n,)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return in_blocks(self.map.forward, self.law.sample(n, generator=generator))  # (n, d)

    def loss(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        """The mean of -log p(x), in nats."""
        return -self.log_prob(x).mean()


class TriangularFlow(Flow):
    """A flow whose layers are triangular in one order: x_{o_i} depends on z_{o_1}, ..., z_{o_i}, and so back."""

    def __init__(self, base: nn.Module, layers: Sequence[Bijection], order: Sequence[int] | None = None):
        super().__init__(base, layers)
        self.order = checked_order(range(self.d) if order is None else order, self.d).tolist()

    def ordering(self) -> list[int]:
        return self.order


class ConditionalFlow(nn.Module):
    """p(x | y) for classes y = 0, ..., K - 1, equally probable, by layers that are told one_hot(y) (n, K).

    Without `given` the law is the mixture p(x) = sum_y p(y) p(x | y), and so there is a classifier p(y | x).
    """

    number, family = "M27", "class-conditional normalizing flow"

    def __init__(self, base: nn.Module, layers: Sequence[Bijection], classes: int):
        super().__init__()
        self.law, self.map, self.d, self.classes = base, Composed(layers), base.d, classes
        self.event_shape = (self.d,)
        if classes < 1:
            raise ValueError(f"classes = {classes} should be 1 or more")

    def class_prior(self) -> Tensor:
        like = next(self.map.parameters())
        return torch.full((self.classes,), 1 / self.classes, dtype=like.dtype, device=like.device)  # (K,)

    def log_prob(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        """log p(x | y) for labels y (n,), or log p(x)."""
        if given is None:
            return self._joint(x).logsumexp(-1)  # (n,)
        y = self._told(given, x)
        return in_blocks(lambda x, y: log_density(self, x, y), checked(x, self, "x"), y)  # (n,)

    def posterior(self, x: Tensor) -> Tensor:
        """p(y | x)."""
        return self._joint(x).softmax(-1)  # (n, K)

    @torch.no_grad()
    def sample(self, n: int, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        z = self.law.sample(n, generator=generator)
        if given is None:
            given = torch.randint(self.classes, (n,), generator=generator, device=z.device)
        return in_blocks(self.map.forward, z, self._told(given, z))  # (n, d)

    def loss(self, x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor:
        """The mean of -log p(x | y), in nats."""
        return -self.log_prob(x, given=y).mean()

    def _joint(self, x: Tensor) -> Tensor:
        labels = torch.arange(self.classes, device=x.device)
        each = [self.log_prob(x, given=y.expand(len(x))) for y in labels]
        return torch.stack(each, -1) - math.log(self.classes)  # (n, K)

    def _told(self, given: Tensor, x: Tensor) -> Tensor:
        if given.shape != x.shape[:1] or given.is_floating_point():
            raise ValueError(
                f"given should be {len(x)} integers, a label for each event, "
                f"not {given.dtype} of shape {tuple(given.shape)}"
            )
        if given.numel() and not 0 <= int(given.min()) <= int(given.max()) < self.classes:
            raise ValueError(f"given has labels outside of 0 to {self.classes - 1}")
        return one_hot(given.long(), self.classes).to(next(self.map.parameters()))  # (n, K)


# What flows share


def log_density(flow: nn.Module, x: Tensor, given: Tensor | None) -> Tensor:
    """log p_base(z) - log |det J(z)|; -inf where no z is sent to x, or where x is infinite."""
    z, log_det = flow.map.pull(x, given)
    log_p = flow.law.log_prob(z) - log_det
    return torch.where(log_p.isnan() & ~x.amax(-1).isnan(), -math.inf, log_p)  # (n,)


def in_blocks(function, *tables: Tensor) -> Tensor:
    """function(*tables), in blocks of one size, at most ROWS for each thread, where there is no graph to keep."""
    n, blocks = len(tables[0]), math.ceil(len(tables[0]) / (ROWS * torch.get_num_threads()))
    if blocks <= 1 or torch.is_grad_enabled() or tables[0].device.type != "cpu":
        return function(*tables)
    whole, start = None, 0
    for rows in zip(*(table.chunk(blocks) for table in tables), strict=True):
        part = function(*rows)
        whole = part.new_empty(n, *part.shape[1:]) if whole is None else whole
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def checked(x: Tensor, flow: nn.Module, name: str) -> Tensor:
    """(n, d), in the dtype of the flow. Raises ValueError for another shape or floating dtype."""
    dtype = next(t.dtype for t in chain(flow.parameters(), flow.buffers()) if t.is_floating_point())
    if x.dim() != 2 or x.shape[1] != flow.d:
        raise ValueError(f"{name} should have shape (n, {flow.d}), not {tuple(x.shape)}")
    if x.is_floating_point() and x.dtype != dtype:
        raise ValueError(f"{name} is {x.dtype} and the flow {dtype}: bring one of them to the other by .to(...)")
    return x.to(dtype)


def checked_order(order: Sequence[int], d: int) -> Tensor:
    """(d,) int64. Raises ValueError unless it is a permutation of 0, ..., d - 1."""
    order = [int(i) for i in order]
    if sorted(order) != list(range(d)):
        raise ValueError(f"order = {order} should be a permutation of 0, ..., {d - 1}")
    return torch.tensor(order, dtype=torch.int64)


# Ready-made models


def affine(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> TriangularFlow:
    """N(b, L L^T) in three dimensions."""
    lower = torch.tensor([[0.0, 0.0, 0.0], [0.8, 0.0, 0.0], [-0.5, 1.2, 0.0]])
    layer = Affine(lower, torch.tensor([0.3, -0.7, 0.1]), torch.tensor([1.0, -2.0, 0.5]))
    return placed(TriangularFlow(StandardNormal(3), [layer]), dtype, device)


def squared_uniform(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Flow:
    """x = z^2 with z uniform on (0, 2]: p(x) = 1 / (4 sqrt x) on (0, 4], and x / 4 ~ Beta(1/2, 1)."""
    return placed(TriangularFlow(UniformBase(1, 2.0), [Square(1)]), dtype, device)


def placed(model: nn.Module, dtype: torch.dtype | None, device: torch.device | str | None) -> nn.Module:
    """The model where it is wanted, in evaluation mode."""
    return model.to(device or torch.get_default_device(), dtype or torch.get_default_dtype()).eval()
