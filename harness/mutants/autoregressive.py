"""Autoregressive models that look ahead, are no laws, or draw otherwise; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from harness.model import Model
from harness.mutants.energy import edited
from harness.mutants.mutant import Change, Mutant, NearMiss, answering
from harness.mutants.structure import nothing


class Levels:
    """Numbers 0, ..., K - 1 in an array, each by a softmax regression on those before it in the order.

    With a `window` a coordinate sees so many before it only. `seen(k)` are the coordinates that step k may look at.
    """

    def __init__(self, shape: Sequence[int], k: int, order: Sequence[int], window: int | None = None):
        d = math.prod(shape)
        source = torch.Generator().manual_seed(d * k)
        self.event_shape, self.k, self.order, self.window = tuple(shape), k, list(order), window or d
        self.support = constraints.independent(constraints.integer_interval(0, k - 1), len(shape))
        self.weight = torch.randn(d, d, k, generator=source) / math.sqrt(d) * 1.5  # of x_j for the logits of x_i
        self.bias = torch.randn(d, k, generator=source) / 2

    def seen(self, step: int) -> list[int]:
        return self.order[max(0, step - self.window) : step]

    def logits(self, x: Tensor, step: int, seen: Sequence[int]) -> Tensor:
        """(n, k) of the coordinate of that step, given flat events (n, d) of which the `seen` ones count."""
        i = self.order[step]
        before = x[:, list(seen)].to(self.bias) - (self.k - 1) / 2
        return before @ self.weight[i, list(seen)] + self.bias[i]

    def conditionals(self, x: Tensor) -> Tensor:
        return factors(self, x, lambda law, step: law.seen(step))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.conditionals(x).sum(1)

    def ordering(self) -> list[int]:
        return self.order

    def receptive_field(self) -> Tensor:
        field = torch.zeros(len(self.order), len(self.order), dtype=torch.bool)
        for step, i in enumerate(self.order):
            field[i, self.seen(step)] = True
        return field

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return drawn(self, n, generator, lambda law, step: law.seen(step))

    def sample_naive(self, n: int, *, generator: torch.Generator) -> Tensor:
        """The sums in another order, as a pass over the whole event would have them."""
        return drawn(self, n, generator, lambda law, step: law.seen(step)[::-1])


class Curve:
    """x_i = m_i + s_i e for each coordinate in the order, with m_i and s_i functions of those before it."""

    def __init__(self, order: Sequence[int], far: float = 0.0, dtype: torch.dtype = torch.float32):
        d = len(order)
        source = torch.Generator().manual_seed(d)
        self.order, self.far = list(order), torch.tensor(far, dtype=dtype)
        self.weight = torch.randn(2, d, d, generator=source).to(dtype)

    def moments(self, x: Tensor, step: int, seen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """m and log s (n,)."""
        i, seen = self.order[step], list(seen)
        before = torch.tanh(x[:, seen] - self.far)
        return self.far + before @ self.weight[0, i, seen], 0.4 * torch.tanh(before @ self.weight[1, i, seen])

    def conditionals(self, x: Tensor) -> Tensor:
        columns = [torch.zeros_like(x[:, 0])] * len(self.order)
        for step, i in enumerate(self.order):
            m, log_s = self.moments(x, step, self.order[:step])
            columns[i] = -((x[:, i] - m) * (-log_s).exp()).square() / 2 - log_s - math.log(2 * math.pi) / 2
        return torch.stack(columns, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.conditionals(x).sum(1)

    def ordering(self) -> list[int]:
        return self.order

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.draw(n, generator, self.order)

    def sample_naive(self, n: int, *, generator: torch.Generator) -> Tensor:
        """The last number first among those that are seen."""
        return self.draw(n, generator, self.order, backwards=True)

    def draw(self, n: int, generator: torch.Generator, order: Sequence[int], backwards: bool = False) -> Tensor:
        """Step by step; where the order is not the model's own, each looks at what it would, drawn or not."""
        e = torch.randn(n, len(order), generator=generator, dtype=self.far.dtype)
        x = self.far.expand(n, len(order)).clone()
        for k, i in enumerate(order):
            step = self.order.index(i)
            seen = self.order[:step]
            m, log_s = self.moments(x, step, seen[::-1] if backwards else seen)
            x[:, i] = m + log_s.exp() * e[:, k]
        return x


