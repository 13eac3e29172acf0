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
from harness.errors import out_of_memory
from harness.model import Model, NotAModel


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
    refused = _not_implemented(module, find, device)
    # A module's own `forward` and `parameters` have other meanings than the contract's, as parts of it may have.
    parts = [name for name, _ in module.named_children()]
    added = extras(module, library, ("log_prob", "sample", "forward", "inverse", "parameters", *parts))
    return Model(
        name=name,
        methods={**{name: method for name, method in found.methods.items() if name not in refused}, **added},
        target=module,
        support=found.support,
        event_shape=found.shape,
        device=device,
        cast=lambda other: model_of(module, library, find, name, device, other),
        unfit={name: reason for name, reason in refused.items() if name not in added},
    )


def _not_implemented(module: nn.Module, find: Callable[[Any], Found], device: torch.device) -> dict[str, str]:
    """The methods that raise NotImplementedError, with what they say: the way back of a planar flow, for one.

    A copy is asked, since some modules set themselves up at the first call. Any other error is the checks' business.
    """
    try:
        copy = moved(module, device, None)
    except NotAModel:
        return {}
    methods, shape, _ = find(copy)
    dtype = next((p.dtype for p in copy.parameters() if p.is_floating_point()), torch.get_default_dtype())
    events = torch.zeros(2, *(shape or ()), device=device, dtype=dtype)
    refused = {}
    for name, method in methods.items():
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                if name == "sample":
                    method(len(events), generator=torch.Generator(device))
                elif name != "base" and shape is not None:
                    method(events)
        except NotImplementedError as refusal:
            refused[name] = f"{type(module).__name__} does not implement it" + (f": {refusal}" if str(refusal) else "")
        except Exception as error:
            if out_of_memory(error):
                raise
    return refused


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
