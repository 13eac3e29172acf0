"""nflows: `Flow(transform, distribution)`, and its distributions.

The library's transform goes from x to the noise z, its inverse is the contract's `forward`, and both come with
log |det| of their own direction.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.adapters.foreign import Methods, comes_from
from harness.adapters.modules import Found, density_of, model_of, sampler
from harness.model import Model


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """The model of a flow or a distribution that is asked without a context; None for anything else."""
    if not comes_from(thing, "nflows") or not isinstance(thing, nn.Module):
        return None
    from nflows.distributions import Distribution

    if not isinstance(thing, Distribution):
        return None
    return model_of(thing, "nflows", _find, name, device, dtype)


def _find(law: Any) -> Found:
    from nflows.flows.base import Flow

    methods: Methods = {"log_prob": density_of(law.log_prob), "sample": sampler(lambda n: _drawn(law, n))}
    base = law._distribution if isinstance(law, Flow) else law
    if isinstance(law, Flow):
        transform = law._transform
        methods |= {
            "forward": lambda z: transform.inverse(z)[0],
            "inverse": lambda x: transform(x)[0],
            "log_det": lambda z: transform.inverse(z)[1],
            "base": lambda: model_of(base, "nflows", _find, "base", _device(base), None),
        }
    shape = getattr(base, "_shape", None)
    return Found(methods, None if shape is None else tuple(shape))


def _drawn(law: Any, n: int) -> Tensor:
    """The noise is drawn in torch's default dtype, whatever the flow's own is: that is made the flow's meanwhile."""
    # A buffer of the base is float64 in every flow, so that only parameters tell; without any the default is kept.
    dtype = next((p.dtype for p in law.parameters() if p.is_floating_point()), torch.get_default_dtype())
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        drawn: Tensor = law.sample(n)
    finally:
        torch.set_default_dtype(before)
    return drawn


def _device(module: nn.Module) -> torch.device:
    held = [*module.parameters(), *module.buffers()]
    return held[0].device if held else torch.device("cpu")
