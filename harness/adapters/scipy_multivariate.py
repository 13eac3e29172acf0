"""Frozen multivariate distributions of `scipy.stats`, whose conventions differ from one to the next.

Events lie on the last axes, except where scipy's density wants them on the first (Dirichlet, Wishart). A few densities
raise for points outside their support instead of answering 0: those points are told apart here, by scipy's own rule,
and get -inf. scipy drops axes of length 1 from its draws, so the shape of an event is what two draws have beside the
first axis. Densities with respect to the surface of a sphere, or of a subspace, are not in the contract's measure, so
such laws are samplers only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from harness.adapters.foreign import Methods, as_tensor, density, numpy_source, shaped
from harness.adapters.scipy_stats import Found
from harness.model import NotAModel


class _CountsOf(constraints.multinomial):  # type: ignore[misc,valid-type]
    """Vectors of natural numbers with a given sum, none above its own bound. (torch's own allows smaller sums.)"""

    def __init__(self, total: int, most: Any = np.inf):
        self.total = total
        self.most = torch.as_tensor(most, dtype=torch.float64)
        super().__init__(total)

    def check(self, value: Tensor) -> Tensor:
        natural = (value >= 0) & (value % 1 == 0) & (value <= self.most.to(value.device))
        return natural.all(-1) & (value.sum(-1) == self.total)


ON_A_SURFACE = "its density is with respect to the area of a surface, and the contract's is with respect to volume"


class Kind(NamedTuple):
    """How one class of frozen distributions differs: its support, and how its density takes events."""

    support: Callable[[Any], constraints.Constraint | None] = lambda law: None
    events_first: bool = False  # logpdf wants the axes of the event before that of the draws
    inside: Callable[[Any, np.ndarray], np.ndarray] | None = None  # (n,) mask, where the density raises outside
    has_density: Callable[[Any], bool] = lambda law: True  # is it with respect to Lebesgue or counting measure?
    location: bool = False  # the attribute `mean` is the expectation


def _on_simplex(law: Any, x: np.ndarray) -> np.ndarray:
    """scipy's rule: shares in [0, 1], none 0 where its density is infinite, and a sum of 1 within 1e-9."""
    shares = ((x >= 0) & (x <= 1)).all(-1) & (np.abs(x.sum(-1) - 1) <= 1e-9)
    return shares & ~((x == 0) & (law.alpha < 1)).any(-1)


def _positive_definite(law: Any, x: np.ndarray) -> np.ndarray:
    """scipy factors the matrix from its lower triangle; the other one must agree."""
    x = x.reshape(-1, law.dim, law.dim)
    inside = (x == x.swapaxes(-1, -2)).all((-1, -2)) & np.isfinite(x).all((-1, -2))
    inside[inside] = np.linalg.eigvalsh(x[inside])[:, 0] > 0
    return inside


def _counts(law: Any, x: np.ndarray) -> np.ndarray:
    return ((x >= 0) & (x == np.round(x))).all((-1, -2))


def _natural(law: Any, x: np.ndarray) -> np.ndarray:
    return ((x >= 0) & (x == np.round(x))).all(-1)


def _full_rank(law: Any) -> bool:
    return law.cov_object.rank == law.dim


_REAL_AND_POSITIVE = constraints.independent(
    constraints.cat([constraints.real, constraints.positive], dim=-1, lengths=[1, 1]), 1
)
MATRICES = Kind(lambda law: constraints.positive_definite, events_first=True, inside=_positive_definite)
KINDS = {
    "multivariate_normal_frozen": Kind(lambda law: constraints.real_vector, has_density=_full_rank, location=True),
    "multivariate_t_frozen": Kind(lambda law: constraints.real_vector),
    "matrix_normal_frozen": Kind(lambda law: constraints.independent(constraints.real, 2), location=True),
    "matrix_t_frozen": Kind(lambda law: constraints.independent(constraints.real, 2)),
    "dirichlet_frozen": Kind(lambda law: constraints.simplex, events_first=True, inside=_on_simplex),
    "wishart_frozen": MATRICES,
    "invwishart_frozen": MATRICES,
    "multinomial_frozen": Kind(lambda law: _CountsOf(int(law.n))),
    "multivariate_hypergeom_frozen": Kind(lambda law: _CountsOf(int(law.n), law.m)),
    "dirichlet_multinomial_frozen": Kind(lambda law: _CountsOf(int(law.n)), inside=_natural),
    "random_table_frozen": Kind(inside=_counts),
    "normal_inverse_gamma_frozen": Kind(lambda law: _REAL_AND_POSITIVE),
    "vonmises_fisher_frozen": Kind(has_density=lambda law: False),
}


def find(law: Any, device: torch.device) -> Found | None:
    """What a frozen multivariate distribution offers; None for anything else."""
    from scipy.stats import _multivariate

    if isinstance(law, _multivariate.multi_rv_generic):
        raise NotAModel(f"{type(law).__name__} is a family of distributions: call it with parameters to freeze them")
    known = [KINDS[cls.__name__] for cls in type(law).__mro__ if cls.__name__ in KINDS]
    if not known and not isinstance(law, _multivariate.multi_rv_frozen):
        return None
    kind = known[0] if known else Kind()
    event = _event_shape(law)
    methods = _stated(law, kind, event, device)
    if hasattr(law, "rvs"):
        methods["sample"] = _sampler(law, event, device)
    log = getattr(law, "logpdf", None) or getattr(law, "logpmf", None)
    if log is not None and kind.has_density(law):
        methods["log_prob"] = _log_density(law, log, kind, event, device)
    support = _scalar(kind.support(law)) if event == () else kind.support(law)
    surface = log is not None and not kind.has_density(law)
    return Found(methods, event, support, {"log_prob": ON_A_SURFACE, "entropy": ON_A_SURFACE} if surface else {})


def _event_shape(law: Any) -> tuple[int, ...]:
    if not hasattr(law, "rvs"):  # the Dirichlet-multinomial law
        return np.shape(law.mean())
    draws = _draw(law, 2, np.random.default_rng(0))
    if np.iscomplexobj(draws):
        raise NotAModel(f"{type(law).__name__} has complex events; the contract is about real ones")
    return np.shape(draws)[1:]


def _scalar(support: constraints.Constraint | None) -> constraints.Constraint | None:
    """The support of a law on vectors or matrices of one element, whose axes scipy drops."""
    if support is constraints.real_vector:
        return constraints.real
    return constraints.positive if support is constraints.positive_definite else None


def _draw(law: Any, n: int, source: np.random.Generator) -> Any:
    """(n, *event), or what scipy makes of it."""
    if type(law).__name__ == "random_correlation_frozen":  # which draws one at a time
        return np.stack([law.rvs(random_state=source) for _ in range(n)])
    x = law.rvs(size=n, random_state=source)
    return np.stack(x, -1) if isinstance(x, tuple) else x  # (x, variance) of the normal-inverse-gamma law


def _sampler(law: Any, event: tuple[int, ...], device: torch.device) -> Callable[..., Any]:
    def sample(n: int, *, generator: torch.Generator) -> Any:
        asked = max(n, 1)  # the random matrices answer one draw when asked for none
        return shaped(as_tensor(_draw(law, asked, numpy_source(generator)), device), asked, *event)[:n]

    return sample


def _log_density(
    law: Any, log: Callable[..., Any], kind: Kind, event: tuple[int, ...], device: torch.device
) -> Callable[[Tensor], Any]:
    pairs = type(law).__name__ == "normal_inverse_gamma_frozen"

    def ask(x: np.ndarray) -> Any:
        if pairs:
            return log(x[:, 0], x[:, 1])
        if kind.events_first:
            x = np.moveaxis(x, 0, -1)
        return log(x)

    def possible(x: np.ndarray) -> np.ndarray:
        return np.ones(len(x), dtype=bool) if kind.inside is None else kind.inside(law, x)

    return density(ask, possible, device)


def _stated(law: Any, kind: Kind, event: tuple[int, ...], device: torch.device) -> Methods:
    """Moments and entropy that scipy states: methods, or for the mean of a Gaussian an attribute.

    Where a moment does not exist, the inverse Wishart law answers None: it states none.
    """
    methods: Methods = {}
    size = int(np.prod(event))
    shapes = {"mean": event, "var": event, "cov": (size, size), "entropy": ()}
    names = {"mean": "mean", "var": "variance", "cov": "covariance", "entropy": "entropy"}
    for key, name in names.items():
        value = getattr(law, key, None)
        stated = callable(value) or key == "cov" or (key == "mean" and kind.location)
        if value is None or not stated or (name == "entropy" and not kind.has_density(law)):
            continue
        with np.errstate(all="ignore"):
            if callable(value) and value() is None:
                continue
        methods[name] = lambda key=key: shaped(as_tensor(_asked(getattr(law, key)), device), *shapes[key])
    return methods


def _asked(value: Any) -> Any:
    value = value() if callable(value) else value
    return np.stack(value, -1) if isinstance(value, tuple) else value
