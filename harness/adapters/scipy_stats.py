"""`scipy.stats`: frozen distributions, the newer random variables, and `gaussian_kde`.

scipy computes in float64, so these models have no other dtype: a request for float32 is not followed. Draws of discrete
laws are int64 where scipy's are integers. A distribution with array parameters has independent coordinates and events
of the parameters' common shape. Outside the support the density is what scipy says, NaN included.
"""

from __future__ import annotations

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
    numpy_source,
    shaped,
)
from harness.model import Model, NotAModel

CONVENTIONS = ("mean", "variance", "entropy", "cdf", "icdf")
"""Names of the contract that scipy uses as well: an override of one may return an array."""


class Found(NamedTuple):
    """What was found in a distribution: methods, shape of an event, support, and why methods it has are not used."""

    methods: Methods
    event: tuple[int, ...]
    support: constraints.Constraint | None
    unfit: dict[str, str] = {}  # noqa: RUF012  # never written to


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """A model with float64 or int64 events; None for what is not a distribution of `scipy.stats`."""
    found = _find(thing, device) if comes_from(thing, "scipy") else None
    if found is None:
        return None
    methods = {**found.methods, **extras(thing, "scipy", [key for key in CONVENTIONS if key in found.methods])}
    return Model(
        name=name,
        methods=linked(thing, methods, lambda fitted: adapt(fitted, name, device, dtype) or fitted),
        target=thing,
        support=found.support,
        event_shape=found.event,
        device=device,
        unfit={**found.unfit, **misfits(thing, "scipy", methods)},
    )


def _find(thing: Any, device: torch.device) -> Found | None:
    from scipy import stats

    from harness.adapters import scipy_multivariate

    if isinstance(thing, stats.rv_continuous | stats.rv_discrete):
        return _frozen(_without_parameters(thing), device)
    if isinstance(thing, stats.distributions.rv_frozen):
        return _frozen(thing, device)
    if hasattr(stats, "Mixture") and isinstance(thing, _random_variables()):
        return _random_variable(thing, device)
    if isinstance(thing, stats.gaussian_kde):
        return _kernel_density(thing, device)
    return scipy_multivariate.find(thing, device)


def _without_parameters(law: Any) -> Any:
    """A distribution that needs no parameters (`norm`, `rv_histogram`, `rv_discrete(values=...)`), frozen."""
    if law.numargs:
        raise NotAModel(
            f"scipy.stats.{law.name} is a family of distributions: give it parameters, "
            f"scipy.stats.{law.name}({', '.join(f'{key}=...' for key in law.shapes.split(', '))})"
        )
    return law()


def _random_variables() -> tuple[type, ...]:
    """The classes behind `scipy.stats.Normal`, `make_distribution`, `exp(X)`, `truncate(X)` and `Mixture`."""
    from scipy import stats

    univariate = next(cls for cls in stats.Normal.__mro__ if cls.__name__ == "UnivariateDistribution")
    return (univariate, stats.Mixture)


def _frozen(law: Any, device: torch.device) -> Found:
    batch = np.shape(law.support()[0])
    discrete = hasattr(law.dist, "pmf")
    found = Found(
        _methods(
            device,
            batch,
            # Some of scipy's samplers refuse a batch of none.
            draw=lambda n, source: law.rvs(size=(n or 1, *batch), random_state=source)[:n],
            log=getattr(law, "logpmf" if discrete else "logpdf", None),
            stated={"mean": law.mean, "variance": law.var, "entropy": law.entropy},
            functions={"cdf": law.cdf, "icdf": law.ppf},
        ),
        batch,
        _support(law.support(), discrete, _on_integers(law)),
    )
    return _circular(found) if law.dist.name == "vonmises" else found


def _circular(found: Found) -> Found:
    """A law on the circle, of which scipy draws the angle in [-pi, pi], while its functions go on for ever by design.

    Its density is kept on that interval; moments and distribution function along a line are not what it is about.
    """
    density, turn = found.methods["log_prob"], constraints.interval(-np.pi, np.pi)
    circle = constraints.independent(turn, len(found.event)) if found.event else turn

    def log_prob(x: Tensor) -> Any:
        inside = circle.check(x.double())
        value = density(x)
        return torch.where(inside, value, -torch.inf) if isinstance(value, Tensor) else value

    methods = {"sample": found.methods["sample"], "log_prob": log_prob, "entropy": found.methods["entropy"]}
    why = "scipy's vonmises is a law on the circle, and this is about a line: see vonmises_line"
    return Found(methods, found.event, circle, dict.fromkeys(("mean", "variance", "cdf", "icdf"), why))


def _on_integers(law: Any) -> bool:
    """Are the values of a discrete frozen distribution integers? With `values=` or `loc=` they need not be."""
    values = np.asarray(getattr(law.dist, "xk", 0.0))
    start = np.asarray(law.support()[0])
    return bool(np.all(values == np.round(values)) and np.all((start == np.round(start)) | ~np.isfinite(start)))


