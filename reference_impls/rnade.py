r"""RNADE, the real-valued NADE: each conditional is a mixture of Gaussians whose numbers come from shared hidden units.

    p(x_{o_k} | x_{o_<k}) = sum_m pi_km N(x_{o_k}; mu_km, s_km^2),      m = 1, ..., M
    a_k = c + sum_{j<k} W_j x_{o_j},   h_k = relu(rho_k a_k)
    pi_k = softmax(V^pi_k h_k + b^pi_k),   mu_k = V^mu_k h_k + b^mu_k,   log s_k = V^s_k h_k + b^s_k

The scales rho_k, one a coordinate, keep h of a moderate size while a grows with k. A Gaussian is a special case: one
component, h linear in x over its range, and s_k constant; its mean is then that of the regression on what came before.

Source: Uria, Murray & Larochelle 2013, https://arxiv.org/abs/1306.0186.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import relu

from reference_impls.autoregressive import ROWS, Autoregressive, checked_ordering, normal, placed, uniform_numbers


class RNADE(Autoregressive):
    """A density on R^d. `order` names the coordinates, first drawn first."""

    number, family = "M19", "RNADE"

    def __init__(
        self,
        d: int,
        hidden: int,
        components: int,
        *,
        order: Sequence[int] | None = None,
        seed: int = 0,
        std: float = 1.0,
    ):
        super().__init__()
        if hidden < 1 or components < 1:
            raise ValueError(f"hidden = {hidden} and components = {components} should be at least 1")
        source = Generator().manual_seed(seed)
        self.d, self.hidden, self.components = d, hidden, components
        self.register_buffer("order", checked_ordering(order, d))
        self.W = normal((d, hidden), std * d**-0.5, source)
        self.c = normal((hidden,), std, source)
        self.rho = nn.Parameter(torch.ones(d))
        self.V = normal((d, hidden, 3 * components), std * hidden**-0.5, source)  # of pi, mu and log s
        self.b = normal((d, 3 * components), std, source)

    def factors(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return log_mixture(x, *self._mixtures(x))  # (n, d)

    def log_prob(self, x: Tensor) -> Tensor:
        """Some rows at a time, where no graph is kept: (n, d, H) numbers are never held at once."""
        size = len(x) if torch.is_grad_enabled() else max(1, ROWS * 8 // (self.d * self.hidden))
        parts = [super(RNADE, self).log_prob(rows) for rows in self._checked(x).split(max(1, size))]
        return torch.cat(parts)  # (n,)

    def _mixtures(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales of all conditionals, (n, d, M) each, in the order of the coordinates."""
        steps = x.to(self.W).index_select(1, self.order)[:, :-1, None] * self.W[self.order[:-1]]  # (n, d - 1, H)
        first = self.c.expand(len(x), 1, -1)
        a = torch.cat([first, first + steps.cumsum(1)], 1)  # (n, d, H), as the order goes
        h = relu(self.rho[self.order, None] * a)[:, self.order.argsort()]
        return self._split(torch.einsum("ndh,dhk->ndk", h, self.V) + self.b)

    def _split(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, mean, log_scale = numbers.chunk(3, -1)
        return logits.log_softmax(-1), mean, log_scale

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """Coordinate by coordinate with the recurrence, O(H M) a step."""
        u, e = self._noise(n, generator)
        x, a = self.W.new_zeros(n, self.d), self.c.expand(n, -1).clone()  # (n, H)
        for k, i in enumerate(self.order.tolist()):
            numbers = relu(self.rho[i] * a) @ self.V[i] + self.b[i]  # (n, 3 M)
            x[:, i] = from_mixture(u[:, k], e[:, k], *self._split(numbers))
            a += x[:, i, None] * self.W[i]
        return x  # (n, d)

    @torch.no_grad()
    def sample_naive(self, n: int, *, generator: Generator) -> Tensor:
        """What `sample` returns, up to rounding, from all conditionals anew for each coordinate."""
        u, e = self._noise(n, generator)
        x = self.W.new_zeros(n, self.d)
        for k, i in enumerate(self.order.tolist()):
            x[:, i] = from_mixture(u[:, k], e[:, k], *(part[:, i] for part in self._mixtures(x)))
        return x  # (n, d)

    def _noise(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        e = torch.randn(n, self.d, generator=generator, dtype=self.W.dtype, device=self.W.device)
        return uniform_numbers(n, self.d, self.W, generator), e


def log_mixture(x: Tensor, log_weight: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log sum_m pi_m N(x; mu_m, s_m^2) of x (...,) and mixtures (..., M)."""
    e = (x[..., None] - mean) * (-log_scale).exp()
    return (log_weight - e.square() / 2 - log_scale).logsumexp(-1) - math.log(2 * math.pi) / 2


def from_mixture(u: Tensor, e: Tensor, log_weight: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """The component in whose interval u (n,) falls, then mu + s e; (n,) of mixtures (n, M)."""
    ends = log_weight.double().exp().cumsum(-1)  # (n, M)
    chosen = torch.searchsorted(ends, u[:, None] * ends[:, -1:], right=True)
    return (mean.gather(1, chosen) + log_scale.exp().gather(1, chosen) * e[:, None])[:, 0]


# Ready-made models


def bent_pair(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> RNADE:
    """Two coordinates, the second one first; eight hidden units and two components."""
    return placed(RNADE(2, 8, 2, order=(1, 0), seed=22), dtype, device)


def three_numbers(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> RNADE:
    """Three coordinates in the order 2, 0, 1; twelve hidden units and three components."""
    return placed(RNADE(3, 12, 3, order=(2, 0, 1), seed=23, std=0.7), dtype, device)


def full_rnade(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> RNADE:
    """63 numbers, 512 hidden units and 10 components, the paper's size for 8 x 8 patches of pictures; untrained."""
    return placed(RNADE(63, 512, 10, seed=24, std=0.1), dtype, device)
