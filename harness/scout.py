"""Points for a density that cannot draw: the shape of an event, and where the mass is.

A scan over fifteen decades of scale finds a place to start, an ascent finds modes, and the curvature there gives a
proposal with heavy tails; its points are resampled by weight and moved by differential-evolution Markov chain steps
(ter Braak 2006, https://doi.org/10.1007/s11222-006-8769-1), which need no scale of their own. Discrete laws are listed
where that is feasible and walked otherwise. The points steer an examination and are no evidence of anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

from harness.chart import transform_for
from harness.model import Model
from harness.numerics import locate
from harness.states import TooManyError, finite_states, innermost, limits
from harness.streams import generator

MOST_PROBED = 64
"""Longest vector that is tried as the shape of an event."""

DECLARE = "give the model an attribute event_shape, a tuple such as (3,), or a method sample"

DECADES = range(-7, 8)
PER_DECADE = 48
SWEEPS = 80
MOST_LISTED = 2**16
LOCATED = 3
"""Most dimensions that `locate` searches by itself."""

LogDensity = Callable[[Tensor], Tensor]


class LostError(ValueError):
    """The density's shape or mass was not found; the message says what to declare."""


def points(model: Model, seed: int, n: int) -> Tensor:
    """About n events [n, *event] distributed roughly as the density says."""
    shape = event_shape(model)
    source = generator(seed, "scout")
    if model.support is not None and model.support.is_discrete:
        return _discrete(model, shape, n, source)
    return _continuous(model, shape, n, source)


def event_shape(model: Model) -> tuple[int, ...]:
    """The declared shape, or the smallest of (), (1,), (2,), … for which log_prob answers one number an event.

    A shape is passed over when it only works by broadcasting: (1,) where events (a, a) get the same number as (a,).
    """
    if model.event_shape is not None:
        return model.event_shape
    for shape in ((), *((d,) for d in range(1, MOST_PROBED + 1))):
        if _fits(model, shape) and not _broadcast(model, shape):
            return shape
    raise LostError(f"log_prob takes no event of shape () to ({MOST_PROBED},): {DECLARE}")


def _fits(model: Model, shape: tuple[int, ...]) -> bool:
    return all(_answer(model, torch.full((rows, *shape), 0.25), rows) is not None for rows in (67, 71))


def _broadcast(model: Model, shape: tuple[int, ...]) -> bool:
    """Does an event of one number pass for one of more, repeated?"""
    if shape != (1,):
        return False
    column = torch.linspace(0.2, 0.8, 67)[:, None]
    one = _answer(model, column, 67)
    for wider in range(2, MOST_PROBED + 1):
        many = _answer(model, column.expand(67, wider).contiguous(), 67)
        if many is not None:
            return one is not None and torch.equal(one, many)
    return False


def _answer(model: Model, x: Tensor, rows: int) -> Tensor | None:
    """log_prob where it is a tensor [rows]."""
    try:
        with torch.no_grad():
            value = model.log_prob(x)
    except Exception:  # any refusal of a trial shape says that it is not the model's
        return None
    return value if isinstance(value, Tensor) and tuple(value.shape) == (rows,) else None


def _dtype(model: Model, shape: tuple[int, ...], transform: Transform | None) -> torch.dtype:
    """float64 when the model computes in it whatever it is given, float32 otherwise."""
    free = torch.Size(shape) if transform is None else transform.inverse_shape(torch.Size(shape))
    x = torch.full((3, *free), 0.25)
    value = _answer(model, x if transform is None else transform(x), 3)
    return torch.float64 if value is not None and value.dtype == torch.float64 else torch.float32


def _continuous(model: Model, shape: tuple[int, ...], n: int, source: torch.Generator) -> Tensor:
    transform = transform_for(model.support)
    dtype = _dtype(model, shape, transform)
    free = torch.Size(shape) if transform is None else transform.inverse_shape(torch.Size(shape))
    d = free.numel()

    def events(u: Tensor) -> Tensor:
        u = u.reshape(len(u), *free)
        return (u if transform is None else transform(u)).to(model.device)

    def log_q(u: Tensor, wanted: torch.dtype = dtype) -> Tensor:
        x = events(u)
        value = _tolerant(model, x.to(wanted)).to("cpu", torch.float64)
        if transform is not None:
            jacobian = transform.log_abs_det_jacobian(u.reshape(len(u), *free), x.to(u))
            value = value + jacobian.reshape(len(u), -1).sum(1)
        return value.nan_to_num(-math.inf, posinf=-math.inf, neginf=-math.inf)

    u = _chain(log_q, _proposals(log_q, d, n, source), source)
    return events(u).to(dtype)


def _tolerant(model: Model, x: Tensor) -> Tensor:
    try:
        return model.log_prob(x)
    except Exception as error:  # refused: halve, until single events are found impossible
        if len(x) == 1:
            if isinstance(error, NotImplementedError | AttributeError | TypeError):
                raise
            return torch.full((1,), -math.inf)
        half = len(x) // 2
        return torch.cat([_tolerant(model, x[:half]), _tolerant(model, x[half:])])


