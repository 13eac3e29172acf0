"""The kernel Stein discrepancy: its kernel against autograd, mutants and near misses, no alarm on correct models."""

from __future__ import annotations

import pytest
import torch

from engine import alone, changed, record, troubles
from harness.checks import stein_kernel as checks
from harness.checks.stein_kernel import _numbers
from harness.evidence import Verdict
from harness.mutants import energy, stein_kernel
from harness.mutants.energy import ScoreAlone, bowl
from harness.mutants.stein_kernel import Modes, Steps, Without

IDS = [check.id for check in checks.CHECKS]


@pytest.mark.parametrize("mutant", stein_kernel.MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is Verdict.FAIL, seen.message


@pytest.mark.parametrize("near", stein_kernel.NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


@pytest.mark.parametrize("build", [bowl(2), bowl(6), ScoreAlone, Modes, bowl(3, Without), bowl(8, dtype=torch.float64)])
@pytest.mark.parametrize("seed", range(4))
def test_correct_models_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}


@pytest.mark.parametrize("d", [1, 2, 5])
def test_numbers_are_those_of_the_definition(d):
    """h(x, y) by autograd of the kernel, for the score -x."""
    source = torch.Generator().manual_seed(d)
    x, y = (torch.randn(n, d, generator=source, dtype=torch.float64) for n in (4, 3))
    c = torch.tensor(0.7, dtype=torch.float64)

    def kernel(a, b):
        return (c.square() + (a - b).square().sum()) ** -0.5

    def h(a, b):
        of_x, of_y = torch.func.grad(kernel, argnums=(0, 1))(a, b)
        mixed = torch.func.jacrev(torch.func.grad(kernel, argnums=0), argnums=1)(a, b)
        return a @ b * kernel(a, b) - a @ of_y - b @ of_x + mixed.trace()

    truth = torch.stack([torch.stack([h(a, b) for b in y]).mean() for a in x])
    found = _numbers(x, -x, y, -y, c[None])[:, 0]
    operations = 32 * (d + 8)
    assert bool(((found - truth).abs() <= operations * torch.finfo(truth.dtype).eps * (1 + truth.abs())).all())


def test_an_energy_with_jumps_is_left_alone():
    seen = record(Steps(), "energy.kernel_stein")
    assert seen.verdict is Verdict.SKIP
    assert "jumps" in seen.message


QUICK = [("score.kernel_stein", stein_kernel, "uncorrelated"), ("score.stein", energy, "scaled")]


@pytest.mark.parametrize(("id", "family", "name"), QUICK)
def test_at_quick_it_can_pass_and_fail(id, family, name):
    """A share of the draws too small for the patience of the statistic would leave every model undecided."""
    (wrong,) = (mutant for mutant in family.MUTANTS if (mutant.check, mutant.name) == (id, name))
    assert record(ScoreAlone(), id, effort="quick").verdict is Verdict.PASS
    assert record(changed(wrong), id, effort="quick").verdict is Verdict.FAIL
