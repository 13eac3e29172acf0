"""The grid of a coarse dtype: how wide its cells are, where draws are put in them; no law takes it for bias."""

from __future__ import annotations

import math

import pytest
import torch

from engine import examined, troubles
from harness.adapters import adapt
from harness.cells import FINE, neighbours, spacing, spread_out
from harness.draws import Draws
from harness.effort import effort_named
from harness.evidence import Verdict
from harness.subject import Subject

D = torch.distributions

LAWS = ["density", "sampler"]


def subject(model):
    return Subject(adapt(model), effort_named("quick"), 0)


def normal(location, scale, dtype=torch.float32):
    return D.Normal(torch.tensor(location, dtype=dtype), torch.tensor(scale, dtype=dtype))


class Drawn:
    """N(location, scale^2), drawn with `factor` times the scale."""

    def __init__(self, location, scale, factor=1.0):
        self.location, self.scale, self.factor = torch.tensor(location), torch.tensor(scale), factor

    def sample(self, n, *, generator):
        return self.location + self.factor * self.scale * torch.randn(n, generator=generator)

    def log_prob(self, x):
        return D.Normal(self.location, self.scale).log_prob(x)


@pytest.mark.parametrize(
    ("law", "width"),
    [
        (normal(1e6, 1.0), 1 / 16),  # between 2^19 and 2^20 float32 is spaced by 2^-4
        (normal(1e4, 0.1), 2.0**-10 / 0.1),
        (normal(1e6, 1.0, torch.float64), 2.0**-33),
        (normal(0.0, 1.0, torch.float16), 2.0**-11),
    ],
)
def test_spacing_is_the_width_of_cells_in_spreads(law, width):
    assert spacing(subject(law)) == pytest.approx(width, rel=0.2)  # quartiles of 4096 draws, and a power of 2 of x


def test_integers_and_dependent_numbers_have_no_spacing():
    assert spacing(subject(D.Poisson(1e6))) == 0.0
    assert spacing(subject(D.Dirichlet(torch.tensor([1.0, 2.0])))) == 0.0


def test_a_draw_is_spread_over_what_rounds_to_it():
    far = subject(normal(2.0**20, 1.0))
    x = far.pilot
    y = spread_out(far, x, torch.Generator().manual_seed(0))
    assert y.dtype == torch.float64
    assert torch.equal(y.to(x.dtype), x)
    below, above = neighbours(x)
    place = (y - x.double()) / ((above.double() - below.double()) / 2)
    # The cells of 2^20 and of a few others are lopsided; the mean of 4096 uniform numbers is within 5 sd of 0.
    assert abs(float(place.mean())) < 5 / math.sqrt(12 * len(x)) + float((x == 2.0**20).double().mean()) / 4
    assert float(place.std()) == pytest.approx(1 / math.sqrt(12), rel=0.05)


def test_discrete_coordinates_stay_where_they_are():
    class Pair:
        def sample(self, n, *, generator):
            k = torch.randint(3, (n,), generator=generator).float()
            return torch.stack([k, 1e6 + torch.randn(n, generator=generator)], 1)

        def log_prob(self, x):
            inside = (x[:, 0] >= 0) & (x[:, 0] <= 2) & (x[:, 0] == x[:, 0].round())
            return torch.where(inside, D.Normal(1e6, 1.0).log_prob(x[:, 1]) - math.log(3), -torch.inf)

    pair = subject(Pair())
    y = spread_out(pair, pair.pilot, torch.Generator().manual_seed(0))
    assert torch.equal(y[:, 0], pair.pilot[:, 0].double())
    assert not torch.equal(y[:, 1], pair.pilot[:, 1].double())


def test_draws_of_a_coarse_dtype_have_no_ties_and_repeat_themselves():
    far = subject(normal(1e6, 1.0))
    z = Draws(far, 0, 2048).z
    assert len(z.unique()) == 2048
    assert torch.equal(z, Draws(subject(normal(1e6, 1.0)), 0, 2048).z)
    assert len(far.profile.chart.coordinates(Draws(far, 0, 2048).x).unique()) < 200


def test_draws_of_a_fine_dtype_keep_their_coordinates():
    near = subject(normal(1.0, 1.0))
    draws = Draws(near, 0, 64)
    assert spacing(near) < FINE
    assert torch.equal(draws.z, near.profile.chart.coordinates(draws.x))


def test_the_last_event_of_a_coarse_support_is_left_out():
    start = D.TransformedDistribution(D.Exponential(1.0), D.AffineTransform(1e6, 1.0))
    draws = Draws(subject(start), 0, 2048)
    assert torch.equal(draws.within, draws.x > 1e6)
    assert not bool(draws.within.all())


def test_float64_that_is_too_coarse_says_so():
    seen = examined(normal(1e14, 1.0, torch.float64), *LAWS)
    assert seen["sampler.bridge"].verdict is Verdict.SKIP
    assert "nearer to 0" in seen["sampler.bridge"].message


PLACES = [(1e6, 1.0), (1e4, 0.1), (2.0**20, 1.0), (2.0**22, 1.0), (2.0**23, 1.0), (-1e4, 2e-3)]
FOUND_BELOW = 1 / 8


@pytest.mark.parametrize(("location", "scale"), PLACES)
@pytest.mark.parametrize("effort", ["quick", "standard"])
def test_a_correct_model_far_from_0_raises_no_alarm(location, scale, effort):
    for model in (normal(location, scale), Drawn(location, scale)):
        assert troubles(examined(model, *LAWS, effort=effort)) == {}


@pytest.mark.parametrize(("location", "scale"), PLACES)
def test_a_wide_sampler_far_from_0_is_found_or_left_open(location, scale):
    seen = examined(Drawn(location, scale, 1.3), *LAWS)
    if spacing(subject(Drawn(location, scale))) <= FOUND_BELOW:
        assert any(r.verdict is Verdict.FAIL for r in seen.values())
    else:
        told = [r.message for r in seen.values() if r.verdict is Verdict.SKIP]
        assert any("wider dtype" in message for message in told)
        assert not any(r.verdict is Verdict.PASS for id, r in seen.items() if id.startswith(("sampler", "density")))


OTHERS = {
    "Laplace": lambda: D.Laplace(1e6, 1.0),
    "Student": lambda: D.StudentT(3.0, 1e6, 1.0),
    "an edge": lambda: D.TransformedDistribution(D.Exponential(1.0), D.AffineTransform(1e6, 1.0)),
    "one coarse coordinate in two": lambda: D.Normal(torch.tensor([1e6, 0.0]), torch.ones(2)),
    "dependent": lambda: D.MultivariateNormal(torch.tensor([1e5, -1e6]), torch.tensor([[1.0, 0.8], [0.8, 1.0]])),
    "five": lambda: D.Independent(D.Normal(torch.tensor([1e6, 0.0, -1e5, 3e5, 1e3]), torch.ones(5)), 1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_laws_far_from_0_raise_no_alarm(name):
    for seed in range(3):
        wrong = troubles(examined(OTHERS[name](), *LAWS, seed=seed))
        assert not [each for each in wrong.items() if each[0].startswith(("density", "sampler"))]
