"""One chunk of draws, and everything that several checks derive from it, computed at most once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch
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
    def x(self) -> Tensor:
        """Events (n, *event) from the model's sampler."""
        return self.subject.sample(self.n, "draws", self.index)

    @cached_property
    def z(self) -> Tensor:
        """Standardised coordinates (n, d) of the events."""
        return self.subject.profile.chart.coordinates(self.x)

    @cached_property
    def log_p(self) -> Tensor:
        """The model's log-density at its own draws; (n,)."""
        return log_density(self.subject, self.x)

    @cached_property
    def log_q(self) -> Tensor:
        """The reference's log-density at the model's draws; (n,)."""
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
        self.log_p = log_density(subject, self.x)


def log_density(subject: Subject, x: Tensor) -> Tensor:
    """The model's log-density of events (n, *event), without a graph, in float64; (n,)."""
    with torch.no_grad():
        return subject.model.log_prob(x).to(torch.float64)
