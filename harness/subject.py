"""A model on the examiner's table: the model, its profile, its random streams, and what was worked out once for all."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from harness.effort import Effort
from harness.model import Model
from harness.profile import Profile, profile
from harness.reference import Reference, fit_reference
from harness.scout import points
from harness.streams import generator, seed_for
from harness.unnormalised import as_density

T = TypeVar("T")


class Subject:
    """What checks are given: all of it a function of (model, seed, effort), so a check alone sees what a run saw."""

    def __init__(self, model: Model, effort: Effort, seed: int):
        self.model, self.effort, self.seed = model, effort, seed
        self._known: dict[str, Any] = {}

    def generator(self, *names: str | int) -> torch.Generator:
        """The stream of that name, on the model's device."""
        return generator(self.seed, *names, device=self.model.device)

    def seed_for(self, *names: str | int) -> int:
        """An integer seed for the stream of that name."""
        return seed_for(self.seed, *names)

    def once(self, name: str, work: Callable[[], T]) -> T:
        """The result of `work`, done at the first call of that name and kept."""
        if name not in self._known:
            self._known[name] = work()
        return self._known[name]

    def sample(self, n: int, *names: str | int) -> Tensor:
        """n draws of the model from the stream of that name, without a graph.

        Of a model that only has laws given something, what it is given: labels, or standard normal numbers.
        """
        if self.only_given:
            return self._given(n, self.generator(*names))
        with torch.no_grad():
            x = self.model.sample(n, generator=self.generator(*names))
        return x.detach() if isinstance(x, Tensor) else x

    @property
    def only_given(self) -> bool:
        """Has the model laws given something, and none of events alone?"""
        model = self.model
        if model.can("sample"):
            return False
        labelled = model.can("class_prior") and not (model.can("log_prob") or model.can("energy"))
        return model.given_shape is not None or labelled

    def _given(self, n: int, source: torch.Generator) -> Tensor:
        """n rows of what may be given."""
        if self.model.given_shape is not None:
            return torch.randn(n, *self.model.given_shape, generator=source, device=self.model.device)
        prior = self.model.class_prior().detach().double()
        return torch.multinomial(prior, n, replacement=True, generator=source)

    @cached_property
    def pilot(self) -> Tensor:
        """Draws that steer the examination (scale, regions, proposals) and are never evidence of it themselves.

        For a density alone, points that its mass was located by.
        """
        if not self.model.can("sample") and not self.only_given:
            return points(_density_of(self.model), self.seed, self.effort.pilot)
        few = self.sample(64, "pilot", "shape")
        size = max(1, few[0].numel())
        return self.sample(max(self.effort.pilot, min(256 * size, 2**22 // size, 2**15)), "pilot")

    @cached_property
    def profile(self) -> Profile:
        """Shape, scale, kinds of coordinates."""
        return profile(self.model, self.pilot)

    @cached_property
    def reference(self) -> Reference:
        """The tractable law fitted to the pilot draws."""
        return fit_reference(self.profile, self.seed)


def _density_of(model: Model) -> Model:
    """The model, or its energy read as a density where it has no other."""
    return model if model.can("log_prob") or not model.can("energy") else as_density(model)
