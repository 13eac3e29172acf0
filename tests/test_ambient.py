"""Whatever a model sets in the process around it is put back, and no later check or model is any different for it."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import check_model
from harness.ambient import preserved, switched, switches
from harness.evidence import Raised, Verdict
from harness.run import caught

CHANGES: dict[str, Callable[[], object]] = {
    "torch's gradient mode": lambda: torch.set_grad_enabled(False),
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float16),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "torch's deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "torch's number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's precision of float32 products": lambda: torch.set_float32_matmul_precision("medium"),
    "numpy's error handling": lambda: np.seterr(all="raise"),
}
QUIET: dict[str, Callable[[], object]] = {
    "warning filters": lambda: warnings.simplefilter("error"),
    "no warning filters": warnings.resetwarnings,
    "torch's generator": lambda: torch.manual_seed(7),
    "numpy's generator": lambda: np.random.seed(7),
    "Python's generator": lambda: random.seed(7),
}
"""What decides no arithmetic: put back, but no defect of the model, or one that another law names."""


def state() -> tuple[object, ...]:
    """All that is to be put back."""
    generators = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()
    return switches(), list(warnings.filters), generators


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A test that fails here must not spoil those that follow."""
    with preserved():
        torch.set_num_threads(1)
        yield


@pytest.mark.parametrize("name", [*CHANGES, *QUIET])
def test_what_was_changed_is_put_back(name: str):
    change, before = {**CHANGES, **QUIET}[name], state()
    with preserved():
        change()
        assert state() != before
    assert state() == before


@pytest.mark.parametrize("name", [*CHANGES, *QUIET])
def test_an_exception_does_not_keep_it_from_being_put_back(name: str):
    before = state()

    def vandal() -> None:
        {**CHANGES, **QUIET}[name]()
        raise ArithmeticError("and away")

    assert isinstance(caught(vandal), Raised)
    assert state() == before


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named(name: str):
    before = switches()
    assert switched(before) == []
    CHANGES[name]()
    assert switched(before) == [name]


def test_warnings_that_were_shown_once_are_not_shown_again():
    """Restoring filters that did not change would make Python forget what it has shown."""
    code = compile("import warnings\nwarnings.warn('seen', UserWarning)", "<a model>", "exec")
    namespace: dict[str, object] = {"__name__": "a_model"}
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(3):
            with preserved():
                exec(code, namespace)
    assert len(shown) == 1


class Vandal:
    """A standard normal that does `act` whenever it is asked for a density."""

    def __init__(self, act: Callable[[], object]):
        self.act = act

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, generator=generator, dtype=torch.float32, device="cpu")

    def log_prob(self, x: Tensor) -> Tensor:
        value = -x * x / 2 - 0.9189385332046727
        self.act()
        return value


def verdicts(model: object) -> dict[str, tuple[object, ...]]:
    report = check_model(model, effort="quick", only=["log_prob", "density"])
    return {r.check: (r.verdict, r.statistic, r.bound) for r in report.records}


@pytest.mark.parametrize("name", CHANGES)
def test_the_next_model_is_examined_as_if_it_were_the_first(name: str):
    normal = torch.distributions.Normal(torch.tensor(0.0), torch.tensor(1.0))
    first, before = verdicts(normal), state()
    spoilt = verdicts(Vandal(CHANGES[name]))
    assert spoilt["log_prob.leaves_model_unchanged"][0] is Verdict.FAIL
    assert state() == before
    assert verdicts(normal) == first


def test_a_model_that_puts_back_what_it_changed_is_not_at_fault():
    def tidy() -> None:
        dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(threads + 1)
        with np.errstate(all="ignore"), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)

    seen = verdicts(Vandal(tidy))
    assert seen["log_prob.leaves_model_unchanged"][0] is Verdict.SKIP  # it holds nothing, and changed nothing
    assert seen["density.integrates_to_one"][0] is Verdict.PASS
