"""One chunk of draws, and everything that several checks derive from it, computed at most once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from harness.subject import Subject

T = TypeVar("T")


class Draws:
    """Chunk number `index` of a model's draws. All derived tensors have n rows; densities are float64."""

    def __init__(self, subject: Subject, index: int, n: int):
        self.subject, self.index, self.n = subject, index, n
        self._known: dict[str, Any] = {}

    def once(self, name: str, work: Callable[[], T]) -> T:
        """The result of `work` for this chunk, done at the first call of that name and kept."""
        if name not in self._known:
            self._known[name] = work()
        return self._known[name]

    @cached_property
    def x(self) -> Shaped[Tensor, " n *event"]:
        """Events from the model's sampler."""
        return self.subject.sample(self.n, "draws", self.index)

    @cached_property
    def z(self) -> Float64[Tensor, "n d"]:
        """Standardised coordinates of the events."""
        return self.subject.profile.chart.coordinates(self.x)

    @cached_property
    def log_p(self) -> Float64[Tensor, " n"]:
        """The model's log-density at its own draws."""
        return log_density(self.subject, self.x)

    @cached_property
    def log_q(self) -> Float64[Tensor, " n"]:
        """The reference's log-density at the model's draws."""
        return self.subject.reference.log_density(self.z)

    @cached_property
    def proposals(self) -> Proposals:
        """As many events from the reference."""
        return Proposals(self.subject, self.index, self.n)


class Proposals:
    """Events from the reference law, with both log-densities."""

    def __init__(self, subject: Subject, index: int, n: int):
        source = subject.generator("proposals", index)
        self.x, self.z, self.log_q = subject.reference.sample(n, source)
        # Coordinates for which the dtype has no event are left out of both sides of an identity.
        faithful = subject.profile.chart.faithful(self.z, self.x)
        self.log_p = torch.where(faithful, log_density(subject, self.x), -torch.inf)


def log_density(subject: Subject, x: Shaped[Tensor, " n *event"]) -> Float64[Tensor, " n"]:
    """The model's log-density of events, without a graph, in float64."""
    with torch.no_grad():
        return subject.model.log_prob(x).to(torch.float64)
