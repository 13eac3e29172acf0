r"""Energies, p(x) = exp(-E(x)) / Z: against the sampler without Z, and Z against the energy.

Ratios of the density need no Z: log p(x) - log p(x') = E(x') - E(x). Where the model has a `log_prob` besides, that one
is compared with the sampler, and the energy with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from harness import features
from harness.checks import bridge, density, kernel
from harness.checks.blocks import agree, points
from harness.checks.law import Check, NotApplicable, StatisticalCheck, exact, statistical
from harness.checks.oracle import oracle_of
from harness.checks.rounding import compared
from harness.checks.surface import broken
from harness.checks.twin import twin, twin_draws
from harness.draws import Draws
from harness.evidence import Exact
from harness.model import Model
from harness.statistics.accumulator import Accumulator
from harness.statistics.bernstein import BoundedMean, Sums
from harness.subject import Subject

SOUND = ("energy.well_formed", "sample.finite")
GIBBS = "Gibbs 1902, Elementary Principles in Statistical Mechanics, chapter IV"
ROWS = 256


@exact("energy.well_formed", needs=("energy",), source=GIBBS)
def well_formed(subject: Subject) -> Exact:
    """energy(x) is a floating tensor [n], a number below +inf at every draw, and never NaN or -inf.

    exp(-E) is the density up to a constant: E = +inf says that an event is impossible, -inf that it has all the mass.
    """
    x = subject.pilot[:ROWS]
    with torch.no_grad():
        value = subject.model.energy(x)
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape != x.shape[:1]:
        seen = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"energy() of {tuple(x.shape)} is {seen}, not a floating tensor of shape ({len(x)},)")
    wrong = ~value.isfinite()
    return broken([f"not finite at {int(wrong.sum())} of {len(x)} draws"] if bool(wrong.any()) else [], len(x))


@exact("energy.log_partition", needs=("energy", "log_partition"), blocked_by=("energy.well_formed",), source=GIBBS)
def log_partition(subject: Subject) -> Exact:
    r"""log_partition() = log Z = log int exp(-E(x)) dx, the sum over all states where events are discrete.

    By enumeration or quadrature of exp(-E(x) - log Z), of which the mass is 1; off by e, log Z makes it exp(-e).
    """
    _stated(subject)
    normal = twin(subject, normalised=True)
    law = density.sums_to_one if normal.profile.kind == "discrete" else density.integrates_to_one
    return replace(law.measure(normal), unit="of Z")


def _stated(subject: Subject) -> None:
    """Raises ValueError for a log Z that is no number."""
    value = subject.model.log_partition()
    if not isinstance(value, Tensor) or value.numel() != 1 or value.ndim > 0 or not bool(value.isfinite()):
        seen = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) and value.ndim else repr(value)
        raise ValueError(f"log_partition() is {seen}, not a finite tensor of shape ()")


@exact(
    "energy.consistent_with_log_prob",
    needs=("energy", "log_prob"),
    blocked_by=("energy.well_formed", "energy.log_partition"),
    unit="nat",
    source=GIBBS,
)
def consistent_with_log_prob(subject: Subject) -> Exact:
    """log_prob(x) = -energy(x) - log Z, with the stated log Z, or else with one constant for all x.

    At draws, and at points that mix two draws, wherever the density is positive.
    """
    x = points(subject) if subject.pilot.ndim > 1 else subject.pilot[:ROWS]
    with torch.no_grad():
        x = x[subject.model.log_prob(x) > -torch.inf]
    errors, bounds = agree(subject, x, _terms, (1, -1, -1))
    return compared(errors, bounds, subject.effort.tolerance)


def _terms(model: Model, x: Tensor) -> Tensor:
    """(n, 3): log p, -E, -log Z, of which the last is the median of log p + E where it is not stated."""
    log_p, energy = model.log_prob(x).double(), model.energy(x).double()
    constant = -model.log_partition().double() if model.can("log_partition") else (log_p + energy).median()
    return torch.stack([log_p, -energy, constant.expand(len(x))], 1)


def _on_twin(law: StatisticalCheck) -> Callable[[Subject], Accumulator]:
    """The statistic of a law of densities, for the twin of a model that has no density of its own."""

    def start(subject: Subject) -> Accumulator:
        if subject.model.can("log_prob"):
            raise NotApplicable("the sampler is compared with log_prob, and log_prob with the energy")
        return law.start(twin(subject))

    return start


def _labels(subject: Subject) -> list[str]:
    return features.coordinate_labels(twin(subject))


@statistical(
    "energy.exchangeable",
    needs=("sample", "energy"),
    blocked_by=SOUND,
    start=_on_twin(kernel.exchangeable),
    labels=_labels,
    share=1 / 4,
    tolerance=3.0,
    unit="probability",
    source="Gandy & Scott 2021, https://arxiv.org/abs/2001.06465",
)
def exchangeable(draws: Draws) -> Tensor | Sums:
    r"""E[f(x') - f(x)] = 0 when x' follows x by a kernel that is reversible with respect to exp(-E).

    Metropolis' rule sees differences of energies only, min(1, exp(E(x) - E(x'))), so that Z plays no part. The kernel
    and the functions f are those of `sampler.exchangeable`.
    """
    return kernel.exchangeable.numbers(twin_draws(draws))


@statistical(
    "energy.stein",
    needs=("sample", "energy"),
    blocked_by=SOUND,
    start=_on_twin(kernel.stein),
    labels=_labels,
    share=1 / 2,
    tolerance=4.0,
    unit="probability",
    source="Barker 1965; Barbour 1988; Hodgkinson, Salomone & Roosta 2020, https://arxiv.org/abs/2001.09266",
)
def stein(draws: Draws) -> Tensor | Sums:
    r"""E[a(x, x') (f(x') - f(x))] = 0 with a = 1 / (1 + exp(E(x') - E(x))) and x' a symmetric step from x.

    Stein's identity for the generator of Barker's process, bounded and without Z; see `sampler.stein`.
    """
    return kernel.stein.numbers(twin_draws(draws))


def _start_mass(subject: Subject) -> Accumulator:
    if subject.model.can("log_prob"):
        raise NotApplicable("log_prob is compared with the energy and log Z, and its mass is tested")
    _stated(subject)
    normal = twin(subject, normalised=True)
    try:
        oracle_of(normal)
    except NotApplicable:
        bound = 2 / bridge.overlap(normal) * (1 + 1e-9)
        return BoundedMean(-bound, bound)
    raise NotApplicable("log Z was compared with an exact sum or integral; see energy.log_partition")


@statistical(
    "energy.log_partition_of_draws",
    needs=("sample", "energy", "log_partition"),
    blocked_by=("energy.exchangeable", "energy.stein", "energy.log_partition", *SOUND),
    start=_start_mass,
    unit="of Z",
    source="Bennett 1976; Meng & Wong 1996, https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n43/j6n43.htm",
)
def log_partition_of_draws(draws: Draws) -> Tensor:
    r"""E_p[2q / (p + q)] = E_q[2p / (p + q)] for p = exp(-E) / Z with the stated Z, and a law q that is known.

    Both sides are the integral of 2pq / (p + q). Their difference, a mean of bounded numbers, has a confidence interval
    at every n, and with it Z lies between two bounds, where an exact sum or integral is out of reach.
    """
    at_draws, at_proposals = bridge.bridge_weights(twin_draws(draws, normalised=True))
    return at_draws - at_proposals


CHECKS: tuple[Check, ...] = (
    well_formed,
    log_partition,
    consistent_with_log_prob,
    stein,
    exchangeable,
    log_partition_of_draws,
)
