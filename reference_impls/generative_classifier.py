r"""Generative classifiers: a law of the label, a law of the features for each label, and Bayes' rule.

    p(x, y) = p(y) p(x | y),     p(x) = sum_y p(y) p(x | y),     p(y | x) = p(x, y) / p(x)

Unlike a discriminative model of p(y | x) it can also draw x, say how unusual an x is, and classify when a part of x is
missing: what is not there is summed out, p(y | x_a) ~ p(y) p(x_a | y). Missing features are marked NaN.

With one Gaussian for each class this is quadratic discriminant analysis (QDA), with one covariance for all of them
linear (LDA): the quadratic terms cancel in p(y | x), which is exactly a softmax regression. With independent features
it is naive Bayes.

Sources: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning (2nd ed., 2009), sections 4.3 and 6.6.3;
Ng & Jordan (2001), papers.nips.cc/paper/2020.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from reference_impls.discrete import Bernoulli, Categorical, evidence_values, is_state
from reference_impls.gaussian import DiagonalGaussian, Gaussian
from reference_impls.gaussian_factors import as_floats
from reference_impls.gaussian_missing import log_prob_observed
from reference_impls.indices import as_count, split_evidence
from reference_impls.logistic import SoftmaxRegression

FAMILIES = ("lda", "qda", "gaussian_naive_bayes", "bernoulli_naive_bayes")


class GenerativeClassifier:
    """p(y) p(x | y) from the prior (K,) and K models of features on the same d coordinates.

    A model of features has log_prob, sample, mean, covariance, marginal and conditional, as those of `gaussian` do.
    """

    number = "M30"
    family = "generative classifier"

    def __init__(self, prior: Tensor, models: Sequence):
        self.label = Categorical(prior)
        self.models = tuple(models)
        if len(self.models) != self.label.states:
            raise ValueError(
                f"{self.label.states} prior probabilities for {len(self.models)} models; give one for each"
            )
        if len({(m.d, m.mean().dtype, m.mean().device) for m in self.models}) != 1:
            raise ValueError("the models of the classes differ in dimension, dtype or device; make them alike")
        self.d, self.classes = self.models[0].d, len(self.models)
        self.prior = self.label.probs.to(self.models[0].mean())  # (K,)

    def class_prior(self) -> Tensor:
        return self.prior  # (K,)

    # Densities

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y) for all labels; where x has NaN, of the features that are there."""
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"draws should have shape (n, {self.d}), not {tuple(x.shape)}")
        some_missing = x.is_floating_point() and bool(x.isnan().any())
        parts = [log_prob_observed(model, x) if some_missing else model.log_prob(x) for model in self.models]
        log_prob = torch.stack(parts, dim=-1)  # (n, K)
        return self.prior.to(log_prob.dtype).log() + log_prob

    def log_prob(self, x: Tensor, y: Tensor | None = None, *, given: Tensor | int | None = None) -> Tensor:
        """log p(x); log p(x, y) with labels y (n,); log p(x | y) with labels given, (n,) or one for all."""
        if y is not None and given is not None:
            raise ValueError("y and given are two meanings of a label; use log_prob(x, y) or log_prob(x, given=y)")
        if y is None and given is None:
            return self.log_joint(x).logsumexp(-1)  # (n,)
        labels = self._labels(given if y is None else y, len(x), x.device)
        chosen = self.log_joint(x).gather(1, labels[:, None])[:, 0]
        return chosen if given is None else chosen - self.prior.to(chosen.dtype).log()[labels]  # (n,)

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(y | x) = log p(x, y) - log p(x); NaN where x is impossible under every class."""
        return self.log_joint(x).log_softmax(-1)  # (n, K)

    def posterior(self, x: Tensor) -> Tensor:
        return self.log_posterior(x).exp()  # (n, K)

    def classify(self, x: Tensor) -> Tensor:
        """The most probable label, which no rule beats in expected accuracy if the model is right."""
        log_joint = self.log_joint(x)
        if not (log_joint > -math.inf).any(-1).all():
            raise ValueError("x has a row that is impossible under every class, and so has no label; drop it")
        return log_joint.argmax(-1)  # (n,)

    # Draws and moments of x

    def sample(self, n: int, *, generator: Generator, given: Tensor | int | None = None) -> Tensor:
        """Draws of x; with labels given, of x | y."""
        return self._features(self._drawn_labels(n, given, generator), generator)  # (n, d)

    def sample_joint(self, n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws of x (n, d) with their labels y (n,)."""
        y = self._drawn_labels(n, None, generator)
        return self._features(y, generator), y

    def mean(self) -> Tensor:
        return self.prior @ self._means()  # (d,)

    def variance(self) -> Tensor:
        return self.covariance().diagonal()  # (d,)

    def covariance(self) -> Tensor:
        """E Cov[x | y] + Cov E[x | y]: what varies within the classes, and between them."""
        within = sum(p * model.covariance() for p, model in zip(self.prior, self.models, strict=True))
        offset = self._means() - self.mean()  # (K, d)
        return within + (self.prior[:, None] * offset).mT @ offset  # (d, d)

    # Structure

    def marginal(self, indices: Sequence[int]) -> "GenerativeClassifier":
        """The classifier that sees only these features."""
        return GenerativeClassifier(self.prior, [model.marginal(indices) for model in self.models])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "GenerativeClassifier":
        """p(y, x_b | x_a): the prior becomes p(y | x_a), each model p(x_b | x_a, y)."""
        indices, _ = split_evidence(indices, self.d)
        values = evidence_values(values, len(indices)).to(self.prior)
        if not indices:
            return self
        posterior = self.marginal(indices).posterior(values[None])[0]
        return GenerativeClassifier(posterior, [model.conditional(indices, values) for model in self.models])

    # Anomalies

    def anomaly_score(self, x: Tensor, *, given: Tensor | int) -> Tensor:
        """The *squared* Mahalanobis distance of x (n, d) to the class given; chi^2_d when x is from that class."""
        labels = self._labels(given, len(x), x.device)
        if not all(hasattr(model, "mahalanobis") for model in self.models):
            raise ValueError("this anomaly score is a distance; it asks for classes that are Gaussian")
        scores = torch.stack([model.mahalanobis(x).square() for model in self.models], dim=-1)  # (n, K)
        return scores.gather(1, labels[:, None])[:, 0]  # (n,)

    # Estimation

    @classmethod
    def fit(
        cls, x: Tensor, y: Tensor, *, family: str = "qda", classes: int | None = None, smoothing: float = 0.0
    ) -> "GenerativeClassifier":
        """Maximum likelihood from draws x (n, d) with labels y (n,): of log p(x, y), which splits into two problems.

        The prior are the shares of the labels. The covariances divide by N, also the one that LDA pools. `smoothing`
        adds that many draws of 0 and of 1 to each pixel of each class of Bernoulli naive Bayes, and to nothing else.
        """
        if family not in FAMILIES:
            raise ValueError(f"family is {family!r}; it should be one of {', '.join(FAMILIES)}")
        x, y, classes = _checked_sample(x, y, classes)
        groups = [x[y == k] for k in range(classes)]
        prior = torch.tensor([len(group) for group in groups], dtype=torch.float64) / len(x)
        if family == "lda":
            centred = torch.cat([group.double() - group.double().mean(0) for group in groups])
            within = Gaussian.fit(centred).cholesky  # the mean of what is centred is 0
            models = [Gaussian(g.double().mean(0), cholesky=within).to(x.dtype) for g in groups]
        elif family == "bernoulli_naive_bayes":
            models = [_pixels(group, smoothing) for group in groups]
        else:
            models = [_fitted(Gaussian if family == "qda" else DiagonalGaussian, g, k) for k, g in enumerate(groups)]
        return cls(prior.to(x.device), models)

    def to(self, *args, **kwargs) -> "GenerativeClassifier":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return GenerativeClassifier(
            self.label.to(*args, **kwargs).probs, [model.to(*args, **kwargs) for model in self.models]
        )

    # Helpers

    def _means(self) -> Tensor:
        return torch.stack([model.mean() for model in self.models])  # (K, d)

    def _drawn_labels(self, n: int, given: Tensor | int | None, generator: Generator) -> Tensor:
        if given is None:
            return self.label.sample(n, generator=generator)
        return self._labels(given, n, self.prior.device)

    def _features(self, y: Tensor, generator: Generator) -> Tensor:
        x = self.prior.new_empty(len(y), self.d)
        for k, model in enumerate(self.models):
            is_k = y == k
            x[is_k] = model.sample(int(is_k.sum()), generator=generator)
        return x

    def _labels(self, y: Tensor | int, n: int, device: torch.device) -> Tensor:
        y = torch.as_tensor(y, device=device)
        y = y.expand(n) if y.dim() == 0 else y
        if y.shape != (n,) or not is_state(y, self.classes).all():
            raise ValueError(f"labels should be one of 0 to {self.classes - 1} for each of {n} draws")
        return y.long()


