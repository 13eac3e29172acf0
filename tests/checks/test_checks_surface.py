"""The laws of the callable surface: planted defects are found, near misses and correct models pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine import changed, examined
from harness.checks import CHECKS
from harness.checks.rounding import difference
from harness.evidence import Verdict
from harness.mutants import surface

IDS = [check.id for check in CHECKS if check.id.startswith("log_prob.")] + [
    "sample.well_formed",
    "sample.any_batch_size",
    "sample.leaves_model_unchanged",
]


@pytest.mark.parametrize("mutant", surface.MUTANTS, ids=lambda mutant: f"{mutant.name}-{mutant.check}")
def test_each_planted_defect_is_found(mutant):
    assert examined(changed(mutant), mutant.check)[mutant.check].verdict is Verdict.FAIL


@pytest.mark.parametrize("near", surface.NEAR_MISSES, ids=lambda near: f"{near.name}-{near.check}")
def test_each_near_miss_passes(near):
    assert examined(changed(near), near.check)[near.check].verdict in (Verdict.PASS, Verdict.SKIP)


def test_each_law_has_a_mutant_and_a_near_miss():
    assert {mutant.check for mutant in surface.MUTANTS} == {near.check for near in surface.NEAR_MISSES} == set(IDS)


def laws(dtype: torch.dtype) -> dict[str, torch.distributions.Distribution]:
    distributions = torch.distributions

    def number(value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=dtype)

    return {
        "normal": distributions.Normal(number(0), number(1)),
        "tiny": distributions.Normal(number(0), number(1e-6)),
        "far": distributions.Normal(number(1e6), number(1)),
        "cauchy": distributions.Cauchy(number(0), number(1e3)),
        "atoms of float32": distributions.Gamma(number(0.01), number(1)),
        "singular ends": distributions.Beta(number(0.5), number(0.01)),
        "simplex": distributions.Dirichlet(torch.full((3,), 0.05, dtype=dtype)),
        "mixture": distributions.MixtureSameFamily(
            distributions.Categorical(torch.tensor([0.3, 0.7], dtype=dtype)),
            distributions.Normal(torch.tensor([-3.0, 3.0], dtype=dtype), torch.tensor([1.0, 0.1], dtype=dtype)),
        ),
        "coin": distributions.Bernoulli(number(0.01)),
        "count": distributions.Poisson(number(1e4)),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", list(laws(torch.float32)))
def test_correct_models_pass_or_say_why_not(name, dtype):
    for record in examined(laws(dtype)[name], *IDS).values():
        assert record.verdict in (Verdict.PASS, Verdict.SKIP), (record.check, record.message)
        assert record.verdict is not Verdict.SKIP or record.message


class CancellingDensity:
    """log N(x; m, 1) through x^2 - 2xm + m^2: 0.1 nat of rounding in float32 at m = 1000, which differs by batch."""

    event_shape = (1,)

    def __init__(self, dtype: torch.dtype = torch.float32):
        self.mean_ = torch.tensor([1000.0], dtype=dtype)

    def sample(self, n, *, generator):
        return self.mean_ + torch.randn(n, 1, generator=generator, dtype=self.mean_.dtype)

    def log_prob(self, x):
        square = (x**2).sum(1) - 2 * x @ self.mean_ + self.mean_ @ self.mean_
        if len(x) == 1:
            square = (x**2 + self.mean_**2 - 2 * x * self.mean_).sum(1)
        return -square / 2 - 0.9189385332046727


def test_rounding_that_cancellation_amplifies_is_undecided_rather_than_failed():
    narrow = examined(CancellingDensity(), "log_prob.batch_invariant")["log_prob.batch_invariant"]
    wide = examined(CancellingDensity(torch.float64), "log_prob.batch_invariant")["log_prob.batch_invariant"]
    assert narrow.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE)
    assert narrow.bound > 1e-3
    assert wide.verdict is Verdict.PASS


class BatchNormalised(nn.Module):
    """A module left in training mode: densities depend on the batch, and its buffers follow the data."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.normalise = nn.BatchNorm1d(2, affine=False)

    def sample(self, n, *, generator):
        return torch.randn(n, 2, generator=generator)

    def log_prob(self, x):
        z = self.normalise(x) if len(x) > 1 else x
        return -(z**2).sum(1) / 2


def test_a_module_in_training_mode_is_caught():
    records = examined(BatchNormalised(), "log_prob")
    assert records["log_prob.leaves_model_unchanged"].verdict is Verdict.FAIL
    assert "running_mean" in records["log_prob.leaves_model_unchanged"].message
    assert records["log_prob.batch_invariant"].verdict in (Verdict.FAIL, Verdict.SKIP)
    assert examined(BatchNormalised().eval(), "log_prob")["log_prob.leaves_model_unchanged"].verdict is Verdict.PASS


class OneWeight:
    """Its one weight is a view of stride 0, as expanding and slicing make them."""

    def __init__(self):
        self.weight = torch.ones(1).as_strided((1,), (0,))

    def sample(self, n, *, generator):
        return torch.randn(n, generator=generator) * self.weight[0]

    def log_prob(self, x):
        return torch.distributions.Normal(0.0, 1.0).log_prob(x)


def test_weights_may_be_views_of_any_stride():
    for act in ("sample", "log_prob"):
        check = f"{act}.leaves_model_unchanged"
        assert examined(OneWeight(), check)[check].verdict is Verdict.PASS


def test_difference_of_infinities_and_nan():
    inf, nan = torch.inf, torch.nan
    a, b = torch.tensor([inf, -inf, nan, 1.0, 1.0]), torch.tensor([inf, inf, nan, nan, 3.0])
    assert difference(a, b).tolist() == [0.0, inf, 0.0, inf, 2.0]
