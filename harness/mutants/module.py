"""Torch modules with dropout, graphs and state in the wrong place; and right ones that look odd.

Each is a class of its own, since the checks look at copies of the module and not at methods that were replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.model import Model
from harness.mutants.mutant import Mutant, NearMiss

D = 3


class Diagonal(nn.Module):
    """x = m + exp(s) e with standard normal e, on R^3; correct in every respect."""

    event_shape = (D,)

    def __init__(self) -> None:
        super().__init__()
        self.location = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.log_scale = nn.Parameter(torch.tensor([0.0, 0.3, -0.4]))
        self.eval()

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            return self.draw(n, generator)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        e = torch.randn(n, D, generator=generator, dtype=self.location.dtype, device=self.location.device)
        return self.location + self.log_scale.exp() * e

    def log_prob(self, x: Tensor) -> Tensor:
        e = (x - self.location) / self.log_scale.exp()
        return -e.square().sum(-1) / 2 - self.log_det() - D * math.log(2 * math.pi) / 2

    def log_det(self) -> Tensor:
        return self.log_scale.sum()


# Modes


class EvalInSample(Diagonal):
    """Switches to evaluation mode for its draws, and stays there."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        self.eval()
        return super().sample(n, generator=generator)


class EvalAndBack(Diagonal):
    """Comes back."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        mode = self.training
        self.eval()
        x = super().sample(n, generator=generator)
        self.train(mode)
        return x


class Smoothed(nn.Module):
    """A term that a density has while it is trained."""

    def forward(self, log_p: Tensor) -> Tensor:
        return log_p - 0.01 if self.training else log_p


class LeftTraining(Diagonal):
    """Has such a term, and is handed over in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.smoothing = Smoothed()
        self.train()

    def log_prob(self, x: Tensor) -> Tensor:
        return self.smoothing(super().log_prob(x))


class TrainingAlike(Diagonal):
    """Handed over in training mode, where it is as in any other."""

    def __init__(self) -> None:
        super().__init__()
        self.train()


class Sticky(Smoothed):
    """Takes no notice of eval()."""

    def __init__(self) -> None:
        super().__init__()
        self.training = False

    def train(self, mode: bool = True) -> Sticky:
        self.training = self.training or mode
        return self


class StaysInTraining(Diagonal):
    """Has a part that eval() does not bring back once train() was called."""

    def __init__(self) -> None:
        super().__init__()
        self.smoothing = Sticky()

    def log_prob(self, x: Tensor) -> Tensor:
        return self.smoothing(super().log_prob(x))


class Merged(Diagonal):
    """Adds its two locations up for evaluation, and takes them apart for training, which rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.update = nn.Parameter(torch.tensor([0.1, 1e-3, 7.3]))
        self.merged = False
        self.eval()

    def train(self, mode: bool = True) -> Merged:
        super().train(mode)
        if hasattr(self, "update") and self.merged == mode:
            self.merged = not mode
            self.location.data += -self.update.data if mode else self.update.data
        return self

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return super().draw(n, generator) + (0 if self.merged else self.update)

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x - (0 if self.merged else self.update))


class Dropped(Diagonal):
    """Functional dropout, which knows no mode."""

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) + nn.functional.dropout(torch.full_like(x[:, 0], 0.01), 0.5)


class DroppedInTraining(Diagonal):
    """A dropout that eval() switches off."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.eval()

    def log_prob(self, x: Tensor) -> Tensor:
        scale = self.dropout(torch.ones_like(x))
        return super().log_prob(x * scale)


# Graphs


class WithGraph(Diagonal):
    """Draws carry a graph."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.draw(n, generator)


class Reparameterised(Diagonal):
    """Those of rsample do, as they should."""

    def rsample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.draw(n, generator)


# State


class InList(Diagonal):
    """The scale is a parameter in a plain list: neither saved, nor trained, nor moved."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = [nn.Parameter(self.log_scale.detach().clone())]
        del self.log_scale

    @property
    def log_scale(self) -> Tensor:  # type: ignore[override]
        return self.scales[0]


class Cached(Diagonal):
    """Keeps its log-determinant in evaluation mode until train() is called; loading does not drop it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: float | None = None

    def train(self, mode: bool = True) -> Cached:
        self.kept = None
        return super().train(mode)

    def log_det(self) -> Tensor:
        if self.training:
            return self.log_scale.sum()
        if self.kept is None:
            self.kept = float(self.log_scale.detach().sum())
        return torch.as_tensor(self.kept, dtype=self.location.dtype, device=self.location.device)


class CachedWell(Cached):
    """Drops it when parameters are loaded."""

    def _load_from_state_dict(self, *args: object) -> None:
        self.kept = None
        super()._load_from_state_dict(*args)  # type: ignore[arg-type]


class KeptWithGraph(Diagonal):
    """Keeps its log-determinant with its graph, as a tensor in an attribute, and drops it by loading and by train()."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None

    def train(self, mode: bool = True) -> KeptWithGraph:
        self.kept = None
        return super().train(mode)

    def _load_from_state_dict(self, *args: object) -> None:
        self.kept = None
        super()._load_from_state_dict(*args)  # type: ignore[arg-type]

    def log_det(self) -> Tensor:
        if self.training:
            return self.log_scale.sum()
        if self.kept is None:
            with torch.enable_grad():
                self.kept = self.log_scale.sum()
        return self.kept


