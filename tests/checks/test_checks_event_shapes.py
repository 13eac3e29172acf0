"""Events of other shapes than a vector: scalars, and vectors on a surface, whose chart has fewer coordinates."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Dirichlet

from harness import check_model
from harness.evidence import Verdict


class Bell:
    """N(0, 1) as an energy with a score; `slope` is what the score is wrong by."""

    event_shape = ()

    def __init__(self, slope: float = 1.0):
        self.slope = slope

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, generator=generator, dtype=torch.float64)

    def energy(self, x: Tensor) -> Tensor:
        return x.square() / 2

    def log_partition(self) -> Tensor:
        return torch.tensor(math.log(2 * math.pi) / 2)

    def score(self, x: Tensor) -> Tensor:
        return -self.slope * x


class TwoBells:
    """A class y of prior 0.3 or 0.7, and x ~ N(2 y, 1); the posterior may forget the prior."""

    event_shape = ()

    def __init__(self, forgets: bool = False):
        self.prior, self.forgets = torch.tensor([0.3, 0.7], dtype=torch.float64), forgets

    def class_prior(self) -> Tensor:
        return self.prior

    def log_prob(self, x: Tensor, *, given: Tensor) -> Tensor:
        return -(x - 2.0 * given).square() / 2 - math.log(2 * math.pi) / 2

    def sample(self, n: int, *, given: Tensor, generator: torch.Generator) -> Tensor:
        return 2.0 * given + torch.randn(n, generator=generator, dtype=torch.float64)

    def posterior(self, x: Tensor) -> Tensor:
        laws = torch.stack([self.log_prob(x, given=torch.full_like(x, y)) for y in range(2)], 1)
        return torch.softmax(laws if self.forgets else laws + self.prior.log(), 1)


class Simplex:
    """Dirichlet(2, 3, 4), with its mean but no variance."""

    event_shape, support = (3,), torch.distributions.constraints.simplex

    def __init__(self, off: float = 0.0):
        self.weights, self.off = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64), off

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        draws = torch._standard_gamma(self.weights.expand(n, 3).contiguous(), generator=generator)
        return draws / draws.sum(-1, keepdim=True)

    def mean(self) -> Tensor:
        return Dirichlet(self.weights).mean + self.off


CASES = {
    "score.is_gradient": (Bell, {"slope": 1.01}),
    "classifier.bayes_rule": (TwoBells, {"forgets": True}),
    "moments.mean_of_draws": (Simplex, {"off": 0.1}),
}


@pytest.mark.parametrize("check", CASES)
def test_a_right_model_passes_and_a_wrong_one_fails(check):
    model, defect = CASES[check]
    found = [check_model(each, effort="quick", seed=0, only=[check]).records for each in (model(), model(**defect))]
    verdicts = [record.verdict for records in found for record in records if record.check == check]
    assert verdicts == [Verdict.PASS, Verdict.FAIL]
