"""Laws of the gradient of log_prob with respect to the event, which samplers, scores and training build on."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.chart import unconstrained
from harness.checks.law import Check, NotApplicable, exact
from harness.checks.oracle import flat_density
from harness.checks.precision import unit_of
from harness.checks.rounding import ELEMENTARY
from harness.checks.surface import ROWS, broken
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.subject import Subject

HIDDEN = 1000
"""A peak below every step leaves a trace in a neighbour's slope: no part of the tolerance finer than this is asked."""

STEPS = 0.02 * 4.0 ** -torch.arange(9, dtype=torch.float64)
"""Steps of the differences, in units of each coordinate's own size: their error falls by 16 from one to the next. A
trained network has hundreds of kinks, at every scale: of 64 draws some have one within 1e-4, few within 3e-7."""

USUAL = 4
"""Steps that are asked of every draw; the finer ones, only where rounding takes nothing of what a bound may be."""


@exact("log_prob.gradient_finite", needs=("log_prob",))
def gradient_is_finite(subject: Subject) -> Exact:
    """d log p(x) / dx is finite at the model's own draws, wherever log p(x) is.

    torch.where(x > 0, x.log(), 0) and its like have NaN as gradient where the other branch has no finite slope.
    """
    x = continuous(subject, subject.pilot[: 8 * ROWS]).clone().requires_grad_()
    log_p = with_graph(subject.model.log_prob(x))
    (gradient,) = torch.autograd.grad(log_p.sum(), x)
    wrong = log_p.isfinite() & ~gradient.reshape(len(x), -1).isfinite().all(1)
    first = f"NaN or infinite at {int(wrong.sum())} of {len(x)} draws" if bool(wrong.any()) else ""
    return broken([first] if first else [], len(x))


@exact(
    "log_prob.gradient_right", needs=("log_prob",), blocked_by=("log_prob.deterministic", "log_prob.gradient_finite")
)
def gradient_is_right(subject: Subject) -> Exact:
    """The autograd derivative of log p along a direction is the limit of [log p(u + hv) - log p(u - hv)] / 2h.

    In float64, in coordinates u in which a constrained event is free, along random directions v. The differences err by
    O(h^2), which the next coarser step measures, and by rounding / h; draws where rounding drowns them are left out. A
    kink within the larger steps does no harm: the best of several steps counts. Draws from which a step leaves the
    support, where log p is -inf or the model raises, are left out. detach() in the wrong place and a hand-written
    backward pass are what this finds.
    """
    x = continuous(subject, subject.pilot[:ROWS])
    chart = subject.profile.chart
    u = unconstrained(x, chart.transform)
    u = u[u.isfinite().all(1)]
    sign = torch.randint(2, u.shape, generator=subject.generator("directions"), device=u.device) * 2 - 1
    direction = sign * torch.maximum(chart.scale, (u - chart.location).abs()) / u.shape[1] ** 0.5
    return _agree(_Free(subject, u[:64]), u, direction, subject.effort.tolerance)


class _Free:
    """log p in float64 as a function of free numbers u (n, k)."""

    def __init__(self, subject: Subject, probe: Tensor):
        self.transform, self.shape = subject.profile.chart.transform, torch.Size(subject.pilot.shape[1:])
        try:
            self.model = subject.model if subject.model.cast is None else subject.model.cast(torch.float64)
            dtype = self(probe).dtype
            self.eps = 2 * unit_of(self.model, self.events(probe), True)
        except Exception as refusal:
            if out_of_memory(refusal):
                raise
            raise NotApplicable(f"log_prob takes no float64: {' '.join(str(refusal).split())[:120]}") from None
        if dtype != torch.float64:
            raise NotApplicable(f"log_prob of float64 events is {dtype}: too coarse for differences")

    def events(self, u: Tensor) -> Tensor:
        if self.transform is None:
            return u.reshape(len(u), *self.shape)
        return self.transform(u.reshape(len(u), *self.transform.inverse_shape(self.shape)))

    def __call__(self, u: Tensor) -> Tensor:
        return self.model.log_prob(self.events(u))

    def anywhere(self, u: Tensor) -> Tensor:
        """log p, without a graph, where a step may have left the support: -inf where the model refuses the event."""
        x = self.events(u)
        return flat_density(self.model, x)(x.reshape(len(x), -1)).to(u.device)

    def displacement(self, u: Tensor) -> Tensor:
        """(n, k): how far from u the rounding of events takes the place where log p is evaluated."""
        returned = unconstrained(self.events(u), self.transform)
        return (returned - u).abs().nan_to_num(torch.inf) + self.eps * u.abs()


def _agree(log_p: _Free, u: Tensor, direction: Tensor, tolerance: float) -> Exact:
    """Slopes by autograd and by differences; the worst row, at its best step."""
    leaf = u.clone().requires_grad_()
    value = with_graph(log_p(leaf))
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    value, slope = value.detach(), (gradient * direction).sum(1)
    with torch.no_grad():
        ahead, behind = (
            torch.stack([log_p.anywhere(u + h * direction) for h in side]) for side in (STEPS, -STEPS)
        )  # (s, n)
        ends = [log_p.displacement(u + h * direction) for h in (-STEPS[0], STEPS[-1] * 0, STEPS[0])]
    slopes = (ahead - behind) / (2 * STEPS[:, None])
    bends = (ahead + behind - 2 * value).abs()  # a peak narrower than every step does not flatten as steps shrink
    moved = (gradient.abs() * torch.stack(ends).amax(0)).sum(1)  # (n,)
    operations = ELEMENTARY + u.shape[1]
    noise = operations * (log_p.eps * (1 + value.abs() + slope.abs()) + moved) / STEPS[1:, None]
    changes = (slopes[:-1] - slopes[1:]).abs()
    shrinks = changes <= torch.cat([torch.zeros_like(changes[:1]), changes[:-1] / 2]) + noise
    shrinks &= bends[1:] <= bends[:-1] / 2 + 2 * noise * STEPS[1:, None]
    shrinks[USUAL:] &= noise[USUAL:] <= tolerance / HIDDEN
    bounds = torch.where(shrinks, changes + noise, torch.inf)  # of a limit that is not approached nothing is known
    errors = (slopes[1:] - slope).abs()
    seen = (
        value.isfinite()
        & slope.isfinite()
        & slopes.isfinite().all(0)
        & (noise[USUAL - 1] <= tolerance)
        & shrinks.any(0)
    )
    if not bool(seen.any()):
        raise NotApplicable("no draw lies inside the support by a step of the differences")
    best = torch.argmin(torch.where(shrinks, errors / bounds, torch.inf).nan_to_num(torch.inf), 0, keepdim=True)
    error, bound = errors.gather(0, best)[0][seen], bounds.gather(0, best)[0][seen].clamp(min=tolerance / HIDDEN)
    worst = int(torch.argmax(error / bound))
    return Exact(float(error[worst]), float(bound[worst]), int(seen.sum()), "", "nat per sd")


def continuous(subject: Subject, x: Tensor) -> Tensor:
    if not x.is_floating_point() or bool(subject.profile.chart.discrete.any()):
        raise NotApplicable("events have discrete coordinates")
    return x


def with_graph(log_p: Tensor) -> Tensor:
    if not log_p.requires_grad:
        raise NotApplicable("log_prob does not depend on the event by autograd")
    return log_p


CHECKS: tuple[Check, ...] = (gradient_is_finite, gradient_is_right)