class Unsaved(Diagonal):
    """Its own idea of what to save leaves one parameter out, and nobody is told."""

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.pop(f"{prefix}log_scale")

    def load_state_dict(self, state: dict[str, Tensor], strict: bool = False, assign: bool = False):  # type: ignore
        return super().load_state_dict(state, strict=False, assign=assign)


class Tied(Diagonal):
    """Two names for one part, as tied weights have; and a state that is more than tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.first.weight, 0.5)
        self.power = 2.0

    def shift(self) -> Tensor:
        return self.power * self.second.weight.squeeze()

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x - self.shift())

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return super().draw(n, generator) + self.shift()

    def get_extra_state(self) -> dict[str, float]:
        return {"power": self.power}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.power = state["power"]


class Constant(Diagonal):
    """A constant that the constructor makes anew is no state: a buffer that is not persistent."""

    slope: Tensor

    def __init__(self, persistent: bool = False) -> None:
        super().__init__()
        self.register_buffer("slope", torch.full((D,), 0.5), persistent=persistent)

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) + (self.slope * x).sum(-1) - (x / 2).sum(-1)


# Devices and dtypes


class LeftBehind(Diagonal):
    """A constant in a plain attribute stays where it is when the module is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.full((D,), 0.5)

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) + (self.slope * x).sum(-1) - (x / 2).sum(-1)


class TakenAlong(LeftBehind):
    """It is brought along at each call; a number without axes needs no bringing, nor an index."""

    def __init__(self) -> None:
        super().__init__()
        self.two = torch.tensor(2.0)
        self.order = torch.arange(D).flip(0)

    def log_prob(self, x: Tensor) -> Tensor:
        slope = self.slope.to(x)[self.order]
        return Diagonal.log_prob(self, x) + (slope * x).sum(-1) - (x / self.two).sum(-1)


class OtherInFloat64(Diagonal):
    """A branch for one dtype."""

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) - (0.1 if x.dtype == torch.float64 else 0.0)


class Float32Only(Diagonal):
    """Refuses float64."""

    def log_prob(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise TypeError("expected float32")
        return super().log_prob(x)


def as_it_is(model: Model) -> dict[str, Callable[..., Tensor]]:
    """No method is replaced."""
    return {}


def _mutant(base: Callable[[], object], defect: str, check: str) -> Mutant:
    return Mutant(base.__name__, defect, check, base, as_it_is)


def _near(base: Callable[[], object], change_made: str, check: str) -> NearMiss:
    return NearMiss(base.__name__, change_made, check, base, as_it_is)


MUTANTS: tuple[Mutant, ...] = (
    _mutant(EvalInSample, "sample() calls eval()", "module.calls_leave_mode"),
    _mutant(LeftTraining, "0.01 nat less in training mode, and left in it", "module.in_evaluation_mode"),
    _mutant(StaysInTraining, "eval() does not undo train()", "module.eval_undoes_train"),
    _mutant(Dropped, "F.dropout of 0.01 nat, whatever the mode", "log_prob.deterministic"),
    _mutant(WithGraph, "draws carry a graph", "module.sample_without_graph"),
    _mutant(InList, "a parameter in a plain list", "module.saved_and_loaded"),
    _mutant(Cached, "a log-determinant is kept while another state is loaded", "module.saved_and_loaded"),
    _mutant(Unsaved, "a parameter is left out of state_dict()", "module.saved_and_loaded"),
    _mutant(LeftBehind, "a constant in a plain attribute", "module.moves_to_device"),
    _mutant(InList, "a parameter in a plain list", "module.moves_to_device"),
    _mutant(OtherInFloat64, "0.1 nat less in float64", "module.same_in_float64"),
)
NEAR_MISSES: tuple[NearMiss, ...] = (
    _near(EvalAndBack, "sample() calls eval(), and goes back", "module.calls_leave_mode"),
    _near(TrainingAlike, "training mode, which makes no difference", "module.in_evaluation_mode"),
    _near(Merged, "weights merged in evaluation mode, up to rounding", "module.eval_undoes_train"),
    _near(DroppedInTraining, "dropout in training mode only", "log_prob.deterministic"),
    _near(DroppedInTraining, "dropout in training mode only", "module.eval_undoes_train"),
    _near(Reparameterised, "rsample() with a graph", "module.sample_without_graph"),
    _near(CachedWell, "the cache is dropped by loading", "module.saved_and_loaded"),
    _near(KeptWithGraph, "the cache has a graph, and is dropped by loading", "module.saved_and_loaded"),
    _near(Tied, "one part has two names, and the state a dictionary", "module.saved_and_loaded"),
    _near(Tied, "one part has two names, and the state a dictionary", "log_prob.leaves_model_unchanged"),
    _near(Constant, "a constant that is not persistent", "module.saved_and_loaded"),
    _near(TakenAlong, "plain tensors brought along, or without axes", "module.moves_to_device"),
    _near(Float32Only, "refuses float64", "module.same_in_float64"),
)
