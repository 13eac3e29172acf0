"""What is timed of a model: one call a metric, its inputs, and what its outputs must look like.

Inputs are a function of (seed, repetition) alone, so both sides of a comparison do the same work in the same turn. They
are never those of the repetition before. Outputs are inspected after each turn: their count, dtype and finiteness.
"""

from __future__ import annotations

import math
import pickle
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.adapters import adapt
from harness.bench.clock import Repetitions
from harness.bench.memory import peak_memory
from harness.model import Model
from harness.resolve import SpecError, one_line
from harness.streams import generator

GRAIN = 2**20
"""Bytes: less memory than this is counted as this, since the kernel's own counters are off by as much."""


class OutputError(ValueError):
    """What the model returned is not the work that was asked for; one line."""


@dataclass
class Job:
    """One capability of one model on n rows, taken from a pool of events (none where the model is only sampled)."""

    model: Model
    capability: str
    n: int
    seed: int
    pool: Tensor | None = None
    seen: dict[str, Any] = field(default_factory=dict)  # what the last output looked like

    def __post_init__(self) -> None:
        if not self.model.can(self.capability):
            raise OutputError(f"the model has no {self.capability}")

    def repetitions(self) -> Repetitions:
        """The call, for the clock."""
        return Repetitions(self.call, str(self.model.device), self.fresh, self.inspect)

    def call(self, given: Any) -> Any:
        """Without a graph, but for a fit, which may need one."""
        with nullcontext() if self.capability == "fit" else torch.no_grad():
            if self.capability == "sample":
                return self.model.sample(self.n, generator=given)
            return self.model.methods[self.capability](given)

    def fresh(self, repetition: int) -> Any:
        """A generator; or n rows of the pool, in an order of this repetition's own."""
        source = self.fresh_generator(repetition)
        if self.capability == "sample":
            return source
        assert self.pool is not None
        return self.pool[torch.randperm(len(self.pool), generator=source, device=self.model.device)[: self.n]]

    def fresh_generator(self, repetition: int) -> torch.Generator:
        return generator(self.seed, "bench", repetition, device=self.model.device)

    def inspect(self, output: Any) -> None:
        """Note shape and dtype; OutputError for a wrong count, or for numbers that are not finite."""
        if self.capability == "fit":
            output = self._fitted(output)
        self.seen = described(output, self.capability, self.n)

    def _fitted(self, output: Any) -> Any:
        """log p of events under the model that was fitted; its draws where it has no log_prob."""
        assert self.pool is not None
        fitted = adapt(output, "the fitted model", self.model.device)
        with torch.no_grad():
            if not fitted.can("log_prob"):
                return fitted.sample(self.n, generator=self.fresh_generator(0))
            log_p = fitted.log_prob(self.pool[: self.n])
        return log_p.where(log_p != -math.inf, 0.0)  # a law may rule out what the rows it was fitted to did not have

    def bytes(self, repetition: int) -> int:
        """Peak memory of one call."""
        given = self.fresh(repetition)
        outputs: list[Any] = []
        risen = peak_memory(lambda: outputs.append(self.call(given)), device=str(self.model.device), repeats=1)
        self.inspect(outputs[-1])
        return max(risen, GRAIN)

    def nll(self) -> Tensor:
        """-log p of every event of the pool in nats, float64; the same work as log_prob's, in parts of n rows."""
        assert self.pool is not None
        split = self.pool.split(self.n)
        with torch.no_grad():
            parts = [self.model.log_prob(rows) for rows in split]
        for part, rows in zip(parts, split, strict=True):
            self.seen = described(part, "log_prob", len(rows))
        return -torch.cat(parts).double().cpu()


def described(output: Any, name: str, count: int) -> dict[str, Any]:
    """Shape, dtype and mean of an output of `count` rows. OutputError where it is none."""
    if not isinstance(output, Tensor):
        raise OutputError(f"{name} returned a {type(output).__name__}, not a tensor")
    shape = list(output.shape)
    if not shape or shape[0] != count or (name == "log_prob" and len(shape) != 1):
        raise OutputError(f"{name} was asked for {count:,} rows and returned the shape {shape}")
    wrong = 0 if not output.is_floating_point() else int((~output.isfinite()).sum())
    if wrong:
        raise OutputError(f"{name} returned {wrong:,} of {output.numel():,} numbers that are not finite")
    mean = float(output.double().mean()) if output.numel() else 0.0
    return {"shape": shape, "dtype": str(output.dtype).removeprefix("torch."), "mean": mean}


def draw_pool(model: Model, n: int, seed: int) -> Tensor:
    """2 n events of the model's own sampler; OutputError where it has none or gives something else."""
    if not model.can("sample"):
        raise OutputError("the model cannot sample: give events by --data FILE")
    with torch.no_grad():
        x = model.sample(2 * n, generator=generator(seed, "bench", "pool", device=model.device))
    described(x, "sample", 2 * n)
    return x.detach().clone()


def read_events(file: str) -> Tensor:
    """The rows of a .npy or .pt file. SpecError, which is about the call, where it holds none."""
    try:
        if file.endswith(".npy"):
            import numpy as np

            x = torch.from_numpy(np.load(file, allow_pickle=False))
        else:
            x = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose text advises to trust the file
        raise SpecError(f"--data {file} is damaged, or holds more than a tensor: give a .npy or .pt file") from None
    except Exception as error:  # numpy and torch have many words for a file that is none of theirs
        raise SpecError(f"--data {file} cannot be read ({one_line(error)}): give a .npy or .pt file") from None
    if not isinstance(x, Tensor) or x.layout is not torch.strided or x.ndim == 0 or len(x) < 2:
        raise SpecError(f"--data {file} holds no rows of events: give one array [n, *event], n 2 or more")
    return x
