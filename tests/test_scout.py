"""Densities that cannot draw: the one event that fits is found, and where nothing tells, one message names the fix."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Beta, Dirichlet, Gamma, Normal, OneHotCategorical, Poisson, constraints

from harness import check_model
from harness.adapters import adapt
from harness.event import event_of, event_shape
from harness.scout import LostError, points

P4 = torch.tensor([0.1, 0.2, 0.3, 0.4])
P5 = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
LOG_2PI = math.log(2 * math.pi)


class Density:
    """A log_prob, and what is declared besides."""

    def __init__(self, log_prob: Callable[[Tensor], Tensor], **declared: object):
        self.formula = log_prob
        for name, value in declared.items():
            setattr(self, name, value)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.formula(x)


class Net(nn.Module):
    """x -> L x + b is standard normal, with a unit lower triangular L: it takes three numbers and no other count."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.linear.weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-0.3, 0.2, 1.0]])
        self.linear.bias.data = torch.tensor([1.0, -2.0, 0.5])

    def log_prob(self, x: Tensor) -> Tensor:
        return -0.5 * self.linear(x).square().sum(-1) - 1.5 * LOG_2PI


def ising(values: tuple[float, float], d: int) -> Callable[[Tensor], Tensor]:
    """exp(0.3 sum of products of neighbours on a line), over two values, normalised by enumeration; 0 elsewhere."""

    def energy(x: Tensor) -> Tensor:
        spin = 2 * (x == values[1]).double() - 1
        return 0.3 * (spin[..., 1:] * spin[..., :-1]).sum(-1)

    states = torch.cartesian_prod(*[torch.tensor(values)] * d)
    log_z = torch.logsumexp(energy(states), 0)

    def log_prob(x: Tensor) -> Tensor:
        inside = ((x == values[0]) | (x == values[1])).all(-1) & (x.shape[-1] == d)
        return torch.where(inside, energy(x) - log_z, -math.inf)

    return log_prob


