"""A density that is short of mass is told from one of which a part was not seen."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from engine import changed, record
from harness.adapters import adapt
from harness.checks import density
from harness.checks.density import SURPRISE, _hidden
from harness.effort import effort_named
from harness.evidence import Verdict
from harness.mutants.density import MUTANTS, NEAR_MISSES, scaled
from harness.mutants.mutant import mutated
from harness.peaks import peaks_of
from harness.subject import Subject

D = torch.distributions

MASS = ["density.integrates_to_one", "density.sums_to_one"]


def test_what_may_hide_is_the_mass_of_which_few_draws_are_seen_by_surprise():
    assert _hidden(1) == pytest.approx(-math.log(SURPRISE))
    for k in (1, 4, 16):
        assert stats.poisson(_hidden(k)).cdf(k - 1) == pytest.approx(SURPRISE)


SHORT = [m for m in MUTANTS if "short" in m.name]
RARE = [n for n in NEAR_MISSES if "rare" in n.name]


@pytest.mark.parametrize("mutant", SHORT, ids=lambda m: m.name)
def test_a_shortage_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is Verdict.FAIL, seen.message


@pytest.mark.parametrize("near", RARE, ids=lambda n: n.name)
def test_a_rare_mode_is_integrated(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


class RareCounts:
    """Counts of which a share comes from far away."""

    def __init__(self, share, far):
        self.share, self.rate = share, torch.tensor([3.0, far])
        weights = torch.tensor([1 - share, share])
        self.law = D.MixtureSameFamily(D.Categorical(weights), D.Poisson(self.rate))

    def sample(self, n, *, generator):
        far = torch.rand(n, generator=generator) < self.share
        return torch.poisson(self.rate[far.long()], generator=generator)

    def log_prob(self, x):
        return self.law.log_prob(x)


def rare_normal(share, mean, sd):
    weights = torch.tensor([1 - share, share])
    return D.MixtureSameFamily(D.Categorical(weights), D.Normal(torch.tensor([0.0, mean]), torch.tensor([1.0, sd])))


@pytest.mark.parametrize("share", [1e-4, 1e-3])
@pytest.mark.parametrize("effort", ["quick", "standard"])
def test_rare_modes_raise_no_alarm_seen_or_not(share, effort):
    for mean, sd in ((50.0, 0.5), (1e4, 1e-2), (0.3, 1e-5), (6.0, 1e-3)):
        seen = record(rare_normal(share, mean, sd), "density.integrates_to_one", effort=effort)
        assert seen.verdict is not Verdict.FAIL, (mean, sd, seen.message)
    seen = record(RareCounts(share, 1e4), "density.sums_to_one", effort=effort)
    assert seen.verdict is not Verdict.FAIL, seen.message


def test_a_shortage_that_could_be_a_mode_not_seen_stays_open():
    """At quick 16 384 draws are cut at every fourth: below 21 / 16 384 = 0.0013 nothing is certain."""
    seen = record(mutated(adapt(D.Normal(0.0, 1.0)), scaled(-1e-3)), "density.integrates_to_one")
    assert seen.verdict is Verdict.INCONCLUSIVE, seen.message
    seen = record(mutated(adapt(D.Normal(0.0, 1.0)), scaled(-2e-3)), "density.integrates_to_one")
    assert seen.verdict is Verdict.FAIL, seen.message


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_around_modes_that_the_fitted_law_lacks_no_sliver_is_counted_twice(seed, dtype):
    """A long thin mode of weight 2 %: draws that lie above the fit are climbed from inside what the fit leaves out."""
    weights = torch.tensor([0.8446, 0.1349, 0.0205], dtype=dtype)
    means = torch.tensor([[0.5684, -1.0845], [-1.3986, 0.4033], [0.838, -0.7193]], dtype=dtype)
    factors = [[[0.6681, 0.0], [0.1227, 0.5507]], [[1.1997, 0.0], [-0.5663, 0.4246]], [[3.006, 0.0], [0.3731, 0.3426]]]
    parts = torch.distributions.MultivariateNormal(means, scale_tril=torch.tensor(factors, dtype=dtype))
    law = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), parts)
    subject = Subject(adapt(law), effort_named("quick"), seed)
    narrowest = float(torch.linalg.svdvals(peaks_of(subject).scales * subject.profile.chart.scale[:, None]).min())
    assert narrowest > 0.3426 / 4
    seen = density.integrates_to_one.measure(subject)
    assert seen.error <= seen.allowed
    assert seen.uncertainty < subject.effort.tolerance / 100
