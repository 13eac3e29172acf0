"""A device that every machine has: tensors that say they are elsewhere, and hold numbers on the CPU.

What a module leaves behind when it is moved shows only where there is a second device. Here is one for machines that
have none. Its tensors report the device `meta` and carry their numbers along, so that code that looks at values goes on
as it would on an accelerator; an operation that mixes them with tensors of the CPU is refused, as CUDA would refuse it.
Numbers without axes, and indices into a tensor elsewhere, may come from the CPU there too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from harness.adapters.casting import tensors_in

AWAY = torch.device("meta")
CPU = torch.device("cpu")

aten = torch.ops.aten
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
COPIES = (aten._to_copy.default, aten.copy_.default)


class LeftBehindError(RuntimeError):
    """An operation met tensors on two devices."""


class Elsewhere(Tensor):
    """A tensor that is said to be on the other device; `here` has its numbers."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        return Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=AWAY,
            requires_grad=here.requires_grad,
        )

    def __init__(self, here: Tensor):
        self.here = here.detach()

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore
        return carried_out(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Elsewhere:
        other = Elsewhere(self.here.clone())
        other.requires_grad_(self.requires_grad)
        return other


def carried_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the numbers; its results are elsewhere if what it was given is, or if it was asked for that."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    asked = kwargs.get("device")
    away = any(isinstance(each, Elsewhere) for each in given)
    if away and func not in COPIES:
        _refuse_mixed(func, args, given)
    goes_away = away if asked is None else torch.device(asked) == AWAY
    if func is aten.copy_.default:
        goes_away = isinstance(args[0], Elsewhere)
    here_args, here_kwargs = tree_map(_here, (args, kwargs))
    if asked is not None:
        here_kwargs["device"] = CPU
    result = func(*here_args, **here_kwargs)
    if not goes_away:
        return result
    known = {id(each.here): each for each in given if isinstance(each, Elsewhere)}  # what was changed in place

    def said(leaf: Any) -> Any:
        return known.get(id(leaf), Elsewhere(leaf)) if isinstance(leaf, Tensor) else leaf

    return tree_map(said, result)


def _refuse_mixed(func: Any, args: Any, given: list[Tensor]) -> None:
    """Raises LeftBehindError where a tensor with axes is on the CPU, unless it is an index."""
    if func in INDEXED and isinstance(args[0], Elsewhere):
        given = [args[0], *(leaf for leaf in tree_leaves(args[2:]) if isinstance(leaf, Tensor))]
    for each in given:
        if not isinstance(each, Elsewhere) and each.dim() > 0:
            raise LeftBehindError(
                f"{func.__name__.split('.')[0]} of a tensor {tuple(each.shape)} that is on the CPU still"
            )


def _here(leaf: Any) -> Any:
    return leaf.here if isinstance(leaf, Elsewhere) else leaf


class _Operations(TorchDispatchMode):
    """Operations that are given no tensor elsewhere may still be asked for one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Numbers that become tensors, and tensors that become numbers, before any operation is seen."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and asked is not None and torch.device(asked) == AWAY:
            return sent(func(*args, **{**kwargs, "device": None}))
        if func is Tensor.tolist:
            return _here(args[0]).tolist()
        return func(*args, **kwargs)


def sent(tensor: Tensor) -> Tensor:
    """The tensor elsewhere."""
    return tensor if isinstance(tensor, Elsewhere) else Elsewhere(tensor)


def moved_away(thing: Any, owned: Iterator[Tensor]) -> Any:
    """A copy of which the tensors that modules own, and so `to(device)` takes along, are elsewhere, and no others."""
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in tensors_in(thing)}
    for tensor in owned:
        other = Elsewhere(tensor.detach().clone())
        memo[id(tensor)] = nn.Parameter(other, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else other
    return copy.deepcopy(thing, memo)


def asked_there(question: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """question(x) with x elsewhere; its answer brought back. Raises LeftBehindError."""
    with torch.no_grad(), _Literals(), _Operations():
        answer = question(Elsewhere(x.clone()))
    if not isinstance(answer, Elsewhere):
        raise LeftBehindError(f"the answer is on {answer.device}")
    return answer.here
