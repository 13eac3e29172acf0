"""What a mutant and a near miss are: changes of a correct model, of which the first must be found, the second not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.model import Model

Change = Callable[[Model], Mapping[str, Callable[..., Any]]]
"""From a correct model to the methods that are to replace its own."""


@dataclass(frozen=True)
class Mutant:
    """A planted defect. `check` is the id of a check that must FAIL on it (or ERROR, where `error` is set)."""

    name: str
    defect: str
    check: str
    base: Callable[[], object]
    change: Change
    error: bool = False
    erratum: str = ""


@dataclass(frozen=True)
class NearMiss:
    """A change that looks like a defect and breaks no law: `check` must not FAIL on it."""

    name: str
    change_made: str
    check: str
    base: Callable[[], object]
    change: Change


def mutated(model: Model, change: Change, name: str = "") -> Model:
    """The model with some methods replaced, in every dtype that it can be cast to."""
    return replace(
        model,
        name=name or model.name,
        methods={**model.methods, **change(model)},
        cast=None if model.cast is None else lambda dtype: mutated(model.cast(dtype), change, name),  # type: ignore[misc]
    )
