r"""The two ends of a bijection x = f(z), in the finest dtype that it works in, and how far rounding goes between them.

Everything is worked out in float64 where the model can be had in it, and allowed the rounding of float32. An inverse
that is found by iteration, or a flow by an integrator, errs by more, whatever the dtype: how much that is of its
volumes is measured by `left_by_solver`. How far rounding at one end is from the other end is measured, too. A
coordinate that is off by u times its size moves f, and so does f's own rounding, by about

.. math:: u \, R_f(z), \qquad R_f(z) = \max_{s \in \{-1, 1\}^d} |f(z + h s \cdot |z|) - f(z)| / h,

over a few random signs s, since rounding errors are as random as these (Higham & Mary 2019,
https://doi.org/10.1137/18M1226312). As h is not far above the rounding of the arithmetic, noise of f shows in R_f too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.checks.law import NotApplicable
from harness.checks.precision import Watched
from harness.checks.rounding import ELEMENTARY, LAMBDA, SAFETY
from harness.errors import out_of_memory
from harness.model import Model
from harness.subject import Subject

ROWS = 64
"""Points at which round trips are made."""

ENTRIES = 1024
"""Rows times coordinates of Jacobians, and the most coordinates: each takes a pass back through the map."""

JACOBIANS = 16
"""Most points at which a Jacobian is taken."""

PROBES = 8
"""Random signs, of which not all will hide the direction that is stretched most."""

STEP = 2.0**-20
"""Of a coordinate's size: above the rounding of float32, and so small that maps are straight over it."""

STRIDE = 2.0**-4
"""A step over which a map that tells its arguments apart at all does more than round."""

SLOPE_STEP = 2.0**-17
"""For differences in float64: the cube root of its rounding, where the error of a slope is least."""

SOLVED = 2.0**-12
"""Standard deviations, 2.4e-4, that a point may be off by after the way there and back, when one of the ways is a root
or an integral: half of the digits of float32, at which solvers are stopped, or later. It is declared, not derived; what
a PASS by it could have missed moves probabilities by 0.4 of it at most, 1e-4, a thirtieth of what `thorough` promises.
Four of it in nats, 2^-10, are granted to volumes: a third of that promise.
"""

FLOAT32, FLOAT64 = (torch.finfo(dtype).eps / 2 for dtype in (torch.float32, torch.float64))

Map = Callable[[Tensor], Tensor]
"""(n, d) -> (n, d), or (n,)."""


@dataclass(frozen=True)
class Ends:
    """A bijection of flat events, and points at both ends: z (n, d) of its base, or what its draws come from, and draws
    x (n, d). `unit` is the roundoff of its arithmetic."""

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
        return LAMBDA * (ELEMENTARY + self.x.shape[1]) ** 0.5

    def reach(self, function: Map, points: Tensor, size: Tensor, step: float = STEP) -> Tensor:
        """R of the docstring above, of the shape of function(points), for steps by `size` (n, d)."""
        h = max(step, 16 * self.unit)
        here = function(points)
        most = torch.zeros_like(here)
        for other in self.around(points, h * size):
            most = torch.maximum(most, (tried(function, other, here) - here).abs() / h)  # NaN stays
        return most

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
        if z.shape != x.shape:
            raise NotApplicable(f"the base has events {tuple(z.shape[1:])}, and the model {tuple(x.shape[1:])}")
        model, dtype = _finest(subject, z, x)
        z, x = (points.to(dtype) for points in _points(subject, model))
        with Watched() as watched:
            seen = [
                answer(model, "forward", z, z.shape),
                answer(model, "inverse", x, x.shape),
                answer(model, "log_det", z, z.shape[:1]),
            ]
    units = {torch.finfo(kind).eps / 2 for kind in (*watched.dtypes, *(each.dtype for each in seen))}
    seed = subject.seed_for("signs of the probes")
    return Ends(model, tuple(x.shape[1:]), z.reshape(len(z), -1), x.reshape(len(x), -1), max(units), seed)


def _points(subject: Subject, model: Model) -> tuple[Tensor, Tensor]:
    """Draws of the base of a model, or what its draws come from, and its draws; both (n, *event).

    Of streams that know nothing of the subject's dtype: a FAIL that is tried again in float64 is tried at its points.
    """
    there = Subject(model, subject.effort, subject.seed)
    x = there.sample(ROWS, "round trip draws") if model.can("sample") else subject.pilot[:ROWS]
    x = x[x.reshape(len(x), -1).isfinite().all(1)]
    z = base_draws(there, len(x), "round trip")
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
        answers = (model.forward(z.double()), model.inverse(x.double()), model.log_det(z.double()))
        if all(each.dtype == torch.float64 for each in answers):
            return model, torch.float64
    except Exception as refusal:  # a model that has only one dtype
        if out_of_memory(refusal):
            raise
    return subject.model, x.dtype


