"""Sums over finite and countable supports agree with closed forms, within the error that they state."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats as st
import torch

from harness.numerics import enumerate_grid, enumerate_integers, log_sum_exp_streaming, power, sum_states, surprisal

INTEGERS = [
    ("poisson", st.poisson(3.5), [3]),
    ("poisson from afar", st.poisson(3.5), [400]),
    ("poisson 1e4", st.poisson(1e4), [1e4]),
    ("geometric", st.geom(0.3), [1]),
    ("geometric 1e-4", st.geom(1e-4), [1]),
    ("negative binomial", st.nbinom(0.3, 0.01), [5]),
    ("binomial", st.binom(50, 0.3), [15]),
    ("skellam", st.skellam(20, 5), [15]),
    ("discrete laplace", st.dlaplace(0.01), [0]),
    ("logarithmic", st.logser(0.999), [1]),
    ("zipf 1.5", st.zipf(1.5), [1]),
    ("zipf 1.1", st.zipf(1.1), [1]),
    ("zipf 3.5", st.zipf(3.5), [1]),
    ("yule-simon", st.yulesimon(0.7), [1]),
    ("beta-binomial", st.betabinom(100, 0.3, 0.2), [50]),
]


def log_mass(distribution):
    return lambda x: torch.from_numpy(np.asarray(distribution.logpmf(x[:, 0].numpy()), dtype=np.float64))


@pytest.mark.parametrize(("distribution", "start"), [case[1:] for case in INTEGERS], ids=[case[0] for case in INTEGERS])
def test_masses_on_the_integers_sum_to_one_within_the_stated_error(distribution, start):
    total = enumerate_integers(log_mass(distribution), start, [power(1)], max_points=2**19)
    rounding = 1e-10  # scipy's own log-masses
    assert abs(total.total - 1) <= total.total_error + rounding
    assert total.total_error <= 1e-3
    mean = float(distribution.mean())
    if math.isfinite(mean):
        assert abs(float(total.values[1]) - mean) <= float(total.error[1]) + rounding * (1 + abs(mean))
    else:
        assert not float(total.error[1]) < 1.0


def test_a_heavy_tail_is_extrapolated_and_its_uncertainty_reported():
    zipf = enumerate_integers(log_mass(st.zipf(1.5)), [1], max_points=2**16)
    assert st.zipf(1.5).sf(zipf.points) > 0.005, "most of the tail was not summed"
    assert abs(zipf.total - 1) <= zipf.total_error + 1e-14
    assert 0 < zipf.total_error < 1e-9


def test_a_tail_that_does_not_fall_has_infinite_error():
    harmonic = enumerate_integers(lambda x: -x[:, 0].log(), [1], lower=1, max_points=2**16)
    assert math.isinf(harmonic.total_error)
    assert not harmonic.converged


def test_no_mass_in_sight_is_not_a_total_of_zero():
    nothing = enumerate_integers(lambda x: torch.full((len(x),), -math.inf), [0], max_points=2**14)
    assert not nothing.converged
    assert math.isinf(nothing.total_error)


def test_finite_support_with_limits_is_summed_exactly():
    dice = enumerate_integers(lambda x: torch.full_like(x[:, 0], -math.log(6.0)), [3], [power(1)], lower=1, upper=6)
    assert dice.converged
    assert dice.points == 6
    assert dice.values.tolist() == pytest.approx([1, 3.5], abs=1e-14)


def test_gaps_in_the_support_are_walked_over():
    lattice = enumerate_integers(
        lambda x: torch.where(x[:, 0] % 100 == 0, math.log(0.5) * (x[:, 0] / 100 + 1), -math.inf), [0], lower=0
    )
    assert lattice.converged
    assert abs(lattice.total - 1) <= lattice.total_error


def test_values_below_the_range_of_exp_are_summed_in_logarithms():
    shifted = enumerate_integers(lambda x: log_mass(st.poisson(7))(x) - 5000, [7])
    assert shifted.log_total == pytest.approx(-5000, abs=1e-9)


def test_grid_lists_every_state_once_in_bounded_batches():
    batches = list(enumerate_grid([3, torch.tensor([-1.0, 1.0]), 4], batch=7))
    states = torch.cat(batches)
    assert max(len(b) for b in batches) <= 7
    assert len(states) == 24
    assert len(states.unique(dim=0)) == 24
    assert states[1].tolist() == [0.0, -1.0, 1.0]


def test_ising_partition_function_over_a_million_states():
    n, coupling = 20, 0.4

    def log_mass_of_ring(s):
        return coupling * (s * s.roll(1, -1)).sum(-1)

    ring = sum_states(log_mass_of_ring, [torch.tensor([-1.0, 1.0])] * n, [lambda s, lp: s[:, 0] * s[:, 1]])
    c, s = math.cosh(coupling), math.sinh(coupling)
    z = (2 * c) ** n + (2 * s) ** n
    correlation = (math.tanh(coupling) + math.tanh(coupling) ** (n - 1)) / (1 + math.tanh(coupling) ** n)
    assert ring.points == 2**20
    assert ring.converged
    assert abs(ring.total - z) <= ring.total_error <= 1e-12 * z
    assert abs(float(ring.expectations[0]) - correlation) <= float(ring.expectations[1])


def test_entropy_of_a_finite_distribution():
    p = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)
    h = sum_states(lambda x: p.log()[x[:, 0].long()], [4], [surprisal])
    assert h.values.tolist() == pytest.approx([1.0, 1.5 * math.log(2)], abs=1e-15)


def test_a_state_without_a_number_is_reported():
    broken = sum_states(lambda x: torch.where(x[:, 0] == 3, math.nan, 0.0).double(), [10])
    assert not broken.converged
    assert math.isinf(broken.total_error)


def test_streaming_log_sum_exp():
    x = torch.linspace(-800, 900, 1001, dtype=torch.float64)
    assert log_sum_exp_streaming(x.split(37)) == pytest.approx(scipy.special.logsumexp(x.numpy()), abs=1e-12)
    assert log_sum_exp_streaming([]) == -math.inf
