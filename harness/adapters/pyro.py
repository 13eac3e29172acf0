"""Pyro's distributions, which are torch's with more: learnt transforms that remember, masks, laws without a sampler.

Everything else about them is done by the adapter of torch's distributions. A mask takes factors out of log_prob, so
that it is no density any more. A transform that is a module remembers what it computed last; it is made to forget
before it is asked under other parameters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.distributions import ComposeTransform, Distribution, Independent, TransformedDistribution

from harness.adapters import torch_distributions
from harness.adapters.casting import moved
from harness.adapters.foreign import comes_from
from harness.errors import out_of_memory
from harness.model import Model, NotAModel


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """The model of a distribution of Pyro; None for anything else. Raises NotAModel for a masked one."""
    if not comes_from(thing, "pyro") or not isinstance(thing, Distribution):
        return None
    if _masked(thing):
        raise NotAModel(f"{name}: a mask takes factors out of log_prob, which is no density then: leave .mask() out")
    model = _remembering_nothing(torch_distributions.adapt(thing, name, device, dtype))
    if model is None:
        return None
    if not _can_draw(model.target):
        return _without("sample", model, f"{type(thing).__name__} of Pyro has no sampler")
    refusal = _no_way_back(model.target)
    return _one_way(_without("log_prob", model, refusal), model.target) if refusal else model


def _without(method: str, model: Model, reason: str) -> Model:
    kept = {key: value for key, value in model.methods.items() if key != method}
    return replace(model, methods=kept, unfit={**model.unfit, method: reason})


def _one_way(model: Model, law: Any) -> Model:
    """With what a transformed law has besides its draws: the base, where each of its draws goes, and its log_det."""
    if not isinstance(law, TransformedDistribution):
        return model
    outward = ComposeTransform(law.transforms)
    if outward.domain.event_dim != len(law.base_dist.batch_shape + law.base_dist.event_shape):
        return model  # one log_det an event, not one a coordinate, is that of the contract

    def log_det(z: torch.Tensor) -> Any:
        return outward.log_abs_det_jacobian(z, outward(z))

    def base() -> Any:
        return torch_distributions.adapt(law.base_dist, f"{model.name} base", model.device, None)

    return replace(model, methods={**model.methods, "forward": outward, "log_det": log_det, "base": base})


def _masked(law: Any) -> bool:
    if type(law).__name__ == "MaskedDistribution":
        return True
    return isinstance(law, Independent) and _masked(law.base_dist)


def _can_draw(law: Any) -> bool:
    """A law without a sampler says so when it is asked; any other trouble is the checks' business."""
    try:
        with torch.random.fork_rng(devices=[]):
            law.sample()
    except NotImplementedError:
        return False
    except Exception as error:
        if out_of_memory(error):
            raise
    return True


def _no_way_back(law: Any) -> str:
    """Why log_prob answers at the draw that a transform remembers only; empty where it answers. A copy is asked."""
    if not callable(getattr(law, "clear_cache", None)):
        return ""
    try:
        copy = moved(law, torch.device("cpu"), None)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            x = copy.sample()
            copy.clear_cache()
            copy.log_prob(x)
    except (NotImplementedError, KeyError) as refusal:
        return f"its transforms have no way back ({' '.join(str(refusal).split()) or type(refusal).__name__})"
    except Exception as error:
        if out_of_memory(error):
            raise
    return ""


def _remembering_nothing(model: Model | None) -> Model | None:
    """log_prob that starts with an empty memory, where the law has one."""
    forget = getattr(model.target, "clear_cache", None) if model is not None else None
    if model is None or not callable(forget) or "log_prob" not in model.methods:
        return model
    inner = model.methods["log_prob"]

    def log_prob(x: torch.Tensor) -> Any:
        forget()
        return inner(x)

    return replace(model, methods={**model.methods, "log_prob": log_prob})
