r"""Generative classifiers of scikit-learn, p(y) p(x | y), as the density of their inputs: p(x) = sum_y p(y) p(x | y).

The naive Bayes classifiers state log p(x, y) themselves (`predict_joint_log_proba`). Discriminant analyses state their
parameters only, of which the Gaussians are made here: common covariance for the linear one, rotations and scalings
:math:`\Sigma_y = R_y \mathrm{diag}(s_y) R_y^T` for the quadratic one. A draw takes a class y, then x given y.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import logsumexp
from torch.distributions import constraints

from harness.adapters.foreign import as_tensor, density, numpy_source
from harness.adapters.sklearn_density import Found
from harness.model import NotAModel


class Family(NamedTuple):
    """One class of classifiers: log p(x, y), the values a feature may take, draws of x given y, and the support."""

    prior: Callable[[Any], np.ndarray]  # (classes,)
    joint: Callable[[Any, np.ndarray], np.ndarray]  # rows (n, d) -> (n, classes)
    draw: Callable[[Any, np.ndarray, np.random.Generator], np.ndarray]  # classes (n,) -> rows (n, d)
    possible: Callable[[Any, np.ndarray], np.ndarray]  # rows (n, d) -> (n, d) mask
    support: Callable[[Any], constraints.Constraint | None]


def find(classifier: Any, device: torch.device) -> Found:
    """log_prob and sample of the classifier's inputs."""
    family = next(FAMILIES[cls.__name__] for cls in type(classifier).__mro__ if cls.__name__ in FAMILIES)
    prior = family.prior(classifier)
    if getattr(classifier, "binarize", None) is not None:
        classifier = copy.copy(classifier)
        classifier.binarize = None  # events are the bits themselves
    if family is DISCRIMINANT:
        _factors(classifier)  # says at once when there is no density

    def score(rows: np.ndarray) -> np.ndarray:
        return logsumexp(family.joint(classifier, rows), axis=1)

    def sample(n: int, *, generator: torch.Generator) -> Any:
        source = numpy_source(generator)
        y = source.choice(len(prior), size=n, p=prior / prior.sum())
        return as_tensor(family.draw(classifier, y, source), device)

    log_prob = density(score, lambda rows: np.all(family.possible(classifier, rows), axis=1), device)
    return Found({"sample": sample, "log_prob": log_prob}, family.support(classifier))


def _stated_prior(classifier: Any) -> np.ndarray:
    return np.exp(classifier.class_log_prior_)


def _stated_joint(classifier: Any, rows: np.ndarray) -> np.ndarray:
    return classifier.predict_joint_log_proba(rows)


def _finite(classifier: Any, rows: np.ndarray) -> np.ndarray:
    return np.isfinite(rows)


def _vectors(classifier: Any) -> constraints.Constraint | None:
    return constraints.real_vector


def _bits(classifier: Any, y: np.ndarray, source: np.random.Generator) -> np.ndarray:
    return (source.random((len(y), classifier.n_features_in_)) < np.exp(classifier.feature_log_prob_[y])).astype(int)


def _codes(classifier: Any, y: np.ndarray, source: np.random.Generator) -> np.ndarray:
    """A category of each feature, where the uniform number falls among the cumulated probabilities of class y."""
    columns = []
    for table in classifier.feature_log_prob_:  # (classes, categories)
        cumulative = np.cumsum(np.exp(table), axis=1)
        u = source.random(len(y)) * cumulative[y, -1]
        columns.append((u[:, None] >= cumulative[y]).sum(1))
    return np.stack(columns, axis=1)


def _normals(classifier: Any, y: np.ndarray, source: np.random.Generator) -> np.ndarray:
    noise = source.standard_normal((len(y), classifier.n_features_in_))
    return classifier.theta_[y] + noise * np.sqrt(classifier.var_[y])


def _factors(classifier: Any) -> np.ndarray:
    """(classes, d, d): lower L with L L^T the covariance of x given y."""
    classes = len(classifier.means_)
    if hasattr(classifier, "rotations_"):
        parts = zip(classifier.rotations_, classifier.scalings_, strict=True)
        covariances = np.stack([(rotation * scaling) @ rotation.T for rotation, scaling in parts])
    elif hasattr(classifier, "covariance_"):
        covariances = np.repeat(classifier.covariance_[None], classes, axis=0)
    else:
        raise NotAModel("this LinearDiscriminantAnalysis keeps no covariance: fit it with store_covariance=True")
    try:
        return np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        raise NotAModel(
            f"the covariance of this {type(classifier).__name__} is singular, so that it has no density: "
            f"leave out constant or collinear features, or regularise it"
        ) from None


def _discriminant_joint(classifier: Any, rows: np.ndarray) -> np.ndarray:
    """log p(y) + log N(x; mean_y, L_y L_y^T), with z = L^-1 (x - mean)."""
    columns = []
    for mean, factor, prior in zip(classifier.means_, _factors(classifier), classifier.priors_, strict=True):
        z = np.linalg.solve(factor, (rows - mean).T)  # (d, n)
        constant = np.log(prior) - np.log(np.diag(factor)).sum() - len(mean) / 2 * np.log(2 * np.pi)
        columns.append(constant - np.square(z).sum(0) / 2)
    return np.stack(columns, axis=1)


def _discriminant_draw(classifier: Any, y: np.ndarray, source: np.random.Generator) -> np.ndarray:
    noise = source.standard_normal((len(y), classifier.n_features_in_))
    return classifier.means_[y] + np.einsum("nij,nj->ni", _factors(classifier)[y], noise)


def _is_bit(classifier: Any, rows: np.ndarray) -> np.ndarray:
    return (rows == 0) | (rows == 1)


def _is_code(classifier: Any, rows: np.ndarray) -> np.ndarray:
    return (rows == np.round(rows)) & (rows >= 0) & (rows < classifier.n_categories_)


def _bit_vectors(classifier: Any) -> constraints.Constraint | None:
    return constraints.independent(constraints.boolean, 1)


def _code_vectors(classifier: Any) -> constraints.Constraint | None:
    last = torch.as_tensor(classifier.n_categories_ - 1)
    return constraints.independent(constraints.integer_interval(torch.zeros_like(last), last), 1)


DISCRIMINANT = Family(lambda c: c.priors_, _discriminant_joint, _discriminant_draw, _finite, _vectors)
FAMILIES = {
    "BernoulliNB": Family(_stated_prior, _stated_joint, _bits, _is_bit, _bit_vectors),
    "CategoricalNB": Family(_stated_prior, _stated_joint, _codes, _is_code, _code_vectors),
    "GaussianNB": Family(lambda c: c.class_prior_, _stated_joint, _normals, _finite, _vectors),
    "LinearDiscriminantAnalysis": DISCRIMINANT,
    "QuadraticDiscriminantAnalysis": DISCRIMINANT,
}
"""By name, so that nothing is imported before an estimator is met."""
