"""Errata about products of factors: one too many, one that sees itself, fewer neighbours, another order, grey levels.

Each formula is a function of a law of D pixels, p(x) = prod_i p(x_i | x_<i), from i = 1 to D.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from harness.mutants.autoregressive import Levels
from harness.mutants.mutant import Mutant, NearMiss, answering
from harness.mutants.structure import nothing


class Nade:
    """D binary pixels: p(x_i = 1 | x_<i) = sigma(V_i h_i + b_i) with h_i = sigma(W_<i x_<i + c), W_<i the columns < i.

    One W (H, D) is shared by all pixels, V is (D, H). Larochelle & Murray 2011, The Neural Autoregressive Distribution
    Estimator.
    """

    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, shared: Tensor, offset: Tensor, out: Tensor, bias: Tensor):
        self.shared, self.offset, self.out, self.bias = shared, offset, out, bias

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        d = len(self.bias)
        x = torch.zeros(n, d, dtype=self.bias.dtype)
        u = torch.rand(n, d, generator=generator, dtype=self.bias.dtype)
        for i in range(d):
            x[:, i] = (u[:, i] < self.logit(x[:, :i], i).sigmoid()).to(x)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        x = x.to(self.bias)
        return _bernoulli(x, torch.stack([self.logit(x[:, :i], i) for i in range(len(self.bias))], 1))

    def logit(self, seen: Tensor, i: int) -> Tensor:
        """Logit of pixel i (n,), given the pixels (n, k) that stand in the columns < k of W."""
        hidden = (seen @ self.shared[:, : seen.shape[1]].T + self.offset).sigmoid()  # (n, H)
        return hidden @ self.out[i] + self.bias[i]


def _bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) of bits (n, D) whose logits are given; -inf where a value is no bit."""
    log_p = -torch.nn.functional.softplus(torch.where(x == 1, -logits, logits))
    return torch.where((x == 0) | (x == 1), log_p, -math.inf).sum(1)


# E25: which columns of W a pixel may see


def _with_the_pixel(law: Nade, x: Tensor) -> Tensor:
    """W_<i read as the first i columns counted from 1: the conditional of pixel i sees pixel i."""
    x = x.to(law.bias)
    return _bernoulli(x, torch.stack([law.logit(x[:, : i + 1], i) for i in range(len(law.bias))], 1))


def _added_before(law: Nade, x: Tensor) -> Tensor:
    return _running(law, x, late=False)


def _added_after(law: Nade, x: Tensor) -> Tensor:
    return _running(law, x, late=True)


def _running(law: Nade, x: Tensor, late: bool) -> Tensor:
    """a_1 = c and a_{i+1} = a_i + W_i x_i, in O(H D): pixel i has to be added after its own conditional."""
    x = x.to(law.bias)
    a, logits = law.offset.expand(len(x), -1), []
    for i, column in enumerate(law.shared.unbind(1)):
        added = a + x[:, i : i + 1] * column
        logits.append((a if late else added).sigmoid() @ law.out[i] + law.bias[i])
        a = added
    return _bernoulli(x, torch.stack(logits, 1))


# E09: how many factors there are


def _one_more(law: Nade, x: Tensor) -> Tensor:
    """p(x_0) prod_{i=1..D}, with the first pixel for x_0: D + 1 factors."""
    return law.log_prob(x) + _bernoulli(x[:, :1].to(law.bias), law.logit(x[:, :0].to(law.bias), 0)[:, None])


def _after_a_start(law: Nade, x: Tensor) -> Tensor:
    """The same, with a start symbol for x_0, which is certain: p(x_0) = 1."""
    certain = torch.zeros(len(x), dtype=law.bias.dtype)
    return certain + law.log_prob(x)


# E26: independence that a model does not assume


def _of_the_last(law: Nade, x: Tensor) -> Tensor:
    """p(x_i | x_i-1) for p(x_i | x_<i): the density of a Markov chain, and a law, but not that of the draws."""
    x, columns = x.to(law.bias), torch.arange(len(law.bias))
    return _bernoulli(x, torch.stack([law.logit(x * (columns == i - 1), i) for i in range(len(law.bias))], 1))


# E27: what tells two PixelRNNs apart


