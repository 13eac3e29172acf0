"""Bijections: mutants are found, near misses pass, and maps of every shape and dtype raise no alarm."""

from __future__ import annotations

import math

import pytest
import torch

from engine import alone, changed, examined, record, troubles
from harness import check_model
from harness.adapters import adapt
from harness.checks import bijection as checks
from harness.checks.solver import MOVED, SOLVED
from harness.evidence import Verdict
from harness.mutants import bijection, mutated
from harness.mutants.bijection import Fold, Graphless, Normal, OneWay, Ordered, Pictures, Pushed, edited, pushed
from harness.mutants.mutant import answering

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


class RandomVolume(Pushed):
    def log_det(self, z):
        return super().log_det(z) + 0.1 * torch.randn(len(z))


class RandomInverse(Pushed):
    def inverse(self, x):
        return super().inverse(x) + 1e-3 * torch.randn(x.shape)

    def log_prob(self, x):
        return super().log_prob(x) + 0.1 * torch.randn(len(x))


@pytest.mark.parametrize(
    ("kind", "failed"), [(RandomVolume, "bijection.deterministic"), (RandomInverse, "log_prob.deterministic")]
)
def test_what_differs_from_call_to_call_is_one_fail_that_says_so(kind, failed):
    assert set(troubles(examined(pushed(3, kind)()))) == {failed}


def test_a_map_without_a_way_back_is_held_to_its_volume_and_to_its_draws():
    assert troubles(examined(OneWay())) == {}
    seen = alone(OneWay(), *IDS)
    assert {id for id, each in seen.items() if each.verdict is Verdict.PASS} == {
        "bijection.deterministic",
        "bijection.log_det_is_jacobian",
        "bijection.draws_are_pushed_forward",
    }
    off = mutated(adapt(OneWay()), edited("log_det", lambda value: 1.01 * value))
    assert set(troubles(examined(off))) == {"bijection.log_det_is_jacobian"}


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

    seen = alone(Long(), *IDS[:5])
    assert [each.verdict for each in seen.values()] == 3 * [Verdict.PASS] + 2 * [Verdict.SKIP]
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


class Integrated:
    """A flow for a unit of time, dx/dt = tanh(x W) / 2, by Heun's steps; its log_det integrates the trace as well."""

    event_shape = (2,)

    def __init__(self, steps=16, excess=0.0):
        self.w = torch.tensor([[0.5, 1.5], [-1.0, 0.7]])
        self.steps, self.excess = steps, excess

    def rates(self, x):
        """dx/dt (n, d) and its divergence (n,)."""
        slope = torch.tanh(x @ self.w)
        return slope / 2, ((1 - slope.square()) * self.w.diagonal()).sum(1) / 2

    def solved(self, x, h):
        total = torch.zeros_like(x[:, 0])
        for _ in range(self.steps):
            first, trace = self.rates(x)
            second, trace_too = self.rates(x + h * first)
            x, total = x + h * (first + second) / 2, total + h * (trace + trace_too) / 2
        return x, total

    def forward(self, z):
        return self.solved(z, 1 / self.steps)[0]

    def inverse(self, x):
        return self.solved(x, -1 / self.steps)[0]

    def log_det(self, z):
        return self.solved(z, 1 / self.steps)[1] + self.excess

    def base(self):
        return Normal(2, self.w.dtype)

    def log_prob(self, x):
        z, back = self.solved(x, -1 / self.steps)
        return self.base().log_prob(z) + back - self.excess

    def sample(self, n, *, generator):
        return self.forward(torch.randn(n, 2, generator=generator, dtype=self.w.dtype))


VOLUMES = ("bijection.log_det_is_jacobian", "bijection.log_det_of_inverse", "bijection.change_of_variables")


def test_an_integrator_passes_by_what_is_granted_to_solvers_and_the_verdict_says_so():
    seen = alone(Integrated(20), *IDS)
    assert troubles(seen) == {}
    forth, back = (seen[law] for law in VOLUMES[:2])
    assert 1e-5 < forth.statistic < forth.bound == MOVED
    assert 1e-5 < back.statistic < back.bound <= max(MOVED, 4 * forth.statistic)


@pytest.mark.parametrize("law", VOLUMES[:2])
def test_a_wrong_volume_of_an_integrator_is_found(law):
    assert record(Integrated(16, excess=2e-3), law).verdict is Verdict.FAIL


