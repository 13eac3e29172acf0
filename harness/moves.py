"""Reversible moves that leave a density invariant: proposals, Metropolis steps and Hamiltonian trajectories.

All act on the coordinates z of a chart, where the target is p(x(z)) |dx/dz|. Their scales come from the reference law,
that is from pilot draws, so they are fixed before the draws that they are applied to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from harness.draws import log_density_where, within
from harness.errors import out_of_memory
from harness.numerics.rows import finite_rows
from harness.reference import Reference, all_codes, looked_up
from harness.subject import Subject

LEAPFROGS = 4
STEPS = 4


@dataclass(frozen=True)
class Moved:
    """New coordinates, and log q(z | z') - log q(z' | z) of the proposal."""

    z: Float64[Tensor, "n d"]
    log_ratio: Float64[Tensor, " n"]


def log_target(subject: Subject, z: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    """log p(x(z)) |dx/dz|; -inf where it is not a number, or where the dtype has no event for z.

    Moves to such places, and from them, are refused, which keeps a kernel reversible.
    """
    chart = subject.profile.chart
    x = chart.events(z)
    value = log_density_where(subject, x, chart.faithful(z, x) & within(subject, x)) + chart.log_volume(z)
    return torch.where(value.isfinite(), value, -torch.inf)


def propose(subject: Subject, z: Float64[Tensor, "n d"], source: torch.Generator) -> Moved:
    """One proposal a row: a random block of the continuous coordinates walks, a few discrete ones change."""
    discrete = subject.profile.chart.discrete
    if bool(discrete.all()):
        return _change(subject, z, source)
    walked = _walk(subject, z, source)
    return _change(subject, walked, source) if bool(discrete.any()) else Moved(walked, torch.zeros_like(z[:, 0]))


def metropolis(
    subject: Subject, z: Float64[Tensor, "n d"], log_p: Float64[Tensor, " n"], source: torch.Generator
) -> Float64[Tensor, "n d"]:
    """Coordinates after STEPS Metropolis-Hastings steps from z, of which the target is log_p."""
    for _ in range(STEPS):
        moved = propose(subject, z, source)
        log_new = log_target(subject, moved.z)
        u = torch.rand(len(z), generator=source, dtype=torch.float64, device=z.device)
        accept = (u.log() < log_new - log_p + moved.log_ratio) & log_p.isfinite()
        z = torch.where(accept[:, None], moved.z, z)
        log_p = torch.where(accept, log_new, log_p)
    return z


def hamiltonian(subject: Subject, z: Float64[Tensor, "n d"], source: torch.Generator) -> Float64[Tensor, "n d"]:
    """Coordinates after one Hamiltonian trajectory and its Metropolis test."""
    new, energy = trajectory(subject, z, source, LEAPFROGS)
    u = torch.rand(len(z), generator=source, dtype=z.dtype, device=z.device)
    return torch.where((u.log() < energy)[:, None], new, z)


def trajectory(
    subject: Subject, z: Float64[Tensor, "n d"], source: torch.Generator, leapfrogs: int
) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, " n"]]:
    """End of a Hamiltonian trajectory from z, and the log of its Metropolis ratio; one step is Langevin's.

    Leapfrog preserves volume and is reversible, so accepting with a probability that depends on the ratio makes a
    reversible kernel (Duane et al. 1987; Neal 2011, https://arxiv.org/abs/1206.1901). Coordinates are whitened by the
    pilot; the step is jittered independently of the state, and scales with the dimension as its acceptance asks.
    """
    factor = whitener(subject)
    start = torch.linalg.solve_triangular(factor, z.T, upper=False).T
    momentum = torch.randn(z.shape, generator=source, dtype=z.dtype, device=z.device)
    longest = 1.6 * z.shape[1] ** (-1 / 6) if leapfrogs == 1 else 1.1 * z.shape[1] ** (-1 / 4) + 0.15
    step = longest * (0.5 + 0.5 * torch.rand(len(z), 1, generator=source, dtype=z.dtype, device=z.device))
    log_start, gradient, z = _gradient(subject, start, factor)
    position, velocity, log_end = start, momentum, log_start
    for _ in range(leapfrogs):
        velocity = torch.addcmul(velocity, step / 2, gradient)
        position = torch.addcmul(position, step, velocity)
        log_end, gradient, z = _gradient(subject, position, factor)
        velocity = torch.addcmul(velocity, step / 2, gradient)
    energy = log_end - log_start - (velocity.square().sum(1) - momentum.square().sum(1)) / 2
    return z, torch.where(log_start.isfinite() & log_end.isfinite(), energy, -torch.inf)


def whitener(subject: Subject) -> Float64[Tensor, "c c"]:
    """Cholesky factor of the covariance of the continuous coordinates under the reference."""

    def work() -> Tensor:
        law: Reference = subject.reference
        weight = law.log_weight.exp()
        centre = weight @ law.mean
        spread = law.mean - centre
        covariance = torch.einsum("k,kij->ij", weight, law.factor @ law.factor.mT)
        covariance = covariance + torch.einsum("k,ki,kj->ij", weight, spread, spread)
        return torch.linalg.cholesky(covariance)

    return subject.once("whitener", work)


def differentiable(subject: Subject) -> bool:
    """Are events vectors, and does autograd give a finite gradient of the density at pilot draws?

    A lone number walks: Metropolis' steps of all sizes cross the gaps between modes, where a trajectory turns back.
    """

    def work() -> bool:
        if subject.profile.kind != "continuous" or not subject.profile.chart.event_shape:
            return False
        z = subject.profile.chart.coordinates(subject.pilot[:64])
        try:
            _, gradient, _ = _gradient(subject, z, torch.eye(z.shape[1], dtype=z.dtype, device=z.device))
        except Exception as refusal:  # no graph, or a model that refuses inputs with one: other moves will do
            if out_of_memory(refusal):
                raise
            return False
        return bool(gradient.abs().sum() > 0)

    return subject.once("differentiable", work)


def _gradient(subject: Subject, position: Tensor, factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log target (n,) and its gradient (n, d) with respect to whitened positions, 0 where it is not finite; and z."""
    chart = subject.profile.chart
    with torch.enable_grad():
        inner = position.detach().requires_grad_(True)
        z = inner @ factor.T
        x = chart.events(z)
        usable = (chart.faithful(z, x) & within(subject, x)).detach() & finite_rows(x.detach())
        if not bool(usable.all()):
            x = torch.where(usable.reshape(-1, *(1,) * (x.ndim - 1)), x, subject.pilot[:1].to(x))
        value = subject.model.log_prob(x).to(torch.float64) + chart.log_volume(z)
        finite = torch.where(value.isfinite(), value, torch.zeros_like(value))
        (gradient,) = torch.autograd.grad(finite.sum(), inner)
    gradient = gradient.nan_to_num(0.0, 0.0, 0.0).clamp(-1e3, 1e3)
    return torch.where(usable & value.isfinite(), value, -torch.inf).detach(), gradient, z.detach()


def _walk(subject: Subject, z: Tensor, source: torch.Generator) -> Tensor:
    """A Gaussian step along a random block of whitened directions, at a random scale: symmetric."""
    chart = subject.profile.chart
    factor = whitener(subject)
    n, c = len(z), len(factor)
    size = torch.rand(n, 1, generator=source, dtype=z.dtype, device=z.device)
    keep = torch.rand(n, c, generator=source, dtype=z.dtype, device=z.device) < torch.exp(-size * (c > 1) * 3.0)
    count = keep.sum(1, keepdim=True).clamp(min=1)
    noise = torch.randn(n, c, generator=source, dtype=z.dtype, device=z.device) * keep * 2.4 / count.sqrt()
    out = z.clone()
    out[:, ~chart.discrete] += noise @ factor.T
    return out


def _change(subject: Subject, z: Tensor, source: torch.Generator) -> Moved:
    """Draw discrete coordinates anew from one component of the reference; in one row of three, swap two of them.

    The component k is drawn given the discrete coordinates, so the pair (z, k) moves reversibly, and so does z: of the
    proposal, q(k | z) prod_j t_j(z'_j | k) over the coordinates j that are drawn anew, the ratio is taken with k fixed.
    In one row of two all of them may change, else a share from log-uniform to few, as the fit is good or poor.
    """
    chart = subject.profile.chart
    places = chart.discrete.nonzero().flatten()
    n, device, rows = len(z), z.device, torch.arange(len(z), device=z.device)
    value = z * chart.scale + chart.location
    position, known = all_codes(subject.profile, z)
    component, log_share = _component(subject, position, source)
    fresh = _anew(subject, component, source)  # (n, m)
    u = torch.rand(n, 3, generator=source, dtype=z.dtype, device=device)
    chance = torch.where(u[:, 0] < 1 / 2, torch.exp(-4.0 * u[:, 1]), 1.0)
    several = len(places) > 1
    pick = torch.rand(n, len(places), generator=source, dtype=z.dtype, device=device) < chance[:, None]
    swap = u[:, 2] < (1 / 3 if several else 0.0)
    use = pick & ~swap[:, None] & known
    table = subject.reference.table  # (m, values, k)
    place = torch.arange(len(places), device=device)
    moved = torch.where(use, fresh, position)
    log_t = table[place, position, component[:, None]] - table[place, moved, component[:, None]]
    there = _share(subject, moved)[rows, component]
    ratio = torch.where(use, log_t, 0.0).sum(1) + torch.where(use.any(1), there - log_share, 0.0)
    letters = subject.profile.letters
    new = value.clone()
    new[:, places] = torch.where(use, letters[place, moved], value[:, places])
    first = torch.randint(len(places), (n,), generator=source, device=device)
    second = torch.randint(len(places), (n,), generator=source, device=device)
    a, b = value[rows, places[first]], value[rows, places[second]]
    new[rows, places[first]] = torch.where(swap, b, new[rows, places[first]])
    new[rows, places[second]] = torch.where(swap, a, new[rows, places[second]])
    return Moved((new - chart.location) / chart.scale, ratio)


def _share(subject: Subject, position: Tensor) -> Tensor:
    """(n, k): log-probability of the components given discrete coordinates alone, by their positions (n, m)."""
    law = subject.reference
    return torch.log_softmax(law.log_weight + looked_up(law.table, position), 1)


def _component(subject: Subject, position: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """A component (n,) for each row given its discrete coordinates, and the log-probability of that choice."""
    log_share = _share(subject, position)
    component = torch.multinomial(log_share.exp(), 1, generator=source)
    return component[:, 0], log_share.gather(1, component)[:, 0]


def _anew(subject: Subject, component: Tensor, source: torch.Generator) -> Tensor:
    """Positions (n, m) of fresh values of every discrete coordinate under the components (n,)."""
    table = subject.reference.table
    u = torch.rand(len(component), len(table), generator=source, dtype=table.dtype, device=table.device)
    position = torch.zeros_like(u, dtype=torch.long)
    for k in component.unique().tolist():
        rows = component == k
        edges = table[:, :, k].exp().cumsum(1).contiguous()
        position[rows] = torch.searchsorted(edges, (u[rows] * edges[:, -1]).T.contiguous(), right=True).T
    return position.clamp(max=table.shape[1] - 1)
