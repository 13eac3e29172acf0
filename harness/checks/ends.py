r"""The two ends of a bijection x = f(z), in the finest dtype that it works in, and how far rounding goes between them.

Everything is worked out in float64 where the model can be had in it, and allowed the rounding of float32; what an
inverse by iteration or a flow by integration is allowed beside that is in `checks.solver`. How far rounding at one end
is from the other end is measured. A coordinate that is off by u times its size moves f, and so does f's own rounding,
by about

.. math:: u \, R_f(z), \qquad R_f(z) = \max_{s \in \{-1, 1\}^d} |f(z + h s \cdot |z|) - f(z)| / h,

over a few random signs s, since rounding errors are as random as these (Higham & Mary 2019,
https://doi.org/10.1137/18M1226312). As h is not far above the rounding of the arithmetic, noise of f shows in R_f too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.checks.law import NotApplicable
from harness.checks.precision import Watched
from harness.checks.rounding import ELEMENTARY, LAMBDA, compared
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.model import Model
from harness.subject import Subject

NEEDS = ("forward", "inverse", "log_det")
FUNCTIONS = ("log_prob.deterministic", "bijection.deterministic")
"""Without which nothing else of a bijection is tried."""

REVIEW = "Papamakarios et al. 2021, https://jmlr.org/papers/v22/19-1028.html"
JACOBI = "Jacobi 1841, De determinantibus functionalibus; Billingsley 1995, Probability and Measure, theorem 17.2"

ROWS = 64
"""Points at which round trips are made."""

PROBES = 8
"""Random signs, of which not all will hide the direction that is stretched most."""

STEP = 2.0**-20
"""Of a coordinate's size: above the rounding of float32, and so small that maps are straight over it."""

STRIDE = 2.0**-4
"""A step over which a map that tells its arguments apart at all does more than round."""

FLOAT32, FLOAT64 = (torch.finfo(dtype).eps / 2 for dtype in (torch.float32, torch.float64))

Map = Callable[[Tensor], Tensor]
"""(n, d) -> (n, d), or (n,)."""


@dataclass(frozen=True)
class Ends:
    """A bijection of flat events, and points at both ends: z (n, d) of its base, or what its draws come from, and draws
    x (n, d), or what its base goes to. `unit` is the roundoff of its arithmetic."""

    model: Model
    shape: tuple[int, ...]
    z: Tensor
    x: Tensor
    unit: float
    seed: int

    def forward(self, z: Tensor) -> Tensor:
        return self._said("forward", z, z.shape)

    def inverse(self, x: Tensor) -> Tensor:
        return self._said("inverse", x, x.shape)

    def log_det(self, z: Tensor) -> Tensor:
        return self._said("log_det", z, z.shape[:1])

    def _said(self, name: str, points: Tensor, wanted: tuple[int, ...]) -> Tensor:
        events = points.reshape(len(points), *self.shape)
        return answer(self.model, name, events, events.shape if len(wanted) == 2 else wanted).reshape(wanted)

    @property
    def granted(self) -> float:
        """The roundoff that is allowed."""
        return max(self.unit, FLOAT32)

    @property
    def factor(self) -> float:
        """How many unit roundoffs a result may be off by, beside its size."""
        return LAMBDA * (ELEMENTARY + self.z.shape[1]) ** 0.5

    def reach(self, function: Map, points: Tensor, size: Tensor, step: float = STEP) -> Tensor:
        """R of the docstring above, of the shape of function(points), for steps by `size` (n, d)."""
        h = max(step, 16 * self.unit)
        here = function(points)
        most = torch.zeros_like(here)
        for other in self.around(points, h * size):
            most = torch.maximum(most, (tried(function, other, here) - here).abs() / h)  # NaN stays
        return most

    def size_after(self, function: Map, points: Tensor) -> Tensor:
        """(n, d): what a relative error of points, and of what they are sent to, may come to there."""
        return size_of(function(points)) + self.reach(function, points, size_of(points))

    def around(self, points: Tensor, step: Tensor) -> Iterator[Tensor]:
        """The points moved by steps (n, d) of random signs."""
        source = torch.Generator().manual_seed(self.seed)
        for _ in range(PROBES):
            yield points + (torch.randint(2, points.shape, generator=source) * 2 - 1).to(points) * step


def size_of(points: Tensor) -> Tensor:
    """(n, d): |p| of each coordinate, and its mean over the rows, as it is by chance near 0 in some."""
    return points.abs() + points.abs().mean(0)


def tried(function: Map, points: Tensor, like: Tensor) -> Tensor:
    """function(points), of the shape of `like`; NaN in rows at which it raises, as some do outside of their support."""
    try:
        return function(points)
    except Exception as refusal:
        if out_of_memory(refusal):
            raise
        if len(points) > 1:
            halves = zip(points.tensor_split(2), like.tensor_split(2), strict=True)
            return torch.cat([tried(function, *half) for half in halves])
        return torch.full_like(like, torch.nan)


