"""Objects that speak the contract themselves."""

from __future__ import annotations

from typing import Any

import torch

from harness.adapters.casting import holds_floats, moved
from harness.contract import capabilities_of
from harness.model import Model


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """A model made of the contract's methods that `thing` has; `support` and `event_shape` are read where present."""
    if isinstance(thing, type) or not set(capabilities_of(thing)) & {"sample", "log_prob"}:
        return None
    if dtype is not None or device.type != "cpu":
        thing = moved(thing, device, dtype)
    return Model(
        name=name,
        methods=capabilities_of(thing),
        target=thing,
        support=_value(thing, "support"),
        event_shape=None if (shape := _value(thing, "event_shape")) is None else tuple(shape),
        device=device,
        cast=(lambda other: adapt(thing, name, device, other)) if holds_floats(thing) else None,  # type: ignore[arg-type,return-value]
    )


def _value(thing: object, name: str) -> Any:
    """An attribute, or what a method of no arguments of that name returns."""
    value = getattr(thing, name, None)
    return value() if callable(value) else value
