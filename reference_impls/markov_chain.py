r"""Markov chains: given the present, the future does not depend on the past.

    p(x_1, ..., x_T) = p(x_1) prod_t p(x_{t+1} | x_t),      p(x_{t+1} = j | x_t = i) = P_t[i, j]

A homogeneous chain has one transition matrix P for all steps, an inhomogeneous one T - 1 of them; each row of each sums
to 1. The law m_t of x_t, a row vector, follows m_{t+1} = m_t P_t, so everything about two times is a product of
matrices. Marginals over some of the times, and what is left when some are observed, are Markov chains again.

Sources: Cover & Thomas, Elements of Information Theory (2nd ed., 2006), chapter 4;
Rabiner (1989), doi.org/10.1109/5.18626, for the backward messages; Grassmann, Taksar & Heyman (1985),
doi.org/10.1287/opre.33.5.1107, for the stationary law.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor

from reference_impls.bayesian_network import BayesianNetwork
from reference_impls.discrete import disjoint, evidence_values, impossible_evidence, kl_terms, log_of, shares
from reference_impls.indices import as_count, split, split_evidence
from reference_impls.states import (
    as_numbers,
    as_states,
    checked_rows,
    draw_rows,
    information_of_pair,
    normalised,
    parameters_of,
    placing,
    random_rows,
    sample_states,
    tables_from,
)


class MarkovChain:
    """T steps on the states 0 to K - 1, from the law (K,) of the first and P (K, K) for all steps or (T - 1, K, K).

    Draws are int64 (n, T). `length` is T, and is needed with one matrix for all steps only.
    """

    number = "M09"
    family = "Markov chain"

    def __init__(self, initial: Tensor, transition: Tensor, length: int | None = None):
        self.initial = checked_rows(initial, "initial")  # (K,)
        self.transition = checked_rows(transition, "transition")  # (K, K) or (T - 1, K, K)
        if self.initial.dim() != 1 or self.transition.dim() not in (2, 3):
            shapes = f"{tuple(self.initial.shape)} and {tuple(self.transition.shape)}"
            raise ValueError(
                f"initial and transition should have shapes (K,) and (K, K) or (T - 1, K, K), not {shapes}"
            )
        self.k = len(self.initial)
        if self.k == 0:
            raise ValueError("initial should have one state or more")
        if self.transition.shape[-2:] != (self.k, self.k):
            shape = tuple(self.transition.shape)
            raise ValueError(f"initial has {self.k} states, so transition should be square of that size, not {shape}")
        self.homogeneous = self.transition.dim() == 2
        if self.homogeneous and (length is None or length < 1):
            raise ValueError(f"length should say how many steps one transition matrix is for, 1 or more, not {length}")
        self.length = int(length) if self.homogeneous else len(self.transition) + 1
        if length not in (None, self.length):
            raise ValueError(f"length is {length}, but transition has matrices for {self.length} steps; leave it out")
        self.d, self.states = self.length, (self.k,) * self.length
        self.dtype = self.initial.dtype

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x_1) + sum_t log P_t[x_t, x_{t+1}]: one look-up a step."""
        x, possible = as_states(x, self.states)
        pair = x[:, :-1] * self.k + x[:, 1:]  # (n, T - 1)
        log_p = log_of(self.transition).reshape(-1)
        if not self.homogeneous:
            pair = pair + self.k**2 * torch.arange(self.length - 1, device=x.device)
        log_prob = log_of(self.initial)[x[:, 0]] + log_p[pair].sum(-1)  # (n,)
        return torch.where(possible, log_prob, -torch.inf)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """Step by step, all n sequences at once."""
        x = torch.empty(n, self.length, dtype=torch.int64, device=self.initial.device)
        x[:, 0] = draw_rows(self.initial[None], torch.zeros_like(x[:, 0]), generator)
        for t in range(1, self.length):
            x[:, t] = draw_rows(self._step(t - 1), x[:, t - 1], generator)
        return x  # (n, T)

    def laws(self) -> Tensor:
        """m_t, the law of x_t, for each t: (T, K), in float64."""
        laws = [self.initial.double()]
        for t in range(self.length - 1):
            laws.append(laws[-1] @ self._step(t).double())
        return torch.stack(laws)

    def mean(self) -> Tensor:
        laws = self.laws()
        return (laws @ as_numbers(laws)).to(self.dtype)  # (T,)

    def variance(self) -> Tensor:
        laws = self.laws()
        offset = as_numbers(laws) - (laws @ as_numbers(laws))[:, None]  # (T, K)
        return (laws * offset.square()).sum(-1).to(self.dtype)  # (T,)

    def covariance(self) -> Tensor:
        """E[(x_s - mu_s)(x_t - mu_t)], from E[x_t | x_s] for all t >= s, by a step back at a time."""
        laws = self.laws()
        offset = as_numbers(laws) - (laws @ as_numbers(laws))[:, None]  # (T, K)
        covariance = laws.new_zeros(self.length, self.length)
        expected = laws.new_zeros(self.k, 0)  # E[x_t - mu_t | x_s] for t >= s
        for s in reversed(range(self.length)):
            later = self._step(s).double() @ expected if s + 1 < self.length else expected
            expected = torch.cat([offset[s][:, None], later], -1)  # (K, T - s)
            covariance[s, s:] = covariance[s:, s] = (laws[s] * offset[s]) @ expected
        return covariance.to(self.dtype)  # (T, T)

    def entropy(self) -> Tensor:
        """H(x_1) + sum_t H(x_{t+1} | x_t), of all T steps together."""
        laws, p = self.laws(), self._steps().double()
        at_each = -torch.xlogy(p, p).sum(-1)  # (T - 1, K)
        return ((laws[:-1] * at_each).sum() - torch.xlogy(laws[0], laws[0]).sum()).to(self.dtype)  # ()

    def stationary(self) -> Tensor:
        """The law pi = pi P that a homogeneous chain keeps, (K,); ValueError where there is more than one."""
        return _stationary(self._one_transition()).to(self.dtype)

    def entropy_rate(self) -> Tensor:
        """lim H(x_1, ..., x_T) / T = sum_i pi_i H(P[i, .]), in nats a step, of a homogeneous chain."""
        p = self._one_transition()
        return -(_stationary(p) @ torch.xlogy(p, p).sum(-1)).to(self.dtype)  # ()

    def kl(self, other: "MarkovChain") -> Tensor:
        """KL of the first steps, plus that of each transition averaged over where the chain is then."""
        if (self.k, self.length) != (other.k, other.length):
            raise ValueError(
                f"other should have {self.k} states and {self.length} steps, not {other.k}, {other.length}"
            )
        terms = kl_terms(self._steps().double(), other._steps().double()).sum(-1)  # (T - 1, K)
        weights = self.laws()[:-1]
        first = kl_terms(self.initial.double(), other.initial.double()).sum()
        later = torch.where(weights > 0, weights * terms, 0).sum()  # an infinity that is never met does not count
        return (first + later).to(torch.promote_types(self.dtype, other.dtype))  # ()

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """I(x_a; x_b) = H(x_a) + H(x_b) - H(x_a, x_b), chains all three; of two times, from their joint law (K, K)."""
        a, b = (sorted(block) for block in disjoint(a, b, self.length))
        if len(a) == len(b) == 1:
            early, late = min(a[0], b[0]), max(a[0], b[0])
            pair = self.laws()[early][:, None] * self._power(early, late)
            return information_of_pair(pair).to(self.dtype)  # ()
        wide = self.to(torch.float64)
        entropies = [wide.marginal(block).entropy() for block in (a, b, sorted(a + b))]
        return (entropies[0] + entropies[1] - entropies[2]).to(self.dtype)  # ()

    def marginal(self, indices: Sequence[int]) -> "MarkovChain | BayesianNetwork":
        """p(x_a). At rising times it is a chain, whose steps are products of those between; else one reordered."""
        a, _ = split(indices, self.length)
        ordered = sorted(a)
        steps = [self._power(s, t) for s, t in pairwise(ordered)]
        chain = self._chain(self.laws()[ordered[0]], steps)
        return chain if a == ordered else chain.network().reordered([ordered.index(i) for i in a])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "MarkovChain":
        r"""The chain of the other times, given x_a = values.

        With e_t[j] = 1 if state j at time t agrees with the values, else 0, the messages
        beta_t[i] = sum_j P_t[i, j] e_{t+1}[j] beta_{t+1}[j] are the chance of what is seen after t, given x_t = i. So
        p(x_{t+1} = j | x_t = i, seen) = P_t[i, j] e_{t+1}[j] beta_{t+1}[j] / beta_t[i]. Then x_a is dropped.
        """
        a, b = split_evidence(indices, self.length)
        values = evidence_values(values, len(a))
        if not a:
            return self
        codes, possible = as_states(values[None], (self.k,) * len(a))
        agrees = self.laws().new_ones(self.length, self.k)
        agrees[a] = torch.nn.functional.one_hot(codes[0], self.k).to(agrees)
        steps, beta = [], agrees.new_ones(self.k)
        for t in reversed(range(self.length - 1)):
            weights = self._step(t).double() * (agrees[t + 1] * beta)  # (K, K)
            steps.append(shares(weights))
            beta = weights.sum(-1)
            beta = beta / beta.max() if beta.max() > 0 else beta  # only ratios matter, and products would underflow
        first = self.initial.double() * agrees[0] * beta
        if not (possible[0] and first.sum() > 0):
            raise ValueError(impossible_evidence(a, values))
        return self._chain(shares(first), steps[::-1]).marginal(b)

    def network(self) -> BayesianNetwork:
        """The same law as a Bayesian network, each time the child of the one before."""
        parents = [[], *([t] for t in range(self.length - 1))]
        return BayesianNetwork(parents, [self.initial, *self._steps()])

    def over(self, length: int) -> "MarkovChain":
        """The homogeneous chain over another number of steps."""
        self._one_transition()
        return MarkovChain(self.initial, self.transition, length)

    def fit(self, x: Tensor, *, smoothing: float = 0.0) -> "MarkovChain":
        """Maximum likelihood among chains of this kind (homogeneous or not, as many states), as `from_draws`."""
        x = torch.as_tensor(x)
        if x.dim() == 2 and x.shape[1] != self.length:
            raise ValueError(f"x should have {self.length} steps, not {x.shape[1]}; or take MarkovChain.from_draws")
        fitted = MarkovChain.from_draws(x, self.k, homogeneous=self.homogeneous, smoothing=smoothing)
        return fitted.to(self.dtype)

    @classmethod
    def from_draws(cls, x: Tensor, states: int, *, homogeneous: bool = True, smoothing: float = 0.0) -> "MarkovChain":
        """P[i, j] = n_ij / n_i, with n_ij steps from i to j in the sequences x (n, T), each plus `smoothing`.

        The law of the first step is that of the first states, smoothed likewise. A state that is never left gets a
        uniform row, as that row has no influence on the likelihood.
        """
        x, states = torch.as_tensor(x), as_count(states, "states")
        if x.dim() != 2 or x.shape[1] == 0:
            raise ValueError(f"x should be sequences (n, T) of one step or more, not of shape {tuple(x.shape)}")
        x = sample_states(x, (states,) * x.shape[1])
        length = x.shape[1]
        pair = x[:, :-1] * states + x[:, 1:]  # (n, T - 1)
        if not homogeneous:
            pair = pair + states**2 * torch.arange(length - 1, device=x.device)
        tables = 1 if homogeneous else length - 1
        counts = pair.flatten().bincount(minlength=tables * states**2).reshape(tables, states, states)
        first = shares(x[:, 0].bincount(minlength=states), smoothing)
        transition = shares(counts, smoothing)
        return cls(first, transition[0], length) if homogeneous else cls(first, transition)

    def parameters(self) -> Tensor:
        """Logits of the first law, then of the rows of the transitions."""
        return parameters_of([self.initial, self.transition])

    def with_parameters(self, theta: Tensor) -> "MarkovChain":
        return MarkovChain(*tables_from(theta, [self.initial, self.transition]), self.length)

    def to(self, *args, **kwargs) -> "MarkovChain":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        moved = [t.to(*args, **kwargs) for t in (self.initial, self.transition)]
        return MarkovChain(*(normalised(t.double(), t.dtype) for t in moved), self.length)

    def _step(self, t: int) -> Tensor:
        return self.transition if self.homogeneous else self.transition[t]  # (K, K)

    def _steps(self) -> Tensor:
        return self.transition.expand(self.length - 1, self.k, self.k)

    def _power(self, s: int, t: int) -> Tensor:
        """p(x_t | x_s) for s < t, as a matrix (K, K) in float64."""
        if self.homogeneous:
            return torch.linalg.matrix_power(self.transition.double(), t - s)
        power = self._step(s).double()
        for between in range(s + 1, t):
            power = power @ self._step(between).double()
        return power

    def _chain(self, first: Tensor, steps: list[Tensor]) -> "MarkovChain":
        """A chain of this dtype from a law and steps in float64."""
        steps = torch.stack(steps) if steps else first.new_empty(0, self.k, self.k)
        return MarkovChain(normalised(first, self.dtype), normalised(steps, self.dtype))

    def _one_transition(self) -> Tensor:
        if not self.homogeneous:
            raise ValueError("transition differs from step to step; only a homogeneous chain has a long run")
        return self.transition.double()


