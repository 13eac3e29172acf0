"""The move of discrete coordinates is reversible, and mixes many pixels well enough for a verdict."""

from __future__ import annotations

import torch
from torch import Tensor

from harness import check_model
from harness.adapters import adapt
from harness.effort import EFFORTS
from harness.moves import propose
from harness.subject import Subject


class Classes:
    """d pixels, independent given one of three classes: the pixels of a class agree with its pattern."""

    def __init__(self, d: int):
        source = torch.Generator().manual_seed(0)
        self.weight = torch.tensor([0.5, 0.3, 0.2])
        self.on = torch.sigmoid(2 * torch.randn(3, d, generator=source))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        k = torch.multinomial(self.weight, n, replacement=True, generator=generator)
        return (torch.rand(n, self.on.shape[1], generator=generator) < self.on[k]).float()

    def log_prob(self, x: Tensor) -> Tensor:
        each = x @ self.on.log().T.to(x) + (1 - x) @ torch.log1p(-self.on).T.to(x)
        inside = ((x == 0) | (x == 1)).all(1)
        return torch.where(inside, torch.logsumexp(each + self.weight.log(), 1), -torch.inf)


def test_a_proposal_and_its_way_back_balance() -> None:
    """From uniform states, E[g(z, z') q(z | z') / q(z' | z)] = E[g(z', z)]; here for each pair of 8 states."""
    subject = Subject(adapt(Classes(3)), EFFORTS["quick"], 0)
    assert len(subject.reference.log_weight) > 1  # else the component would not matter
    n, source = 2**17, torch.Generator().manual_seed(1)
    x = torch.randint(2, (n, 3), generator=source).float()
    moved = propose(subject, subject.profile.chart.coordinates(x), source)
    y = subject.profile.chart.events(moved.z)
    here, there = ((v.long() * torch.tensor([4, 2, 1])).sum(1) for v in (x, y))
    weight = moved.log_ratio.exp()
    forth = torch.bincount(8 * here + there, weight, 64).reshape(8, 8) / n
    square = torch.bincount(8 * here + there, weight.square(), 64).reshape(8, 8) / n
    back = torch.bincount(8 * there + here, minlength=64).reshape(8, 8) / n
    error = ((square + back) / n).sqrt()
    assert bool(((forth - back).abs() <= 5 * error).all())  # 64 pairs at 5 standard errors: 4e-5 in all


def test_pixels_of_several_classes_are_exchanged_well_enough_for_a_verdict() -> None:
    report = check_model(Classes(64), effort="quick", only=["sampler.exchangeable"])
    assert [f"{r.verdict}" for r in report.records if r.check == "sampler.exchangeable"] == ["PASS"]


def test_a_lone_number_crosses_the_gap_between_two_modes() -> None:
    """A Hamiltonian trajectory would turn back, and the check say nothing."""
    modes = torch.distributions.Normal(torch.tensor([-4.0, 2.0]), torch.tensor([1.0, 0.3]))
    law = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.tensor([0.3, 0.7])), modes)
    report = check_model(law, effort="quick", only=["sampler.exchangeable"])
    assert {r.check: r.verdict for r in report.records}["sampler.exchangeable"] in ("PASS", "INCONCLUSIVE")
