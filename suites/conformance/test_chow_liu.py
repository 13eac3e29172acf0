"""Chow-Liu trees against all trees, networkx, and published figures on NLTCS."""

import math
from itertools import product

import pytest
import torch

from harness import check_model
from reference_impls import chow_liu as family
from reference_impls.bayesian_network import BayesianNetwork
from reference_impls.chow_liu import chow_liu, maximum_spanning_tree, pairwise_counts, pairwise_information
from reference_impls.tables import JointTable

EPS = torch.finfo(torch.float64).eps


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(n=200, states=(2, 3, 2, 4), seed=0):
    """Neighbours are often equal, as far as their states go."""
    x = torch.stack([torch.randint(k, (n,), generator=generator(seed + i)) for i, k in enumerate(states)], 1)
    copied = torch.rand(n, len(states), generator=generator(seed)) < 0.5
    for i in range(1, len(states)):
        x[:, i] = torch.where(copied[:, i], x[:, i - 1].clamp(max=states[i] - 1), x[:, i])
    return x


def test_conforms():
    report = check_model(family.caterpillar(), effort="quick", seed=0)
    assert not report.failures, report.failures


def test_counts_are_those_of_each_pair():
    states = (2, 3, 2, 4)
    x = draws(states=states)
    counts = pairwise_counts(x, states)
    assert counts.shape == (4, 4, 4, 4)
    for i, j, a, b in product(range(4), range(4), range(4), range(4)):
        assert counts[i, a, j, b] == ((x[:, i] == a) & (x[:, j] == b)).sum()


def test_information_is_that_of_the_empirical_law():
    states = (2, 3, 2, 4)
    x = draws(states=states)
    information = pairwise_information(pairwise_counts(x, states))
    empirical = JointTable.from_draws(x, states)
    for i, j in product(range(4), range(4)):
        exact = empirical.mutual_information([i], [j]) if i != j else empirical.marginal([i]).entropy()
        assert abs(information[i, j] - exact) <= 200 * EPS  # sums of 16 terms below 1, and entropies below 2


def parent_vectors(d):
    """All trees on d labelled variables, rooted at 0: Cayley's d^(d-2)."""
    for choice in product(range(d), repeat=d - 1):
        parents = [[], *([p] for p in choice)]
        try:
            BayesianNetwork.from_draws(torch.zeros(1, d), parents, [1] * d)
        except ValueError:  # a cycle
            continue
        yield parents


def test_no_tree_is_more_likely():
    states = (2, 3, 2, 4)
    for seed in range(3):
        x = draws(seed=10 * seed, states=states)
        best = chow_liu(x, states, smoothing=0.0).log_prob(x).sum()
        trees = list(parent_vectors(4))
        assert len(trees) == 4**2
        totals = [BayesianNetwork.from_draws(x, tree, states).log_prob(x).sum() for tree in trees]
        assert abs(max(totals) - best) <= 1e3 * EPS * abs(best)


def test_spanning_trees_agree_with_networkx():
    networkx = pytest.importorskip("networkx", reason="networkx is not installed")
    for d in (1, 2, 7, 30):
        weights = torch.rand(d, d, generator=generator(d), dtype=torch.float64)
        weights = weights + weights.mT
        graph = networkx.Graph()
        graph.add_nodes_from(range(d))
        graph.add_weighted_edges_from((i, j, weights[i, j].item()) for i in range(d) for j in range(i))
        exact = {frozenset(edge) for edge in networkx.maximum_spanning_edges(graph, data=False)}
        parents = maximum_spanning_tree(weights)
        assert {frozenset((i, *pa)) for i, pa in enumerate(parents) if pa} == exact
        assert parents[0] == []


def test_constant_and_single_variables():
    model = chow_liu(torch.zeros(5, 3, dtype=torch.int64))
    assert model.states == (2, 2, 2)
    assert model.log_prob(torch.zeros(1, 3)).isfinite().all()
    alone = chow_liu(torch.tensor([[0], [1], [1]]), smoothing=0.0)
    assert alone.log_prob(torch.tensor([[1]])).item() == pytest.approx(math.log(2 / 3), rel=4 * EPS)


def test_nltcs(nltcs):
    model = chow_liu(nltcs.train)
    assert model.log_prob(nltcs.test).mean().item() == pytest.approx(-6.75904, abs=1e-5)
    x = torch.tensor(list(product([0, 1], repeat=16)))
    assert abs(model.log_prob(x).logsumexp(0)) <= 1e-9
    p = model.log_prob(x).exp()
    assert abs(model.entropy() + p @ model.log_prob(x)) <= 1e-9


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: chow_liu(torch.zeros(0, 3)), "x should be draws"),
        (lambda: chow_liu(torch.zeros(3)), "x should be draws"),
        (lambda: chow_liu(torch.tensor([[0, 2]]), [2, 2]), "out of range"),
        (lambda: chow_liu(torch.tensor([[0.5, 1.0]])), "out of range"),
        (lambda: chow_liu(torch.tensor([[-1, 1]])), "out of range"),
        (lambda: chow_liu(torch.tensor([[0, 1]]), smoothing=math.nan), "smoothing should be a finite number"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
