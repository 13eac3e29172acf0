"""A model as the examiner sees it: a name, the capabilities that were found, and what an adapter knows besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributions.constraints import Constraint


class NotAModel(TypeError):  # noqa: N818 - a statement about the object, not an error of the program
    """The object has no capability of the contract and no adapter knows it; the message names the fix."""


@dataclass(frozen=True)
class Model:
    """An adapted model. Capabilities are called as methods: `model.log_prob(x)`, `model.sample(n, generator=g)`.

    `target` is the object behind it; a capability that takes a second model (`kl`) hands that one's target to the
    foreign method. `support` and `event_shape` are None where nobody declared them; `support.check` of events
    [n, *event] is [n]. `cast(dtype)` rebuilds the model in another floating dtype, None where there is only one.
    `sibling()` builds another model of the same kind, with other parameters. `given_shape` is the shape of what a model
    that only has laws given something is asked at. `unfit` says of methods that have a name
    of the contract, and are no capability, why not.
    """

    name: str
    methods: Mapping[str, Callable[..., Any]]
    target: object = None
    support: Constraint | None = None
    event_shape: tuple[int, ...] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cast: Callable[[torch.dtype], Model] | None = None
    sibling: Callable[[], Model] | None = None
    given_shape: tuple[int, ...] | None = None
    unfit: Mapping[str, str] = field(default_factory=dict)

    def can(self, *capabilities: str) -> bool:
        """Does the model have all of these capabilities?"""
        return all(capability in self.methods for capability in capabilities)

    def __getattr__(self, capability: str) -> Callable[..., Any]:
        try:
            return self.__dict__["methods"][capability]
        except KeyError:
            raise AttributeError(f"model has no capability {capability!r}") from None
