"""Copies of an object in another dtype or on another device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness.errors import out_of_memory
from harness.model import NotAModel

T = TypeVar("T")

ATOMS = (str, bytes, int, float, complex, type, ModuleType, torch.dtype, torch.device)


def moved(thing: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """A copy of `thing` whose tensors, however deep in its attributes, are on that device, floating ones in that dtype.

    A tensor that was computed from others loses its graph. Raises NotAModel for an object that cannot be copied.
    """
    converted = {id(tensor): _converted(tensor, device, dtype) for tensor in tensors_in(thing)}
    try:
        moved = copy.deepcopy(thing, converted)  # deepcopy takes what is in its memo for copied
    except Exception as error:
        if out_of_memory(error):
            raise
        raise NotAModel(
            f"{type(thing).__name__} cannot be brought to {dtype or 'its dtype'} on {device}, as copy.deepcopy fails: "
            f"{type(error).__name__}: {error}"
        ) from error
    return moved.to(device=device, dtype=dtype) if isinstance(moved, nn.Module) else moved


def conversion(device: torch.device, dtype: torch.dtype | None) -> Callable[[Tensor], Tensor]:
    """The map from tensors to that device, and floating ones to that dtype."""
    return lambda tensor: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)


def _converted(tensor: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    new = conversion(device, dtype)(tensor.detach().clone())
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(new, tensor.requires_grad)
    return new.requires_grad_(tensor.requires_grad and tensor.is_leaf)


def tensors_in(thing: Any) -> Iterator[Tensor]:
    """Every tensor that the object holds, in attributes and containers, once."""
    return found_in(thing, Tensor)


def found_in(thing: Any, kind: type[T]) -> Iterator[T]:
    """Every instance of that class that the object holds, in attributes and containers, itself included, once."""
    waiting, seen = [thing], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, ATOMS):
            continue
        seen.add(id(part))
        if isinstance(part, kind):
            yield part
        if isinstance(part, Tensor):
            continue
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list | tuple | set | frozenset):
            waiting.extend(part)
        else:
            waiting.extend(getattr(part, "__dict__", {}).values())
            waiting.extend(_slots(part))


def _slots(part: Any) -> list[Any]:
    names = (name for cls in type(part).__mro__ for name in _names(vars(cls).get("__slots__", ())))
    return [value for name in names if (value := getattr(part, name, None)) is not None]


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def holds_floats(thing: Any) -> bool:
    """Does the object hold a floating tensor, so that a cast changes it?"""
    return any(tensor.is_floating_point() for tensor in tensors_in(thing))


def must_move(thing: Any, device: torch.device, dtype: torch.dtype | None) -> bool:
    """Is a tensor of the object elsewhere, or of another floating dtype?"""
    return any(
        tensor.device.type != device.type
        or (dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype)
        for tensor in tensors_in(thing)
    )
