"""pomegranate: its distributions, mixtures of them and Bayesian networks. Events are vectors, in float32 or int64.

The library draws from torch's global generator, and refuses values outside the support: they have density 0.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from harness.adapters.foreign import comes_from, density
from harness.adapters.modules import sampler
from harness.model import Model, NotAModel

CATEGORIES = ("Categorical", "JointCategorical", "BayesianNetwork", "FactorGraph")
DISCRETE = ("categories", "bits", "counts")
POSITIVE = ("Exponential", "Gamma", "LogNormal", "HalfNormal")
SEQUENCES = ("DenseHMM", "SparseHMM", "MarkovChain", "ConditionalCategorical", "BayesClassifier", "FactorGraph")
"""Classes without a density of vectors of one length."""


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """The model of a fitted distribution, on the CPU in its own dtype; None for anything else."""
    if not comes_from(thing, "pomegranate") or not hasattr(thing, "log_probability"):
        return None
    law: Any = thing
    if type(law).__name__ in SEQUENCES:
        raise NotAModel(f"{name}: a {type(law).__name__} is no density of vectors: give a distribution or a mixture")
    if not getattr(law, "_initialized", False):
        raise NotAModel(f"{name}: this {type(law).__name__} has no parameters yet: call its fit(X) first")
    kind = _kind(law)
    return Model(
        name=name,
        methods={
            "log_prob": density(_scores(law, kind), _possible(law, kind), device),
            "sample": sampler(lambda n: _drawn(law, n, kind)),
        },
        target=thing,
        support=_support(law, kind),
        event_shape=(int(law.d),),
        device=device,
    )


def trained(thing: object, x: Tensor, seed: int, levels: tuple[int, ...] | None = None) -> object | None:
    """A copy fitted to rows x (n, d); None for what is not of this library."""
    if not comes_from(thing, "pomegranate") or not hasattr(thing, "log_probability"):
        return None
    law: Any = copy.deepcopy(thing)
    if getattr(law, "random_state", 0) is None:
        law.random_state = seed % 2**31
    kind = _kind(law)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        law.fit(x.to(torch.int64) if kind == "categories" else x.float())
    return law


def is_discrete(law: Any) -> bool:
    """Are its observations categories, bits or counts?"""
    return _kind(law) in DISCRETE


def _kind(law: Any) -> str:
    """What an observation is: categories, bits, counts, positive or real."""
    parts = list(getattr(law, "distributions", None) or [])
    if parts and type(law).__name__ != "BayesianNetwork":
        kinds = {_kind(part) for part in parts}
        return kinds.pop() if len(kinds) == 1 else "real"
    name = type(law).__name__
    if name in CATEGORIES:
        return "categories"
    return {"Bernoulli": "bits", "Poisson": "counts"}.get(name, "positive" if name in POSITIVE else "real")


def _scores(law: Any, kind: str) -> Any:
    dtype = torch.int64 if kind == "categories" else torch.float32

    def scores(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return law.log_probability(torch.as_tensor(rows).to(dtype)).double().numpy()

    return scores


def _drawn(law: Any, n: int, kind: str) -> Tensor:
    x: Tensor = law.sample(n)
    return x.long() if kind in DISCRETE else x


def _states(law: Any) -> int | None:
    """How many states a categorical variable has, where all have as many."""
    parts = list(getattr(law, "distributions", None) or [])
    if parts:
        counts = {_states(part) for part in parts}
        return counts.pop() if len(counts) == 1 else None
    probs = getattr(law, "probs", None)
    if probs is None:
        return None
    tables = [probs] if isinstance(probs, Tensor) else list(probs)  # a conditional law has one for each variable
    return int(tables[0].shape[-1])


def _possible(law: Any, kind: str) -> Any:
    def possible(rows: np.ndarray) -> np.ndarray:
        inside = np.isfinite(rows).all(1)
        if kind in DISCRETE:
            inside &= (rows == np.floor(rows)).all(1) & (rows >= 0).all(1)
        if kind == "bits" or (kind == "categories" and _states(law) is not None):
            inside &= (rows < (2 if kind == "bits" else _states(law))).all(1)
        return inside & (rows >= 0).all(1) if kind == "positive" else inside

    return possible


def _support(law: Any, kind: str) -> constraints.Constraint | None:
    states = 2 if kind == "bits" else _states(law) if kind == "categories" else None
    if states is not None:
        return constraints.independent(constraints.integer_interval(0, states - 1), 1)
    if kind == "counts":
        return constraints.independent(constraints.nonnegative_integer, 1)
    return {"positive": constraints.independent(constraints.nonnegative, 1), "real": constraints.real_vector}.get(kind)
