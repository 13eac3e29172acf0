"""Classifiers whose posteriors are no laws, not Bayes', or not calibrated; and right ones that look odd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.energy import edited
from harness.mutants.mutant import Change, Mutant, NearMiss
from harness.mutants.structure import nothing


class Discriminant:
    """Gaussian classes in the plane or in more dimensions, with one scale each: p(y), p(x | y), and what follows."""

    def __init__(self, prior: Tensor, means: Tensor, scales: Tensor):
        self.p, self.means, self.scales = prior, means, scales  # (K,), (K, d), (K,)

    def class_prior(self) -> Tensor:
        return self.p

    def log_joint(self, x: Tensor) -> Tensor:
        white = (x[:, None] - self.means) / self.scales[:, None]  # (n, K, d)
        constant = self.p.log() - self.means.shape[1] * (self.scales.log() + 0.9189385332046727)
        return constant - white.square().sum(-1) / 2

    def log_prob(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        joint = self.log_joint(x)
        if given is None:
            return joint.logsumexp(1)
        return joint.gather(1, given[:, None])[:, 0] - self.p.log()[given]

    def posterior(self, x: Tensor) -> Tensor:
        return self.log_joint(x).softmax(1)

    def sample(self, n: int, *, generator: torch.Generator, given: Tensor | None = None) -> Tensor:
        if given is None:
            u = torch.rand(n, generator=generator, dtype=torch.float64)
            given = torch.searchsorted(self.p.double().cumsum(0)[:-1].contiguous(), u, right=True)
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[given] + self.scales[given][:, None] * z


class Softmax:
    """p(y | x) = softmax(W x + b): labels alone, and none of x."""

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias  # (K, d), (K,)
        self.given_shape = (weight.shape[1],)

    def posterior(self, x: Tensor) -> Tensor:
        return (x.to(self.weight) @ self.weight.mT + self.bias).softmax(1)

    def log_prob(self, y: Tensor, *, given: Tensor) -> Tensor:
        logits = given.to(self.weight) @ self.weight.mT + self.bias
        return logits.log_softmax(1).gather(1, y[:, None])[:, 0]

    def sample(self, n: int, *, given: Tensor, generator: torch.Generator) -> Tensor:
        ends = self.posterior(given).double().cumsum(1)
        u = torch.rand(n, 1, generator=generator, dtype=torch.float64) * ends[:, -1:]
        return torch.searchsorted(ends, u, right=True)[:, 0]


def discriminant(
    classes: int = 3, d: int = 2, dtype: torch.dtype = torch.float32, apart: float = 1.0
) -> Callable[[], Discriminant]:
    """Classes of unequal size and scale, whose means lie `apart` from each other."""

    def build() -> Discriminant:
        means = torch.cos(torch.arange(classes * d, dtype=dtype).reshape(classes, d) * 2.0) * apart
        prior = torch.linspace(1, 2, classes, dtype=dtype)
        return Discriminant(prior / prior.sum(), means, torch.linspace(0.7, 1.3, classes, dtype=dtype))

    return build


def softmax(classes: int = 3, d: int = 2, size: float = 1.0) -> Callable[[], Softmax]:
    """Weights of about that size."""

    def build() -> Softmax:
        weight = size * torch.sin(torch.arange(classes * d, dtype=torch.float32).reshape(classes, d) + 1)
        return Softmax(weight, torch.linspace(-0.5, 0.5, classes))

    return build


def _prior_forgotten(model: Model) -> dict[str, Callable[..., Tensor]]:
    """p(x | y) / sum of p(x | y): as if all classes were as frequent."""
    law = model.target
    assert isinstance(law, Discriminant)
    return {"posterior": lambda x: (law.log_joint(x) - law.p.log()).softmax(1)}


def _given_is_joint(model: Model) -> dict[str, Callable[..., Tensor]]:
    """log p(x, y) for log p(x | y)."""
    law = model.target
    assert isinstance(law, Discriminant)
    return {"log_prob_given": lambda x, *, given: law.log_joint(x).gather(1, given[:, None])[:, 0]}


def _constants_left_out(model: Model) -> dict[str, Callable[..., Tensor]]:
    """The scales of the classes enter the squares, and not the constants."""
    law = model.target
    assert isinstance(law, Discriminant)
    return {"posterior": lambda x: (law.log_joint(x) + law.means.shape[1] * law.scales.log()).softmax(1)}


def _most_probable(model: Model) -> dict[str, Callable[..., Tensor]]:
    """max_y p(x, y) for sum_y p(x, y)."""
    law = model.target
    assert isinstance(law, Discriminant)
    return {"log_prob": lambda x: law.log_joint(x).amax(1)}


def _tempered(power: float) -> Change:
    """The posterior to a power, normalised: too sure above 1."""

    def change(model: Model) -> dict[str, Callable[..., Tensor]]:
        return {"posterior": lambda x: (power * model.posterior(x).log()).softmax(1)}

    return change


def _labels_turned(model: Model) -> dict[str, Callable[..., Tensor]]:
    """Draws of the class after the one that was asked for."""
    classes = len(model.class_prior())
    return {
        "sample_given": lambda n, *, given, generator: model.sample_given(
            n, given=(given + 1) % classes, generator=generator
        )
    }


def _first_label_rarer(model: Model) -> dict[str, Callable[..., Tensor]]:
    """One label 0 in five becomes a label 1."""

    def sample(n: int, *, given: Tensor, generator: torch.Generator) -> Tensor:
        y = model.sample_given(n, given=given, generator=generator)
        u = torch.rand(n, generator=generator)
        return torch.where((y == 0) & (u < 0.2), 1, y)

    return {"sample_given": sample}


SUM, TOTAL, RULE = "classifier.posterior_sums_to_one", "classifier.total_probability", "classifier.bayes_rule"
LABELS, CALIBRATED = "classifier.posterior_is_log_prob", "classifier.calibrated"


def _signed(p: Tensor) -> Tensor:
    """Still of sum 1, but for a class of which the probability is negative."""
    return torch.cat([p[:, :1] + 1.5 * p[:, 1:2], -0.5 * p[:, 1:2], p[:, 2:]], 1)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("rows_heavy", "p(y | x) x 1.01", SUM, softmax(), edited("posterior", lambda p: 1.01 * p)),
    Mutant("prior_heavy", "p(y) x 1.01", SUM, discriminant(), edited("class_prior", lambda p: 1.01 * p)),
    Mutant("negative", "a negative probability", SUM, discriminant(), edited("posterior", _signed)),
    Mutant("log_posterior", "log p(y | x)", SUM, discriminant(), edited("posterior", torch.log)),
    Mutant("no_row", "p(y) alone", SUM, discriminant(), edited("posterior", lambda p: p[0]), error=True),
    Mutant("most_probable", "max_y p(x, y) for p(x)", TOTAL, discriminant(), _most_probable),
    Mutant("given_is_joint", "p(x, y) for p(x | y)", TOTAL, discriminant(), _given_is_joint),
    Mutant("prior_even", "another p(y)", TOTAL, discriminant(), edited("class_prior", lambda p: p.flip(0))),
    Mutant("prior_forgotten", "without p(y)", RULE, discriminant(), _prior_forgotten),
    Mutant("constants_left_out", "without |Sigma_y|", RULE, discriminant(), _constants_left_out),
    Mutant("too_sure", "p(y | x)^1.01", RULE, discriminant(), _tempered(1.01)),
    Mutant("given_is_joint", "p(x, y) for p(x | y)", RULE, discriminant(), _given_is_joint),
    Mutant("too_sure", "p(y | x)^1.01", LABELS, softmax(), _tempered(1.01)),
    Mutant("classes_turned", "the last class first", LABELS, softmax(), edited("posterior", lambda p: p.roll(1, 1))),
    Mutant("too_sure", "p(y | x)^1.3", CALIBRATED, softmax(), _tempered(1.3)),
    Mutant("unsure", "p(y | x)^0.8", CALIBRATED, discriminant(), _tempered(0.8)),
    Mutant("prior_forgotten", "without p(y)", CALIBRATED, discriminant(), _prior_forgotten),
    Mutant("labels_turned", "draws of another class", CALIBRATED, discriminant(), _labels_turned),
    Mutant("label_rarer", "a fifth of the labels 0 lost", CALIBRATED, softmax(), _first_label_rarer),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("certain", "posteriors of 0 and 1", SUM, softmax(size=300.0), nothing),
    NearMiss("many", "100 classes", SUM, discriminant(100, 5), nothing),
    NearMiss("far_apart", "classes that never meet", SUM, discriminant(apart=100.0), nothing),
    NearMiss("far_apart", "classes that never meet", TOTAL, discriminant(apart=100.0), nothing),
    NearMiss("sixteen", "16 dimensions", TOTAL, discriminant(4, 16), nothing),
    NearMiss("far_apart", "classes that never meet", RULE, discriminant(apart=100.0), nothing),
    NearMiss("double", "float64", RULE, discriminant(dtype=torch.float64), nothing),
    NearMiss("many", "100 classes", RULE, discriminant(100, 5), nothing),
    NearMiss("certain", "posteriors of 0 and 1", LABELS, softmax(size=30.0), nothing),
    NearMiss("two", "two classes", LABELS, softmax(2, 5), nothing),
    NearMiss("certain", "posteriors of 0 and 1", CALIBRATED, softmax(size=300.0), nothing),
    NearMiss("many", "100 classes", CALIBRATED, discriminant(100, 5), nothing),
    NearMiss("far_apart", "classes that never meet", CALIBRATED, discriminant(apart=100.0), nothing),
)
