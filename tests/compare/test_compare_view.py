"""A density trained on changed numbers is judged in the data's own units."""

import math

import pytest
import scipy.stats
import torch

from harness.adapters import adapt
from harness.compare.data import made
from harness.compare.evaluate import test_points as points_of
from harness.compare.view import COPIES, as_events, raw, standardised


def table(n: int = 60) -> torch.Tensor:
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z * torch.tensor([30.0, 0.2]) + torch.tensor([500.0, -3.0])


class OfZ:
    """A standard normal of standardised rows."""

    def log_prob(self, z):
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)


def points(model, view, dtype=torch.float64):
    return points_of(adapt(model), view, dtype, 0, lambda n: None)


def test_the_log_jacobian_makes_the_nll_one_of_the_data():
    data = made("x", table(), 0)
    seen = points(OfZ(), standardised(data, 0))
    law = scipy.stats.norm(data.train.mean(0).numpy(), data.train.std(0).numpy())
    told = -law.logpdf(data.test.numpy()).sum(1)
    # A dozen operations on numbers below 100, each rounded by 1e-16 of itself.
    assert float((seen.nll - torch.from_numpy(told)).abs().max()) < 12 * 100 * 1.2e-16 * 10
    assert seen.meaning == "exact"


def test_draws_come_back_in_the_datas_units():
    data = made("x", table(), 0)
    view = standardised(data, 0)
    assert torch.allclose(view.in_data_units(view.train), data.train, rtol=1e-14)


class Even:
    """The uniform density on [0, 4)^2, in standardised coordinates."""

    def __init__(self, view):
        self.view = view

    def log_prob(self, z):
        x = self.view.in_data_units(z)
        inside = ((x >= 0) & (x < 4)).all(-1)
        return torch.where(inside, -2 * math.log(4) + self.view.scale.log().sum(), -torch.inf)


def test_a_density_that_is_flat_in_every_cell_gives_the_states_own_nll():
    states = torch.randint(0, 4, (80, 2), generator=torch.Generator().manual_seed(1))
    data = made("x", states, 0)
    view = standardised(data, 0)
    assert view.test.shape == (COPIES, len(data.test), 2)
    seen = points(Even(view), view)
    # log 16 up to the rounding of two logarithms.
    assert float((seen.nll - 2 * math.log(4)).abs().max()) < 1e-14
    assert seen.meaning == "upper bound on the NLL (dequantised)"


def test_the_noise_is_the_same_for_every_model():
    data = made("x", torch.randint(0, 4, (80, 2), generator=torch.Generator().manual_seed(1)), 0)
    assert torch.equal(standardised(data, 5).test, standardised(data, 5).test)
    assert not torch.equal(standardised(data, 5).test, standardised(data, 6).test)


def test_a_value_that_is_no_number_is_a_failure_with_its_place():
    class Cut(OfZ):
        def log_prob(self, z):
            return torch.where(z[:, 0] > 0, super().log_prob(z), -torch.inf)

    view = standardised(made("x", table(), 0), 0)
    below = view.test[0, :, 0] <= 0
    seen = points(Cut(), view)
    assert seen.trouble.startswith(f"log_prob is -inf at {int(below.sum())} of {len(below)} test rows")
    assert points(OfZ(), view).trouble == ""


def test_answers_of_another_shape_are_refused():
    class Wide:
        def log_prob(self, z):
            return z

    with pytest.raises(TypeError, match="not 15 numbers"):
        points(Wide(), raw(made("x", table(), 0)))


def test_an_energy_with_its_constant_is_a_density_and_an_elbo_a_bound():
    class Energy:
        def energy(self, x):
            return x.square().sum(-1) / 2

        def log_partition(self):
            return torch.tensor(math.log(2 * math.pi), dtype=torch.float64)

    class Bound:
        event_shape = (2,)

        def sample(self, n, *, generator):
            return torch.randn(n, 2, generator=generator)

        def elbo(self, x, *, generator):
            return torch.randn(len(x), generator=generator, dtype=x.dtype)

    view = standardised(made("x", table(), 0), 0)
    # Two float32-sized constants, hence 1e-6 of numbers below 10.
    assert torch.allclose(points(Energy(), view).nll, points(OfZ(), view).nll, atol=1e-6)
    assert points(Bound(), view).meaning == "upper bound on the NLL (ELBO, 16 draws)"


def test_rows_take_the_shape_that_a_model_declares():
    rows = torch.zeros(3, 4)
    assert as_events(rows, (2, 2)).shape == (3, 2, 2)
    assert as_events(rows, (3,)).shape == as_events(rows, None).shape == (3, 4)
    assert as_events(torch.zeros(3, 1), ()).shape == (3,)