def exactly(d: int, log_prob: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """It refuses events of another length."""
    return lambda x: log_prob(x.reshape(len(x), d) if x.shape[-1] == d else x[:, d + 10**3])


def conditional_pair(x: Tensor) -> Tensor:
    return Normal(0.0, 1.0).log_prob(x[:, 0]) + Normal(x[:, 0], 0.5).log_prob(x[:, 1])


FOUND: dict[str, tuple[tuple[int, ...], Callable[[], object]]] = {
    "a number": ((), lambda: Density(Normal(0.0, 1.0).log_prob)),
    "three parameters": ((3,), lambda: Density(lambda x: Normal(torch.zeros(3), 1.0).log_prob(x).sum(-1))),
    "a network": ((3,), Net),
    "two columns": ((2,), lambda: Density(conditional_pair)),
    "declared": ((5,), lambda: Density(lambda x: Normal(0.0, 1.0).log_prob(x).sum(-1), event_shape=(5,))),
    "spins 0 and 1": ((9,), lambda: Density(exactly(9, ising((0.0, 1.0), 9)))),
    "spins -1 and 1": ((4,), lambda: Density(exactly(4, ising((-1.0, 1.0), 4)))),
    "indices": ((), lambda: Density(lambda x: P4.log()[x], support=constraints.integer_interval(0, 3))),
    "bits that are validated": ((5,), lambda: Density(lambda x: Bernoulli(P5).log_prob(x).sum(-1))),
    "one hot": ((4,), lambda: Density(OneHotCategorical(P4).log_prob)),
    "the unit interval": ((), lambda: Density(Beta(2.0, 3.0).log_prob)),
    "positive numbers": ((), lambda: Density(Gamma(2.0, 1.0).log_prob)),
    "the simplex": (
        (3,),
        lambda: Density(Dirichlet(torch.tensor([1.0, 2.0, 3.0])).log_prob, support=constraints.simplex),
    ),
}
MASS = ("density.integrates_to_one", "density.sums_to_one")


@pytest.mark.parametrize("name", FOUND)
def test_the_event_is_found_and_its_mass_is_not_denied(name: str) -> None:
    shape, model = FOUND[name]
    assert event_shape(adapt(model())) == shape
    report = check_model(model(), effort="quick", only=[*MASS, "log_prob.well_formed"])
    verdicts = {record.check: f"{record.verdict}" for record in report.records}
    assert verdicts["log_prob.well_formed"] == "PASS"
    assert not {"FAIL", "ERROR"} & {verdicts[check] for check in MASS}, report.records
    if name != "declared":  # five dimensions are too many to integrate over
        assert "PASS" in {verdicts[check] for check in MASS}


UNKNOWN: dict[str, tuple[str, Callable[[], object]]] = {
    "any length": ("event_shape", lambda: Density(lambda x: -0.5 * x.square().sum(-1) - LOG_2PI)),
    "any length, normalised": ("event_shape", lambda: Density(lambda x: Normal(0.0, 1.0).log_prob(x).sum(-1))),
    "mean over the last axis": ("event_shape", lambda: Density(lambda x: -x.square().mean(-1))),
    "matrices": ("event_shape", lambda: Density(lambda x: -0.5 * x.square().sum((1, 2)))),
    "a column": (r"answers shape \(67, 1\)", lambda: Density(lambda x: x.sum(-1, keepdim=True))),
    "its own error": ("ZeroDivisionError", lambda: Density(lambda x: x.sum(-1) / 0 + 1 // 0)),
    "another length is declared": (
        "declared event_shape",
        lambda: Density(lambda x: Normal(torch.zeros(3), 1.0).log_prob(x).sum(-1), event_shape=(4,)),
    ),
    "indices, undeclared": ("support", lambda: Density(lambda x: P4.log()[x])),
    "indices made of floats": ("support", lambda: Density(lambda x: P4.log()[x.long()])),
    "an energy beyond its support": (
        "support",
        lambda: Density(lambda x: (x * P5.log() + (1 - x) * (1 - P5).log()).sum(-1)),
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_nothing_tells_is_one_error_that_names_the_fix(name: str) -> None:
    message, model = UNKNOWN[name]
    with pytest.raises(LostError, match=message):
        points(adapt(model()), 0, 256)
    records = check_model(model(), effort="quick").records
    assert [f"{record.verdict}" for record in records if f"{record.verdict}" != "SKIP"] == ["ERROR"]


def test_counts_that_are_validated_are_drawn_as_whole_numbers() -> None:
    x = points(adapt(Density(Poisson(3.0).log_prob)), 0, 1024)
    assert bool((x == x.round()).all())
    assert abs(float(x.mean()) - 3.0) < 5 * (3.0 / 1024) ** 0.5


def test_indices_are_drawn_as_integers_with_their_masses() -> None:
    model = adapt(Density(lambda x: P4.log()[x], support=constraints.integer_interval(0, 3)))
    assert event_of(model).dtype == torch.int64
    x = points(model, 0, 4096)
    assert x.dtype == torch.int64
    assert bool(((x[:, None] == torch.arange(4)).double().mean(0) - P4).abs().max() < 5 * 0.5 / 4096**0.5)


def test_a_model_that_refuses_is_not_asked_for_each_impossible_event() -> None:
    calls = 0

    def log_prob(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return Beta(2.0, 3.0).log_prob(x)

    points(adapt(Density(log_prob)), 0, 4096)
    assert calls < 10_000  # 80 sweeps of 4096 points, of which about half are refused, would be some 300 000


def test_a_support_of_vectors_says_that_a_number_is_no_event():
    class One:
        """An exponential number as a vector of one, which may be asked without its axis too."""

        support = torch.distributions.constraints.independent(torch.distributions.constraints.nonnegative, 1)

        def log_prob(self, x):
            x = x.squeeze(-1) if x.ndim > 1 else x
            return torch.where(x >= 0, -x, -torch.inf)

    assert event_shape(adapt(One())) == (1,)
    One.support = torch.distributions.constraints.nonnegative
    assert event_shape(adapt(One())) == ()
