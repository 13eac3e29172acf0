"""Points for a density that cannot draw: where its mass is.

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
from harness.errors import out_of_memory
from harness.event import Event, LostError, event_of
from harness.model import Model
from harness.numerics import locate
from harness.states import TooManyError, finite_states, innermost, limits
from harness.streams import generator

DECADES = range(-7, 8)
PER_DECADE = 48
SWEEPS = 80
MOST_LISTED = 2**16
LOCATED = 3
"""Most dimensions that `locate` searches by itself."""

MOST_REFUSED = 2**10
"""Events that a model may refuse by raising before it is asked only where it answered."""

GUESSES = 2**9
"""Rows of whole numbers that are tried of each kind."""

BETWEEN = 0.37
"""How far between whole numbers an event is put."""

PATIENCE = 4
"""After so many times as many refusals, within the box too, a batch with an impossible event is one of them."""

LATTICES = ((0, 1), (-1, 1), (0, 3), (0, 16))
"""Ends of the whole numbers, both signs alone where one is negative, that a law may live on which is 0 elsewhere."""

BEYOND = 1e6
"""How many times as far from the origin as its highest point a density must have fallen off."""

FARTHEST = 1e15
"""A highest point that lies further out is none."""

PLACE = "give the model a support (a discrete one if its events are discrete), or a method sample"

LogDensity = Callable[[Tensor], Tensor]


def points(model: Model, seed: int, n: int) -> Tensor:
    """About n events [n, *event] distributed roughly as the density says."""
    event = event_of(model)
    source = generator(seed, "scout")
    mass = Mass(model, event)
    if model.support is not None and model.support.is_discrete:
        return mass.events(_discrete(model, mass, n, source))
    if model.support is None:
        _heed_indices(mass)
    if not event.dtype.is_floating_point:
        return mass.events(_on_a_lattice(mass, n, source))
    return _continuous(model, mass, n, source)


def _dtype(model: Model, shape: tuple[int, ...], transform: Transform | None) -> torch.dtype:
    """float64 when the model computes in it whatever it is given, float32 otherwise."""
    free = torch.Size(shape) if transform is None else transform.inverse_shape(torch.Size(shape))
    x = torch.full((3, *free), 0.25)
    try:
        with torch.no_grad():
            value = model.log_prob(x if transform is None else transform(x))
    except Exception as refusal:  # outside the support: nothing is known, and float32 is what most models are made for
        if out_of_memory(refusal):
            raise
        return torch.float32
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _continuous(model: Model, mass: Mass, n: int, source: torch.Generator) -> Tensor:
    shape, transform, density = mass.event.shape, transform_for(model.support), mass.density
    dtype = _dtype(model, shape, transform)
    free = torch.Size(shape) if transform is None else transform.inverse_shape(torch.Size(shape))
    d = free.numel()

    def events(u: Tensor) -> Tensor:
        u = u.reshape(len(u), *free)
        return (u if transform is None else transform(u)).to(model.device)

    def log_q(u: Tensor, wanted: torch.dtype = dtype) -> Tensor:
        x = events(u)
        value = density(x.to(wanted)).to("cpu", torch.float64)
        if transform is not None:
            jacobian = transform.log_abs_det_jacobian(u.reshape(len(u), *free), x.to(u))
            value = value + jacobian.reshape(len(u), -1).sum(1)
        return value.nan_to_num(-math.inf, posinf=-math.inf, neginf=-math.inf)

    with torch.no_grad():
        start = _scan(d, source)
        values = log_q(start)
    between = (start.float() != start.float().round()).any(1)  # far out, every float32 is a whole number
    if model.support is None and not bool((values[between] > -math.inf).any()):
        return mass.events(_on_a_lattice(mass, n, source))
    u = _chain(log_q, _proposals(log_q, start, values, n, source), source)
    return events(u).to(dtype)


class Tolerant:
    """log_prob, and -inf for events that make the model raise, which are found by halving the batch.

    A model that refuses many is asked within the box of the events that it took: to find each one out takes long.
    """

    def __init__(self, model: Model):
        self.model, self.refused = model, 0
        self.box: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.refused < MOST_REFUSED or self.box is None:
            return self._asked(x)
        flat = _rows(x)
        inside = ((flat >= self.box[0]) & (flat <= self.box[1])).all(1)
        value = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
        return value.index_put((inside.nonzero()[:, 0],), self._asked(x[inside]).to(value)) if len(x) else value

    def _asked(self, x: Tensor) -> Tensor:
        try:
            value = self.model.log_prob(x)
        except Exception as error:
            if len(x) <= 1 or self.refused >= PATIENCE * MOST_REFUSED:
                if isinstance(error, NotImplementedError | AttributeError | TypeError) or out_of_memory(error):
                    raise
                self.refused += len(x)
                return torch.full((len(x),), -math.inf)
            half = len(x) // 2
            return torch.cat([self._asked(x[:half]), self._asked(x[half:])])
        if self.refused:
            self._widened(_rows(x)[value > -math.inf])
        return value

    def _widened(self, taken: Tensor) -> None:
        if not len(taken):
            return
        low, high = taken.amin(0), taken.amax(0)
        if self.box is not None:
            low, high = torch.minimum(low, self.box[0].to(low)), torch.maximum(high, self.box[1].to(high))
        self.box = low, high


def _rows(x: Tensor) -> Tensor:
    """Events as rows of numbers (n, d)."""
    return x.detach().reshape(len(x), x[:1].numel() if len(x) else 1)


def _proposals(log_q: LogDensity, start: Tensor, values: Tensor, n: int, source: torch.Generator) -> Tensor:
    """Points (n, d) around the modes, resampled by weight; `start` (m, d) are points with their log-densities."""
    if not bool((values > -math.inf).any()):
        raise LostError(f"the density is 0 wherever it was tried: {PLACE}")
    d = start.shape[1]
    if d <= LOCATED:
        found = locate(lambda x: log_q(x), d, start=start[values > -math.inf][:256])
        if not found.found:
            raise LostError(f"the mass of the density was not found ({found.message}): {PLACE}")
        centres, scales = found.centres, found.scales
    else:
        centre = _ascent(log_q, start[values.argmax()])
        peak, beyond = log_q(torch.stack([centre, BEYOND * centre])).tolist()
        if not beyond <= peak or not float(centre.abs().max()) <= FARTHEST:
            raise LostError(f"the density still rises far from the origin: {PLACE}")
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


class Mass:
    """The log-mass of whole numbers (n, d), in float64; and the events [n, *event] that they stand for."""

    def __init__(self, model: Model, event: Event):
        self.model, self.event, self.density = model, event, Tolerant(model)
        self.size = math.prod(event.shape)

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            value = self.density(self.events(x)).to("cpu", torch.float64)
        return value.nan_to_num(-math.inf, posinf=-math.inf, neginf=-math.inf)

    def events(self, x: Tensor) -> Tensor:
        """The rows as events, in the model's dtype and on its device."""
        return x.reshape(len(x), *self.event.shape).to(self.model.device, self.event.dtype)


