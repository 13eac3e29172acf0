"""hmmlearn: log_prob against a sum over all hidden paths, and against the library's `score`."""

import itertools

import numpy as np
import pytest
import torch

from harness.adapters import NotAModel, adapt
from harness.adapters import hmmlearn as adapter

pytest.importorskip("hmmlearn", reason="hmmlearn is not installed: pip install 'genharness[bench]'")


@pytest.fixture(scope="module")
def fitted():
    from hmmlearn.hmm import CategoricalHMM

    x = torch.randint(0, 3, (40, 4), generator=torch.Generator().manual_seed(0))
    return adapter.trained(CategoricalHMM(2, n_iter=5), x, 7, (3,) * 4)


def test_log_prob_is_the_sum_over_hidden_paths(fitted):
    row = [0, 2, 1, 1]
    total = 0.0
    for path in itertools.product(range(2), repeat=4):
        p = fitted.startprob_[path[0]] * fitted.emissionprob_[path[0], row[0]]
        for t in range(1, 4):
            p *= fitted.transmat_[path[t - 1], path[t]] * fitted.emissionprob_[path[t], row[t]]
        total += p
    # Sixteen products of eight factors, each rounded by 1e-16 of itself.
    assert abs(float(adapt(fitted).log_prob(torch.tensor([row]))) - np.log(total)) < 1e-13


def test_it_is_the_librarys_score_of_real_sequences():
    from hmmlearn.hmm import GaussianHMM

    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fitted = adapter.trained(GaussianHMM(2, n_iter=5), x, 7)
    model = adapt(fitted)
    told = [fitted.score(row[:, None]) for row in x.numpy()]
    # Five steps of sums of two: some ten roundings of 2e-16, on numbers below 1e2.
    assert np.allclose(model.log_prob(x).numpy(), told, rtol=0, atol=1e-12)
    assert model.event_shape == (5,)


def test_all_sequences_together_have_mass_one(fitted):
    states = torch.cartesian_prod(*[torch.arange(3)] * 4)
    assert abs(float(adapt(fitted).log_prob(states).exp().sum()) - 1) < 1e-12  # 81 terms


def test_what_is_no_category_has_no_probability_and_no_rows_are_rows(fitted):
    model = adapt(fitted)
    assert float(model.log_prob(torch.tensor([[0, 0, 3, 0]]))) == -torch.inf
    assert model.log_prob(torch.zeros(0, 4, dtype=torch.int64)).shape == (0,)
    draws = [model.sample(3, generator=torch.Generator().manual_seed(2)) for _ in range(2)]
    assert torch.equal(*draws)
    assert draws[0].shape == (3, 4)


def test_its_events_need_a_length():
    from hmmlearn.hmm import CategoricalHMM

    with pytest.raises(NotAModel, match="not fitted"):
        adapt(CategoricalHMM(2))
    hmm = CategoricalHMM(2, random_state=0, n_iter=1).fit(np.zeros((8, 1), dtype=int) + np.arange(8)[:, None] % 2)
    with pytest.raises(NotAModel, match="sequence_length"):
        adapt(hmm)
