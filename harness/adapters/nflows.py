"""nflows: `Flow(transform, distribution)`, and its distributions.

The library's transform goes from x to the noise z, its inverse is the contract's `forward`, and both come with
log |det| of their own direction.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

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

    methods: Methods = {"log_prob": density_of(law.log_prob), "sample": sampler(lambda n: law.sample(n))}
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


def _device(module: nn.Module) -> torch.device:
    held = [*module.parameters(), *module.buffers()]
    return held[0].device if held else torch.device("cpu")
