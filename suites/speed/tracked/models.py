"""asv: every reference model that the package declares, at the size of its preset.

Draws are those of the model itself. Presets of the size that real data want are asked for sixteen rows, not a thousand.
What a preset lacks is n/a: some have no density, some nothing to train. Where a model only has laws given something, or
a bound in the place of a density, `measures.prepared` says what is asked.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.adapters import adapt
from harness.streams import generator
from reference_impls.training import Player

from . import measures
from .measures import DEVICES, DTYPES, SEED, Samples

PRESETS = measures.presets()
FEW, MANY = 16, 1000
POINTS, FEW_POINTS = 2000, 64
"""Held-out points of which NLL is the mean."""


def is_slow(name: str) -> bool:
    """Is the preset of the size that real data want, called full_...? A thousand rows of it may take a minute."""
    return name.partition(".")[2].startswith("full_")


class _Preset:
    """The axes that all have. `rows` are those of one call."""

    params = (PRESETS, [FEW, MANY], DTYPES, DEVICES)
    param_names = ("model", "rows", "dtype", "device")
    version = "1"
    timeout = 300
    capability = ""

    def setup(self, name: str, rows: int, dtype: str, device: str) -> None:
        if rows == MANY and is_slow(name):
            raise NotImplementedError(f"{MANY} rows of {name} may take a minute: see {FEW}")
        self.model = measures.prepared(partial(measures.preset, name), name, dtype, device)
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

    params = (PRESETS, DTYPES, DEVICES)
    param_names = ("model", "dtype", "device")
    version = "1"
    timeout = 300

    def setup(self, name: str, dtype: str, device: str) -> None:
        self.model = measures.prepared(partial(measures.preset, name), name, dtype, device)
        if not self.model.can("log_prob", "sample"):
            raise NotImplementedError(f"{name} lacks log_prob or sample")
        source = _exact(name)
        n = FEW_POINTS if is_slow(name) else POINTS
        with torch.no_grad():
            x = source.sample(n, generator=generator(SEED, "asv held out", name))
        self.x = _like(x, self.model)

    def track_perplexity(self, *_: Any) -> float:
        return measures.perplexity(self.model, self.x)

    track_perplexity.unit = "exp(nats/dim)"


class Train:
    """One step of Adam on the model's own losses, gradients and updates; seconds of one row of the minibatch.

    The players of an adversarial network make one move each.
    """

    params = (PRESETS, [FEW, 128], DTYPES, DEVICES)
    param_names = ("model", "rows", "dtype", "device")
    version = "1"
    timeout = 300

    def setup(self, name: str, rows: int, dtype: str, device: str) -> None:
        measures.on(device)
        self.net = measures.preset(name)
        if not isinstance(self.net, nn.Module) or not (hasattr(self.net, "loss") or hasattr(self.net, "players")):
            raise NotImplementedError(f"{name} has no loss")
        self.net = self.net.to(device, getattr(torch, dtype)).train()
        self.moves = _moves(self.net)
        if not self.moves:
            raise NotImplementedError(f"{name} has no parameters")
        self.x = self.events(name, 4 * rows)
        self.beside = _beside_events(self.net, self.moves[0][0])
        self.rows, self.device = rows, device

    def events(self, name: str, n: int) -> Tensor:
        """Draws of the model; standard normal numbers for what a classifier sorts, and for what is only completed."""
        like = next(self.net.parameters())
        model = adapt(self.net, name, like.device)
        shape = model.event_shape or (model.given_shape if model.can("posterior") else None)
        if shape is not None and not model.can("sample"):
            return torch.randn(n, *shape, generator=self.stream("draws"), dtype=like.dtype, device=like.device)
        with torch.no_grad():
            return measures.given_one(model, like.dtype).sample(n, generator=self.stream("draws"))

    def stream(self, *names: str | int) -> torch.Generator:
        return generator(SEED, "asv", *names, device=next(self.net.parameters()).device)

    def fresh(self, step: int) -> tuple[list[Tensor], torch.Generator]:
        """A minibatch, with labels 0 and 1 or normal numbers beside it where the loss wants some, and a generator."""
        source = self.stream("step", step)
        x = self.x[torch.randperm(len(self.x), generator=source, device=self.x.device)[: self.rows]]
        return [x, *(self.other(each, source) for each in self.beside)], source

    def other(self, name: str, source: torch.Generator) -> Tensor:
        like = next(self.net.parameters())
        if name == "y":
            return torch.arange(self.rows, device=like.device) % 2
        return torch.randn(self.rows, *self.net.given_shape, generator=source, dtype=like.dtype, device=like.device)

    def step(self, given: tuple[list[Tensor], torch.Generator]) -> Tensor:
        rows, source = given
        for player, optimiser in self.moves:
            optimiser.zero_grad(set_to_none=True)
            value = player.loss(*rows, generator=source)
            value.backward(inputs=list(player.parameters))
            optimiser.step()
        return value.detach()

    def track_seconds(self, *_: Any) -> Samples:
        return measures.seconds(self.step, self.device, self.rows, fresh=self.fresh, inspect=_finite)

    def track_peak_bytes(self, *_: Any) -> int:
        return measures.peak_bytes_of(lambda: self.step(self.fresh(0)), self.device)

    track_seconds.unit, track_peak_bytes.unit = "seconds", "bytes"


def _moves(net: Any) -> list[tuple[Player, torch.optim.Optimizer]]:
    """Who goes down which loss by what, as `train` of our models has it; a player without parameters has no move."""
    players = net.players() if hasattr(net, "players") else [Player(list(net.parameters()), net.loss)]
    players = [each for each in players if each.parameters]
    made = {id(each.parameters[0]): torch.optim.Adam(each.parameters, lr=1e-4, betas=each.betas) for each in players}
    return [(each, made[id(each.parameters[0])]) for each in players]


def _beside_events(net: Any, player: Player) -> list[str]:
    """What else the loss wants, by name: y is a label. An adversarial one may leave y out, if it has no classes."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    told = [each for each in inspect.signature(player.loss).parameters.values() if each.kind in positional]
    needed = [each for each in told[1:] if each.default is each.empty or hasattr(net, "class_prior")]
    return [each.name for each in needed]


def _finite(loss: Tensor) -> None:
    if not bool(loss.isfinite()):
        raise FloatingPointError(f"the loss is {float(loss)}")


def _exact(name: str) -> Any:
    """The preset in float64, or in the one dtype that it has."""
    try:
        return measures.prepared(partial(measures.preset, name), name, "float64", "cpu")
    except NotImplementedError:
        return measures.prepared(partial(measures.preset, name), name, "float32", "cpu")


def _like(x: Tensor, model: Any) -> Tensor:
    """Events in the dtype and on the device of the model's own."""
    with torch.no_grad():
        own = model.sample(2, generator=generator(SEED, "asv dtype", device=model.device))
    return x.to(own.device, own.dtype)
