"""Ceilings that are measured, work that is counted, and the fraction between them by hand."""

from __future__ import annotations

import json

import pytest
import torch

from harness.bench.ceilings import Ceilings, Work, ceilings, roofline, work_of
from harness.bench.show import changes, percent, seconds, table

LIMITS = Ceilings(copy_bytes_per_second=1e9, matmul_flops_per_second=1e10, device="cpu", dtype="float32", threads=1)


@pytest.mark.parametrize(
    ("work", "least"),
    [(Work(10**10, 1), 1.0), (Work(0, 10**9), 1.0), (Work(10**10, 4 * 10**9), 4.0), (Work(0, 0), 0.0)],
)
def test_the_roof_is_the_slower_of_arithmetic_and_memory(work, least):
    assert roofline(2.0, work, LIMITS) == least / 2


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_no_time_has_no_fraction(wrong):
    with pytest.raises(ValueError, match="seconds"):
        roofline(wrong, Work(1, 1), LIMITS)


def test_a_product_of_matrices_is_counted_by_its_formula():
    """2 n m k operations; bytes of the two factors and of the product."""
    a, b = torch.ones(3, 5), torch.ones(5, 7, dtype=torch.float32)
    assert work_of(lambda: a @ b, [a, b]) == Work(2 * 3 * 5 * 7, 4 * (15 + 35 + 21))


def test_ceilings_are_positive_and_strict_json():
    """Small sizes, which the caches hold: the numbers mean nothing, but are there."""
    found = ceilings(copied=2**16, side=16)
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert told["copy_bytes_per_second"] > 0
    assert told["matmul_flops_per_second"] > 0
    assert (told["device"], told["dtype"], told["threads"]) == ("cpu", "float32", 1)


def test_numbers_are_told_in_units_that_fit():
    assert [seconds(value) for value in (2.0, 0.5e-3, 3.21e-6, 4e-9, 1e-12)] == [
        "2 s",
        "500 us",
        "3.21 us",
        "4 ns",
        "0.001 ns",
    ]
    assert [percent(0.0), percent(-0.1053605)] == ["+0.0 %", "-10.0 %"]
    assert changes(0.5, 0.4, 0.6) == ["+64.9 %", "+49.2 %", "+82.2 %"]
    assert changes(2.3026, 2.2, 2.4) == ["x 10", "x 9.03", "x 11"]
    assert changes(-2.3026) == ["x 0.1"]
    assert list(table([("a", "", "b"), ("long", "", "c")])) == ["a     b", "long  c"]
