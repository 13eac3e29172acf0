"""The laws of torch modules: planted defects are found, near misses and correct models pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine import changed, examined, record
from harness.checks import module as laws
from harness.checks.elsewhere import Elsewhere, LeftBehindError, asked_there, moved_away
from harness.evidence import Verdict
from harness.mutants import module as zoo

IDS = [check.id for check in laws.CHECKS]


@pytest.mark.parametrize("mutant", zoo.MUTANTS, ids=lambda mutant: f"{mutant.name}-{mutant.check}")
def test_each_planted_defect_is_found(mutant):
    assert examined(changed(mutant), mutant.check)[mutant.check].verdict is Verdict.FAIL


@pytest.mark.parametrize("near", zoo.NEAR_MISSES, ids=lambda near: f"{near.name}-{near.check}")
def test_each_near_miss_passes(near):
    expected = Verdict.SKIP if near.name == "Float32Only" else Verdict.PASS
    assert examined(changed(near), near.check)[near.check].verdict is expected


def test_each_law_has_a_mutant_and_a_near_miss():
    assert set(IDS) <= {mutant.check for mutant in zoo.MUTANTS} & {near.check for near in zoo.NEAR_MISSES}


def verdicts(model: object) -> dict[str, Verdict]:
    records = examined(model, "module")
    return {id: records[id].verdict for id in IDS}


def test_a_correct_module_passes_all_of_them():
    assert set(verdicts(zoo.Diagonal()).values()) == {Verdict.PASS}


def test_a_model_without_modules_is_none_of_their_business():
    assert set(verdicts(torch.distributions.Normal(0.0, 1.0)).values()) == {Verdict.SKIP}


class Holder:
    """No module, but has one."""

    def __init__(self, module: zoo.Diagonal):
        self.inner = {"law": [module]}

    def log_prob(self, x):
        return self.inner["law"][0].log_prob(x)

    def sample(self, n, *, generator):
        return self.inner["law"][0].sample(n, generator=generator)


def test_a_module_inside_of_an_object_is_found():
    found = verdicts(Holder(zoo.Diagonal()))
    assert found["module.saved_and_loaded"] is Verdict.PASS
    assert found["module.moves_to_device"] is Verdict.SKIP  # the object has no to(device)
    assert verdicts(Holder(zoo.InList()))["module.saved_and_loaded"] is Verdict.FAIL


def test_a_plain_tensor_that_may_be_a_constant_leaves_saving_undecided():
    seen = record(zoo.LeftBehind(), "module.saved_and_loaded")
    assert seen.verdict is Verdict.INCONCLUSIVE
    assert "slope: constant or state?" in seen.message


class Hides(zoo.Diagonal):
    """Has a submodule in a plain list, which eval() does not reach."""

    def __init__(self):
        super().__init__()
        self.hidden = [zoo.Smoothed()]

    def log_prob(self, x):
        return self.hidden[0](super().log_prob(x))


def test_a_part_that_eval_does_not_reach_is_found():
    assert examined(Hides().eval(), "module")["module.in_evaluation_mode"].verdict is Verdict.FAIL


@pytest.mark.parametrize("mode", [True, False])
def test_the_examination_leaves_mode_state_and_gradients_as_they_were(mode):
    model = zoo.DroppedInTraining().train(mode)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    examined(model, "module")
    assert {module.training for module in model.modules()} == {mode}
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


# The device that every machine has


def test_numbers_elsewhere_are_those_of_the_cpu_and_say_that_they_are_elsewhere():
    x = torch.linspace(-2, 2, 5)

    def work(y):
        assert y.device.type == "meta"
        z = torch.zeros(5, device=y.device) + y  # a factory
        z[1:3] = torch.tensor([3.0, 4.0], device=y.device)  # a literal, and a change in place
        if bool((z > 3.5).any()):  # a look at values
            z = z[z > -1.5] * 2
        return torch.cat([z, torch.full((1,), float(z.tolist()[0]), device=y.device)])

    assert asked_there(work, x).tolist() == [6.0, 8.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3) * x,
        lambda x: torch.cat([x, torch.ones(1)]),
        lambda x: torch.ones(3)[x.argsort()],  # a table left behind, and indices elsewhere
        lambda x: x @ torch.ones(3),
        lambda x: torch.ones(3),  # an answer from here
    ],
)
def test_what_cuda_would_refuse_is_refused(mixed):
    with pytest.raises(LeftBehindError):
        asked_there(mixed, torch.arange(3.0))


@pytest.mark.parametrize(
    ("allowed", "value"),
    [
        (lambda x: x * torch.tensor(2.0), [0.0, 2.0, 4.0]),
        (lambda x: x[torch.tensor([2, 0])], [2.0, 0.0]),
        (lambda x: x + torch.ones(3).to(x), [1.0, 2.0, 3.0]),
        (lambda x: x.cpu().add(torch.ones(3)).to(x.device), [1.0, 2.0, 3.0]),
        (lambda x: x.clone().copy_(torch.ones(3)), [1.0, 1.0, 1.0]),
    ],
)
def test_what_cuda_would_allow_is_allowed(allowed, value):
    assert asked_there(allowed, torch.arange(3.0)).tolist() == value


def test_layers_of_torch_go_elsewhere():
    source = torch.Generator().manual_seed(0)
    layer = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))
    away = moved_away(layer, layer.parameters())
    x = torch.randn(3, 4, generator=source)
    assert isinstance(next(away.parameters()).data, Elsewhere)
    assert torch.equal(asked_there(away, x), layer(x))
