"""The arithmetic that a log-density works in is found, whatever goes in and comes out; no alarm is made of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from engine import changed, examined, record, troubles
from harness.adapters import adapt
from harness.checks.precision import Watched, roughness, unit_of, working_unit
from harness.effort import effort_named
from harness.evidence import Verdict
from harness.mutants.density import MUTANTS, NEAR_MISSES, SingleCounts, SinglePrecision
from harness.subject import Subject

D = torch.distributions

UNIT32, UNIT64 = 2.0**-24, 2.0**-53
MASS = ["density.integrates_to_one", "density.sums_to_one"]


def wide(value):
    return torch.tensor(value, dtype=torch.float64)


def subject(model):
    return Subject(adapt(model), effort_named("quick"), 0)


class Float64Events:
    def sample(self, n, *, generator):
        return torch.randn(n, generator=generator, dtype=torch.float64)


class NumpySingle(Float64Events):
    """Casts where torch does not see it, and adds a constant, so that the answers are no float32 numbers."""

    def log_prob(self, x):
        y = x.detach().clamp(-1e18, 1e18).numpy().astype(np.float32)
        log_p = np.float32(-0.5) * y * y - np.float32(0.5 * math.log(2 * math.pi))
        return torch.from_numpy(log_p.astype(np.float64)) + 1e-12 / 3


class NumpyFaces:
    """A table of float32 log-masses behind numpy."""

    def __init__(self):
        self.log_p = np.log(np.array([0.2, 0.3, 0.5])).astype(np.float32)

    def sample(self, n, *, generator):
        return torch.multinomial(wide([0.2, 0.3, 0.5]), max(n, 1), replacement=True, generator=generator)[:n]

    def log_prob(self, x):
        inside = (x >= 0) & (x < 3)
        log_p = torch.from_numpy(self.log_p[x.clamp(0, 2).numpy()].astype(np.float64))
        return torch.where(inside, log_p, -torch.inf)


class HalfWeights(Float64Events):
    """N(0, 1) of which the constant was rounded to bfloat16 (8 bits), and more."""

    def __init__(self, nats=0.0):
        self.constant = torch.tensor([0.5 * math.log(2 * math.pi) - nats], dtype=torch.bfloat16)

    def log_prob(self, x):
        return -0.5 * x.square() - self.constant


SINGLE = {
    "float32 weights": lambda: SinglePrecision(False, 2),
    "cast and cast back": lambda: SinglePrecision(True, 2),
    "float32 rate of counts": SingleCounts,
    "a table behind numpy": NumpyFaces,
    "float32 all along": lambda: D.Normal(0.3, 0.7),
}


@pytest.mark.parametrize("name", SINGLE)
def test_single_precision_is_seen(name):
    assert working_unit(subject(SINGLE[name]())) == UNIT32


def test_a_cast_that_torch_does_not_see_shows_as_roughness():
    assert UNIT32 / 4 < working_unit(subject(NumpySingle())) < 4 * UNIT32


DOUBLE = {
    "normal": lambda: D.Normal(wide(0.3), wide(0.7)),
    "far from 0": lambda: D.Normal(wide(1e6), wide(1.0)),
    "a kink": lambda: D.Laplace(wide(0.3), wide(0.7)),
    "flat": lambda: D.Uniform(wide(0.0), wide(3.0)),
    "singular ends": lambda: D.Beta(wide(0.5), wide(0.5)),
    "heavy tails": lambda: D.Cauchy(wide(0.0), wide(1.0)),
    "scipy": lambda: stats.norm(0.3, 0.7),
    "a simplex": lambda: D.Dirichlet(wide([1.0, 2.0, 3.0])),
    "counts": lambda: D.Poisson(wide(7.3)),
}


@pytest.mark.parametrize("name", DOUBLE)
def test_honest_float64_is_not_taken_for_less(name):
    assert working_unit(subject(DOUBLE[name]())) <= 4 * UNIT64


def test_roughness_is_the_scatter_of_the_rounding():
    x = torch.randn(256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma in (1e-4, 1e-7, 1e-10):
        source = torch.Generator().manual_seed(1)

        class Noisy(Float64Events):
            def log_prob(self, x, sigma=sigma, source=source):
                size = 1 + 0.5 * x.square()
                return -0.5 * x.square() + sigma * size * torch.randn(len(x), generator=source, dtype=x.dtype)

        # A median of 256 numbers is within 10 %; sizes along the table differ by as much.
        assert abs(math.log(roughness(adapt(Noisy()), x) / sigma)) < 0.3


def test_the_watch_ends_with_the_call():
    with Watched() as watched:
        torch.zeros(2, dtype=torch.float64) + torch.ones(2, dtype=torch.float64)
    torch.zeros(2, dtype=torch.float16).sum()
    assert watched.dtypes == {torch.float64}


def test_weights_in_a_list_are_seen():
    with Watched() as watched:
        torch.cat([torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.bfloat16)])
    assert torch.bfloat16 in watched.dtypes


def test_a_model_is_judged_by_its_own_arithmetic_not_by_its_twin():
    model = adapt(SinglePrecision(False, 2))
    x = torch.zeros(64, 2, dtype=torch.float64)
    assert unit_of(model, x, True) == UNIT32
    assert unit_of(model.cast(torch.float64), x, True) <= 4 * UNIT64


@pytest.mark.parametrize("name", [*SINGLE, "numpy"])
def test_no_check_takes_single_precision_for_a_defect(name):
    model = NumpySingle() if name == "numpy" else SINGLE[name]()
    records = examined(model)
    assert troubles(records) == {}
    assert any(records[id].verdict is Verdict.PASS for id in MASS)


OF_PRECISION = ("float32", "float64", "cast")


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if any(p in m.name for p in OF_PRECISION)], ids=lambda m: m.name)
def test_a_defect_is_found_in_any_arithmetic(mutant):
    record = examined(changed(mutant), *MASS)[mutant.check]
    assert record.verdict is Verdict.FAIL, record.message


@pytest.mark.parametrize(
    "near", [n for n in NEAR_MISSES if any(p in n.name for p in OF_PRECISION)], ids=lambda n: n.name
)
def test_no_defect_is_found_in_a_near_miss(near):
    record = examined(changed(near), *MASS)[near.check]
    assert record.verdict is Verdict.PASS, record.message


@pytest.mark.parametrize(
    ("nats", "verdict"), [(0.0, Verdict.INCONCLUSIVE), (0.2, Verdict.INCONCLUSIVE), (-2.0, Verdict.FAIL)]
)
def test_what_bfloat16_explains_is_neither_passed_nor_failed(nats, verdict):
    """16 roundings of 2^-9 each, of numbers of size 2, explain more than the tolerance of 0.05."""
    record = examined(HalfWeights(nats), *MASS)["density.integrates_to_one"]
    assert record.verdict is verdict, record.message


HALF = torch.float16


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("loc", [0.0, 3.0])
def test_a_distribution_function_in_float16_is_rounded_and_not_wrong(loc, seed):
    law = torch.distributions.Normal(torch.tensor(loc, dtype=HALF), torch.tensor(1.0, dtype=HALF))
    assert record(law, "sampler.pit_uniform", effort="standard", seed=seed).verdict is Verdict.PASS


def test_a_wrong_distribution_function_is_found_in_float16():
    class Beside(torch.distributions.Normal):
        def cdf(self, value):
            return super().cdf(value + 0.1)

    law = Beside(torch.tensor(0.0, dtype=HALF), torch.tensor(1.0, dtype=HALF))
    assert record(law, "sampler.pit_uniform", effort="standard").verdict is Verdict.FAIL


def test_of_a_distribution_function_in_bfloat16_nothing_can_be_said():
    kind = torch.bfloat16
    law = torch.distributions.Normal(torch.tensor(0.0, dtype=kind), torch.tensor(1.0, dtype=kind))
    seen = record(law, "sampler.pit_uniform", effort="standard")
    assert seen.verdict is Verdict.SKIP
    assert "too coarse to be tested" in seen.message
