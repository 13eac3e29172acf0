"""What a model may promise: one structural Protocol a capability, methods only.

A model has a capability when it has a method of that name which can be called as the Protocol's method is; nothing has
to be imported or inherited. `n` counts draws and `event` is the shape of one draw; all logarithms are natural, so
entropies and divergences are in nats. Densities are with respect to Lebesgue measure on continuous coordinates and
counting measure on discrete ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import MethodType
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor

CONTRACT_VERSION = "1.0"


@runtime_checkable
class Sampler(Protocol):
    """Draws: independent, identically distributed, a function of the generator's state alone."""

    def sample(self, n: int, *, generator: torch.Generator) -> Shaped[Tensor, " n *event"]:
        """A tensor [n, *event], on the generator's device; the global generator is neither used nor reseeded."""


@runtime_checkable
class Density(Protocol):
    """A normalised log-density or log-mass function."""

    def log_prob(self, x: Shaped[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """A tensor [n] for x of shape [n, *event]; -inf outside the support; each row depends on its own event only."""


@runtime_checkable
class HasMean(Protocol):
    """The expectation of an event."""

    def mean(self) -> Num[Tensor, "*event"]:
        """E[x], a tensor [*event]."""


@runtime_checkable
class HasVariance(Protocol):
    """The variance of each coordinate."""

    def variance(self) -> Num[Tensor, "*event"]:
        """E[(x - E x)^2], elementwise, a tensor [*event]."""


@runtime_checkable
class HasCovariance(Protocol):
    """The covariance of the flattened event."""

    def covariance(self) -> Num[Tensor, "d d"]:
        """E[(x - E x)(x - E x)^T], a tensor [d, d], where d is the number of elements of an event."""


@runtime_checkable
class HasEntropy(Protocol):
    """Shannon or differential entropy."""

    def entropy(self) -> Float[Tensor, ""]:
        """-E[log p(x)] in nats, a scalar; a differential entropy can be negative."""


@runtime_checkable
class HasCdf(Protocol):
    """The distribution function of a scalar event."""

    def cdf(self, x: Shaped[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """P(X <= x), a tensor [n] for x of shape [n, *event], where the event has one element."""


@runtime_checkable
class HasIcdf(Protocol):
    """The quantile function of a scalar event."""

    def icdf(self, u: Float[Tensor, " n"]) -> Shaped[Tensor, " n *event"]:
        """The smallest x with P(X <= x) >= u, a tensor [n, *event] for u of shape [n] in (0, 1)."""


@runtime_checkable
class HasKL(Protocol):
    """Kullback-Leibler divergence to another model of the same kind."""

    def kl(self, other: Any) -> Float[Tensor, ""]:
        """E[log p(x) - log q(x)] under p in nats, a scalar; 0 if and only if the two laws are equal."""


@runtime_checkable
class Fit(Protocol):
    """Estimation by maximum likelihood."""

    def fit(self, x: Shaped[Tensor, " n *event"]) -> Any:
        """The model of this kind under which the draws x [n, *event] are most likely: itself or a new one."""


@runtime_checkable
class HasParameters(Protocol):
    """What the family leaves free."""

    def parameters(self) -> Float[Tensor, " k"]:
        """The k free parameters in coordinates without constraints: logarithms of positive numbers, say."""


@runtime_checkable
class WithParameters(Protocol):
    """The family as a function of its free parameters."""

    def with_parameters(self, theta: Float[Tensor, " k"]) -> Any:
        """The model of this kind at theta [k]; its `log_prob` can be differentiated with respect to theta."""


@runtime_checkable
class Affine(Protocol):
    """A family that affine maps do not leave."""

    def affine(self, matrix: Float[Tensor, "d d"], shift: Float[Tensor, " d"]) -> Any:
        """The law of A x + b, a model of this kind, for an invertible A [d, d] and b [d]."""


@runtime_checkable
class HasMarginal(Protocol):
    """The law of some coordinates of a vector event."""

    def marginal(self, indices: Sequence[int]) -> Any:
        """The model of x_a for a = indices, its coordinates in that order: p(x_a) = int p(x) dx_b over the others."""


@runtime_checkable
class HasConditional(Protocol):
    """The law of the other coordinates of a vector event, given some."""

    def conditional(self, indices: Sequence[int], values: Shaped[Tensor, " k"]) -> Any:
        """The model of x_b given x_a = values [k], for a = indices and b the other coordinates in their order."""


@runtime_checkable
class HasMutualInformation(Protocol):
    """Mutual information between two blocks of coordinates of a vector event."""

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Float[Tensor, ""]:
        """E[log p(x_a, x_b) - log p(x_a) - log p(x_b)] in nats, a scalar, for two lists without a common coordinate."""


@runtime_checkable
class HasEnergy(Protocol):
    """A log-density up to its sign and a constant: p(x) = exp(-E(x)) / Z, where Z need not be known."""

    def energy(self, x: Shaped[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """E(x), a tensor [n] for x of shape [n, *event]; +inf outside the support, unless `support` is declared.

        Of discrete events it may be any number at values that no coordinate of a draw ever takes.
        """


@runtime_checkable
class HasLogPartition(Protocol):
    """The constant that an energy leaves open."""

    def log_partition(self) -> Float[Tensor, ""]:
        """log Z = log int exp(-E(x)) dx, a scalar; the sum over all states where events are discrete."""


@runtime_checkable
class HasScore(Protocol):
    """The gradient of the log-density with respect to the event, in which no normalising constant occurs."""

    def score(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """grad log p(x) = -grad E(x), of the shape of x; for a density without jumps."""


@runtime_checkable
class ConditionalDensity(Protocol):
    """A `log_prob` that names a parameter `given`: the law of an event for each value of something else."""

    def log_prob_given(
        self, x: Shaped[Tensor, " n *event"], *, given: Shaped[Tensor, " n *given"]
    ) -> Float[Tensor, " n"]:
        """log p(x | given), a tensor [n], row by row. A model writes it as `log_prob(x, *, given)`."""


@runtime_checkable
class ConditionalSampler(Protocol):
    """A `sample` that names a parameter `given`."""

    def sample_given(
        self, n: int, *, given: Shaped[Tensor, " n *given"], generator: torch.Generator
    ) -> Shaped[Tensor, " n *event"]:
        """One draw for each of the n rows of `given`. A model writes it as `sample(n, *, given, generator)`."""


@runtime_checkable
class HasClassPrior(Protocol):
    """How probable the classes are before anything was seen."""

    def class_prior(self) -> Float[Tensor, " classes"]:
        """p(y) for y = 0, 1, ..., a tensor [classes]. With it, labels are what is `given`, as integers [n]."""


@runtime_checkable
class HasPosterior(Protocol):
    """A classifier: the law of the label when x is known."""

    def posterior(self, x: Shaped[Tensor, " n *event"]) -> Float[Tensor, "n classes"]:
        """p(y | x) for y = 0, 1, ..., a tensor [n, classes].

        A model of the label alone has no law of x. It says in `given_shape` of what shape an x is, labels are its
        events, `log_prob(y, *, given=x)` and `sample(n, *, given=x, generator)`, and it is asked at normal x.
        """


PROTOCOLS: tuple[type, ...] = (
    Sampler,
    Density,
    HasMean,
    HasVariance,
    HasCovariance,
    HasEntropy,
    HasCdf,
    HasIcdf,
    HasKL,
    Fit,
    HasParameters,
    WithParameters,
    Affine,
    HasMarginal,
    HasConditional,
    HasMutualInformation,
    HasEnergy,
    HasLogPartition,
    HasScore,
    ConditionalDensity,
    ConditionalSampler,
    HasClassPrior,
    HasPosterior,
)


def _method(protocol: type) -> tuple[str, Callable[..., Any]]:
    (name,) = (key for key, value in vars(protocol).items() if inspect.isfunction(value) and not key.startswith("_"))
    return name, getattr(protocol, name)


CAPABILITIES: dict[str, Callable[..., Any]] = dict(_method(protocol) for protocol in PROTOCOLS)
"""Capability name to the Protocol's method, whose signature and docstring are the promise."""


def written(name: str) -> str:
    """The name of the method that has the capability: `log_prob` for `log_prob_given`, else the capability's own.

    One method may so have two capabilities: `log_prob(x, given=None)` is a density, and a conditional one.
    """
    return name.removesuffix("_given")


def capabilities_of(thing: object) -> dict[str, Callable[..., Any]]:
    """The contract's methods that `thing` has, by name and by signature."""
    return {
        name: method
        for name, promise in CAPABILITIES.items()
        if callable(method := _candidate(thing, name)) and _callable_as(method, promise)
    }


def unfit_of(thing: object) -> dict[str, str]:
    """Names of the contract that `thing` has, but not as the contract's method: name to the reason."""
    reasons = {}
    for name, promise in CAPABILITIES.items():
        value = _candidate(thing, name)
        wanted = f"{written(name)}({', '.join(_asked(promise))})"
        if callable(value) and not _callable_as(value, promise):
            reasons[name] = f"{written(name)}{inspect.signature(value)} cannot be called as {wanted}"
        elif value is not None and not callable(value):
            reasons[name] = f"{name} is a {type(value).__name__}, not a method that can be called as {wanted}"
    return reasons


def attribute(thing: object, name: str) -> Any:
    """The attribute, None where there is none. One whose look-up raises is a method that raises when it is called."""
    try:
        return getattr(thing, name, None)
    except Exception as error:
        return _raising(error)


def _candidate(thing: object, name: str) -> Any:
    """The attribute that may be the capability; one that is conditional must name its parameter `given`."""
    value = attribute(thing, written(name))
    if written(name) == name:
        return value
    return value if callable(value) and _names_given(getattr(value, "__func__", value)) else None


def _names_given(method: Callable[..., Any]) -> bool:
    try:
        return "given" in inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False


def _raising(error: Exception) -> Callable[..., Any]:
    def answer(*_: Any, **__: Any) -> Any:
        raise error

    return answer


def _asked(promise: Callable[..., Any]) -> list[str]:
    """The parameters of a promise as they are written: `n`, `*`, `generator`."""
    parameters = list(inspect.signature(promise).parameters.values())[1:]
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keyword = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    return [*positional, "*", *keyword] if keyword else positional


def _callable_as(method: Callable[..., Any], promise: Callable[..., Any]) -> bool:
    """Can `method` be called the way the contract calls it?"""
    function = getattr(method, "__func__", None)
    return _fits(method, promise) if function is None else _fits_bound(function, promise)


@lru_cache(maxsize=1024)
def _fits_bound(function: Callable[..., Any], promise: Callable[..., Any]) -> bool:
    """The same for a method of any object, asked once: a fit in a loop returns many models of one class."""
    return _fits(MethodType(function, object()), promise)


def _fits(method: Callable[..., Any], promise: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # builtins without a signature: their calls will tell
        return True
    parameters = list(inspect.signature(promise).parameters.values())[1:]
    positional = [None for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keyword = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
    try:
        signature.bind(*positional, **keyword)
    except TypeError:
        return False
    return True
