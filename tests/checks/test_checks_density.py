"""Normalisation: mutants are found, near misses and correct models pass, whatever the scale, support and dimension."""

from __future__ import annotations

import math

import pytest
import torch

from engine import changed, record
from harness.adapters import adapt
from harness.checks.density import CHECKS
from harness.event import LostError, event_shape
from harness.evidence import Verdict
from harness.mutants.density import MUTANTS, NEAR_MISSES, DensityOnly
from harness.scout import points
from harness.states import finite_states

D = torch.distributions

IDS = {check.id for check in CHECKS}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is Verdict.FAIL, seen.message


@pytest.mark.parametrize("near", NEAR_MISSES, ids=lambda near: near.name)
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in MUTANTS} == IDS == {n.check for n in NEAR_MISSES}


CONTINUOUS = {
    "normal at 1e-6": lambda: D.Normal(3e-6, 1e-6),
    "normal at 1e6": lambda: D.Normal(-4e6, 1e6),
    "half Cauchy": lambda: D.HalfCauchy(1.0),
    "log-normal of sd 3": lambda: D.LogNormal(0.0, 3.0),
    "Pareto without mean": lambda: D.Pareto(1.0, 0.5),
    "uniform": lambda: D.Uniform(-1e6, 1e6),
    "relaxed Bernoulli": lambda: D.RelaxedBernoulli(torch.tensor(0.5), probs=torch.tensor(0.3)),
    "Kumaraswamy": lambda: D.Kumaraswamy(2.0, 3.0),
    "Dirichlet, singular": lambda: D.Dirichlet(torch.tensor([0.5, 2.0])),
    "three means": lambda: D.Normal(torch.zeros(3), torch.tensor([1.0, 1e-3, 1e3])),
    "Cholesky factors": lambda: D.LKJCholesky(2, 1.5),
    "nearly singular": lambda: D.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.999], [0.999, 1.0]])),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_correct_density_integrates_to_one(name):
    seen = record(CONTINUOUS[name](), "density.integrates_to_one", effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message
    assert seen.bound < 1e-3


DISCRETE = {
    "bits": lambda: D.Bernoulli(torch.linspace(0.1, 0.9, 10)),
    "rare": lambda: D.Geometric(1e-3),
    "negative binomial": lambda: D.NegativeBinomial(torch.tensor(5.0), torch.tensor(0.4)),
    "two counts": lambda: D.Poisson(torch.tensor([1.0, 20.0])),
    "three one-hot rows": lambda: D.OneHotCategorical(torch.tensor([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])),
    "counts": lambda: D.Multinomial(5, torch.tensor([0.2, 0.3, 0.5])),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_a_correct_mass_sums_to_one(name):
    seen = record(DISCRETE[name](), "density.sums_to_one", effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message
    assert seen.bound < 1e-3


def test_what_cannot_be_summed_says_so():
    seen = record(D.Bernoulli(torch.full((64,), 0.5)), "density.sums_to_one", effort="standard")
    assert seen.verdict is Verdict.SKIP
    assert "states" in seen.message
    seen = record(D.MultivariateNormal(torch.zeros(8), torch.eye(8)), "density.integrates_to_one", effort="standard")
    assert seen.verdict is Verdict.SKIP
    assert "dimensions" in seen.message


def test_an_improper_density_fails():
    class Flat:
        def sample(self, n, *, generator):
            return torch.rand(n, generator=generator)

        def log_prob(self, x):
            return torch.zeros(len(x))

    assert record(Flat(), "density.integrates_to_one", effort="standard").verdict is Verdict.FAIL


def test_counts_are_all_vectors_with_that_sum():
    states = finite_states(adapt(D.Multinomial(4, torch.tensor([0.2, 0.3, 0.5]))), (3,), 1000)
    rows = states.decode(torch.arange(states.count, dtype=torch.float64)[:, None])
    assert states.count == math.comb(6, 2)
    assert bool((rows.sum(1) == 4).all())
    assert bool((rows >= 0).all())
    assert len(rows.unique(dim=0)) == states.count


class Smallest:
    """The smallest density: no shape, no support, no sampler."""

    def log_prob(self, x):
        return -0.5 * x**2 - 0.5 * math.log(2 * math.pi)


def test_the_smallest_density_gets_a_verdict():
    assert record(Smallest(), "density.integrates_to_one", effort="standard").verdict is Verdict.PASS


class Sum:
    def __init__(self, d):
        self.location = torch.arange(d, dtype=torch.float32)

    def log_prob(self, x):
        return (-0.5 * (x - self.location) ** 2 - 0.5 * math.log(2 * math.pi)).sum(-1)


@pytest.mark.parametrize("d", [2, 5])
def test_the_shape_of_an_event_is_found_despite_broadcasting(d):
    assert event_shape(adapt(Sum(d))) == (d,)


def test_a_scalar_event_is_found():
    assert event_shape(adapt(Smallest())) == ()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scout_finds_place_and_scale(scale):
    model = adapt(DensityOnly([3 * scale, -5 * scale], scale))
    x = points(model, 0, 4096).double()
    assert x.shape == (4096, 2)
    # 4096 correlated points: means within 0.1 sd, deviations within 10 %
    assert bool(((x.mean(0) / scale - torch.tensor([3.0, -5.0])).abs() < 0.1).all())
    assert bool(((x.std(0) / scale).log().abs() < 0.1).all())


def test_the_scout_finds_sixteen_dimensions():
    factor = torch.tril(torch.cos(torch.arange(256.0).reshape(16, 16))) / 4 + torch.eye(16)
    law = D.MultivariateNormal(torch.full((16,), 5.0), scale_tril=factor)

    class Only:
        event_shape = (16,)

        def log_prob(self, x):
            return law.log_prob(x)

    x = points(adapt(Only()), 0, 4096)
    assert bool(((x.mean(0) - 5).abs() < 0.15 * law.stddev).all())
    assert bool((x.std(0) / law.stddev).log().abs().max() < 0.15)


def test_the_scout_repeats_itself_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    model = adapt(DensityOnly([1.0, 3.0], 2.0))
    assert torch.equal(points(model, 3, 64), points(model, 3, 64))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_density_that_is_nowhere_is_lost():
    class Nowhere:
        def log_prob(self, x):
            return torch.full((len(x),), -math.inf)

    with pytest.raises(LostError, match="support"):
        points(adapt(Nowhere()), 0, 64)
