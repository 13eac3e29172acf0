"""What a model may promise: one structural Protocol a capability, methods only.

A model has a capability when it has a method of that name which can be called as the Protocol's method is; nothing has
to be imported or inherited. `n` counts draws and `event` is the shape of one draw; all logarithms are natural, so
entropies and divergences are in nats. Densities are with respect to Lebesgue measure on continuous coordinates and
counting measure on discrete ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
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
)


def _method(protocol: type) -> tuple[str, Callable[..., Any]]:
    (name,) = (key for key, value in vars(protocol).items() if inspect.isfunction(value) and not key.startswith("_"))
    return name, getattr(protocol, name)


CAPABILITIES: dict[str, Callable[..., Any]] = dict(_method(protocol) for protocol in PROTOCOLS)
"""Capability name to the Protocol's method, whose signature and docstring are the promise."""


def capabilities_of(thing: object) -> dict[str, Callable[..., Any]]:
    """The contract's methods that `thing` has, by name and by signature."""
    return {
        name: method
        for name, promise in CAPABILITIES.items()
        if callable(method := attribute(thing, name)) and _callable_as(method, promise)
    }


def unfit_of(thing: object) -> dict[str, str]:
    """Names of the contract that `thing` has, but not as the contract's method: name to the reason."""
    reasons = {}
    for name, promise in CAPABILITIES.items():
        value = attribute(thing, name)
        wanted = f"{name}({', '.join(_asked(promise))})"
        if callable(value) and not _callable_as(value, promise):
            reasons[name] = f"{name}{inspect.signature(value)} cannot be called as {wanted}"
        elif value is not None and not callable(value):
            reasons[name] = f"{name} is a {type(value).__name__}, not a method that can be called as {wanted}"
    return reasons


def attribute(thing: object, name: str) -> Any:
    """The attribute, None where there is none. One whose look-up raises is a method that raises when it is called."""
    try:
        return getattr(thing, name, None)
    except Exception as error:
        return _raising(error)


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
