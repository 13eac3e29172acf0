"""Rows of finite numbers, told by a subtraction."""

from __future__ import annotations

import math

import pytest
import torch

from harness.numerics.rows import finite_rows


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_row_is_finite_where_all_its_numbers_are(dtype):
    largest = torch.finfo(dtype).max
    rows = [[1.0, -2.0], [math.nan, 0.0], [0.0, math.inf], [-math.inf, math.inf], [largest, largest]]
    x = torch.tensor(rows, dtype=dtype)
    assert finite_rows(x).tolist() == [True, False, False, False, True]
    assert finite_rows(x.reshape(5, 2, 1)).tolist() == x.isfinite().all(1).tolist()


@pytest.mark.parametrize("x", [torch.arange(3), torch.tensor([True, False]), torch.empty(2, 0), torch.empty(0, 3)])
def test_rows_of_whole_numbers_and_empty_rows_are_finite(x):
    assert finite_rows(x).tolist() == [True] * len(x)
