"""Bayesian networks against enumeration, graph theory of networkx, and published values."""

import math
from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import check_model
from reference_impls import bayesian_network
from reference_impls.bayesian_network import BayesianNetwork
from reference_impls.markov_chain import MarkovChain
from reference_impls.parameter_counts import bayesian_network_parameters
from reference_impls.states import random_rows
from reference_impls.tables import JointTable

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=20)
PRESETS = [bayesian_network.asia, bayesian_network.student]
TOLERANCE = 2e3 * EPS
"""At most 256 states, each a product of 8 factors, weighted by squares of at most 2."""


@st.composite
def graphs(draw, most=5):
    """Parents on up to five variables, whose numbers are not in the order of the graph."""
    d = draw(st.integers(1, most))
    order = draw(st.permutations(range(d)))
    parents = [[] for _ in range(d)]
    for j, child in enumerate(order):
        parents[child] = [parent for parent in order[:j] if draw(st.booleans())]
    return parents


@st.composite
def forests(draw):
    parents = [pa[:1] for pa in draw(graphs(most=6))]
    return draw(networks(parents))


@st.composite
def networks(draw, parents=None):
    parents = draw(graphs()) if parents is None else parents
    states = [draw(st.integers(1, 3)) for _ in parents]
    tables = []
    for i, pa in enumerate(parents):
        table = random_rows((*(states[j] for j in pa), states[i]), draw(st.integers(0, 1000)))
        if draw(st.booleans()):
            table[..., : states[i] - 1] = 0.0  # certain
            table[..., -1] = 1.0
        tables.append(table)
    return BayesianNetwork(parents, tables)


def all_states(states):
    return torch.tensor(list(product(*map(range, states))))


def enumerated(model):
    """The joint table, each state multiplied out by itself."""
    p = [
        math.prod(float(t[tuple(x[j] for j in (*pa, i))]) for i, (pa, t) in families(model))
        for x in product(*map(range, model.states))
    ]
    return JointTable(torch.tensor(p, dtype=torch.float64).reshape(model.states))


def families(model):
    return list(enumerate(zip(model.parents, model.tables, strict=True)))


