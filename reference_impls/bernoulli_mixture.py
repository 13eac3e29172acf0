r"""Mixtures of Bernoulli vectors: first choose a component, y ~ Cat(pi), then each of d pixels by itself.

    p(x) = sum_k pi_k prod_i q_ki^x_i (1 - q_ki)^(1 - x_i),     x in {0, 1}^d

Within a component the pixels are independent; in the mixture they are not, and with enough components any law on
{0, 1}^d is one. Marginals and conditionals are mixtures again. The estimate is found by EM, whose M step averages.

Sources: Bishop, Pattern Recognition and Machine Learning (2006), section 9.3.3;
Juan & Vidal (2002), Pattern Recognition 35, doi.org/10.1016/S0031-3203(01)00242-4.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from reference_impls.discrete import Categorical, from_logits, logits_of
from reference_impls.gaussian_factors import checked_parameters, in_chunks
from reference_impls.indices import as_count, split, split_evidence


class BernoulliMixture:
    """From the weights pi (k,) and the probabilities q (k, d) that a pixel is on; draws are 0.0 or 1.0.

    Probabilities 0 and 1 are exact: what a component rules out has log-probability -inf there. A mixture that was
    fitted keeps the log-likelihood of its training draws after each step in `history`.
    """

    number = "M11"
    family = "Bernoulli mixture"

    def __init__(self, weights: Tensor, probs: Tensor, *, history: Tensor | None = None):
        self.choice = Categorical(weights)
        self.probs = _checked_probs(probs, self.choice.states)  # (k, d)
        self.d = self.probs.shape[1]
        self.weights = self.choice.probs.to(self.probs)  # (k,)
        self.history = history  # (steps + 1,)

    def log_prob(self, x: Tensor) -> Tensor:
        return in_chunks(lambda rows: self.log_joint(rows).logsumexp(-1), x, len(self.weights) + self.d)  # (n,)

    def log_joint(self, x: Tensor) -> Tensor:
        r"""log p(x, y = k) = log pi_k + sum_i x_i log q_ki + (1 - x_i) log(1 - q_ki), as two matrix products.

        0 log 0 would be NaN in a product. So logarithms of 0 are left out of it, and the pixels that contradict a
        component are counted instead: one is enough for -inf. Neither spoils a gradient, and no (n, k, d) is built.
        """
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"draws should have shape (n, {self.d}), not {tuple(x.shape)}")
        dtype = torch.promote_types(x.dtype, self.probs.dtype)
        on, off, q = (x == 1).to(dtype), (x == 0).to(dtype), self.probs.to(dtype)  # (n, d), (n, d), (k, d)
        log_on, log_off = torch.where(q > 0, q, 1).log(), torch.where(q < 1, -q, 0).log1p()  # (k, d)
        log_joint = self.weights.to(dtype).log() + on @ log_on.mT + off @ log_off.mT  # (n, k)
        contradictions = on @ (q == 0).to(dtype).mT + off @ (q == 1).to(dtype).mT  # (n, k)
        possible = ((on + off) == 1).all(-1, keepdim=True) & (contradictions == 0)
        return torch.where(possible, log_joint, -math.inf)

    def posterior(self, x: Tensor) -> Tensor:
        """p(y = k | x); a ValueError where x is impossible, as no component explains it."""
        log_joint = self.log_joint(x)
        if (log_joint == -math.inf).all(-1).any():
            raise ValueError("x has probability 0, so that p(y | x) is not defined; give values that are possible")
        return log_joint.softmax(-1)  # (n, k)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        y = self.choice.sample(n, generator=generator)  # (n,)
        u = torch.rand(n, self.d, generator=generator, dtype=torch.float64, device=self.probs.device)
        return (u < self.probs[y]).to(self.probs.dtype)  # (n, d)

    def mean(self) -> Tensor:
        return self.weights @ self.probs  # (d,)

    def variance(self) -> Tensor:
        """Pixels are 0 or 1, so that their mean says it all."""
        return self.mean() * (self.weights @ (1 - self.probs))  # (d,)

    def covariance(self) -> Tensor:
        """E Cov[x | y] + Cov E[x | y]; the first is diagonal."""
        within = self.weights @ (self.probs * (1 - self.probs))  # (d,)
        offset = self.probs - self.mean()  # (k, d)
        return within.diag() + (self.weights[:, None] * offset).mT @ offset  # (d, d)

    def marginal(self, indices: Sequence[int]) -> "BernoulliMixture":
        a, _ = split(indices, self.d)
        return BernoulliMixture(self.weights, self.probs[:, a])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "BernoulliMixture":
        """p(x_b | x_a): the pixels of a component do not change, its weight becomes p(y = k | x_a)."""
        a, b = split_evidence(indices, self.d)
        values = torch.as_tensor(values).to(self.probs)
        if values.shape != (len(a),):
            raise ValueError(f"{len(a)} pixels are given, but their values have shape {tuple(values.shape)}")
        if not a:
            return self
        return BernoulliMixture(self.marginal(a).posterior(values[None])[0], self.probs[:, b])

    def parameters(self) -> Tensor:
        """log(pi_k / pi_K) for k < K, then the logits of q; those of probabilities 0 and 1 are infinite."""
        return torch.cat([logits_of(self.weights), self.probs.logit().flatten()])

    def with_parameters(self, theta: Tensor) -> "BernoulliMixture":
        """The mixture of this size that has these parameters; differentiable in theta (k - 1 + k d,)."""
        K = len(self.weights)
        theta = checked_parameters(theta, K - 1 + K * self.d)
        return BernoulliMixture(from_logits(theta[: K - 1]), theta[K - 1 :].sigmoid().reshape(K, self.d))

    def fit(self, x: Tensor, *, generator: Generator | None = None, restarts: int = 4, **options) -> "BernoulliMixture":
        """A local maximum of the likelihood with as many components as this mixture.

        Without a generator EM starts here, and ends no lower; with one it is `fit_bernoulli_mixture`.
        """
        if generator is None:
            return expectation_maximisation(self, x, **options)
        return fit_bernoulli_mixture(x, len(self.weights), generator=generator, restarts=restarts, **options)

    def to(self, *args, **kwargs) -> "BernoulliMixture":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        weights = self.choice.to(*args, **kwargs).probs
        return BernoulliMixture(weights, self.probs.to(*args, **kwargs), history=self.history)


# Estimation


def fit_bernoulli_mixture(x: Tensor, k: int, *, generator: Generator, restarts: int = 4, **options) -> BernoulliMixture:
    """A good local maximum of the likelihood with k components: EM from the best of some short runs."""
    x = _checked_sample(x)
    short = {**options, "iterations": 10}
    starts = [random_start(x, k, generator=generator) for _ in range(as_count(restarts, "restarts"))]
    runs = [expectation_maximisation(start, x, **short) for start in starts]
    return expectation_maximisation(max(runs, key=lambda run: run.history[-1]), x, **options)


def pool(mixtures: Sequence[BernoulliMixture]) -> BernoulliMixture:
    """The even mixture of mixtures, which is a mixture again. By Jensen its mean log-likelihood is at least theirs."""
    if len({mixture.d for mixture in mixtures}) != 1:
        raise ValueError("mixtures should be one or more, all of the same number of pixels")
    weights = torch.cat([mixture.weights for mixture in mixtures]) / len(mixtures)
    return BernoulliMixture(weights, torch.cat([mixture.probs for mixture in mixtures]))


def random_start(x: Tensor, k: int, *, generator: Generator) -> BernoulliMixture:
    """Equal components, each halfway between a draw taken at random and the mean of all draws.

    A half of the mean keeps every value that occurs possible under every component, as EM never revives a 0.
    """
    x = _checked_sample(x).double()
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k = {k} components; k should be a positive whole number")
    chosen = torch.randint(len(x), (k,), generator=generator, device=x.device)
    return BernoulliMixture(x.new_full((k,), 1 / k), (x[chosen] + x.mean(0)) / 2)


def expectation_maximisation(
    start: BernoulliMixture, x: Tensor, *, prior: float = 0.0, tolerance: float = 1e-8, iterations: int = 1000
) -> BernoulliMixture:
    r"""Climb from `start` until a step gains less than `tolerance` nats per draw.

    E: r_nk = p(y_n = k | x_n).    M: pi_k = sum_n r_nk / n,   q_k = (sum_n r_nk x_n + prior) / (sum_n r_nk + 2 prior).

    With prior = 0 this is maximum likelihood, and `history`, the log-likelihood before and after each step, never
    falls. A positive prior counts as that many draws of each value, for every pixel of every component: the mode under
    Beta(1 + prior, 1 + prior). What never falls then, and is kept as history, is the log-likelihood plus the log-prior,
    prior sum [log q + log(1 - q)]. Steps are taken in float64; the mixture returned has the dtype of x.
    """
    if not 0 <= prior < math.inf:
        raise ValueError(f"prior = {prior}; it is a number of draws, and should be finite and not negative")
    dtype = (x := _checked_sample(x)).dtype
    x, mixture = x.double(), start.to(x.device, torch.float64)
    log_joint = mixture.log_joint(x)  # (n, k)
    history = [_objective(mixture, log_joint, prior)]
    if bool((log_joint.amax(-1) == -math.inf).any()):
        raise ValueError("a draw has probability 0 under the start: start from a mixture that allows all draws")
    for _ in range(iterations):
        responsibility = log_joint.softmax(-1)  # (n, k)
        share = responsibility.sum(0)  # (k,)
        probs = (responsibility.mT @ x + prior) / (share + 2 * prior)[:, None]  # (k, d)
        probs = torch.where(share[:, None] + prior > 0, probs, mixture.probs)  # nothing is said of an empty component
        mixture = BernoulliMixture(share / share.sum(), probs.clamp(max=1))  # r x / r may round to more than 1
        log_joint = mixture.log_joint(x)
        history.append(_objective(mixture, log_joint, prior))
        if not history[-1] - history[-2] >= tolerance * len(x):
            break
    return BernoulliMixture(mixture.weights, mixture.probs.to(dtype), history=torch.stack(history))


def _objective(mixture: BernoulliMixture, log_joint: Tensor, prior: float) -> Tensor:
    log_likelihood = log_joint.logsumexp(-1).sum()  # ()
    q = mixture.probs
    return log_likelihood + prior * (q.log() + (-q).log1p()).sum() if prior else log_likelihood


# Arguments


def _checked_probs(probs: Tensor, states: int) -> Tensor:
    probs = torch.as_tensor(probs)
    probs = probs if probs.is_floating_point() else probs.to(torch.get_default_dtype())
    if probs.dim() != 2 or probs.shape[0] != states or probs.shape[1] == 0:
        raise ValueError(f"{states} weights ask for probs of shape ({states}, d), not {tuple(probs.shape)}")
    if not ((probs >= 0) & (probs <= 1)).all():
        raise ValueError("probs has entries outside [0, 1]; a probability lies between 0 and 1")
    return probs


def _checked_sample(x: Tensor) -> Tensor:
    x = torch.as_tensor(x)
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    if x.dim() != 2 or len(x) == 0 or not ((x == 0) | (x == 1)).all():
        raise ValueError(f"x to fit should have shape (n, d), n > 0, and values 0 and 1; its shape is {tuple(x.shape)}")
    return x


# Ready-made models


def strokes(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> BernoulliMixture:
    """A 3 x 3 picture, 9 pixels row by row, of one noisy stroke: across, down, or along the diagonal."""
    across, down, diagonal = [0, 0, 0, 1, 1, 1, 0, 0, 0], [0, 1, 0, 0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 1, 0, 0, 0, 1]
    probs = 0.1 + 0.8 * torch.tensor([across, down, diagonal], dtype=torch.float64, device="cpu")
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64, device="cpu")
    return BernoulliMixture(weights, probs).to(device or torch.get_default_device(), dtype or torch.get_default_dtype())


def exclusive(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> BernoulliMixture:
    """Exactly one of 4 pixels is on, with probabilities 0.4, 0.3, 0.2 and 0.1: all other states are impossible."""
    placing = device or torch.get_default_device(), dtype or torch.get_default_dtype()
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64, device="cpu")
    return BernoulliMixture(weights, torch.eye(4, dtype=torch.float64, device="cpu")).to(*placing)
