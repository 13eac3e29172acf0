r"""Dequantisation: a continuous density p makes a law of integers, the mass of unit cubes.

    P(x) = int_{[0,1)^d} p(x + u) du >= exp E_q[log p(x + u) - log q(u | x)]       (Jensen), for any q(u | x) on [0,1)^d

Uniform dequantisation takes q = 1. Adding uniform noise to data and training p on it makes this bound rise; without
noise a flow puts spikes of unbounded density on the integers, and its "likelihood" has no maximum. A q with parameters,
here a flow that is told x, makes the bound tighter: variational dequantisation.

Draws are those of p, rounded down. Where the flow ends in a `Squash` onto (0, K), x has the K levels 0, ..., K - 1.
Where coordinates are independent, each an increasing map of a normal number, the integral is known:

    P(x) = prod_i [Phi(z_i(x_i + 1)) - Phi(z_i(x_i))].

Sources: Uria, Murray & Larochelle 2013, https://arxiv.org/abs/1306.0186; Theis, van den Oord & Bethge 2016,
https://arxiv.org/abs/1511.01844, section 3.1; Ho et al. 2019, https://arxiv.org/abs/1902.00275.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.special import log_ndtr

from reference_impls.coupling import Coupling, alternating
from reference_impls.discrete import is_state
from reference_impls.elementwise import Elementwise
from reference_impls.flows import Bijection, Composed, Flow, Squash, StandardNormal, in_blocks, placed
from reference_impls.masked_flows import Masked
from reference_impls.splines import Spline


class Noise(nn.Module):
    """q(u | x): a flow onto the unit cube whose layers are told x, scaled to [-1, 1]."""

    def __init__(self, d: int, levels: int, layers: Sequence[Bijection]):
        super().__init__()
        self.law, self.map, self.levels = StandardNormal(d), Composed([*layers, Squash(d)]), levels

    def draw(self, x: Tensor, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """u (n, d), a function of the parameters that can be differentiated, and log q(u | x) (n,)."""
        e = self.law.sample(len(x), generator=generator)
        u, log_det = self.map.push(e, 2 * x.to(e) / max(1, self.levels - 1) - 1)
        return u.clamp(max=1 - torch.finfo(u.dtype).eps / 2), self.law.log_prob(e) - log_det  # 1 is in the next cube


class Dequantised(nn.Module):
    """floor(v) for v from a flow on (0, K)^d. Events: int64 (n, d), 0, ..., K - 1; uniform q without `noise`."""

    number, family = "M25", "dequantised flow"

    def __init__(self, flow: Flow, levels: int, noise: Noise | None = None):
        super().__init__()
        last = flow.map.layers[-1]
        if not isinstance(last, Squash) or (last.low, last.width) != (0, levels):
            raise ValueError(f"the flow should end in Squash(d, 0, {levels}), so that floor(v) has {levels} levels")
        self.flow, self.levels, self.noise, self.d = flow, levels, noise, flow.d
        self.event_shape = (self.d,)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator) -> Tensor:
        v = self.flow.sample(n, generator=generator).floor().long()
        return v.clamp(0, self.levels - 1)  # v = K is a draw below K that was rounded up

    def elbo(self, x: Tensor, *, generator: Generator) -> Tensor:
        """log p(x + u) - log q(u | x) at one u from q: at most log P(x) in mean; -inf for what is no event."""
        possible = self._possible(x)
        x = torch.where(possible[:, None], x, 0)
        like = next(self.flow.parameters())
        if self.noise is None:
            u, log_q = torch.rand(x.shape, generator=generator, dtype=like.dtype, device=like.device), 0.0
        else:
            u, log_q = self.noise.draw(x, generator=generator)
        v = (x.to(like) + u).clamp(min=torch.finfo(like.dtype).eps)  # 0 is no point of the flow
        v = torch.minimum(v, torch.nextafter(x.to(like) + 1, x.to(like)))  # nor is x + 1 one of this cube
        return torch.where(possible, self.flow.log_prob(v) - log_q, -math.inf)  # (n,)

    def iwae(self, x: Tensor, k: int, *, generator: Generator) -> Tensor:
        """log 1/k sum_i p(x + u_i) / q(u_i | x), which rises to log P(x) in mean."""
        many = self.elbo(x.repeat_interleave(k, 0), generator=generator)
        return many.reshape(len(x), k).logsumexp(1) - math.log(k)  # (n,)

    def loss(self, x: Tensor, *, generator: Generator) -> Tensor:
        """The mean of -elbo, in nats."""
        return -self.elbo(x, generator=generator).mean()

    def _possible(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"x should have shape (n, {self.d}), not {tuple(x.shape)}")
        return is_state(x, self.levels).all(-1)  # (n,)


class DequantisedIndependent(Dequantised):
    """The same for a flow of independent coordinates, each increasing in z: the masses are exact."""

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_i log [Phi(b_i) - Phi(a_i)] for the ends z of each cell, in the half of the line where both are small."""
        possible = self._possible(x)
        x = torch.where(possible[:, None], x, 0).to(next(self.flow.parameters()))
        return torch.where(possible, in_blocks(self._mass, x), -math.inf)  # (n,)

    def _mass(self, x: Tensor) -> Tensor:
        a = torch.where(x > 0, self._z(x), -math.inf)
        b = torch.where(x < self.levels - 1, self._z(x + 1), math.inf)
        low, high = torch.where(a + b > 0, -b, a), torch.where(a + b > 0, -a, b)  # by symmetry
        log_low, log_high = log_ndtr(low), log_ndtr(high)
        return (log_high + torch.log1p(-(log_low - log_high).exp())).sum(-1)

    def _z(self, v: Tensor) -> Tensor:
        inside = (v > 0) & (v < self.levels)
        return self.flow.map.inverse(torch.where(inside, v, 0.5))


# Ready-made models


def grey_line(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> DequantisedIndependent:
    """One coordinate of six levels by a spline, with its masses in closed form, and uniform noise."""
    flow = Flow(StandardNormal(1), [Elementwise(1, Spline(4, 3.0), spread=0.8, seed=31), Squash(1, 0, 6)])
    return placed(DequantisedIndependent(flow, 6), dtype, device)


def variational_pair(
    *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> DequantisedIndependent:
    """Two independent coordinates of four levels, with noise by a flow that is told x."""
    flow = Flow(StandardNormal(2), [Elementwise(2, Spline(4, 3.0), spread=0.8, seed=32), Squash(2, 0, 4)])
    noise = Noise(2, 4, [Masked(range(2), hidden=(8,), given=2, seed=33)])
    return placed(DequantisedIndependent(flow, 4, noise), dtype, device)


def dequantised_pair(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Dequantised:
    """Two dependent coordinates of four levels by RealNVP, and uniform noise: a bound alone."""
    layers = [Coupling(kept, hidden=(12,), seed=34 + i) for i, kept in enumerate(alternating(2, 2))]
    flow = Flow(StandardNormal(2), [*layers, Squash(2, 0, 4)])
    return placed(Dequantised(flow, 4), dtype, device)
