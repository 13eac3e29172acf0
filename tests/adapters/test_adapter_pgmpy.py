"""pgmpy: log_prob against the library's own probability of every state, one at a time."""

import numpy as np
import pytest
import torch

from harness.adapters import NotAModel, adapt
from harness.adapters import pgmpy as adapter

pytest.importorskip("pgmpy", reason="pgmpy is not installed: pip install 'genharness[bench]'")


def network():
    from pgmpy.models import DiscreteBayesianNetwork

    return DiscreteBayesianNetwork([("a", "b"), ("a", "c"), ("b", "c")])


@pytest.fixture(scope="module")
def fitted():
    x = torch.randint(0, 3, (60, 3), generator=torch.Generator().manual_seed(0))
    x[:, 1] = (x[:, 0] + x[:, 1] % 2) % 3
    return adapter.trained(network(), x, 0, (3, 3, 3))


def test_every_state_has_the_librarys_own_probability(fitted):
    model = adapt(fitted)
    states = torch.cartesian_prod(*[torch.arange(3)] * 3)
    nodes = list(fitted.nodes())
    told = [fitted.get_state_probability(dict(zip(nodes, state, strict=True))) for state in states.tolist()]
    # Three factors, each rounded by 1e-16 of a probability below 1.
    assert np.allclose(model.log_prob(states).exp().numpy(), told, atol=1e-15, rtol=1e-13)
    assert abs(float(model.log_prob(states).exp().sum()) - 1) < 1e-13


def test_what_is_no_state_has_no_probability(fitted):
    model = adapt(fitted)
    assert torch.equal(model.log_prob(torch.tensor([[0, 3, 0], [-1, 0, 0]])), torch.full((2,), -torch.inf).double())


def test_draws_leave_numpys_generator_alone(fitted):
    model = adapt(fitted)
    before = np.random.get_state()[1].copy()
    draws = [model.sample(4, generator=torch.Generator().manual_seed(2)) for _ in range(2)]
    assert torch.equal(*draws)
    assert np.array_equal(before, np.random.get_state()[1])


def test_a_fit_smooths_states_that_the_rows_lack():
    fitted = adapter.trained(network(), torch.zeros(5, 3, dtype=torch.int64), 0, (2, 2, 2))
    log_p = adapt(fitted).log_prob(torch.ones(1, 3, dtype=torch.int64))
    # Five rows of state 0, one added to every count: p(a=1) = 1/7, and rows of tables that saw nothing are even.
    assert abs(float(log_p.exp()) - 1 / 7 / 4) < 1e-15


def test_tables_must_be_there_and_columns_as_many_as_nodes():
    with pytest.raises(NotAModel, match="call its fit"):
        adapt(network())
    with pytest.raises(ValueError, match="3 nodes, the data 2 columns"):
        adapter.trained(network(), torch.zeros(5, 2), 0, (2, 2))
