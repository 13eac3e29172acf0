"""What the zoo is built of: a model from two functions, and the families that have correct and wrong members."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

LOG_2PI = math.log(2 * math.pi)

Draw = Callable[[int, torch.Generator], Tensor]
LogProb = Callable[[Tensor], Tensor]


class Model:
    """A sampler and a density from two functions; further capabilities by name."""

    def __init__(self, draw: Draw, log_prob: LogProb, **more: object):
        self._draw, self._log_prob = draw, log_prob
        vars(self).update(more)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self._draw(n, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_prob(x)


class Sampler:
    def __init__(self, draw: Draw):
        self._draw = draw

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self._draw(n, generator)


class Density:
    def __init__(self, log_prob: LogProb):
        self.log_prob = log_prob


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I); (n,)."""
    return -0.5 * z.square().sum(-1) - 0.5 * z.shape[-1] * LOG_2PI


def where(condition: Tensor, value: Tensor | float) -> Tensor:
    """The value where the condition holds, -inf elsewhere."""
    value = value if isinstance(value, Tensor) else torch.full(condition.shape, float(value))
    return torch.where(condition, value, -torch.inf)


def categorical(p: Tensor, n: int, g: torch.Generator) -> Tensor:
    """n indices drawn with probabilities p (k,), or one a row of p (n, k)."""
    return (torch.rand(n, 1, generator=g) > p.cumsum(-1)[..., :-1]).sum(-1)


def gaussian(d: int, **more: object) -> Model:
    return Model(lambda n, g: torch.randn(n, d, generator=g), log_normal, **more)


def with_sampler(model: Model, draw: Draw) -> Model:
    return Model(draw, model.log_prob)


def with_density(model: Model, log_prob: LogProb) -> Model:
    return Model(lambda n, g: model.sample(n, generator=g), log_prob)


class RealNVP(nn.Module):
    """Affine couplings (Dinh, Sohl-Dickstein & Bengio 2017); `share` of the log-determinant is counted, 1 is right."""

    def __init__(self, d: int, share: float = 1.0, seed: int = 0):
        super().__init__()
        self.d, self.half, self.share, source = d, d // 2, share, stream(seed)
        self.nets = nn.ModuleList()
        for layer in range(4):
            seen = self.half if layer % 2 == 0 else d - self.half
            self.nets.append(nn.Sequential(nn.Linear(seen, 32), nn.Tanh(), nn.Linear(32, 2 * (d - seen))))
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=source) * 0.5 / p.shape[-1] ** 0.5

    def _parts(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        first, second = x[:, : self.half], x[:, self.half :]
        return (first, second) if layer % 2 == 0 else (second, first)

    @staticmethod
    def _whole(seen: Tensor, moved: Tensor, layer: int) -> Tensor:
        return torch.cat([seen, moved] if layer % 2 == 0 else [moved, seen], 1)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        # A layer keeps the size of its first part, whichever half that is, as d is even.
        x = torch.randn(n, self.d, generator=generator)
        for layer, net in enumerate(self.nets):
            seen, moved = self._parts(x, layer)
            s, t = net(seen).chunk(2, -1)
            x = self._whole(seen, moved * torch.exp(torch.tanh(s)) + t, layer)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        log_det = x.new_zeros(len(x))
        for layer, net in reversed(list(enumerate(self.nets))):
            seen, moved = self._parts(x, layer)
            s, t = net(seen).chunk(2, -1)
            x = self._whole(seen, (moved - t) * torch.exp(-torch.tanh(s)), layer)
            log_det = log_det - torch.tanh(s).sum(-1)
        return log_normal(x) + self.share * log_det


class Pixels:
    """Bernoulli pixels, each given those before it: logit_j = b_j + sum_i W_ij x_i over i < j (i <= j if it leaks)."""

    def __init__(self, d: int = 10, leak: bool = False, temperature: float = 1.0):
        self.w = torch.triu(torch.randn(d, d, generator=stream(2)), 0 if leak else 1)
        self.b, self.temperature = torch.randn(d, generator=stream(3)) / 2, temperature

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        x = torch.zeros(n, len(self.b))
        for j in range(len(self.b)):
            logit = (self.b[j] + x @ self.w[:, j]) / self.temperature
            x[:, j] = torch.bernoulli(torch.sigmoid(logit), generator=generator)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        logits = self.b + x @ self.w
        log_p = nn.functional.logsigmoid(torch.where(x == 1, logits, -logits)).sum(1)
        return where(((x == 0) | (x == 1)).all(1), log_p)


def mixture(weights: list[float], means: list[list[float]], drawn: list[float] | None = None) -> Model:
    """Unit Gaussians; `drawn` are the sampler's weights where they differ from the density's."""
    w, mu = torch.tensor(weights), torch.tensor(means)
    p = torch.tensor(drawn or weights)
    return Model(
        lambda n, g: mu[categorical(p, n, g)] + torch.randn(n, mu.shape[1], generator=g),
        lambda x: torch.logsumexp(w.log() + log_normal(x[:, None] - mu), 1),
    )


def scaled(
    scale: float, location: float = 0.0, shape: tuple[int, ...] = (3,), dtype: torch.dtype | None = None
) -> Model:
    def draw(n: int, g: torch.Generator) -> Tensor:
        return location + scale * torch.randn(n, *shape, generator=g, dtype=dtype)

    size = math.prod(shape)
    return Model(draw, lambda x: log_normal(((x - location) / scale).reshape(len(x), size)) - size * math.log(scale))


class Regression(nn.Module):
    """(a, b): b is Gaussian about a network of a with batch norm and dropout, which only `eval` makes a density."""

    def __init__(self, dropout: bool = False):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 2))
        source, self.dropout = stream(3), dropout
        for p in self.parameters():
            p.data = 0.7 * torch.randn(p.shape, generator=source)
        self.eval()

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        a = torch.randn(n, 1, generator=generator)
        return torch.cat([a, self.net(a) + 0.5 * torch.randn(n, 2, generator=generator)], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        mode = self.net[3].training
        self.net[3].train(mode or self.dropout)
        value = log_normal(x[:, :1]) + log_normal((x[:, 1:] - self.net(x[:, :1])) / 0.5) + 2 * math.log(2)
        self.net[3].train(mode)
        return value
