"""What the pilot draws tell about a model: shape, dtype, which coordinates are discrete, where the mass is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

from harness.chart import Chart, fit_chart
from harness.errors import out_of_memory
from harness.model import Model

MAX_ALPHABET = 4096
FEW_VALUES = 64
HARD_EDGE = 0.005


@dataclass(frozen=True)
class Profile:
    """Facts that checks rely on. They steer what is tested, never what is true: a wrong guess costs power only."""

    chart: Chart
    pilot: Shaped[Tensor, " n *event"]  # not used again as evidence
    alphabets: tuple[Float64[Tensor, " _values"] | None, ...]  # per coordinate: sorted values of a discrete one

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self.chart.size

    @cached_property
    def letters(self) -> Float64[Tensor, "m values"]:
        """The alphabets of the discrete coordinates, the shorter ones continued by values that never occur."""
        alphabets = [alphabet for alphabet in self.alphabets if alphabet is not None]
        longest = max(len(alphabet) for alphabet in alphabets)
        beyond = torch.arange(1, longest + 1, dtype=torch.float64, device=alphabets[0].device) * 1e12
        return torch.stack([torch.cat([a, a[-1].abs() + beyond[: longest - len(a)]]) for a in alphabets])

    @property
    def kind(self) -> str:
        """'discrete', 'continuous' or 'mixed'."""
        discrete = self.chart.discrete
        return "discrete" if bool(discrete.all()) else "mixed" if bool(discrete.any()) else "continuous"


def profile(model: Model, pilot: Shaped[Tensor, " n *event"]) -> Profile:
    """The profile of a model from pilot draws."""
    discrete = discrete_coordinates(model, pilot)
    chart = fit_chart(pilot, model.support, discrete)
    flat = pilot.reshape(len(pilot), -1).to(torch.float64)
    alphabets = tuple(
        _within_support(_alphabet(flat[:, j], model, pilot.dtype), model, pilot.dtype) if flag else None
        for j, flag in enumerate(chart.discrete.tolist())
    )
    return Profile(chart, pilot, alphabets)


def discrete_coordinates(model: Model, x: Shaped[Tensor, " n *event"]) -> Bool[Tensor, " d"]:
    """Which coordinates live on a lattice.

    A declared support decides. Else a coordinate is discrete when its dtype is, when all its values are integers that
    the dtype could have told from fractions, or when it takes few values and the density vanishes beside them.
    """
    flat = x.reshape(len(x), -1)
    if not x.is_floating_point():
        return torch.ones(flat.shape[1], dtype=torch.bool, device=x.device)
    if model.support is not None and not _mixed(model):
        return torch.full((flat.shape[1],), bool(model.support.is_discrete), device=x.device)
    resolvable = flat.abs().amax(0) * torch.finfo(x.dtype).eps < 1 / 16
    integers = (flat == flat.round()).all(0) & resolvable
    few = torch.tensor([_few(torch.unique(column), len(column)) for column in flat.T], device=x.device)
    return integers | (few & _vanishes_beside(model, x, few & ~integers))


def _few(values: Tensor, n: int) -> bool:
    """Few values, or evenly spaced ones, far fewer than the draws: levels of a quantised picture, say."""
    if len(values) <= FEW_VALUES:
        return True
    steps = values.double().diff()
    even = bool((steps - steps.min() * (steps / steps.min()).round()).abs().max() < 1e-3 * steps.min())
    return even and len(values) <= min(MAX_ALPHABET, n // 8)


def _mixed(model: Model) -> bool:
    parts = getattr(model.support, "cseq", ())
    return len({part.is_discrete for part in parts}) > 1


def _vanishes_beside(model: Model, x: Tensor, candidates: Tensor) -> Tensor:
    """(d,) bool: is the density 0 a little beside the draws, moving one candidate coordinate at a time?"""
    flat = x[:16].reshape(min(16, len(x)), -1)
    answer = torch.ones_like(candidates)
    if not model.can("log_prob"):
        return answer
    for j in candidates.nonzero().flatten().tolist():
        moved = flat.clone()
        moved[:, j] += 0.37 * (moved[:, j].abs().amax() + torch.finfo(x.dtype).tiny) * 1e-2
        try:
            answer[j] = bool((model.log_prob(moved.reshape(-1, *x.shape[1:])) == -torch.inf).any())
        except Exception as refusal:  # of such values, which says that they are impossible
            if out_of_memory(refusal):
                raise
            continue
    return answer


def _alphabet(column: Float64[Tensor, " n"], model: Model, dtype: torch.dtype) -> Float64[Tensor, " values"]:
    """Values that a discrete coordinate may take: those seen, and for integers those between.

    A little beyond is added where the support is declared and allows it, or where the frequencies fade out, as those of
    a Poisson do; at a hard edge, as of a table or a pixel, what an undeclared density says beyond it means nothing.
    """
    values = torch.unique(column)
    values = values[values.isfinite()]
    if not len(values):
        return torch.zeros(1, dtype=torch.float64, device=column.device)
    if not bool((values == values.round()).all()):
        return values[:MAX_ALPHABET]
    low, high = int(values[0]), int(values[-1])
    pad = max(1, (high - low) // 4)
    if high - low + 2 * pad >= MAX_ALPHABET:
        return values[:MAX_ALPHABET]
    below, above = low - pad, high + pad
    if model.support is None:
        below = low if _hard(column, values[0]) else below
        above = high if _hard(column, values[-1]) else above
    if not dtype.is_floating_point:
        limits = (0, 1) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        below, above = max(below, limits[0]), min(above, limits[1])
    return torch.arange(below, above + 1, dtype=torch.float64, device=column.device)


def _hard(column: Tensor, edge: Tensor) -> bool:
    """Is the outermost value too frequent for a tail that fades out?"""
    return float((column == edge).double().mean()) > HARD_EDGE


def _within_support(alphabet: Tensor, model: Model, dtype: torch.dtype) -> Tensor:
    """The values that the declared support allows, where it speaks of single coordinates."""
    if model.support is None or getattr(model.support, "event_dim", 0) > 0:
        return alphabet
    try:
        allowed = model.support.check(alphabet.to(dtype))
    except Exception as refusal:  # by a support that speaks of whole events only, though it says otherwise
        if out_of_memory(refusal):
            raise
        return alphabet
    return alphabet[allowed] if allowed.shape == alphabet.shape and bool(allowed.any()) else alphabet
