"""Autoregressive models: mutants are found, near misses pass, right models of any kind raise no alarm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from engine import alone, changed, examined, record, troubles
from harness.adapters import adapt
from harness.checks import autoregressive as laws
from harness.evidence import Verdict
from harness.mutants import autoregressive, mutated
from harness.mutants.autoregressive import Curve, Geometric, Levels, bits, curve, looking, picture, windowed

IDS = [check.id for check in laws.CHECKS]


@pytest.mark.parametrize("mutant", autoregressive.MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is (Verdict.ERROR if mutant.error else Verdict.FAIL), seen.message


@pytest.mark.parametrize("near", autoregressive.NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in autoregressive.MUTANTS} == set(IDS) == {n.check for n in autoregressive.NEAR_MISSES}


def wide():
    return Curve((1, 0), dtype=torch.float64)


def nine_levels():
    return Levels((3,), 9, (2, 0, 1))


BUILDS = [bits, windowed, picture, curve, Geometric, wide, nine_levels]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("seed", range(2))
def test_correct_models_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}


@pytest.mark.parametrize("build", [bits, windowed, curve, Geometric])
def test_a_whole_run_raises_no_alarm(build):
    assert troubles(examined(build())) == {}


@pytest.mark.parametrize("seed", range(5))
def test_rosenblatt_at_a_large_budget_of_false_alarms(seed):
    """At alpha = 0.05 five correct runs of either kind raise none but by chance: anytime evidence is conservative."""
    for build in (bits, curve):
        assert troubles(alone(build(), "autoregressive.rosenblatt", seed=seed, alpha=0.05)) == {}


@pytest.mark.parametrize(
    ("mutant", "found"),
    [
        ("sees_itself", "autoregressive.each_normalised"),
        ("sees_next", "autoregressive.causal_by_perturbation"),
        ("a_factor_too_many", "autoregressive.sums_to_log_prob"),
        ("no_order", "autoregressive.well_formed"),
    ],
)
def test_one_defect_is_one_fail(mutant, found):
    planted = next(m for m in autoregressive.MUTANTS if m.name == mutant)
    assert set(troubles(examined(changed(planted)))) == {found}


def test_a_sampler_in_another_order_is_one_fail_beside_that_of_its_cache():
    planted = next(m for m in autoregressive.MUTANTS if m.name == "in_rising_order" and m.check.endswith("rosenblatt"))
    failed = set(troubles(examined(changed(planted), effort="quick"))) - {"autoregressive.cached_is_naive"}
    assert len(failed) == 1


def test_integer_events_have_no_jacobian():
    class Whole(Levels):
        def sample(self, n, *, generator):
            return super().sample(n, generator=generator).long()

        sample_naive = sample

    seen = alone(Whole((3,), 3, (2, 0, 1)), *IDS)
    assert troubles(seen) == {}
    assert seen["autoregressive.causal_by_jacobian"].verdict is Verdict.SKIP
    assert "no derivatives" in seen["autoregressive.causal_by_jacobian"].message


def test_a_jacobian_of_a_formula_that_answers_between_bits():
    class Relaxed(nn.Module):
        """logits of a masked product; conditionals are a formula in x at every x."""

        def __init__(self, leak=0.0):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
            self.leak = leak

        def forward(self, x):
            raise RuntimeError("an unrelated forward")

        def conditionals(self, x):
            mask = torch.ones(4, 4).tril(-1) + self.leak * torch.ones(4, 4).triu(1)
            return nn.functional.logsigmoid((2 * x - 1) * (x @ (self.weight * mask.to(x)).mT))

        def log_prob(self, x):
            return self.conditionals(x).sum(1)

        @torch.no_grad()
        def sample(self, n, *, generator):
            x = self.weight.new_zeros(n, 4)
            for i in range(4):
                chance = (x @ (self.weight * torch.ones(4, 4).tril(-1)).mT)[:, i].sigmoid()
                x[:, i] = (torch.rand(n, generator=generator) < chance).float()
            return x

    assert record(Relaxed(), "autoregressive.causal_by_jacobian").verdict is Verdict.PASS
    assert record(Relaxed(1e-3), "autoregressive.causal_by_jacobian").verdict is Verdict.FAIL
    assert record(Relaxed(1e-3), "autoregressive.causal_by_perturbation").verdict is Verdict.FAIL


def test_one_conditional_among_many_that_leaks_at_one_place_is_found():
    law = Levels((60,), 2, range(60))
    model = mutated(adapt(law), looking(lambda law, step: law.order[:step] + ([37] if step == 36 else [])))
    assert record(model, "autoregressive.causal_by_perturbation").verdict is Verdict.FAIL


def test_mass_at_values_that_no_draw_took_is_left_open_and_too_much_of_it_is_not():
    class Rare(Levels):
        """The highest level has a probability of 1e-7 and is never drawn; nothing is declared."""

        def __init__(self, rare):
            super().__init__((3,), 3, range(3))
            self.bias[:, 2], self.weight[:, :, 2] = rare, 0.0
            self.support = None

    assert record(Rare(-16.0), "autoregressive.each_normalised").verdict is not Verdict.FAIL
    heavier = Rare(-16.0)
    heavier.conditionals = lambda x: Rare(-16.0).conditionals(x) + 0.01
    assert record(heavier, "autoregressive.each_normalised").verdict is Verdict.FAIL


def test_a_field_of_which_nothing_matters_is_left_open():
    class Blank(Levels):
        def __init__(self):
            super().__init__((4,), 2, range(4))
            self.weight = torch.zeros_like(self.weight)

    assert record(Blank(), "autoregressive.receptive_field").verdict is Verdict.INCONCLUSIVE


def test_a_field_that_comes_after_is_a_defect():
    class Ahead(Levels):
        def receptive_field(self):
            return super().receptive_field().mT

    seen = record(Ahead((4,), 2, range(4)), "autoregressive.receptive_field")
    assert seen.verdict is Verdict.FAIL
    assert "comes after it" in seen.message


@pytest.mark.parametrize(
    ("name", "answer", "complaint"),
    [
        ("conditionals", lambda x: torch.zeros(len(x), 6, 2), "a column a coordinate"),
        ("conditionals", lambda x: torch.zeros(len(x), 6, dtype=torch.int64), "not a floating tensor"),
        ("conditionals", lambda x: None, "a NoneType"),
        ("ordering", lambda: [1, 2, 3, 4, 5, 6], "no permutation of 0 to 5"),
        ("receptive_field", lambda: torch.zeros(6, 6), "not a bool tensor"),
    ],
)
def test_what_is_outside_the_contract_is_one_error_that_says_so(name, answer, complaint):
    model, law = bits(), bits()
    model.log_prob = law.log_prob
    setattr(model, name, answer)
    seen = examined(model, "autoregressive")
    assert set(troubles(seen)) == {"autoregressive.well_formed"}
    assert complaint in seen["autoregressive.well_formed"].message


def test_a_naive_sampler_of_another_shape_is_an_error():
    model = bits()
    model.sample_naive = lambda n, *, generator: torch.zeros(n, 5)
    seen = record(model, "autoregressive.cached_is_naive")
    assert seen.verdict is Verdict.ERROR
    assert "sample_naive(256) is (256, 5)" in seen.message


def test_narrow_conditionals_are_told_from_wrong_ones():
    class Narrow(Curve):
        """Of a width far below the cells between quantiles."""

        def moments(self, x, step, seen):
            m, log_s = super().moments(x, step, seen)
            return m, log_s - (8.0 if step else 0.0)

    seen = alone(Narrow((0, 1), dtype=torch.float64), *IDS)
    assert troubles(seen) == {}


def test_evidence_is_a_number_where_conditionals_are_certain():
    class Certain(Levels):
        """The last bit is the parity of the others."""

        def conditionals(self, x):
            found = super().conditionals(x).clone()
            found[:, -1] = torch.where(x[:, :-1].sum(1) % 2 == x[:, -1], 0.0, -math.inf)
            return found

        def sample(self, n, *, generator):
            x = super().sample(n, generator=generator)
            x[:, -1] = x[:, :-1].sum(1) % 2
            return x

        sample_naive = sample

    assert troubles(alone(Certain((4,), 2, range(4)), *IDS)) == {}
