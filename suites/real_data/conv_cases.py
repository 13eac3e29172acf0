"""Labels of digits: a convolutional network beside generative classifiers, with intervals of their accuracies."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from scipy.stats import beta
from torch import Tensor

from reference_impls.conv_net import ConvNet
from reference_impls.generative_classifier import GenerativeClassifier
from reference_impls.training import train
from suites import data
from suites.data import Labelled
from suites.real_data.bars import ACCURACY
from suites.real_data.cases import NOISE, RAW, SEEN, Case, Figure, dequantised_digits, thirds

LEVEL = 0.95
SHARE = "share of test draws"
LABELS = "mean log-likelihood of labels"

Fit = Callable[[Labelled], Callable[[Tensor], Tensor]]
"""From training draws to log p(y | x), which takes x (n, 64) to (n, 10)."""


def labels_of(load: Callable[[], Labelled], fit: Fit, _: Path | None) -> Iterator[Figure]:
    """Accuracy on the test draws and its interval, and the mean of log p(y | x) where y is the true label."""
    known, test = thirds(load())
    log_posterior = fit(known)(test.x).double()
    right = int((log_posterior.argmax(1) == test.y).sum())
    low, high = exact_interval(right, len(test.y))
    yield Figure("test", ACCURACY, right / len(test.y), SHARE)
    yield Figure("test", f"{ACCURACY}, low end of 95 %", low, SHARE)
    yield Figure("test", f"{ACCURACY}, high end of 95 %", high, SHARE)
    yield Figure("test", LABELS, float(log_posterior.gather(1, test.y[:, None]).mean()), "nats per label")


def exact_interval(right: int, n: int) -> tuple[float, float]:
    """Clopper & Pearson 1934, doi.org/10.1093/biomet/26.4.404: it covers the true share in 95 % of all samples or more.

    It is of this fitted model, over test draws; that another training run would give another model is not in it.
    """
    tail = (1 - LEVEL) / 2
    low = 0.0 if right == 0 else float(beta.ppf(tail, right, n - right + 1))
    high = 1.0 if right == n else float(beta.ppf(1 - tail, right + 1, n - right))
    return low, high


def generative(family: str, known: Labelled) -> Callable[[Tensor], Tensor]:
    return GenerativeClassifier.fit(known.x, known.y, family=family).log_posterior


def convolutional(known: Labelled) -> Callable[[Tensor], Tensor]:
    model = trained_on_digits(known)

    @torch.no_grad()
    def log_posterior(x: Tensor) -> Tensor:
        return model.log_posterior(as_images(x))

    return log_posterior


def trained_on_digits(known: Labelled) -> ConvNet:
    """Two stages of 32 and 64 channels and 128 hidden units: 53,000 weights, some three seconds on one core."""
    model = ConvNet(8, 8, 10, channels=(32, 64), hidden=128, seed=0)
    train(model, model.loss, (as_images(known.x), known.y), steps=600, batch=100, rate=3e-3)
    return model


def as_images(x: Tensor) -> Tensor:
    """(n, 64) levels, 0 to 16, to float32 (n, 8, 8) from -1 to 1."""
    return (x.reshape(-1, 8, 8) / 8 - 1).float()


BY_ADAM = "images scaled to [-1, 1]; float32; Adam, 600 steps of 100 images, rate 0.003 falling to 0"

CLASSIFIERS = (
    *(
        Case("digits", model, "M30", partial(labels_of, dequantised_digits, partial(generative, family)), NOISE, seed=0)
        for model, family in (("QDA", "qda"), ("Gaussian naive Bayes", "gaussian_naive_bayes"))
    ),
    Case(
        "digits",
        "convolutional network",
        "M31",
        partial(labels_of, data.digits, convolutional),
        f"{RAW}; {BY_ADAM}",
        "size and steps, of 4 settings with 3 seeds each, by every third training draw; " + SEEN,
        seed=0,
    ),
)