def _proposals(log_q: LogDensity, d: int, n: int, source: torch.Generator) -> Tensor:
    """Points (n, d) around the modes, resampled by weight."""
    with torch.no_grad():
        start = _scan(d, source)
        values = log_q(start)
        if not bool((values > -math.inf).any()):
            raise LostError("the density is 0 wherever it was tried: give the model a support, or a method sample")
    if d <= LOCATED:
        found = locate(lambda x: log_q(x), d, start=start[values > -math.inf][:256])
        if not found.found:
            raise LostError(f"the mass of the density was not found ({found.message}): give the model a method sample")
        centres, scales = found.centres, found.scales
    else:
        centre = _ascent(log_q, start[values.argmax()])
        centres, scales = centre[None], _curvature(log_q, centre)[None]
    return _resampled(log_q, centres, scales, n, source)


def _scan(d: int, source: torch.Generator) -> Tensor:
    """The origin, and random directions at every decade of distance."""
    direction = torch.randn(len(DECADES), PER_DECADE, d, generator=source, dtype=torch.float64)
    size = torch.tensor([10.0**k for k in DECADES], dtype=torch.float64)
    return torch.cat([torch.zeros(1, d, dtype=torch.float64), (direction * size[:, None, None]).reshape(-1, d)])


def _ascent(log_q: LogDensity, start: Tensor) -> Tensor:
    """A mode, by L-BFGS in units of the starting point's distance, restarted in ever smaller units."""
    best, best_value = start, float(log_q(start[None]))
    for _ in range(6):
        unit = float(best.abs().max().clamp(min=1e-6))
        t = (best / unit).clone().requires_grad_()
        optimiser = torch.optim.LBFGS([t], max_iter=60, history_size=30, line_search_fn="strong_wolfe")

        def loss(t: Tensor = t, unit: float = unit, optimiser: torch.optim.LBFGS = optimiser) -> Tensor:
            optimiser.zero_grad()
            value = -log_q((t * unit)[None])[0]
            value.backward()
            return value

        try:
            optimiser.step(loss)  # type: ignore[arg-type]
        except RuntimeError:  # no gradient: the chain has to find the way by itself
            break
        value = float(log_q((t * unit).detach()[None]))
        if not value > best_value + 1e-6 * abs(best_value):
            break
        best, best_value = (t * unit).detach(), value
    return best


def _curvature(log_q: LogDensity, centre: Tensor) -> Tensor:
    """A scale matrix (d, d) from the second derivatives at a mode: the inverse square root of their negative."""
    d = len(centre)
    try:
        hessian = torch.autograd.functional.hessian(lambda u: log_q(u[None])[0], centre)
        values, vectors = torch.linalg.eigh(-hessian)  # type: ignore[operator]
    except RuntimeError:
        return torch.eye(d, dtype=torch.float64) * float(centre.abs().mean().clamp(min=1e-3))
    floor = float(values.abs().max().clamp(min=1e-12)) * 1e-12
    return vectors * values.abs().clamp(min=floor).rsqrt()


def _resampled(log_q: LogDensity, centres: Tensor, scales: Tensor, n: int, source: torch.Generator) -> Tensor:
    """Draws of an even mixture of t_3 laws at the modes, resampled by the ratio of the densities."""
    m, d = centres.shape
    which = torch.randint(m, (n,), generator=source)
    normal = torch.randn(n, d, generator=source, dtype=torch.float64)
    wide = torch.randn(n, 3, generator=source, dtype=torch.float64).square().mean(1, keepdim=True).rsqrt()
    z = normal * (wide if d <= LOCATED else 1.0)
    u = centres[which] + torch.einsum("nij,nj->ni", scales[which], z)
    with torch.no_grad():
        log_w = log_q(u) - _log_mixture(u, centres, scales)
    log_w = torch.where(log_w.isnan(), -math.inf, log_w)
    if not bool((log_w > -math.inf).any()):
        return u
    return u[torch.multinomial((log_w - log_w.max()).exp(), n, replacement=True, generator=source)]


def _log_mixture(u: Tensor, centres: Tensor, scales: Tensor) -> Tensor:
    """log-density (n,) of the even mixture, up to a constant; Gaussian components in many dimensions, else t_3."""
    d = centres.shape[1]
    parts = []
    for centre, scale in zip(centres, scales, strict=True):
        square = torch.linalg.solve(scale, (u - centre).T).square().sum(0)
        log_volume = torch.linalg.slogdet(scale).logabsdet
        kernel = -0.5 * square if d > LOCATED else -0.5 * (3 + d) * torch.log1p(square / 3)
        parts.append(kernel - log_volume)
    return torch.logsumexp(torch.stack(parts), 0)


