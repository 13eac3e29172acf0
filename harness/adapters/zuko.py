"""zuko's lazy distributions: flows and mixtures that are modules, and make a distribution when they are called.

zuko's transform goes from x to z, the contract's `forward` from z to x:
log p(x) = log base(f(x)) + log |det df/dx|, so log_det(z) = - log |det df/dx| at x = f^-1(z).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from harness.adapters.foreign import Methods, comes_from
from harness.adapters.modules import Found, density_of, model_of, sampler
from harness.errors import out_of_memory
from harness.model import Model, NotAModel


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """The model of a lazy distribution without a context; None for anything else. Raises NotAModel with a context."""
    if not comes_from(thing, "zuko"):
        return None
    from zuko.lazy import LazyDistribution

    if not isinstance(thing, LazyDistribution):
        return None  # a distribution is one of torch's, a transform is no model
    try:  # a flow makes a distribution without its context, too, which then cannot be asked
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            law = thing()
            law.log_prob(law.sample((1,)))
    except Exception as error:
        if out_of_memory(error):
            raise
        raise NotAModel(
            f"{name}: this {type(thing).__name__} makes no distribution without a context "
            f"({type(error).__name__}: {error}): give one with context=0, or the distribution that it makes of one"
        ) from error
    return model_of(thing, "zuko", _find, name, device, dtype)


def _find(flow: Any) -> Found:
    from zuko.distributions import NormalizingFlow

    law: Distribution = flow()
    methods: Methods = {
        "log_prob": density_of(lambda x: flow().log_prob(x)),
        "sample": sampler(lambda n: flow().sample((n,))),
    }
    if isinstance(law, NormalizingFlow):
        methods |= {
            "forward": lambda z: flow().transform.inv(z),
            "inverse": lambda x: flow().transform(x),
            "log_det": lambda z: _log_det(flow().transform, z),
            "base": lambda: _base(flow()),
        }
    return Found(methods, tuple(law.batch_shape + law.event_shape))


def _log_det(transform: Any, z: Tensor) -> Any:
    x = transform.inv(z)
    return -transform.log_abs_det_jacobian(x, transform(x))


def _base(law: Any) -> Any:
    from harness.adapters import torch_distributions

    device = next((value.device for value in vars(law.base).values() if isinstance(value, Tensor)), "cpu")
    return torch_distributions.adapt(law.base, "base", torch.device(device), None)