def close(a, b, tolerance=TOLERANCE):
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (a, b))
    return bool((a - b).abs().max() <= tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset, dtype):
    report = check_model(preset(dtype=dtype), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(networks())
def test_a_network_by_enumeration(model):
    oracle, x = enumerated(model), all_states(model.states)
    assert close(model.log_prob(x).exp(), oracle.log_prob(x).exp())
    assert close(model.joint().probs, oracle.probs)
    assert close(model.mean(), oracle.mean())
    assert close(model.variance(), oracle.variance())
    assert close(model.covariance(), oracle.covariance())
    assert close(model.entropy(), oracle.entropy())
    assert abs(model.kl(model)) <= TOLERANCE
    order = list(reversed(range(model.d)))
    assert close(model.reordered(order).log_prob(x[:, order]).exp(), oracle.log_prob(x).exp())


@examples
@given(forests())
def test_a_forest_by_enumeration(model):
    oracle = enumerated(model)
    assert close(model.mean(), oracle.mean())
    assert close(model.covariance(), oracle.covariance())
    assert close(model.entropy(), oracle.entropy())


def test_a_path_of_784_is_a_markov_chain():
    """As many as pixels of MNIST; pair by pair, its covariance had not ended after ten minutes. It begins at 484."""
    d, chain = 784, MarkovChain(random_rows((3,), 1), random_rows((783, 3, 3), 2))
    place = torch.arange(d).roll(300).tolist()  # variable place[t] is step t
    parents, tables = [[] for _ in range(d)], [chain.initial] * d
    for t in range(1, d):
        parents[place[t]], tables[place[t]] = [place[t - 1]], chain.transition[t - 1]
    path = BayesianNetwork(parents, tables)
    assert close(path.mean()[place], chain.mean(), d * EPS)
    assert close(path.covariance()[place][:, place], chain.covariance(), d * EPS)
    assert close(path.entropy(), chain.entropy(), d * d * EPS)
    assert path.table([place[0], place[-1]]).sum() == pytest.approx(1, abs=d * EPS)


@examples
@given(networks(), st.randoms(use_true_random=False))
def test_elimination_is_enumeration(model, random):
    oracle, d = enumerated(model), model.d
    a = random.sample(range(d), random.randint(1, d))
    x = all_states([model.states[i] for i in a])
    assert close(model.marginal(a).log_prob(x).exp(), oracle.marginal(a).log_prob(x).exp())
    assert close(model.table(a), oracle.marginal(a).probs)
    b = [i for i in range(d) if i not in a]
    if not b:
        return
    assert close(model.mutual_information(a, b), oracle.mutual_information(a, b))
    rest = all_states([model.states[i] for i in b])
    for values in x:
        if oracle.marginal(a).log_prob(values[None])[0] > -math.inf:
            conditional = model.conditional(a, values)
            assert close(conditional.log_prob(rest).exp(), oracle.conditional(a, values).log_prob(rest).exp())
        else:
            with pytest.raises(ValueError, match="probability zero"):
                model.conditional(a, values)


@examples
@given(graphs(most=6), st.randoms(use_true_random=False))
def test_d_separation_is_independence(parents, random):
    """For tables drawn at random, what the graph does not separate depends (but on a set of measure zero)."""
    model = BayesianNetwork(parents, [random_rows((2,) * (len(pa) + 1), 7 * i) for i, pa in enumerate(parents)])
    for a, b in combinations(range(model.d), 2):
        others = [i for i in range(model.d) if i not in (a, b)]
        seen = random.sample(others, random.randint(0, len(others)))
        joint = model.joint().marginal([a, b, *seen]).probs.reshape(2, 2, -1)
        information = sum(
            weight * JointTable(part / weight).mutual_information([0], [1])
            for part in joint.unbind(-1)
            if (weight := part.sum()) > 0
        )
        assert model.d_separated([a], [b], seen) == bool(information <= TOLERANCE)


def test_d_separation_agrees_with_networkx():
    networkx = pytest.importorskip("networkx", reason="networkx is not installed")
    model = bayesian_network.asia()
    graph = networkx.DiGraph([(j, i) for i, pa in enumerate(model.parents) for j in pa])
    for a, b in combinations(range(8), 2):
        others = [i for i in range(8) if i not in (a, b)]
        for size in range(4):
            for seen in combinations(others, size):
                assert model.d_separated([a], [b], seen) == networkx.is_d_separator(graph, {a}, {b}, set(seen))


def test_published_values_of_asia():
    """Prior and posterior as the paper's network gives them (also in Netica's and bnlearn's manuals), to 4 digits."""
    model = bayesian_network.asia(dtype=torch.float64)
    yes = {name: model.table([i])[0].item() for i, name in enumerate(model.names)}
    expected = {"tub": 0.0104, "lung": 0.055, "bronc": 0.45, "either": 0.0648, "xray": 0.1103, "dysp": 0.4360}
    assert {name: round(yes[name], 4) for name in expected} == expected
    assert bayesian_network_parameters(model.parents, model.states) == len(model.parameters()) == 18
    assert model.conditional([0, 7], torch.tensor([0, 0])).names == ("tub", "smoke", "lung", "bronc", "either", "xray")
    tub, smoke = model.names.index("tub"), model.names.index("smoke")
    assert model.d_separated([tub], [smoke])
    assert not model.d_separated([tub], [smoke], [model.names.index("dysp")])


def test_published_values_of_student():
    """Koller & Friedman 2009, section 3.2: p(i1) = 0.3, p(i1 | g3) = 0.079, p(i1 | g3, d1) = 0.11, p(l1) = 0.502."""
    model = bayesian_network.student(dtype=torch.float64)
    assert round(model.table([4])[1].item(), 3) == 0.502
    assert round(model.table([1], {2: 2})[1].item(), 3) == 0.079
    assert round(model.table([1], {2: 2, 0: 1})[1].item(), 2) == 0.11
    with pytest.raises(ValueError, match="given should map other variables to their states"):
        model.table([1], {2: 3})


@pytest.mark.parametrize("preset", PRESETS)
def test_fits_are_shares(preset):
    model = preset(dtype=torch.float64)
    x = model.sample(2000, generator=torch.Generator().manual_seed(0))
    fitted = model.fit(x)
    assert fitted.parents == model.parents
    assert fitted.names == model.names
    assert fitted.log_prob(x).sum() >= model.log_prob(x).sum()
    for i, (pa, table) in families(fitted):
        for family in product(*(range(model.states[j]) for j in (*pa, i))):
            rows = (x[:, list(pa)] == torch.tensor(family[:-1])).all(1)
            share = (x[rows, i] == family[-1]).double().mean() if rows.any() else 1 / model.states[i]
            assert close(table[family], share)
    assert model.fit(x[:1], smoothing=1.0).log_prob(all_states(model.states)).isfinite().all()


def test_parameters_come_back():
    model = bayesian_network.student(dtype=torch.float64)
    theta = model.parameters()
    assert len(theta) == bayesian_network_parameters(model.parents, model.states) == 15
    x = all_states(model.states)
    assert close(model.with_parameters(theta).log_prob(x), model.log_prob(x))
    theta.requires_grad_()
    (model.with_parameters(theta).log_prob(x).exp() * torch.arange(len(x))).sum().backward()
    assert theta.grad.isfinite().all()


def test_a_long_chain_of_evidence_does_not_underflow():
    """1399 children that tell nothing: p(evidence) = 2^-1399, below the smallest float64, and the answer is plain."""
    d = 1400
    noisy = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    prior = torch.tensor([0.25, 0.75], dtype=torch.float64)
    model = BayesianNetwork([[], *([0] for _ in range(d - 1))], [prior, *([noisy] * (d - 1))])
    posterior = model.conditional(range(1, d), torch.ones(d - 1, dtype=torch.int64))
    assert close(posterior.tables[0], prior, d * EPS)


NET = bayesian_network.asia()
FAIR = torch.tensor([0.5, 0.5])


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (
            lambda: BayesianNetwork([[1], [0]], [torch.eye(2)] * 2),
            r"cycle among .* \[0, 1\]; turn or remove",
        ),
        (lambda: BayesianNetwork([[0]], [torch.eye(2)]), r"cycle among the variables \[0\]"),
        (lambda: BayesianNetwork.from_draws(torch.zeros(1, 2), [[1], [0]], [2, 2]), "cycle"),
        (lambda: BayesianNetwork([[2], []], [FAIR, FAIR]), r"parents\[0\] should name different variables from 0 to 1"),
        (lambda: BayesianNetwork([[]], [torch.tensor([0.5, 0.4])]), r"tables\[0\] should have rows that sum to 1"),
        (lambda: BayesianNetwork([[], [0]], [FAIR, FAIR]), r"tables\[1\] should have shape \(2, 2\)"),
        (lambda: BayesianNetwork([[]], []), "tables should be one for each of 1"),
        (lambda: NET.conditional([3, 5], torch.tensor([0, 1])), "probability zero; condition on possible values"),
        (lambda: NET.conditional([0], torch.tensor([2])), "probability zero"),
        (lambda: NET.conditional(range(8), torch.zeros(8)), "leave out at least one"),
        (lambda: NET.fit(torch.full((1, 8), 2)), "out of range"),
        (lambda: NET.fit(torch.zeros(0, 8)), "x holds no draws"),
        (lambda: NET.log_prob(torch.zeros(1, 7)), r"shape \(n, 8\)"),
        (lambda: NET.reordered([0, 1]), "order should name all of the 8"),
        (lambda: NET.kl(bayesian_network.student()), "other should be a law on the states"),
        (lambda: NET.d_separated([0], [1], [1]), "given should not hold"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
