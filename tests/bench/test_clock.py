"""The clock on the CPU: what is counted, pinned, inspected and refused; the GPU's part with a stand-in for NVML."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

import pytest
import torch

from harness.bench import clock
from harness.bench.clock import Repetitions, is_cached, pinned, timed
from harness.bench.nvml import Nvml, Reading


class Wound:
    """A clock that only `work` moves, so that every figure is known beforehand."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def wound(monkeypatch) -> Wound:
    """Powers of two as seconds, so that sums have no rounding."""
    told = Wound()
    monkeypatch.setattr(clock, "time", told)
    return told


def test_samples_are_as_long_as_the_work(wound):
    seen = timed(lambda: wound.work(2**-8), budget=0.0, fewest=5, most=9)
    assert seen.seconds == (2**-8,) * 5
    assert (seen.number, seen.first, seen.warm_up) == (1, 2**-8, 2 * 2**-8)


def test_samples_are_taken_until_the_budget_is_used(wound):
    """A tenth of 2 s warms up, and the work of 1/4 s then fits into them eight times."""
    seen = timed(lambda: wound.work(2**-2), budget=2.0, fewest=1, most=100)
    assert (len(seen.seconds), seen.warm_up) == (8, 2 * 2**-2)
    assert len(timed(lambda: wound.work(2**-2), budget=2.0, fewest=1, most=3).seconds) == 3


def test_the_first_call_is_counted_apart(wound):
    costs = iter([8.0])
    seen = timed(lambda: wound.work(next(costs, 2**-8)), budget=0.0, fewest=3, most=3)
    assert (seen.first, seen.seconds) == (8.0, (2**-8,) * 3)


def test_short_calls_share_a_sample_and_are_divided(wound):
    """ceil(1 ms / 2^-14 s) = 17 calls."""
    seen = timed(lambda: wound.work(2**-14), budget=0.0, fewest=3, most=3)
    assert (seen.number, seen.median) == (17, 2**-14)


def test_what_prepares_inputs_and_inspects_outputs_is_not_timed(wound):
    def fresh(i: int) -> int:
        wound.work(64.0)
        return i

    seen = timed(
        lambda i: wound.work(2**-8), fresh=fresh, inspect=lambda output: wound.work(64.0), budget=0.0, fewest=3, most=3
    )
    assert seen.seconds == (2**-8,) * 3


def test_every_timed_call_has_an_input_of_its_own_and_is_inspected(wound):
    """No index comes twice before the last four samples, which are those pairs in which it is repeated."""
    asked, answered = [], []

    def work(i: int) -> int:
        asked.append(i)
        wound.work(2**-8)
        return i

    seen = timed(work, fresh=lambda i: i, inspect=answered.append, budget=0.0, fewest=4, most=4)
    assert asked == answered == [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 8, 9, 9, 10, 10]
    assert seen.output == 10
    assert not seen.cached


def test_an_output_that_is_disliked_ends_the_measurement():
    def dislike(output: object) -> None:
        raise ValueError("wrong shape")

    with pytest.raises(ValueError, match="wrong shape"):
        timed(lambda: 1, inspect=dislike, budget=0.0)


def test_answers_from_memory_are_flagged(wound):
    def work(i: int) -> int:
        wound.work(2**-8)
        return i

    numbers = {"fresh": lambda i: i, "budget": 0.0, "fewest": 3, "most": 8}
    assert timed(functools.cache(work), **numbers).cached
    assert not timed(work, **numbers).cached


def test_a_repeated_generator_starts_from_the_same_state():
    repetitions = Repetitions(lambda g: torch.rand(3, generator=g), "cpu", lambda i: torch.Generator().manual_seed(i))
    inputs = repetitions.inputs(1)
    again = [clock._copied(inputs[0])]
    repetitions.of(inputs)
    first = repetitions.output
    repetitions.of(again)
    assert torch.equal(first, repetitions.output)