class Geometric:
    """Two counts without an end, the second one larger where the first one is; no support is declared."""

    slope = torch.tensor(0.2)

    def _rate(self, x: Tensor, i: int) -> Tensor:
        """log of the chance to go on."""
        return -0.7 - self.slope * (x[:, 0] > 1) * i

    def conditionals(self, x: Tensor) -> Tensor:
        x = x.to(self.slope)
        possible = (x >= 0) & (x == x.round())
        rate = torch.stack([self._rate(x, i) * torch.ones(len(x), dtype=x.dtype) for i in range(2)], 1)
        return torch.where(possible, x * rate + torch.log(-torch.expm1(rate)), -math.inf)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.conditionals(x).sum(1)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        x = torch.zeros(n, 2)
        u = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        for i in range(2):
            x[:, i] = (torch.log1p(-u[:, i]) / self._rate(x, i).double()).floor()
        return x


Seen = Callable[[Levels, int], Sequence[int]]
"""Which coordinates a step looks at."""


def factors(law: Levels, x: Tensor, seen: Seen) -> Tensor:
    """log p(x_i | what its step looks at), (n, d)."""
    flat = x.flatten(1)
    columns = [torch.zeros(0)] * len(law.order)
    for step, i in enumerate(law.order):
        log_p = law.logits(flat, step, seen(law, step)).log_softmax(-1)
        level = flat[:, i]
        possible = (level >= 0) & (level < law.k) & (level == level.round())
        chosen = log_p.gather(1, torch.where(possible, level, 0).long()[:, None])[:, 0]
        columns[i] = torch.where(possible, chosen, -math.inf)
    return torch.stack(columns, 1)


def drawn(law: Levels, n: int, generator: torch.Generator, seen: Seen, heat: float = 1.0) -> Tensor:
    """Step by step, with a uniform number for each."""
    u = torch.rand(n, len(law.order), generator=generator, dtype=torch.float64)
    x = law.bias.new_zeros(n, len(law.order))
    for step, i in enumerate(law.order):
        ends = (law.logits(x, step, seen(law, step)) / heat).double().softmax(-1).cumsum(-1)
        x[:, i] = torch.searchsorted(ends, u[:, step, None] * ends[:, -1:], right=True)[:, 0].to(x)
    return x.reshape(n, *law.event_shape)


MIXED = (3, 0, 4, 1, 5, 2)
"""An order that is neither rising nor falling."""


def bits() -> Levels:
    return Levels((6,), 2, MIXED)


def windowed() -> Levels:
    return Levels((6,), 3, range(6), window=2)


def picture() -> Levels:
    """Three channels of 2 x 2 pixels: pixel by pixel, R before G before B."""
    return Levels((3, 2, 2), 3, [4 * channel + pixel for pixel in range(4) for channel in range(3)])


def curve() -> Curve:
    return Curve((2, 0, 1))


def pair_far_away() -> Curve:
    return Curve((1, 0), far=100.0)


# Defects


def looking(seen: Seen) -> Change:
    """The change that lets each step look at other coordinates, in the conditionals and in the density."""
    return answering(
        conditionals=lambda law, x: factors(law, x, seen),
        log_prob=lambda law, x: factors(law, x, seen).sum(1),
    )


def drawing(seen: Seen, heat: float = 1.0) -> Change:
    """The change that lets the sampler look at other coordinates than the conditionals do."""
    return answering(sample=lambda law, n, *, generator: drawn(law, n, generator, seen, heat))


def stating(order: Sequence[int]) -> Change:
    """The change that says of another order that it is the model's."""
    return lambda model: {"ordering": lambda: order}


def _with_itself(law: Levels, step: int) -> list[int]:
    return law.order[: step + 1]


def _with_next(law: Levels, step: int) -> list[int]:
    """A mask shifted by one: not itself, but its successor."""
    return law.order[:step] + law.order[step + 1 : step + 2]


def _blue_first(law: Levels, step: int) -> list[int]:
    """Channels in the order B, G, R."""
    pixel, channel = divmod(step, 3)
    return law.order[: 3 * pixel] + law.order[3 * pixel + channel + 1 : 3 * pixel + 3]


def _all_but_the_last(law: Levels, step: int) -> list[int]:
    """A cache that is one step behind."""
    return law.order[: max(0, step - 1)]


