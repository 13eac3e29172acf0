"""Diffusions: mutants are found, near misses pass, and what has no noise, no data, or another form is told so."""

from __future__ import annotations

import math

import pytest
import torch

from engine import alone, changed, examined, record, troubles
from harness.checks import diffusion as diffusions
from harness.evidence import Verdict
from harness.mutants import diffusion
from harness.mutants.diffusion import Chain, Cloud, Exploding, Straight, SubPreserving, cloud
from reference_impls import diffusion_exact

IDS = [check.id for check in diffusions.CHECKS]
PRESETS = (
    diffusion_exact.variance_preserving,
    diffusion_exact.sub_vp,
    diffusion_exact.variance_exploding,
    diffusion_exact.two_clusters,
    diffusion_exact.chain_of_ddpm,
)


@pytest.mark.parametrize("mutant", diffusion.MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is (Verdict.ERROR if mutant.error else Verdict.FAIL), seen.message


@pytest.mark.parametrize("near", diffusion.NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in diffusion.MUTANTS} == set(IDS) == {n.check for n in diffusion.NEAR_MISSES}


@pytest.mark.parametrize("build", [cloud(), cloud(Exploding), cloud(Straight), cloud(SubPreserving), cloud(Chain)])
@pytest.mark.parametrize("seed", range(2))
def test_correct_models_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}


@pytest.mark.parametrize("preset", PRESETS)
def test_reference_models_raise_no_alarm(preset):
    assert troubles(alone(preset(), *IDS, seed=1)) == {}


@pytest.mark.parametrize("kind", [Cloud, Chain])
def test_a_whole_run_raises_no_alarm(kind):
    assert troubles(examined(cloud(kind, (2,))())) == {}


@pytest.mark.parametrize("mutant", diffusion.MUTANTS[::3], ids=lambda mutant: mutant.name)
def test_one_defect_is_one_trouble(mutant):
    assert len(troubles(alone(changed(mutant), *IDS))) == 1


def test_the_first_law_that_is_broken_is_the_one_that_fails():
    class Downhill(Cloud):
        def score_at(self, x, t):
            return -super().score_at(x, t)

    assert set(troubles(alone(cloud(Downhill)(), *IDS))) == {"diffusion.tweedie"}

    class Backwards(Cloud):
        def schedule(self, t):
            return super().schedule(1.001 - t)

    assert "diffusion.schedule_monotone" in troubles(alone(cloud(Backwards)(), *IDS))
    assert not set(troubles(alone(cloud(Backwards)(), *IDS))) & {"diffusion.tweedie", "diffusion.kernels_compose"}


def test_a_solver_that_is_exact_has_every_order():
    class Solved(Exploding):
        """The flow of a Gaussian is known: x - mu shrinks as the deviation of x_t does."""

        def integrate(self, x, steps):
            ratio = (self.variance / (self.variance + self.last**2)).sqrt()
            return self.location + ratio * (x - self.location)

    seen = record(cloud(Solved)(), "diffusion.solver_order")
    assert seen.verdict is Verdict.PASS
    assert "no error above rounding" in seen.evidence.where
    assert record(cloud(Solved)(), "diffusion.solver_follows_flow").verdict is Verdict.PASS


@pytest.mark.parametrize(("order", "verdict"), [(1, Verdict.FAIL), (2, Verdict.PASS)])
def test_an_order_that_shows_late_is_waited_for(order, verdict):
    """Until 256 steps the fourth power hides what is of order 1 or 2: slopes of 3.3 and 1.9, or 3.9 and 3.5."""

    class Late(Cloud):
        def integrate(self, x, steps):
            return x * (1 + steps**-order + (20 / steps) ** 4)

        def order(self):
            return 2

    assert record(cloud(Late)(), "diffusion.solver_order").verdict is verdict


def test_a_network_in_float32_that_cannot_be_cast_is_measured_where_it_can_be():
    class Narrow(Cloud):
        def denoise(self, x, t):
            return super().denoise(x.float(), t.float())

        def integrate(self, x, steps):
            return super().integrate(x.float(), steps)

    seen = alone(cloud(Narrow)(), *IDS)
    assert troubles(seen) == {}


def test_a_short_chain_is_too_short_for_an_order():
    class Short(Chain):
        last = 20.0

    assert record(cloud(Short)(), "diffusion.solver_order").verdict is Verdict.SKIP


def test_data_that_are_a_table_are_no_law():
    class Table(Cloud):
        def data(self):
            return torch.zeros(10, 3)

    seen = record(cloud(Table)(), "diffusion.denoiser_is_conditional_mean")
    assert seen.verdict is Verdict.SKIP
    assert "no law" in seen.message


def test_integers_take_no_noise():
    class Counts(Cloud):
        def sample(self, n, *, generator):
            return torch.randint(5, (n, 3), generator=generator)

    seen = record(cloud(Counts)(), "diffusion.tweedie")
    assert seen.verdict is Verdict.SKIP
    assert "integers" in seen.message


@pytest.mark.parametrize(
    ("name", "answer", "check", "complaint"),
    [
        ("time_range", lambda self: (1.0, 1.0), "diffusion.schedule_monotone", "a later last time"),
        ("schedule", lambda self, t: (t[:1], t), "diffusion.schedule_monotone", "not a tensor of that shape"),
        ("transition", lambda self, s, t: t, "diffusion.kernels_compose", "2 tensors"),
        ("backward", lambda self, s, t: (s, t), "diffusion.backward_by_bayes", "3 tensors"),
        ("denoise", lambda self, x, t: x[:, 0], "diffusion.tweedie", "not a floating tensor of that shape"),
        ("base", lambda self: 3, "diffusion.ends_in_noise", "base"),
        ("integrate", lambda self, x, steps: x * math.nan, "diffusion.solver_order", "is not finite"),
        ("integrate", lambda self, x, steps: x[0], "diffusion.solver_order", "not a floating tensor"),
        ("order", lambda self: 0, "diffusion.solver_order", "whole number"),
    ],
)
def test_another_form_than_the_contract_is_an_error_that_says_so(name, answer, check, complaint):
    seen = record(cloud(type("Odd", (Cloud,), {name: answer}))(), check)
    assert seen.verdict in (Verdict.ERROR, Verdict.SKIP), seen.message
    assert complaint in seen.message
