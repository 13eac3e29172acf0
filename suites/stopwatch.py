"""How much of an examination is the model's own time: its methods, and the way back through their gradients."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants import mutated


@dataclass
class Stopwatch:
    """CPU seconds spent in the model, and when the current way back began."""

    seconds: float = 0.0
    began: float = 0.0


def watched(model: Model, watch: Stopwatch) -> Model:
    """The same model, each of whose methods adds its time to the watch; in every dtype that it can be cast to."""

    def change(base: Model) -> dict[str, Callable[..., Any]]:
        return {name: _timed(method, watch) for name, method in base.methods.items()}

    return mutated(model, change)


def _timed(method: Callable[..., Any], watch: Stopwatch) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        args = tuple(_End.apply(arg, watch) if _in_graph(arg) else arg for arg in args)
        began = time.process_time()
        result = method(*args, **kwargs)
        watch.seconds += time.process_time() - began
        return _Start.apply(result, watch) if _in_graph(result) else result

    return call


def _in_graph(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled()


class _Start(torch.autograd.Function):
    """The identity behind the model's result: gradients come here first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, watch: Stopwatch) -> Tensor:
        ctx.watch = watch
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        ctx.watch.began = time.process_time()
        return gradient, None


class _End(torch.autograd.Function):
    """The identity before the model's argument: gradients come here last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, watch: Stopwatch) -> Tensor:
        ctx.watch = watch
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        ctx.watch.seconds += time.process_time() - ctx.watch.began
        return gradient, None