def _nothing_at_all(law: Levels, step: int) -> list[int]:
    return []


def _in_rising_order(law: Any, n: int, *, generator: torch.Generator) -> Tensor:
    """The coordinates 0, 1, ... in turn, whatever the order is: what was not drawn yet is still at its start."""
    if isinstance(law, Curve):
        return law.draw(n, generator, sorted(law.order))
    u = torch.rand(n, len(law.order), generator=generator, dtype=torch.float64)
    x = law.bias.new_zeros(n, len(law.order))
    for i in range(len(law.order)):
        step = law.order.index(i)
        ends = law.logits(x, step, law.seen(step)).double().softmax(-1).cumsum(-1)
        x[:, i] = torch.searchsorted(ends, u[:, i, None] * ends[:, -1:], right=True)[:, 0].to(x)
    return x.reshape(n, *law.event_shape)


def _a_factor_too_many(model: Model) -> dict[str, Callable[..., Any]]:
    """p(x_0) times factors 0 to D - 1."""
    return {"log_prob": lambda x: model.conditionals(x).sum(1) + model.conditionals(x)[:, 0]}


def _column(i: int, edit: Callable[[Tensor], Tensor]) -> Change:
    """One conditional changed."""

    def of_all(found: Tensor) -> Tensor:
        found = found.clone()
        found[:, i] = edit(found[:, i])
        return found

    return edited("conditionals", of_all)


def _faint(model: Model) -> dict[str, Callable[..., Any]]:
    """A leak below the rounding of float32."""

    def leaking(x: Tensor) -> Tensor:
        found = model.conditionals(x).clone()
        found[:, 2] += 1e-8 * torch.tanh(x[:, 1])
        return found

    return {"conditionals": leaking}


def _only_the_last(law: Levels) -> Tensor:
    return Levels((len(law.order),), law.k, law.order, window=1).receptive_field()


def _all_before(law: Levels) -> Tensor:
    return Levels((len(law.order),), law.k, law.order).receptive_field()


def _a_number_each(law: Levels, n: int, *, generator: torch.Generator) -> Tensor:
    """Uniform numbers in another order than the cached sampler takes them."""
    torch.rand(n, generator=generator)
    return law.sample(n, generator=generator)


def _soft_mask(law: Levels, x: Tensor) -> Tensor:
    """Logits with -1e9 in place of -inf, a level that has probability 0 in floating point."""
    found = factors(law, x, lambda law, step: law.seen(step))
    return torch.where(found == -math.inf, -1e9, found)


WELL, SUM, EACH = "autoregressive.well_formed", "autoregressive.sums_to_log_prob", "autoregressive.each_normalised"
CAUSAL, SLOPES = "autoregressive.causal_by_perturbation", "autoregressive.causal_by_jacobian"
FIELD, CACHED, DRAWN = (
    "autoregressive.receptive_field",
    "autoregressive.cached_is_naive",
    "autoregressive.rosenblatt",
)

