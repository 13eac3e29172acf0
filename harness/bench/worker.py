"""One side of a comparison, in a process of its own: it does what its parent asks, a line of JSON at a time.

The examiner is imported before anything else, from where this process was told to find it; then the folder of the model
goes to the front of the path. So two commits are measured by one and the same clock.

Requests, each with one answer: build, pool, prepare, turn, nll, single. An answer holds `refused` where the call was
wrong, `raised` where the model failed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

import torch

from harness.adapters import NotAModel, adapt
from harness.bench.clock import Repetitions
from harness.bench.job import Job, OutputError, draw_pool, read_events
from harness.bench.machine import machine
from harness.bench.settings import no_collector
from harness.model import Model
from harness.resolve import SpecError, one_line, resolve

_PR_SET_PDEATHSIG = 1
WARM_SECONDS = 0.1


def serve(requests: int, answers: int) -> None:
    """Answer until the parent hangs up."""
    if sys.platform == "linux":  # a parent that is killed cannot hang up on a model that hangs
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    worker = Worker()
    with open(requests, encoding="utf-8") as lines, open(answers, "w", encoding="utf-8") as channel:
        for line in lines:
            channel.write(json.dumps(worker.answer(json.loads(line)), allow_nan=False) + "\n")
            channel.flush()


class Worker:
    """The model of this process, and what is being timed of it."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self.pool: torch.Tensor | None = None
        self.metric, self.clock = "", "wall"
        self.job: Job | None = None
        self.repetitions: Repetitions | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the request's method returns; a sentence where it fails, be it by sys.exit."""
        try:
            done: dict[str, Any] = getattr(self, request.pop("do"))(**request)
            return done
        except (SpecError, NotAModel) as error:
            return {"refused": " ".join(str(error).split())}
        except OutputError as error:
            return {"raised": str(error)}
        except BaseException as error:
            return {"raised": one_line(error)}

    def build(
        self, spec: str, folders: list[str], instead_of: str, device: str, dtype: str, threads: int
    ) -> dict[str, Any]:
        """Import and make the model; what it can do, and what it runs on.

        `folders` are searched first. They stand in for the folder `instead_of`, from which nothing may come then.
        """
        torch.set_num_threads(threads)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SpecError("--device is cuda, but torch finds no CUDA device: choose --device cpu")
        sys.path[:0] = folders
        found = resolve(spec)
        if len(found) > 1:
            raise SpecError(f"{spec} names {len(found)} models: choose one, such as {found[0].spec}")
        self.model = adapt(found[0].build(), found[0].name, device, getattr(torch, dtype) if dtype else None)
        if instead_of:
            _refuse_strangers(instead_of)
        return {"name": self.model.name, "can": sorted(self.model.methods), "machine": machine(device, threads)}

    def make_pool(self, n: int, seed: int, data: str, file: str) -> dict[str, Any]:
        """Draw the events that both sides are asked about, or read them, and keep them in a file."""
        pool = read_events(data) if data else draw_pool(self._model(), n, seed)
        torch.save(pool.cpu(), file)
        return {"shape": list(pool.shape)}

    def read_pool(self, file: str) -> dict[str, Any]:
        self.pool = torch.load(file, weights_only=True).to(self._model().device)
        return {"shape": list(self.pool.shape)}

    def prepare(self, metric: str, of: str, n: int, seed: int, clock: str) -> dict[str, Any]:
        """The first call and the warm-up: their seconds, and those of the fastest call."""
        self.metric, self.clock = metric, clock
        self.job = Job(self._model(), of, n, seed, self.pool)
        repetitions = self.repetitions = self.job.repetitions()
        first = repetitions.seconds(1, host=True)
        began, fastest, calls = time.perf_counter(), first, 0
        while calls < 2 or (calls < 64 and time.perf_counter() - began < WARM_SECONDS):
            fastest, calls = min(fastest, repetitions.seconds(1)), calls + 1
        return {"first": first, "warm_up": time.perf_counter() - began, "fastest": fastest, "output": self.job.seen}

    def turn(self, number: int, start: int) -> dict[str, Any]:
        """Seconds of a call, or bytes, with the inputs of repetitions start, start + 1, ..., start + number - 1."""
        assert self.job is not None
        assert self.repetitions is not None
        if self.metric == "memory":
            return {"value": self.job.bytes(start), "interrupted": False, "output": self.job.seen}
        self.repetitions.made = start
        with no_collector():
            if number > 1:
                self.job.call(self.job.fresh(start + number))  # what other processes drove out of the caches
            value = self.repetitions.seconds(number, cpu=self.clock == "cpu")
        return {"value": value, "interrupted": self.repetitions.interrupted, "output": self.job.seen}

    def nll(self, n: int, seed: int, file: str) -> dict[str, Any]:
        """-log p of every event of the pool, in a file."""
        job = Job(self._model(), "log_prob", n, seed, self.pool)
        values = job.nll()
        torch.save(values, file)
        return {"points": len(values), "mean": float(values.mean()), "output": job.seen}

    def single(self, **request: Any) -> dict[str, Any]:
        """All that can be measured of one model alone."""
        from harness.bench.single import measured

        return measured(self._model(), self.pool, **request)

    def _model(self) -> Model:
        assert self.model is not None
        return self.model


def _refuse_strangers(folder: str) -> None:
    """SpecError where a module was imported from the checkout, whose code is that of no commit. The examiner may be."""
    root = os.path.join(os.path.realpath(folder), "")
    for name, module in list(sys.modules.items()):
        file = os.path.realpath(getattr(module, "__file__", None) or "")
        if file.startswith(root) and "site-packages" not in file and name.partition(".")[0] != "harness":
            raise SpecError(
                f"module {name} is not in the commit, and came from the checkout: commit it, or leave it out"
            )
