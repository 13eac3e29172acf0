"""What a mutant and a near miss are: changes of a correct model, of which the first must be found, the second not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from harness.adapters import protocol
from harness.model import Model

Change = Callable[[Model], Mapping[str, Callable[..., Any]]]
"""From a correct model to the methods that are to replace its own."""


@dataclass(frozen=True)
class Mutant:
    """A planted defect. `check` is the id of a check that must FAIL on it (or ERROR, where `error` is set).

    `erratum` is the number of the erratum that it implements, such as E12: `harness.mutants.errata` lists them.
    """

    name: str
    defect: str
    check: str
    base: Callable[[], object]
    change: Change
    error: bool = False
    erratum: str = ""


@dataclass(frozen=True)
class NearMiss:
    """A change that looks like a defect, or like an erratum, and breaks no law: `check` must not FAIL on it."""

    name: str
    change_made: str
    check: str
    base: Callable[[], object]
    change: Change
    erratum: str = ""


def answering(**formulas: Callable[..., Any]) -> Change:
    """The change that answers by formula(law, ...) under its name, where `law` is the object behind the model.

    An object that a formula returns for a tensor, such as the law of some coordinates, becomes a model.
    """

    def change(model: Model) -> dict[str, Callable[..., Any]]:
        def answer(formula: Callable[..., Any]) -> Callable[..., Any]:
            def method(*args: Any, **named: Any) -> Any:
                value = formula(model.target, *args, **named)
                return value if isinstance(value, Tensor) else protocol.adapt(value, model.name, model.device, None)

            return method

        return {name: answer(formula) for name, formula in formulas.items()}

    return change


def mutated(model: Model, change: Change, name: str = "") -> Model:
    """The model with some methods replaced, in every dtype that it can be cast to."""
    return replace(
        model,
        name=name or model.name,
        methods={**model.methods, **change(model)},
        cast=None if model.cast is None else lambda dtype: mutated(model.cast(dtype), change, name),  # type: ignore[misc]
    )
