"""Is there a density to speak of? Laws on a surface, laws with atoms, and samplers that share nothing with the density.

Every other comparison of a sampler with a density takes both in one measure: volume for continuous coordinates, counts
for discrete ones, the surface where the support declares one. Where that is not so each of them would say so in its own
words; these two laws say it once, from pilot draws, and the others are blocked.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints

from harness.checks.law import OTHER_MEASURE, Check, NotApplicable, exact
from harness.checks.oracle import flat_density
from harness.checks.surface import ROWS, broken
from harness.draws import log_density
from harness.evidence import Exact
from harness.states import innermost
from harness.subject import Subject

IN_COMMON, HAS_VOLUME = "support.in_common", "support.has_volume"

ATOM = 0.01
"""Share of the pilot draws at one value of a continuous coordinate that make it an atom worth asking about."""

STEPS = 16
"""Steps of the dtype around an atom, on which all other draws together are this many times rarer than it."""

NEAR = 4.0
"""Standardised coordinates up to which draws are fitted by polynomials: beyond, heavy tails drown the others."""

MOST_TERMS = 160
"""Most monomials of a surface, so that pilot draws outnumber them: 16 coordinates."""

COARSE = 1e-3
"""What is left of an equation that a smooth law leaves more of: a standard Gaussian leaves about a half."""

NEGLIGIBLE = 30.0
"""Nats below the draws' own log-densities where a density has practically ended: e^-30 = 1e-13."""

FAR = 1e3
"""How many times larger an event is that any density of volume has to have forgotten."""

ROUNDINGS = 64
"""Units in the last place by which coordinates may be off a surface: sums of a few squares and a normalisation."""


@exact(IN_COMMON, needs=("sample", "log_prob"))
def in_common(subject: Subject) -> Exact:
    """log p(x) > -inf at more than half of the sampler's draws.

    Draws that were cast to integers, are in another unit, or lie outside a support that was declared for another law
    have nothing in common with the density, and then no comparison of the two says more. That a single impossible draw
    is one too many is for `support.draws_are_possible`.
    """
    x = subject.pilot
    x = x[x.reshape(len(x), -1).isfinite().all(1)][: 4 * ROWS]
    if not len(x):
        raise NotApplicable("no draw is finite; see sample.finite")
    impossible = ~(log_density(subject, x) > -torch.inf)
    if 2 * int(impossible.sum()) < len(x):
        return broken([], len(x))
    first = x[impossible][0].flatten()[:8].tolist()
    values = ", ".join(f"{value:g}" for value in first)
    return broken([f"log p is -inf or NaN at {int(impossible.sum())} of {len(x)} draws, [{values}] for one"], len(x))


@exact(HAS_VOLUME, needs=("sample", "log_prob"), blocked_by=(IN_COMMON,))
def has_volume(subject: Subject) -> Exact:
    """Draws lie on a surface, or have atoms, only where the density says so: it ends beside them.

    If log p is as large beside draws that lie on a surface, and falls far from them as a density of volume must, it
    gives mass to events of which none is ever drawn: a value that was broadcast over several coordinates, say. A
    surface is a relation of degree 2 at most among the coordinates that holds to rounding (a plane, a sphere,
    rotations), unless one is declared. A density that keeps to its surface, one that is none beyond it (a formula on
    the sphere grows without end), or one that jumps at its atoms, is right in a measure of its own, with which no law
    here can be tried: that is a SKIP, and blocks them.
    """
    reason = other_measure(subject)
    if reason:
        raise NotApplicable(reason)
    x = _undeclared(subject)
    if not _on_surface(subject, x):
        return broken([], len(x))
    told = "draws lie on a surface (an equation of degree 2 or less holds among their coordinates, to rounding)"
    return broken([f"{told}, and log p is about as large beside it"], len(x))


def other_measure(subject: Subject) -> str:
    """In which measure of its own the model has a density: empty where it is the common one, or where nothing shows."""
    return subject.once("other measure", lambda: _other_measure(subject))


def _other_measure(subject: Subject) -> str:
    x = _undeclared(subject)
    atom = _atom(subject, x)
    if atom:
        return f"{OTHER_MEASURE}, of volume and points: {atom}"
    if not _on_surface(subject, x) or (_goes_on(subject, x) and _falls_far_away(subject, x)):
        return ""
    return f"{OTHER_MEASURE}, of a surface: declare it as `support` if torch has a constraint for it"


def _undeclared(subject: Subject) -> Tensor:
    """Finite pilot draws (n, *event), where they might lie on a surface without a word."""
    x, support = subject.pilot, innermost(subject.model.support)
    if subject.profile.kind == "discrete" or not x.is_floating_point():
        raise NotApplicable("events are discrete")
    if subject.profile.chart.transform is not None or support not in (None, constraints.real):
        raise NotApplicable("the support is declared")
    return x[x.reshape(len(x), -1).isfinite().all(1)]


