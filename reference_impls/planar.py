r"""Planar flows: a bend across one direction, whose determinant needs no determinant.

    x = z + u h(w.z + b),  h = tanh,        det J = 1 + (w.u) h'(w.z + b)          (the matrix determinant lemma)

It is one to one if and only if w.u >= -1. So u is made of a free vector v, changed along w alone, until w.u is

    -1 + 1/1000 + softplus(w.v),

which is above -1 even after rounding. For the inverse, a = w.z solves a + (w.u) h(a + b) = w.x, whose left side rises
in a; as |h| <= 1 the root is at most |w.u| from w.x. Halving that interval as often as the dtype has digits leaves it
narrower than the rounding of the left side is wide; more steps would tell nothing. A last step by Newton's rule gives
the derivatives of the root, by the implicit function theorem.

Source: Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770, section 4.1 and appendix A.
"""

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from reference_impls.flows import Bijection, Flow, StandardNormal, placed

LEAST = 1e-3
"""The smallest 1 + w.u, and so the smallest slope."""


class Planar(Bijection):
    """One bend, from v (d,), w (d,) and b ()."""

    def __init__(self, v: Tensor, w: Tensor, b: Tensor | float):
        super().__init__()
        v, w, b = (torch.as_tensor(t) for t in (v, w, b))
        self.d = len(w)
        if v.shape != w.shape or w.dim() != 1 or b.dim() != 0 or not w.any():
            raise ValueError(
                f"v and w should be vectors of one size, w not 0, and b a number; their shapes are "
                f"{tuple(v.shape)}, {tuple(w.shape)} and {tuple(b.shape)}"
            )
        self.v, self.w, self.b = (nn.Parameter(t.clone()) for t in (v, w, b))

    def push(self, z, given=None):
        u, along = self._bend()
        h = (z @ self.w + self.b).tanh()  # (n,)
        return z + u * h[:, None], self._log_det(along, h)

    def pull(self, x, given=None):
        u, along = self._bend()
        h = (self._root(x @ self.w, along) + self.b).tanh()  # (n,)
        return x - u * h[:, None], self._log_det(along, h)

    def _bend(self) -> tuple[Tensor, Tensor]:
        """u (d,) and w.u ()."""
        product = self.w @ self.v
        along = -1 + LEAST + softplus(product)
        return self.v + (along - product) * self.w / self.w.square().sum(), along

    @staticmethod
    def _log_det(along: Tensor, h: Tensor) -> Tensor:
        return (along * (1 - h.square())).log1p()

    def _root(self, target: Tensor, along: Tensor) -> Tensor:
        """a (n,) with a + (w.u) h(a + b) = target."""
        with torch.no_grad():
            low, high = target - along.abs(), target + along.abs()
            for _ in range(2 + round(-math.log2(torch.finfo(target.dtype).eps))):
                middle = (low + high) / 2
                above = middle + along * (middle + self.b).tanh() > target
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
            a = (low + high) / 2
        h = (a + self.b).tanh()
        return a - (a + along * h - target) / (1 + along * (1 - h.square()))


def planar_flow(d: int, layers: int, *, spread: float = 1.0, seed: int = 0) -> Flow:
    """Layers with v, w and b drawn from N(0, spread^2)."""
    draws = spread * torch.randn(layers, 2 * d + 1, generator=Generator().manual_seed(seed), dtype=torch.float64)
    rows = draws.to(torch.get_default_dtype())
    return Flow(StandardNormal(d), [Planar(row[:d], row[d : 2 * d], row[-1]) for row in rows])


# Ready-made models


def folded(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Flow:
    """Two coordinates, two bends."""
    return placed(planar_flow(2, 2, spread=1.0, seed=3), dtype, device)


def full_planar(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Flow:
    """The paper's longest flow for binarised MNIST: 40 latent variables, 80 bends."""
    return placed(planar_flow(40, 80, spread=0.3), dtype, device)
