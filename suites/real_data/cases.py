"""Every model with its data: how it is fitted, and the figures that are measured of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from reference_impls.autoregressive_logistic import AutoregressiveLogistic
from reference_impls.chow_liu import chow_liu
from reference_impls.gaussian import Gaussian
from reference_impls.generative_classifier import GenerativeClassifier
from reference_impls.markov_chain import MarkovChain
from reference_impls.mixture import GaussianMixture, fit_mixture
from reference_impls.tables import IndependentCategoricals
from suites import data
from suites.data import Labelled, Splits
from suites.real_data.bars import ACCURACY, LIKELIHOOD, MASS, TOTAL
from suites.real_data.fits import autoregressive_by_adam, mixture_of_bernoullis

say = partial(print, flush=True)
NATS = "nats per draw"


class Density(Protocol):
    def log_prob(self, x: Tensor) -> Tensor: ...


class Figure(NamedTuple):
    """One number that was measured."""

    split: str
    metric: str
    value: float
    unit: str


Measure = Callable[[Path | None], Iterator[Figure]]
"""From the folder of the data (None: HARNESS_DATA, or a download) to the figures, one by one."""


@dataclass(frozen=True)
class Case:
    """A model on a data set. `number` is that of the model in the list of reference models, M01, M02, ...

    `chosen` says what was chosen, by which draws, and which draws had been looked at before.
    """

    data: str
    model: str
    number: str
    measure: Measure
    preprocessing: str
    chosen: str = "nothing"
    exact_or_bound: str = "exact"
    seed: int | None = None

    @property
    def name(self) -> str:
        return f"{self.data}/{self.model.replace(' ', '-')}"

    @property
    def device(self) -> str:
        return "cpu"

    def figures(self, folder: Path | None) -> Iterator[Figure]:
        return self.measure(folder)


# Figures


def mean_log_likelihood(model: Density, x: Tensor, split: str = "test") -> Figure:
    return Figure(split, LIKELIHOOD, model.log_prob(x).mean().item(), NATS)


def normalisation_error(model: Density, d: int) -> Figure:
    """|sum_x p(x) - 1| over all 2^d states, in float64."""
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * d)
    mass = model.log_prob(states).double().exp().sum().item()
    return Figure(f"all {len(states)} states", MASS, abs(mass - 1), "1")


# Bits


def on_nltcs(fit: Callable[[Splits], Density], path: Path | None) -> Iterator[Figure]:
    splits = Splits(*(x.double() for x in data.nltcs(path)))
    model = fit(splits)
    yield mean_log_likelihood(model, splits.test)
    yield normalisation_error(model, splits.test.shape[1])


def on_binarized_mnist(fit: Callable[[Splits], Density], path: Path | None) -> Iterator[Figure]:
    splits = data.binarized_mnist(path)
    yield mean_log_likelihood(fit(splits), splits.test.double())


def independent(splits: Splits) -> Density:
    return IndependentCategoricals.from_draws(splits.train, [2] * splits.train.shape[1], smoothing=1.0)


def chain(splits: Splits) -> Density:
    return MarkovChain.from_draws(splits.train, 2, homogeneous=False, smoothing=1.0)


def tree(splits: Splits) -> Density:
    return chow_liu(splits.train, smoothing=1.0)


def autoregressive(splits: Splits) -> Density:
    return AutoregressiveLogistic.fit(splits.train)


def autoregressive_of_pixels(splits: Splits) -> Density:
    return autoregressive_by_adam(splits.train.float(), splits.valid.float(), **ADAM, tell=say).to(torch.float64)


def mixture_of_bits(splits: Splits) -> Density:
    return mixture_of_bernoullis(splits.train, splits.valid, tell=say)


ADAM = {"epochs": 40, "batch": 250, "rate": 0.01, "l2": 1e-4}
BY_ADAM = "Adam: " + ", ".join(f"{name} {value:g}" for name, value in ADAM.items()) + ", the rate falling to 0"
BITS = "bits as in the file; add-1 smoothing of every count"
PIXELS = "static binarisation as in the file, pixels row by row"
SMOOTH = f"{PIXELS}; add-1 smoothing of every count"

# Real numbers


def on_old_faithful(fit: Callable[[Tensor], Density], path: Path | None) -> Iterator[Figure]:
    x = data.old_faithful(path)
    yield Figure("all, which are also the training draws", TOTAL, fit(x).log_prob(x).sum().item(), "nats")


def thirds(known: Labelled) -> tuple[Labelled, Labelled]:
    """Training and test draws: every third row of the file, from the third on, is a test draw. Order is by kind."""
    test = torch.arange(len(known.x)) % 3 == 2
    return Labelled(known.x[~test], known.y[~test]), Labelled(known.x[test], known.y[test])


def density_on(load: Callable[[], Labelled], fit: Callable[[Tensor], Density], _: Path | None) -> Iterator[Figure]:
    train, test = thirds(load())
    yield mean_log_likelihood(fit(train.x), test.x)


def accuracy_on(load: Callable[[], Labelled], family: str, _: Path | None) -> Iterator[Figure]:
    train, test = thirds(load())
    model = GenerativeClassifier.fit(train.x, train.y, family=family)
    yield Figure("test", ACCURACY, (model.classify(test.x) == test.y).double().mean().item(), "share of test draws")


def mixture(k: int, kind: str = "full") -> Callable[[Tensor], GaussianMixture]:
    return lambda x: fit_mixture(x, k, kind=kind, generator=torch.Generator().manual_seed(0))


def dequantised_digits() -> Labelled:
    """Levels 0 to 16 plus uniform noise on [0, 1): a density of the sum bounds the probabilities of the levels.

    log P(x) = log of the integral of p(x + u) over u >= E log p(x + u), by Jensen (Theis et al. 2016,
    arxiv.org/abs/1511.01844).
    """
    x, y = data.digits()
    return Labelled(x + torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype), y)


FLOOR = "variance floor 1e-4 of the covariance of all draws"
THIRDS = "rows 3, 6, 9, ... of scikit-learn's file are the test draws, the others train"
RAW = f"values as in the file; {THIRDS}"
NOISE = f"levels 0 to 16 plus uniform noise on [0, 1), seed 0; {THIRDS}"
KINDS = "as many components as there are labels, beforehand; best of 8 short runs of EM on the training draws"

# All of them

SEEN = "test figures of earlier runs had been seen"
SEEN_ELSEWHERE = "a test figure of the same model, fitted by other code, had been seen"

CASES = (
    Case("nltcs", "independent", "M07", partial(on_nltcs, independent), BITS),
    Case("nltcs", "first-order chain", "M09", partial(on_nltcs, chain), BITS, "variables in the order of the file"),
    Case("nltcs", "Chow-Liu tree", "M10", partial(on_nltcs, tree), BITS),
    Case("nltcs", "autoregressive logistic", "M16", partial(on_nltcs, autoregressive), "bits as in the file"),
    Case(
        "nltcs",
        "mixture of Bernoullis",
        "M11",
        partial(on_nltcs, mixture_of_bits),
        "bits as in the file; half a draw of each value added to every pixel of every component",
        "6 parts of 50 components, prior 0.5 and the number of EM steps, by the validation draws; " + SEEN,
        seed=0,
    ),
    Case("old_faithful", "Gaussian", "M01", partial(on_old_faithful, Gaussian.fit), "minutes as in the file"),
    Case(
        "old_faithful",
        "mixture of 2 Gaussians",
        "M11",
        partial(on_old_faithful, mixture(2)),
        f"minutes as in the file; full covariances, {FLOOR}",
        "best of 8 short runs of EM on the same draws",
        seed=0,
    ),
    Case("binarized_mnist", "independent", "M07", partial(on_binarized_mnist, independent), SMOOTH),
    Case("binarized_mnist", "Chow-Liu tree", "M10", partial(on_binarized_mnist, tree), SMOOTH),
    Case(
        "binarized_mnist",
        "autoregressive logistic",
        "M16",
        partial(on_binarized_mnist, autoregressive_of_pixels),
        f"{PIXELS}; fitted in float32 by {BY_ADAM}; evaluated in float64",
        "l2, rate and batch (of 5 settings, at 15 epochs) and the epoch, by the validation draws; " + SEEN_ELSEWHERE,
        seed=0,
    ),
    Case("iris", "Gaussian", "M01", partial(density_on, data.iris, Gaussian.fit), RAW),
    Case(
        "iris",
        "mixture of 3 Gaussians",
        "M11",
        partial(density_on, data.iris, mixture(3)),
        f"{RAW}; full covariances, {FLOOR}",
        KINDS,
        seed=0,
    ),
    Case("iris", "LDA", "M30", partial(accuracy_on, data.iris, "lda"), RAW),
    Case("wine", "Gaussian", "M01", partial(density_on, data.wine, Gaussian.fit), RAW),
    Case(
        "wine",
        "mixture of 3 Gaussians",
        "M11",
        partial(density_on, data.wine, mixture(3, "tied")),
        f"{RAW}; one tied covariance, {FLOOR}",
        KINDS,
        seed=0,
    ),
    Case("wine", "LDA", "M30", partial(accuracy_on, data.wine, "lda"), RAW),
    Case(
        "digits",
        "Gaussian",
        "M01",
        partial(density_on, dequantised_digits, Gaussian.fit),
        NOISE,
        exact_or_bound="lower bound on the log-likelihood of the levels",
        seed=0,
    ),
    Case(
        "digits",
        "mixture of 10 Gaussians",
        "M11",
        partial(density_on, dequantised_digits, mixture(10, "tied")),
        f"{NOISE}; one tied covariance, {FLOOR}",
        KINDS,
        exact_or_bound="lower bound on the log-likelihood of the levels",
        seed=0,
    ),
    Case("digits", "LDA", "M30", partial(accuracy_on, dequantised_digits, "lda"), NOISE, seed=0),
)