class Uneven(Integrated):
    """Its ways there and back take steps of different lengths, so that what they leave does not cancel."""

    def inverse(self, x):
        return self.solved(x, -1 / self.steps)[0] if self.steps == 5 else Uneven(5).inverse(x)


def test_an_integrator_of_coarse_steps_is_allowed_a_few_times_what_its_jacobians_are_apart():
    seen = alone(Uneven(6), *IDS)
    assert troubles(seen) == {}
    for law in VOLUMES[:2]:
        assert MOVED < seen[law].statistic < seen[law].bound < 0.05  # the tolerance of `quick`


def test_a_root_is_held_to_a_tenth_of_what_thorough_promises_and_to_its_residual_where_the_map_is_flat():
    """3e-4 of probability are 7.5e-4 sd of a point; where the slope is 1/100, x off by 2e-5 sd is z off by 2e-3."""
    law = "bijection.inverse_undoes_forward"
    off = {size: mutated(adapt(pushed(4)()), edited("inverse", lambda z, s=size: z + s / 2)) for size in (7e-4, 8e-4)}
    assert record(off[7e-4], law).verdict is Verdict.PASS
    assert record(off[8e-4], law).verdict is Verdict.FAIL
    by_residual = mutated(adapt(Fold()), answering(inverse=lambda fold, x: fold.inverse(x + 2e-5)))
    flat = torch.zeros(1, 2)
    assert by_residual.inverse(by_residual.forward(flat)).norm() > 2 * SOLVED
    assert record(by_residual, law).verdict is Verdict.PASS


@pytest.mark.parametrize("law", VOLUMES[:2])
def test_a_pass_of_maps_in_closed_form_excludes_all_but_rounding(law):
    assert record(pushed(3)(), law).bound < 1e-4
    off = mutated(adapt(pushed(3)()), edited("log_det", lambda value: value + 2e-3))
    assert record(off, law).verdict is Verdict.FAIL


class Refusing:
    """x = 1 / (1 + e^-4z), whose way back raises outside of (0, 1): probes beside draws near the ends lead there."""

    event_shape = (2,)
    support = torch.distributions.constraints.independent(torch.distributions.constraints.unit_interval, 1)

    def base(self):
        return Normal(2, torch.float32)

    def forward(self, z):
        return torch.sigmoid(4 * z)

    def inverse(self, x):
        if not ((x > 0) & (x < 1)).all():
            raise ValueError("outside of (0, 1)")
        return torch.logit(x) / 4

    def log_det(self, z):
        return (torch.nn.functional.logsigmoid(4 * z) + torch.nn.functional.logsigmoid(-4 * z) + math.log(4)).sum(1)

    def log_prob(self, x):
        inside = ((x > 0) & (x < 1)).all(1)
        z = self.inverse(torch.where(inside[:, None], x, 0.5))
        return torch.where(inside, self.base().log_prob(z) - self.log_det(z), -torch.inf)

    def sample(self, n, *, generator):
        return self.forward(self.base().sample(n, generator=generator))


class RefusingWrongly(Refusing):
    def log_det(self, z):
        return super().log_det(z) - 0.01


def test_an_inverse_may_refuse_what_is_beside_the_support():
    records = alone(Refusing(), *IDS)
    assert troubles(records) == {}
    assert records["bijection.forward_undoes_inverse"].verdict is Verdict.PASS
    assert records["bijection.log_det_is_jacobian"].verdict is Verdict.PASS
    assert list(troubles(examined(RefusingWrongly(), "bijection"))) == ["bijection.log_det_is_jacobian"]


class WrongInATail(Pushed):
    """At one point of the base in 44 the inverse is off by a hundredth, and log_prob by a tenth of a nat."""

    def inverse(self, x):
        z = super().inverse(x)
        return torch.where(z[:, :1] > 2, z * 1.01, z)

    def log_prob(self, x):
        return super().log_prob(x) + 0.1 * (super().inverse(x)[:, 0] > 2)


@pytest.mark.parametrize("law", ["bijection.inverse_undoes_forward", "bijection.change_of_variables"])
def test_a_fail_is_tried_again_in_float64_at_the_points_that_it_had(law):
    """Elsewhere the formula may well be right, and its error would be taken for one of the arithmetic."""
    reports = [check_model(pushed(3, WrongInATail)(), effort="quick", seed=seed, only=[law]) for seed in range(8)]
    labels = [failed.label for report in reports for failed in report.failures]
    assert len(labels) >= 2
    assert set(labels) == {""}
