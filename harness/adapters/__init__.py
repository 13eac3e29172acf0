"""Foreign object to model, found by type without configuration. No adapter knows a check.

Third parties register theirs as an entry point of the group `harness.adapters`, which names a callable

    adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> harness.model.Model | None

It answers None for what it does not know, and raises NotAModel, whose message names the fix, for what it knows and
cannot use. It is asked before the built-in adapters. One that cannot be loaded, raises, or returns something else costs
a warning of one line and is passed over. In its pyproject.toml:

    [project.entry-points."harness.adapters"]
    my_library = "my_package.conformance:adapt"
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points

import torch

from harness.adapters import (
    hmmlearn,
    nflows,
    normflows,
    pgmpy,
    pomegranate,
    protocol,
    pyro,
    scipy_stats,
    sklearn_density,
    torch_distributions,
    zuko,
)
from harness.contract import CAPABILITIES, unfit_of
from harness.errors import out_of_memory
from harness.model import Model, NotAModel

__all__ = ["BUILT_IN", "Adapter", "NotAModel", "adapt"]

Adapter = Callable[[object, str, torch.device, torch.dtype | None], Model | None]

BUILT_IN: tuple[Adapter, ...] = (
    pyro.adapt,
    torch_distributions.adapt,
    scipy_stats.adapt,
    hmmlearn.adapt,  # whose models are scikit-learn's estimators too
    sklearn_density.adapt,
    zuko.adapt,
    nflows.adapt,
    normflows.adapt,
    pgmpy.adapt,
    pomegranate.adapt,
    protocol.adapt,
)


def adapt(thing: object, name: str = "", device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Model:
    """The model behind `thing`: by the first adapter that knows it, third parties' before the built-in ones.

    Raises NotAModel when nobody does.
    """
    if isinstance(thing, Model):
        return thing
    name = name or type(thing).__name__
    asked = (thing, name, torch.device(device), dtype)
    for model in _answers(asked):
        if model is not None:
            return model
    raise NotAModel(_refusal(thing, name))


def _answers(asked: tuple[object, str, torch.device, torch.dtype | None]) -> Iterator[Model | None]:
    """What each adapter says, one after the other as they are needed."""
    yield from _plugged(asked)
    for adapter in BUILT_IN:
        yield adapter(*asked)


def _plugged(asked: tuple[object, str, torch.device, torch.dtype | None]) -> Iterator[Model]:
    """The models of third parties' adapters."""
    for entry in entry_points(group="harness.adapters"):
        try:
            model = entry.load()(*asked)
        except NotAModel:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            _pass_over(entry, f"{type(error).__name__}: {error}")
            continue
        if isinstance(model, Model):
            yield model
        elif model is not None:
            _pass_over(entry, f"it returned a {type(model).__name__}, neither a Model nor None")


def _pass_over(entry: EntryPoint, reason: str) -> None:
    package = entry.dist.name if entry.dist is not None else "an unnamed package"
    line = " ".join(f"adapter {entry.name!r} of {package} was passed over: {reason}".split())
    warnings.warn(line, stacklevel=4)


def _refusal(thing: object, name: str) -> str:
    """Why nobody takes it, and what would help."""
    kind = type(thing)
    if isinstance(thing, type):
        return f"{name} is the class {thing.__module__}.{thing.__qualname__}: give an instance of it"
    if inspect.isroutine(thing):
        return f"{name} is a function, not a model: give what it returns, or a zero-argument factory"
    reasons = unfit_of(thing)
    almost = "; ".join(reasons[key] for key in ("sample", "log_prob") if key in reasons)
    lacks = (
        almost or "it has no method sample(n, *, generator), log_prob(x) or energy(x), and no adapter knows its type"
    )
    return (
        f"{name} ({kind.__module__}.{kind.__qualname__}) is no model: {lacks}. "
        f"Methods of the contract: {', '.join(CAPABILITIES)}"
    )
