r"""The restricted Boltzmann machine: binary pixels v and binary features h, with no edge within either side.

    p(v, h) = exp(-E(v, h)) / Z,     E(v, h) = -a . v - b . h - v^T W h

Given one side, the units of the other are independent: P(h_j = 1 | v) = sigma(b_j + v . W_j). Summing h out leaves

    p(v) = exp(-F(v)) / Z,     F(v) = -a . v - sum_j log(1 + exp(b_j + v . W_j)),     the free energy.

Z is the sum over all states of the smaller side; where that is too long, `anneal` bounds it from both sides.

Sources: Smolensky (1986); Hinton (2002), doi.org/10.1162/089976602760128018 (contrastive divergence); Tieleman (2008),
doi.org/10.1145/1390156.1390290 (persistent chains); Salakhutdinov & Murray (2008), doi.org/10.1145/1390156.1390266
(annealed importance sampling); Grosse, Ghahramani & Adams (2015), arxiv.org/abs/1511.02543 (both directions).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from reference_impls.gaussian_factors import as_floats, checked_parameters
from reference_impls.indices import as_count, split_evidence

MOST_BITS = 16
"""Bits of the smaller side whose states are summed."""


class RestrictedBoltzmannMachine:
    """From weights W (visible, hidden) and biases a (visible,), b (hidden,); draws (n, visible) are 0.0 or 1.0.

    Its log_prob, sample and moments are exact, and ask for a side of at most 16 units; the rest works for any size.
    """

    number = "M13"
    family = "restricted Boltzmann machine"

    def __init__(self, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, *, history: Tensor | None = None):
        (self.weight,) = as_floats(weight)  # (visible, hidden)
        self.visible_bias, self.hidden_bias = (torch.as_tensor(b).to(self.weight) for b in (visible_bias, hidden_bias))
        shapes = tuple(self.visible_bias.shape), tuple(self.hidden_bias.shape)
        if self.weight.dim() != 2 or 0 in self.weight.shape or shapes != tuple((size,) for size in self.weight.shape):
            raise ValueError(f"weight {tuple(self.weight.shape)} asks for biases of its two sizes, not {shapes}")
        if not all(t.isfinite().all() for t in (self.weight, self.visible_bias, self.hidden_bias)):
            raise ValueError("weight and biases should be finite")
        self.d, self.hidden_size = self.weight.shape
        self.history = history  # (epochs,)

    # The law

    def energy(self, v: Tensor) -> Tensor:
        """The free energy F(v): the density is proportional to exp(-F)."""
        a, b, W, v = self._as(v)
        return -v @ a - softplus(v @ W + b).sum(-1)  # (n,)

    def joint_energy(self, v: Tensor, h: Tensor) -> Tensor:
        self._checked_hidden(h)
        a, b, W, v = self._as(v)
        h = h.to(v)
        return -v @ a - h @ b - ((v @ W) * h).sum(-1)  # (n,)

    def hidden_given(self, v: Tensor) -> Tensor:
        """P(h_j = 1 | v)."""
        _, b, W, v = self._as(v)
        return (v @ W + b).sigmoid()  # (n, hidden)

    def visible_given(self, h: Tensor) -> Tensor:
        """P(v_i = 1 | h)."""
        self._checked_hidden(h)
        return (h.to(self.weight) @ self.weight.mT + self.visible_bias).sigmoid()  # (n, visible)

    def log_partition(self) -> Tensor:
        """log Z = log sum_h exp(b . h) prod_i (1 + exp(a_i + W_i . h)), or the same with v and h swapped."""
        machine = self._smaller()
        return (-machine.energy(_bits(machine.d, self.weight.device))).logsumexp(0).to(self.weight.dtype)  # ()

    def log_prob(self, v: Tensor) -> Tensor:
        log_prob = -self.energy(v) - self.log_partition()
        return torch.where(((v == 0) | (v == 1)).all(-1), log_prob, -math.inf)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """Exact draws: a state of the smaller side by its probability and, if that is h, then v given h."""
        machine = self._smaller()
        states = _bits(machine.d, self.weight.device)
        ends = (-machine.energy(states)).softmax(0).cumsum(0)  # (states,)
        u = torch.rand(n, generator=generator, dtype=torch.float64, device=self.weight.device) * ends[-1]
        drawn = states[torch.searchsorted(ends, u, right=True)]  # (n, smaller side)
        if machine.d == self.d and self._visible_is_smaller():
            return drawn.to(self.weight)
        return _flip(self.to(torch.float64).visible_given(drawn), generator).to(self.weight)  # (n, visible)

    def mean(self) -> Tensor:
        """E v_i, by summing over the states of the smaller side."""
        return self._moments()[0].to(self.weight.dtype)  # (visible,)

    def variance(self) -> Tensor:
        return self._moments()[1].diagonal().to(self.weight.dtype)  # (visible,)

    def covariance(self) -> Tensor:
        return self._moments()[1].to(self.weight.dtype)  # (visible, visible)

    def gibbs(self, v: Tensor, steps: int, *, generator: Generator) -> Tensor:
        """`steps` times all h given v, then all v given h; this leaves p(v) as it is, and is reversible for it."""
        v = _checked_sample(v, self.d)
        for _ in range(steps):
            h = _flip(self.hidden_given(v).double(), generator).to(self.weight)
            v = _flip(self.visible_given(h).double(), generator).to(self.weight)
        return v

    def conditional(self, indices: Sequence[int], values: Tensor) -> "RestrictedBoltzmannMachine":
        """p(v_b | v_a): a machine of the pixels b, in which what the others do to the features is a part of b_j."""
        a, b = split_evidence(indices, self.d)
        values = torch.as_tensor(values).to(self.weight)
        if values.shape != (len(a),) or not ((values == 0) | (values == 1)).all():
            raise ValueError(f"values should be {len(a)} pixels, each 0 or 1, one for each index")
        shift = values @ self.weight[a]  # (hidden,)
        return RestrictedBoltzmannMachine(self.weight[b], self.visible_bias[b], self.hidden_bias + shift)

    # Parameters and training

    def parameters(self) -> Tensor:
        """W row by row, then a, then b."""
        return torch.cat([self.weight.flatten(), self.visible_bias, self.hidden_bias])

    def with_parameters(self, theta: Tensor) -> "RestrictedBoltzmannMachine":
        """The machine of these sizes that has these parameters; differentiable in theta."""
        sizes = [self.d * self.hidden_size, self.d, self.hidden_size]
        theta = checked_parameters(theta, sum(sizes))
        weight, a, b = theta.split(sizes)
        return RestrictedBoltzmannMachine(weight.reshape(self.d, self.hidden_size), a, b)

    def gradient(self, data: Tensor, model: Tensor) -> Tensor:
        """The slope of the mean log-likelihood in `parameters()`: E_data[-dF/dtheta] - E_model[-dF/dtheta].

        -dF/dW_ij = v_i P(h_j = 1 | v), -dF/da = v, -dF/db = P(h = 1 | v). With draws of the model it is unbiased.
        """
        data, model = (_checked_sample(v, self.d).to(self.weight) for v in (data, model))
        return self._expectations(data) - self._expectations(model)

    def exact_gradient(self, data: Tensor) -> Tensor:
        """The same with the expectation under the model summed over all of its visible states."""
        states = _bits(self.d, self.weight.device).to(self.weight)
        share = (-self.energy(states)).softmax(0)  # (states,)
        return self._expectations(_checked_sample(data, self.d).to(self.weight)) - self._expectations(states, share)

    def train(
        self,
        v: Tensor,
        *,
        generator: Generator,
        method: str = "pcd",
        k: int = 1,
        rate: float = 0.05,
        batch: int = 100,
        epochs: int = 50,
    ) -> "RestrictedBoltzmannMachine":
        """Stochastic gradient ascent from here, with model draws that are k Gibbs steps away from

        - `cd`: the data of the batch (contrastive divergence: biased, of little noise), or
        - `pcd`: where the chains stood before (persistent: right in the limit of small rates).

        The rate falls linearly to 0. Where Z can be summed, `history` is the log-likelihood after each epoch; it need
        not rise, as steps are noisy, and with `cd` need not end near a maximum.
        """
        if method not in ("cd", "pcd"):
            raise ValueError(f"method is {method!r}; it should be cd or pcd")
        batch, epochs, k = as_count(batch, "batch"), as_count(epochs, "epochs"), as_count(k, "k")
        v = _checked_sample(v, self.d).to(self.weight)
        machine, chains, history = self, v[torch.randint(len(v), (batch,), generator=generator, device=v.device)], []
        steps, step = epochs * math.ceil(len(v) / batch), 0
        for _ in range(epochs):
            for rows in torch.randperm(len(v), generator=generator, device=v.device).split(batch):
                data = v[rows]
                chains = machine.gibbs(data if method == "cd" else chains, k, generator=generator)
                pace = rate * (1 - step / steps)
                machine = machine.with_parameters(machine.parameters() + pace * machine.gradient(data, chains))
                step += 1
            if min(self.weight.shape) <= MOST_BITS:
                history.append(machine.log_prob(v).double().sum())
        kept = torch.stack(history) if history else None
        return RestrictedBoltzmannMachine(machine.weight, machine.visible_bias, machine.hidden_bias, history=kept)

    def to(self, *args, **kwargs) -> "RestrictedBoltzmannMachine":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        parts = (t.to(*args, **kwargs) for t in (self.weight, self.visible_bias, self.hidden_bias))
        return RestrictedBoltzmannMachine(*parts, history=self.history)

    # Helpers

    def _checked_hidden(self, h: Tensor) -> None:
        if h.dim() != 2 or h.shape[1] != self.hidden_size:
            raise ValueError(f"features h should have shape (n, {self.hidden_size}), not {tuple(h.shape)}")

    def _as(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """a, b, W and v in one dtype."""
        if v.dim() != 2 or v.shape[1] != self.d:
            raise ValueError(f"draws should have shape (n, {self.d}), not {tuple(v.shape)}")
        dtype = torch.promote_types(v.dtype, self.weight.dtype)
        return self.visible_bias.to(dtype), self.hidden_bias.to(dtype), self.weight.to(dtype), v.to(dtype)

    def _visible_is_smaller(self) -> bool:
        return self.d <= self.hidden_size

    def _smaller(self) -> "RestrictedBoltzmannMachine":
        """The machine in float64, turned so that its visible side is the smaller one."""
        if min(self.weight.shape) > MOST_BITS:
            raise ValueError(
                f"both sides have more than {MOST_BITS} units, too many to sum over; use `anneal` for log Z"
            )
        machine = self.to(torch.float64)
        if self._visible_is_smaller():
            return machine
        return RestrictedBoltzmannMachine(machine.weight.mT, machine.hidden_bias, machine.visible_bias)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """E v and Cov[v], in float64. Where h is summed: Cov[v] = E Cov[v | h] + Cov E[v | h]."""
        machine = self._smaller()
        states = _bits(machine.d, self.weight.device)
        share = (-machine.energy(states)).softmax(0)  # (states,)
        probs = states if self._visible_is_smaller() else self.to(torch.float64).visible_given(states)
        mean = share @ probs  # (visible,)
        offset = probs - mean
        return mean, (share @ (probs * (1 - probs))).diag() + (share[:, None] * offset).mT @ offset

    def _expectations(self, v: Tensor, share: Tensor | None = None) -> Tensor:
        """sum_n share_n (-dF/dtheta)(v_n), as a vector like `parameters()`."""
        share = v.new_full((len(v),), 1 / len(v)) if share is None else share
        h, weighted = self.hidden_given(v), share[:, None] * v  # (n, hidden), (n, visible)
        return torch.cat([(weighted.mT @ h).flatten(), weighted.sum(0), share @ h])


# Annealed importance sampling


@dataclass(frozen=True)
class Annealed:
    """Weights of runs from a law whose Z_0 is known to the model, E exp(log_weights) = Z / Z_0, or back, Z_0 / Z.

    By Jensen E[log w] is below the logarithm of its mean. So forward runs are below log Z on average, and reverse ones,
    of which the sign is turned, above it.
    """

    log_base: float
    log_weights: Tensor  # (chains,)
    reverse: bool

    def estimate(self) -> float:
        mean = float(self.log_weights.logsumexp(0)) - math.log(len(self.log_weights))
        return self.log_base - mean if self.reverse else self.log_base + mean

    def bound(self, error: float) -> float:
        """A lower bound on log Z (upper, if reversed) that is wrong with a probability of at most `error`.

        Weights are positive, so that P(w >= E[w] / p) <= p by Markov's inequality. The runs are independent: all n of
        them, and so the least, are as large as that with a probability of at most p^n, which is `error`.
        """
        if not 0 < error < 1:
            raise ValueError(f"error = {error}; a probability between 0 and 1")
        low = float(self.log_weights.min()) + math.log(error) / len(self.log_weights)
        return self.log_base - low if self.reverse else self.log_base + low


def anneal(
    model: RestrictedBoltzmannMachine,
    *,
    generator: Generator,
    chains: int = 100,
    temperatures: int = 1000,
    start: Tensor | None = None,
) -> Annealed:
    r"""Importance sampling along f_t(v) = exp(a . v) prod_j (1 + exp(t (b_j + v . W_j))), from t = 0 to t = 1.

    Forward: v_0 from f_0, whose pixels are independent, and each step adds log f_{t'}(v) - log f_t(v) before it moves v
    by Gibbs sampling at t'. With `start`, exact draws (chains, visible) of the model, the runs go backwards.
    """
    temperatures, chains = as_count(temperatures, "temperatures"), as_count(chains, "chains")
    model = model.to(torch.float64)
    t = torch.linspace(0, 1, temperatures + 1, dtype=torch.float64)
    log_base = float(softplus(model.visible_bias).sum() + model.hidden_size * math.log(2))
    if start is None:
        v = _flip(model.visible_bias.sigmoid().expand(chains, -1), generator).double()
    else:
        v, t = _checked_sample(start, model.d).double(), t.flip(0)
    log_w = v.new_zeros(len(v))
    for now, then in zip(t[:-1].tolist(), t[1:].tolist(), strict=True):
        log_w = log_w + _warmed(model, now).energy(v) - _warmed(model, then).energy(v)
        v = _warmed(model, then).gibbs(v, 1, generator=generator)
    return Annealed(log_base, log_w, reverse=start is not None)


def _warmed(model: RestrictedBoltzmannMachine, t: float) -> RestrictedBoltzmannMachine:
    return RestrictedBoltzmannMachine(t * model.weight, model.visible_bias, t * model.hidden_bias)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) to the last digit; torch's function of that name returns x from 20 on, which is off by 2e-9."""
    return -logsigmoid(-x)


def _flip(probs: Tensor, generator: Generator) -> Tensor:
    return torch.rand(probs.shape, generator=generator, dtype=torch.float64, device=probs.device) < probs


def _bits(d: int, device: torch.device) -> Tensor:
    """All vectors (2^d, d) of 0 and 1, in float64."""
    if d > MOST_BITS:
        raise ValueError(f"{d} bits have too many states to sum over; at most {MOST_BITS}")
    return (torch.arange(2**d, device=device)[:, None] >> torch.arange(d - 1, -1, -1, device=device) & 1).double()


def _checked_sample(v: Tensor, d: int) -> Tensor:
    if v.dim() != 2 or v.shape[1] != d or len(v) == 0 or not ((v == 0) | (v == 1)).all():
        raise ValueError(f"draws should be 0 or 1, of shape (n, {d}) with n > 0; theirs is {tuple(v.shape)}")
    return v


# Ready-made models


def small_machine(
    *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> RestrictedBoltzmannMachine:
    """8 pixels and 4 features, with weights drawn from N(0, 1) and biases from N(0, 1/4), with seed 13."""
    draws = torch.randn(9, 5, generator=torch.Generator().manual_seed(13), dtype=torch.float64, device="cpu")
    machine = RestrictedBoltzmannMachine(draws[1:, 1:], draws[1:, 0] / 2, draws[0, 1:] / 2)
    return machine.to(device or torch.get_default_device(), dtype or torch.get_default_dtype())