def _discrete(model: Model, mass: Mass, n: int, source: torch.Generator) -> Tensor:
    """Whole numbers (n, d) of a law with a declared discrete support."""
    try:
        states = finite_states(model, mass.event.shape, MOST_LISTED)
    except TooManyError:
        return _walked(mass, *_corner(model, mass, n, source), source)
    if states is None:
        if mass.size > 1:
            return _walked(mass, *_corner(model, mass, n, source), source)
        return _drawn(mass, _near_mode(model, mass), n, source)
    grid = torch.cartesian_prod(*states.alphabets).reshape(states.count, -1)
    return _drawn(mass, states.decode(grid), n, source)


def _drawn(mass: Mass, x: Tensor, n: int, source: torch.Generator) -> Tensor:
    """n draws from the listed rows (m, d) by their mass."""
    log_p = mass(x)
    if not bool((log_p > -math.inf).any()):
        raise LostError(f"the mass is 0 at every state that was tried: {PLACE}")
    return x[torch.multinomial((log_p - log_p.max()).exp(), n, replacement=True, generator=source)]


def _near_mode(model: Model, mass: Mass) -> Tensor:
    """A window of integers (m, 1) around the largest mass, wide enough for nearly all of it."""
    lower, upper = (float(end) for end in limits(model, mass.event.shape))
    far = 2.0 ** torch.arange(0, 40, 0.125, dtype=torch.float64)
    x = torch.cat([torch.arange(-64, 65, dtype=torch.float64), far, -far]).round().clamp(lower, upper).unique()
    log_p = mass(x[:, None])
    mode = float(x[log_p.argmax()])
    step = max(1.0, abs(mode) / 4)
    while step >= 1:  # ascend by whole steps, ever smaller ones
        tried = torch.tensor([mode - step, mode, mode + step], dtype=torch.float64).round().clamp(lower, upper)
        best = float(tried[mass(tried[:, None]).argmax()])
        mode, step = best, step if best != mode else step / 2
    half = 32.0
    while half < MOST_LISTED / 2:
        ends = torch.tensor([mode - half, mode, mode + half], dtype=torch.float64).clamp(lower, upper)
        values = mass(ends[:, None])
        beyond = values[(ends != mode).nonzero()[:, 0]]
        if not len(beyond) or float(beyond.max()) < float(mass(torch.full((1, 1), mode))) - 20:
            break
        half *= 2
    return torch.arange(max(mode - half, lower), min(mode + half, upper) + 1, dtype=torch.float64)[:, None]


