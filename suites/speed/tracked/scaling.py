"""asv: how models grow with the dimension of an event, one family each, on 1,000 rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from reference_impls.coupling import Coupling, alternating
from reference_impls.flows import Flow, StandardNormal
from reference_impls.made import MADE
from reference_impls.nade import NADE
from suites.speed import cases

from . import measures
from .measures import DEVICES, DTYPES, SEED, Samples

ROWS = 1000


def gaussian(d: int) -> Any:
    return cases.a_gaussian(d, torch.Generator().manual_seed(SEED)).to(torch.float32)


def mixture(d: int) -> Any:
    """Ten components with full covariances."""
    return cases.a_mixture(d, 10, torch.Generator().manual_seed(SEED)).to(torch.float32)


def chain(d: int) -> Any:
    """d steps of eight states."""
    return cases.a_chain(8, d, torch.Generator().manual_seed(SEED)).to(torch.float32)


def couplings(d: int) -> Any:
    """Four affine coupling layers of 64 hidden units."""
    return Flow(StandardNormal(d), [Coupling(k, hidden=(64,), seed=i) for i, k in enumerate(alternating(d, 4))])


FAMILIES: dict[str, Callable[[int], Any]] = {
    "Gaussian": gaussian,
    "mixture": mixture,
    "Markov chain": chain,
    "coupling flow": couplings,
    "MADE": partial(MADE, hidden=(128,)),
    "NADE": partial(NADE, hidden=64),
}


class _Growing:
    params = (list(FAMILIES), [2, 16, 128], DTYPES, DEVICES)
    param_names = ("family", "d", "dtype", "device")
    version = "1"
    timeout = 300
    capability = ""

    def setup(self, family: str, d: int, dtype: str, device: str) -> None:
        model = measures.prepared(lambda: FAMILIES[family](d), family, dtype, device)
        self.job = measures.job(model, self.capability, ROWS)


class SampleOfDimension(_Growing):
    """Draws; seconds of one row."""

    capability = "sample"

    def track_seconds(self, *_: Any) -> Samples:
        return measures.seconds_a_row(self.job)

    def track_peak_bytes(self, *_: Any) -> int:
        return measures.peak_bytes(self.job)

    track_seconds.unit, track_peak_bytes.unit = "seconds", "bytes"


class LogProbOfDimension(_Growing):
    """Densities; seconds of one row."""

    capability = "log_prob"

    def track_seconds(self, *_: Any) -> Samples:
        return measures.seconds_a_row(self.job)

    def track_peak_bytes(self, *_: Any) -> int:
        return measures.peak_bytes(self.job)

    track_seconds.unit, track_peak_bytes.unit = "seconds", "bytes"
