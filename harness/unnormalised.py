"""Energies read as densities: log p(x) = -E(x), up to a constant or with the log Z that the model states.

What needs ratios of a density only, or asks whether its mass is 1, applies to energies in this reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from harness.model import Model

Inside = Callable[[Tensor], Tensor]
"""Events (n, *event) to a mask of n rows: may they occur?"""


def as_density(model: Model, *, normalised: bool = False, inside: Inside | None = None) -> Model:
    """The model with -E(x), or -E(x) - log Z if `normalised`, as its log_prob; -inf outside its support."""
    energy = model.methods["energy"]
    masks = [mask for mask in (model.support.check if model.support is not None else None, inside) if mask is not None]

    def log_prob(x: Tensor) -> Tensor:
        value = -energy(x)
        if normalised:
            value = value - model.methods["log_partition"]()
        for mask in masks:
            value = torch.where(mask(x).reshape(len(x), -1).all(1), value, -torch.inf)
        return value

    def cast(dtype: torch.dtype) -> Model:
        assert model.cast is not None
        return as_density(model.cast(dtype), normalised=normalised, inside=inside)

    methods = {name: method for name, method in model.methods.items() if name == "sample"}
    return replace(model, methods={**methods, "log_prob": log_prob}, cast=None if model.cast is None else cast)