def _heed_indices(mass: Mass) -> None:
    """A law over indices, without a declared support, says something of numbers that are none. Raises LostError."""
    x = torch.arange(2 * PER_DECADE).reshape(-1, 1).double() % 4 + torch.zeros(1, mass.size)
    here = mass(x)
    if not bool((here > -math.inf).any()) or bool((here == here[0]).all()):
        return
    if mass.event.dtype.is_floating_point:
        if bool((mass(x + BETWEEN) == here).all()):
            raise LostError(f"log_prob changes at whole numbers only, as if it rounded down its input: {PLACE}")
    elif bool((mass(torch.stack([x[0], x[0] - 1])) > -math.inf).all()):
        raise LostError(f"log_prob takes -1 as well as 0, as an index counted from the end would be: {PLACE}")


def _on_a_lattice(mass: Mass, n: int, source: torch.Generator) -> Tensor:
    """Whole numbers (n, d) of a law that nobody declared discrete, and that is 0 but at some of them."""
    zero = torch.zeros(1, mass.size, dtype=torch.float64)
    guesses = [zero, zero + 1, torch.eye(mass.size, dtype=torch.float64)]
    for low, high in LATTICES:
        step = high - low if low < 0 else 1
        count = (high - low) // step + 1
        guesses.append(low + step * torch.randint(count, (GUESSES, mass.size), generator=source).double())
    x = _drawn(mass, torch.cat(guesses).unique(dim=0), n, source)
    ends = torch.full((mass.size,), math.inf, dtype=torch.float64)
    return _walked(mass, x, -ends, ends, source)


def _corner(model: Model, mass: Mass, n: int, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Uniform whole numbers (n, d) near the lower end of a declared support, and its limits (d,)."""
    lower, upper = (end.flatten() for end in limits(model, mass.event.shape))
    if isinstance(innermost(model.support), type(constraints.boolean)):
        lower, upper = torch.zeros_like(lower), torch.ones_like(upper)
    if not bool(lower.isfinite().all()):
        raise LostError("a discrete law over so many states needs a method sample")
    top = torch.where(upper.isfinite(), upper, lower + 16)
    u = torch.rand(n, len(lower), generator=source, dtype=torch.float64)
    return (lower + (top - lower + 1) * u).floor(), lower, upper


def _walked(mass: Mass, x: Tensor, lower: Tensor, upper: Tensor, source: torch.Generator) -> Tensor:
    """Rows from the whole numbers x (n, d): each sweep tries a new value of one coordinate by Metropolis' rule."""
    n, d = x.shape
    rows, value = torch.arange(n), mass(x)
    for sweep in range(max(SWEEPS, 8 * d)):
        j = sweep % d
        span = upper[j] - lower[j] + 1
        moved = x[:, j] + (2 * torch.randint(2, (n,), generator=source) - 1) * torch.randint(
            1, 3, (n,), generator=source
        )
        tried = x.clone()
        tried[rows, j] = lower[j] + (moved - lower[j]) % span if bool(span.isfinite()) else moved
        proposed = mass(tried)
        accepted = torch.rand(n, generator=source, dtype=torch.float64).log() < proposed - value
        accepted |= (value == -math.inf) & (proposed > -math.inf)
        x, value = torch.where(accepted[:, None], tried, x), torch.where(accepted, proposed, value)
    return x
