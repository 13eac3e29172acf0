"""What the benchmarks of asv share: a model of one setting, and its seconds, bytes and exp(NLL / d).

Everything that is tracked is better when lower, positive and finite; what is not finite raises. Seconds go through
`harness.bench.clock`, on one thread. A setting that this machine cannot have is NotImplementedError in `setup`, which
asv shows as n/a.
"""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import scipy.stats  # noqa: F401 - the clock's rank test wants it: once here, or in each of the processes that asv forks
import torch
from torch import Tensor

from harness.adapters import adapt
from harness.bench.clock import timed
from harness.bench.job import Job
from harness.bench.memory import peak_memory
from harness.model import Model
from harness.streams import generator

Samples = dict[str, Any]
"""What asv keeps as a median with an interval: {"samples": [...], "number": 1}."""

DEVICES, DTYPES = ["cpu", "cuda"], ["float32", "float64"]
SEED = 0
SECONDS = 0.2
"""Of the clock for one setting: 10 samples of 1 ms at least, 20 at most."""


def presets() -> list[str]:
    """Names of the reference models, in order, as the checkout declares them.

    Not as the installed package does, which may be of another commit: asv hands a setting over by its number, so each
    commit has to count the same ones.
    """
    told = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    return sorted(told["project"]["entry-points"]["harness.models"])


def preset(name: str) -> Any:
    """The reference model of that name. NotImplementedError where the commit that is measured declares none."""
    for each in entry_points(group="harness.models", name=name):
        return each.load()()
    raise NotImplementedError(f"this commit has no {name}")


def on(device: str) -> None:
    """One thread, and a device that is there: else NotImplementedError."""
    torch.set_num_threads(1)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise NotImplementedError("torch finds no CUDA device")


def prepared(make: Callable[[], Any], name: str, dtype: str, device: str) -> Model:
    """The model as the examiner sees it. NotImplementedError where it has another dtype alone.

    A model that only has laws given something is its law given one thing: label 0, or normal numbers drawn once. What
    has no log_prob but a lower bound of it has the bound instead.
    """
    on(device)
    model = adapt(make(), name, device)
    if dtype == "float64":
        if model.cast is None:
            raise NotImplementedError(f"{name} has one dtype only")
        model = model.cast(torch.float64)
    return _bounded(given_one(model, getattr(torch, dtype)))


def given_one(model: Model, dtype: torch.dtype) -> Model:
    """p(x | y) at one y as a law of x, where the model has no other."""
    if model.can("sample") or not model.can("sample_given"):
        return model
    shape, source = model.given_shape, generator(SEED, "asv given", model.name)
    y = torch.tensor(0) if shape is None else torch.randn(*shape, generator=source, dtype=torch.float64).to(dtype)
    y = y.to(model.device)

    def sample(n: int, *, generator: torch.Generator) -> Tensor:
        return model.sample_given(n, given=y.expand(n, *y.shape).contiguous(), generator=generator)

    def log_prob(x: Tensor) -> Tensor:
        return model.log_prob_given(x, given=y.expand(len(x), *y.shape).contiguous())

    return replace(model, methods={"sample": sample, **({"log_prob": log_prob} if model.can("log_prob_given") else {})})


def _bounded(model: Model) -> Model:
    """The ELBO in the place of log_prob, from one stream of noise."""
    if model.can("log_prob") or not model.can("elbo"):
        return model

    def bound(x: Tensor) -> Tensor:
        return model.elbo(x, generator=generator(SEED, "asv bound", device=model.device))

    return replace(model, methods={**model.methods, "log_prob": bound})


def job(model: Model, capability: str, rows: int, x: Tensor | None = None) -> Job:
    """So many rows of one capability. NotImplementedError where the model lacks it.

    What is fitted, or asked about, are always the same draws, in an order of each call's own: a fit to some of them may
    rule out others.
    """
    if not model.can(capability) or (x is None and not model.can("sample")):
        raise NotImplementedError(f"{model.name} has no {capability}")
    if capability != "sample" and x is None:
        with torch.no_grad():
            x = model.sample(rows, generator=generator(SEED, "asv", model.name, device=model.device))
    return Job(model, capability, rows, SEED, x)


def seconds(call: Callable[..., Any], device: str, of: int = 1, **options: Any) -> Samples:
    """Seconds of one of the `of` rows of a call. An answer from memory is no speed: it is named on stderr."""
    found = timed(call, device=device, **{"budget": SECONDS, "fewest": 10, "most": 20, **options})
    if found.cached:
        print("repeated inputs are answered faster than fresh ones: something is cached", file=sys.stderr)
    return {"samples": [positive(each / of) for each in found.seconds], "number": 1}


def seconds_a_row(of: Job) -> Samples:
    """Seconds of one row of a job."""
    return seconds(of.call, str(of.model.device), of.n, fresh=of.fresh, inspect=of.inspect)


def peak_bytes(of: Job) -> int:
    """The most that a call takes beyond what is there before it, after one call to warm up; 1 MiB stands for less."""
    of.inspect(of.call(of.fresh(0)))
    return max(of.bytes(1), of.bytes(2))


def peak_bytes_of(call: Callable[[], Any], device: str, least: int = 2**20) -> int:
    """The same of any call."""
    call()
    return max(least, peak_memory(call, device=device))


def perplexity(model: Model, x: Tensor, rows: int = 1000) -> float:
    """exp(mean NLL / d) over the events x (n, *event), NLL recomputed from log_prob point by point.

    The points are the same at each commit, so what they have in common cancels when two are compared: a factor of 1.01
    is 0.01 nats per dimension worse.
    """
    values = Job(model, "log_prob", min(rows, len(x)), SEED, x).nll()
    return positive(math.exp(float(values.mean()) / max(1, math.prod(x.shape[1:]))))


def positive(value: float) -> float:
    """The value. FloatingPointError where it is not positive and finite: asv would take NaN for n/a."""
    if not 0 < value < math.inf:
        raise FloatingPointError(f"{value} is not positive and finite")
    return float(value)
