"""One chunk of draws, and everything that several checks derive from it, computed at most once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

from harness.cells import FINE, neighbours, spacing, spread_out
from harness.errors import out_of_memory
from harness.numerics.rows import finite_rows
from harness.states import must_be_asked, supported
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
        """Standardised coordinates of the events; of a random place of their cells where the dtype is coarse."""
        chart = self.subject.profile.chart
        if not spacing(self.subject) > FINE:
            return chart.coordinates(self.x)
        return chart.coordinates(spread_out(self.subject, self.x, self.subject.generator("cells", self.index)))

    @cached_property
    def log_p(self) -> Float64[Tensor, " n"]:
        """The model's log-density at its own draws."""
        return log_density(self.subject, self.x)

    @cached_property
    def within(self) -> Bool[Tensor, " n"]:
        """Does the draw lie where proposals may be judged? Identities are restricted to that domain on both sides."""
        return within(self.subject, self.x)

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
        self.log_p = log_density_where(subject, self.x, faithful & within(subject, self.x))


def log_density(subject: Subject, x: Shaped[Tensor, " n *event"]) -> Float64[Tensor, " n"]:
    """The model's log-density of events, without a graph, in float64."""
    with torch.no_grad():
        return subject.model.log_prob(x).to(torch.float64)


def log_density_where(
    subject: Subject, x: Shaped[Tensor, " n *event"], wanted: Bool[Tensor, " n"]
) -> Float64[Tensor, " n"]:
    """The log-density of the wanted events; -inf, without asking the model, of the others and of non-finite ones."""
    wanted = wanted & finite_rows(x)
    if bool(wanted.all()):
        return log_density(subject, x)
    stand_in = subject.pilot[:1].to(x)
    safe = torch.where(wanted.reshape(-1, *(1,) * (x.ndim - 1)), x, stand_in)
    return torch.where(wanted, log_density(subject, safe), -torch.inf)


def within(subject: Subject, x: Shaped[Tensor, " n *event"]) -> Bool[Tensor, " n"]:
    """All events in the declared support; for a model that raises outside it, those in the box that pilot draws span.

    What a density says outside its support is for `support.impossible_outside` alone. Of a coarse dtype, those whose
    neighbours are possible too: at an edge of the support a sampler that rounds gives the last event half a cell, while
    the density says a whole one.
    """
    inside = _in_box(subject, x) & _in_support(subject, x)
    if not spacing(subject) > FINE:
        return inside
    for neighbour in neighbours(x):
        inside = inside & (log_density_where(subject, neighbour, _in_box(subject, neighbour)) > -torch.inf)
    return inside


def _in_box(subject: Subject, x: Shaped[Tensor, " n *event"]) -> Bool[Tensor, " n"]:
    box = subject.once("domain", lambda: _domain(subject))
    if box is None:
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    flat = x.reshape(len(x), -1)
    return ((flat >= box[0]) & (flat <= box[1])).all(1)


def _in_support(subject: Subject, x: Shaped[Tensor, " n *event"]) -> Bool[Tensor, " n"]:
    if not subject.once("support must be asked", lambda: must_be_asked(subject.model)):
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    return supported(subject.model, x)


def _domain(subject: Subject) -> tuple[Tensor, Tensor] | None:
    """The pilot's box if the model refuses proposals, None if it takes them all."""
    source = subject.generator("proposals", "domain")
    x, z, _ = subject.reference.sample(2**12, source)
    asked = subject.profile.chart.faithful(z, x) & _in_support(subject, x)
    try:
        log_density_where(subject, x, asked)
    except Exception as refusal:  # the contract says -inf; a model that raises is asked inside its draws' box only
        if out_of_memory(refusal):
            raise
        flat = subject.pilot.reshape(len(subject.pilot), -1)
        return flat.amin(0), flat.amax(0)
    return None
