r"""Uniform laws: every value of a finite set, or every point of a box, is as likely as any other.

    p(k) = 1 / K  for k in {0, ..., K - 1}             p(x) = prod_i 1 / (high_i - low_i)  for low_i <= x_i <= high_i

Of all laws with that support these have the largest entropy: log K, and sum_i log(high_i - low_i). The second is
negative for a box of volume below 1, and changes with the units of x: a differential entropy counts nothing.

The support depends on the parameters. So the likelihood has no slope that is zero at its maximum: the estimate is the
smallest support that holds the data, its error falls as 1/n rather than as 1/sqrt(n), and Wilks' theorem does not hold:
twice the gain of the fit tends to chi^2 with 2 degrees of freedom for each end. Hence there are no `parameters` here,
which promise a likelihood that is smooth in them.

Source: Cover & Thomas, Elements of Information Theory (2nd ed., 2006), chapters 2 and 8.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from reference_impls.discrete import is_state
from reference_impls.gaussian_factors import (
    as_floats,
    checked_draws,
    checked_sample,
    checked_shares,
    checked_values,
    same_size,
)
from reference_impls.indices import as_count, split, split_evidence, split_pair


class DiscreteUniform:
    """One of K states, 0 to K - 1, each with probability 1/K; draws are int64. There is no free real parameter."""

    number, family = "M05", "discrete uniform"

    def __init__(self, states: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None):
        self.states = as_count(states, "states")
        self._like = torch.zeros((), dtype=dtype, device=device)  # dtype of the answers, and where draws are put

    def log_prob(self, x: Tensor) -> Tensor:
        """-log K; x may come in any dtype, and what is not a state has probability zero."""
        if x.dim() != 1:
            raise ValueError(f"draws should have shape (n,), not {tuple(x.shape)}")
        level = self._like.to(torch.promote_types(x.dtype, self._like.dtype)) - math.log(self.states)
        return torch.where(is_state(x, self.states), level, -math.inf)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return torch.randint(self.states, (n,), generator=generator, device=self._like.device)  # (n,)

    def mean(self) -> Tensor:
        """The state read as a number."""
        return self._like + (self.states - 1) / 2  # ()

    def variance(self) -> Tensor:
        """(K^2 - 1) / 12."""
        return self._like + (self.states**2 - 1) / 12  # ()

    def entropy(self) -> Tensor:
        """log K, in nats."""
        return self._like + math.log(self.states)  # ()

    def kl(self, other: "DiscreteUniform") -> Tensor:
        """log(K_q / K_p), infinite when p has states that q rules out."""
        return self._like + (math.log(other.states / self.states) if self.states <= other.states else math.inf)  # ()

    @classmethod
    def fit(cls, x: Tensor) -> "DiscreteUniform":
        """Maximum likelihood: as many states as the largest one seen asks for."""
        x = torch.as_tensor(x)
        if x.dim() != 1 or len(x) == 0 or not is_state(x, 2**62).all():
            raise ValueError(f"x should be (n,) with n > 0, of whole numbers from 0 on; it has shape {tuple(x.shape)}")
        return cls(int(x.max()) + 1, device=x.device)

    def to(self, *args, **kwargs) -> "DiscreteUniform":
        """The same law with answers on another device or in another dtype, as `Tensor.to`."""
        like = self._like.to(*args, **kwargs)
        return DiscreteUniform(self.states, dtype=like.dtype, device=like.device)


class Uniform:
    """Independent coordinates, x_i uniform on [low_i, high_i], from low (d,) and high (d,)."""

    number, family = "M05", "continuous uniform"

    def __init__(self, low: Tensor, high: Tensor):
        self.low, self.high = as_floats(low, high)  # (d,), (d,)
        if self.low.dim() != 1 or len(self.low) == 0 or self.low.shape != self.high.shape:
            raise ValueError(f"low and high should be (d,), not {tuple(self.low.shape)} and {tuple(self.high.shape)}")
        self.d = len(self.low)
        if not ((self.high > self.low) & (self.high - self.low).isfinite()).all():
            raise ValueError("each high should be above its low, and both finite, so that there is a density")

    @property
    def support(self) -> Constraint:
        """The box, ends included."""
        return constraints.independent(constraints.interval(self.low, self.high), 1)

    def log_prob(self, x: Tensor) -> Tensor:
        x, low, high = as_floats(checked_draws(x, self.d), self.low, self.high)
        inside = ((x >= low) & (x <= high)).all(-1)  # (n,)
        log_prob = torch.where(inside, -(high - low).log().sum(), -math.inf)
        return torch.where(x.isnan().any(-1), math.nan, log_prob)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """low + (high - low) u, with u uniform on [0, 1) in 53 bits, rounded to the dtype of the model once."""
        u = torch.rand(n, self.d, generator=generator, dtype=torch.float64, device=self.low.device)
        x = torch.lerp(self.low.double(), self.high.double(), u)  # (n, d)
        return torch.minimum(x.to(self.low.dtype), self.high)  # rounding may not leave the box

    def mean(self) -> Tensor:
        return self.low + (self.high - self.low) / 2  # (d,)

    def variance(self) -> Tensor:
        """(high - low)^2 / 12."""
        return (self.high - self.low).square() / 12  # (d,)

    def covariance(self) -> Tensor:
        return self.variance().diag()  # (d, d)

    def entropy(self) -> Tensor:
        """Log of the volume of the box, in nats: negative when that is below 1."""
        return (self.high - self.low).log().sum()  # ()

    def kl(self, other: "Uniform") -> Tensor:
        """Log of the ratio of the volumes, infinite when this box is not inside the other."""
        same_size(self.d, other.d)
        low_p, high_p, low_q, high_q = as_floats(self.low, self.high, other.low, other.high)
        inside = ((low_q <= low_p) & (high_p <= high_q)).all()
        return torch.where(inside, ((high_q - low_q) / (high_p - low_p)).log().sum(), math.inf)  # ()

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """0: the coordinates are independent."""
        split_pair(a, b, self.d)
        return self.low.new_zeros(())

    def marginal(self, indices: Sequence[int]) -> "Uniform":
        a, _ = split(indices, self.d)
        return Uniform(self.low[a], self.high[a])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "Uniform":
        """p(x_b | x_a) = p(x_b) for values inside the box; no law is defined given what cannot happen."""
        a, b = split_evidence(indices, self.d)
        values = checked_values(values, len(a)).to(self.low)
        if not a:
            return self
        if not ((values >= self.low[a]) & (values <= self.high[a])).all():
            raise ValueError("the values given lie outside the box, where the density is 0")
        return Uniform(self.low[b], self.high[b])

    @classmethod
    def fit(cls, x: Tensor) -> "Uniform":
        """Maximum likelihood: the smallest box that holds all draws."""
        x = checked_sample(x)
        low, high = x.min(0).values, x.max(0).values
        if not (high > low).all():
            raise ValueError("a column of x is constant, so that it has no density; give more rows, or drop it")
        return cls(low, high)

    def to(self, *args, **kwargs) -> "Uniform":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return Uniform(self.low.to(*args, **kwargs), self.high.to(*args, **kwargs))


class Interval(Uniform):
    """Uniform on [low, high], one coordinate, from low (1,) and high (1,): draws are (n, 1)."""

    def __init__(self, low: Tensor, high: Tensor):
        super().__init__(low, high)
        if self.d != 1:
            raise ValueError(f"an interval has one coordinate, not {self.d}; see Uniform for a box")

    def cdf(self, x: Tensor) -> Tensor:
        """P(X <= x)."""
        x, low, high = as_floats(checked_draws(x, 1), self.low, self.high)
        return ((x - low) / (high - low)).clamp(0, 1)[:, 0]  # (n,)

    def icdf(self, u: Tensor) -> Tensor:
        """The x with P(X <= x) = u."""
        u, low, high = as_floats(checked_shares(u), self.low, self.high)
        return torch.where((u >= 0) & (u <= 1), torch.lerp(low, high, u), math.nan)[:, None]  # (n, 1)

    def to(self, *args, **kwargs) -> "Interval":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return Interval(self.low.to(*args, **kwargs), self.high.to(*args, **kwargs))


# Ready-made models


def grey_level(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> DiscreteUniform:
    """One of the 256 levels of a pixel."""
    return DiscreteUniform(256, dtype=dtype, device=device)


def interval(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Interval:
    """One number on [0, 2]."""
    return Interval(torch.zeros(1, dtype=dtype, device=device), torch.full((1,), 2.0, dtype=dtype, device=device))


def box(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Uniform:
    """A box in three dimensions with sides 1/2, 1 and 4."""
    low, high = torch.tensor([[-0.25, 0.0, -1.0], [0.25, 1.0, 3.0]], dtype=dtype, device=device)
    return Uniform(low, high)
