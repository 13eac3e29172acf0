"""Deep models beside the plain way to the same numbers: recurrences, caches, and a sampler's share of its network.

The peer is the formula as it stands: a product for each bit, a pass of the whole network for each token or coordinate,
or the network alone, called as often as the sampler calls it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from reference_impls.diffusion import Diffusion, UNet
from reference_impls.masked_flows import maf
from reference_impls.nade import NADE
from reference_impls.transformer import Transformer
from suites.speed.cases import SMALL, Case, Pair, Sizes

ON = 0.13
"""Share of the bits that are on, as in binarised MNIST. The recurrence adds a row of W where a bit is."""

GRID = {  # (n, d, k), as in `growth`; k hidden units of NADE, tokens of the transformer
    "nade.sample": (
        *((100, d, 500) for d in (196, 784, 3136)),
        *((100, 784, hidden) for hidden in (125, 2000)),
    ),
    "transformer.sample": tuple((8, length, 65) for length in (64, 128, 256, 512)),
    "transformer.sample_naive": tuple((8, length, 65) for length in (64, 128, 256)),
}


def a_nade(d: int, hidden: int) -> NADE:
    """Its bits are on as often as those of the data."""
    model = NADE(d, hidden, seed=0)
    torch.nn.init.constant_(model.b, math.log(ON / (1 - ON)))
    return model


def a_transformer(length: int, tokens: int) -> Transformer:
    return Transformer(tokens, length, width=64, heads=4, blocks=3, seed=0)


def nade_log_prob(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    d, hidden, n = (16, 8, 5) if sizes == SMALL else (784, 500, 100)
    model = a_nade(d, hidden).to(dtype)
    on = torch.rand(n, d, generator=torch.Generator().manual_seed(0)) < ON
    ours, theirs = (_without_graph(f, on) for f in (model.logits, model.logits_naive))
    # Both add up to d terms for a unit and `hidden` for a bit: relative to the largest logit.
    return Pair(ours, theirs, _apart(2 * (d + hidden) * torch.finfo(dtype).eps))


def maf_sample(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    d, n = (3, 20) if sizes == SMALL else (64, 500)
    model = maf(d, 5, hidden=(128, 128)).to(dtype)
    ours, theirs = _drawn(model.sample, n), _drawn(model.sample_naive, n)
    # 5 layers of 3 products of up to 128 terms and an exponential each, for every coordinate that depends on others.
    return Pair(ours, theirs, _apart(5 * (3 * 128 + 10) * torch.finfo(dtype).eps * d))


def transformer_sample(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    model = a_transformer(6 if sizes == SMALL else 128, 65).to(dtype)
    return Pair(_drawn(model.sample, 8), _drawn(model.sample_naive, 8), _same_tokens)


def diffusion_sample(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    """The peer is the network alone: its answers are thrown away, so that only shape and finiteness can be compared."""
    side, width, n = (4, 8, 2) if sizes == SMALL else (16, 32, 16)
    network = UNet(1, width, seed=0).to(dtype)
    model = Diffusion(network, (1, side, side), order=2, steps=18).to(dtype)
    x = torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(0), dtype=dtype)
    level, code, calls = x.new_zeros(n), x.new_zeros(n, 0), 2 * model.steps

    @torch.no_grad()
    def alone() -> Tensor:
        return [network(x, level, code) for _ in range(calls)][-1]

    def disagreement(a: Tensor, b: Tensor) -> float:
        good = a.shape == b.shape and a.dtype == b.dtype and bool(a.isfinite().all() and b.isfinite().all())
        return 0.0 if good else math.inf

    return Pair(_drawn(model.sample, n), alone, disagreement)


def prepared(case: str, n: int, d: int, k: int) -> Callable[[], Any]:
    """One call at that size, for `growth`; a short one comes first, so that no library is loaded during it."""
    kind, method = case.split(".")
    make = a_nade if kind == "nade" else a_transformer
    _drawn(getattr(make(4, k), method), 1)()
    return _drawn(getattr(make(d, k), method), n)


def _drawn(draw: Callable[..., Tensor], n: int) -> Callable[[], Tensor]:
    return lambda: draw(n, generator=torch.Generator().manual_seed(1))


def _without_graph(f: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    @torch.no_grad()
    def call() -> Tensor:
        return f(x)

    return call


def _apart(allowed: float) -> Callable[[Tensor, Tensor], float]:
    """The largest difference beside the largest value, in units of what rounding allows; NaN is infinitely far."""

    def disagreement(a: Tensor, b: Tensor) -> float:
        if a.shape != b.shape or a.dtype != b.dtype:
            return math.inf
        gap = float((a - b).abs().max() / b.abs().max()) / allowed
        return gap if gap >= 0 else math.inf

    return disagreement


def _same_tokens(a: Tensor, b: Tensor) -> float:
    """0 for equal draws: in float64 a uniform number lies within rounding of an end once in 10^10 tokens."""
    return 0.0 if a.shape == b.shape and torch.equal(a, b) else math.inf


def _all_cases() -> Iterator[Case]:
    note = "784 x 500, 100 rows, 13 % of the bits on"
    yield Case("nade.log_prob", "a product for each bit", 20.0, "float32", ("torch",), nade_log_prob, note)
    note = "d = 64, 5 layers of 2 x 128, 500 rows"
    yield Case("maf.sample", "d passes", 1.0, "float64", ("torch",), maf_sample, note)
    note = "3 blocks of width 64, 128 tokens of 65, 8 rows"
    yield Case("transformer.sample", "a pass for each token", 1.0, "float64", ("torch",), transformer_sample, note)
    note = "U-net of width 32, 16 x 16, 18 steps of Heun, 16 images: within 10 % of the network's own time"
    yield Case("diffusion.sample", "the network alone", 1 / 1.1, "float32", ("torch",), diffusion_sample, note)


CASES = tuple(_all_cases())
