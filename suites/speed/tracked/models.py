"""asv: every reference model that the package declares, at the size of its preset.

Draws are those of the model itself. Presets of the size that real data want are asked for sixteen rows, not a thousand.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from harness.adapters import adapt
from harness.streams import generator
from suites.speed.tracked import measures
from suites.speed.tracked.measures import DEVICES, DTYPES, SEED, Samples

PRESETS = measures.presets()
FEW, MANY = 16, 1000
POINTS, FEW_POINTS = 2000, 64
"""Held-out points of which NLL is the mean."""


def is_slow(name: str) -> bool:
    """Is the preset of the size that real data want, called full_...? A thousand rows of it may take a minute."""
    return name.partition(".")[2].startswith("full_")


class _Preset:
    """The axes that all have. `rows` are those of one call."""

    params = (list(PRESETS), [FEW, MANY], DTYPES, DEVICES)
    param_names = ("model", "rows", "dtype", "device")
    version = "1"
    timeout = 300
    capability = ""

    def setup(self, name: str, rows: int, dtype: str, device: str) -> None:
        if rows == MANY and is_slow(name):
            raise NotImplementedError(f"{MANY} rows of {name} may take a minute: see {FEW}")
        self.model = measures.prepared(PRESETS[name], name, dtype, device)
        self.job = measures.job(self.model, self.capability, rows)


class Sample(_Preset):
    """Draws."""

    capability = "sample"

    def track_seconds(self, *_: Any) -> Samples:
        return measures.seconds_a_row(self.job)

    def track_peak_bytes(self, *_: Any) -> int:
        return measures.peak_bytes(self.job)

    track_seconds.unit, track_peak_bytes.unit = "seconds", "bytes"


class LogProb(_Preset):
    """Densities."""

    capability = "log_prob"

    def track_seconds(self, *_: Any) -> Samples:
        return measures.seconds_a_row(self.job)

    def track_peak_bytes(self, *_: Any) -> int:
        return measures.peak_bytes(self.job)

    track_seconds.unit, track_peak_bytes.unit = "seconds", "bytes"


class Fit(_Preset):
    """The maximum-likelihood model of so many rows; seconds of one row."""

    capability = "fit"

    def track_seconds(self, *_: Any) -> Samples:
        return measures.seconds_a_row(self.job)

    track_seconds.unit = "seconds"


class Quality:
    """exp(NLL / d) on draws of the preset itself in float64, with a seed of their own: the same at every commit.

    It changes when log_prob does, or when the sampler uses its random numbers otherwise. With n points of deviation s
    the latter moves it by about s / sqrt(n).
    """

    params = (list(PRESETS), DTYPES, DEVICES)
    param_names = ("model", "dtype", "device")
    version = "1"
    timeout = 300

    def setup(self, name: str, dtype: str, device: str) -> None:
        self.model = measures.prepared(PRESETS[name], name, dtype, device)
        if not self.model.can("log_prob", "sample"):
            raise NotImplementedError(f"{name} lacks log_prob or sample")
        source = adapt(PRESETS[name](), name)
        source = source if source.cast is None else source.cast(torch.float64)
        n = FEW_POINTS if is_slow(name) else POINTS
        with torch.no_grad():
            x = source.sample(n, generator=generator(SEED, "asv held out", name))
        self.x = _like(x, self.model)

    def track_perplexity(self, *_: Any) -> float:
        return measures.perplexity(self.model, self.x)

    track_perplexity.unit = "exp(nats/dim)"


class Train:
    """One step of Adam on the model's own loss, gradient and update; seconds of one row of the minibatch."""

    params = (list(PRESETS), [FEW, 128], DTYPES, DEVICES)
    param_names = ("model", "rows", "dtype", "device")
    version = "1"
    timeout = 300

    def setup(self, name: str, rows: int, dtype: str, device: str) -> None:
        measures.on(device)
        self.net = PRESETS[name]()
        if not isinstance(self.net, nn.Module) or not hasattr(self.net, "loss"):
            raise NotImplementedError(f"{name} has no loss")
        self.net = self.net.to(device, getattr(torch, dtype)).train()
        self.x = self.events(name, 4 * rows)
        self.labelled = "y" in inspect.signature(self.net.loss).parameters
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=1e-4)
        self.rows, self.device = rows, device

    def events(self, name: str, n: int) -> Tensor:
        """Draws of the model; standard normal numbers where it draws no events, as a step takes as long on those."""
        model = adapt(self.net, name, next(self.net.parameters()).device)
        if model.can("sample"):
            with torch.no_grad():
                return model.sample(n, generator=self.stream("draws"))
        shape = model.event_shape or model.given_shape or getattr(self.net, "event_shape", None)
        if shape is None:
            raise NotImplementedError(f"{name} has a loss, but nobody says of events of which shape")
        like = next(self.net.parameters())
        return torch.randn(n, *shape, generator=self.stream("draws"), dtype=like.dtype, device=like.device)

    def stream(self, *names: str | int) -> torch.Generator:
        return generator(SEED, "asv", *names, device=next(self.net.parameters()).device)

    def fresh(self, step: int) -> tuple[list[Tensor], torch.Generator]:
        """A minibatch, with labels 0 and 1 where the loss wants some, and what the loss may draw from."""
        source = self.stream("step", step)
        x = self.x[torch.randperm(len(self.x), generator=source, device=self.x.device)[: self.rows]]
        y = [torch.arange(self.rows, device=self.x.device) % 2] if self.labelled else []
        return [x, *y], source

    def step(self, given: tuple[list[Tensor], torch.Generator]) -> Tensor:
        rows, source = given
        self.optimiser.zero_grad(set_to_none=True)
        value = self.net.loss(*rows, generator=source)
        value.backward()
        self.optimiser.step()
        return value.detach()

    def track_seconds(self, *_: Any) -> Samples:
        return measures.seconds(self.step, self.device, self.rows, fresh=self.fresh, inspect=_finite)

    track_seconds.unit = "seconds"


def _finite(loss: Tensor) -> None:
    if not bool(loss.isfinite()):
        raise FloatingPointError(f"the loss is {float(loss)}")


def _like(x: Tensor, model: Any) -> Tensor:
    """Events in the dtype and on the device of the model's own."""
    with torch.no_grad():
        own = model.sample(2, generator=generator(SEED, "asv dtype", device=model.device))
    return x.to(own.device, own.dtype)
