r"""Integrals of black-box densities over R^2, R^3 or boxes in them.

Each peak (location, scale) has its own coordinates: x = box.x(t), t = location + scale @ z, z_i = sinh(u_i), in which
Gaussian peaks fall doubly exponentially and power laws exponentially. Several peaks are kept apart by a smooth
partition of unity, w_k = g_k / sum_j g_j with g_k the Gaussian of peak k: int p = sum_k int p w_k.

1. The trapezoidal rule in u, steps halved: for analytic densities its error falls like exp(-c / h) (Trefethen &
   Weideman 2014, The exponentially convergent trapezoidal rule, https://doi.org/10.1137/130932132). The error is the
   last change by halving, accepted only where it is much smaller than the one before, plus what the faces of the grid
   say about the mass beyond.
2. Otherwise, as at jumps, adaptive subdivision with the rules of degree 7 and 5 by Genz & Malik (1980,
   https://doi.org/10.1016/0771-050X(80)90039-X), many regions a call; the error is the sum over regions of
   max(|I7 - I5|, A min(1, (20 |I7 - I5| / A)^(3/2))) with A = int |f - mean|, and where the edge of the support cuts
   a region no less than what fits between its rim and the outermost points.

A peak that no location points to and that lies between all points stays unseen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from harness.numerics.box import Box
from harness.numerics.integral import Evaluator, Function, Integral, LogDensity

FARTHEST = 40.0
"""Largest |u| of a grid: |z| = sinh(40) = 1e17."""

SLIVER = 0.06
"""Share of a region that lies beyond the outermost points, 1 - sqrt(9/10) of a half-width, with some margin."""

LEAST = 2.4
"""Least |u| of a grid: |z| = sinh(2.4) = 5.5."""

FALL = 34.0
"""The first grid ends where, along the axes, the integrand has fallen by this much."""


@dataclass(frozen=True)
class _Frame:
    """Coordinates u of one peak, among all peaks."""

    box: Box
    locations: Tensor
    scales: Tensor
    which: int

    def x(self, u: Tensor) -> Tensor:
        """Points (n, d) at u."""
        return self.box.x(self.locations[self.which] + torch.sinh(u) @ self.scales[self.which].mT)

    def inside(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Points moved off the limits by a unit in the last place, and whether they lie within 4 such units of one.

        There the distance to the limit, and with it a singular density, is known only to its order of magnitude.
        """
        x, low, high = self.x(u), self.box.lower, self.box.upper
        if not bool((low.isfinite() | high.isfinite()).any()):
            return x, torch.zeros(len(x), dtype=torch.bool)
        far = torch.tensor(math.inf, dtype=torch.float64)
        inner = torch.minimum(torch.maximum(x, torch.nextafter(low, far)), torch.nextafter(high, -far))
        close = (x - low <= 2.0**-50 * low.abs()) | (high - x <= 2.0**-50 * high.abs())
        return inner, close.any(-1)

    def log_weight(self, u: Tensor) -> Tensor:
        """log |det dx/du| plus the log of this peak's share in the partition of unity (n,)."""
        scale = self.scales[self.which]
        t = self.locations[self.which] + torch.sinh(u) @ scale.mT
        log_speed = self.box.log_jacobian(t) + torch.cosh(u).log().sum(-1) + torch.linalg.slogdet(scale)[1]
        if len(self.locations) == 1:
            return log_speed
        z = torch.linalg.solve(self.scales, (t - self.locations[:, None]).mT)  # (m, d, n)
        log_g = -z.square().sum(1) / 2 - torch.linalg.slogdet(self.scales)[1][:, None]
        return log_speed + log_g[self.which] - log_g.logsumexp(0)


