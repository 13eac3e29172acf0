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
from jaxtyping import Bool, Float, Num, Shaped
from torch import Tensor

from harness import CONTRACT_VERSION as CONTRACT_VERSION


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


@runtime_checkable
class HasConditionals(Protocol):
    """An autoregressive density, factor by factor: p(x) = prod_i p(x_{o_i} | x_{o_1}, ..., x_{o_{i-1}})."""

    def conditionals(self, x: Shaped[Tensor, " n *event"]) -> Float[Tensor, "n d"]:
        """log p(x_i | the coordinates drawn before it), [n, d]: a column a coordinate of the flattened event.

        Column i is a function of x_i and of coordinates before it in the `ordering` alone.
        """


@runtime_checkable
class HasOrdering(Protocol):
    """In which order coordinates depend on each other."""

    def ordering(self) -> Sequence[int]:
        """The coordinates of the flattened event, first drawn first: a permutation of 0, ..., d-1.

        Without it an autoregressive model's order is 0, 1, ..., d-1. A bijection that has it claims to be triangular:
        in that order, each coordinate of forward(z) depends on those of z up to its own.
        """


@runtime_checkable
class HasReceptiveField(Protocol):
    """What an autoregressive model's conditionals see."""

    def receptive_field(self) -> Bool[Tensor, "d d"]:
        """Entry (i, j): does p(x_i | ...) depend on x_j? False is a promise; True, that some parameters make it so."""


@runtime_checkable
class NaiveSampler(Protocol):
    """The sampler without its cache: a pass through the whole event for each coordinate."""

    def sample_naive(self, n: int, *, generator: torch.Generator) -> Shaped[Tensor, " n *event"]:
        """What `sample` returns for the same state of the generator, up to rounding."""