def _stationary(transition: Tensor) -> Tensor:
    """By elimination of the states of the only closed class, last to first, which adds and divides and never subtracts.

    So every entry keeps all its digits, however small it is. States outside of the class are left for good.
    """
    states = _closed_class(transition)
    p = transition[states][:, states].clone()
    for n in range(len(p) - 1, 0, -1):
        p[:n, n] /= p[n, :n].sum()
        p[:n, :n] += p[:n, n, None] * p[n, :n]  # what went through n goes past it
    weights = p.new_ones(len(p))
    for n in range(1, len(p)):
        weights[n] = weights[:n] @ p[:n, n]
    law = transition.new_zeros(len(transition))
    law[states] = weights / weights.sum()
    return law  # (K,)


def _closed_class(transition: Tensor) -> Tensor:
    """The states that are reached again from wherever they lead, if all of them reach each other."""
    reach = (transition > 0) | torch.eye(len(transition), dtype=torch.bool, device=transition.device)
    for _ in range(len(transition).bit_length()):
        reach = (reach.double() @ reach.double()) > 0
    recurrent = (~reach | reach.mT).all(1).nonzero()[:, 0]
    if not reach[recurrent][:, recurrent].all():
        raise ValueError("transition has several closed classes of states and so no single stationary law; link them")
    return recurrent


# Ready-made models


def weather(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> MarkovChain:
    """Eight days, dry (0) or wet (1), in the long run: P = [[0.9, 0.1], [0.3, 0.7]], pi = (3/4, 1/4)."""
    initial = torch.tensor([0.75, 0.25], dtype=torch.float64)
    transition = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    return MarkovChain(initial, transition, 8).to(*placing(dtype, device))


def changing(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> MarkovChain:
    """Six steps on three states, each with its own transition, drawn with seed 9; one step is impossible."""
    transition = random_rows((5, 3, 3), 9)
    transition[2, 0, 1] = 0.0
    return MarkovChain(random_rows((3,), 10), transition / transition.sum(-1, keepdim=True)).to(*placing(dtype, device))
