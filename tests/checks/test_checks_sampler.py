"""Every law of the sampler finds its mutants and lets its near misses pass; correct models raise no alarm."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from engine import changed, examined
from harness.adapters import adapt
from harness.evidence import Verdict
from harness.mutants.planted import PLANTED, Lattice, Normal, TwoModes
from harness.mutants.sampler import MUTANTS, NEAR_MISSES

D = torch.distributions


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_found(mutant):
    record = examined(changed(mutant), mutant.check, effort="standard")[mutant.check]
    assert record.verdict is Verdict.FAIL, record.message


@pytest.mark.parametrize("near", NEAR_MISSES, ids=lambda near: near.name)
def test_near_miss_passes(near):
    record = examined(changed(near), near.check, effort="standard")[near.check]
    assert record.verdict is Verdict.PASS, record.message


LAWS = [
    "sampler.region_masses",
    "sampler.pit_uniform",
    "density.bridge_mass",
    "sampler.bridge",
    "sampler.bridge_pairs",
    "sampler.adversary",
    "sampler.stein",
    "sampler.exchangeable",
]


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {mutant.check for mutant in MUTANTS} == set(LAWS) == {near.check for near in NEAR_MISSES}


CORRECT = {
    "normal": lambda: D.Normal(0.3, 2.0),
    "cauchy": lambda: D.Cauchy(1e6, 1e3),
    "half precision of a beta": lambda: D.Beta(torch.tensor(0.5, dtype=torch.float64), 0.5),
    "poisson": lambda: D.Poisson(3.0),
    "correlated": lambda: Normal(5, 1e-6, rho=0.5),
    "lattice": lambda: Lattice(3, rho=0.3),
    "two modes": lambda: TwoModes(2, 1e6),
}


RUNS = 6
"""Of each model. The self-test makes a hundred of each of its own, as its table in `results/` says."""


@pytest.mark.parametrize("name", CORRECT)
def test_false_alarms_stay_within_a_budget_of_five_percent(name):
    """At alpha 0.05 a run, alarms are at most as many as 0.05 explains (binomial upper 99.9 % quantile: 3 of 6)."""
    alarms = 0
    for seed in range(RUNS):
        records = examined(CORRECT[name](), *LAWS, seed=seed, alpha=0.05)
        alarms += any(record.verdict is Verdict.FAIL for record in records.values())
        assert not any(record.verdict is Verdict.ERROR for record in records.values()), records
    assert alarms <= stats.binom.ppf(0.999, RUNS, 0.05)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("size", [1, 16, 64])
def test_correct_models_pass_at_any_dimension_and_scale(size, scale):
    records = examined(Normal(size, scale), *LAWS, effort="standard" if size < 64 else "quick")
    outcome = {record.check: record.verdict for record in records.values()}
    assert Verdict.FAIL not in outcome.values()
    assert Verdict.ERROR not in outcome.values()
    assert outcome["sampler.bridge"] is outcome["sampler.adversary"] is Verdict.PASS
    assert outcome["density.bridge_mass"] is (Verdict.SKIP if size <= 3 else Verdict.PASS)  # integrated where it can be


@pytest.mark.parametrize(
    "planted", [p for p in PLANTED if p.name in ("mean_shifted", "scale_widened", "tails_cut")], ids=lambda p: p.name
)
def test_small_defects_of_one_coordinate_in_ten_are_found(planted):
    records = examined(planted.broken("continuous", 10, 1e3), "sampler", "density.bridge_mass", effort="standard")
    assert any(record.verdict is Verdict.FAIL for record in records.values())


def test_a_check_alone_repeats_what_it_saw_in_the_run():
    model = adapt(Normal(3, 1.0, rho=0.2))
    together, alone = (
        examined(model, *LAWS, effort="standard")["sampler.bridge_pairs"],
        examined(model, "sampler.bridge_pairs", effort="standard")["sampler.bridge_pairs"],
    )
    assert together.evidence.path == alone.evidence.path
