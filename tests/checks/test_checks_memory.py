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
from harness.checks.blocks import _again
from harness.checks.oracle import flat_density
from harness.checks.second import _fitted
from harness.checks.stretch import stretchable
from harness.draws import within
from harness.effort import EFFORTS
from harness.errors import out_of_memory
from harness.event import ROWS, event_of
from harness.evidence import Raised, Record, Verdict
from harness.model import Model
from harness.moves import differentiable
from harness.plan import plan
from harness.profile import profile
from harness.run import Settings, examine
from harness.scout import Tolerant, points
from harness.subject import Subject

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


class Alone(Normal):
    """The same without a sampler."""

    sample = None
    event_shape = (1,)


class Pair(Normal):
    """Draws that take two values only, so that it is asked whether there is a density beside them."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (n, 1), generator=generator) / 3 + 0.1


class Estimator(Normal):
    def fit(self, x: Tensor) -> Estimator:
        self.act()
        return self


class Hungry(torch.distributions.constraints.Constraint):
    """A discrete support whose check does `act`."""

    is_discrete = True

    def __init__(self, act: Callable[[], object]):
        self.act = act

    def check(self, value: Tensor) -> Tensor:
        self.act()
        return torch.ones_like(value, dtype=torch.bool)


Act = Callable[[], object]


def subject_of(model: object) -> Subject:
    return Subject(adapt(model), EFFORTS["quick"], 0)


def _terms(act: Act) -> Callable[[Model, Tensor], Tensor]:
    return lambda model, x: act() if wide(x) else torch.zeros(len(x), 1)


def _within_hungry(act: Act) -> object:
    model = Normal(act, lambda x: False)
    model.support = Hungry(act)
    return profile(adapt(model), torch.arange(4.0)[:, None])


ASKED: dict[str, Callable[[Act], object]] = {
    "the domain of the proposals": lambda act: within(
        subject_of(Normal(act, lambda x: len(x) == 2**12)), torch.ones(2, 1)
    ),
    "the shape of an event": lambda act: event_of(adapt(Alone(act, lambda x: len(x) == ROWS[0]))),
    "the dtype of a density": lambda act: points(adapt(Alone(act, lambda x: len(x) == 3)), 0, 64),
    "an event of a scout": lambda act: Tolerant(adapt(Normal(act, lambda x: True)))(torch.zeros(3, 1)),
    "beside the draws": lambda act: subject_of(Pair(act, lambda x: len(x) == 16)).profile,
    "the support of values": _within_hungry,
    "a gradient for moves": lambda act: differentiable(subject_of(Normal(act, lambda x: x.requires_grad))),
    "a stretch": lambda act: stretchable(subject_of(Normal(act, lambda x: True))),
    "the terms in float64": lambda act: _again(subject_of(Normal(act, wide)), torch.zeros(3, 1), _terms(act)),
    "a second model": lambda act: _fitted(subject_of(Estimator(act, lambda x: False))),
}
"""What is found out by asking, where a refusal is an answer."""


@pytest.mark.parametrize("what", ASKED)
def test_memory_that_runs_out_is_no_answer(what: str):
    with pytest.raises(RuntimeError, match="allocate"):
        ASKED[what](ALLOCATORS["torch"])


@pytest.mark.parametrize("what", sorted(ASKED.keys() - {"a second model"}))
def test_another_refusal_is_one(what: str):
    ASKED[what](refuse)


def test_a_scout_halves_a_batch_that_is_too_large_for_memory():
    tolerant = Tolerant(adapt(Normal(ALLOCATORS["torch"], lambda x: len(x) > 2)))
    assert bool(tolerant(torch.zeros(5, 1)).isfinite().all())
