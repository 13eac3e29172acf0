"""normflows: `NormalizingFlow(q0, flows)`, whose `forward` goes from z to x, as the contract's does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.adapters.foreign import Methods, comes_from
from harness.adapters.modules import Found, density_of, model_of, sampler
from harness.model import Model, NotAModel

OTHERS = ("ConditionalNormalizingFlow", "ClassCondFlow", "MultiscaleFlow", "NormalizingFlowVAE")
"""Classes of another interface: with a context or a class, or with a bound only."""


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """The model of an unconditional flow; None for anything else. Raises NotAModel for the library's other classes."""
    if not comes_from(thing, "normflows"):
        return None
    from normflows import NormalizingFlow
    from normflows.distributions import BaseDistribution

    classes = {cls.__name__ for cls in type(thing).__mro__}
    if classes & set(OTHERS):
        raise NotAModel(f"{name}: a {type(thing).__name__} is asked in another way: give a NormalizingFlow")
    if isinstance(thing, NormalizingFlow):
        return model_of(thing, "normflows", _find_flow, name, device, dtype)
    if isinstance(thing, BaseDistribution):
        return model_of(thing, "normflows", _find_base, name, device, dtype)
    return None


def _find_flow(flow: Any) -> Found:
    methods: Methods = {
        "log_prob": density_of(flow.log_prob),
        "sample": sampler(lambda n: flow.sample(n)[0]),
        "forward": lambda z: flow.forward(z),
        "inverse": lambda x: flow.inverse(x),
        "log_det": lambda z: flow.forward_and_log_det(z)[1],
        "base": lambda: model_of(flow.q0, "normflows", _find_base, "base", _device(flow), None),
    }
    return Found(methods, _shape(flow.q0))


def _find_base(law: Any) -> Found:
    return Found(
        {"log_prob": density_of(law.log_prob), "sample": sampler(lambda n: law.forward(n)[0])},
        _shape(law),
    )


def _shape(law: Any) -> tuple[int, ...]:
    """The shape of one draw: not every base says it."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        draw: Tensor = law.forward(1)[0]
    return tuple(draw.shape[1:])


def _device(module: Any) -> torch.device:
    held = [*module.parameters(), *module.buffers()]
    return held[0].device if held else torch.device("cpu")
