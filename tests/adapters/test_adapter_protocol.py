"""Objects that speak the contract, copies of them in another dtype, and adapters of third parties."""

import dataclasses
import sys
import warnings
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn
from torch.distributions import constraints

from harness.adapters import NotAModel, adapt
from harness.adapters.casting import holds_floats, moved, must_move
from harness.model import Model

CPU = torch.device("cpu")


class Shifted:
    """N(loc, 1), the smallest model with a fit and a divergence."""

    support = constraints.real
    event_shape = ()

    def __init__(self, loc):
        self.loc = torch.as_tensor(loc)

    def sample(self, n, *, generator):
        return self.loc + torch.randn(n, generator=generator, dtype=self.loc.dtype)

    def log_prob(self, x):
        return torch.distributions.Normal(self.loc, 1.0).log_prob(x)

    def kl(self, other):
        return (self.loc - other.loc) ** 2 / 2

    def fit(self, x):
        self.loc = x.mean()
        return self


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(2))
        self.register_buffer("mean", torch.zeros(2))
        self.scale = torch.ones(2)

    def sample(self, n, *, generator):
        return (self.loc + self.scale * torch.randn(n, 2, generator=generator, dtype=self.loc.dtype)).detach()


def test_the_model_has_the_methods_support_and_event_shape_of_the_object():
    model = adapt(Shifted(0.0))
    assert set(model.methods) == {"sample", "log_prob", "kl", "fit"}
    assert model.support is constraints.real
    assert model.event_shape == ()
    assert model.unfit == {}


def test_a_divergence_hands_on_the_object_behind_the_other_model():
    assert adapt(Shifted(0.0)).kl(adapt(Shifted(2.0))) == 2.0
    assert adapt(Shifted(0.0)).kl(Shifted(2.0)) == 2.0


def test_fit_returns_a_model_and_leaves_the_examined_one_alone():
    thing = Shifted(0.0)
    fitted = adapt(thing, "shifted").fit(torch.tensor([1.0, 3.0]))
    assert isinstance(fitted, Model)
    assert fitted.target.loc == 2.0
    assert thing.loc == 0.0


def test_a_fit_that_returns_nothing_is_passed_on_for_a_verdict():
    class Forgetful(Shifted):
        def fit(self, x): ...

    assert adapt(Forgetful(0.0)).fit(torch.zeros(3)) is None


def test_a_cast_changes_a_copy():
    thing = Shifted(0.5)
    wide = adapt(thing).cast(torch.float64)
    draws = wide.sample(3, generator=torch.Generator().manual_seed(0))
    assert draws.dtype == torch.float64
    assert thing.loc.dtype == torch.float32


def test_a_module_is_cast_with_parameters_buffers_and_plain_tensors():
    module = Module()
    wide = adapt(module, dtype=torch.float64)
    assert {tensor.dtype for tensor in (wide.target.loc, wide.target.mean, wide.target.scale)} == {torch.float64}
    assert isinstance(wide.target.loc, nn.Parameter)
    assert module.loc.dtype == torch.float32
    assert wide.sample(3, generator=torch.Generator()).dtype == torch.float64


def test_a_buffer_of_a_contract_name_is_named_as_a_misfit():
    assert "mean is a Tensor" in adapt(Module()).unfit["mean"]


def test_an_object_without_floats_has_no_cast():
    class Coin:
        def sample(self, n, *, generator):
            return torch.randint(2, (n,), generator=generator)

    assert adapt(Coin()).cast is None


def test_a_sampler_of_the_wrong_signature_is_refused_with_the_reason():
    class Old:
        def sample(self, k): ...

    with pytest.raises(NotAModel, match=r"sample\(k\) cannot be called as sample\(n, \*, generator\)"):
        adapt(Old())


def test_a_misfit_beside_a_capability_is_kept_as_the_reason_of_its_absence():
    class Half(Shifted):
        def log_prob(self, x, context): ...

    model = adapt(Half(0.0))
    assert not model.can("log_prob")
    assert "log_prob(x, context) cannot be called as log_prob(x)" in model.unfit["log_prob"]


@pytest.mark.parametrize(
    ("thing", "fix"),
    [(Shifted, "give an instance"), (lambda: Shifted(0.0), "is a function"), (3, "is no model"), (None, "is no model")],
)
def test_what_is_no_model_is_refused_with_a_line_that_names_the_fix(thing, fix):
    with pytest.raises(NotAModel, match=fix) as refusal:
        adapt(thing)
    assert "\n" not in str(refusal.value)


