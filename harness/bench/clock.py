"""Seconds of a call, measured so that they can be believed: `timed(call) -> Timing`.

What makes a figure wrong, and what is done about it here:

- The first call compiles, allocates and loads. It is timed apart (`first`), and so is the warm-up that follows.
- Threads fight for the processors. Their number is pinned while the clock runs, and recorded.
- CUDA calls return before the work is done. Events on the stream are read instead of the host's clock.
- The L2 cache of a GPU holds what the last repetition left there. `cold` has it flushed, outside the events.
- A GPU that is hot or short of power slows down. NVML is asked before and after; throttled samples are dropped
  and counted.
- A repeated input may be answered from memory. Every repetition gets a fresh input, and one that is asked again must
  not be answered faster: else `cached` is true.
- The collector of garbage runs when it likes. It is switched off while the clock runs.

The outputs of the timed calls are what is inspected and returned. Memory has a loop of its own, in `memory.py`.
"""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from harness.bench.nvml import Nvml, Reading
from harness.bench.settings import flags, no_collector, pinned

SAMPLE_SECONDS = 1e-3
"""A sample lasts this long at least, by several calls where one is shorter: the clock's own 100 ns are then 0.01 %."""

MOST_CALLS, MOST_INPUTS = 1000, 64
"""Calls of one sample, without and with inputs, which are all made before the clock starts."""

CACHED_LEVEL, CACHED_FACTOR = 1e-3, 2.0
"""A repeated input is answered from memory when it is faster at this level, and by this factor. The processor's own
caches, which hold the input already, explain some ten per cent of a small call on a busy machine; a model that looks
its answers up is faster by more than twice."""

REPEATS = 8
"""Pairs of a fresh and a repeated input: complete separation has probability 1 / C(16, 8) = 8e-5 without a cache."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call. `seconds` are those of fresh inputs, with the caches as the call before left them."""

    seconds: tuple[float, ...]
    cold: tuple[float, ...]  # CUDA alone: the L2 cache was flushed before each
    first: float  # of the first call, compilation and allocation included
    warm_up: float  # of all calls between the first and the timed ones
    number: int  # calls in one sample; the seconds are divided by it
    repeated: tuple[float, ...]  # of an input that was asked just before; empty without inputs
    cached: bool
    dropped: int  # samples during which the GPU was throttled
    device: str
    threads: int
    flags: dict[str, Any]
    clock: dict[str, Any] | None  # what NVML said; None where there is none
    output: Any  # of the last timed call

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        return min(self.seconds)

    def as_json(self) -> dict[str, Any]:
        """Everything but the output, as strict JSON."""
        return {
            "unit": "seconds",
            "direction": "lower is better",
            "median": self.median,
            **{name: list(getattr(self, name)) for name in ("seconds", "cold", "repeated")},
            **{name: getattr(self, name) for name in ("first", "warm_up", "number", "cached", "dropped")},
            **{name: getattr(self, name) for name in ("device", "threads", "flags", "clock")},
        }


def timed(
    call: Callable[..., Any],
    *,
    device: str = "cpu",
    fresh: Callable[[int], Any] | None = None,
    inspect: Callable[[Any], None] | None = None,
    budget: float = 1.0,
    fewest: int = 10,
    most: int = 100,
    threads: int = 1,
) -> Timing:
    """Time `call()`, or `call(fresh(i))` where `fresh` makes the input of repetition i = 0, 1, 2, ...

    Samples are taken until `budget` seconds are used, but at least `fewest` and at most `most`. `inspect` sees the
    output of every timed call, outside the clock, and raises what it dislikes. An input may be a torch.Generator,
    which starts from the same state when it is repeated. ValueError for numbers that make no sense, or a device that is
    not there.
    """
    _validate(device, budget, fewest, most, threads)
    repetitions = Repetitions(call, device, fresh, inspect)
    with pinned(threads), no_collector():
        first = repetitions.seconds(1, host=True)
        warm_up, number = _warmed(repetitions, budget)
        seconds, cold, dropped, readings = _samples(repetitions, number, budget, fewest, most)
        fresh_pairs, repeated = _pairs(repetitions, number, min(REPEATS, most)) if fresh is not None else ([], [])
    return Timing(
        seconds=tuple(seconds),
        cold=tuple(cold),
        first=first,
        warm_up=warm_up,
        number=number,
        repeated=tuple(repeated),
        cached=is_cached(fresh_pairs, repeated),
        dropped=dropped,
        device=device,
        threads=threads,
        flags=flags(),
        clock=_summary(readings),
        output=repetitions.output,
    )


