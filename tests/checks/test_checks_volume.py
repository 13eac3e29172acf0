"""Laws on a surface, with atoms, or with a sampler of another law: one verdict, and what builds on it is blocked."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Dirichlet, MultivariateNormal

from engine import changed, examined, troubles
from harness.checks import volume
from harness.evidence import Verdict
from harness.mutants import volume as mutants
from harness.plan import HAS_VOLUME, IN_COMMON

IDS = [check.id for check in volume.CHECKS]


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: f"{mutant.name}-{mutant.check}")
def test_each_planted_defect_is_found_and_is_all_that_fails(mutant):
    records = examined(changed(mutant))
    assert list(troubles(records)) == [mutant.check]


@pytest.mark.parametrize("near", mutants.NEAR_MISSES, ids=lambda near: f"{near.name}-{near.check}")
def test_each_near_miss_passes(near):
    assert examined(changed(near), near.check)[near.check].verdict is Verdict.PASS


def test_each_law_has_a_mutant_and_a_near_miss():
    assert {mutant.check for mutant in mutants.MUTANTS} == {near.check for near in mutants.NEAR_MISSES} == set(IDS)


class Hurdle:
    """0 with probability 0.3, else an exponential law: a density in the measure of volume and a point."""

    event_shape = ()

    def sample(self, n, *, generator):
        x = torch.empty(n).exponential_(generator=generator)
        return torch.where(torch.rand(n, generator=generator) < 0.3, 0.0, x)

    def log_prob(self, x):
        return torch.where(x == 0, math.log(0.3), torch.where(x > 0, math.log(0.7) - x, -torch.inf))


class Hurdles(Hurdle):
    """Three of them."""

    event_shape = (3,)

    def sample(self, n, *, generator):
        return super().sample(3 * n, generator=generator).reshape(n, 3)

    def log_prob(self, x):
        return super().log_prob(x).sum(1)


class Censored:
    """A standard normal number, put at -1 or 1 where it is beyond."""

    event_shape = ()

    def sample(self, n, *, generator):
        return torch.randn(n, generator=generator).clamp(-1, 1)

    def log_prob(self, x):
        normal = torch.distributions.Normal(0.0, 1.0)
        inside = torch.where(x.abs() < 1, normal.log_prob(x), -torch.inf)
        return torch.where(x.abs() == 1, normal.cdf(torch.tensor(-1.0)).log(), inside)


class Simplex:
    """Shares that add up to 1, to which the density keeps without a declared support."""

    event_shape = (3,)
    law = Dirichlet(torch.tensor([2.0, 3.0, 4.0]), validate_args=False)

    def sample(self, n, *, generator):
        gamma = torch._standard_gamma(torch.tensor([2.0, 3.0, 4.0]).expand(n, 3), generator=generator)
        return gamma / gamma.sum(1, keepdim=True)

    def log_prob(self, x):
        inside = (x > 0).all(1) & ((x.sum(1) - 1).abs() < 1e-5)
        return torch.where(inside, self.law.log_prob(x.abs()), -torch.inf)


class Shares(Simplex):
    """The same with the formula alone, which goes on beside the simplex."""

    def log_prob(self, x):
        return self.law.log_prob(x)


class Ball:
    """Directions, with the density on the sphere that ends beside it, or as a formula that goes on."""

    event_shape = (3,)

    def __init__(self, goes_on):
        self.goes_on = goes_on

    def sample(self, n, *, generator):
        return torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)

    def log_prob(self, x):
        inside = (x.norm(dim=1) - 1).abs() < 1e-5
        return torch.where(inside | self.goes_on, -math.log(4 * math.pi), -torch.inf)


@pytest.mark.parametrize(
    "model", [Hurdle(), Hurdles(), Censored(), Simplex(), Ball(False), Ball(True), Shares()], ids=lambda m: f"{type(m)}"
)
def test_a_density_in_a_measure_of_its_own_is_one_skip_that_says_so(model):
    records = examined(model)
    assert troubles(records) == {}
    assert records[HAS_VOLUME].verdict is Verdict.SKIP
    assert "measure" in records[HAS_VOLUME].message
    blocked = {id for id, record in records.items() if getattr(record.evidence, "blocked_by", "") == HAS_VOLUME}
    assert blocked >= {"density.integrates_to_one", "density.bridge_mass", "sampler.stein", "sampler.exchangeable"}


class Clipped:
    """A normal density with a sampler that clips: the density is continuous there, so this is no law with atoms."""

    event_shape = ()

    def sample(self, n, *, generator):
        return torch.randn(n, generator=generator).clamp(-1, 1)

    def log_prob(self, x):
        return torch.distributions.Normal(0.0, 1.0).log_prob(x)


def test_a_sampler_that_clips_is_not_taken_for_a_law_with_atoms():
    records = examined(Clipped())
    assert records[HAS_VOLUME].verdict is Verdict.PASS
    assert troubles(records)


def correct() -> dict[str, object]:
    near = torch.full((4, 4), 0.9999) + 0.0001 * torch.eye(4)
    return {
        "correlated": MultivariateNormal(torch.zeros(4), near),
        "far from the origin": MultivariateNormal(torch.full((2,), 1e4), torch.eye(2)),
        "heavy tails": torch.distributions.Cauchy(torch.zeros(3), torch.ones(3)),
        "a tenth of float32": torch.distributions.Normal(torch.tensor([0.0, 1e6]), torch.tensor([1.0, 1.0])),
        "scales": torch.distributions.Normal(torch.zeros(3), torch.tensor([1e-6, 1.0, 1e6])),
    }


@pytest.mark.parametrize("name", list(correct()))
def test_laws_with_volume_pass(name):
    for seed in range(5):
        assert examined(correct()[name], HAS_VOLUME, seed=seed)[HAS_VOLUME].verdict is Verdict.PASS


def test_a_declared_support_is_believed():
    assert examined(Dirichlet(torch.ones(3)), HAS_VOLUME)[HAS_VOLUME].verdict is Verdict.SKIP
    assert examined(Dirichlet(torch.ones(3)), "density.integrates_to_one")["density.integrates_to_one"].verdict is (
        Verdict.PASS
    )


def test_draws_of_another_law_are_one_fail():
    from scipy import stats

    records = examined(stats.poisson(3, loc=0.5))  # scipy's rvs cuts 3.5 to 3, where its logpmf is -inf
    assert list(troubles(records)) == [IN_COMMON]
