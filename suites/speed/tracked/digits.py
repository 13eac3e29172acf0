"""asv: what fits reach on held-out digits, 64 pixels on or off, and the seconds that they take.

Pixels are on from 8 of the 16 levels. The first 1,200 of scikit-learn's 1,797 images are fitted, the others held out;
they are the same at every commit, and so are the seeds. Without scikit-learn all is n/a.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.adapters import adapt
from reference_impls.bernoulli_mixture import BernoulliMixture, expectation_maximisation, random_start
from reference_impls.chow_liu import chow_liu
from reference_impls.discrete import Bernoulli
from reference_impls.made import MADE
from reference_impls.nade import NADE
from reference_impls.training import train
from suites import data
from suites.data import DataError

from . import measures
from .measures import SEED, Samples

FITTED, THRESHOLD = 1200, 8
SHARE = 0.01
"""Of a half that every probability of independent pixels is mixed with: a pixel may never be on in what is fitted."""


def independent(x: Tensor) -> Any:
    return Bernoulli((1 - SHARE) * x.mean(0) + SHARE / 2)


def mixture(x: Tensor) -> Any:
    """Ten components, by EM from a start and with a prior that keep probabilities away from 0 and 1."""
    start = random_start(x, 10, generator=torch.Generator().manual_seed(SEED))
    start = BernoulliMixture(start.weights, (1 - SHARE) * start.probs + SHARE / 2)
    return expectation_maximisation(start, x, prior=1.0)


def tree(x: Tensor) -> Any:
    return chow_liu(x.long())


def made(x: Tensor) -> Any:
    return _trained(MADE(64, (128,)), x, steps=300, rate=1e-2)


def nade(x: Tensor) -> Any:
    return _trained(NADE(64, 64), x, steps=150, rate=2e-2)


def _trained(model: Any, x: Tensor, steps: int, rate: float) -> Any:
    train(model, model.loss, x, steps=steps, rate=rate, seed=SEED)
    return model


FITS: dict[str, Callable[[Tensor], Any]] = {
    "independent pixels": independent,
    "Bernoulli mixture": mixture,
    "Chow-Liu tree": tree,
    "MADE": made,
    "NADE": nade,
}


class FitOfDigits:
    """A fit from the start, on the CPU in float32."""

    params = (list(FITS),)
    param_names = ("model",)
    version = "1"
    timeout = 600

    def setup(self, name: str) -> None:
        measures.on("cpu")
        try:
            x = (data.digits().x >= THRESHOLD).float()
        except DataError as error:
            raise NotImplementedError(str(error)) from None
        self.x, self.held_out = x[:FITTED], x[FITTED:]

    def track_perplexity(self, name: str) -> float:
        return measures.perplexity(adapt(FITS[name](self.x), name), self.held_out)

    def track_seconds(self, name: str) -> Samples:
        return measures.seconds(lambda: FITS[name](self.x), "cpu", budget=0.0, fewest=3)

    track_perplexity.unit, track_seconds.unit = "exp(nats/dim)", "seconds"
