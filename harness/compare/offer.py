"""What a function or class that makes a model is called with, besides the training rows: what it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.compare.view import View
from harness.streams import generator as stream


@dataclass(frozen=True)
class Offer:
    """What a function may ask for by name. `device` is where the model is going to be examined."""

    view: View
    seed: int
    seconds: float
    device: torch.device

    def to(self, function: Any) -> tuple[Tensor, dict[str, Any]]:
        """The training rows and the other arguments, on the device if `device` is among them."""
        named = _named(function)
        view, place = (self.view.on(self.device), self.device) if "device" in named else (self.view, "cpu")
        offered: dict[str, Callable[[], Any]] = {
            "valid": lambda: view.valid,
            "levels": lambda: view.levels,
            "generator": lambda: stream(self.seed, "compare", "training", device=place),
            "seed": lambda: self.seed,
            "seconds": lambda: self.seconds,
            "device": lambda: self.device,
        }
        return view.train, {name: value() for name, value in offered.items() if name in named}


def _named(function: Any) -> set[str]:
    """Names of the parameters that nobody gave."""
    try:
        return set(inspect.signature(function).parameters) - set(getattr(function, "keywords", {}))
    except (TypeError, ValueError):
        return set()
