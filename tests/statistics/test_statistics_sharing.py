"""Budgets add up; e-values multiply over runs and average over statistics."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.statistics.accumulator import log_mean_exp, pieces
from harness.statistics.sharing import accumulate, average, share


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=200))
def test_shares_sum_to_alpha_in_proportion(weights):
    parts = share(1e-6, weights)
    assert math.fsum(parts) == pytest.approx(1e-6, rel=1e-12)
    assert parts[0] * weights[-1] == pytest.approx(parts[-1] * weights[0])


@pytest.mark.parametrize(
    ("alpha", "weights"),
    [(0, [1]), (1, [1]), (0.1, []), (0.1, [0]), (0.1, [1, -1]), (math.nan, [1]), (0.1, [math.inf])],
)
def test_nonsense_is_refused(alpha, weights):
    with pytest.raises(ValueError, match="alpha"):
        share(alpha, weights)


def test_independent_runs_multiply():
    assert accumulate([math.log(2), math.log(3), math.log(0.5)]) == pytest.approx(math.log(3))
    assert accumulate([]) == 0


@given(st.lists(st.floats(-500, 500), min_size=1, max_size=20))
def test_dependent_evidence_averages(log_e_values):
    assert average(log_e_values) == pytest.approx(
        log_mean_exp(torch.tensor(log_e_values, dtype=torch.float64)), abs=1e-9
    )


def test_weights_infinities_and_nan():
    assert average([0.0, math.log(3)], [3, 1]) == pytest.approx(math.log(1.5))
    assert average([0.0, math.inf]) == math.inf
    assert average([-math.inf, -math.inf]) == -math.inf
    assert average([5.0, -math.inf], [1, 1]) == pytest.approx(5 - math.log(2))
    assert math.isnan(average([0.0, math.nan]))
    assert math.isnan(accumulate([1.0, math.nan]))


@given(st.lists(st.integers(0, 300), max_size=5))
def test_pieces_end_at_counts_that_do_not_depend_on_chunks(cuts):
    rows, ends, n = torch.arange(300), [], 0
    for chunk in torch.tensor_split(rows, sorted(cuts)):
        for piece, complete in pieces(chunk, n, 32):
            assert torch.equal(piece, rows[n : n + len(piece)])
            n += len(piece)
            ends += [n] * complete
    assert n == 300
    assert ends == [32, 36, 41, 47, 53, 60, 68, 77, 87, 98, 111, 125, 141, 159, 179, 202, 228, 257, 290]
