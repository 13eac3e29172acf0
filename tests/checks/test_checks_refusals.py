"""A density that raises outside its support, which it does not declare, is judged as one that answers -inf there.

Torch's own laws do so where `validate_args` is on. That the contract asks for -inf is for `support.impossible_outside`
to say, where the support is declared.
"""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Beta, Dirichlet, Distribution, Exponential, Independent, LogNormal, Poisson, Uniform

from engine import examined, troubles
from harness.checks.oracle import MOST_REFUSALS
from harness.evidence import Verdict

TWO_BETAS = Independent(Beta(torch.tensor([0.5, 2.0]), torch.tensor([3.0, 0.5]), validate_args=True), 1)

LAWS = {
    "beta": Beta(2.0, 3.0, validate_args=True),
    "exponential": Exponential(1.0, validate_args=True),
    "uniform": Uniform(0.0, 1.0, validate_args=True),
    "log-normal": LogNormal(0.0, 1.0, validate_args=True),
    "Dirichlet": Dirichlet(torch.tensor([1.0, 2.0, 3.0]), validate_args=True),
    "two betas": TWO_BETAS,
    "Poisson": Poisson(4.0, validate_args=True),
}


class Density:
    """The density of a law, without a word about its support; asked and refused calls are counted."""

    def __init__(self, law: Distribution):
        self.law, self.event_shape = law, tuple(law.event_shape)
        self.asked = self.refused = 0

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        if not len(x):
            return torch.zeros(0)
        try:
            return self.law.log_prob(x)
        except ValueError:
            self.refused += 1
            raise


class Drawn(Density):
    def sample(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**40, (), generator=generator)))
            return self.law.sample((n,))


@pytest.mark.parametrize("name", LAWS)
def test_a_correct_law_that_refuses_events_raises_no_alarm(name):
    assert troubles(examined(Drawn(LAWS[name]))) == {}


@pytest.mark.parametrize("name", ["beta", "exponential", "uniform", "Poisson"])
def test_its_masses_are_compared_with_the_draws(name):
    records = examined(Drawn(LAWS[name]), "sampler.region_masses")
    assert records["sampler.region_masses"].verdict is Verdict.PASS, records["sampler.region_masses"].message


def test_a_sampler_that_is_off_is_found_by_its_masses():
    class Shifted(Drawn):
        def sample(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
            return super().sample(n, generator=generator).square()

    assert "sampler.region_masses" in troubles(examined(Shifted(LAWS["beta"]), "sampler.region_masses"))


def test_the_search_for_the_events_at_fault_is_given_up_in_time():
    """Cubature asks for millions of events off the square: halving batch by batch would take the day."""
    model = Drawn(TWO_BETAS)
    records = examined(model, "density.integrates_to_one")
    assert records["density.integrates_to_one"].verdict is Verdict.SKIP
    assert "too many events" in records["density.integrates_to_one"].message
    assert MOST_REFUSALS <= model.refused <= 4 * MOST_REFUSALS  # several searches, each with a patience of its own


@pytest.mark.parametrize("kind", [Density, Drawn])
def test_a_poisson_density_is_summed_without_being_asked_for_ever(kind):
    """Alone it is found by a scout, whose own patience is 2^10 events at first and four times that in the end."""
    model = kind(LAWS["Poisson"])
    records = examined(model, "density.sums_to_one")
    assert records["density.sums_to_one"].verdict is Verdict.PASS, records["density.sums_to_one"].message
    assert model.asked <= 2**13
