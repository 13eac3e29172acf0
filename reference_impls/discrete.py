r"""Laws on finitely many values: Bernoulli on {0, 1} and categorical on {0, ..., K - 1}.

    p(x) = q^x (1 - q)^(1 - x)     and     p(k) = pi_k,  sum_k pi_k = 1

Probabilities 0 and 1 are allowed and exact, with 0 log 0 = 0: an impossible value has log-probability -inf and is never
drawn. So it is with anything that is not one of the values. A Bernoulli gives -inf to a grey pixel of 0.5, as it is a
law on {0, 1} and no density on [0, 1]; for that there is the continuous Bernoulli, which has another normaliser
(Loaiza-Ganem & Cunningham 2019, arxiv.org/abs/1907.06845).

Source: Cover & Thomas, Elements of Information Theory (2nd ed., 2006), chapter 2.
"""

import math

import torch
from torch import Generator, Tensor


class Bernoulli:
    """d independent pixels, each 1 with probability q_i, otherwise 0; draws are 0.0 or 1.0 in the dtype of q (d,)."""

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
        return (_uniforms((n, self.d), self.probs, generator) < self.probs).to(self.probs.dtype)  # (n, d)

    def mean(self) -> Tensor:
        return self.probs  # (d,)

    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)  # (d,)

    def entropy(self) -> Tensor:
        """sum_i h(q_i), h(q) = -q log q - (1 - q) log(1 - q), in nats."""
        q = self.probs.double()
        return -(torch.xlogy(q, q) + torch.special.xlog1py(1 - q, -q)).sum().to(self.probs.dtype)  # ()

    def kl(self, other: "Bernoulli") -> Tensor:
        """Of independent pixels the divergences add up."""
        p, q = _aligned(self.probs, other.probs)
        return (_kl_terms(p, q) + _kl_terms(1 - p, 1 - q)).sum().to(_wider(self.probs, other.probs))  # ()

    def to(self, *args, **kwargs) -> "Bernoulli":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return Bernoulli(self.probs.to(*args, **kwargs))


class Categorical:
    """One of K states, 0 to K - 1, with probabilities pi (K,), of which K - 1 are free; draws are int64."""

    def __init__(self, probs: Tensor):
        self.probs = _probabilities(probs)  # (K,)
        self.states = len(self.probs)
        excess = self.probs.double().sum().item() - 1
        if not abs(excess) <= 4 * self.states * torch.finfo(self.probs.dtype).eps:  # a few roundings of each
            raise ValueError(f"the {self.states} probabilities sum to 1 {excess:+.2g}")

    def log_prob(self, x: Tensor) -> Tensor:
        """log pi_x; x may come in any dtype, and what is not a state has probability zero."""
        if x.dim() != 1:
            raise ValueError(f"draws should have shape (n,), not {tuple(x.shape)}")
        is_state = (x >= 0) & (x < self.states) & (x % 1 == 0)  # (n,)
        pi = self.probs.to(torch.promote_types(x.dtype, self.probs.dtype))  # (K,)
        return torch.where(is_state, pi[torch.where(is_state, x, 0).long()], 0).log()  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """The first state k with u < pi_0 + ... + pi_k, for u uniform on [0, 1): an empty interval catches nothing."""
        ends = self.probs.double().cumsum(0)  # (K,)
        ends = ends / ends[-1]  # the last end is 1, whatever was rounded on the way
        return torch.searchsorted(ends, _uniforms((n,), self.probs, generator), right=True)  # (n,)

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
        return _kl_terms(*_aligned(self.probs, other.probs)).sum().to(_wider(self.probs, other.probs))  # ()

    def to(self, *args, **kwargs) -> "Categorical":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        probs = self.probs.to(*args, **kwargs)
        return Categorical(probs / probs.sum())  # what summed to 1 in one dtype need not in another

    def _numbers(self) -> Tensor:
        return torch.arange(self.states, dtype=self.probs.dtype, device=self.probs.device)  # (K,)


def _kl_terms(p: Tensor, q: Tensor) -> Tensor:
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
        raise ValueError("a probability lies between 0 and 1")
    return probs


def _uniforms(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
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