def _atom(subject: Subject, x: Tensor) -> str:
    """The first continuous coordinate with an atom at which log p is finite and jumps, in words."""
    flat, continuous = x.reshape(len(x), -1), ~subject.profile.chart.discrete
    for j in continuous.nonzero().flatten().tolist():
        values, counts = flat[:, j].unique(return_counts=True)
        for k in (counts > ATOM * len(x)).nonzero().flatten().tolist():
            at = x[flat[:, j] == values[k]][:ROWS]
            if _alone(flat[:, j], values[k], int(counts[k])) and _jumps(subject, at, j):
                share = int(counts[k]) / len(x)
                return f"{share:.0%} of the draws have {float(values[k]):g} in coordinate {j}, where log p jumps"
    return ""


def _alone(column: Tensor, value: Tensor, count: int) -> bool:
    """Is a value far more frequent than those next to it? Where the dtype is coarse, all are about as frequent."""
    unit = torch.finfo(column.dtype).eps * value.abs()
    beside = ((column - value).abs() <= STEPS * unit) & (column != value)
    return int(beside.sum()) * STEPS < count


def _jumps(subject: Subject, x: Tensor, j: int) -> bool:
    """Is log p finite at events (n, *event), and elsewhere one step of the dtype up and down coordinate j?

    It would differ by rounding, were it a density; an end of the support is continuous from one side.
    """
    here = log_density(subject, x)
    sides = []
    for end in (-torch.inf, torch.inf):
        flat = x.reshape(len(x), -1).clone()
        flat[:, j] = torch.nextafter(flat[:, j], torch.full_like(flat[:, j], end))
        sides.append((_anywhere(subject, flat.reshape(x.shape)) - here).abs())
    return bool((here.isfinite() & (torch.stack(sides) > subject.effort.tolerance).all(0)).all())


def _on_surface(subject: Subject, x: Tensor) -> bool:
    """Do the events (n, *event) satisfy an equation of degree 2 or less, to rounding?

    The least singular value of the monomials of whitened coordinates is the root mean square of what is left of the
    best equation. Where rounding alone would leave a part of it, nothing is known.
    """
    chart = subject.profile.chart
    d = chart.size
    if bool(chart.discrete.any()) or d < 2 or (d + 1) * (d + 2) // 2 > MOST_TERMS:
        return False
    t = (x.reshape(len(x), -1).double() - chart.location) / chart.scale
    t = t[(t.abs() <= NEAR).all(1)]
    if len(t) < 4 * MOST_TERMS:
        return False
    rounding = ROUNDINGS * torch.finfo(x.dtype).eps * float(1 + (chart.location.abs() / chart.scale).max())
    if rounding > COARSE:
        return False
    axes = torch.linalg.svd(t - t.mean(0), full_matrices=False)
    spread = axes.S / len(t) ** 0.5  # (d,) along the principal axes
    if float(spread[-1]) <= rounding * float(spread[0]):
        return True
    rounding = rounding * float(spread[0] / spread[-1])
    if rounding > COARSE:
        return False
    u = axes.U * len(t) ** 0.5
    pairs = torch.triu_indices(d, d)
    terms = torch.cat([torch.ones_like(u[:, :1]), u, u[:, pairs[0]] * u[:, pairs[1]]], 1)
    return float(torch.linalg.svdvals(terms)[-1]) / len(t) ** 0.5 <= rounding


def _goes_on(subject: Subject, x: Tensor) -> bool:
    """Is log p about as large at events moved off the surface, every coordinate by a tenth of its spread?"""
    chart, x = subject.profile.chart, x[: 4 * ROWS]
    noise = torch.randn(len(x), chart.size, generator=subject.generator("beside"), device=x.device, dtype=torch.float64)
    beside = (x + (noise * chart.scale / 10).reshape(x.shape)).to(x.dtype)
    near = _anywhere(subject, beside) > log_density(subject, x) - NEGLIGIBLE
    return 2 * int(near.sum()) > len(x)


def _falls_far_away(subject: Subject, x: Tensor) -> bool:
    """Is log p negligible at nearly all events a thousand times as large? A density of volume has to be."""
    x = x[: 4 * ROWS]
    far = _anywhere(subject, (FAR * x.double()).to(x.dtype)) <= log_density(subject, x) - NEGLIGIBLE
    return 10 * int(far.sum()) >= 9 * len(x)


def _anywhere(subject: Subject, x: Tensor) -> Tensor:
    """log p (n,) of events that may be off the support: -inf where the model refuses them."""
    return flat_density(subject.model, subject.pilot)(x.reshape(len(x), -1)).to(x.device)


CHECKS: tuple[Check, ...] = (in_common, has_volume)