MUTANTS: tuple[Mutant, ...] = (
    Mutant("no_number", "NaN where x_2 = 1", WELL, bits, _column(2, lambda c: c.where(c < -0.5, math.nan))),
    Mutant("a_column_short", "d - 1 columns", WELL, bits, edited("conditionals", lambda c: c[:, 1:]), error=True),
    Mutant("one_number", "log p for its factors", WELL, bits, edited("conditionals", lambda c: c.sum(1)), error=True),
    Mutant("no_order", "0 twice", WELL, curve, stating([0, 0, 1]), error=True),
    Mutant("a_factor_too_many", "p(x_0) counted twice", SUM, bits, _a_factor_too_many, erratum="E09"),
    Mutant("a_factor_too_few", "without the last", SUM, curve, edited("conditionals", lambda c: c * (c != c[:, -1:]))),
    Mutant("mean", "a mean for a sum", SUM, picture, edited("log_prob", lambda p: p / 12)),
    Mutant("sees_itself", "columns <= i of W", EACH, bits, looking(_with_itself), erratum="E25"),
    Mutant("sees_itself_in_colour", "mask A taken for mask B", EACH, picture, looking(_with_itself)),
    Mutant("one_too_large", "one factor x 1.02", EACH, bits, _column(4, lambda c: c + 0.02)),
    Mutant("one_too_small", "one factor x 0.98", EACH, picture, _column(5, lambda c: c - 0.02)),
    Mutant("half_log_two_pi", "without 1/2 log 2 pi", EACH, curve, _column(1, lambda c: c + math.log(2 * math.pi) / 2)),
    Mutant("tempered", "log p / 1.05", EACH, curve, edited("conditionals", lambda c: c / 1.05)),
    Mutant("sees_next", "a mask shifted by one", CAUSAL, bits, looking(_with_next)),
    Mutant("blue_first", "B, G, R for R, G, B", CAUSAL, picture, looking(_blue_first)),
    Mutant("order_reversed", "the order stated backwards", CAUSAL, curve, edited("ordering", lambda o: o[::-1])),
    Mutant("in_rising_order", "0, 1, ... for the order", CAUSAL, bits, stating(range(6))),
    Mutant("faint", "a leak of 1e-8", SLOPES, curve, _faint),
    Mutant("order_reversed", "the order stated backwards", SLOPES, curve, edited("ordering", lambda o: o[::-1])),
    Mutant("too_small", "a window of 1 for 2", FIELD, windowed, answering(receptive_field=_only_the_last)),
    Mutant("upside_down", "rows for columns", FIELD, windowed, edited("receptive_field", lambda f: f.mT)),
    Mutant("stale", "a cache that is a step behind", CACHED, bits, drawing(_all_but_the_last)),
    Mutant("stale_in_colour", "a cache that is a step behind", CACHED, picture, drawing(_all_but_the_last)),
    Mutant("other_numbers", "random numbers in another order", CACHED, bits, answering(sample_naive=_a_number_each)),
    Mutant("other_order", "draws in rising order", CACHED, curve, answering(sample=_in_rising_order)),
    Mutant("in_rising_order", "draws in rising order", DRAWN, bits, answering(sample=_in_rising_order)),
    Mutant("curve_in_rising_order", "draws in rising order", DRAWN, curve, answering(sample=_in_rising_order)),
    Mutant("stale", "a cache that is a step behind", DRAWN, bits, drawing(_all_but_the_last)),
    Mutant("independent", "no context", DRAWN, picture, drawing(_nothing_at_all)),
    Mutant("too_hot", "logits / 1.3", DRAWN, bits, drawing(lambda law, step: law.seen(step), heat=1.3)),
    Mutant("wider", "draws x 1.1", DRAWN, curve, edited("sample", lambda x: 1.1 * x)),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("order_of_tensors", "the order as a tensor", WELL, bits, edited("ordering", torch.tensor)),
    NearMiss("picture", "events of shape (3, 2, 2)", WELL, picture, nothing),
    NearMiss("far_away", "centred 100 from the origin", SUM, pair_far_away, nothing),
    NearMiss("picture", "events of shape (3, 2, 2)", SUM, picture, nothing),
    NearMiss("counts", "without an end, and no support", EACH, Geometric, nothing),
    NearMiss("far_away", "centred 100 from the origin", EACH, pair_far_away, nothing),
    NearMiss("soft_mask", "-1e9 for -inf", EACH, picture, answering(conditionals=_soft_mask)),
    NearMiss("windowed", "sees less than it might", CAUSAL, windowed, nothing),
    NearMiss("picture", "R, G, B", CAUSAL, picture, nothing),
    NearMiss("far_away", "centred 100 from the origin", CAUSAL, pair_far_away, nothing),
    NearMiss("far_away", "centred 100 from the origin", SLOPES, pair_far_away, nothing),
    NearMiss("wide", "float64", SLOPES, lambda: Curve((0, 1, 2, 3), dtype=torch.float64), nothing),
    NearMiss("windowed", "a window of 2", FIELD, windowed, nothing),
    NearMiss("generous", "a field larger than need be", FIELD, windowed, answering(receptive_field=_all_before)),
    NearMiss("summed_backwards", "naive sums in another order", CACHED, picture, nothing),
    NearMiss("far_away", "centred 100 from the origin", CACHED, pair_far_away, nothing),
    NearMiss("picture", "R, G, B", DRAWN, picture, nothing),
    NearMiss("counts", "without an end, and no support", DRAWN, Geometric, nothing),
    NearMiss("far_away", "centred 100 from the origin", DRAWN, pair_far_away, nothing),
    NearMiss("windowed", "sees less than it might", DRAWN, windowed, nothing),
)
