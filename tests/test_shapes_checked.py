"""The shapes that annotations promise are checked in this test run: a wrong one is told, a right one is not."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random

import pytest
import torch
from jaxtyping import TypeCheckError

from harness.chart import fit_chart
from harness.checks.bridge import pair_indices
from harness.numerics import Integral, enumerate_grid, integrate
from harness.numerics.integral import surprisal
from harness.statistics import binomial, categorical, two_sample
from harness.statistics.bernstein import BoundedMean, Sums

ANNOTATED = ("chart", "profile", "reference", "features", "moves", "checks.bridge", "checks.kernel", "checks.masses")


def modules() -> list[str]:
    packages = [importlib.import_module(f"harness.{name}") for name in ("statistics", "numerics")]
    inside = [f"{p.__name__}.{info.name}" for p in packages for info in pkgutil.iter_modules(p.__path__)]
    return [*(f"harness.{name}" for name in ANNOTATED), *inside]


def half(*shape: int) -> torch.Tensor:
    return torch.full(shape, 0.5, dtype=torch.float64)


def integral(cells: int, edges: int) -> Integral:
    both = half(cells, 1)
    return Integral(half(1), half(1), 1, True, cells=both, cell_error=both, edges=half(edges))


WRONG = {
    "two axes where there is one": lambda: two_sample.fit(half(3, 1), half(3, 3)),
    "sizes that differ between arguments": lambda: two_sample.fit(half(3), half(4, 4)),
    "a matrix that is not square": lambda: two_sample.fit(half(3), half(3, 4)),
    "shapes that do not broadcast": lambda: binomial.log_growth(half(3), half(4)),
    "float32 where float64 is promised": lambda: surprisal(half(5, 1), half(5).float()),
    "no axis for the draws": lambda: BoundedMean().update(torch.tensor(0.5)),
    "masses of another number of cells": lambda: categorical.log_e_values(half(2, 3), half(4)),
    "a field of a frozen value": lambda: Sums(1, half(2), half(3)),
    "as many edges as cells": lambda: integral(cells=4, edges=4),
    "flags that are not booleans": lambda: fit_chart(half(8, 2), None, half(2)),
    "not a subject": lambda: pair_indices(None),
}

RIGHT = {
    "square": lambda: two_sample.fit(half(3), half(3, 3)),
    "broadcast": lambda: binomial.log_growth(half(1, 3), half(4, 1)),
    "an int for a float": lambda: BoundedMean(-1, 1).update(half(3)),
    "rows of columns": lambda: BoundedMean().update(half(3, 2)),
    "one edge more than cells": lambda: integral(cells=4, edges=5),
    "a whole integration": lambda: integrate(lambda x: -x[:, 0].square() / 2, lower=-8, upper=8),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_shape_is_told(name):
    with pytest.raises(TypeCheckError):
        WRONG[name]()


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_shape_is_not(name):
    RIGHT[name]()


@pytest.mark.parametrize("name", modules())
def test_every_annotated_module_was_loaded_through_the_hook(name):
    module = importlib.import_module(name)
    functions = [f for _, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == name]
    assert "jaxtyping" in type(module.__loader__).__module__
    assert all(hasattr(f, "__wrapped__") for f in functions)


def test_checking_does_not_draw_from_the_global_generator():
    before = random.getstate()
    states = torch.cat(list(enumerate_grid([2, half(3), 2])))
    assert states.shape == (12, 3)
    assert random.getstate() == before
