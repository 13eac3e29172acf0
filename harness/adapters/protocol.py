"""Objects that speak the contract themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions.constraints import Constraint

from harness.adapters.casting import holds_floats, moved, must_move
from harness.adapters.foreign import linked
from harness.contract import attribute, capabilities_of, unfit_of
from harness.errors import out_of_memory
from harness.model import Model


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """A model made of the contract's methods that `thing` has; its shapes and `support` are read where present.

    It needs `sample`, `log_prob`, `energy`; or one of `sample` and `log_prob` given something, or `posterior`, and a
    `given_shape` or `class_prior` that says what may be given. A class is no model; an instance is.
    """
    if isinstance(thing, type) or not _can_be_asked(thing):
        return None
    if must_move(thing, device, dtype):
        thing = moved(thing, device, dtype)

    def again(fitted: object) -> object:
        return adapt(fitted, f"{name} fitted", device, dtype) or fitted

    def cast(other: torch.dtype) -> Model:
        model = adapt(thing, name, device, other)
        assert model is not None
        return model

    return Model(
        name=name,
        methods=linked(thing, capabilities_of(thing), again),
        target=thing,
        support=support if isinstance(support := _value(thing, "support"), Constraint) else None,
        event_shape=_shape(_value(thing, "event_shape")),
        device=device,
        given_shape=_shape(_value(thing, "given_shape")),
        cast=cast if holds_floats(thing) else None,
        unfit=unfit_of(thing),
    )


def _can_be_asked(thing: object) -> bool:
    """Can events be had: drawn, found by a density, or made of the shape that inputs have?"""
    found = set(capabilities_of(thing))
    if found & {"sample", "log_prob", "energy"}:
        return True
    shape = _shape(_value(thing, "given_shape"))
    if found & {"sample_given", "log_prob_given"} and (shape is not None or "class_prior" in found):
        return True
    return "posterior" in found and shape is not None


def _value(thing: object, name: str) -> Any:
    """An attribute, or what a method of no arguments of that name returns; None where it raises."""
    value = attribute(thing, name)
    try:
        return value() if callable(value) else value
    except Exception as trouble:
        if out_of_memory(trouble):
            raise
        return None


def _shape(value: Any) -> tuple[int, ...] | None:
    """A declared shape; None for anything that is none."""
    if isinstance(value, list | tuple) and all(isinstance(size, int) for size in value):
        return tuple(value)
    return None