# Consequences


def as_softmax_regression(lda: GenerativeClassifier) -> SoftmaxRegression:
    r"""p(y | x) of Gaussians that share Sigma: w_y = Sigma^-1 mu_y, b_y = log p(y) - mu_y^T Sigma^-1 mu_y / 2."""
    factors = [model.cholesky.double() for model in lda.models]
    if not all(torch.equal(factor, factors[0]) for factor in factors):
        raise ValueError("the classes differ in covariance, so that the posterior is not a softmax regression")
    means = torch.stack([model.mean().double() for model in lda.models])  # (K, d)
    weight = torch.cholesky_solve(means.mT, factors[0]).mT  # (K, d)
    bias = lda.prior.double().log() - (means * weight).sum(-1) / 2  # (K,)
    return SoftmaxRegression(weight.to(lda.prior), bias.to(lda.prior))


def bayes_error_of_two(distance: float) -> float:
    """Phi(-D / 2): the error of the best rule for two even Gaussian classes at Mahalanobis distance D."""
    return math.erfc(distance / 2 / math.sqrt(2)) / 2


def false_alarm_rate(threshold: float, d: int) -> float:
    r"""P(chi^2_d > t): how often a draw of the class itself scores more than t, the threshold.

    By parts, with s = t / 2: e^-s sum_{j < d/2} s^j / j! for an even d (of a Poisson process, fewer than d / 2 events),
    and erfc(sqrt s) + e^-s sum_{0 < j < d/2} s^{j - 1/2} / Gamma(j + 1/2) for an odd one.
    """
    d = as_count(d, "d")
    if not threshold >= 0:
        raise ValueError(f"threshold = {threshold}; a squared distance is not negative")
    s = threshold / 2
    if s == 0 or s == math.inf:
        return float(s == 0)
    powers = [j + 0.5 * (d % 2) for j in range(d // 2)]
    rest = sum(math.exp(power * math.log(s) - s - math.lgamma(power + 1)) for power in powers)
    return rest + math.erfc(math.sqrt(s)) if d % 2 else rest


def alarm_threshold(rate: float, d: int) -> float:
    """The score that a share `rate` of the draws of the class exceeds: `false_alarm_rate` inverted, by bisection."""
    if not 0 < rate < 1:
        raise ValueError(f"rate = {rate}; a false-alarm rate lies between 0 and 1")
    low, high = 0.0, 1.0
    while false_alarm_rate(high, d) > rate:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if false_alarm_rate(middle, d) > rate else (low, middle)
    return high


def _fitted(family: Callable, x: Tensor, k: int) -> Gaussian | DiagonalGaussian:
    try:
        return family.fit(x)
    except ValueError as reason:
        raise ValueError(f"class {k} has {len(x)} draws, which give no density: {reason}") from None


def _pixels(x: Tensor, smoothing: float) -> Bernoulli:
    if not ((x == 0) | (x == 1)).all() or not 0 <= smoothing < math.inf:
        raise ValueError("Bernoulli naive Bayes asks for features 0 and 1, and finite smoothing that is not negative")
    return Bernoulli(((x.double().sum(0) + smoothing) / (len(x) + 2 * smoothing)).to(x.dtype))


def _checked_sample(x: Tensor, y: Tensor, classes: int | None) -> tuple[Tensor, Tensor, int]:
    (x,), y = as_floats(x), torch.as_tensor(y)
    if x.dim() != 2 or y.shape != x.shape[:1] or len(x) == 0 or not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError(f"x (n, d) and y (n,) should be finite, n > 0; theirs are {tuple(x.shape)}, {tuple(y.shape)}")
    classes = int(y.max()) + 1 if classes is None else as_count(classes, "classes")
    if not is_state(y, classes).all() or len(y.unique()) < classes:
        raise ValueError(f"y should hold every label from 0 to {classes - 1}, and no other")
    return x, y, classes


# Ready-made models


def lda(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GenerativeClassifier:
    """Two classes in the plane with one covariance: its posterior is `logistic.bayes_of_two_gaussians`."""
    shared = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64, device="cpu")
    means = torch.tensor([[-1.0, -0.5], [1.0, 0.5]], dtype=torch.float64, device="cpu")
    return _even([Gaussian(mean, shared) for mean in means], dtype, device)


def qda(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GenerativeClassifier:
    """Three classes in space, of different shapes."""
    means = torch.tensor([[0.0, 0.0, 0.0], [2.0, 1.0, -1.0], [-1.0, 3.0, 1.0]], dtype=torch.float64, device="cpu")
    roots = torch.tensor(
        [
            [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, -0.3, 0.7]],
            [[0.6, 0.0, 0.0], [0.0, 1.4, 0.0], [0.4, 0.2, 1.0]],
            [[1.5, 0.0, 0.0], [-0.7, 0.8, 0.0], [0.0, 0.0, 0.5]],
        ],
        dtype=torch.float64,
        device="cpu",
    )
    return _even([Gaussian(mean, cholesky=root) for mean, root in zip(means, roots, strict=True)], dtype, device)


def naive_bayes_of_pixels(
    *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> GenerativeClassifier:
    """Two classes of 6 pixels: mostly on at the left, mostly on at the right."""
    probs = torch.linspace(0.1, 0.9, 6, dtype=torch.float64, device="cpu")
    return _even([Bernoulli(probs.flip(0)), Bernoulli(probs)], dtype, device)


def _even(models: list, dtype, device) -> GenerativeClassifier:
    prior = torch.full((len(models),), 1 / len(models), dtype=torch.float64, device="cpu")
    return GenerativeClassifier(prior, models).to(
        device or torch.get_default_device(), dtype or torch.get_default_dtype()
    )