def answer(model: Model, name: str, events: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What the model says. Raises ValueError for another shape than its contract has."""
    value = model.methods[name](events)
    if not isinstance(value, Tensor) or value.shape != shape or not value.is_floating_point():
        seen = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name}() of {tuple(events.shape)} is {seen}, not a floating tensor of shape {tuple(shape)}")
    return value


def ends_of(subject: Subject) -> Ends:
    """Raises NotApplicable for discrete events, or for a base with events of another shape."""
    return subject.once("ends of the bijection", lambda: _found(subject))


def _found(subject: Subject) -> Ends:
    pilot = subject.pilot[:ROWS]
    if not pilot.is_floating_point() or bool(subject.profile.chart.discrete.any()):
        raise NotApplicable("events have discrete coordinates, and no map stretches those")
    with torch.no_grad():
        z, x = _points(subject, subject.model)
        if z.shape[1:] != x.shape[1:]:
            raise NotApplicable(f"the base has events {tuple(z.shape[1:])}, and the model {tuple(x.shape[1:])}")
        model, dtype = _finest(subject, z, x)
        z, x = (points.to(dtype) for points in _points(subject, model))
        with Watched() as watched:
            seen = [answer(model, "forward", z, z.shape), answer(model, "log_det", z, z.shape[:1])]
            if model.can("inverse"):
                seen.append(answer(model, "inverse", x, x.shape))
    units = {torch.finfo(kind).eps / 2 for kind in (*watched.dtypes, *(each.dtype for each in seen))}
    seed = subject.seed_for("signs of the probes")
    return Ends(model, tuple(x.shape[1:]), z.reshape(len(z), -1), x.reshape(len(x), -1), max(units), seed)


def _points(subject: Subject, model: Model) -> tuple[Tensor, Tensor]:
    """Draws of the base of a model, or what its draws come from, and its draws, or what its base goes to; (n, *event).

    Of streams that know nothing of the subject's dtype: a FAIL that is tried again in float64 is tried at its points.
    """
    there = Subject(model, subject.effort, subject.seed)
    z = base_draws(there, ROWS, "round trip")
    if not model.can("inverse"):
        if z is None:
            raise NotApplicable("there is neither a base to draw from nor an inverse")
        return z, answer(model, "forward", z, z.shape)
    x = there.sample(ROWS, "round trip draws") if model.can("sample") else subject.pilot[:ROWS]
    x = x[x.reshape(len(x), -1).isfinite().all(1)]
    return (answer(model, "inverse", x, x.shape) if z is None else z), x


def base_of(model: Model) -> Model:
    """The base. Raises ValueError where it is no model."""
    base = model.base()
    if not isinstance(base, Model):
        raise ValueError(f"base() returned a {type(base).__name__}, not a model with log_prob or sample")
    return base


def base_draws(subject: Subject, n: int, *names: str | int) -> Tensor | None:
    """n draws of the base, (n, *event); None where there is no base that can be drawn from."""
    if not subject.model.can("base"):
        return None
    base = base_of(subject.model)
    if not base.can("sample"):
        return None
    with torch.no_grad():
        return base.sample(n, generator=subject.generator("base", *names))


def _finest(subject: Subject, z: Tensor, x: Tensor) -> tuple[Model, torch.dtype]:
    """The model in float64 where it answers in that, or else as it is."""
    try:
        model = subject.model if subject.model.cast is None else subject.model.cast(torch.float64)
        answers = [model.forward(z.double()), model.log_det(z.double())]
        answers += [model.inverse(x.double())] if model.can("inverse") else []
        if all(each.dtype == torch.float64 for each in answers):
            return model, torch.float64
    except Exception as refusal:  # a model that has only one dtype
        if out_of_memory(refusal):
            raise
    return subject.model, x.dtype


# Evidence


def spread(points: Tensor) -> Tensor:
    """(d,): the standard deviation of each coordinate, 1 where it has none."""
    spread = points.std(0) if len(points) > 1 else torch.ones_like(points[0])
    return torch.where(spread > 0, spread, 1.0)


def over(errors: Tensor, bounds: Tensor) -> Tensor:
    """(n,): for each row the largest error's own bound, where errors beside their bounds (n, d) are largest.

    Scaled so that the largest error of the row exceeds it if and only if some error exceeds its bound.
    """
    excess = (errors / bounds.nan_to_num(0.0)).nan_to_num(0.0, math.inf).amax(1)
    largest = errors.amax(1)
    return torch.where(excess > 0, largest / excess, bounds.nan_to_num(0.0).amin(1)).nan_to_num(0.0)


def decided(errors: Tensor, bounds: Tensor, subject: Subject, unit: str = "sd of the coordinate") -> Exact:
    """Evidence from errors and bounds (n,), of rows at which rounding does not drown the law, if there are any."""
    errors, bounds = errors.nan_to_num(math.inf, math.inf), bounds.nan_to_num(math.inf, math.inf)
    settled = bounds <= subject.effort.tolerance
    settled = settled if bool(settled.any()) else bounds < math.inf
    if not bool(settled.any()):
        raise NotApplicable("rounding drowns the law at every point that was tried")
    errors, bounds = errors[settled], bounds[settled]
    return replace(compared(errors, bounds, subject.effort.tolerance), unit=unit)
