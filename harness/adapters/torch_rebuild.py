"""The same `torch.distributions` family at other parameters, or in another dtype.

Distributions keep numbers that they derived from their parameters (normalised probabilities, Cholesky factors, cached
properties). Converted one by one to float64 these would agree to float32's rounding only, and a check of the float64
model would rightly say so. So a copy is made and the constructor of torch's class is run on it again, with converted
parameters; whatever a subclass added is kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution, constraints, kl_divergence, transform_to
from torch.distributions.utils import lazy_property

from harness.adapters.casting import conversion, moved, tensors_in
from harness.errors import out_of_memory

ALTERNATIVES = (("probs", "logits"), ("scale_tril", "covariance_matrix", "precision_matrix"))
"""Parameters of which a constructor takes one."""

ATTRIBUTES = {"base_distribution": "base_dist", "lims": "_lims"}
"""Where a constructor's argument is kept under another name."""

STEPS = tuple(sign * 0.3 / 8**k for k in range(12) for sign in (1, -1))
"""How far a sibling's parameters may be moved, in unconstrained coordinates, until the two laws overlap well."""

MOST_NATS = 2.0
"""The divergence up to which they do: draws of one have a weight of about e^-2 under the other."""

Change = Callable[[Distribution, str, Any], Any]
"""From a distribution, the name of a parameter and its value to the new value."""


def recast(law: Distribution, device: torch.device, dtype: torch.dtype | None) -> Distribution:
    """The distribution on that device and in that dtype, as its constructor would have made it there."""
    convert = conversion(device, dtype)

    def change(owner: Distribution, name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return convert(value.detach())
        return recast(value, device, dtype) if isinstance(value, Distribution) else moved(value, device, dtype)

    return _rebuilt(moved(law, device, dtype), law, change, validate=False)


def sibling_of(law: Distribution) -> Distribution | None:
    """The same family at other parameters, each moved inside its constraint; None where that is not clear.

    It is made for divergences, so that it is a near one: of a step that goes too far (out of the support, say) the
    opposite is tried, then smaller ones.
    """
    for step in STEPS:
        try:
            other = _moved_by(law, step)
            if other is None:
                return None
            nats = kl_divergence(law, other)
            if bool((nats <= MOST_NATS).all()):
                return other
        except Exception as refusal:  # no standard transform, an unusual constructor, no divergence: nothing wrong
            if out_of_memory(refusal):
                raise
            return None
    return None


def _moved_by(law: Distribution, step: float) -> Distribution | None:
    changed = False

    def change(owner: Distribution, name: str, value: Any) -> Any:
        nonlocal changed
        if isinstance(value, Distribution):
            inner = None if _must_stay(owner, value) else _moved_by(value, step)
            changed = changed or inner is not None
            return value if inner is None else inner
        constraint = owner.arg_constraints.get(name)  # type: ignore[union-attr]
        if constraint is None or constraint.is_discrete or not isinstance(value, Tensor):
            return value
        changed = True
        return _elsewhere(value, constraint, step)

    other = _rebuilt(moved(law, _device(law), None), law, change, validate=True)
    return other if changed else None


def _must_stay(owner: Distribution, base: Distribution) -> bool:
    """Would other parameters of the base take its support out of what the first transform is defined on?"""
    if not isinstance(owner, TransformedDistribution) or not owner.transforms:
        return False
    depends = isinstance(vars(type(base)).get("support"), constraints.dependent_property)
    return depends and not _everywhere(owner.transforms[0].domain)


def _elsewhere(value: Tensor, constraint: Any, step: float) -> Tensor:
    transform = transform_to(constraint)
    free = transform.inv(value.detach())
    steps = torch.cos(torch.arange(free.numel(), dtype=torch.float64)).to(free).reshape(free.shape)
    return transform(free + step * steps)


def _rebuilt(new: Distribution, law: Distribution, change: Change, *, validate: bool) -> Distribution:
    """`new`, a copy of `law`, with torch's constructor run on it again with changed parameters."""
    cls = next(cls for cls in type(law).__mro__ if cls.__module__.startswith("torch.distributions"))
    arguments = {name: change(law, name, value) for name, value in _arguments(law, cls)}
    if not arguments:
        return new
    for name in [name for name in vars(new) if isinstance(getattr(type(new), name, None), lazy_property)]:
        del vars(new)[name]  # a cached property, computed anew when it is asked for
    checks = law._validate_args
    cls.__init__(new, **arguments, validate_args=validate)  # type: ignore[misc]
    new._validate_args = checks
    return new


def _arguments(law: Distribution, cls: type) -> Iterator[tuple[str, Any]]:
    """What the constructor of torch's class needs, read from the attributes that it made of its arguments."""
    for name in inspect.signature(cls.__init__).parameters:  # type: ignore[misc]
        alternatives = next((group for group in ALTERNATIVES if name in group), (name,))
        if name in ("self", "validate_args", "batch_shape", "event_shape") or name != _given(law, alternatives):
            continue
        yield name, getattr(law, ATTRIBUTES.get(name, name))


def _given(law: Distribution, alternatives: tuple[str, ...]) -> str:
    """Which of the alternatives the distribution was made with; a Cholesky factor can always be had.

    An attribute that was set by the constructor comes before one that was cached later.
    """
    if len(alternatives) == 1 or "scale_tril" in alternatives:
        return alternatives[0]
    inner = (part for part in vars(law).values() if isinstance(part, Distribution))
    for part in (law, *inner):
        if part is not law and (found := _given(part, alternatives)):
            return found
        for name in vars(part):
            if name in alternatives:
                return name
    return ""


def _device(law: Distribution) -> torch.device:
    return next((tensor.device for tensor in tensors_in(law)), torch.device("cpu"))


def _everywhere(domain: constraints.Constraint) -> bool:
    """Is every number, or every event of numbers, in it?"""
    while isinstance(domain, constraints.independent):
        domain = domain.base_constraint
    return domain is constraints.real
