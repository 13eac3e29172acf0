"""Energies and scores: mutants are found, near misses pass, and models without a density are models."""

from __future__ import annotations

import math

import pytest
import torch

from engine import alone, changed, examined, record, troubles
from harness.adapters import NotAModel, adapt
from harness.checks import energy as energies
from harness.checks import score as scores
from harness.evidence import Verdict
from harness.mutants import energy
from harness.mutants.energy import Bowl, Counts, Normalised, Positive, ScoreAlone, Twice, bowl, spins

IDS = [check.id for check in (*energies.CHECKS, *scores.CHECKS)]


@pytest.mark.parametrize("mutant", energy.MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is (Verdict.ERROR if mutant.error else Verdict.FAIL), seen.message


@pytest.mark.parametrize("near", energy.NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in energy.MUTANTS} == set(IDS) == {n.check for n in energy.NEAR_MISSES}


@pytest.mark.parametrize(
    "build", [bowl(2), bowl(6, Normalised), bowl(3, dtype=torch.float64), spins(7), Counts, Positive, ScoreAlone]
)
@pytest.mark.parametrize("seed", range(3))
def test_correct_models_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}


@pytest.mark.parametrize("build", [bowl(2), spins(5), Counts, Positive, ScoreAlone])
def test_a_whole_run_on_a_model_without_a_density_raises_no_alarm(build):
    assert troubles(examined(build())) == {}


def test_an_energy_without_a_sampler_is_a_model_whose_mass_is_found():
    law = bowl(2)()
    thing = type("Energy", (), {"energy": staticmethod(law.energy), "log_partition": staticmethod(law.log_partition)})()
    seen = alone(thing, *IDS)
    assert seen["energy.log_partition"].verdict is Verdict.PASS
    assert seen["energy.stein"].verdict is Verdict.SKIP


def test_what_has_neither_draws_nor_a_density_nor_an_energy_is_refused():
    with pytest.raises(NotAModel, match=r"no method sample\(n, \*, generator\), log_prob\(x\) or energy\(x\)"):
        adapt(type("Score", (), {"score": staticmethod(lambda x: -x)})())


def test_a_model_with_a_density_is_compared_with_its_sampler_by_that_alone():
    seen = alone(bowl(2, Normalised)(), *IDS)
    skipped = ("energy.stein", "energy.exchangeable", "energy.log_partition_of_draws")
    assert {seen[id].verdict for id in skipped} == {Verdict.SKIP}


def test_of_an_energy_that_is_off_by_a_constant_only_the_log_partition_fails():
    class Shifted(Normalised):
        def energy(self, x):
            return super().energy(x) + 0.05

        def log_prob(self, x):
            return -super().energy(x) - self.log_partition()

    assert set(troubles(examined(bowl(2, Shifted)(), "energy"))) == {"energy.log_partition"}


def test_without_a_stated_log_z_one_constant_will_do():
    law = bowl(4, Normalised)()
    thing = type("Model", (), {})()
    thing.sample, thing.energy = law.sample, lambda x: law.energy(x) + 7
    thing.log_prob = law.log_prob
    assert record(thing, "energy.consistent_with_log_prob").verdict is Verdict.PASS
    thing.energy = lambda x: 1.01 * law.energy(x)
    assert record(thing, "energy.consistent_with_log_prob").verdict is Verdict.FAIL


@pytest.mark.parametrize("id", ["score.stein", "score.kernel_stein"])
def test_a_score_alone_has_a_density_without_jumps(id):
    class Undeclared(ScoreAlone):
        support = None

    class Outwards(Undeclared):
        def score(self, x):
            return -super().score(x)

    assert record(Undeclared(), id).verdict is Verdict.PASS
    assert record(Outwards(), id).verdict is Verdict.FAIL


@pytest.mark.parametrize("law", [torch.distributions.Exponential(1.0), torch.distributions.Uniform(-3.0, 3.0)])
def test_draws_that_crowd_at_an_edge_are_taken_for_a_jump(law):
    class Edged:
        event_shape = (2,)

        def sample(self, n, *, generator):
            return law.icdf(torch.rand(n, 2, generator=generator, dtype=torch.float64))

        def score(self, x):
            return torch.zeros_like(x) if isinstance(law, torch.distributions.Uniform) else -torch.ones_like(x)

    seen = record(Edged(), "score.stein")
    assert seen.verdict is Verdict.SKIP
    assert "constraints.real_vector" in seen.message


def test_what_float32_rounded_apart_is_allowed_to_a_model_of_float32_alone():
    narrow, wide = record(Twice(), "score.is_gradient"), record(Twice(torch.float64), "score.is_gradient")
    assert narrow.verdict is wide.verdict is Verdict.PASS
    assert 1e-7 < narrow.statistic < narrow.bound < 0.01  # apart by more than float64 rounds; 2 % off is found
    assert wide.bound < 1e-10

    apart = Twice(torch.float64)
    apart.precision = apart.precision * (1 + 1e-8)
    assert record(apart, "score.is_gradient").verdict is Verdict.FAIL


def test_stein_does_not_speak_of_a_density_with_an_edge():
    class HalfLine:
        """Exponential: E[s] = -1, by the jump at 0."""

        def sample(self, n, *, generator):
            return -torch.log1p(-torch.rand(n, 1, generator=generator))

        def log_prob(self, x):
            return torch.where(x >= 0, -x, -math.inf)[:, 0]

        def score(self, x):
            return -torch.ones_like(x)

    assert record(HalfLine(), "score.stein").verdict is Verdict.SKIP


def test_a_log_partition_that_is_no_number_is_an_error_that_says_so():
    class Vector(Bowl):
        def log_partition(self):
            return torch.zeros(2)

    seen = record(bowl(2, Vector)(), "energy.log_partition")
    assert seen.verdict is Verdict.ERROR
    assert "shape (2,)" in seen.message