# Determinants


def few(points: Tensor) -> Tensor:
    """Rows at which a Jacobian is affordable. Raises NotApplicable where none is."""
    d = points.shape[1]
    if d > ENTRIES:
        raise NotApplicable(f"a Jacobian of {d} coordinates takes {d} passes; at most {ENTRIES} are made")
    return points[: max(1, min(JACOBIANS, ENTRIES // d))]


@dataclass(frozen=True)
class Determinants:
    """log |det J| (n,), and how far rounding of the entries of J takes it (n,)."""

    log_abs: Tensor
    rounding: Tensor


def determinants(ends: Ends, function: Map, points: Tensor) -> Determinants:
    """A relative error e of all entries moves log |det J| by at most e sum_ij |J^-1|_ji |J|_ij.

    So much is allowed for rounding.
    An output that is known to u of its size may have slopes that are known no better, as 1 - s is where s is close to
    1: where they are small beside that size, that is more than u of them.
    """
    j, off = _jacobian(ends, function, points)
    back = torch.linalg.inv_ex(j).inverse.abs().mT
    with torch.no_grad():
        told = (j.abs() @ size_of(points).double()[:, :, None])[:, :, 0]
        vague = (size_of(function(points)).double() / told).sum(1)
    shares = back * j.abs()
    rounding = ends.factor * (ends.granted * shares.sum((1, 2)) + SAFETY * ends.unit * vague)
    return Determinants(torch.linalg.slogdet(j).logabsdet, rounding + (back * off).sum((1, 2)))


def left_by_solver(subject: Subject) -> float:
    """By how many nats log |det J| of one way and of the other fail to cancel, beyond rounding, at the worst of points.

    Both are of derivatives that autograd takes, and no log_det is asked. Of maps in closed form it is 0; of an
    integrator, what its steps leave of a volume, where they do not leave the same on both ways. 0 where it cannot be
    measured.
    """
    return subject.once("what the solver leaves", lambda: _left(ends_of(subject)))


def _left(ends: Ends) -> float:
    try:
        z = few(ends.z)
        with torch.no_grad():
            x = ends.forward(z)
        kept = x.isfinite().all(1)
        there, back = determinants(ends, ends.forward, z[kept]), determinants(ends, ends.inverse, x[kept])
    except (NotApplicable, ValueError, RuntimeError) as refusal:  # it is for the laws themselves to say so
        if out_of_memory(refusal):
            raise
        return 0.0
    gap = (there.log_abs + back.log_abs).abs() - there.rounding - back.rounding
    gap = gap[gap.isfinite()].clamp(min=0.0)
    return float(gap.max()) if len(gap) else 0.0


def _jacobian(ends: Ends, function: Map, points: Tensor) -> tuple[Tensor, Tensor]:
    """J (n, d, d) with J_ij = d f_i / d p_j, and how far each entry may be off, by autograd or else by differences."""
    leaf = points.clone().requires_grad_()
    with torch.enable_grad():
        value = function(leaf)
        if value.requires_grad:
            rows = [
                torch.autograd.grad(value[:, i].sum(), leaf, retain_graph=True, allow_unused=True)[0]
                for i in range(value.shape[1])
            ]
            if any(row is not None for row in rows):
                j = torch.stack([torch.zeros_like(leaf) if row is None else row for row in rows], 1).detach().double()
                return j, torch.zeros_like(j)
    if ends.unit > FLOAT64:
        raise NotApplicable("the map keeps no graph, and its arithmetic is too coarse for differences")
    coarse, fine = (_slopes(function, points, step) for step in (SLOPE_STEP, SLOPE_STEP / 4))
    return fine, SAFETY * (coarse - fine).abs()


def _slopes(function: Map, points: Tensor, step: float) -> Tensor:
    """(n, d, d): central differences, one coordinate at a time."""
    size, columns = size_of(points), []
    with torch.no_grad():
        for j in range(points.shape[1]):
            h = torch.zeros_like(points)
            h[:, j] = step * size[:, j]
            ahead, behind = points + h, points - h
            columns.append((function(ahead) - function(behind)) / (ahead - behind)[:, j, None])
    return torch.stack(columns, 2).double()