def _validate(device: str, budget: float, fewest: int, most: int, threads: int) -> None:
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}: give cpu or cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device}, but torch finds no CUDA device: give cpu")
    if not 0 <= budget < math.inf:
        raise ValueError(f"budget is {budget}: give seconds, 0 or more")
    if not 1 <= fewest <= most:
        raise ValueError(f"fewest is {fewest} and most {most}: give 1 <= fewest <= most")
    if threads < 1:
        raise ValueError(f"threads is {threads}: give 1 or more")


# ------------------------------------------------------------------------------------------------ one sample


class Repetitions:
    """The call, its inputs one after the other, and how a sample of several calls is timed on the device."""

    def __init__(
        self,
        call: Callable[..., Any],
        device: str,
        fresh: Callable[[int], Any] | None,
        inspect: Callable[[Any], None] | None = None,
    ):
        self.call, self.device, self.fresh, self.inspect = call, device, fresh, inspect
        self.cuda = device.startswith("cuda")
        self.made = 0
        self.interrupted = False  # did another process take the processor during the last sample?
        self.output: Any = None

    def inputs(self, number: int) -> list[tuple[Any, ...]]:
        """Arguments of so many calls; each is made once, in order."""
        if self.fresh is None:
            return [()] * number
        made = [(self.fresh(self.made + i),) for i in range(number)]
        self.made += number
        return made

    def seconds(self, number: int, *, flush: bool = False, host: bool = False, cpu: bool = False) -> float:
        """Seconds of a call with a fresh input, the mean of `number`.

        `host` asks the host's clock on CUDA too; `cpu` counts the seconds that the process had a processor, all of its
        threads together, which leaves out those that it waited or slept.
        """
        return self.of(self.inputs(number), flush=flush, host=host, cpu=cpu)

    def of(self, inputs: list[tuple[Any, ...]], *, flush: bool = False, host: bool = False, cpu: bool = False) -> float:
        """Seconds of a call with these inputs, the mean over them."""
        elapsed = _cpu_seconds if cpu else _cuda_seconds if self.cuda and not host else _host_seconds
        switches = _switches()
        if self.cuda:
            if flush:
                flush_l2(self.device)
            torch.cuda.synchronize(self.device)
        self.output = None  # what it held may be reused, as it is in a loop without a clock
        total, outputs = elapsed(self.call, inputs, self.device, keep=self.inspect is not None)
        self.interrupted = _switches() > switches
        self.output = outputs[-1]
        if self.inspect is not None:
            for output in outputs:
                self.inspect(output)
        return total / len(inputs)


def _switches() -> int:
    """How often the process lost a processor that it would have gone on using; waiting and sleeping do not count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _cpu_seconds(
    call: Callable[..., Any], inputs: list[tuple[Any, ...]], device: str, keep: bool
) -> tuple[float, list[Any]]:
    began = time.process_time()
    _, outputs = _host_seconds(call, inputs, device, keep)
    return time.process_time() - began, outputs


def _host_seconds(
    call: Callable[..., Any], inputs: list[tuple[Any, ...]], device: str, keep: bool
) -> tuple[float, list[Any]]:
    outputs: list[Any] = []
    began = time.perf_counter()
    for arguments in inputs:
        output = call(*arguments)
        if keep:
            outputs.append(output)
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, outputs or [output]


def _cuda_seconds(
    call: Callable[..., Any], inputs: list[tuple[Any, ...]], device: str, keep: bool
) -> tuple[float, list[Any]]:
    """Between two events. The stream is idle at the first, so the host's time to launch the work is part of it."""
    outputs: list[Any] = []
    with torch.cuda.device(device):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for arguments in inputs:
            output = call(*arguments)
            if keep:
                outputs.append(output)
        end.record()
        end.synchronize()
    return start.elapsed_time(end) / 1e3, outputs or [output]


