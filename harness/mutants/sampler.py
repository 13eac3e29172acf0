"""Mutants and near misses of the laws that tie the sampler to the density."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.mutant import Change, Mutant, NearMiss
from harness.mutants.planted import PLANTED, Affine, Lattice, Normal, TwoModes

_CHANGE: dict[str, Change] = {planted.name: planted.change for planted in PLANTED}


def _on_event(edit: Callable[[Tensor, torch.Generator], Tensor]) -> Change:
    """The change that edits whole batches of draws (n, *event)."""

    def change(model: Model) -> dict[str, Callable[..., Tensor]]:
        return {"sample": lambda n, *, generator: edit(model.sample(n, generator=generator), generator)}

    return change


def _never_three(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(x == 3, torch.ones_like(x), x)


def _backwards(x: Tensor, generator: torch.Generator) -> Tensor:
    return x.flip(0)


def _one_ulp(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.nextafter(x, torch.full_like(x, torch.inf))


def _everywhere(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + 0.01 * x.std(0)


def _scaled_by(factor: float) -> Change:
    return _on_event(lambda x, generator: x * factor)


def _shifted_by(shift: float) -> Change:
    return _on_event(lambda x, generator: x + shift)


def _noisy_density(model: Model) -> dict[str, Callable[..., Tensor]]:
    """Rounding of the density: 1e-6 up or down, depending on the event."""
    return {"log_prob": lambda x: model.log_prob(x) + 1e-6 * torch.cos(1e4 * x.to(torch.float64).sum(-1))}


def _die() -> object:
    return torch.distributions.Categorical(torch.tensor([0.3, 0.3, 0.2, 0.1, 0.1]))


def _normal() -> object:
    return torch.distributions.Normal(0.0, 1.0)


FAR = 1e6
"""Where float32 is spaced by 1/16."""


def _far() -> object:
    return torch.distributions.Normal(FAR, 1.0)


def _far_edge() -> object:
    """An exponential law that starts there: its first event has half a cell."""
    affine = torch.distributions.AffineTransform(FAR, 1.0)
    return torch.distributions.TransformedDistribution(torch.distributions.Exponential(1.0), affine)


def _widened_far(x: Tensor, generator: torch.Generator) -> Tensor:
    return FAR + 1.3 * (x - FAR)


def _poisson() -> object:
    return torch.distributions.Poisson(3.0)


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "die.never_three",
        "a value of probability 0.1 never drawn",
        "sampler.region_masses",
        _die,
        _on_event(_never_three),
    ),
    Mutant("normal.shifted", "mean + 0.05 sd", "sampler.region_masses", _normal, _shifted_by(0.05)),
    Mutant("normal.shifted_pit", "mean + 0.05 sd", "sampler.pit_uniform", _normal, _shifted_by(0.05)),
    Mutant("poisson.shifted", "one more than it should be", "sampler.region_masses", _poisson, _shifted_by(1.0)),
    Mutant("density.off", "log-density - 0.05", "density.bridge_mass", lambda: Normal(10, 1.0), _CHANGE["density_off"]),
    Mutant(
        "log_det.sign",
        "log-determinant with the wrong sign",
        "density.bridge_mass",
        lambda: Affine(10, 1.0),
        _CHANGE["log_det_sign"],
    ),
    Mutant(
        "mode.missing",
        "a mode of weight 3 % never drawn",
        "density.bridge_mass",
        lambda: TwoModes(10, 1.0),
        _CHANGE["mode_missing"],
    ),
    Mutant(
        "scale.widened",
        "sd of one coordinate x 1.05",
        "sampler.bridge",
        lambda: Normal(10, 1.0),
        _CHANGE["scale_widened"],
    ),
    Mutant("mass.moved", "1 % of the mass at 5 sd", "sampler.bridge", lambda: Lattice(10), _CHANGE["mass_moved"]),
    Mutant(
        "correlation.ignored",
        "correlation 0.1 of one pair not drawn",
        "sampler.bridge_pairs",
        lambda: Normal(10, 1.0, rho=0.1),
        _CHANGE["correlation_ignored"],
    ),
    Mutant(
        "mean.shifted_everywhere",
        "mean + 0.01 sd in each of 50 coordinates",
        "sampler.adversary",
        lambda: Normal(50, 1.0),
        _on_event(_everywhere),
    ),
    Mutant("scale.widened_stein", "sd x 1.1", "sampler.stein", _normal, _scaled_by(1.1)),
    Mutant("scale.widened_exchange", "sd x 1.2", "sampler.exchangeable", _normal, _scaled_by(1.2)),
    Mutant("far.widened", "sd x 1.3 far from 0", "density.bridge_mass", _far, _on_event(_widened_far)),
    Mutant("far.widened_pit", "sd x 1.3 far from 0", "sampler.pit_uniform", _far, _on_event(_widened_far)),
    Mutant("far.widened_exchange", "sd x 1.3 far from 0", "sampler.exchangeable", _far, _on_event(_widened_far)),
    Mutant("far.widened_edge", "x 1.3 from its edge, far from 0", "sampler.bridge", _far_edge, _on_event(_widened_far)),
    Mutant(
        "lattice.shifted_exchange",
        "one more than it should be",
        "sampler.exchangeable",
        lambda: Lattice(2),
        _shifted_by(1.0),
    ),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("die.backwards", "the batch returned in reverse", "sampler.region_masses", _die, _on_event(_backwards)),
    NearMiss(
        "normal.one_ulp", "draws one unit in the last place up", "sampler.region_masses", _normal, _on_event(_one_ulp)
    ),
    NearMiss(
        "normal.one_ulp_pit", "draws one unit in the last place up", "sampler.pit_uniform", _normal, _on_event(_one_ulp)
    ),
    NearMiss(
        "density.rounded",
        "log-density off by 1e-6 either way",
        "density.bridge_mass",
        lambda: Normal(10, 1.0),
        _noisy_density,
    ),
    NearMiss(
        "density.rounded_bridge",
        "log-density off by 1e-6 either way",
        "sampler.bridge",
        lambda: TwoModes(10, 1.0),
        _noisy_density,
    ),
    NearMiss(
        "pairs.backwards",
        "the batch returned in reverse",
        "sampler.bridge_pairs",
        lambda: Normal(10, 1.0, rho=0.9),
        _on_event(_backwards),
    ),
    NearMiss(
        "adversary.backwards",
        "the batch returned in reverse",
        "sampler.adversary",
        lambda: TwoModes(10, 1e3),
        _on_event(_backwards),
    ),
    NearMiss(
        "normal.one_ulp_stein", "draws one unit in the last place up", "sampler.stein", _normal, _on_event(_one_ulp)
    ),
    NearMiss("far.backwards", "coarse events, reversed", "sampler.bridge", _far, _on_event(_backwards)),
    NearMiss("far.backwards_pit", "coarse events, reversed", "sampler.pit_uniform", _far, _on_event(_backwards)),
    NearMiss("far.backwards_exchange", "coarse events, reversed", "sampler.exchangeable", _far, _on_event(_backwards)),
    NearMiss("far.backwards_stein", "coarse events, reversed", "sampler.stein", _far, _on_event(_backwards)),
    NearMiss("far.backwards_edge", "coarse events, reversed", "sampler.bridge", _far_edge, _on_event(_backwards)),
    NearMiss("far.backwards_edge_pit", "coarse, reversed", "sampler.pit_uniform", _far_edge, _on_event(_backwards)),
    NearMiss(
        "lattice.backwards",
        "the batch returned in reverse",
        "sampler.exchangeable",
        lambda: Lattice(2, rho=0.1),
        _on_event(_backwards),
    ),
)