def _along_diagonals(law: Levels) -> Tensor:
    """The order of the diagonals, for pixels that are drawn row by row."""
    rows, columns = law.event_shape
    return torch.tensor(sorted(range(rows * columns), key=lambda i: (i // columns + i % columns, i // columns)))


# E23: grey levels


class Level:
    """A grey level in {0, ..., 7}: p(k) = F((k + 1/2 - m) / s) - F((k - 1/2 - m) / s), where both ends take the tails.

    F is the logistic function; Salimans et al. 2017, https://arxiv.org/abs/1701.05517.
    """

    support: constraints.Constraint = constraints.integer_interval(0, 7)

    def __init__(self) -> None:
        self.m, self.s = torch.tensor(5.2, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        u = torch.rand(n, generator=generator, dtype=self.m.dtype)
        return (self.m + self.s * torch.logit(u)).round().clamp(0, 7)

    def log_prob(self, x: Tensor) -> Tensor:
        x = x.to(self.m)
        above = torch.where(x == 7, 1.0, self.up_to(x + 0.5))
        below = torch.where(x == 0, 0.0, self.up_to(x - 0.5))
        return self.inside(x, (above - below).log())

    def up_to(self, x: Tensor) -> Tensor:
        return ((x - self.m) / self.s).sigmoid()

    def inside(self, x: Tensor, log_p: Tensor) -> Tensor:
        return torch.where((x >= 0) & (x <= 7) & (x == x.round()), log_p, -math.inf)


def _density_of_level(law: Level, x: Tensor) -> Tensor:
    """x in R: the logistic density at the level, for its mass."""
    x = x.to(law.m)
    z = (x - law.m) / law.s
    return law.inside(x, -z - 2 * torch.nn.functional.softplus(-z) - law.s.log())


class Dithered(Level):
    """A level and uniform noise, z = k + u on [0, 8), which has a density: that of the level below z."""

    support = constraints.interval(0.0, 8.0)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        k = super().sample(n, generator=generator)
        return k + torch.rand(n, generator=generator, dtype=k.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(torch.where(x == 8, 7.0, x.to(self.m).floor()))


def _pixels() -> Nade:
    """Four pixels, three hidden units."""
    t = torch.arange(12, dtype=torch.float64)
    shared, out = 2 * torch.cos(t**2).reshape(3, 4), 2 * torch.sin(t**2).reshape(4, 3)
    return Nade(shared, torch.cos(t[:3]), out, torch.sin(t[:4]))


def _pair() -> Nade:
    """Two pixels, of which the second has no others before it than the last."""
    law = _pixels()
    return Nade(law.shared[:, :2], law.offset, law.out[:2], law.bias[:2])


def _rows() -> Levels:
    """3 x 3 pixels row by row, each given all before it."""
    return Levels((3, 3), 2, range(9))


def _near_rows() -> Levels:
    """The same, each given the last three alone: a smaller receptive field."""
    return Levels((3, 3), 2, range(9), window=3)


SUMS, INTEGRATES, MASSES = "density.sums_to_one", "density.integrates_to_one", "sampler.region_masses"
CAUSAL = "autoregressive.causal_by_perturbation"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("one_more", "p(x_0) prod_{i=1..D}", SUMS, _pixels, answering(log_prob=_one_more), erratum="E09"),
    Mutant("density_of_level", "x in R", SUMS, Level, answering(log_prob=_density_of_level), erratum="E23"),
    Mutant("sees_itself", "columns <= i of W", SUMS, _pixels, answering(log_prob=_with_the_pixel), erratum="E25"),
    Mutant("added_before", "W_i x_i added too soon", SUMS, _pixels, answering(log_prob=_added_before), erratum="E25"),
    Mutant("of_the_last", "p(x_i | x_i-1)", MASSES, _pixels, answering(log_prob=_of_the_last), erratum="E26"),
    Mutant("diagonals", "told by another order", CAUSAL, _rows, answering(ordering=_along_diagonals), erratum="E27"),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("after_a_start", "p(x_0) = 1", SUMS, _pixels, answering(log_prob=_after_a_start), "E09"),
    NearMiss("level", "a mass for each level", SUMS, Level, nothing, "E23"),
    NearMiss("dithered", "a density of k + u", INTEGRATES, Dithered, nothing, "E23"),
    NearMiss("added_after", "W_i x_i as a running sum", SUMS, _pixels, answering(log_prob=_added_after), "E25"),
    NearMiss("of_the_last", "of two pixels", MASSES, _pair, answering(log_prob=_of_the_last), "E26"),
    NearMiss("near_rows", "told by how far they see", CAUSAL, _near_rows, nothing, "E27"),
)
