"""DESIGN, section 5: one defect, one FAIL. Checks of the same claim yield to the first that fails; others do not."""

from __future__ import annotations

import math

import pytest
import torch

from engine import examined, record, troubles
from harness.adapters import adapt
from harness.checks import CHECKS
from harness.evidence import Absent, Verdict
from harness.mutants.structure import Gaussian as Joint
from harness.plan import (
    BRIDGES,
    FREE_OF_MASS,
    GIVEN,
    HAS_VOLUME,
    IMPLICIT,
    IN_COMMON,
    MAPS,
    OF_DRAWS,
    STEIN,
    TURNS,
    plan,
)


class Gaussian:
    """d standard normal numbers; with a shift or a factor in the draws, and a constant too much in the density."""

    def __init__(self, d=1, shift=0.0, factor=1.0, excess=0.0):
        self.event_shape = (d,)
        self.shift, self.factor, self.excess = shift, factor, excess

    def sample(self, n, *, generator):
        return self.shift + self.factor * torch.randn(n, *self.event_shape, generator=generator)

    def log_prob(self, x):
        return (-0.5 * x.square() - 0.5 * math.log(2 * math.pi)).sum(1) + self.excess

    def mean(self):
        return torch.zeros(self.event_shape)

    def entropy(self):
        return torch.tensor(self.event_shape[0] * (0.5 + 0.5 * math.log(2 * math.pi)))


@pytest.mark.parametrize("d", [1, 8])
@pytest.mark.parametrize("defect", [{"shift": 0.3}, {"factor": 1.5}], ids=["shifted", "widened"])
def test_a_biased_sampler_is_one_fail(d, defect):
    records = examined(Gaussian(d, **defect))
    (failed,) = troubles(records)
    assert failed in FREE_OF_MASS
    blocked = [record.evidence for record in records.values() if getattr(record.evidence, "blocked_by", "") == failed]
    assert blocked
    assert all(isinstance(evidence, Absent) and failed in evidence.reason for evidence in blocked)


@pytest.mark.parametrize("d", [1, 8])
def test_a_wrong_constant_is_one_fail_of_the_mass(d):
    (failed,) = troubles(examined(Gaussian(d, excess=0.3)))
    assert failed == ("density.integrates_to_one" if d == 1 else "density.bridge_mass")


def test_a_wrong_statement_beside_a_biased_sampler_is_not_hidden():
    class Both(Gaussian):
        def entropy(self):
            return torch.tensor(2.0)

    failed = troubles(examined(Both(1, shift=0.3)))
    assert "information.entropy" in failed
    assert len(failed) == 2


def test_alone_a_check_sees_what_another_would_have_said_first():
    model = Gaussian(1, shift=0.3)
    for id in ("sampler.region_masses", "sampler.stein", "sampler.exchangeable", "sampler.bridge"):
        assert examined(model, id)[id].verdict is Verdict.FAIL


def test_what_checks_yield_to_exists():
    ids = {check.id for check in CHECKS}
    assert set(TURNS) | set(MAPS) <= ids
    for item in plan(adapt(Gaussian()), CHECKS, 1e-6):
        ids_of_claims = {IN_COMMON, HAS_VOLUME, *MAPS, *FREE_OF_MASS, *BRIDGES, *STEIN, *GIVEN, *IMPLICIT}
        assert set(item.yields_to) <= ids_of_claims
        assert item.check.id not in item.yields_to
    assert {check.id for check in CHECKS if check.id.endswith("_of_draws")} <= set(TURNS)


@pytest.mark.parametrize("check", ["structure.marginal_of_draws", "mutual.of_draws"])
def test_what_is_stated_of_blocks_yields_to_a_biased_sampler(check):
    class Biased(Joint):
        def sample(self, n, *, generator):
            return 1 + super().sample(n, generator=generator)

    model = Biased(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    assert record(model, check).verdict is Verdict.FAIL  # alone it would say so
    records = examined(model, "sampler", "structure", "mutual")
    (failed,) = troubles(records)
    assert failed in FREE_OF_MASS + BRIDGES
    assert records[check].evidence.blocked_by == failed


def test_means_over_draws_are_judged_last():
    turns = {item.check.id: item.turn for item in plan(adapt(Gaussian()), CHECKS, 1e-6)}
    first_claim = max(turns[id] for id in (*FREE_OF_MASS, "density.bridge_mass", *BRIDGES))
    assert all(turns[id] > first_claim for id in OF_DRAWS)


def test_an_infinite_error_that_stays_infinite_in_float64_is_not_of_the_arithmetic():
    from harness.examine import check_model

    certain = torch.distributions.Poisson(torch.tensor(0.0))  # torch's KL of it to itself is NaN in every dtype
    report = check_model(certain, effort="quick", only=["information.kl_to_itself_is_zero"])
    (failed,) = report.failures
    assert failed.label == ""


class Coins:
    """Four coins; outside of {0, 1}^4 the density is -inf, or goes on as its formula does."""

    event_shape = (4,)
    support = torch.distributions.constraints.independent(torch.distributions.constraints.boolean, 1)
    p = torch.tensor([0.2, 0.5, 0.7, 0.9])

    def __init__(self, goes_on):
        self.goes_on = goes_on

    def sample(self, n, *, generator):
        return torch.bernoulli(self.p.expand(n, 4), generator=generator)

    def log_prob(self, x):
        value = (x * self.p.log() + (1 - x) * (1 - self.p).log()).sum(1)
        return value if self.goes_on else torch.where(self.support.check(x), value, -torch.inf)


class NonNegative(torch.distributions.constraints.Constraint):
    event_dim = 1

    def check(self, value):
        return (value >= 0).all(-1)


class Quadrant:
    """|N(0, I)| in two dimensions, on a support that only its author's constraint knows."""

    event_shape = (2,)
    support = NonNegative()

    def __init__(self, goes_on):
        self.goes_on = goes_on

    def sample(self, n, *, generator):
        return torch.randn(n, 2, generator=generator).abs()

    def log_prob(self, x):
        value = (-0.5 * x.square() - 0.5 * math.log(2 * math.pi) + math.log(2)).sum(1)
        return value if self.goes_on else torch.where(self.support.check(x), value, -torch.inf)


@pytest.mark.parametrize("kind", [Coins, Quadrant])
def test_a_density_that_goes_on_outside_the_declared_support_is_one_fail(kind):
    assert set(troubles(examined(kind(goes_on=True)))) == {"support.impossible_outside"}
    assert troubles(examined(kind(goes_on=False))) == {}
