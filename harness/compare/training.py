"""What a SPEC names becomes a trained model, by one rule.

1. A function or class that needs an argument is called with the training rows [n, d]. It is also given those of
   `valid`, `levels` (states of each coordinate), `generator`, `seed`, `seconds` (the budget), `device` that it names.
   A class with a class method `fit` is fitted; any other function or class is called without arguments.
2. An estimator or network of another library that is not fitted yet is fitted, by that library's own `fit`.
3. A model with the contract's `fit(x)` is fitted (what a function made of the rows is taken as it is).
4. A torch module in training mode, or a distribution whose parameters require gradients, goes down -log_prob (or -elbo)
   by Adam, and stops early on the validation rows.
5. Anything else is taken as it is, in the data's own units: a module in evaluation mode is a trained one.

Rule 4 trains on the device that was asked for. So does what names `device`, which is given rows and generator there;
all else is trained on the CPU and moved. What only computes on the CPU is refused elsewhere.
"""

from __future__ import annotations

import copy
import inspect
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.distributions import Distribution

from harness.adapters import adapt
from harness.adapters.casting import moved, must_move, tensors_in
from harness.adapters.foreign import comes_from
from harness.compare.adam import descend, forget
from harness.compare.offer import Offer
from harness.compare.view import View
from harness.contract import capabilities_of
from harness.streams import generator as stream
from harness.streams import seed_for

Tell = Callable[[str, int], None]
"""(stage, steps so far): a sign of life."""


@dataclass(frozen=True)
class Trained:
    """The model's object, and how it came to be."""

    thing: object
    how: str
    seconds: float
    steps: int | None = None

    @property
    def as_it_is(self) -> bool:
        return self.how == AS_IT_IS


AS_IT_IS = "taken as it is"
FITS = ("fit of its library", "its own fit(rows)")

CPU_ALONE = ("hmmlearn", "sklearn", "pgmpy", "pomegranate", "scipy")
"""Libraries that compute with numpy, or (pomegranate) whose adapter asks them there; a subclass before its base."""

LEAST_SHARE = 0.1
"""Of the budget: what Adam has at least, when the import of a library took the rest."""


def is_recipe(thing: object) -> bool:
    """Something to be called: a function, a class or a partial, but no module that happens to be callable."""
    import functools

    return inspect.isclass(thing) or inspect.isroutine(thing) or isinstance(thing, functools.partial)


def trained(
    thing: object,
    view: View,
    *,
    seed: int,
    seconds: float,
    tell: Tell,
    as_it_is: bool = False,
    device: torch.device | str = "cpu",
) -> Trained:
    """The trained model, on the device where its training left it; TimeoutError where a `fit` takes longer than the
    budget, TypeError for a library that cannot compute on the device."""
    device = torch.device(device)
    offer = Offer(view, seed, seconds, device)
    began, how = time.perf_counter(), []
    tell("training", 0)
    steps = None
    with _within(seconds):
        made = False
        if is_recipe(thing):
            thing, what, made = _called(thing, offer)
            how += [what] if what else []
        refuse_elsewhere(thing, device)
        if not as_it_is:
            thing, what = _fitted(thing, offer, made)
            how += [what] if what else []
    if not as_it_is and not (how and how[-1] in FITS) and learnable(thing):
        forget(thing)  # what was derived from parameters has a graph, and cannot be copied
        thing = moved(thing, device, None) if must_move(thing, device, None) else copy.deepcopy(thing)
        left = max(LEAST_SHARE * seconds, seconds - (time.perf_counter() - began))
        steps, what = descend(thing, learnable(thing), view, seed=seed, seconds=left, tell=tell, device=device)
        how += [what]
    return Trained(thing, ", then ".join(how) or AS_IT_IS, time.perf_counter() - began, steps)


def refuse_elsewhere(thing: object, device: torch.device) -> None:
    """TypeError for a model that computes on the CPU alone, where another device is asked for."""
    library = next((name for name in CPU_ALONE if comes_from(thing, name)), None)
    if library is not None and device.type != "cpu":
        raise TypeError(f"{library} computes on the CPU alone: compare it with --device cpu")


def _called(recipe: Any, offer: Offer) -> tuple[object, str, bool]:
    """What the function or class gives, how, and whether it was made of the training rows."""
    fit = getattr(recipe, "fit", None)
    if inspect.isclass(recipe) and inspect.ismethod(fit):
        rows, others = offer.to(fit)
        return fit(rows, **others), "fit(rows) of its class", True
    wanted = needed(recipe)
    rows, others = offer.to(recipe)
    if not wanted:
        return recipe(**others), "", False
    missing = [name for name in wanted[1:] if name not in others]
    if missing:
        raise TypeError(f"it needs {', '.join(missing)} besides the training rows: give them defaults")
    others.pop(wanted[0], None)
    return recipe(rows, **others), "made of the training rows", True


def needed(recipe: Any) -> list[str]:
    """Parameters without a default."""
    try:
        parameters = inspect.signature(recipe).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature: the call will tell
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _fitted(thing: Any, offer: Offer, made: bool) -> tuple[object, str]:
    """Rules 2 and 3."""
    from harness.compare.libraries import fitted_by_its_library, is_fitted

    done = fitted_by_its_library(thing, offer.view, seed_for(offer.seed, "compare", "fit"))
    if done is not None:
        return done, FITS[0]
    if is_fitted(thing):
        return thing, ""
    if not made and "fit" in capabilities_of(thing):
        rows, others = offer.to(thing.fit)
        model = thing.fit(rows, **{name: each for name, each in others.items() if name in ("generator", "device")})
        return (thing if model is None else model), FITS[1]
    return thing, ""


def learnable(thing: Any) -> list[nn.Parameter]:
    """Parameters that wait to be trained: of a module in training mode, or of a distribution."""
    if isinstance(thing, nn.Module):
        return [p for p in thing.parameters() if p.requires_grad] if thing.training else []
    if isinstance(thing, Distribution):
        return [t for t in tensors_in(thing) if isinstance(t, nn.Parameter) and t.requires_grad]
    return []


def discrete_events(thing: object) -> bool | None:
    """Are the model's events discrete? By its declared support, else by its draws; None where neither says."""
    model = adapt(thing)
    if model.support is not None:
        return bool(model.support.is_discrete)
    if not model.can("sample"):
        return None
    x = model.sample(64, generator=stream(0, "compare", "kind"))
    return not x.is_floating_point() or bool((x == x.floor()).all())


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """TimeoutError when the work inside takes longer; the code of a C extension is interrupted when it returns."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"training took longer than the budget of {seconds:g} s: raise --budget, or train less")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def rows_dtype(thing: object) -> torch.dtype:
    """The dtype in which the model takes events: that of its draws."""
    model = adapt(thing)
    if not model.can("sample"):
        held = next((t.dtype for t in tensors_in(thing) if t.is_floating_point()), torch.float32)
        return torch.int64 if model.support is not None and model.support.is_discrete else held
    dtype: torch.dtype = model.sample(2, generator=stream(0, "compare", "dtype")).dtype
    return dtype
