"""What is compared with which peer, on the same numbers, and how far the two answers may lie apart.

A case is a function of the sizes, the dtype and the number of threads, and gives a `Pair`. A peer that is not installed
raises ImportError, a data set that is not here DataError: both become a row that says why it was skipped.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference_impls.chow_liu import chow_liu, pairwise_counts, pairwise_information
from reference_impls.gaussian import Gaussian
from reference_impls.gaussian_factors import inverse_factor
from reference_impls.markov_chain import MarkovChain
from reference_impls.mixture import GaussianMixture, expectation_maximisation, kmeans_plus_plus

FLOOR = 1e-9
"""Of the variances in EM, of those of the data: so low that it lifts none, as the peers here have no floor at all."""


@dataclass(frozen=True)
class Sizes:
    """Draws of each case; the dimensions and numbers of components are those of the bars."""

    gaussian: int = 100_000
    mixture: int = 100_000
    em: int = 20_000
    em_steps: int = 20
    chow_liu: int | None = None  # all 16,181 rows
    markov: int = 5_000  # sequences of 100 steps


SMALL = Sizes(gaussian=500, mixture=500, em=500, em_steps=3, chow_liu=300, markov=20)
"""For trying the measurement itself: its numbers mean nothing."""


@dataclass(frozen=True)
class Pair:
    """The same work twice, and how far the two results are apart, in units of what rounding or chance allows."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    disagreement: Callable[[Any, Any], float]


@dataclass(frozen=True)
class Case:
    """`versions` names the distributions of the peer; `bar` is the ratio it should reach."""

    name: str
    peer: str
    bar: float
    dtype: str
    versions: tuple[str, ...]
    prepare: Callable[[Sizes, torch.dtype, int], Pair]
    note: str = ""


# Models


def a_gaussian(d: int, g: torch.Generator, apart: float = 1.0) -> Gaussian:
    """Sigma = A A^T / d + I with normal A: its condition number is about 5, whatever d is."""
    a = torch.randn(d, d, generator=g, dtype=torch.float64)
    mean = apart * torch.randn(d, generator=g, dtype=torch.float64)
    return Gaussian(mean, a @ a.mT / d + torch.eye(d, dtype=torch.float64))


def a_mixture(d: int, k: int, g: torch.Generator) -> GaussianMixture:
    weights = torch.rand(k, generator=g, dtype=torch.float64) + 0.5
    return GaussianMixture(weights / weights.sum(), [a_gaussian(d, g, 2.0) for _ in range(k)])


def a_chain(states: int, steps: int, g: torch.Generator) -> MarkovChain:
    first, *rows = torch.rand(states + 1, states, generator=g, dtype=torch.float64).add(0.1)
    transition = torch.stack(rows)
    return MarkovChain(first / first.sum(), transition / transition.sum(-1, keepdim=True), steps)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Gaussian


