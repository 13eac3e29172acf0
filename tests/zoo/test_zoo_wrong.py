"""A zoo of small models, the wrong half: each fails the check that its defect is about.

Every defect is a bug that was made before; all are examined whole, at `quick` effort and one seed. Where two checks are
named, either may speak: a sampler and a density that disagree differ in mass as well, once both are weighed against a
third law.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, constraints

from harness import check_model
from harness.plan import BRIDGES, FREE_OF_MASS
from zoo import (
    LOG_2PI,
    Draw,
    Model,
    Pixels,
    RealNVP,
    Regression,
    categorical,
    gaussian,
    log_normal,
    mixture,
    scaled,
    stream,
    where,
    with_density,
    with_sampler,
)


def in_place(x: Tensor) -> Tensor:
    with torch.no_grad():
        x.sub_(0.1)
    return log_normal(x + 0.1)


def reseeding(n: int, g: torch.Generator) -> Tensor:
    torch.manual_seed(1234)
    return torch.randn(n, 3, generator=g)


def antithetic(n: int, g: torch.Generator) -> Tensor:
    z = torch.randn((n + 1) // 2, 3, generator=g)
    return torch.cat([z, -z])[:n]


def draws_of(model: Pixels) -> Draw:
    return lambda n, g: model.sample(n, generator=g)


def die(drawn: list[float], stated: list[float]) -> Model:
    p, q = torch.tensor(drawn), torch.tensor(stated)
    size = len(stated)
    return Model(
        lambda n, g: categorical(p, n, g), lambda x: where((x >= 0) & (x < size), q.log()[x.clamp(0, size - 1).long()])
    )


FAIR, NEVER_LAST = [0.3, 0.3, 0.2, 0.15, 0.05], [0.32, 0.32, 0.2, 0.16]
CORRELATED = torch.linalg.cholesky(torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.5], [0.0, 0.5, 2.0]]))


def correlated_log_prob(x: Tensor) -> Tensor:
    white = torch.linalg.solve_triangular(CORRELATED.to(x.dtype), x.T, upper=False).T
    return log_normal(white) - float(CORRELATED.diagonal().log().sum())


SAMPLER = " or ".join(("density.bridge_mass", *FREE_OF_MASS, *BRIDGES))
"""A sampler that does not follow the density is one FAIL, of whichever check is the first to be sure."""

WRONG: dict[str, tuple[str, Callable[[], object]]] = {
    "log-determinant missing": ("density.integrates_to_one", lambda: RealNVP(2, share=0.0)),
    "log-determinant halved": ("density.integrates_to_one", lambda: RealNVP(2, share=0.5)),
    "log-determinant of the other sign": (SAMPLER, lambda: RealNVP(10, share=-1.0)),
    "logarithm to base 2": (
        "density.integrates_to_one",
        lambda: with_density(gaussian(3), lambda x: log_normal(x) / math.log(2)),
    ),
    "-d/2 log 2 pi missing": (
        "density.bridge_mass",
        lambda: with_density(gaussian(10), lambda x: -0.5 * x.square().sum(1)),
    ),
    "mean over coordinates for their sum": (
        "density.integrates_to_one",
        lambda: with_density(gaussian(3), lambda x: Normal(0.0, 1.0).log_prob(x).mean(1)),
    ),
    "autoregressive mask leaks": ("density.sums_to_one", lambda: Pixels(leak=True)),
    "temperature 0.8 when sampling": (
        SAMPLER,
        lambda: with_sampler(Pixels(), draws_of(Pixels(temperature=0.8))),
    ),
    "prior of the classes": (SAMPLER, lambda: mixture([0.5, 0.5], [[0.0], [4.0]], drawn=[0.6, 0.4])),
    "transpose of the Cholesky factor": (
        SAMPLER,
        lambda: Model(lambda n, g: torch.randn(n, 3, generator=g) @ CORRELATED, correlated_log_prob),
    ),
    "draws clipped to [0, 1]": (
        SAMPLER,
        lambda: with_sampler(scaled(0.3, 0.5), lambda n, g: (0.5 + 0.3 * torch.randn(n, 3, generator=g)).clamp(0, 1)),
    ),
    "last value never drawn": ("support.every_value_drawn or sampler.region_masses", lambda: die(NEVER_LAST, FAIR)),
    "last value has no mass": ("support.draws_are_possible", lambda: die(FAIR, NEVER_LAST)),
    "draws off by one": (
        "support.draws_are_possible",
        lambda: with_sampler(die(FAIR, FAIR), lambda n, g: categorical(torch.tensor(FAIR), n, g) + 1),
    ),
    "seed ignored": (
        "sample.varies_with_seed",
        lambda: with_sampler(gaussian(3), lambda n, g: torch.randn(n, 3, generator=stream())),
    ),
    "generator ignored": (
        "sample.repeats_under_generator",
        lambda: with_sampler(gaussian(3), lambda n, g: torch.randn(n, 3)),
    ),
    "global generator reseeded": ("sample.leaves_global_generator_alone", lambda: with_sampler(gaussian(3), reseeding)),
    "antithetic draws": ("sample.uncorrelated_along_batch", lambda: with_sampler(gaussian(3), antithetic)),
    "draws sorted": (
        "sample.uncorrelated_along_batch",
        lambda: with_sampler(gaussian(1), lambda n, g: torch.randn(n, 1, generator=g).sort(0).values),
    ),
    "float16 inside": (
        "sample.resolution",
        lambda: with_sampler(gaussian(3), lambda n, g: torch.randn(n, 3, generator=g).half().float()),
    ),
    "log_prob a coordinate": (
        "log_prob.well_formed",
        lambda: with_density(gaussian(3), lambda x: Normal(0.0, 1.0).log_prob(x)),
    ),
    "input changed in place": ("log_prob.leaves_input_unchanged", lambda: with_density(gaussian(3), in_place)),
    "NaN beyond 3.5 sd": (
        "support.draws_are_possible",
        lambda: with_density(gaussian(3), lambda x: log_normal(torch.where(x.abs() > 3.5, torch.nan, x))),
    ),
    "dropout on in log_prob": ("log_prob.deterministic", lambda: Regression(dropout=True)),
    "statistics of the batch": (
        "log_prob.batch_invariant",
        lambda: with_density(gaussian(3), lambda x: log_normal(x - 0.1 * x.mean(0))),
    ),
    "density beyond the support": (
        "support.impossible_outside",
        lambda: Model(
            lambda n, g: -torch.log1p(-torch.rand(n, 1, generator=g)),
            lambda x: -x[:, 0].abs(),
            support=constraints.independent(constraints.nonnegative, 1),
        ),
    ),
    "entropy in bits": (
        "information.entropy",
        lambda: gaussian(3, entropy=lambda: torch.tensor(1.5 * (1 + LOG_2PI) / math.log(2))),
    ),
    "variance over n - 1": (
        "moments.variance_of_density",
        lambda: gaussian(3, variance=lambda: torch.full((3,), 100 / 99)),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model_fails_the_check_of_its_defect(name: str) -> None:
    checks, model = WRONG[name]
    report = check_model(model(), effort="quick", seed=0)
    verdicts = {r.check: f"{r.verdict}" for r in report.records}
    assert any(verdicts[check] == "FAIL" for check in checks.split(" or ")), [
        f"{r.check}: {r.verdict} {r.message}" for r in report.records if r.verdict in ("FAIL", "ERROR")
    ]
    assert "ERROR" not in verdicts.values()
