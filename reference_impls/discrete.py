r"""Laws on finitely many values: Bernoulli on {0, 1} and categorical on {0, ..., K - 1}.

    p(x) = q^x (1 - q)^(1 - x)     and     p(k) = pi_k,  sum_k pi_k = 1

Probabilities 0 and 1 are allowed and exact, with 0 log 0 = 0: an impossible value has log-probability -inf and is never
drawn. So it is with anything that is not one of the values. A Bernoulli gives -inf to a grey pixel of 0.5, as it is a
law on {0, 1} and no density on [0, 1]; for that there is the continuous Bernoulli, which has another normaliser
(Loaiza-Ganem & Cunningham 2019, arxiv.org/abs/1907.06845).

Source: Cover & Thomas, Elements of Information Theory (2nd ed., 2006), chapter 2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from reference_impls.indices import split, split_evidence


class Bernoulli:
    """d independent pixels, each 1 with probability q_i, otherwise 0; draws are 0.0 or 1.0 in the dtype of q (d,)."""

    number = "M03"
    family = "Bernoulli"

    def __init__(self, probs: Tensor):
        self.probs = _probabilities(probs)  # (d,)
        self.d = len(self.probs)

    def log_prob(self, x: Tensor) -> Tensor:
        """sum_i log q_i over the pixels that are on, plus sum_i log(1 - q_i) over those that are off."""
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"draws should have shape (n, {self.d}), not {tuple(x.shape)}")
        on, off = x == 1, x == 0  # (n, d)
        q = self.probs.to(torch.promote_types(x.dtype, self.probs.dtype))  # (d,)
        # Each logarithm sees 1 where it does not count, not the 0 whose infinite slope would spoil a gradient.
        log_prob = (torch.where(on, q, 1).log() + torch.where(off, -q, 0).log1p()).sum(-1)  # (n,)
        return torch.where((on | off).all(-1), log_prob, -math.inf)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return (uniforms((n, self.d), self.probs, generator) < self.probs).to(self.probs.dtype)  # (n, d)

    def mean(self) -> Tensor:
        return self.probs  # (d,)

    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)  # (d,)

    def covariance(self) -> Tensor:
        return self.variance().diag()  # (d, d)

    def entropy(self) -> Tensor:
        """sum_i h(q_i), h(q) = -q log q - (1 - q) log(1 - q), in nats."""
        q = self.probs.double()
        return -(torch.xlogy(q, q) + torch.special.xlog1py(1 - q, -q)).sum().to(self.probs.dtype)  # ()

    def kl(self, other: "Bernoulli") -> Tensor:
        """Of independent pixels the divergences add up."""
        p, q = _aligned(self.probs, other.probs)
        return (kl_terms(p, q) + kl_terms(1 - p, 1 - q)).sum().to(_wider(self.probs, other.probs))  # ()

    def marginal(self, indices: Sequence[int]) -> "Bernoulli":
        """p(x_a), in the order of the indices."""
        a, _ = split(indices, self.d)
        return Bernoulli(self.probs[a])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "Bernoulli":
        """p(x_b | x_a = values) = p(x_b): pixels tell nothing of each other. Impossible values cannot be given."""
        a, b = split_evidence(indices, self.d)
        values = evidence_values(values, len(a)).to(self.probs)
        if not a:
            return self
        if self.marginal(a).log_prob(values[None])[0] == -math.inf:
            raise ValueError(impossible_evidence(a, values))
        return Bernoulli(self.probs[b])

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """Zero: pixels are independent."""
        disjoint(a, b, self.d)
        return self.probs.new_zeros(())  # ()

    @classmethod
    def fit(cls, x: Tensor) -> "Bernoulli":
        """Maximum likelihood: the share of draws (n, d) in which each pixel is on."""
        x = torch.as_tensor(x)
        if x.dim() != 2 or x.shape[0] == 0 or not ((x == 0) | (x == 1)).all():
            raise ValueError(f"x {tuple(x.shape)} should be pixels (n, d), all 0 or 1, with n > 0; binarise it first")
        return cls(x.double().mean(0).to(x.dtype if x.is_floating_point() else torch.get_default_dtype()))

    def parameters(self) -> Tensor:
        """theta_i = log q_i - log(1 - q_i), infinite where q_i is 0 or 1."""
        return self.probs.logit()  # (d,)

    def with_parameters(self, theta: Tensor) -> "Bernoulli":
        return Bernoulli(checked_parameters(theta, self.d).sigmoid())

    def to(self, *args, **kwargs) -> "Bernoulli":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return Bernoulli(self.probs.to(*args, **kwargs))


class Categorical:
    """One of K states, 0 to K - 1, with probabilities pi (K,), of which K - 1 are free; draws are int64."""

    number = "M04"
    family = "categorical"

    def __init__(self, probs: Tensor):
        self.probs = _probabilities(probs)  # (K,)
        self.states = len(self.probs)
        excess = self.probs.double().sum().item() - 1
        if not abs(excess) <= 4 * self.states * torch.finfo(self.probs.dtype).eps:  # a few roundings of each
            raise ValueError(f"the {self.states} probabilities sum to 1 {excess:+.2g}; divide them by their sum")

    def log_prob(self, x: Tensor) -> Tensor:
        """log pi_x; x may come in any dtype, and what is not a state has probability zero."""
        if x.dim() != 1:
            raise ValueError(f"draws should have shape (n,), not {tuple(x.shape)}")
        possible = is_state(x, self.states)  # (n,)
        pi = self.probs.to(torch.promote_types(x.dtype, self.probs.dtype))  # (K,)
        return torch.where(possible, pi[torch.where(possible, x, 0).long()], 0).log()  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """The first state k with u < pi_0 + ... + pi_k, for u uniform on [0, 1): an empty interval catches nothing."""
        ends = self.probs.double().cumsum(0)  # (K,)
        ends = ends / ends[-1]  # the last end is 1, whatever was rounded on the way
        return torch.searchsorted(ends, uniforms((n,), self.probs, generator), right=True)  # (n,)

    def mean(self) -> Tensor:
        """E[k]: the state read as a number."""
        return self.probs @ self._numbers()  # ()

    def variance(self) -> Tensor:
        return self.probs @ (self._numbers() - self.mean()).square()  # ()

    def entropy(self) -> Tensor:
        pi = self.probs.double()
        return -torch.xlogy(pi, pi).sum().to(self.probs.dtype)  # ()

    def kl(self, other: "Categorical") -> Tensor:
        """sum_k p_k log(p_k / q_k): infinite when p allows what q rules out."""
        return kl_terms(*_aligned(self.probs, other.probs)).sum().to(_wider(self.probs, other.probs))  # ()

    def fit(self, x: Tensor, *, smoothing: float = 0.0) -> "Categorical":
        """Maximum likelihood with as many states as this law: pi_k = (n_k + smoothing) / (n + K smoothing)."""
        x = torch.as_tensor(x)
        if x.dim() != 1 or len(x) == 0 or not is_state(x, self.states).all():
            raise ValueError(f"x should be states (n,) from 0 to {self.states - 1}, with n > 0; it is {tuple(x.shape)}")
        counts = torch.bincount(x.long(), minlength=self.states)  # (K,)
        return Categorical(shares(counts, smoothing).to(self.probs.dtype))

    def parameters(self) -> Tensor:
        """theta_k = log pi_k - log pi_{K-1} for k < K - 1."""
        return logits_of(self.probs)  # (K - 1,)

    def with_parameters(self, theta: Tensor) -> "Categorical":
        return Categorical(from_logits(checked_parameters(theta, self.states - 1)))

    def to(self, *args, **kwargs) -> "Categorical":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        probs = self.probs.to(*args, **kwargs)
        return Categorical(probs / probs.sum())  # what summed to 1 in one dtype need not in another

    def _numbers(self) -> Tensor:
        return torch.arange(self.states, dtype=self.probs.dtype, device=self.probs.device)  # (K,)


# States, rows of probabilities, and the numbers behind them


def is_state(x: Tensor, states: int) -> Tensor:
    """Which entries of x are one of 0, ..., K - 1, in any dtype: as a byte, the number 256 itself would turn into 0."""
    x = x if x.is_floating_point() else x.long()
    return (x >= 0) & (x < states) & (x % 1 == 0)


def shares(counts: Tensor, smoothing: float = 0.0) -> Tensor:
    """Counts (..., K) to probabilities (..., K) in float64, each count increased by `smoothing`.

    A row without any count says nothing about its law: all laws are equally likely, and the row becomes uniform.
    """
    if not (math.isfinite(smoothing) and smoothing >= 0):
        raise ValueError(f"smoothing should be a finite number from 0 up, not {smoothing}")
    counts = counts.double() + smoothing
    total = counts.sum(-1, keepdim=True)
    if smoothing > 0:
        return counts / total
    return torch.where(total > 0, counts / total.where(total > 0, 1), 1 / counts.shape[-1])


def logits_of(probs: Tensor) -> Tensor:
    """The free parameters of rows (..., K), (..., K - 1): log pi_k - log pi_{K-1}, infinite where one of them is 0."""
    logits = log_of(probs[..., :-1]) - log_of(probs[..., -1:])
    return torch.where(probs[..., :-1] > 0, logits, -math.inf)


def from_logits(theta: Tensor) -> Tensor:
    """The inverse of `logits_of`: (..., K - 1) to (..., K).

    Plus infinity makes a state certain. Two certain states cannot be told apart, and so are an error.
    """
    certain = theta == math.inf
    if (certain.sum(-1) > 1).any():
        raise ValueError("theta makes several states of a row certain; reorder the states so that the last is possible")
    logits = torch.cat([theta.where(~certain, 0), theta.new_zeros((*theta.shape[:-1], 1))], -1).double()
    one = torch.cat([certain, torch.zeros_like(logits[..., :1], dtype=torch.bool)], -1)
    logits = torch.where(one.any(-1, keepdim=True), torch.where(one, 0.0, -math.inf), logits)
    return logits.softmax(-1).to(theta.dtype)


def log_of(probs: Tensor) -> Tensor:
    """log p, whose slope is 0 and not infinite where p is 0: states that are not drawn leave a gradient alone."""
    return torch.where(probs > 0, probs.where(probs > 0, 1).log(), -math.inf)


def checked_parameters(theta: Tensor, k: int) -> Tensor:
    theta = torch.as_tensor(theta)
    if theta.shape != (k,):
        raise ValueError(f"theta should have shape ({k},), as parameters() has, not {tuple(theta.shape)}")
    return theta


# Choosing coordinates


def disjoint(a: Sequence[int], b: Sequence[int], d: int) -> tuple[list[int], list[int]]:
    """Two blocks of coordinates without a common one."""
    a, b = split(a, d)[0], split(b, d)[0]
    if common := sorted(set(a) & set(b)):
        raise ValueError(f"a and b should be disjoint, but both hold {common}")
    return a, b


def evidence_values(values: Tensor, k: int) -> Tensor:
    values = torch.as_tensor(values)
    if values.shape != (k,):
        raise ValueError(f"values should have shape ({k},), one for each index, not {tuple(values.shape)}")
    return values


def impossible_evidence(indices: list[int], values: Tensor) -> str:
    shown = dict(list(zip(indices, values.tolist(), strict=True))[:8])
    return f"values {shown}{' ...' * (len(indices) > 8)} have probability zero; condition on possible values"


def kl_terms(p: Tensor, q: Tensor) -> Tensor:
    """p log(p / q) - p + q, which sums to the divergence as p and q both sum to one.

    With t = log(q / p) it is p (e^t - 1 - t), which is never negative. That form keeps its digits when q is close to p,
    where the other one cancels; farther away, the other one does.
    """
    close = (q - p).abs() < p / 2
    t = torch.where(close, ((q - p) / p).log1p(), q.log() - p.log())
    return torch.where(p > 0, torch.where(close, p * (t.expm1() - t), q - p - p * t), q)


def _aligned(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    if p.shape != q.shape:
        raise ValueError(f"the laws have different sizes, {len(p)} and {len(q)}")
    return p.double(), q.double()


def _wider(p: Tensor, q: Tensor) -> torch.dtype:
    return torch.promote_types(p.dtype, q.dtype)


def _probabilities(probs: Tensor) -> Tensor:
    probs = torch.as_tensor(probs)
    probs = probs if probs.is_floating_point() else probs.to(torch.get_default_dtype())
    if probs.dim() != 1 or len(probs) == 0:
        raise ValueError(f"probabilities should be a vector, not of shape {tuple(probs.shape)}")
    if not ((probs >= 0) & (probs <= 1)).all():
        raise ValueError(f"a probability lies between 0 and 1; there is one of {_outside(probs):g}: correct it")
    return probs


def _outside(probs: Tensor) -> float:
    """The first number that is no probability, which may be NaN."""
    return float(probs[~((probs >= 0) & (probs <= 1))][0])


def uniforms(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    """Uniform on [0, 1) with 53 bits: the 24 of float32 would draw an event of chance 1e-10 600 times too often."""
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=like.device)


# Ready-made models


def coin(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Bernoulli:
    """One coin that shows heads (1) three times out of ten."""
    return Bernoulli(torch.tensor([0.3], dtype=dtype, device=device))


def pixels(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Bernoulli:
    """50 independent pixels, on with probabilities drawn evenly from (0, 1) with seed 50."""
    probs = torch.rand(50, generator=torch.Generator().manual_seed(50), dtype=torch.float64, device="cpu")
    return Bernoulli(probs.to(device or torch.get_default_device(), dtype or torch.get_default_dtype()))


def die(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Categorical:
    """A fair die; state k is face k + 1."""
    return Categorical(torch.full((6,), 1 / 6, dtype=dtype, device=device))
