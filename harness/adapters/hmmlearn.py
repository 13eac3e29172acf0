"""hmmlearn: hidden Markov models. An event is a sequence of a length that the object does not know.

Set its attribute `sequence_length`: events are then [length] where an observation is one number, [length, features]
otherwise. Draws are the library's `sample`. Its `score` takes one sequence at a time, and 0.2 ms for it; so log_prob
takes the densities of single observations from the library, and sums over paths itself, in all rows at once:

    log a_1(i) = log pi_i + log b_i(x_1),   log a_t(j) = log sum_i exp[log a_{t-1}(i) + log A_ij] + log b_j(x_t).
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from harness.adapters.foreign import comes_from, density, numpy_legacy_source
from harness.model import Model, NotAModel

COUNTS = ("PoissonHMM", "MultinomialHMM")
CATEGORIES = ("CategoricalHMM", "VariationalCategoricalHMM")
LENGTH = "set its attribute sequence_length to the number of observations of an event"


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """The model of a fitted HMM, float64 or int64; None for anything else. Raises NotAModel for one without length."""
    if not comes_from(thing, "hmmlearn") or not hasattr(thing, "decode"):
        return None
    hmm: Any = thing
    if not hasattr(hmm, "startprob_"):
        raise NotAModel(f"{name}: this {type(thing).__name__} is not fitted: call its fit(X) first")
    length = getattr(hmm, "sequence_length", None)
    if not isinstance(length, int) or length < 1:
        raise NotAModel(f"{name}: the events of a {type(thing).__name__} have no length: {LENGTH}")
    return Model(
        name=name,
        methods={"log_prob": density(_scores(hmm), _possible(hmm), device), "sample": _sampler(hmm, length, device)},
        target=thing,
        support=_support(hmm),
        event_shape=(length,) if hmm.n_features == 1 or _is(hmm, CATEGORIES) else (length, hmm.n_features),
        device=device,
    )


def trained(thing: object, x: Tensor, seed: int, levels: tuple[int, ...] | None = None) -> object | None:
    """A copy fitted to rows x (n, d), each one sequence of d numbers; None for what is no HMM."""
    if not comes_from(thing, "hmmlearn") or not hasattr(thing, "decode"):
        return None
    hmm: Any = copy.deepcopy(thing)
    n, d = x.shape
    hmm.sequence_length = d
    if hmm.random_state is None:
        hmm.random_state = seed % 2**32
    if levels is not None and _is(hmm, CATEGORIES):
        hmm.n_features = max(levels)
    rows = x.to(torch.int64 if is_discrete(hmm) else torch.float64).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that it sets itself
        hmm.fit(rows.reshape(n * d, 1), [d] * n)
    return hmm


def is_discrete(hmm: Any) -> bool:
    """Are its observations counts or categories?"""
    return _is(hmm, CATEGORIES + COUNTS)


def _is(hmm: Any, names: tuple[str, ...]) -> bool:
    return any(cls.__name__ in names for cls in type(hmm).__mro__)


def _observations(hmm: Any, rows: np.ndarray) -> np.ndarray:
    """(n, length, features), integers where the model counts or names."""
    rows = rows if rows.ndim == 3 else rows[:, :, None]
    return rows.astype(np.int64) if is_discrete(hmm) else rows


def _scores(hmm: Any) -> Any:
    """log sum_i a_T(i), by the forward recursion."""
    from scipy.special import logsumexp

    def scores(rows: np.ndarray) -> np.ndarray:
        x = _observations(hmm, rows)
        n, length, features = x.shape
        log_b = hmm._compute_log_likelihood(x.reshape(-1, features)).reshape(n, length, -1)
        with np.errstate(divide="ignore"):
            log_pi, log_a = np.log(hmm.startprob_), np.log(hmm.transmat_)
        log_alpha = log_pi + log_b[:, 0]  # (n, states)
        for t in range(1, length):
            log_alpha = logsumexp(log_alpha[:, :, None] + log_a, axis=1) + log_b[:, t]
        return logsumexp(log_alpha, axis=1)

    return scores


def _possible(hmm: Any) -> Any:
    """Rows that the library takes: finite, and whole and in range where they are counts or categories."""

    def possible(rows: np.ndarray) -> np.ndarray:
        flat = rows.reshape(len(rows), int(np.prod(rows.shape[1:])))
        inside = np.isfinite(flat).all(1)
        if is_discrete(hmm):
            inside &= (flat == np.floor(flat)).all(1) & (flat >= 0).all(1)
        if _is(hmm, CATEGORIES):
            inside &= (flat < hmm.emissionprob_.shape[1]).all(1)
        return inside

    return possible


def _support(hmm: Any) -> constraints.Constraint:
    if _is(hmm, CATEGORIES):
        return constraints.independent(constraints.integer_interval(0, hmm.emissionprob_.shape[1] - 1), 1)
    if _is(hmm, COUNTS):
        return constraints.independent(constraints.nonnegative_integer, 1)
    return constraints.real_vector


def _sampler(hmm: Any, length: int, device: torch.device) -> Any:
    def sample(n: int, *, generator: torch.Generator) -> Tensor:
        source = numpy_legacy_source(generator)
        rows = np.stack([hmm.sample(length, random_state=source)[0] for _ in range(max(n, 1))])[:n]
        rows = rows[..., 0] if rows.shape[-1] == 1 else rows
        whole = is_discrete(hmm)
        return torch.as_tensor(rows.astype(np.int64 if whole else np.float64), device=device)

    return sample
