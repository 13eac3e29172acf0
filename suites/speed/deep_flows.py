"""Normalizing flows beside zuko and nflows of the same architecture: densities, draws, and steps of training.

The peers hold other parameters, as their formulas place shifts and least widths elsewhere, so what is compared of the
two results is that both are numbers of one shape and dtype, and of ours that float64 gives the same up to rounding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.coupling import Coupling, alternating
from reference_impls.flows import Flow, StandardNormal
from reference_impls.masked_flows import MaskedFlow, maf
from reference_impls.splines import Spline
from suites.speed.cases import SMALL, Case, Pair, Sizes

D, LAYERS, HIDDEN, BINS, BOUND = 8, 5, (64, 64), 8, 5.0
"""The architecture of all: 8 coordinates, 5 layers of 2 x 64 hidden units with ReLU, splines of 8 bins on [-5, 5]."""

ROWS, DRAWN, BATCH, WIDE = 10_000, 2_000, 512, 64
FEW = 50

Work = Callable[[], Any]


def _few(sizes: Sizes, rows: int) -> int:
    return FEW if sizes == SMALL else rows


def ours(kind: str) -> Flow:
    network = {"hidden": HIDDEN, "activation": torch.relu}
    if kind == "maf":
        return maf(D, LAYERS, **network)
    if kind == "autoregressive spline":
        return maf(D, LAYERS, Spline(BINS, BOUND), **network)
    univariate = Spline(BINS, BOUND) if kind == "spline coupling" else None
    layers = [Coupling(kept, univariate, seed=i, **network) for i, kept in enumerate(alternating(D, LAYERS))]
    return Flow(StandardNormal(D), layers)


def of_zuko(kind: str) -> nn.Module:
    import zuko
    from zuko.transforms import MonotonicRQSTransform

    shape = {"transforms": LAYERS, "hidden_features": HIDDEN}
    if kind == "maf":
        return zuko.flows.MAF(D, 0, **shape)
    if kind == "autoregressive spline":
        return zuko.flows.NSF(D, 0, bins=BINS, **shape)
    if kind == "spline coupling":
        sizes = [(BINS,), (BINS,), (BINS - 1,)]
        return zuko.flows.RealNVP(D, 0, univariate=MonotonicRQSTransform, shapes=sizes, **shape)
    return zuko.flows.RealNVP(D, 0, **shape)


def of_nflows(kind: str) -> nn.Module:
    from nflows.distributions.normal import StandardNormal as Base
    from nflows.flows.base import Flow as Peer
    from nflows.nn.nets import MLP
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform as Affine
    from nflows.transforms.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressiveTransform as Spline
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AffineCouplingTransform
    from nflows.transforms.coupling import PiecewiseRationalQuadraticCouplingTransform as SplineCoupling
    from nflows.transforms.permutations import ReversePermutation

    class Network(MLP):
        def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
            return super().forward(inputs)

    def network(inputs: int, outputs: int) -> nn.Module:
        return Network([inputs], [outputs], list(HIDDEN), activation=torch.relu)

    masked = {"features": D, "hidden_features": HIDDEN[0], "num_blocks": 1, "use_residual_blocks": False}
    bins = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
    layers = []
    for kept in alternating(D, LAYERS):
        mask = torch.tensor(kept).logical_not().long()
        if kind == "maf":
            layers += [Affine(**masked), ReversePermutation(D)]
        elif kind == "autoregressive spline":
            layers += [Spline(**masked, **bins), ReversePermutation(D)]
        elif kind == "spline coupling":
            layers.append(SplineCoupling(mask, network, **bins))
        else:
            layers.append(AffineCouplingTransform(mask, network))
    return Peer(CompositeTransform(layers), Base([D]))


PEERS = {"zuko": of_zuko, "nflows": of_nflows}


def log_prob(kind: str, peer: str) -> Callable[[Sizes, torch.dtype, int], Pair]:
    def prepare(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
        model, other, x = _pair(kind, peer, dtype, _few(sizes, ROWS))
        density = _density(other)
        return Pair(_quietly(lambda: model.log_prob(x)), _quietly(lambda: density(x)), _numbers_and(model, x))

    return prepare


def sample(kind: str, peer: str) -> Callable[[Sizes, torch.dtype, int], Pair]:
    def prepare(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
        n = _few(sizes, DRAWN)
        model, other, _ = _pair(kind, peer, dtype, 1)
        g = torch.Generator().manual_seed(1)
        draw = _quietly(lambda: other().sample((n,)) if peer == "zuko" else other.sample(n))
        return Pair(lambda: model.sample(n, generator=g), draw, _same_kind)

    return prepare


def training_step(kind: str, peer: str) -> Callable[[Sizes, torch.dtype, int], Pair]:
    """The gradient of the mean of -log p over a batch, and a step of Adam; both return the loss."""

    def prepare(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
        model, other, x = _pair(kind, peer, dtype, _few(sizes, BATCH))
        density = _density(other)
        return Pair(_step(model, lambda: model.loss(x)), _step(other, lambda: -density(x).mean()), _same_kind)

    return prepare


def without_cache(d: int) -> Callable[[Sizes, torch.dtype, int], Pair]:
    def prepare(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
        n = _few(sizes, DRAWN)
        model: MaskedFlow = maf(d, LAYERS, hidden=HIDDEN, activation=torch.relu).to(dtype)
        draw, naive = (
            lambda method=method: method(n, generator=torch.Generator().manual_seed(1))
            for method in (model.sample, model.sample_naive)
        )
        # d coordinates, each the end of a chain of 2 x 64 terms in each layer
        allowed = 4 * torch.finfo(dtype).eps * d * LAYERS * sum(HIDDEN)
        return Pair(draw, naive, lambda a, b: float((a - b).abs().max() / b.abs().max()) / allowed)

    return prepare


def _pair(kind: str, peer: str, dtype: torch.dtype, n: int) -> tuple[Flow, nn.Module, Tensor]:
    model, other = ours(kind).to(dtype), PEERS[peer](kind).to(dtype)
    return model, other, torch.randn(n, D, generator=torch.Generator().manual_seed(0)).to(dtype)


def _density(other: Any) -> Callable[[Tensor], Tensor]:
    """zuko's flows make a distribution at each call, nflows' have log_prob themselves."""
    return other.log_prob if hasattr(other, "log_prob") else lambda x: other().log_prob(x)


def _quietly(work: Work) -> Work:
    def quiet() -> Any:
        with torch.no_grad():
            return work()

    return quiet


def _step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimiser.step()
        return value.detach()

    return step


def _same_kind(a: Tensor, b: Tensor) -> float:
    """0 for finite numbers of one shape and dtype."""
    same = a.shape == b.shape and a.dtype == b.dtype and bool(a.isfinite().all()) and bool(b.isfinite().all())
    return 0.0 if same else math.inf


def _numbers_and(model: Flow, x: Tensor) -> Callable[[Tensor, Tensor], float]:
    """That, and ours beside itself in float64: eps for each of the terms of the 3 products of 5 layers, and as a part
    of the largest."""

    def disagreement(a: Tensor, b: Tensor) -> float:
        with torch.no_grad():
            truth = copy.deepcopy(model).to(torch.float64).log_prob(x.double())
        gap = float((a.double() - truth).abs().max() / truth.abs().max())
        allowed = 4 * torch.finfo(a.dtype).eps * LAYERS * (D + sum(HIDDEN))
        return max(_same_kind(a, b), gap / allowed)

    return disagreement


def _all_cases() -> Iterator[Case]:
    for kind in ("maf", "realnvp", "spline coupling", "autoregressive spline"):
        for peer in PEERS:
            note = f"{LAYERS} layers of 2 x {HIDDEN[0]}, d = {D}"
            for name, work in (("log_prob", log_prob), ("sample", sample), ("train", training_step)):
                yield Case(f"{kind}.{name}", peer, 1.0, "float32", (peer, "torch"), work(kind, peer), note)
    for d in (D, WIDE):
        yield Case("maf.sample", "d passes", 1.0, "float32", ("torch",), without_cache(d), f"d = {d}")


CASES = tuple(_all_cases())
