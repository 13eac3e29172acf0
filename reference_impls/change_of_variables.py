r"""The law of z = f(x) when x has a density: a map moves mass, and stretches or squeezes what it moves.

    p_z(z) = p_x(g(z)) |det dg/dz|,  g = f^-1,     so     log p_z(f(x)) = log p_x(x) - log |det J(x)|,  J_ij = df_i/dx_j

The absolute value matters: a decreasing f has a negative slope, and its density is still positive. An f on the line
that is not monotone is cut into branches that are, and the density at z is the sum over all x that are sent there:

    p_z(z) = sum over x with f(x) = z of  p_x(x) / |f'(x)|

`SquaredUniform` is the example in closed form, z = x^2 with x uniform on [0, a]: p(z) = 1 / (2 a sqrt z) on (0, a^2].
The interval [0, a] is that of x. The density grows without bound towards 0, where it is not defined.

Entropy changes with the map, H(z) = H(x) + E log |det J|; divergences and mutual informations between coordinates that
are mapped one by one do not. Maps of many variables are in `change_of_variables_nd`.

Source: Casella & Berger, Statistical Inference (2nd ed., 2002), theorems 2.1.5, 2.1.8 and section 4.3.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from reference_impls.gaussian import DiagonalGaussian
from reference_impls.gaussian_factors import as_floats, checked_draws, checked_sample, checked_shares
from reference_impls.uniform import Uniform


class SquaredUniform:
    """z = x^2 with x uniform on [0, a], a > 0: z / a^2 ~ Beta(1/2, 1). Draws have shape (n, 1)."""

    number, family, d = "M05", "square of a uniform variable", 1

    def __init__(self, a: Tensor | float):
        (self.a,) = as_floats(a)  # ()
        if self.a.dim() != 0 or not (self.a > 0 and self.a.square().isfinite() and self.a.square() > 0):
            raise ValueError("a should be a number above 0 whose square is finite and above 0 too")

    def log_prob(self, z: Tensor) -> Tensor:
        """-log(2 a sqrt z) on (0, a^2]."""
        z, a = as_floats(checked_draws(z, 1)[:, 0], self.a)  # (n,), ()
        inside = (z > 0) & (z <= self.a.square())  # the end is that of draws, squared in the dtype of the model
        log_prob = -(2 * a).log() - torch.where(inside, z, 1).log() / 2
        return torch.where(z.isnan(), math.nan, torch.where(inside, log_prob, -math.inf))  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """The square of a (1 - u), u uniform on [0, 1): x is in (0, a], as z = 0 has no density."""
        u = torch.rand(n, 1, generator=generator, dtype=torch.float64, device=self.a.device)
        z = (self.a * (1 - u)).square().to(self.a.dtype)  # (n, 1)
        return torch.minimum(z, self.a.square())

    def mean(self) -> Tensor:
        return (self.a.square() / 3)[None]  # (1,)

    def variance(self) -> Tensor:
        """E x^4 - (E x^2)^2 = a^4/5 - a^4/9."""
        return (4 * self.a**4 / 45)[None]  # (1,)

    def entropy(self) -> Tensor:
        """H(x) + E log(2 x) = 2 log a + log 2 - 1 in nats: negative for a = 1, as differential entropies can be."""
        return 2 * self.a.log() + math.log(2) - 1  # ()

    def kl(self, other: "SquaredUniform") -> Tensor:
        """That of the uniform laws, log(a_q / a_p) or infinity: a bijection leaves divergences as they are."""
        a_p, a_q = as_floats(self.a, other.a)
        return torch.where(a_p <= a_q, (a_q / a_p).log(), math.inf)  # ()

    def cdf(self, z: Tensor) -> Tensor:
        """P(x <= sqrt z) = sqrt(z) / a."""
        z, a = as_floats(checked_draws(z, 1)[:, 0], self.a)
        return (z.clamp_min(0).sqrt() / a).clamp_max(1)  # (n,)

    def icdf(self, u: Tensor) -> Tensor:
        u, a = as_floats(checked_shares(u), self.a)
        return torch.where((u >= 0) & (u <= 1), (a * u).square(), math.nan)[:, None]  # (n, 1)

    @classmethod
    def fit(cls, z: Tensor) -> "SquaredUniform":
        """Maximum likelihood: the smallest a whose interval holds the largest draw."""
        z = checked_draws(checked_sample(z), 1)
        if not (z > 0).all():
            raise ValueError("z should be above 0, as the square of x in (0, a] is")
        a = z.max().sqrt()
        return cls(torch.where(a.square() < z.max(), torch.nextafter(a, a + 1), a))  # rounding may not exclude it

    def to(self, *args, **kwargs) -> "SquaredUniform":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return SquaredUniform(self.a.to(*args, **kwargs))


# Maps of the line


@dataclass(frozen=True)
class Branch:
    """A strictly monotone piece of f, from the interval [low, high] of x onto the interval [bottom, top] of z = f(x).

    Its functions are elementwise: f, the inverse g of that piece, and log |f'(x)|. Ends may be infinite.
    """

    low: float
    high: float
    bottom: float
    top: float
    f: Callable[[Tensor], Tensor]
    g: Callable[[Tensor], Tensor]
    log_slope: Callable[[Tensor], Tensor]

    def __post_init__(self):
        if not (self.low < self.high and self.bottom < self.top):
            ends = (self.low, self.high, self.bottom, self.top)
            raise ValueError(f"a branch needs low < high and bottom < top; they are {ends}")


class PiecewiseMonotone:
    """z = f(x) for x from a model `base` on the line, draws (n, 1), with f given by its monotone branches.

    The intervals of x are disjoint but for their ends, and together hold all of x; a draw outside them raises.
    """

    number, family, d = "I09", "monotone pieces of a map of the line", 1

    def __init__(self, base, branches: Sequence[Branch]):
        self.base, self.branches = base, tuple(sorted(branches, key=lambda branch: branch.low))
        if base.d != 1 or not self.branches:
            raise ValueError(f"base should be on the line and branches not empty; they are R^{base.d} and {branches}")
        if any(one.high > two.low for one, two in zip(self.branches, self.branches[1:], strict=False)):
            raise ValueError("the branches overlap: cut f into pieces on disjoint intervals of x")

    def log_prob(self, z: Tensor) -> Tensor:
        """log of the sum over branches of p_x(g(z)) / |f'(g(z))|."""
        z = checked_draws(z, 1)
        terms = torch.stack([self._term(branch, z) for branch in self.branches])  # (branches, n)
        return torch.where(z[:, 0].isnan(), math.nan, terms.logsumexp(0))  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        x = self.base.sample(n, generator=generator)  # (n, 1)
        z, done = torch.full_like(x, math.nan), torch.zeros_like(x, dtype=torch.bool)
        for branch in self.branches:
            here = (x >= branch.low) & (x <= branch.high) & ~done
            z[here], done = branch.f(x[here]), done | here
        if not done.all():
            raise ValueError("the base draws values that no branch covers; add the branches that are missing")
        return z

    def to(self, *args, **kwargs) -> "PiecewiseMonotone":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return PiecewiseMonotone(self.base.to(*args, **kwargs), self.branches)

    def _term(self, branch: Branch, z: Tensor) -> Tensor:
        inside = (z >= branch.bottom) & (z <= branch.top) & z.isfinite()  # (n, 1)
        x = branch.g(torch.where(inside, z, _within(branch.bottom, branch.top)))
        log_slope = branch.log_slope(x)
        inside = inside & log_slope.isfinite()  # where the slope is 0 or infinite, at an end, no density is defined
        log_prob = self.base.log_prob(x) - torch.where(inside, log_slope, 0)[:, 0]
        return torch.where(inside[:, 0], log_prob, -math.inf)


