"""What adapters of libraries share: who made an object, its extra methods, and numbers to and from numpy."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.contract import capabilities_of, unfit_of, written
from harness.model import Model

Methods = dict[str, Callable[..., Any]]


def comes_from(thing: object, library: str) -> bool:
    """Does a class of the object live in that library? Answered without an import of it."""
    return any(_root(cls) == library for cls in type(thing).__mro__)


def extras(thing: object, library: str, conventions: Collection[str] = ()) -> Methods:
    """The contract's methods that were added to a library's object by somebody else, a subclass say.

    `conventions` are names under which the library has methods of its own meaning: an override of one follows the
    library, and is left to its adapter.
    """
    return {
        name: method
        for name, method in capabilities_of(thing).items()
        if name not in conventions and _definer(thing, written(name)) != library and _names_generator(name, method)
    }


def misfits(thing: object, library: str, methods: Collection[str]) -> dict[str, str]:
    """Why attributes that somebody else added, and that have a name of the contract, are no capabilities."""
    reasons = unfit_of(thing)
    return {
        name: reasons[name] for name in reasons if name not in methods and _definer(thing, written(name)) != library
    }


def _names_generator(name: str, method: Callable[..., Any]) -> bool:
    """A `sample` that takes any keyword would swallow the generator: the library's own meaning is the likelier one."""
    return name != "sample" or "generator" in inspect.signature(method).parameters


def _definer(thing: object, name: str) -> str:
    """The root package of the class that defines the attribute; empty for one of the instance."""
    if name in getattr(thing, "__dict__", {}):
        return ""
    return next((_root(cls) for cls in type(thing).__mro__ if name in vars(cls)), "")


def _root(cls: type) -> str:
    return str(cls.__module__).partition(".")[0]


RELATED = (
    *("with_parameters", "affine", "marginal", "conditional"),
    *("base", "prior", "likelihood", "latent_posterior", "data"),
)
"""Methods that return another model."""


def linked(thing: object, methods: Methods, again: Callable[[object], object]) -> Methods:
    """The methods, with those that take or return a model made to speak of `Model`s. `again` adapts a fitted object.

    `fit` works on a copy, so that the model under examination stays what it was.
    """
    linked = dict(methods)
    if "kl" in methods:
        kl = methods["kl"]
        linked["kl"] = lambda other: kl(other.target if isinstance(other, Model) else other)
    if "fit" in methods:
        linked["fit"] = lambda x: again(copy.deepcopy(thing).fit(x))  # type: ignore[attr-defined]
    return linked | {name: _again(methods[name], again) for name in RELATED if name in methods}


def _again(method: Callable[..., Any], again: Callable[[object], object]) -> Callable[..., Any]:
    return lambda *args: again(method(*args))


def numpy_source(generator: torch.Generator) -> np.random.Generator:
    """A numpy generator that depends on the torch generator's state alone, and moves it on."""
    return np.random.Generator(np.random.PCG64(seed_from(generator)))


def numpy_legacy_source(generator: torch.Generator) -> np.random.RandomState:
    """The same for libraries that know numpy's older class only."""
    return np.random.RandomState(np.random.MT19937(seed_from(generator)))


def seed_from(generator: torch.Generator) -> int:
    """A 62-bit seed drawn from the generator."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def as_array(x: Tensor) -> np.ndarray:
    """The tensor's numbers; floating ones in float64, in which numpy's libraries compute."""
    x = x.detach().cpu()
    return (x.double() if x.is_floating_point() else x).numpy()


def as_tensor(value: Any, device: torch.device) -> Any:
    """Numbers and numeric arrays as a tensor, integers int64 and others float64; anything else unchanged."""
    if not isinstance(value, np.ndarray | np.generic | float | int):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "iub":
        return torch.as_tensor(array.astype(np.int64), device=device)
    if array.dtype.kind == "f":
        return torch.as_tensor(array.astype(np.float64), device=device)
    return value


def density(
    ask: Callable[[np.ndarray], Any], possible: Callable[[np.ndarray], np.ndarray], device: torch.device
) -> Callable[[Tensor], Any]:
    """log_prob by a library's function of rows (n, *event) that refuses some: it is asked of `possible` rows (n,) only.

    The others have density 0. An empty batch is no question to the library.
    """

    def log_prob(x: Tensor) -> Any:
        rows = as_array(x)
        inside = possible(rows)
        if len(rows) and inside.all():
            return shaped(as_tensor(ask(rows), device), len(rows))
        values = np.full(len(rows), -np.inf)
        if inside.any():
            values[inside] = ask(rows[inside])
        return as_tensor(values, device)

    return log_prob


def shaped(value: Any, *shape: int) -> Any:
    """A tensor of that many elements in that shape; anything else unchanged, for a check to give the verdict."""
    if isinstance(value, Tensor) and value.numel() == int(np.prod(shape)):
        return value.reshape(shape)
    return value
