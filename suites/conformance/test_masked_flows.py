"""Masked flows: dependence by autograd and by perturbation, the cached sampler against d passes, MAF against IAF."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import check_model
from reference_impls import masked_flows
from reference_impls.elementwise import ScaleShift
from reference_impls.flows import ConditionalFlow, Inverted, StandardNormal
from reference_impls.masked_flows import Masked, MaskedNetwork, iaf, maf
from reference_impls.splines import Spline

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=20)
PRESETS = [
    masked_flows.maf_pair,
    masked_flows.triangular,
    masked_flows.iaf_triple,
    masked_flows.autoregressive_spline,
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def slopes(function, z):
    """J (n, outputs, inputs) by autograd."""
    z = z.clone().requires_grad_()
    x = function(z)
    return torch.stack([torch.autograd.grad(x[:, i].sum(), z, retain_graph=True)[0] for i in range(x.shape[1])], 1)


@st.composite
def layers(draw):
    """A layer of any order, width, depth and kind, with or without a condition, and what it is told."""
    d, given, seed = draw(st.integers(1, 6)), draw(st.sampled_from([0, 2])), draw(st.integers(0, 99))
    hidden = draw(st.lists(st.integers(d, 9), min_size=1, max_size=3))
    univariate = draw(st.sampled_from([ScaleShift(), Spline(3, 2.0)]))
    order = draw(st.permutations(range(d)))
    layer = Masked(order, univariate, hidden=hidden, given=given, seed=seed).to(torch.float64)
    return layer, normal(5, given, seed=seed) if given else None


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(layers())
def test_nothing_sees_what_comes_later_in_the_order(case):
    layer, told = case
    z, order = normal(5, layer.d), layer.order.tolist()
    for move in (layer.push, layer.pull):
        j = slopes(lambda z, move=move: move(z, told)[0], z)[:, order][:, :, order]
        assert (j.triu(1) == 0).all()
        assert (j.diagonal(dim1=1, dim2=2) > 0).all()
        log_det = move(z, told)[1]
        gap = (j.diagonal(dim1=1, dim2=2).log().sum(1) - (log_det if move == layer.push else -log_det)).abs()
        assert gap.max() <= 1e3 * EPS * (1 + log_det.abs().max()) / (
            1e-3 if isinstance(layer.univariate, Spline) else 1
        )


@examples
@given(layers())
def test_the_cache_changes_nothing(case):
    layer, told = case
    z = normal(5, layer.d, seed=1)
    slow, fast = layer.push_naive(z, told), layer._push_cached(z, told)
    # A hundred roundings a coordinate, of numbers of this size, magnified by what lies between.
    j = slopes(lambda z: layer.push_naive(z, told)[0], z)
    allowed = 300 * EPS * torch.linalg.cond(j) * (1 + slow[0].abs().amax(1) + z.abs().amax(1))
    assert ((fast[0] - slow[0]).abs().amax(1) <= allowed).all()
    assert ((fast[1] - slow[1]).abs() <= allowed).all()
    back = layer.pull(slow[0], told)[0]
    assert ((back - z).abs().amax(1) <= allowed).all()


def test_each_unit_is_computed_once(monkeypatch):
    """The rows of weights that sampling multiplies by are those of one pass: each unit and each parameter once."""
    layer, rows, multiply = Masked(range(6), hidden=(10, 7)), [], torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda bias, weight, x: rows.append(len(weight)) or multiply(bias, weight, x))
    layer._push_cached(torch.zeros(1, 6), None)
    assert sum(rows) == sum(len(weight) for weight in layer.network.weights)


@pytest.mark.parametrize("preset", [masked_flows.maf_pair, masked_flows.autoregressive_spline])
def test_draws_without_the_cache_are_the_same(preset):
    model = preset(dtype=torch.float64)
    fast, slow = model.sample(100, generator=generator(3)), model.sample_naive(100, generator=generator(3))
    j = slopes(model.forward, model.law.sample(100, generator=generator(3)))
    assert ((fast - slow).abs().amax(1) <= 1e3 * EPS * torch.linalg.cond(j) * (1 + fast.abs().amax(1))).all()


def test_iaf_is_maf_the_other_way_round():
    forth, back = maf(3, 2, hidden=(8,), seed=4).to(torch.float64), iaf(3, 2, hidden=(8,), seed=4).to(torch.float64)
    z = normal(20, 3)
    layer, mirrored = forth.map.layers[0], back.map.layers[0]
    assert isinstance(mirrored, Inverted)
    assert torch.equal(mirrored.push(z)[0], layer.pull(z)[0])
    assert torch.equal(mirrored.push(z)[1], -layer.pull(z)[1])


def test_hidden_units_have_every_degree_and_outputs_what_they_may_see():
    degrees = torch.tensor([0, 1, 2, 3])
    network = MaskedNetwork(torch.arange(4), degrees, (9, 9), 0, torch.tanh, 0)
    assert network.degrees[1].unique().tolist() == [1, 2, 3]
    seen = slopes(network.to(torch.float64), normal(3, 4)).abs().amax(0) > 0
    assert torch.equal(seen, torch.arange(4) < degrees[:, None])


def test_first_weights_are_drawn_for_degrees_whatever_the_order_of_coordinates():
    plain, other = (Masked(order, given=2, seed=7).network for order in (range(4), (2, 0, 3, 1)))
    assert torch.equal(other.degrees[0], torch.tensor([0, 0, 2, 4, 1, 3]))
    assert torch.equal(other.weights[0], plain.weights[0][:, [0, 1, 3, 5, 2, 4]])


@pytest.mark.parametrize("given", [0, 2])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_every_coordinate_sees_all_before_it_in_the_narrowest_network_that_there_is(d, given):
    narrowest = max(1, d if given else d - 1)
    layer = Masked(range(d), hidden=(narrowest, narrowest), given=given, seed=3).to(torch.float64)
    told = normal(4, given, seed=1) if given else None
    seen = slopes(lambda x: layer.pull(x, told)[0], normal(4, d)).abs().amax(0) > 0
    assert torch.equal(seen, torch.ones(d, d, dtype=torch.bool).tril())
    if narrowest > 1:
        with pytest.raises(ValueError, match=f"of {narrowest} units or more each"):
            Masked(range(d), hidden=(narrowest, narrowest - 1), given=given)


def test_a_condition_reaches_every_coordinate():
    layer = Masked(range(3), hidden=(9,), given=2, seed=2).to(torch.float64)
    z = normal(4, 3)
    seen = slopes(lambda told: layer.push_naive(z, told)[0], normal(4, 2)).abs().amax(0) > 0
    assert seen.all()


def test_a_conditional_masked_flow_draws_what_it_scores():
    layers = [Masked(order, hidden=(8,), given=2, seed=i) for i, order in enumerate(((0, 1), (1, 0)))]
    model = ConditionalFlow(StandardNormal(2), layers, classes=2)
    assert not check_model(model, effort="quick", seed=0).failures


def test_the_full_preset_draws_by_its_cache():
    model = masked_flows.full_maf()
    x = model.sample(2, generator=generator())
    assert x.shape == (2, 784)
    assert model.log_prob(x).isfinite().all()


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: Masked([0, 2, 1, 1]), "permutation of 0, ..., 3"),
        (lambda: Masked([0, 1], hidden=()), "widths of one or more layers"),
        (lambda: Masked([0, 1], hidden=(0,)), "widths of one or more layers"),
        (lambda: maf(2, 0), "layers should be one or more"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
