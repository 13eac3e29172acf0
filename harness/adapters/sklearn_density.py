"""Fitted scikit-learn estimators with `score_samples`, and generative classifiers as the density of their inputs.

scikit-learn's scores are float64, so these models have no other dtype. The estimator is never changed: draws are made
with a shallow copy that has a `random_state` of its own, and `fit` fits a clone.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from harness.adapters.foreign import (
    Methods,
    as_array,
    as_tensor,
    comes_from,
    density,
    extras,
    linked,
    misfits,
    numpy_legacy_source,
    numpy_source,
    shaped,
)
from harness.model import Model, NotAModel

NO_DENSITY = {
    "OutlierMixin": "the scores of an outlier detector are no log-densities",
    "BernoulliRBM": "its score_samples is a pseudo-likelihood with a random part, no log-density",
    "MultinomialNB": "its scores lack the law of the total count and the multinomial coefficient: no density of counts",
    "ComplementNB": "its scores are no joint probabilities",
    "Pipeline": "its score_samples is the density of transformed features: give the last step",
    "BaseSearchCV": "give its best_estimator_",
}
"""Classes whose scores look like log-densities of the inputs and are none, and why."""


MAXIMUM_LIKELIHOOD = ("GaussianMixture", "FactorAnalysis")
"""Classes whose `fit` promises maximum likelihood: others smooth, keep the data, or (PCA) divide by n - 1."""


class Found(NamedTuple):
    """What was found in an estimator: its methods, and the support of its events."""

    methods: Methods
    support: constraints.Constraint | None


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """A model with float64 events, int64 where features are categories; None for what is no estimator."""
    if not comes_from(thing, "sklearn"):
        return None
    from sklearn.base import BaseEstimator

    if not isinstance(thing, BaseEstimator):
        return None
    found = _find(thing, name, device)
    if found is None:
        return None
    methods = {**found.methods, **extras(thing, "sklearn", ("fit",))}
    links = linked(thing, methods, lambda fitted: fitted)
    if "fit" in found.methods:
        links["fit"] = lambda x: adapt(found.methods["fit"](x), f"{name} fitted", device, dtype)
    return Model(
        name=name,
        methods=links,
        target=thing,
        support=found.support,
        event_shape=(thing.n_features_in_,),
        device=device,
        unfit=misfits(thing, "sklearn", methods),
    )


def _find(estimator: Any, name: str, device: torch.device) -> Found | None:
    from harness.adapters import sklearn_classifiers

    classes = {cls.__name__ for cls in type(estimator).__mro__}
    scored = hasattr(type(estimator), "score_samples")
    generative = bool(classes & set(sklearn_classifiers.FAMILIES))
    reasons = [NO_DENSITY[cls] for cls in NO_DENSITY if cls in classes]
    if reasons:
        raise NotAModel(f"{name}: a {type(estimator).__name__} is no density: {reasons[0]}")
    if not scored and not generative:
        return None
    _require_fitted(estimator, name)
    estimator = _nameless(estimator)
    return sklearn_classifiers.find(estimator, device) if generative else _scored(estimator, device)


def _nameless(estimator: Any) -> Any:
    """A shallow copy that was not fitted on named columns, so that rows without names bring no warning."""
    nameless = copy.copy(estimator)
    vars(nameless).pop("feature_names_in_", None)
    return nameless


def _require_fitted(estimator: Any, name: str) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise NotAModel(f"{name}: this {type(estimator).__name__} is not fitted: call its fit(X) first") from None


def _scored(estimator: Any, device: torch.device) -> Found:
    """A density by `score_samples`."""
    size = estimator.n_features_in_
    methods: Methods = {"log_prob": density(estimator.score_samples, finite_rows, device)}
    if {cls.__name__ for cls in type(estimator).__mro__} & set(MAXIMUM_LIKELIHOOD):
        methods["fit"] = _fit(estimator)
    if hasattr(estimator, "get_covariance"):  # PCA and factor analysis: one Gaussian
        methods["mean"] = lambda: as_tensor(estimator.mean_, device)
        methods["covariance"] = lambda: as_tensor(estimator.get_covariance(), device)
        methods["sample"] = _gaussian_sampler(estimator, device)
    elif hasattr(estimator, "sample") and getattr(estimator, "kernel", "gaussian") in ("gaussian", "tophat"):
        methods["sample"] = _sampler(estimator, size, device)  # scikit-learn draws from two kernels only
    return Found(methods, constraints.real_vector)


def finite_rows(rows: np.ndarray) -> np.ndarray:
    """(n,): rows that scikit-learn takes; it refuses infinity and NaN, at which a density is 0."""
    return np.isfinite(rows).all(1)


def _sampler(estimator: Any, size: int, device: torch.device) -> Callable[..., Any]:
    """By the estimator's own `sample(n)`, which is asked for one draw at least.

    A mixture returns its draws in the order of the components. As a set they are right, as a sequence they are not
    independent; they are put in random order, since the order is documented and means nothing.
    """
    keywords = _parameters(estimator.sample)

    def sample(n: int, *, generator: torch.Generator) -> Any:
        source = numpy_legacy_source(generator)
        drawing = copy.copy(estimator)
        if hasattr(drawing, "random_state"):
            drawing.random_state = source
        x = drawing.sample(max(n, 1), **({"random_state": source} if "random_state" in keywords else {}))
        if isinstance(x, tuple):
            x = source.permutation(x[0])
        return shaped(as_tensor(x[:n], device), n, size)

    return sample


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _gaussian_sampler(estimator: Any, device: torch.device) -> Callable[..., Any]:
    """Draws of N(mean_, get_covariance()), the law that PCA and FactorAnalysis define and do not draw from."""

    def sample(n: int, *, generator: torch.Generator) -> Any:
        covariance = estimator.get_covariance()
        x = numpy_source(generator).multivariate_normal(estimator.mean_, covariance, n, method="eigh")
        return as_tensor(x, device)

    return sample


def _fit(estimator: Any) -> Callable[[Tensor], Any]:
    from sklearn.base import clone

    return lambda x: clone(estimator).fit(as_array(x))
