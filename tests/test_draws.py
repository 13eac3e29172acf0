"""Where proposals may be judged: everywhere, or inside the box of draws for a model that raises outside its support."""

from __future__ import annotations

import math

import pytest
import torch

from engine import examined
from harness.adapters import adapt
from harness.draws import Draws, Proposals, log_density_where, within
from harness.effort import effort_named
from harness.evidence import Verdict
from harness.subject import Subject


class Interval:
    """Uniform on (0, 1), drawn as rand ** power; outside, log_prob raises or says -inf."""

    def __init__(self, raises, power=1.0):
        self.raises, self.power = raises, power

    def sample(self, n, *, generator):
        return torch.rand(n, generator=generator) ** self.power

    def log_prob(self, x):
        inside = (x >= 0) & (x <= 1)
        if self.raises and not bool(inside.all()):
            raise ValueError("the event must lie between 0 and 1")
        return torch.where(inside, 0.0, -math.inf) + 0 * x


def subject(model):
    return Subject(adapt(model), effort_named("quick"), 0)


OUTSIDE = torch.tensor([-0.5, 0.5, 1.5])


def test_a_model_that_answers_is_asked_everywhere():
    assert within(subject(Interval(raises=False)), OUTSIDE).tolist() == [True, True, True]


def test_a_model_that_raises_is_asked_inside_the_box_of_its_draws():
    examined = subject(Interval(raises=True))
    assert within(examined, OUTSIDE).tolist() == [False, True, False]
    ends = torch.stack([examined.pilot.min(), examined.pilot.max()])
    assert within(examined, ends).tolist() == [True, True]
    beyond = torch.nextafter(ends, torch.tensor([-1.0, 2.0]))
    assert within(examined, beyond).tolist() == [False, False]


def test_the_box_is_of_every_coordinate():
    class Square(Interval):
        def sample(self, n, *, generator):
            return torch.rand(n, 2, generator=generator)

        def log_prob(self, x):
            return super().log_prob(x).sum(1)

    x = torch.tensor([[0.5, 0.5], [0.5, 1.5], [-0.5, 0.5]])
    assert within(subject(Square(raises=True)), x).tolist() == [True, False, False]


def test_proposals_outside_the_box_count_as_impossible_and_are_not_asked():
    examined = subject(Interval(raises=True))
    proposals = Proposals(examined, 0, 4096)
    inside = within(examined, proposals.x)
    assert 0 < int(inside.sum()) < 4096  # the reference is wider than the interval
    assert torch.equal(proposals.log_p > -math.inf, inside)


def test_draws_outside_the_box_are_left_out_too():
    examined = subject(Interval(raises=True))
    draws = Draws(examined, 0, 2**14)
    assert torch.equal(draws.within, (draws.x >= examined.pilot.min()) & (draws.x <= examined.pilot.max()))


def test_events_that_are_not_wanted_or_not_finite_are_impossible_without_being_asked():
    examined = subject(Interval(raises=True))
    x = torch.tensor([0.5, 7.0, math.nan, math.inf])
    wanted = torch.tensor([True, False, True, True])
    assert log_density_where(examined, x, wanted).tolist() == [0.0, -math.inf, -math.inf, -math.inf]


BRIDGES = ("sampler.bridge", "sampler.adversary", "density.integrates_to_one")


@pytest.mark.parametrize("raises", [False, True])
def test_a_correct_sampler_passes_whether_or_not_its_density_raises(raises):
    records = examined(Interval(raises))
    for id in BRIDGES:
        assert records[id].verdict is Verdict.PASS, (id, records[id].message)


@pytest.mark.parametrize("raises", [False, True])
def test_a_wrong_sampler_is_found_whether_or_not_its_density_raises(raises):
    assert examined(Interval(raises, power=1.3), "sampler.bridge")["sampler.bridge"].verdict is Verdict.FAIL
