"""What adapters of torch modules of other libraries share: moving, casting, and one Model from what was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from harness.adapters.casting import moved, must_move
from harness.adapters.foreign import Methods, extras
from harness.adapters.global_rng import drawing_from
from harness.model import Model


class Found(NamedTuple):
    """What was found in a module: its methods, and the shape and support of its events."""

    methods: Methods
    shape: tuple[int, ...] | None
    support: constraints.Constraint | None = None


def model_of(
    module: nn.Module,
    library: str,
    find: Callable[[Any], Found],
    name: str,
    device: torch.device,
    dtype: torch.dtype | None,
) -> Model:
    """The model of a module, in that dtype and on that device; methods that somebody added to it come first."""
    if must_move(module, device, dtype):
        module = moved(module, device, dtype)
    found = find(module)
    # A module's own `forward` and `parameters` have other meanings than the contract's, as parts of it may have.
    parts = [name for name, _ in module.named_children()]
    added = extras(module, library, ("log_prob", "sample", "forward", "inverse", "parameters", *parts))
    return Model(
        name=name,
        methods={**found.methods, **added},
        target=module,
        support=found.support,
        event_shape=found.shape,
        device=device,
        cast=lambda other: model_of(module, library, find, name, device, other),
    )


def density_of(ask: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """`log_prob` by a function of rows that may refuse a batch of none: it is asked for one row at least."""

    def log_prob(x: Tensor) -> Any:
        return ask(x) if len(x) else ask(x.new_zeros(1, *x.shape[1:]))[:0]

    return log_prob


def sampler(draw: Callable[[int], Tensor]) -> Callable[..., Any]:
    """`sample` by a function of n that draws from torch's global generator, and is asked for one draw at least."""

    def sample(n: int, *, generator: torch.Generator) -> Any:
        with torch.no_grad(), drawing_from(generator):
            return draw(n) if n else draw(1)[:0]

    return sample
