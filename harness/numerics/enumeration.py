"""Sums over finite and countable supports, in constant memory.

A finite support is a grid of alphabets and is summed in full. A support on the integers is walked outward in blocks
that double in length; the tail beyond the last block is extrapolated from the blocks' sums by Wynn's epsilon algorithm
(Wynn 1956, On a device for computing the e_m(S_n) transformation, https://doi.org/10.2307/2002183), which is exact for
sums of geometric terms: a tail k^-s gives block sums that are asymptotically geometric with ratio 2^(1-s).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64, Num, Shaped
from torch import Tensor

from harness.numerics.integral import CHUNK, Evaluator, Function, Integral, LogDensity

ROUNDOFF = 2.0**-52
SHORTEST = 2**9
"""No tail is judged before its blocks are this long: gaps in the support shorter than that are walked over."""


def enumerate_grid(
    alphabets: Sequence[Shaped[Tensor, " _values"] | int], *, batch: int = 2**16
) -> Iterator[Float64[Tensor, "n d"]]:
    """All states of the product of the alphabets, last coordinate fastest, as batches in float64.

    An alphabet is a tensor of values, or an integer m for 0, ..., m - 1.
    """
    letters = [torch.arange(a) if isinstance(a, int) else torch.as_tensor(a) for a in alphabets]
    letters = [a.to(torch.float64).reshape(-1) for a in letters]
    sizes = [len(a) for a in letters]
    states = math.prod(sizes)
    for start in range(0, states, batch):
        index = torch.arange(start, min(start + batch, states))
        digits = []
        for letter in reversed(letters):
            digits.append(letter[index % len(letter)])
            index = index // len(letter)
        yield torch.stack(digits[::-1], -1) if digits else torch.empty(len(index), 0, dtype=torch.float64)


def log_sum_exp_streaming(parts: Iterable[Float[Tensor, " _n"]]) -> float:
    """log of the sum of exp over all numbers of all parts: keeps the running maximum m and sum of exp(. - m)."""
    total = -math.inf
    for part in parts:
        if part.numel():
            total = float(torch.logaddexp(torch.tensor(total, dtype=torch.float64), part.double().logsumexp(-1)).max())
    return total


@dataclass
class _Sums:
    """Running sums of p, f p and |f| p relative to exp(shift), with the rounding error that log p may carry."""

    evaluate: Evaluator
    noise: float
    shift: float = -math.inf
    sums: Tensor = field(default_factory=lambda: torch.zeros(()))
    noises: Tensor = field(default_factory=lambda: torch.zeros(()))
    undefined: int = 0

    def __post_init__(self) -> None:
        self.sums = torch.zeros(1 + len(self.evaluate.functions), dtype=torch.float64)
        self.noises = self.sums.clone()

    def rescale(self, shift: float) -> float:
        """Raise the shift; returns the factor by which sums taken before must be multiplied."""
        factor = math.exp(self.shift - shift) if shift > self.shift > -math.inf else 1.0
        if shift > self.shift:
            self.sums, self.noises, self.shift = self.sums * factor, self.noises * factor, shift
        return factor

    def add(self, x: Tensor) -> tuple[Tensor, float]:
        """Add the states x (n, d); returns their own sums and the factor that rescales earlier ones."""
        log_p = self.evaluate(x)
        bad = log_p.isnan() | (log_p == math.inf)
        self.undefined += int(bad.sum())
        log_p = torch.where(bad, -math.inf, log_p)
        factor = self.rescale(float(log_p.max()))
        if self.shift == -math.inf:
            return torch.zeros_like(self.sums), factor
        p = (log_p - self.shift).exp()
        terms = p[:, None] * self.evaluate.weights(x, log_p)
        rounding = self.noise * (1 + torch.where(p > 0, log_p.abs(), 0.0)) + ROUNDOFF
        here = terms.sum(0)
        self.sums = self.sums + here
        self.noises = self.noises + (terms.abs() * rounding[:, None]).sum(0)
        return here, factor

    def result(self, rest: Tensor, rest_error: Tensor, converged: bool, message: str) -> Integral:
        """The integral, with an extrapolated rest (and its error) added."""
        if self.undefined:
            converged, message = False, f"{self.undefined} states have no finite log-mass (NaN or +inf)"
            rest_error = rest_error + math.inf
        values, error = self.sums + rest, self.noises + rest_error
        scale = math.exp(min(self.shift, 700.0)) if self.shift > -math.inf else 0.0
        total = float(values[0])
        return Integral(
            values=values * scale,
            error=torch.where(error == 0, 0.0, error * scale if scale else error),
            points=self.evaluate.points,
            converged=converged,
            log_total=self.shift + math.log(total) if total > 0 else -math.inf,
            message=message,
        )


def sum_states(
    log_mass: LogDensity,
    alphabets: Sequence[Shaped[Tensor, " _values"] | int],
    functions: Sequence[Function] = (),
    *,
    batch: int = 2**16,
    noise: float = 2.0**-50,
) -> Integral:
    """Sums of p(x) and of f(x) p(x) over every state of a finite grid; the error is that of rounding alone.

    `noise` is the relative precision of the log-mass: |error of log p| <= noise (1 + |log p|).
    """
    sums = _Sums(Evaluator(log_mass, functions), noise)
    for states in enumerate_grid(alphabets, batch=batch):
        sums.add(states)
    none = torch.zeros_like(sums.sums)
    return sums.result(none, none, True, "")


def wynn_epsilon(partial: Float64[Tensor, "n k"]) -> Float64[Tensor, "m k"]:
    """The last two even columns' ends of Wynn's epsilon table for partial sums: estimates of the limit.

    eps_{j+1}(n) = eps_{j-1}(n+1) + 1 / (eps_j(n+1) - eps_j(n)). Row i of the result uses the last 2 i + 1 sums.
    """
    previous, current = torch.zeros_like(partial), partial
    ends = [partial[-1]]
    for column in range(1, len(partial)):
        difference = current[1:] - current[:-1]
        following = previous[1 : len(difference) + 1] + torch.where(difference == 0, math.inf, 1 / difference)
        previous, current = current, following
        if column % 2 == 0:
            ends.append(current[-1])
    return torch.stack(ends)


@dataclass
class _Side:
    """One direction of the walk: where it stands, and the sums of its doubling blocks."""

    sign: int
    position: int
    last: float
    block: int = 1
    blocks: list[Tensor] = field(default_factory=list)
    done: bool = False

    def next_range(self) -> tuple[int, int]:
        """Integers low, ..., high of the next block, clipped at the limit of the support."""
        far = self.position + self.sign * (self.block - 1)
        far = int(min(far, self.last) if self.sign > 0 else max(far, self.last))
        return (self.position, far) if self.sign > 0 else (far, self.position)

    def advance(self) -> None:
        """Move on by a block and double its length."""
        self.position += self.sign * self.block
        self.block *= 2
        self.done = self.position > self.last if self.sign > 0 else self.position < self.last

    def tail(self) -> tuple[Tensor, Tensor]:
        """What lies beyond the last block, and the uncertainty of that, from the blocks so far."""
        sums = torch.stack(self.blocks)
        last = sums[-1].abs()
        if self.done or len(sums) < 3 or self.block < SHORTEST:
            return torch.zeros_like(last), torch.zeros_like(last) if self.done else torch.full_like(last, math.inf)
        ratio = last / sums[-2].abs()
        before = sums[-2].abs() / sums[-3].abs()
        light = (ratio <= 0.25) & ((ratio <= before) | (ratio <= 0.05)) | (last == 0)
        bound = 2 * last * ratio / (1 - ratio).clamp(min=0.5)
        rest, error = _extrapolate(sums)
        divergent = (ratio >= 0.99) | ~torch.isfinite(rest)
        error = torch.where(divergent & ~light, math.inf, torch.where(light, torch.nan_to_num(bound), error))
        return torch.where(light | divergent, 0.0, rest), error


def _extrapolate(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Limit of the blocks' partial sums minus the last; error: the spread of the estimates that use fewer blocks."""
    sums = sums[-13:]
    partial = sums.cumsum(0)
    now, earlier = wynn_epsilon(partial), wynn_epsilon(partial[:-1])
    rows = min(len(now), len(earlier))
    change = torch.nan_to_num((now[:rows] - earlier[:rows]).abs(), nan=math.inf)
    change[0] = math.inf
    best = change.argmin(0, keepdim=True)
    rest = now.gather(0, best)[0] - partial[-1]
    inner = torch.nan_to_num((now[:rows].gather(0, best) - now[:rows].gather(0, (best - 1).clamp(min=0)))[0].abs())
    return rest, 2 * change.gather(0, best)[0] + 0.1 * torch.minimum(inner, rest.abs()) + ROUNDOFF * partial[-1].abs()