def _random_variable(law: Any, device: torch.device) -> Found:
    batch = np.shape(law.support()[0])
    discrete = any(cls.__name__ == "DiscreteDistribution" for cls in type(law).__mro__)

    def draw(n: int, source: np.random.Generator) -> Any:
        x = law.sample((n,), rng=source)
        return _integers(x) if discrete else x

    return Found(
        _methods(
            device,
            batch,
            draw=draw,
            log=law.logpmf if discrete else law.logpdf,
            stated={"mean": law.mean, "variance": law.variance, "entropy": law.entropy},
            functions={"cdf": law.cdf, "icdf": law.icdf},
        ),
        batch,
        _support(law.support(), discrete, integers=True),
    )


def _integers(x: Any) -> Any:
    """int64 where nothing is lost by it."""
    return x.astype(np.int64) if isinstance(x, np.ndarray) and np.all(x == np.round(x)) else x


def _kernel_density(law: Any, device: torch.device) -> Found:
    event = (law.d,) if law.d > 1 else ()

    def sample(n: int, *, generator: torch.Generator) -> Any:
        return shaped(as_tensor(law.resample(n, seed=numpy_source(generator)).T, device), n, *event)

    def ask(rows: np.ndarray) -> Any:
        return law.logpdf(rows.reshape(-1, law.d).T)

    log_prob = density(ask, lambda rows: np.ones(len(rows), dtype=bool), device)
    support = constraints.real_vector if event else constraints.real
    return Found({"sample": sample, "log_prob": log_prob}, event, support)


def _methods(
    device: torch.device,
    batch: tuple[int, ...],
    *,
    draw: Callable[[int, np.random.Generator], Any],
    log: Callable[[np.ndarray], Any] | None,
    stated: Methods,
    functions: Methods,
) -> Methods:
    """The contract's methods of independent scalars, `batch` of them; a cdf needs that there is one."""

    def sample(n: int, *, generator: torch.Generator) -> Any:
        return as_tensor(draw(n, numpy_source(generator)), device)

    methods: Methods = {"sample": sample}
    if log is not None:
        methods["log_prob"] = lambda x: as_tensor(_summed(log(as_array(x)), (len(x), *batch)), device)
    for name in ("mean", "variance"):
        methods[name] = lambda name=name: as_tensor(stated[name](), device)
    methods["entropy"] = lambda: as_tensor(_summed(stated["entropy"](), batch, whole=True), device)
    if np.prod(batch) == 1:
        methods["cdf"] = lambda x: shaped(as_tensor(functions["cdf"](as_array(x)), device), len(x))
        methods["icdf"] = lambda u: as_tensor(functions["icdf"](as_array(u).reshape(-1, *batch)), device)
    return methods


def _summed(value: Any, shape: tuple[int, ...], whole: bool = False) -> Any:
    """An array of that shape summed over all axes but the first, or over all; anything else unchanged."""
    if np.shape(value) != shape or not isinstance(value, np.ndarray | np.generic | float):
        return value
    return np.sum(value, axis=None if whole else tuple(range(1, len(shape))))


def _support(ends: tuple[Any, Any], discrete: bool, integers: bool) -> constraints.Constraint | None:
    """The interval between both ends, which belong to it, as a constraint on events."""
    low, high = (np.asarray(end, dtype=np.float64) for end in ends)
    if discrete and not integers:
        return None
    bounded = (np.isfinite(low), np.isfinite(high))
    if any(flags.any() != flags.all() for flags in bounded):
        return None  # some coordinates are bounded and others are not: torch has no word for it
    a, b = torch.tensor(low), torch.tensor(high)
    below, above = (bool(flags.all()) for flags in bounded)
    kind = _integer_interval(a, b, below, above) if discrete else _interval(a, b, below, above)
    return kind if kind is None or not low.ndim else constraints.independent(kind, low.ndim)


def _interval(a: Tensor, b: Tensor, below: bool, above: bool) -> constraints.Constraint:
    if below and above:
        return constraints.interval(a, b)
    if below:
        return constraints.greater_than_eq(a)
    return _LessThanEq(b) if above else constraints.real


def _integer_interval(a: Tensor, b: Tensor, below: bool, above: bool) -> constraints.Constraint | None:
    if below and above:
        return constraints.integer_interval(a, b)
    return _IntegerFrom(a) if below else None


class _LessThanEq(constraints.less_than):  # type: ignore[misc,valid-type]
    """x <= upper_bound, which torch lacks."""

    def check(self, value: Tensor) -> Tensor:
        return value <= self.upper_bound


class _IntegerFrom(constraints.Constraint):
    """Integers x >= lower_bound."""

    is_discrete = True

    def __init__(self, lower_bound: Tensor):
        self.lower_bound = lower_bound
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return (value % 1 == 0) & (value >= self.lower_bound)


@torch.distributions.biject_to.register(_LessThanEq)
def _to_less_than_eq(constraint: _LessThanEq) -> torch.distributions.Transform:
    return torch.distributions.biject_to(constraints.less_than(constraint.upper_bound))