class _Integrand:
    """f p dx/du at points u, relative to exp(shift); counts points."""

    def __init__(self, evaluate: Evaluator, frame: _Frame, shift: float, noise: float):
        self.evaluate, self.frame, self.shift, self.noise = evaluate, frame, shift, noise
        self.undefined = 0

    def log_q(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log p and log of p dx/du; NaN and +inf count as undefined and become -inf."""
        log_p = self.evaluate(self.frame.inside(u)[0])
        bad = ~(log_p < math.inf)
        self.undefined += int(bad.sum())
        log_p = torch.where(bad, -math.inf, log_p)
        return log_p, torch.where(bad, -math.inf, log_p + self.frame.log_weight(u)).nan_to_num(nan=-math.inf)

    def __call__(self, u: Tensor) -> Tensor:
        """(n, 1 + k + 1): the functions times q, and last the bound on the rounding of q."""
        log_p, log_q = self.log_q(u)
        q = (log_q - self.shift).exp()
        x, at_limit = self.frame.inside(u)
        weighted = q[:, None]
        if self.evaluate.functions:
            weighted = weighted * torch.where(weighted > 0, self.evaluate.weights(x, log_p), 0.0)
        rounding = q * (self.noise * (1 + torch.where(q > 0, log_p.abs(), 0.0)) + 10.0 * at_limit)
        return torch.cat([weighted, rounding[:, None]], -1)


def integrate_nd(
    log_density: LogDensity,
    functions: Sequence[Function] = (),
    *,
    location: Float[Tensor, "*#m d"],
    scale: Float[Tensor, "*#m d d"],
    lower: float | Sequence[float] | Float[Tensor, " d"] = -math.inf,
    upper: float | Sequence[float] | Float[Tensor, " d"] = math.inf,
    rtol: float = 1e-6,
    max_points: int = 2_000_000,
    noise: float = 2.0**-50,
) -> Integral:
    """Integrals of p and of f p over a box in 2 or 3 dimensions (limits once for all axes, or one each).

    `location` (d,) or (m, d) are the centres of the peaks and `scale` (d, d) or (m, d, d) their sizes, such as Cholesky
    factors of covariances, both in x; `locate` finds them. Of a box the density is taken in logarithms of distances to
    its finite limits, so that singular ends are fine. `noise` is the relative precision of the log-density.
    `converged` is False when the errors are above `rtol` of the integral of |f| p after `max_points`.
    """
    centres = torch.as_tensor(location, dtype=torch.float64)
    centres = centres.reshape(-1, centres.shape[-1])
    m, d = centres.shape
    if d not in (2, 3):
        raise ValueError(f"integrate_nd is for 2 or 3 dimensions, not {d}")
    box = Box.of(lower, upper, d)
    t = box.t(centres)
    sizes = torch.as_tensor(scale, dtype=torch.float64).expand(m, d, d) / _speed(box, t)[:, :, None]
    evaluate = Evaluator(log_density, functions)
    shift = _highest(evaluate, box, t, sizes)
    if shift == -math.inf:
        zero = torch.zeros(1 + len(functions), dtype=torch.float64)
        return Integral(zero, zero + math.inf, evaluate.points, False, -math.inf, message="no mass at the locations")
    value, error, size = (torch.zeros(1 + len(functions), dtype=torch.float64) for _ in range(3))
    undefined = 0
    for k in range(m):
        integrand = _Integrand(evaluate, _Frame(box, t, sizes, k), shift, noise)
        budget = (max_points - evaluate.points) // (m - k)
        here, doubt, magnitude = _peak(integrand, d, rtol, budget)
        value, error, size = value + here, error + doubt, size + magnitude
        undefined += integrand.undefined
    if undefined:
        error = error + math.inf
    return _result(value, error, size, shift, rtol, evaluate.points, undefined)


def _result(
    value: Tensor, error: Tensor, size: Tensor, shift: float, rtol: float, points: int, undefined: int
) -> Integral:
    factor, total = math.exp(min(shift, 690.0)), float(value[0])
    converged = bool((error <= rtol * size).all())
    unsure = f"NaN or +inf at {undefined} points" if undefined else "did not converge: see error"
    log_total = shift + math.log(total) if total > 0 else -math.inf
    return Integral(value * factor, error * factor, points, converged, log_total, message="" if converged else unsure)


def _speed(box: Box, t: Tensor) -> Tensor:
    """dx/dt of each axis (m, d)."""
    axes = range(t.shape[1])
    columns = [Box(box.lower[i : i + 1], box.upper[i : i + 1]).log_jacobian(t[:, i : i + 1]).exp() for i in axes]
    return torch.stack(columns, -1)


def _highest(evaluate: Evaluator, box: Box, t: Tensor, scales: Tensor) -> float:
    """The largest log p dx/du on a coarse grid around each peak."""
    d = t.shape[1]
    u = torch.cartesian_prod(*[torch.linspace(-2, 2, 9, dtype=torch.float64)] * d)
    tops = []
    for k in range(len(t)):
        log_q = _Integrand(evaluate, _Frame(box, t, scales, k), 0.0, 0.0).log_q(u)[1]
        tops.append(float(log_q.max()))
    return max(tops)


def _peak(integrand: _Integrand, d: int, rtol: float, budget: int) -> tuple[Tensor, Tensor, Tensor]:
    """Value, error and size (integral of |f| p) of one peak's integrals."""
    start = integrand.evaluate.points
    low, high = _extent(integrand, d, rtol, budget)
    grid = _trapezoid(integrand, low, high, rtol, budget // 2)
    if grid is not None:
        return grid
    return _subdivide(integrand, low, high, rtol, budget - (integrand.evaluate.points - start))


def _extent(integrand: _Integrand, d: int, rtol: float, room: int) -> tuple[Tensor, Tensor]:
    """A box of u: where the integrand has fallen by FALL along axes and diagonals, grown while its faces carry mass."""
    start = integrand.evaluate.points
    directions = torch.tensor([s for s in itertools.product((-1.0, 0.0, 1.0), repeat=d) if any(s)], dtype=torch.float64)
    steps = torch.linspace(0, FARTHEST, 161, dtype=torch.float64)
    u = steps[:, None, None] * directions
    log_q = integrand.log_q(u.reshape(-1, d))[1].reshape(len(steps), -1)
    alive = log_q > max(integrand.shift, float(log_q.max())) - FALL
    reach = torch.where(alive, steps[:, None], 0.0).amax(0)[:, None] * directions  # (directions, d)
    ends = torch.stack([reach.amin(0).clamp(max=-LEAST), reach.amax(0).clamp(min=LEAST)])
    for _ in range(40):
        step, axes = _coarse_axes(ends, room // 20)
        if integrand.evaluate.points - start + math.prod(len(a) for a in axes) > room // 4:
            break
        _, size, beyond, _ = _grid_sums(integrand, axes, step**d)
        short = (beyond[..., 0] > 0.01 * rtol * size[0]) & (ends.abs() < FARTHEST)
        if not bool(short.any()):
            break
        ends = torch.where(short, ends * 1.1 + torch.tensor([[-0.5], [0.5]]), ends)
    integrand.undefined = 0
    return ends[0], ends[1]


def _axis(low: float, high: float, step: float) -> Tensor:
    """Multiples of the step that cover low ... high."""
    return torch.arange(math.floor(low / step), math.ceil(high / step) + 1, dtype=torch.float64) * step


def _coarse_axes(ends: Tensor, room: int) -> tuple[float, list[Tensor]]:
    """A grid for looking at the faces: step 1/8 in two dimensions, 1/4 in three, more if that takes too many points."""
    step = 0.125 if ends.shape[1] == 2 else 0.25
    while step < 0.5 and math.prod((float(b - a) / step + 1) for a, b in ends.T) > room:
        step *= 2
    return step, [_axis(float(a), float(b), step) for a, b in ends.T]


def _trapezoid(
    integrand: _Integrand, low: Tensor, high: Tensor, rtol: float, budget: int
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Trapezoidal sums with steps 1/2, 1/4, ...; None if their changes do not fall fast enough within the budget."""
    d = len(low)
    spent = integrand.evaluate.points
    last: Tensor | None = None
    change: Tensor | None = None
    for level in range(1, 8):
        step = 0.5**level
        axes = [_axis(float(a), float(b), step) for a, b in zip(low, high, strict=True)]
        count = math.prod(len(a) for a in axes)
        if integrand.evaluate.points - spent + count > budget:
            return None
        sums, size, faces, noise = _grid_sums(integrand, axes, step**d)
        beyond = faces.sum((0, 1))
        if integrand.undefined:
            return None
        if last is not None:
            changed = (sums - last).abs()
            allowed = rtol * size
            settled = (changed <= 1e-3 * allowed) | (changed <= noise)  # what is left is rounding
            fast = change is None or bool(((changed <= 0.03 * change) | settled).all())
            if fast and change is not None and bool((changed + beyond + noise <= allowed).all()):
                return sums, changed + beyond + noise, size
            if change is not None and not fast and bool((changed > 0.3 * change).any()) and level > 3:
                return None
            change = changed
        last = sums
    return None


def _grid_sums(integrand: _Integrand, axes: Sequence[Tensor], volume: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum over a grid, sum of absolute values, what lies beyond each face (2, d, k), rounding.

    Beyond a face the layers are taken to go on falling at the rate of the last three, at least 1/10 per unit of u.
    """
    d = len(axes)
    u = torch.cartesian_prod(*axes)
    q = torch.cat([integrand(part) for part in u.split(2**16)]) * volume
    size = q[:, :-1].abs()
    cube = size.reshape(*(len(a) for a in axes), -1)
    step = float(axes[0][1] - axes[0][0])
    faces = [cube.sum([j for j in range(d) if j != i])[[0, 3, -1, -4]] for i in range(d)]
    outer, inner = (torch.stack([f[k::2] for f in faces], 1) for k in (0, 1))  # (2, d, k): lower and upper faces
    rate = (inner.clamp(min=1e-300).log() - outer.clamp(min=1e-300).log()) / (3 * step)
    beyond = torch.where(rate > 0.1, outer / -torch.expm1(-rate * step), math.inf)
    beyond = torch.where(outer == 0, 0.0, beyond)
    total = q.sum(0)
    noise = total[-1] * torch.where(total[0] != 0, size.sum(0) / total[0].abs().clamp(min=1e-300), 1.0)
    return total[:-1], size.sum(0), beyond, noise + 1e-15 * size.sum(0)


@dataclass(frozen=True)
class _GenzMalik:
    """Points in [-1, 1]^d, weights of degree 7 and 5 (they add to 1), and corners and face centres, of no weight."""

    points: Tensor
    seventh: Tensor
    fifth: Tensor
    rim: Tensor

    @staticmethod
    def of(d: int) -> _GenzMalik:
        l2, l3, l5 = math.sqrt(9 / 70), math.sqrt(9 / 10), math.sqrt(9 / 19)
        eye = torch.eye(d, dtype=torch.float64)
        near = torch.cat([l2 * eye, -l2 * eye])
        far = torch.cat([l3 * eye, -l3 * eye])
        pairs = torch.stack([l3 * (a * eye[i] + b * eye[j]) for i in range(d) for j in range(i) for a in (1, -1)
                             for b in (1, -1)])  # fmt: skip
        corners = torch.tensor(list(itertools.product((-l5, l5), repeat=d)), dtype=torch.float64)
        groups = (torch.zeros(1, d, dtype=torch.float64), near, far, pairs, corners)
        w7 = ((12824 - 9120 * d + 400 * d * d) / 19683, 980 / 6561, (1820 - 400 * d) / 19683, 200 / 19683,
              6859 / 19683 / 2**d)  # fmt: skip
        w5 = ((729 - 950 * d + 50 * d * d) / 729, 245 / 486, (265 - 100 * d) / 1458, 25 / 729, 0.0)
        weights = [torch.cat([torch.full((len(g),), w, dtype=torch.float64) for g, w in zip(groups, ws, strict=True)])
                   for ws in (w7, w5)]  # fmt: skip
        return _GenzMalik(torch.cat(groups), weights[0], weights[1], torch.cat([corners / l5, eye, -eye]))

    def __call__(self, integrand: _Integrand, centre: Tensor, half: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Values, errors, sizes (r, k) of regions centre +- half (r, d), and the axis (r,) to split."""
        r, d = centre.shape
        u = centre[:, None] + half[:, None] * torch.cat([self.points, self.rim])
        parts = [integrand(part) for part in u.reshape(-1, d).split(2**16)]
        everywhere = torch.cat(parts).reshape(r, u.shape[1], -1)
        q, top = everywhere[:, : len(self.points)], everywhere[..., :-1].abs().amax(1)
        dead = everywhere[..., 0] == 0
        volume = (2 * half).prod(-1)[:, None]
        f, noise = q[..., :-1], q[..., -1].mean(1, keepdim=True) * volume
        i7 = (f * self.seventh[:, None]).sum(1) * volume
        i5 = (f * self.fifth[:, None]).sum(1) * volume
        mean = (i7 / volume)[:, None]
        spread = ((f - mean).abs() * self.seventh.abs()[:, None]).sum(1) * volume / self.seventh.abs().sum()
        size = f.abs().mean(1) * volume
        difference = (i7 - i5).abs()
        steep = spread * (20 * difference / spread.clamp(min=1e-300)).clamp(max=1) ** 1.5
        cut = (dead.any(1) & ~dead.all(1))[:, None]  # the edge of the support may pass outside all weighted points
        error = torch.maximum(difference, torch.where(cut, torch.maximum(steep, SLIVER * top * volume), steep)) + noise
        g = f[..., 0]
        near = g[:, 1 : 1 + d] + g[:, 1 + d : 1 + 2 * d] - 2 * g[:, :1]
        far = g[:, 1 + 2 * d : 1 + 3 * d] + g[:, 1 + 3 * d : 1 + 4 * d] - 2 * g[:, :1]
        fourth = (far - 7 * near).abs()
        rough = fourth + 1e-3 * fourth.amax(1, keepdim=True) * half / half.amax(1, keepdim=True)
        return i7, error, size, torch.where(fourth.sum(1) > 0, rough.argmax(1), half.argmax(1))


def _subdivide(
    integrand: _Integrand, low: Tensor, high: Tensor, rtol: float, budget: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Adaptive subdivision of the box; what lies beyond it is taken from the trapezoidal faces."""
    d = len(low)
    rule = _GenzMalik.of(d)
    step, axes = _coarse_axes(torch.stack([low, high]), budget // 4)
    beyond = _grid_sums(integrand, axes, step**d)[2].sum((0, 1))
    low, high = torch.stack([a[0] for a in axes]), torch.stack([a[-1] for a in axes])
    spent = integrand.evaluate.points
    pieces = 8 if d == 2 else 6
    cells = torch.cartesian_prod(*[torch.arange(pieces, dtype=torch.float64)] * d)
    half = ((high - low) / (2 * pieces)).expand(len(cells), d)
    centre = low + (2 * cells + 1) * half
    value, error, size, axis = rule(integrand, centre, half)
    while True:
        allowed = rtol * size.sum(0)
        total = error.sum(0)
        room = (budget - (integrand.evaluate.points - spent)) // (2 * (len(rule.points) + len(rule.rim)))
        if bool((total <= allowed).all()) or room < 1:
            break
        excess = (error / allowed.clamp(min=1e-300)).amax(1)
        order = excess.argsort(descending=True)
        chosen = order[excess[order] > 0.5 / len(order)][: min(room, max(64, len(order) // 3))]
        if not len(chosen):
            break
        keep = torch.ones(len(error), dtype=torch.bool)
        keep[chosen] = False
        smaller = half[chosen].clone()
        smaller.scatter_(1, axis[chosen, None], smaller.gather(1, axis[chosen, None]) / 2)
        shift = torch.zeros_like(smaller).scatter(1, axis[chosen, None], smaller.gather(1, axis[chosen, None]))
        new_centre = torch.cat([centre[chosen] - shift, centre[chosen] + shift])
        new_half = torch.cat([smaller, smaller])
        fresh = rule(integrand, new_centre, new_half)
        centre, half = torch.cat([centre[keep], new_centre]), torch.cat([half[keep], new_half])
        value, error, size, axis = (torch.cat([old[keep], new]) for old, new in zip((value, error, size, axis), fresh, strict=True))  # fmt: skip  # noqa: E501
    return value.sum(0), error.sum(0) + beyond, size.sum(0)