def enumerate_integers(
    log_mass: LogDensity,
    start: Sequence[float] | Num[Tensor, "*n"] = (0,),
    functions: Sequence[Function] = (),
    *,
    lower: float = -math.inf,
    upper: float = math.inf,
    tolerance: float = 1e-12,
    max_points: int = 2**22,
    noise: float = 2.0**-50,
) -> Integral:
    """Sums of p(k) and of f(k) p(k) over the integers lower <= k <= upper.

    The hull of the `start` values (means, modes or draws; at least one must see mass) is summed first, then blocks of
    lengths 1, 2, 4, ... on either side until the tail beyond them is below `tolerance` of the sum of |f| p or until
    `max_points`. Errors: the rounding of log p; for a light tail (blocks that fall ever faster, at least fourfold)
    twice the geometric bound; for a heavy one the spread of its extrapolations. A tail that does not fall is infinite.
    """
    places = torch.as_tensor(start, dtype=torch.float64).reshape(-1).clamp(lower, upper).round()
    low, high = int(places.min()), int(places.max())
    evaluate = Evaluator(log_mass, functions)
    sums = _Sums(evaluate, noise)
    sides = [_Side(1, high + 1, upper, done=high + 1 > upper), _Side(-1, low - 1, lower, done=low - 1 < lower)]
    if high - low >= max_points:
        infinite = torch.full_like(sums.sums, math.inf)
        return sums.result(torch.zeros_like(infinite), infinite, False, "the start values lie too far apart to sum")
    _add_range(sums, low, high, [])
    for side in sides:
        side.block = max(1, (high - low) // 4)
    while not _settled(sums, sides, tolerance):
        side = max((s for s in sides if not s.done), key=_urgency)
        if evaluate.points + side.block > max_points:
            break
        earlier = [block for s in sides for block in s.blocks]
        side.blocks.append(_add_range(sums, *side.next_range(), earlier))
        side.advance()
    return _finish(sums, sides, tolerance)


def _add_range(sums: _Sums, low: int, high: int, earlier: list[Tensor]) -> Tensor:
    """Add the integers low, ..., high in bounded batches; rescales the blocks that were summed earlier."""
    own = torch.zeros_like(sums.sums)
    for first in range(low, high + 1, CHUNK):
        k = torch.arange(first, min(first + CHUNK, high + 1), dtype=torch.float64)[:, None]
        here, factor = sums.add(k)
        own = own * factor + here
        for block in earlier:
            block *= factor
    return own


def _urgency(side: _Side) -> float:
    """Which side to walk next: the one with the larger unsettled tail, shorter block first."""
    if len(side.blocks) < 3 or side.block < SHORTEST:
        return math.inf
    return float(side.blocks[-1][0].abs()) / (1 + math.log2(side.block)) + 1e-300 / side.block


def _tails(sums: _Sums, sides: list[_Side]) -> tuple[Tensor, Tensor]:
    """What is left beyond both sides, and its uncertainty."""
    rest, error = torch.zeros_like(sums.sums), torch.zeros_like(sums.sums)
    for side in sides:
        if not side.done:
            beyond, uncertain = side.tail() if side.blocks else (rest * 0, rest + math.inf)
            rest, error = rest + beyond, error + uncertain
    return rest, error


def _settled(sums: _Sums, sides: list[_Side], tolerance: float) -> bool:
    """Whether both tails are known to the tolerance; a walk that has seen no mass yet goes on."""
    if all(side.done for side in sides):
        return True
    if sums.shift == -math.inf:
        return False
    error = _tails(sums, sides)[1]
    return bool((error <= tolerance * sums.sums.abs().clamp(min=float(sums.sums[0]))).all())


def _finish(sums: _Sums, sides: list[_Side], tolerance: float) -> Integral:
    settled = _settled(sums, sides, tolerance)
    rest, error = _tails(sums, sides)
    if sums.shift == -math.inf:
        everything = all(side.done for side in sides)
        return sums.result(rest * 0, error * 0 if everything else error + math.inf, everything, "no mass was found")
    return sums.result(rest, error, settled, "" if settled else "the tail is uncertain: see error")