def gaussian_log_prob(validate_args: bool) -> Callable[[Sizes, torch.dtype, int], Pair]:
    def prepare(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
        g = _generator()
        model = a_gaussian(64, g).to(dtype)
        peer = _torch_gaussian(model, validate_args)
        x = model.sample(sizes.gaussian, generator=g)
        allowed = _rounding([model], dtype)
        return Pair(lambda: model.log_prob(x), lambda: peer.log_prob(x), lambda a, b: _relative(a, b) / allowed)

    return prepare


def gaussian_sample(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    """Both draw z and map it by L; the peer from the global generator, which the command puts back."""
    g = _generator()
    model = a_gaussian(64, g).to(dtype)
    peer, n = _torch_gaussian(model, False), sizes.gaussian
    same_law = lambda a, b: max(_law_error(model, a, n), _law_error(model, b, n))  # noqa: E731
    return Pair(lambda: model.sample(n, generator=g), lambda: peer.sample((n,)), same_law)


def _torch_gaussian(model: Gaussian, validate_args: bool) -> Any:
    return torch.distributions.MultivariateNormal(model.loc, scale_tril=model.cholesky, validate_args=validate_args)


# Mixture


def mixture_log_prob_torch(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

    model, x = _mixture_and_draws(sizes, dtype)
    means = torch.stack([c.loc for c in model.components])
    factors = torch.stack([c.cholesky for c in model.components])
    parts = MultivariateNormal(means, scale_tril=factors, validate_args=False)
    peer = MixtureSameFamily(Categorical(model.weights, validate_args=False), parts, validate_args=False)
    allowed = _rounding(model.components, dtype)
    return Pair(lambda: model.log_prob(x), lambda: peer.log_prob(x), lambda a, b: _relative(a, b) / allowed)


def mixture_log_prob_sklearn(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    import numpy as np
    from sklearn.mixture import GaussianMixture as Sklearn

    model, x = _mixture_and_draws(sizes, dtype)
    peer = Sklearn(len(model.components))
    peer.weights_ = model.weights.numpy()
    peer.means_ = np.stack([c.loc.numpy() for c in model.components])
    peer.covariances_ = np.stack([c.covariance().numpy() for c in model.components])
    peer.precisions_cholesky_ = np.stack([inverse_factor(c.cholesky).mT.numpy() for c in model.components])
    rows, allowed = x.numpy(), _rounding(model.components, dtype)
    return Pair(lambda: model.log_prob(x), lambda: peer.score_samples(rows), lambda a, b: _relative(a, b) / allowed)


def _mixture_and_draws(sizes: Sizes, dtype: torch.dtype) -> tuple[GaussianMixture, Tensor]:
    g = _generator()
    model = a_mixture(8, 10, g).to(dtype)
    return model, model.sample(sizes.mixture, generator=g)


def em_sklearn(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Sklearn

    start, x = _start_and_draws(sizes, dtype)
    weights, rows = start.weights.numpy(), x.numpy()
    means = np.stack([c.loc.numpy() for c in start.components])
    precisions = np.stack([c.precision().numpy() for c in start.components])
    given = {"weights_init": weights, "means_init": means, "precisions_init": precisions}

    def theirs() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return Sklearn(len(means), tol=0.0, reg_covar=0.0, max_iter=sizes.em_steps, **given).fit(rows)

    return Pair(
        lambda: climb(start, x, sizes.em_steps),
        theirs,
        lambda a, b: _likelihood_error(a[1], float(b.score(rows)) * len(rows)),
    )


def em_pomegranate(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    start, x = _start_and_draws(sizes, dtype)

    def theirs() -> Any:
        parts = [Normal(c.loc.clone(), c.covariance()) for c in start.components]
        weights = start.weights.clone()
        return GeneralMixtureModel(parts, priors=weights, max_iter=sizes.em_steps, tol=-math.inf).fit(x)

    return Pair(
        lambda: climb(start, x, sizes.em_steps),
        theirs,
        lambda a, b: _likelihood_error(a[1], float(b.log_probability(x).double().sum())),
    )


def _start_and_draws(sizes: Sizes, dtype: torch.dtype) -> tuple[GaussianMixture, Tensor]:
    g = _generator()
    x = a_mixture(8, 10, g).sample(sizes.em, generator=g)
    return kmeans_plus_plus(x, 10, generator=g).to(dtype), x.to(dtype)


def climb(start: GaussianMixture, x: Tensor, steps: int) -> tuple[GaussianMixture, Tensor]:
    return expectation_maximisation(start, x, floor=FLOOR, tolerance=-math.inf, iterations=steps)


# Discrete


def chow_liu_pgmpy(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    """Ours also fits the tables; theirs finds the tree alone."""
    import pandas as pd
    from pgmpy.estimators import TreeSearch

    from suites.data import nltcs

    x = nltcs().train[: sizes.chow_liu]
    d = x.shape[1]
    table = pd.DataFrame(x.numpy())
    information = pairwise_information(pairwise_counts(x, (2,) * d))

    def theirs() -> Any:
        return TreeSearch(table, root_node=0, n_jobs=threads).estimate("chow-liu", show_progress=False)

    def disagreement(ours: Any, peer: Any) -> float:
        """Of equal weights any tree may be chosen, so the trees are compared by their information."""
        edges = [(pa[0], child) for child, pa in enumerate(ours.parents) if pa]
        weights = [float(sum(information[i, j] for i, j in tree)) for tree in (edges, list(peer.edges()))]
        if len(edges) != d - 1 or len(list(peer.edges())) != d - 1:
            return math.inf
        return abs(weights[0] - weights[1]) / (d * torch.finfo(torch.float64).eps * weights[0])

    return Pair(lambda: chow_liu(x), theirs, disagreement)


def markov_log_prob_hmmlearn(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
    """A hidden chain that shows its state is the same law; hmmlearn sums over the paths, of which one is possible."""
    import numpy as np
    from hmmlearn.hmm import CategoricalHMM

    g, states, steps = _generator(), 8, 100
    model = a_chain(states, steps, g).to(dtype)
    x = model.sample(sizes.markov, generator=g)
    peer = CategoricalHMM(states, n_features=states)
    peer.startprob_, peer.transmat_ = model.initial.double().numpy(), model.transition.double().numpy()
    peer.emissionprob_ = np.eye(states)
    rows, lengths = x.reshape(-1, 1).numpy(), [steps] * len(x)

    def theirs() -> float:
        with np.errstate(divide="ignore"):  # log 0 for the states that are not shown
            return float(peer.score(rows, lengths))

    terms = x.numel() * torch.finfo(dtype).eps
    return Pair(lambda: model.log_prob(x), theirs, lambda a, b: abs(float(a.double().sum()) - b) / (terms * abs(b)))


# How far apart


def _relative(ours: Tensor, peer: Any) -> float:
    """The largest difference, beside the largest value; NaN or another shape or dtype is infinitely far."""
    peer = torch.as_tensor(peer)
    if ours.shape != peer.shape or ours.dtype != peer.dtype:
        return math.inf
    gap = float((ours - peer).abs().max() / peer.abs().max())
    return gap if gap >= 0 else math.inf


def _rounding(components: Any, dtype: torch.dtype) -> float:
    """Relative rounding of log p: z = L^-1 (x - mu) is off by (d + 2) eps cond(L) of itself, its square by twice that.

    Twice, for two sides; times 1 + |mu| / smallest deviation, as scikit-learn subtracts after the product.
    """
    worst = 0.0
    for c in components:
        spread = torch.linalg.svdvals(c.cholesky.double())
        condition, offset = float(spread[0] / spread[-1]), float(c.loc.norm() / spread[-1])
        worst = max(worst, (c.d + 2) * condition * (1 + offset))
    return 4 * torch.finfo(dtype).eps * worst


def _law_error(model: Gaussian, x: Tensor, n: int) -> float:
    """The worst mean and variance of the 64 whitened coordinates, in units of six standard errors each."""
    if x.shape != (n, model.d) or x.dtype != model.loc.dtype:
        return math.inf
    z = model.to(torch.float64).whiten(x)
    mean, variance = z.mean(0).abs() * n**0.5, (z.square().mean(0) - 1).abs() * (n / 2) ** 0.5
    worst = float(torch.maximum(mean, variance).max() / 6)
    return worst if worst >= 0 else math.inf


def _likelihood_error(history: Tensor, peer: float) -> float:
    """In units of a millionth of what EM has gained."""
    gained = float(history[-1] - history[0])
    gap = abs(float(history[-1]) - peer) / (1e-6 * gained)
    return gap if gap >= 0 else math.inf


@contextmanager
def global_generator_put_back() -> Iterator[None]:
    """torch's distributions draw from the global generator; whoever measures them leaves it as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


def _all_cases() -> Iterator[Case]:
    for dtype in ("float32", "float64"):
        for validate in (False, True):
            note, prepare = f"validate_args={validate}", gaussian_log_prob(validate)
            yield Case("gaussian.log_prob", "torch MultivariateNormal", 4.0, dtype, ("torch",), prepare, note)
        yield Case("gaussian.sample", "torch MultivariateNormal", 2.0, dtype, ("torch",), gaussian_sample)
        torch_mixture = "torch MixtureSameFamily"
        note = "validate_args=False"
        yield Case("mixture.log_prob", torch_mixture, 1.2, dtype, ("torch",), mixture_log_prob_torch, note)
        sklearn = ("scikit-learn", "numpy", "scipy")
        yield Case("mixture.log_prob", "scikit-learn", 1.5, dtype, sklearn, mixture_log_prob_sklearn)
    yield Case("mixture.em", "scikit-learn", 1.0, "float64", sklearn, em_sklearn)
    yield Case("mixture.em", "pomegranate", 3.0, "float64", ("pomegranate", "torch"), em_pomegranate)
    yield Case("chow_liu", "pgmpy", 100.0, "float64", ("pgmpy", "pandas", "scikit-learn"), chow_liu_pgmpy)
    note = "CategoricalHMM whose emissions show the state"
    yield Case("markov.log_prob", "hmmlearn", 1.0, "float64", ("hmmlearn", "numpy"), markov_log_prob_hmmlearn, note)


CASES = tuple(_all_cases())
