"""Estimators and networks of other libraries: fitted by their own `fit`, each on rows as that library takes them."""

from __future__ import annotations

from typing import Any

import torch

from harness.adapters import hmmlearn, pgmpy, pomegranate
from harness.adapters.foreign import comes_from
from harness.compare.view import View


def fitted_by_its_library(thing: Any, view: View, seed: int) -> object | None:
    """A fitted copy; None for what is fitted already, or no library's."""
    if isinstance(thing, type) or is_fitted(thing) is not False:
        return None
    if comes_from(thing, "sklearn") and not comes_from(thing, "hmmlearn"):
        return _sklearn(thing, view, seed)
    for library in (pgmpy, hmmlearn, pomegranate):
        done: object | None = library.trained(thing, view.train, seed, view.levels)
        if done is not None:
            return done
    return None


def is_fitted(thing: Any) -> bool | None:
    """None where that is no question."""
    if comes_from(thing, "hmmlearn"):
        return hasattr(thing, "startprob_") if hasattr(thing, "decode") else None
    if comes_from(thing, "sklearn"):
        return _sklearn_is_fitted(thing)
    if comes_from(thing, "pgmpy"):
        return bool(thing.get_cpds()) if hasattr(thing, "get_cpds") else None
    if comes_from(thing, "pomegranate"):
        return bool(thing._initialized) if hasattr(thing, "_initialized") else None
    return None


def only_discrete(thing: Any) -> bool | None:
    """Which events the model of a library is made for; None where its draws have to say."""
    if comes_from(thing, "hmmlearn"):
        return hmmlearn.is_discrete(thing)
    if comes_from(thing, "pomegranate") and hasattr(thing, "log_probability"):
        return pomegranate.is_discrete(thing)
    if comes_from(thing, "pgmpy"):
        return True
    return False if comes_from(thing, "sklearn") else None


def _sklearn_is_fitted(estimator: Any) -> bool | None:
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(estimator, BaseEstimator):
        return None
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def _sklearn(estimator: Any, view: View, seed: int) -> Any:
    from sklearn.base import clone

    fresh = clone(estimator)
    if "random_state" in fresh.get_params() and fresh.get_params()["random_state"] is None:
        fresh.set_params(random_state=seed % 2**32)
    return fresh.fit(view.train.to(torch.float64).numpy())
