"""Bijections: mutants are found, near misses pass, and maps of every shape and dtype raise no alarm."""

from __future__ import annotations

import pytest
import torch

from engine import alone, changed, examined, record, troubles
from harness.checks import bijection as checks
from harness.evidence import Verdict
from harness.mutants import bijection
from harness.mutants.bijection import Fold, Graphless, Normal, Ordered, Pictures, Pushed, pushed

IDS = [check.id for check in checks.CHECKS]
BUILDS = [
    pushed(1),
    pushed(3, Ordered),
    pushed(70),
    pushed(3, dtype=torch.float64, spread=100.0),
    pushed(4, Pictures),
    Fold,
    Graphless,
]


@pytest.mark.parametrize("mutant", bijection.MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is (Verdict.ERROR if mutant.error else Verdict.FAIL), seen.message


@pytest.mark.parametrize("near", bijection.NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in bijection.MUTANTS} == set(IDS) == {n.check for n in bijection.NEAR_MISSES}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("seed", range(3))
def test_correct_maps_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}


@pytest.mark.parametrize("build", [pushed(2), pushed(3, Ordered, torch.float64), pushed(4, Pictures), Graphless])
def test_a_whole_run_on_a_correct_map_raises_no_alarm(build):
    assert troubles(examined(build())) == {}


class WrongSign(Pushed):
    def log_det(self, z):
        return -super().log_det(z)

    def log_prob(self, x):
        z = self.inverse(x)
        return self.base().log_prob(z) - self.log_det(z)


class NotInverted(Pushed):
    def undone(self, x):
        return ((x - self.shift) / self.scale)[:, self.order]


class BaseShifted(Pushed):
    def base(self):
        return Normal(len(self.scale), self.scale.dtype, shift=0.2)


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        (WrongSign, "bijection.log_det_is_jacobian"),
        (NotInverted, "bijection.inverse_undoes_forward"),
        (BaseShifted, "bijection.change_of_variables"),
    ],
)
@pytest.mark.parametrize("d", [3, 5])
def test_one_defect_is_one_fail(kind, failed, d):
    assert set(troubles(examined(pushed(d, kind)()))) == {failed}


def test_without_log_det_or_with_an_unrelated_forward_nothing_is_claimed():
    law = pushed(3)()
    thing = type("Model", (), {})()
    thing.sample, thing.log_prob, thing.forward, thing.inverse = law.sample, law.log_prob, law.log_prob, law.inverse
    assert {seen.verdict for seen in alone(thing, *IDS).values()} == {Verdict.SKIP}


def test_discrete_events_have_no_jacobian():
    class Dice(Pushed):
        def sample(self, n, *, generator):
            return torch.randint(6, (n, 3), generator=generator)

    seen = alone(pushed(3, Dice)(), *IDS[:4])
    assert {each.verdict for each in seen.values()} == {Verdict.SKIP}
    assert "discrete coordinates" in seen[IDS[0]].message


def test_long_events_have_no_jacobian_but_make_the_round_trip():
    class Long(Graphless):
        def sample(self, n, *, generator):
            return torch.randn(n, 1100, generator=generator).sinh()

    seen = alone(Long(), *IDS[:4])
    assert [each.verdict for each in seen.values()] == [Verdict.PASS, Verdict.PASS, Verdict.SKIP, Verdict.SKIP]
    assert "1100 passes" in seen["bijection.log_det_is_jacobian"].message


@pytest.mark.parametrize("name", ["forward", "inverse", "log_det"])
def test_an_answer_of_another_shape_is_one_error_that_says_so(name):
    class Wrong(Pushed):
        def sample(self, n, *, generator):
            return pushed(3)().sample(n, generator=generator)

    right = getattr(Pushed, name)
    setattr(Wrong, name, lambda self, points: right(self, points)[None])
    (message,) = troubles(alone(pushed(3, Wrong)(), *IDS)).values()
    assert message.startswith("ERROR")
    assert f"{name}() of (" in message


class Saturated(Pushed):
    """Onto the unit cube by a sigmoid so steep that float64 rounds many draws to its edge."""

    def forward(self, z):
        return (20 * super().forward(z)).sigmoid()

    def inverse(self, x):
        inside = (x > 0) & (x < 1)
        y = torch.where(inside, x, 0.5)
        return super().inverse(torch.where(inside, (y.log() - (-y).log1p()) / 20, torch.nan))

    def log_det(self, z):
        y = 20 * super().forward(z)
        slopes = torch.nn.functional.logsigmoid(y) + torch.nn.functional.logsigmoid(-y) + torch.tensor(20.0).log()
        return super().log_det(z) + slopes.sum(1)

    log_prob = None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_what_rounding_has_taken_to_the_edge_is_no_defect(dtype, seed):
    assert troubles(alone(pushed(3, Saturated, dtype)(), *IDS, seed=seed)) == {}