def test_an_object_that_answers_everything_is_a_model_whose_answers_get_the_verdict():
    model = adapt(MagicMock())
    assert model.support is None
    assert model.event_shape is None
    assert not isinstance(model.sample(3, generator=torch.Generator()), torch.Tensor)


def test_attributes_that_raise_do_not_stop_the_adapter():
    class Odd(Shifted):
        @property
        def support(self):
            raise ZeroDivisionError

        def event_shape(self):
            raise ZeroDivisionError

    model = adapt(Odd(0.0))
    assert model.support is None
    assert model.event_shape is None


# Copies in another dtype.


@dataclasses.dataclass(frozen=True)
class Frozen:
    weights: tuple
    nested: dict


class Slotted:
    __slots__ = ("loc",)


def test_tensors_are_found_and_cast_however_deep_they_lie():
    slotted = Slotted()
    slotted.loc = torch.zeros(1)
    thing = Frozen((torch.zeros(1), 1), {"a": [slotted, torch.arange(2)], "self": None})
    thing.nested["self"] = thing
    wide = moved(thing, CPU, torch.float64)
    assert wide.weights[0].dtype == wide.nested["a"][0].loc.dtype == torch.float64
    assert wide.nested["a"][1].dtype == torch.int64
    assert wide.nested["self"] is wide
    assert thing.weights[0].dtype == torch.float32
    assert must_move(thing, CPU, torch.float64)
    assert not must_move(wide, CPU, torch.float64)


def test_a_tensor_that_was_computed_can_be_copied_too():
    leaf = torch.ones((), requires_grad=True)
    assert moved({"scale": leaf * 2, "leaf": leaf}, CPU, torch.float64)["leaf"].requires_grad


def test_shared_tensors_stay_shared():
    loc = torch.zeros(2)
    first, second = moved([loc, loc], CPU, torch.float64)
    assert first is second


def test_an_object_that_cannot_be_copied_is_refused_with_the_reason():
    with pytest.raises(NotAModel, match=r"copy\.deepcopy fails"):
        moved({"lock": sys._getframe(), "x": torch.zeros(1)}, CPU, torch.float64)


def test_a_string_holds_no_floats():
    assert not holds_floats(["text", 1.0, torch.arange(3)])


# Third parties' adapters: real installed packages, made of a module and its metadata.


def installed(folder, monkeypatch, name, code, target="adapt"):
    """A distribution in `folder` with an adapter as an entry point."""
    (folder / f"{name}.py").write_text(code)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[harness.adapters]\n{name} = {name}:{target}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)


KNOWS_STRINGS = """
from harness.model import Model

def adapt(thing, name, device, dtype):
    return Model(name, {"sample": lambda n, *, generator: thing}) if isinstance(thing, str) else None
"""


def test_an_installed_adapter_is_found_by_its_entry_point(tmp_path, monkeypatch):
    with pytest.raises(NotAModel):
        adapt("a string")
    installed(tmp_path, monkeypatch, "knows_strings", KNOWS_STRINGS)
    assert adapt("a string").sample(1, generator=None) == "a string"
    assert adapt(Shifted(0.0)).can("log_prob")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def adapt(thing, name, device, dtype): raise KeyError(name)", "KeyError"),
        ("def adapt(thing): return None", "TypeError"),
        ("def adapt(*asked): return 'a model'", "returned a str"),
        ("nothing_here = 1", "AttributeError"),
    ],
)
def test_a_broken_adapter_costs_one_line_and_not_the_run(tmp_path, monkeypatch, code, reason):
    installed(tmp_path, monkeypatch, "broken_adapter", code)
    with pytest.warns(UserWarning, match=reason) as caught:
        assert adapt(Shifted(0.0)).can("sample")
    (line,) = (str(warning.message) for warning in caught)
    assert line.startswith("adapter 'broken_adapter' of broken_adapter was passed over")
    assert "\n" not in line


def test_an_adapter_may_refuse_what_it_knows(tmp_path, monkeypatch):
    code = "from harness.model import NotAModel\ndef adapt(*asked): raise NotAModel('train it first')"
    installed(tmp_path, monkeypatch, "refusing_adapter", code)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotAModel, match="train it first"):
            adapt(Shifted(0.0))
