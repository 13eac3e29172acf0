"""Figures of cost: units, batches that shrink for slow models, memory that is seen, parameters that are counted."""

import time

import pytest
import torch

from harness.adapters import adapt
from harness.compare import cost


class Plain:
    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def sample(self, n, *, generator):
        return torch.randn(n, 2, generator=generator)

    def log_prob(self, x):
        time.sleep(self.seconds * len(x))
        return -x.square().sum(-1)


def batch(n: int, i: int) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(i))


def figures(model):
    return cost.costs(adapt(model), batch, seed=0, alive=lambda what: None)


def test_every_figure_has_its_batch_and_threads():
    seen = figures(Plain())
    for of in ("seconds_per_log_prob", "seconds_per_sample"):
        figure = seen[of]
        assert figure["value"] > 0
        assert (figure["batch"], figure["threads"]) == (cost.BATCH, 1)
        low, high = figure["quartiles"]
        assert low <= figure["value"] <= high
    assert seen["peak_memory_bytes"]["of"] == "log_prob"


def test_a_slow_model_is_timed_in_smaller_batches():
    figure = figures(Plain(seconds=4e-4))["seconds_per_log_prob"]
    assert figure["batch"] == 100  # 1000 rows take 0.4 s, more than 0.25
    assert figure["value"] >= 4e-4  # it sleeps that long


def test_a_timed_answer_must_be_numbers():
    class Wrong(Plain):
        def log_prob(self, x):
            return x.sum(-1) * torch.nan

    with pytest.raises(FloatingPointError, match="no tensor of numbers"):
        figures(Wrong())


def test_memory_of_log_prob_is_seen():
    class Hungry(Plain):
        def log_prob(self, x):
            return (x[:, :1] * torch.ones(20_000)).sum(-1)  # 1000 x 20,000 float32: 80 MB

    assert cost._memory(adapt(Hungry()), batch)["value"] > 40e6  # half of it may have been free before


def test_parameters_are_counted_by_the_models_own_account():
    class Counted(Plain):
        def parameters(self):
            return torch.zeros(7)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def log_prob(self, x):
            return x.sum(-1)

    assert cost.parameters(adapt(Counted())) == 7
    assert cost.parameters(adapt(Module())) == 8
    assert cost.parameters(adapt(Plain())) is None


def test_a_curve_has_a_point_for_each_n_and_ends_when_calls_get_long():
    quick = cost.growth_in_n(adapt(Plain()), batch, lambda what: None)
    assert [point["n"] for point in quick if point["of"] == "log_prob"] == list(cost.SIZES)
    slow = cost.growth_in_n(adapt(Plain(seconds=6e-3)), batch, lambda what: None)
    # 100 rows take 0.6 s, more than 0.5: the curve ends there.
    assert [point["n"] for point in slow if point["of"] == "log_prob"] == [1, 10, 100]


def test_a_model_that_looks_its_answers_up_is_found_out():
    class Remembering(Plain):
        def __init__(self):
            super().__init__(seconds=2e-6)
            self.known = {}

        def log_prob(self, x):
            key = x.numpy().tobytes()
            if key not in self.known:
                self.known[key] = super().log_prob(x)  # 2 ms for 1000 rows
            return self.known[key]

    assert figures(Remembering())["seconds_per_log_prob"]["cached"]
    assert not figures(Plain(seconds=2e-6))["seconds_per_log_prob"]["cached"]