def _chain(log_q: LogDensity, u: Tensor, source: torch.Generator) -> Tensor:
    """Differential evolution: each point tries the difference of two others, and keeps it by Metropolis' rule."""
    n, d = u.shape
    with torch.no_grad():
        value = log_q(u)
        for sweep in range(SWEEPS):
            a, b = (torch.randint(n, (n,), generator=source) for _ in range(2))
            step = 1.0 if sweep % 10 == 9 else 2.38 / math.sqrt(2 * d)
            jitter = 0.8 + 0.4 * torch.rand(n, 1, generator=source, dtype=torch.float64)
            tried = u + step * jitter * (u[a] - u[b])
            proposed = log_q(tried)
            accepted = torch.rand(n, generator=source, dtype=torch.float64).log() < proposed - value
            u, value = torch.where(accepted[:, None], tried, u), torch.where(accepted, proposed, value)
    return u


def _discrete(model: Model, shape: tuple[int, ...], n: int, source: torch.Generator) -> Tensor:
    """Events of a law with a declared discrete support."""
    try:
        states = finite_states(model, shape, MOST_LISTED)
    except TooManyError:
        return _walked(model, shape, n, source)
    if states is None:
        if math.prod(shape) > 1:
            return _walked(model, shape, n, source)
        return _drawn(model, _near_mode(model, shape), shape, n, source)
    grid = torch.cartesian_prod(*states.alphabets).reshape(states.count, -1)
    return _drawn(model, states.decode(grid), shape, n, source)


def _log_mass(model: Model, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """log p of flattened events (n, d), in float64."""
    events = x.reshape(len(x), *shape).to(model.device, torch.float32)
    with torch.no_grad():
        return _tolerant(model, events).to("cpu", torch.float64).nan_to_num(-math.inf, neginf=-math.inf)


def _drawn(model: Model, x: Tensor, shape: tuple[int, ...], n: int, source: torch.Generator) -> Tensor:
    """n draws from the listed events (m, d) by their mass."""
    log_p = _log_mass(model, x, shape)
    if not bool((log_p > -math.inf).any()):
        raise LostError("the mass is 0 at every state that was tried: give the model a method sample")
    chosen = torch.multinomial((log_p - log_p.max()).exp(), n, replacement=True, generator=source)
    return x[chosen].reshape(n, *shape).to(model.device, torch.float32)


def _near_mode(model: Model, shape: tuple[int, ...]) -> Tensor:
    """A window of integers (m, 1) around the largest mass, wide enough for nearly all of it."""
    lower, upper = (float(end) for end in limits(model, shape))
    far = 2.0 ** torch.arange(0, 40, 0.125, dtype=torch.float64)
    x = torch.cat([torch.arange(-64, 65, dtype=torch.float64), far, -far]).round().clamp(lower, upper).unique()
    log_p = _log_mass(model, x[:, None], shape)
    mode = float(x[log_p.argmax()])
    step = max(1.0, abs(mode) / 4)
    while step >= 1:  # ascend by whole steps, ever smaller ones
        tried = torch.tensor([mode - step, mode, mode + step], dtype=torch.float64).round().clamp(lower, upper)
        best = float(tried[_log_mass(model, tried[:, None], shape).argmax()])
        mode, step = best, step if best != mode else step / 2
    half = 32.0
    while half < MOST_LISTED / 2:
        ends = torch.tensor([mode - half, mode, mode + half], dtype=torch.float64).clamp(lower, upper)
        values = _log_mass(model, ends[:, None], shape)
        beyond = values[(ends != mode).nonzero()[:, 0]]
        if not len(beyond) or float(beyond.max()) < float(_log_mass(model, torch.full((1, 1), mode), shape)) - 20:
            break
        half *= 2
    return torch.arange(max(mode - half, lower), min(mode + half, upper) + 1, dtype=torch.float64)[:, None]


def _walked(model: Model, shape: tuple[int, ...], n: int, source: torch.Generator) -> Tensor:
    """Many coordinates: each sweep tries a new value of one coordinate of every row, by Metropolis' rule."""
    lower, upper = (end.flatten() for end in limits(model, shape))
    if isinstance(innermost(model.support), type(constraints.boolean)):
        lower, upper = torch.zeros_like(lower), torch.ones_like(upper)
    if not bool(lower.isfinite().all()):
        raise LostError("a discrete law over so many states needs a method sample")
    d, rows = math.prod(shape), torch.arange(n)
    top = torch.where(upper.isfinite(), upper, lower + 16)
    x = (lower + (top - lower + 1) * torch.rand(n, d, generator=source, dtype=torch.float64)).floor()
    value = _log_mass(model, x, shape)
    for sweep in range(max(SWEEPS, 8 * d)):
        j = sweep % d
        span = upper[j] - lower[j] + 1
        moved = x[:, j] + (2 * torch.randint(2, (n,), generator=source) - 1) * torch.randint(
            1, 3, (n,), generator=source
        )
        tried = x.clone()
        tried[rows, j] = lower[j] + (moved - lower[j]) % span if bool(span.isfinite()) else moved
        proposed = _log_mass(model, tried, shape)
        accepted = torch.rand(n, generator=source, dtype=torch.float64).log() < proposed - value
        accepted |= (value == -math.inf) & (proposed > -math.inf)
        x, value = torch.where(accepted[:, None], tried, x), torch.where(accepted, proposed, value)
    return x.reshape(n, *shape).to(model.device, torch.float32)
