"""Copies of an object in another dtype or on another device."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def moved(thing: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """A copy of `thing` whose floating tensors, however deep in its attributes, have that dtype and device."""
    if isinstance(thing, nn.Module):
        return copy.deepcopy(thing).to(device=device, dtype=dtype)
    return _walk(copy.deepcopy(thing), device, dtype, set())


def _walk(thing: Any, device: torch.device, dtype: torch.dtype | None, seen: set[int]) -> Any:
    if isinstance(thing, Tensor):
        return thing.to(device=device, dtype=dtype if thing.is_floating_point() else None)
    if isinstance(thing, list | tuple):
        parts = [_walk(part, device, dtype, seen) for part in thing]
        return type(thing)(parts) if type(thing) in (list, tuple) else thing
    if isinstance(thing, dict):
        thing.update({key: _walk(value, device, dtype, seen) for key, value in thing.items()})
        return thing
    if id(thing) not in seen and hasattr(thing, "__dict__") and not isinstance(thing, type):
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            return thing.to(device=device, dtype=dtype)
        for key, value in vars(thing).items():
            vars(thing)[key] = _walk(value, device, dtype, seen)
    return thing


def holds_floats(thing: Any) -> bool:
    """Does the object hold a floating tensor, so that a cast changes it?"""
    if isinstance(thing, nn.Module):
        return any(t.is_floating_point() for t in (*thing.parameters(), *thing.buffers()))
    found = False

    def look(part: Any, seen: set[int]) -> None:
        nonlocal found
        if found or id(part) in seen:
            return
        seen.add(id(part))
        if isinstance(part, Tensor):
            found = part.is_floating_point()
        elif isinstance(part, list | tuple):
            for item in part:
                look(item, seen)
        elif isinstance(part, dict):
            for item in part.values():
                look(item, seen)
        elif hasattr(part, "__dict__") and not isinstance(part, type):
            for item in vars(part).values():
                look(item, seen)

    look(thing, set())
    return found