@runtime_checkable
class HasForward(Protocol):
    """A bijection x = f(z)."""

    def forward(self, z: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """f(z), row by row, of the shape of z."""


@runtime_checkable
class HasInverse(Protocol):
    """The way back."""

    def inverse(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """z with f(z) = x, row by row."""


@runtime_checkable
class HasLogDet(Protocol):
    """By how much a bijection stretches volumes."""

    def log_det(self, z: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """log |det J| at z, with J_ij = d f_i / d z_j, a tensor [n]."""


@runtime_checkable
class HasBase(Protocol):
    """The law that a generator starts from: of z for x = f(z), of pure noise for a diffusion."""

    def base(self) -> Any:
        """A model: log p(x) = log base(z) - log_det(z) for a bijection; the law of x at the last time of a schedule."""


@runtime_checkable
class HasPrior(Protocol):
    """The law of a latent variable."""

    def prior(self) -> Any:
        """The model of z, with `sample` and `log_prob`."""


@runtime_checkable
class HasLikelihood(Protocol):
    """The law of an event when its latent variable is known: a decoder."""

    def likelihood(self) -> Any:
        """The model of x given z: log_prob(x, *, given=z) and sample(n, *, given=z, generator)."""


@runtime_checkable
class HasLatentPosterior(Protocol):
    """An approximation of the law of the latent variable when the event is known: an encoder."""

    def latent_posterior(self) -> Any:
        """The model q of z given x: log_prob(z, *, given=x) and sample(n, *, given=x, generator).

        A model writes it as `posterior()`, without arguments.
        """


@runtime_checkable
class HasElbo(Protocol):
    """The evidence lower bound."""

    def elbo(self, x: Shaped[Tensor, " n *event"], *, generator: torch.Generator) -> Float[Tensor, " n"]:
        """An unbiased estimate of E_q[log p(x, z) - log q(z | x)] <= log p(x) a row, a tensor [n]."""


@runtime_checkable
class HasIwae(Protocol):
    """The importance-weighted bound."""

    def iwae(self, x: Shaped[Tensor, " n *event"], k: int, *, generator: torch.Generator) -> Float[Tensor, " n"]:
        """log 1/k sum_i p(x, z_i) / q(z_i | x) with z_1, ..., z_k from q, a tensor [n]; in mean it rises to log p."""


@runtime_checkable
class HasSchedule(Protocol):
    """The forward kernel of a diffusion: x_t = scale(t) x_0 + sigma(t) e with standard normal e."""

    def schedule(self, t: Float[Tensor, " k"]) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """scale(t) and sigma(t) for times in `time_range`."""


@runtime_checkable
class HasTimeRange(Protocol):
    """When a diffusion begins and ends."""

    def time_range(self) -> tuple[float, float]:
        """The first time, at which there is least noise, and the last, at which x has the law `base`."""


@runtime_checkable
class HasTransition(Protocol):
    """The forward kernel between two times."""

    def transition(self, s: Float[Tensor, " k"], t: Float[Tensor, " k"]) -> tuple[Tensor, Tensor]:
        """(scale [k], sigma [k]) of x_t = scale x_s + sigma e, for s <= t."""


@runtime_checkable
class HasBackward(Protocol):
    """The kernel of a diffusion back in time, when its start is known."""

    def backward(self, s: Float[Tensor, " k"], t: Float[Tensor, " k"]) -> tuple[Tensor, Tensor, Tensor]:
        """(a [k], b [k], sigma [k]) of q(x_s | x_t, x_0) = N(a x_0 + b x_t, sigma^2 I), for s < t."""


@runtime_checkable
class Denoiser(Protocol):
    """The mean of what was clean, when the noisy is seen."""

    def denoise(self, x: Float[Tensor, " n *event"], t: Float[Tensor, " n"]) -> Float[Tensor, " n *event"]:
        """E[x_0 | x_t = x], a time a row."""


@runtime_checkable
class ScoreInTime(Protocol):
    """The score of each noisy law."""

    def score_at(self, x: Float[Tensor, " n *event"], t: Float[Tensor, " n"]) -> Float[Tensor, " n *event"]:
        """grad log p_t(x), a time a row."""


@runtime_checkable
class Integrator(Protocol):
    """The deterministic sampler: the probability-flow ODE solved back from noise."""

    def integrate(self, x: Float[Tensor, " n *event"], steps: int) -> Float[Tensor, " n *event"]:
        """x at the first time for x at the last time, by so many steps of the solver."""


@runtime_checkable
class HasOrder(Protocol):
    """How fast a solver's error falls."""

    def order(self) -> int:
        """The p for which the error of `integrate` falls as steps^-p: 1 for Euler's method, 2 for Heun's."""


@runtime_checkable
class HasData(Protocol):
    """What a model is to imitate."""

    def data(self) -> Any:
        """The law of the events: a model that can `sample`, or draws of it [m, *event] that were not trained on."""


@runtime_checkable
class HasTrainingData(Protocol):
    """What a model has learnt from."""

    def training_data(self) -> Shaped[Tensor, " m *event"]:
        """The events that it was fitted to."""


@runtime_checkable
class Observing(Protocol):
    """A conditional sampler that completes events: what is given is a part of them."""

    def observed(self, given: Shaped[Tensor, " n *given"]) -> tuple[Tensor, Tensor]:
        """(mask, values), both [n, *event]: draws given it have these values wherever the mask is true."""


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
    HasConditionals,
    HasOrdering,
    HasReceptiveField,
    NaiveSampler,
    HasForward,
    HasInverse,
    HasLogDet,
    HasBase,
    HasPrior,
    HasLikelihood,
    HasLatentPosterior,
    HasElbo,
    HasIwae,
    HasSchedule,
    HasTimeRange,
    HasTransition,
    HasBackward,
    Denoiser,
    ScoreInTime,
    Integrator,
    HasOrder,
    HasData,
    HasTrainingData,
    Observing,
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
    return name.removesuffix("_given").removeprefix("latent_")


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
    found = capabilities_of(thing)
    served = {written(name) for name in found if not name.endswith("_given")}
    for name, promise in CAPABILITIES.items():
        value = _candidate(thing, name)
        if written(name) in served and name not in found:  # the method has its other meaning
            continue
        wanted = f"{written(name)}({', '.join(_asked(promise))})"
        if callable(value) and not _callable_as(value, promise):
            reasons[name] = f"{written(name)}{inspect.signature(value)} cannot be called as {wanted}"
        elif value is not None and not callable(value):
            reasons[name] = f"{written(name)} is a {type(value).__name__}, not a method that can be called as {wanted}"
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
    if not name.endswith("_given"):
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
