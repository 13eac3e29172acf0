"""Flows against autograd determinants, quadrature, scipy, Gaussians in closed form, and each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats
from torch.distributions import MultivariateNormal, Normal, SigmoidTransform

from harness import check_model
from reference_impls import coupling, flows, planar, training
from reference_impls.coupling import Coupling, alternating
from reference_impls.elementwise import Elementwise, ScaleShift
from reference_impls.flows import (
    Affine,
    Composed,
    ConditionalFlow,
    Flow,
    Inverted,
    Permutation,
    Square,
    Squash,
    StandardNormal,
    TriangularFlow,
    UniformBase,
)
from reference_impls.planar import Planar, planar_flow

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=15)
PRESETS = [flows.affine, flows.squared_uniform, coupling.realnvp, coupling.class_conditional, planar.folded]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def double(module):
    return module.to(torch.float64)


def slopes(layer, z, given=None):
    """J (n, d, d) by autograd."""
    z = z.clone().requires_grad_()
    x = layer.push(z, given)[0]
    return torch.stack([torch.autograd.grad(x[:, i].sum(), z, retain_graph=True)[0] for i in range(x.shape[1])], 1)


def rounding(jacobian):
    """(n,): a chain of a few hundred roundings, magnified by the condition of J."""
    return 300 * EPS * torch.linalg.cond(jacobian)


def lawful(layer, z, given=None):
    """Round trips and determinants agree, in float64, with what autograd says, up to rounding."""
    x, log_det = layer.push(z, given)
    back, log_det_there = layer.pull(x, given)
    j = slopes(layer, z, given)
    allowed = rounding(j)
    assert ((back - z).abs().amax(1) <= allowed * (1 + z.abs().amax(1) + x.abs().amax(1))).all()
    assert ((torch.linalg.slogdet(j).logabsdet - log_det).abs() <= allowed * (1 + log_det.abs())).all()
    assert ((log_det_there - log_det).abs() <= allowed * (1 + log_det.abs() + z.abs().amax(1))).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert not report.failures, report.failures


@examples
@given(st.integers(1, 5), st.integers(0, 99), st.sampled_from([0.1, 1.0, 2.0]))
def test_layers_obey_autograd(d, seed, size):
    z = 2 * normal(7, d, seed=seed)
    v, w, b = size * normal(3, d, seed=seed + 1)
    order = torch.randperm(d, generator=generator(seed)).tolist()
    layers = [
        double(Affine(v.outer(w), b / 4, w)),
        double(Planar(v, w, b[0])),
        double(Elementwise(d, ScaleShift(), spread=size, seed=seed)),
        Permutation(order),
        double(Squash(d, -1.0, 3.0)),
    ]
    if d > 1:
        layers += [double(Coupling(kept, hidden=(5,), seed=seed)) for kept in alternating(d, 2)]
    for layer in layers:
        lawful(layer, z)
        lawful(Inverted(layer), layer.forward(z).detach())
    lawful(Composed(layers), z / 4)
    lawful(Square(d), z.abs())


def test_an_affine_flow_is_the_gaussian():
    model = flows.affine(dtype=torch.float64)
    (layer,) = model.map.layers
    oracle = MultivariateNormal(layer.shift, scale_tril=layer._matrix())
    x = model.sample(200, generator=generator())
    assert (model.log_prob(x) - oracle.log_prob(x)).abs().max() <= 100 * EPS * oracle.log_prob(x).abs().max()


def test_the_square_of_a_uniform_is_a_beta_law():
    model, oracle = flows.squared_uniform(dtype=torch.float64), stats.beta(0.5, 1, scale=4)
    x = torch.from_numpy(oracle.ppf(np.linspace(0.01, 0.99, 50)))[:, None]
    assert np.allclose(model.log_prob(x).numpy(), oracle.logpdf(x[:, 0].numpy()), rtol=10 * EPS, atol=10 * EPS)
    outside = torch.tensor([[0.0], [4.001], [-1.0], [math.inf]], dtype=torch.float64)  # the interval (0, a^2], a = 2
    assert (model.log_prob(outside) == -math.inf).all()
    assert model.log_prob(torch.tensor([[4.0]], dtype=torch.float64)).isfinite()
    assert model.log_prob(torch.tensor([[math.nan]], dtype=torch.float64)).isnan()


def test_what_is_outside_has_no_gradient_and_spoils_none():
    model = flows.squared_uniform(dtype=torch.float64)
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    model.log_prob(x)[0].backward()
    assert x.grad.tolist() == [[-0.5], [0.0]]  # d/dx of -log(4 sqrt x)


def test_squash_is_the_logistic_function():
    z = torch.linspace(-30, 30, 61, dtype=torch.float64)[:, None]
    x, log_det = Squash(1).push(z)
    assert (x - SigmoidTransform()(z)).abs().max() <= EPS
    stated = (-z.abs() - 2 * torch.log1p((-z.abs()).exp()))[:, 0]  # torch's own is off by 2e-9 from 20 on
    assert ((log_det - stated).abs() <= 10 * EPS * (1 + stated.abs())).all()
    assert Squash(1).inverse(torch.tensor([[0.0], [1.0], [2.0]])).isnan().all()


# Planar flows


@examples
@given(st.integers(0, 99), st.sampled_from([-300.0, -3.0, 0.0, 3.0, 30.0]))
def test_planar_roots_are_those_of_brents_method(seed, strength):
    w = normal(3, seed=seed)
    layer = double(Planar(strength * w, w, 0.3))
    u, along = layer._bend()
    assert along >= -1 + planar.LEAST
    assert (w @ u - along).abs() <= 50 * EPS * (1 + abs(strength) * w.square().sum())
    target = 3 * normal(5, seed=seed + 1)
    found = layer._root(target, along)
    for a, t in zip(found.tolist(), target.tolist(), strict=True):
        c, b = along.item(), layer.b.item()
        root = optimize.brentq(
            lambda a, c=c, b=b, t=t: a + c * math.tanh(a + b) - t, t - abs(c) - 1, t + abs(c) + 1, xtol=1e-15
        )
        slope = 1 + c / math.cosh(root + b) ** 2
        assert abs(a - root) <= 20 * EPS * (1 + abs(t) + abs(c)) / min(1.0, slope)


def test_a_planar_flow_at_its_constraint_still_conforms():
    w = torch.tensor([1.0, 0.5])
    model = Flow(StandardNormal(2), [Planar(-100 * w, w, 0.1)])
    report = check_model(
        model, effort="quick", seed=0, only=["bijection", "density.bridge_mass", "sampler.region_masses"]
    )
    assert not report.failures, report.failures


# Composition, conditions


def test_a_flow_integrates_to_one_and_its_draws_follow_it():
    model = double(Flow(StandardNormal(1), [Planar(torch.tensor([2.0]), torch.tensor([1.0]), 0.5)]))
    density = lambda t: model.log_prob(torch.tensor([[t]], dtype=torch.float64)).exp().item()  # noqa: E731
    mass, error = integrate.quad(density, -12, 12, limit=200)
    assert abs(mass - 1) <= error + 1e-12  # the tails beyond 12
    x = model.sample(2000, generator=generator(1))
    u = Normal(0.0, 1.0).cdf(model.inverse(x))[:, 0].detach().numpy()
    assert stats.kstest(u, "uniform").pvalue > 1e-3  # of all seeds, one in a thousand would fail here


def test_a_mixture_of_classes_and_bayes_rule():
    model = coupling.class_conditional(dtype=torch.float64)
    x = model.sample(30, generator=generator())
    labels = torch.arange(3)
    each = torch.stack([model.log_prob(x, given=y.expand(30)) for y in labels], 1)
    assert (model.log_prob(x) - (each.exp().mean(1)).log()).abs().max() <= 100 * EPS * each.abs().max()
    assert (
        model.posterior(x) - each.exp() / each.exp().sum(1, keepdim=True)
    ).abs().max() <= 100 * EPS * each.abs().max()
    y = torch.tensor([0, 1, 2]).repeat(10)
    z = normal(30, 2)
    for k in range(3):
        lawful(model.map, z[y == k], model._told(y[y == k], z[y == k]))


def test_blocks_of_rows_change_nothing():
    model = coupling.realnvp(dtype=torch.float64)
    x = model.sample(2 * flows.ROWS + 3, generator=generator())
    with torch.no_grad():
        cut = model.log_prob(x)
    whole = model.log_prob(x)
    assert whole.requires_grad
    assert not cut.requires_grad
    assert (cut - whole).abs().max() <= 100 * EPS * whole.abs().max()


@pytest.mark.parametrize(("plain", "in_place"), coupling.IN_PLACE.items())
def test_activations_in_place_are_the_plain_ones_and_so_are_their_slopes(plain, in_place):
    x = normal(50).requires_grad_()
    found, truth = in_place(2 * x), plain(2 * x)
    assert torch.equal(found, truth)
    assert torch.equal(torch.autograd.grad(found.sum(), x)[0], torch.autograd.grad(truth.sum(), x)[0])


@pytest.mark.parametrize("more", [0, 1, 2, flows.ROWS])
def test_blocks_are_even_and_of_bounded_size(more):
    most, sizes = flows.ROWS * torch.get_num_threads(), []
    n = most + more
    x, y = normal(n, 1), normal(n, 2, seed=1)

    def added(x, y):
        sizes.append(len(x))
        return x + y

    with torch.no_grad():
        assert torch.equal(flows.in_blocks(added, x, y), x + y)
    assert sum(sizes) == n
    assert max(sizes) <= most
    assert len(sizes) == math.ceil(n / most)
    assert max(sizes) - min(sizes) <= len(sizes)


def test_training_goes_down_to_the_entropy_of_a_gaussian():
    law = MultivariateNormal(torch.tensor([1.0, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 0.5]]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = law.sample((4000,))
    model = Flow(StandardNormal(2), [Affine(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2))])
    history = training.train(model, model.loss, x, steps=300, batch=400, rate=0.05)
    assert history[0] > history[-1]
    best = (
        -MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0)).log_prob(x).mean()
    )  # the maximum, in closed form
    # The mean loss at theta exceeds its minimum by half the squared distance in Fisher's metric; 1e-3 nats is what
    # Adam's last steps, of a rate that falls to 0, leave here.
    assert best - 1e-6 <= model.loss(x) <= best + 1e-3


@pytest.mark.parametrize("full", [coupling.full_realnvp, planar.full_planar])
def test_full_presets_are_laws(full):
    model = full()
    x = model.sample(3, generator=generator())
    assert model.log_prob(x).isfinite().all()
    assert (model.inverse(model.forward(x)) - x).abs().max() <= 0.01 * x.abs().max()  # float32, 10 to 80 layers


NORMAL = StandardNormal(2)
PAIR = coupling.realnvp()
CLASSES = coupling.class_conditional()


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: Flow(StandardNormal(3), [Permutation([1, 0])]), "base has d = 3 and the layers 2"),
        (lambda: Flow(NORMAL, [Permutation([1, 0]), Square(3)]), r"all of one size d; they have \[2, 3\]"),
        (lambda: Flow(NORMAL, []), "one or more"),
        (lambda: TriangularFlow(NORMAL, [Square(2)], [0, 0]), "permutation of 0, ..., 1"),
        (lambda: Permutation([0, 2]), "permutation"),
        (lambda: UniformBase(1, 0.0), "a = 0.0 should be a length"),
        (lambda: Squash(1, 2.0, 1.0), "low the smaller"),
        (lambda: Affine(torch.zeros(2, 3), torch.zeros(2), torch.zeros(2)), r"should be \(2, 2\)"),
        (lambda: Planar(torch.zeros(2), torch.zeros(2), 0.0), "w not 0"),
        (lambda: Coupling([True, True]), "leave some coordinates to map"),
        (lambda: PAIR.log_prob(torch.zeros(3, 4)), r"x should have shape \(n, 2\), not \(3, 4\)"),
        (lambda: PAIR.forward(torch.zeros(3)), r"z should have shape \(n, 2\)"),
        (
            lambda: PAIR.log_prob(torch.zeros(3, 2, dtype=torch.float64)),
            "x is torch.float64 and the flow torch.float32",
        ),
        (lambda: CLASSES.log_prob(torch.zeros(2, 2), given=torch.tensor([0, 3])), "labels outside of 0 to 2"),
        (lambda: CLASSES.log_prob(torch.zeros(2, 2), given=torch.tensor([0])), "given should be 2 integers"),
        (lambda: CLASSES.log_prob(torch.zeros(1, 2), given=torch.tensor([0.0])), "given should be 1 integers"),
        (lambda: ConditionalFlow(NORMAL, [Square(2)], 0), "classes = 0"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


def test_deep_planar_flows_stay_invertible_in_both_dtypes():
    for dtype in (torch.float32, torch.float64):
        model = planar_flow(4, 30, spread=1.0, seed=2).to(dtype)
        z = normal(50, 4).to(dtype)
        x = model.forward(z)
        j = slopes(double(model.map), z.double())
        # 30 layers, each of which may round its numbers, of the size of x and z, some 20 times
        allowed = 600 * torch.finfo(dtype).eps * torch.linalg.cond(j) * (1 + x.abs().amax(1) + z.abs().amax(1)).double()
        assert ((model.to(dtype).inverse(x) - z).abs().amax(1) <= allowed).all()
