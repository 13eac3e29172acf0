"""Memory that runs out is an ERROR that says so: never a FAIL of the law at hand, nor a SKIP that nobody reads.

The allocations are real: 40 TB, which no process is given, by torch (a RuntimeError) and by numpy (a MemoryError).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.adapters import adapt
from harness.checks import CHECKS
from harness.checks.oracle import flat_density
from harness.effort import EFFORTS
from harness.errors import out_of_memory
from harness.evidence import Raised, Record, Verdict
from harness.plan import plan
from harness.run import Settings, examine

MUCH = 10**13
ALLOCATORS: dict[str, Callable[[], object]] = {
    "torch": lambda: torch.empty(MUCH),
    "numpy": lambda: np.full(MUCH, 1.0),
}


class Normal:
    """A standard normal in float32 that does `act` in log_prob whenever `when(x)`."""

    def __init__(self, act: Callable[[], object], when: Callable[[Tensor], bool]):
        self.act, self.when = act, when
        self.loc = torch.zeros(1)  # what a cast to float64 changes

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.loc + torch.randn(n, 1, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        if self.when(x):
            self.act()
        return torch.distributions.Normal(self.loc, 1.0).log_prob(x).sum(-1)


def alone(x: Tensor) -> bool:
    return len(x) == 1


def wide(x: Tensor) -> bool:
    return x.dtype == torch.float64


def refuse() -> None:
    raise ValueError("not for me")


WHERE = {
    "log_prob.any_batch_size": alone,
    "log_prob.batch_invariant": alone,
    "log_prob.dtype_invariant": wide,
    "log_prob.layout_invariant": wide,  # rounding is measured in float64
    "log_prob.gradient_right": wide,
    "density.integrates_to_one": wide,  # so is the precision of the density
}
"""A check, and the calls of log_prob of which it catches the exceptions."""


def found(model: object, check: str) -> Record:
    """The record of the check, without those that could block it: they run out of memory, too."""
    adapted = adapt(model)
    planned = [item for item in plan(adapted, CHECKS, alpha=1e-6) if item.check.id == check]
    (one,) = examine(adapted, planned, Settings(EFFORTS["quick"], 0))
    return one


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("check", WHERE)
def test_memory_that_runs_out_is_an_error_that_says_so(check: str, allocator: str):
    seen = found(Normal(ALLOCATORS[allocator], WHERE[check]), check)
    assert seen.verdict is Verdict.ERROR, seen
    assert isinstance(seen.evidence, Raised)
    assert "allocate" in seen.message


@pytest.mark.parametrize("check", WHERE)
def test_another_exception_at_the_same_place_is_judged_as_ever(check: str):
    seen = found(Normal(refuse, WHERE[check]), check)
    expected = {"log_prob.any_batch_size": Verdict.FAIL, "log_prob.dtype_invariant": Verdict.SKIP}
    expected["log_prob.gradient_right"] = Verdict.SKIP
    assert seen.verdict is expected.get(check, Verdict.PASS), seen.message


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_an_event_for_which_memory_runs_out_is_not_called_impossible(allocator: str):
    model = adapt(Normal(ALLOCATORS[allocator], lambda x: True))
    with pytest.raises((MemoryError, RuntimeError), match="allocate"):
        flat_density(model, torch.zeros(1, 1))(torch.zeros(5, 1))


def test_a_batch_that_is_too_large_for_memory_is_halved():
    model = adapt(Normal(ALLOCATORS["torch"], lambda x: len(x) > 2))
    log_p = flat_density(model, torch.zeros(1, 1))(torch.zeros(5, 1))
    assert bool(log_p.isfinite().all())


def test_an_event_that_the_model_refuses_is_impossible():
    model = adapt(Normal(refuse, lambda x: bool((x > 1).any())))
    log_p = flat_density(model, torch.zeros(1, 1))(torch.tensor([[0.0], [2.0]]))
    assert log_p.isfinite().tolist() == [True, False]


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),  # no library says it so
    ],
)
def test_what_counts_as_running_out_of_memory(error: Exception, memory: bool):
    assert out_of_memory(error) is memory