def flush_l2(device: str) -> None:
    """Write a buffer of the size of the L2 cache, which drives out whatever it held; the caller synchronises."""
    size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or 2**28
    torch.empty(size, dtype=torch.int8, device=device).zero_()


# ------------------------------------------------------------------------------------------------ the samples


def _warmed(repetitions: Repetitions, budget: float) -> tuple[float, int]:
    """Warm up for a tenth of the budget, twice at least: the seconds it took, and how many calls make a sample."""
    began, fastest, calls = time.perf_counter(), math.inf, 0
    while calls < 2 or (time.perf_counter() - began < budget / 10 and calls < MOST_CALLS):
        fastest = min(fastest, repetitions.seconds(1))
        calls += 1
    most = MOST_CALLS if repetitions.fresh is None else MOST_INPUTS
    number = min(most, max(1, math.ceil(SAMPLE_SECONDS / max(fastest, 1e-9))))
    return time.perf_counter() - began, number


def _samples(
    repetitions: Repetitions, number: int, budget: float, fewest: int, most: int
) -> tuple[list[float], list[float], int, list[Reading]]:
    """Warm and, on CUDA, cold samples in turns; those during which the GPU was throttled are dropped and counted."""
    nvml = Nvml.of(repetitions.device)
    seconds: list[float] = []
    cold: list[float] = []
    readings: list[Reading] = []
    dropped, began = 0, time.perf_counter()
    while len(seconds) < fewest or (len(seconds) < most and time.perf_counter() - began < budget):
        before = nvml.read()
        pair = (repetitions.seconds(number), repetitions.seconds(1, flush=True) if repetitions.cuda else None)
        seen = [reading for reading in (before, nvml.read()) if reading is not None]
        readings += seen
        if any(reading.throttled for reading in seen):
            dropped += 1
            if dropped > most:
                raise RuntimeError(f"the GPU was throttled in {dropped} samples: let it cool, or raise its power limit")
            continue
        seconds.append(pair[0])
        cold += [] if pair[1] is None else [pair[1]]
    return seconds, cold, dropped, readings


def _pairs(repetitions: Repetitions, number: int, pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of fresh inputs, and of the last of each once more, in turns."""
    fresh, repeated = [], []
    for _ in range(pairs):
        inputs = repetitions.inputs(number)
        again = [_copied(inputs[-1]) for _ in range(number)]  # before a generator among them is used
        fresh.append(repetitions.of(inputs))
        repeated.append(repetitions.of(again))
    return fresh, repeated


def _copied(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same objects again, but generators at the same state."""
    return tuple(_same_state(value) if isinstance(value, torch.Generator) else value for value in arguments)


def _same_state(generator: torch.Generator) -> torch.Generator:
    return torch.Generator(generator.device).set_state(generator.get_state())


def is_cached(fresh: list[float], repeated: list[float]) -> bool:
    """Are repeated inputs faster: at CACHED_LEVEL by the exact rank test, and by CACHED_FACTOR in the median?"""
    if not fresh:
        return False
    from scipy.stats import mannwhitneyu

    faster = statistics.median(fresh) > CACHED_FACTOR * statistics.median(repeated)
    level = mannwhitneyu(fresh, repeated, alternative="greater", method="exact").pvalue
    return bool(faster and level <= CACHED_LEVEL)


def _summary(readings: list[Reading]) -> dict[str, Any] | None:
    """The range of what NVML said."""
    if not readings:
        return None
    reasons = sorted({reason for reading in readings for reason in reading.reasons})
    megahertz, celsius = [r.megahertz for r in readings], [r.celsius for r in readings]
    return {"megahertz": [min(megahertz), max(megahertz)], "celsius": [min(celsius), max(celsius)], "reasons": reasons}
