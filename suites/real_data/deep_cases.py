"""Deep models on real data: how each is built and trained, and what is measured of it.

Rows that need a GPU are in `gpu_cases`. Sizes and settings were chosen by validation draws; `chosen` says how.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from reference_impls.coupling import Coupling, alternating
from reference_impls.dequantisation import Dequantised
from reference_impls.flows import Flow, Squash, StandardNormal
from reference_impls.made import MADE
from reference_impls.nade import NADE
from reference_impls.splines import Spline
from reference_impls.transformer import Transformer
from reference_impls.vae import VAE
from reference_impls.vae_parts import BernoulliDecoder, Encoder, mlp
from suites import data
from suites.data import Splits
from suites.real_data.bars import LIKELIHOOD
from suites.real_data.cases import (
    NATS,
    PIXELS,
    SEEN,
    SEEN_ELSEWHERE,
    Case,
    Figure,
    mean_log_likelihood,
    normalisation_error,
    say,
)
from suites.real_data.deep_fits import InParts, Recipe, Run, importance_bound, trained
from suites.real_data.shakespeare import attention, counts

Build = Callable[[], nn.Module]
Load = Callable[[Path | None, Run], Splits]
ON_CPU = Run()


@dataclass(frozen=True)
class DeepCase(Case):
    """A case whose model is trained where `run` says; `measure` takes (folder of the data, run)."""

    run: Run = ON_CPU

    @property
    def device(self) -> str:
        return self.run.device

    def figures(self, folder: Path | None) -> Iterator[Figure]:
        return self.measure(folder, self.run)


# NLTCS


def bits(path: Path | None, run: Run) -> Splits:
    return Splits(*(x.to(run.device, torch.float32) for x in data.nltcs(path)))


def density_of_bits(build: Build, recipe: Recipe, name: str, path: Path | None, run: Run) -> Iterator[Figure]:
    """Fitted in float32, evaluated in float64."""
    splits = bits(path, run)
    model = build().to(run.device)
    model = trained(model, splits.train, lambda m: InParts(m).mean(splits.valid), recipe, name=name, run=run, tell=say)
    law = InParts(model.to(torch.float64))
    yield mean_log_likelihood(law, splits.test.double())
    yield normalisation_error(law, splits.test.shape[1])


def bound(load: Load, build: Build, recipe: Recipe, name: str, k: int, path: Path | None, run: Run) -> Iterator[Figure]:
    """L_k of the test draws; rounds are chosen by L_50 of the validation draws. Float32."""
    splits = load(path, run)
    model = build().to(run.device)
    score = partial(importance_bound, x=splits.valid, k=50, seed=1)
    model = trained(model, splits.train, score, recipe, name=name, run=run, tell=say)
    yield Figure("test", LIKELIHOOD, importance_bound(model, splits.test, k, seed=2), NATS)


def vae(d: int, hidden: int, latent: int) -> VAE:
    """One layer of hidden units on either side, d bits."""
    encoder = Encoder(mlp((d, hidden, 2 * latent), seed=9), latent)
    return VAE(encoder, BernoulliDecoder(mlp((latent, hidden, d), seed=10)), d)


def flow_of_bits(layers: int = 6, hidden: int = 64) -> Dequantised:
    """Couplings by splines of eight bins, on (0, 2)^16."""
    kept = alternating(16, layers)
    couplings = [Coupling(k, Spline(8, 5.0), hidden=(hidden, hidden), seed=i) for i, k in enumerate(kept)]
    return Dequantised(Flow(StandardNormal(16), [*couplings, Squash(16, 0, 2)]), 2)


# Binarised MNIST


def pixels(path: Path | None, run: Run) -> Splits:
    return Splits(*(x.to(run.device, torch.float32) for x in data.binarized_mnist(path)))


def density_of_pixels(build: Build, recipe: Recipe, name: str, path: Path | None, run: Run) -> Iterator[Figure]:
    """Fitted and evaluated in float32: 784 roundings of sums of about 100 nats are 784 x 6e-8 x 100 = 5e-3 at most."""
    splits = pixels(path, run)
    model = build().to(run.device)
    model = trained(model, splits.train, lambda m: InParts(m).mean(splits.valid), recipe, name=name, run=run, tell=say)
    yield Figure("test", LIKELIHOOD, InParts(model).mean(splits.test), NATS)


# All of them

ON_TEXT = Recipe(8000, batch=16, rate=3e-3, clip=1.0)
ON_BITS = {
    "NADE": Recipe(1500, rounds=2, batch=200, rate=2e-2),
    "MADE": Recipe(750, rounds=3, batch=200, rate=1e-2),
    "transformer": Recipe(1000, rounds=2, rate=1e-2, clip=1.0),
    "VAE": Recipe(2000, rounds=3, rate=5e-3),
    "flow": Recipe(1500, rounds=2, batch=200, rate=5e-3),
}
ON_PIXELS = {
    "NADE": Recipe(6000, rate=3e-3),
    "MADE": Recipe(2500, rounds=3, rate=2e-3),
    "VAE": Recipe(36_000, rate=2e-3),
}
BITS = "bits as in the file; {}; fitted in float32 by {}"
BY_ROUND = "the round, by the validation draws"
DEQUANTISED = "lower bound: uniform noise on [0, 1) added to each bit, the mean of log 1/K sum p(x + u), K = {}"
IMPORTANCE = "lower bound: importance weights, L_K with K = {}"


def on_bits(model: str, number: str, size: str, build: Build, chosen: str = BY_ROUND) -> DeepCase:
    recipe = ON_BITS[model]
    measure = partial(density_of_bits, build, recipe, f"nltcs-{model}")
    told = f"{BITS.format(size, recipe)}; evaluated in float64"
    return DeepCase("nltcs", model, number, measure, told, chosen, seed=0)


def bound_on_bits(model: str, number: str, size: str, build: Build, k: int, kind: str) -> DeepCase:
    recipe = ON_BITS[model]
    measure = partial(bound, bits, build, recipe, f"nltcs-{model}", k)
    told = f"{BITS.format(size, recipe)}; evaluated in float32"
    return DeepCase("nltcs", model, number, measure, told, BY_ROUND, kind.format(k), seed=0)


def on_pixels(model: str, number: str, size: str, build: Build, chosen: str, recipe: Recipe | None = None) -> DeepCase:
    recipe = recipe or ON_PIXELS[model]
    measure = partial(density_of_pixels, build, recipe, f"mnist-{model}")
    told = f"{PIXELS}; {size}; fitted and evaluated in float32 by {recipe}"
    return DeepCase("binarized_mnist", model, number, measure, told, chosen, seed=0)


def bound_on_pixels(model: str, number: str, size: str, build: Build, k: int) -> DeepCase:
    recipe = ON_PIXELS[model]
    measure = partial(bound, pixels, build, recipe, f"mnist-{model}", k)
    told = f"{PIXELS}; {size}; fitted and evaluated in float32 by {recipe}"
    chosen = "rate, of 2e-3 and 5e-3, by the validation draws after 2,000 steps; " + SEEN_ELSEWHERE
    return DeepCase("binarized_mnist", model, number, measure, told, chosen, IMPORTANCE.format(k), seed=0)


TENTHS = "characters as in the file, its last tenth for testing; trained on the first nine tenths"


def of_counts(n: int) -> Case:
    told = "characters as in the file, its last tenth for testing; counts of the rest, mixed with those of shorter ones"
    return Case("tiny_shakespeare", f"{n}-gram", "M17", partial(counts, n - 1), f"{told} by Witten and Bell's weights")


def on_text(model: str, size: str, build: Callable[[], Transformer], recipe: Recipe, chosen: str) -> DeepCase:
    measure = partial(attention, build, recipe, f"shakespeare-{model}")
    told = f"{TENTHS}; {size}; fitted and evaluated in float32 by {recipe}"
    return DeepCase("tiny_shakespeare", model, "M17", measure, told, chosen, seed=0)


DEEP = (
    on_bits(
        "NADE",
        "M18",
        "32 hidden units, variables in the order of the file",
        lambda: NADE(16, 32, seed=18),
        "rate, of 1e-2 and 2e-2, and the round, by the validation draws",
    ),
    on_bits(
        "MADE", "M18", "2 x 64 hidden units, variables in the order of the file", lambda: MADE(16, (64, 64), seed=15)
    ),
    on_bits(
        "transformer",
        "M17",
        "one block of four heads of 8 units, variables in the order of the file",
        lambda: Transformer(2, 16, width=32, heads=4, blocks=1, std=0.1, seed=17),
        "size, first weights and rate, of 5 settings, and the round, by the validation draws",
    ),
    bound_on_bits("VAE", "M22", "64 hidden units, 8 latent variables", lambda: vae(16, 64, 8), 1000, IMPORTANCE),
    bound_on_bits("flow", "M25", "6 spline couplings of 2 x 64 hidden units", flow_of_bits, 100, DEQUANTISED),
    on_pixels(
        "NADE",
        "M18",
        "500 hidden units",
        lambda: NADE(784, 500, seed=21),
        "rate, of 1e-3 and 3e-3, by the validation draws after 1,000 steps; " + SEEN_ELSEWHERE,
    ),
    on_pixels(
        "MADE",
        "M18",
        "2 x 500 hidden units",
        lambda: MADE(784, (500, 500), seed=17),
        f"{BY_ROUND}; {SEEN_ELSEWHERE}",
    ),
    bound_on_pixels("VAE", "M22", "500 hidden units, 50 latent variables", lambda: vae(784, 500, 50), 500),
    *(of_counts(n) for n in (4, 5)),
    on_text(
        "transformer",
        "four blocks of four heads of 24 units, 64 characters in a row",
        lambda: Transformer(65, 64, width=96, heads=4, blocks=4, std=0.06, seed=28),
        ON_TEXT,
        "first weights, of deviation 0.02 or 0.06, by the ninth tenth after 500 steps; " + SEEN,
    ),
)