@pytest.mark.parametrize(
    ("fresh", "repeated", "cached"),
    [
        ([2.1 + i / 100 for i in range(8)], [1.0 + i / 100 for i in range(8)], True),
        ([1.5 + i / 100 for i in range(8)], [1.0 + i / 100 for i in range(8)], False),  # warm caches, a busy machine
        ([2.0, 2.1, 2.2], [1.0, 1.1, 1.2], False),  # three pairs prove nothing: 1 / C(6, 3) = 0.05
        ([], [], False),
    ],
)
def test_cached_needs_both_a_level_and_a_factor(fresh, repeated, cached):
    assert is_cached(fresh, repeated) is cached


def test_threads_are_pinned_and_put_back():
    before = torch.get_num_threads()
    inside = []
    seen = timed(lambda: inside.append(torch.get_num_threads()), budget=0.0, fewest=1, most=1, threads=before + 1)
    assert set(inside) == {before + 1}
    assert (seen.threads, torch.get_num_threads()) == (before + 1, before)
    with pytest.raises(RuntimeError), pinned(before + 2):
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_a_timing_is_strict_json():
    told = json.loads(json.dumps(timed(lambda: 1, budget=0.0).as_json(), allow_nan=False))
    assert told["direction"] == "lower is better"
    assert told["flags"]["tf32_matmul"] == torch.backends.cuda.matmul.allow_tf32
    assert told["cold"] == []
    assert told["clock"] is None


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"device": "tpu"}, "device"),
        ({"budget": float("nan")}, "budget"),
        ({"budget": -1.0}, "budget"),
        ({"fewest": 0}, "fewest"),
        ({"fewest": 9, "most": 3}, "most"),
        ({"threads": 0}, "threads"),
    ],
)
def test_numbers_that_make_no_sense_are_named(wrong, word):
    with pytest.raises(ValueError, match=word):
        timed(lambda: 1, **wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said_to_be_missing():
    with pytest.raises(ValueError, match="no CUDA device"):
        timed(lambda: 1, device="cuda")


# -------------------------------------------------------------------------------------------------- the driver


def library(mask: int = 0, megahertz: int = 1900) -> SimpleNamespace:
    """What pynvml answers."""
    return SimpleNamespace(
        NVML_CLOCK_SM=1,
        NVML_TEMPERATURE_GPU=0,
        NVMLError=OSError,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: mask,
        nvmlDeviceGetClockInfo=lambda handle, clock: megahertz,
        nvmlDeviceGetMaxClockInfo=lambda handle, clock: 2000,
        nvmlDeviceGetTemperature=lambda handle, sensor: 55,
    )


@pytest.mark.parametrize(
    ("mask", "megahertz", "throttled"),
    [
        (0x0, 1900, False),
        (0x1, 300, False),  # idle before the call: slow, but not held back
        (0x4, 1900, False),  # a power cap that costs little
        (0x4, 1400, True),
        (0x8, 1900, True),
        (0x40, 1900, True),
    ],
)
def test_what_counts_as_throttled(mask, megahertz, throttled):
    assert Nvml(library(mask, megahertz), object()).read().throttled is throttled


def test_a_driver_that_does_not_answer_says_nothing():
    def silent(handle: object) -> int:
        raise OSError("not supported")

    mute = library()
    mute.nvmlDeviceGetCurrentClocksThrottleReasons = silent
    assert Nvml(mute, object()).read() is None
    assert Nvml.of("cpu").read() is None


def test_throttled_samples_are_dropped_and_counted(monkeypatch):
    """Samples 1 and 3 of the driver's account are throttled: two are dropped, and four are taken all the same."""
    hot, cool = (
        Reading(1900, 2000, celsius, reasons) for celsius, reasons in ((90.0, ("hardware slowdown",)), (50.0, ()))
    )
    said = iter([hot, hot, cool, cool, cool, hot] + [cool] * 6)
    monkeypatch.setattr(Nvml, "of", lambda device: SimpleNamespace(read=lambda: next(said)))
    seen = timed(lambda: 1, budget=0.0, fewest=4, most=4)
    assert (len(seen.seconds), seen.dropped) == (4, 2)
    assert seen.clock == {"megahertz": [1900, 1900], "celsius": [50.0, 90.0], "reasons": ["hardware slowdown"]}
    monkeypatch.setattr(Nvml, "of", lambda device: SimpleNamespace(read=lambda: hot))
    with pytest.raises(RuntimeError, match="throttled"):
        timed(lambda: 1, budget=0.0, fewest=1, most=3)
