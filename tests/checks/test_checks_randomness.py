"""The laws of randomness: planted defects are found at quick effort, and no law raises false alarms."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from engine import changed, examined
from harness.adapters import adapt
from harness.checks import pairing, randomness, resolution
from harness.evidence import Verdict
from harness.mutants import mutated
from harness.mutants import randomness as mutants
from harness.mutants.planted import Lattice, Normal

IDS = [check.id for check in (*randomness.CHECKS, *resolution.CHECKS)]


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: f"{mutant.name}-{mutant.check}")
def test_each_planted_defect_is_found(mutant):
    assert examined(changed(mutant), mutant.check)[mutant.check].verdict is Verdict.FAIL


@pytest.mark.parametrize("near", mutants.NEAR_MISSES, ids=lambda near: f"{near.name}-{near.check}")
def test_each_near_miss_passes(near):
    assert examined(changed(near), near.check)[near.check].verdict is Verdict.PASS


def test_each_law_has_a_mutant_and_a_near_miss():
    assert {mutant.check for mutant in mutants.MUTANTS} == {near.check for near in mutants.NEAR_MISSES} == set(IDS)


def twice(model):
    def sample(n, *, generator):
        return model.sample((n + 1) // 2, generator=generator).repeat_interleave(2, 0)[:n]

    return {"sample": sample}


def half_precision(model):
    return {"sample": lambda n, *, generator: model.sample(n, generator=generator).to(torch.float16).to(torch.float32)}


def in_float64(model):
    return {"sample": lambda n, *, generator: model.sample(n, generator=generator).to(torch.float64)}


@pytest.mark.parametrize("d", [1, 10, 50])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_repeats_and_rounding_are_found_at_any_dimension_and_scale(d, scale):
    base = adapt(Normal(d, scale))
    assert examined(mutated(base, twice), "sample.not_repeated")["sample.not_repeated"].verdict is Verdict.FAIL
    for change in (half_precision, in_float64):
        record = examined(mutated(base, change), "sample.resolution")["sample.resolution"]
        assert record.verdict is Verdict.FAIL, change


@pytest.mark.parametrize("d", [1, 10, 50])
def test_discrete_repeats_are_found_at_any_dimension(d):
    record = examined(mutated(adapt(Lattice(d)), twice), "sample.not_repeated")["sample.not_repeated"]
    assert record.verdict is Verdict.FAIL


def correct() -> dict[str, object]:
    distributions, float64 = torch.distributions, torch.float64
    return {
        "normal": Normal(1, 1.0),
        "many": Normal(20, 1e-3),
        "far": distributions.Normal(torch.tensor(1e6), torch.tensor(1.0)),
        "uniform": distributions.Uniform(torch.tensor(0.0), torch.tensor(1.0)),
        "cauchy": distributions.Cauchy(torch.tensor(0.0), torch.tensor(1.0)),
        "atoms of float32": distributions.Gamma(torch.tensor(0.01), torch.tensor(1.0)),
        "atoms of float64": distributions.Gamma(torch.tensor(0.01, dtype=float64), torch.tensor(1.0, dtype=float64)),
        "end of float32": distributions.Beta(torch.tensor(0.5), torch.tensor(0.01)),
        "rare": distributions.Bernoulli(torch.tensor(0.01)),
        "fair": distributions.Bernoulli(torch.tensor(0.5)),
        "nearly constant": distributions.Bernoulli(torch.tensor(0.9995)),
        "count": distributions.Poisson(torch.tensor(3.0)),
        "lattice": Lattice(3),
    }


RUNS = 12


@pytest.mark.parametrize("name", list(correct()))
def test_no_false_alarm_in_runs_with_a_false_alarm_budget_of_a_twentieth(name):
    """12 runs at alpha = 0.05 fail 5 times or more with probability 0.0002 if the guarantee were only just kept."""
    model = correct()[name]
    failed = 0
    for seed in range(RUNS):
        records = examined(model, *IDS, seed=seed, alpha=0.05).values()
        failed += any(record.verdict not in (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.SKIP) for record in records)
    assert failed < 5


def test_a_law_of_one_point_has_nothing_to_vary():
    records = examined(torch.distributions.Bernoulli(torch.tensor(1.0)), *IDS)
    assert all(record.verdict in (Verdict.PASS, Verdict.SKIP) for record in records.values())


def test_the_examined_globals_are_given_back():
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = torch.rand(3), np.random.rand(3), random.random()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    examined(Normal(2, 1.0), "sample")
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.rand(3) == expected[1]).all()
    assert random.random() == expected[2]


def some_draws(n: int = 4096, seed: int = 0) -> torch.Tensor:
    return torch.randint(7, (n,), generator=torch.Generator().manual_seed(seed))


def test_swapping_partners_changes_the_sign_of_both_statistics():
    x, y = some_draws(), some_draws(seed=1)
    h = len(y) // 2
    swapped = torch.cat([y[h:], y[:h]])
    assert torch.equal(pairing.repeats(x, swapped), -pairing.repeats(x, y))
    f, g, g_swapped = (part[:, None] / 14 for part in (x, y, swapped))
    assert torch.allclose(pairing.products(f, g_swapped), -pairing.products(f, g))


def test_duplicates_is_centred_for_independent_calls_whatever_their_sizes():
    source = torch.Generator().manual_seed(2)
    numbers = [
        pairing.duplicates(some_draws(60, 2 * seed), some_draws(20, 2 * seed + 1), source).sum() for seed in range(2000)
    ]
    total = torch.stack(numbers)
    assert abs(float(total.mean())) < 4 * float(total.std()) / len(total) ** 0.5


def test_duplicates_sees_a_repeat_wherever_it_is():
    x = torch.rand(1000, generator=torch.Generator().manual_seed(3))
    again = torch.cat([x, x])[torch.randperm(2000, generator=torch.Generator().manual_seed(4))]
    other = torch.rand(2000, generator=torch.Generator().manual_seed(5))
    numbers = pairing.duplicates(pairing.keys(again), pairing.keys(other), torch.Generator().manual_seed(6))
    assert 999 <= len(numbers) <= 1003  # 1000 repeats, and what 4000 float32 numbers make by chance
    assert float(numbers[:1000].mean()) == pytest.approx(0.5, abs=0.26)


def test_keys_tell_events_apart_and_not_the_sign_of_zero():
    x = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]])
    key = pairing.keys(x)
    assert key[0] == key[1] != key[2]
    grid = torch.cartesian_prod(torch.arange(-50, 50), torch.arange(-50, 50))
    for events in (grid, grid.float(), grid.double() / 7, torch.arange(-500, 500)):
        assert len(pairing.keys(events).unique()) == len(events)


def test_pairs_at_a_lag_are_disjoint():
    first, second = pairing.at_lag(torch.arange(20), 3)
    assert (second - first == 3).all()
    assert len(torch.cat([first, second]).unique()) == 18


@pytest.mark.parametrize(
    ("rounded", "is_coarse"),
    [
        (lambda x: x, False),
        (lambda x: x.to(torch.bfloat16).to(x.dtype), True),
        (lambda x: (x * 1000).round() / 1000, True),
        (lambda x: x.clamp(max=0.5), False),
        (lambda x: x * 0, False),
    ],
)
def test_a_coarse_block_is_told_from_a_fine_one(rounded, is_coarse):
    x = torch.randn(1024, 3, generator=torch.Generator().manual_seed(7))
    assert resolution.coarse(rounded(x)).tolist() == [is_coarse] * 3


def test_blocks_as_fine_as_their_dtype_are_rarely_called_coarse():
    """The promise is 0.01; 4000 blocks of uniform, normal and far normal draws make 3 in expectation at 16^-3 each."""
    g = torch.Generator().manual_seed(8)
    blocks = [torch.rand(1024, 1000, generator=g), torch.randn(1024, 1000, generator=g)]
    blocks += [1e6 + torch.randn(1024, 1000, generator=g), torch.rand(1024, 1000, generator=g).pow(8)]
    called = sum(int(resolution.coarse(block).sum()) for block in blocks)
    assert called <= 12


def test_draws_outside_the_declared_support_are_one_defect():
    """Seen in a library: a transform to (-1, inf) that declares positive values. They are independent."""
    normal = torch.distributions.Normal(0.0, 1.0)
    positive = type(normal)(0.0, 1.0)
    positive.support = torch.distributions.constraints.positive
    records = examined(positive, "sample", "support")
    failed = [id for id, record in records.items() if record.verdict not in (Verdict.PASS, Verdict.SKIP)]
    assert failed == ["support.in_common"]
