"""What an examination does most often: statistics take in a chunk, densities are integrated, evidence is judged."""

import math

import pytest
import torch

from harness.evidence import Estimated, Exact, Look, Verdict
from harness.judge import judge
from harness.numerics.integral import power
from harness.numerics.quadrature import integrate
from suites.speed.tracked.examiner import STATISTICS, values

ALPHA = 1e-9
ROWS = 2**14


@pytest.mark.parametrize("name", list(STATISTICS))
def test_update_and_look(benchmark, name):
    """The law holds: by Ville's inequality the evidence against it reaches 1e9 with probability 1e-9 at most."""
    chunk = values(name, ROWS, torch.Generator().manual_seed(0))

    def run():
        statistic = STATISTICS[name]()
        statistic.update(chunk)
        return statistic.look(0.999)

    look = benchmark(run)
    assert look.n == ROWS
    assert look.low <= 0 <= look.high
    assert look.log_e < -math.log(ALPHA)


def test_integrate_normal(benchmark):
    """Mass 1, mean 0, second moment 1, each within the bound that comes with it."""
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    log_p = lambda x: normal.log_prob(x[:, 0])  # noqa: E731
    found = benchmark(lambda: integrate(log_p, [power(1), power(2)], knots=torch.linspace(-3, 3, 11)))
    assert found.converged
    error = (found.values - torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)).abs()
    assert (error <= found.error).all()


def test_judge(benchmark):
    """A thousand verdicts on evidence of known sides."""
    evidence = [Estimated((Look(100, 0.0, -0.01, 0.01, log_e),), 0.02, 0.999, "") for log_e in range(500)]
    evidence += [Exact(error=i / 500, allowed=0.5, n=1) for i in range(500)]
    verdicts = benchmark(lambda: [judge(each, ALPHA) for each in evidence])
    needed = math.ceil(-math.log(ALPHA))  # 21: evidence from e^21 on
    assert verdicts.count(Verdict.FAIL) == (500 - needed) + 249  # errors 251/500 to 499/500
    assert verdicts.count(Verdict.PASS) == needed + 251