def _within(low: float, high: float) -> float:
    """Some number between the two."""
    if math.isinf(low) and math.isinf(high):
        return 0.0
    if math.isinf(high):
        return low + 1.0
    return high - 1.0 if math.isinf(low) else (low + high) / 2


def squares(low: float = -math.inf, high: float = math.inf) -> list[Branch]:
    """The branches of z = x^2 on [low, high]: x = -sqrt z where x < 0, and sqrt z where x > 0; |f'| = 2 |x|."""

    def log_slope(x: Tensor) -> Tensor:
        return (2 * x.abs()).log()

    branches = []
    if low < 0:
        end = min(high, 0.0)
        branches.append(Branch(low, end, end**2, low**2, torch.square, lambda z: -z.sqrt(), log_slope))
    if high > 0:
        start = max(low, 0.0)
        branches.append(Branch(start, high, start**2, high**2, torch.square, torch.sqrt, log_slope))
    return branches


# Ready-made models


def squared_uniform(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> SquaredUniform:
    """x^2 with x uniform on [0, 2]."""
    return SquaredUniform(torch.tensor(2.0, dtype=dtype, device=device))


def squared_interval(
    *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> PiecewiseMonotone:
    """x^2 with x uniform on [-1, 2]: two branches below z = 1, one above, where the density jumps."""
    base = Uniform(torch.tensor([-1.0]), torch.tensor([2.0])).to(*_placing(dtype, device))
    return PiecewiseMonotone(base, squares(-1.0, 2.0))


def squared_normal(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> PiecewiseMonotone:
    """x^2 with x standard normal: chi-squared with one degree of freedom."""
    return PiecewiseMonotone(_normal(0.0, dtype, device), squares())


def lognormal(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> PiecewiseMonotone:
    """exp(x) with x normal, mean 1/2 and variance 1/4: f increases, and f' = f."""
    branch = Branch(-math.inf, math.inf, 0.0, math.inf, torch.exp, torch.log, lambda x: x)
    return PiecewiseMonotone(_normal(0.5, dtype, device, 0.25), [branch])


def decreasing(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> PiecewiseMonotone:
    """-log x with x uniform on [0, 1]: f decreases, f' = -1/x, and z is exponential with mean 1."""
    base = Uniform(torch.tensor([0.0]), torch.tensor([1.0])).to(*_placing(dtype, device))
    branch = Branch(0.0, 1.0, 0.0, math.inf, lambda x: -x.log(), lambda z: (-z).exp(), lambda x: -x.log())
    return PiecewiseMonotone(base, [branch])


def _normal(mean: float, dtype, device, variance: float = 1.0) -> DiagonalGaussian:
    return DiagonalGaussian(torch.tensor([mean]), torch.tensor([variance])).to(*_placing(dtype, device))


def _placing(dtype: torch.dtype | None, device: torch.device | str | None) -> tuple:
    return device or torch.get_default_device(), dtype or torch.get_default_dtype()
