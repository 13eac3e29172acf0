"""The figures to reach, each an interval, set beforehand. Those of classical models had been measured by other code."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LIKELIHOOD = "mean log-likelihood"
TOTAL = "total log-likelihood"
MASS = "normalisation error"
ACCURACY = "accuracy"
CROSS_ENTROPY = "cross-entropy"


@dataclass(frozen=True)
class Bar:
    """low <= value <= high, for the row of this data, model and metric."""

    data: str
    model: str
    metric: str
    low: float = -math.inf
    high: float = math.inf

    def concerns(self, row: Mapping[str, Any]) -> bool:
        return (self.data, self.model, self.metric) == (row["data"], row["model"], row["metric"])

    def reached_by(self, value: float) -> bool:
        """False for NaN."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"at least {self.low}"
        if self.low == -math.inf:
            return f"at most {self.high}"
        return f"from {self.low:.10g} to {self.high:.10g}"


def equal(data: str, model: str, metric: str, value: float, *, within: float) -> Bar:
    return Bar(data, model, metric, value - within, value + within)


def at_least(data: str, model: str, metric: str, low: float) -> Bar:
    return Bar(data, model, metric, low=low)


def at_most(data: str, model: str, metric: str, high: float) -> Bar:
    return Bar(data, model, metric, high=high)


NLTCS = ("independent", "first-order chain", "Chow-Liu tree", "autoregressive logistic", "mixture of Bernoullis")

DEEP_ON_NLTCS = ("NADE", "MADE", "transformer")

# "within" is a unit of the last digit that is known; a closed form has no other freedom.
BARS = (
    equal("nltcs", "independent", LIKELIHOOD, -9.23361, within=1e-5),
    equal("nltcs", "first-order chain", LIKELIHOOD, -7.32727, within=1e-5),
    equal("nltcs", "Chow-Liu tree", LIKELIHOOD, -6.75904, within=1e-5),
    at_least("nltcs", "autoregressive logistic", LIKELIHOOD, -6.04),
    at_least("nltcs", "mixture of Bernoullis", LIKELIHOOD, -6.01),
    *(at_most("nltcs", model, MASS, 1e-9) for model in NLTCS),
    equal("old_faithful", "Gaussian", TOTAL, -1289.796745, within=1e-6),
    equal("old_faithful", "mixture of 2 Gaussians", TOTAL, -1130.263960, within=1e-6),
    equal("binarized_mnist", "independent", LIKELIHOOD, -205.793, within=1e-3),
    equal("binarized_mnist", "Chow-Liu tree", LIKELIHOOD, -134.987, within=1e-3),
    at_least("binarized_mnist", "autoregressive logistic", LIKELIHOOD, -97.9),
    *(at_least("nltcs", model, LIKELIHOOD, -6.03) for model in DEEP_ON_NLTCS),
    *(at_most("nltcs", model, MASS, 1e-9) for model in DEEP_ON_NLTCS),
    at_least("digits", "convolutional network", ACCURACY, 0.965),
    at_least("binarized_mnist", "NADE", LIKELIHOOD, -93),
    at_least("binarized_mnist", "MADE", LIKELIHOOD, -95),
    at_least("binarized_mnist", "VAE", LIKELIHOOD, -93),
    at_most("tiny_shakespeare", "4-gram", CROSS_ENTROPY, 1.777),
    at_most("tiny_shakespeare", "5-gram", CROSS_ENTROPY, 1.753),
    at_most("tiny_shakespeare", "transformer", CROSS_ENTROPY, 1.777),
)

GPU_BARS = (
    at_least("binarized_mnist", "NADE, long run", LIKELIHOOD, -88.9),
    at_least("binarized_mnist", "MADE, long run", LIKELIHOOD, -88.5),
    at_least("binarized_mnist", "VAE, long run", LIKELIHOOD, -87),
    at_least("binarized_mnist", "Diagonal BiLSTM, long run", LIKELIHOOD, -82),
    at_most("tiny_shakespeare", "transformer, long run", CROSS_ENTROPY, 1.50),
)
"""Those of the runs on a GPU."""


def bars_of(row: Mapping[str, Any]) -> list[Bar]:
    return [bar for bar in (*BARS, *GPU_BARS) if bar.concerns(row)]
