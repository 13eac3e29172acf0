"""The answer of a density to a stretch has mean zero, smooth or not, and is what varies in log p of a Gaussian."""

from __future__ import annotations

import math

import pytest
import torch

from engine import record
from harness.adapters import adapt
from harness.checks.information import entropy_of_draws
from harness.checks.stretch import stretch, stretchable
from harness.draws import log_density
from harness.effort import effort_named
from harness.evidence import Verdict
from harness.mutants.information import Bare, HalfNormal
from harness.mutants.mutant import mutated
from harness.subject import Subject

D = torch.distributions

N = 2**15


class Box:
    """Uniform on the unit cube, with no support declared."""

    def sample(self, n, *, generator):
        return torch.rand(n, 4, generator=generator)

    def log_prob(self, x):
        return torch.where(((x >= 0) & (x <= 1)).all(1), 0.0, -math.inf)


LAWS = {
    "Gaussian": lambda: Bare(50),
    "half-normal": lambda: HalfNormal(4),
    "box": Box,
    "Cauchy": lambda: D.Independent(D.Cauchy(torch.zeros(3), torch.ones(3)), 1),
    "Laplace": lambda: D.Independent(D.Laplace(torch.zeros(8), torch.ones(8)), 1),
}


def numbers(name):
    subject = Subject(adapt(LAWS[name]()), effort_named("quick"), 0)
    x = subject.sample(N, "test")
    log_p = log_density(subject, x)
    return stretch(subject, x, log_p)[:, 0], log_p


@pytest.mark.parametrize("name", LAWS)
def test_the_mean_is_zero(name):
    """Within six standard errors (two in a thousand million) of 32,768 draws."""
    seen, _ = numbers(name)
    assert float(seen.mean().abs()) < 6 * float(seen.std()) / math.sqrt(N)


def test_it_is_all_that_varies_in_the_log_density_of_a_gaussian():
    """What is left is the pilot's error in the centre: sqrt(d / pilot) = 0.06 nats of 5."""
    seen, log_p = numbers("Gaussian")
    slope = float((seen * (log_p - log_p.mean())).mean() / seen.square().mean())
    assert float(log_p.std()) > 4.5
    assert float((log_p - slope * seen).std()) < 0.15


def test_events_that_are_no_free_numbers_are_not_stretched():
    for law in (D.Bernoulli(torch.full((8,), 0.3)), D.Dirichlet(torch.ones(5))):
        assert not stretchable(Subject(adapt(law), effort_named("quick"), 0))


def test_a_model_that_refuses_events_is_not_asked_for_others():
    class Refuses(HalfNormal):
        def log_prob(self, x):
            if bool((x < 0).any()):
                raise ValueError("negative")
            return super().log_prob(x)

    assert not stretchable(Subject(adapt(Refuses(4)), effort_named("quick"), 0))
    assert stretchable(Subject(adapt(HalfNormal(4)), effort_named("quick"), 0))


@pytest.mark.parametrize("seed", range(4))
def test_an_entropy_that_is_a_twentieth_of_a_nat_off_is_found_without_moments(seed):
    model = adapt(Bare(50))
    off = mutated(model, lambda m: {"entropy": lambda: m.entropy() + 0.05})
    for each, verdict in ((model, Verdict.PASS), (off, Verdict.FAIL)):
        seen = record(each, entropy_of_draws, effort="standard", seed=seed, alpha=1e-6 / 30)
        assert seen.verdict is verdict, seen.message
