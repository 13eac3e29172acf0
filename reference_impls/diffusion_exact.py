r"""Diffusions of which everything is known: the data are Gaussian, or a mixture of Gaussians.

    x_0 ~ sum_k pi_k N(mu_k, Sigma_k)     so that     x_t ~ p_t = sum_k pi_k N(scale mu_k, scale^2 Sigma_k + sigma^2 I)

With Sigma_k = U diag(lambda) U^T, shares r_k = p(k | x_t), and y = U^T (x_t - scale mu_k) for each k,

    E[x_0 | x_t] = sum_k r_k [mu_k + U scale lambda / (scale^2 lambda + sigma^2) y],
    grad log p_t = - sum_k r_k U y / (scale^2 lambda + sigma^2),

each computed by itself; that they are tied, scale E[x_0 | x_t] = x_t + sigma^2 grad log p_t, is Tweedie's formula. So a
sampler's error is its own: it has no network to blame.

Sources: Robbins 1956; Efron 2011, doi.org/10.1198/jasa.2011.tm11181; Song et al. 2021, arxiv.org/abs/2011.13456;
Ho & Salimans 2022, arxiv.org/abs/2207.12598, for guidance.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from reference_impls.gaussian import LOG_2PI, DiagonalGaussian, Gaussian
from reference_impls.mixture import GaussianMixture
from reference_impls.samplers import Denoise, euler, heun, log_likelihood
from reference_impls.schedules import (
    EDM,
    Linear,
    Noised,
    Schedule,
    Steps,
    SubVP,
    VarianceExploding,
    VariancePreserving,
    linear_betas,
)

SOLVERS = {1: euler, 2: heun}
"""Solvers of the probability-flow ODE by their order."""


class ExactDiffusion(Noised):
    """Data of that law under that noise. `sample`, `log_prob` and `score` are the law's own, without any solver;
    `integrate` takes steps of the solver of that order."""

    number, family = "M24", "diffusion with known denoiser"

    def __init__(self, law: Gaussian | GaussianMixture, noise: Schedule, order: int = 2):
        if order not in SOLVERS:
            raise ValueError(f"order = {order}: there are solvers of the orders {sorted(SOLVERS)}")
        parts = law.components if isinstance(law, GaussianMixture) else (law,)
        self.law, self.noise, self._order, self.d = law, noise, order, law.d
        self.weights = law.weights if isinstance(law, GaussianMixture) else torch.ones_like(law.loc[:1])  # (k,)
        self.means = torch.stack([part.loc for part in parts])  # (k, d)
        factors = torch.stack([part.cholesky for part in parts]).double()
        self.variances, self.axes = torch.linalg.eigh(factors @ factors.mT)  # (k, d), (k, d, d), in float64

    # The data

    def data(self) -> Gaussian | GaussianMixture:
        return self.law

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return self.law.sample(n, generator=generator)  # (n, d)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.law.log_prob(x)  # (n,)

    def score(self, x: Tensor) -> Tensor:
        """grad log p(x), of the data without any noise."""
        one = torch.ones_like(x[:, 0])
        return self._score(x, one, 0 * one)  # (n, d)

    # The noise

    def base(self) -> DiagonalGaussian:
        """N(0, sigma^2 I) of the last time: what is left of the data then, scale x_0, is small beside it."""
        _, sigma = self.noise.schedule(torch.tensor(self.noise.last, dtype=torch.float64, device=self.means.device))
        return DiagonalGaussian(torch.zeros_like(self.means[0]), sigma.square().to(self.means).expand(self.d))

    # The laws between

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t = x]."""
        scale, sigma = self._levels(x, t)
        y, spread, shares = self._seen(x, scale, sigma)
        shrunk = scale[:, None, None] * self.variances.to(x) / spread * y  # (n, k, d)
        return (shares[:, :, None] * (self.means + self._turned(shrunk))).sum(1)  # (n, d)

    def score_at(self, x: Tensor, t: Tensor) -> Tensor:
        """grad log p_t(x)."""
        return self._score(x, *self._levels(x, t))  # (n, d)

    def log_prob_at(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x)."""
        return self._log_joint(*self._offsets(x, *self._levels(x, t))).logsumexp(1)  # (n,)

    # The way back

    def order(self) -> int:
        return self._order

    def integrate(self, x: Tensor, steps: int) -> Tensor:
        return SOLVERS[self._order](self.denoise, self.noise, x, self.noise.times(steps, x))  # (n, d)

    def _score(self, x: Tensor, scale: Tensor, sigma: Tensor) -> Tensor:
        y, spread, shares = self._seen(x, scale, sigma)
        return -(shares[:, :, None] * self._turned(y / spread)).sum(1)

    def _seen(self, x: Tensor, scale: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """y and its variances (n, k, d), and p(k | x_t = x) (n, k)."""
        y, spread = self._offsets(x, scale, sigma)
        return y, spread, self._log_joint(y, spread).softmax(1)

    def _offsets(self, x: Tensor, scale: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        apart = x[:, None] - scale[:, None, None] * self.means  # (n, k, d)
        spread = scale.square()[:, None, None] * self.variances.to(x) + sigma.square()[:, None, None]
        return (apart[:, :, None] @ self.axes.to(x))[:, :, 0], spread

    def _log_joint(self, y: Tensor, spread: Tensor) -> Tensor:
        return self.weights.log() - (y.square() / spread + spread.log() + LOG_2PI).sum(-1) / 2  # (n, k)

    def _turned(self, y: Tensor) -> Tensor:
        """U y for each component."""
        return (y[:, :, None] @ self.axes.mT.to(y))[:, :, 0]  # (n, k, d)

    def _levels(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if x.dim() != 2 or x.shape[1] != self.d or t.shape != x.shape[:1]:
            raise ValueError(
                f"x and t should be events (n, {self.d}) and a time for each, not {tuple(x.shape)} and {tuple(t.shape)}"
            )
        return self.noise.schedule(t)


class ProbabilityFlow:
    """The model that a diffusion's ODE makes of pure noise: draws and log-densities by so many of Heun's steps.

    It is the law of the data at the first time, up to the error of the steps, which falls as steps^-2, and to what the
    last time has left of the data. So its mass is 1 to so many digits only: `density.integrates_to_one` sees the steps.
    Extrapolated to none (Richardson 1911), y = (4 y_2n - y_n) / 3 for draws and log-densities y_n by n steps, the error
    falls as steps^-4, and the mass is 1 to float32 with few.
    """

    number, family = "M24", "probability-flow ODE"

    def __init__(self, diffusion: ExactDiffusion, steps: int = 32, *, extrapolated: bool = False):
        if steps < 1:
            raise ValueError(f"steps = {steps}: a solver takes one step or more")
        self.diffusion, self.steps, self.extrapolated = diffusion, steps, extrapolated

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        z = self.diffusion.base().sample(n, generator=generator)
        return self._solved(lambda times: heun(self.diffusion.denoise, self.diffusion.noise, z, times).detach(), z)

    def log_prob(self, x: Tensor) -> Tensor:
        return self._solved(lambda times: self._log_likelihood(x, times), x)  # (n,)

    def estimated_log_prob(self, x: Tensor, *, generator: Generator) -> Tensor:
        """By so many steps, with Hutchinson's estimate of the divergence: two passes a step whatever d is."""
        return self._log_likelihood(x, self.diffusion.noise.times(self.steps, x), generator)  # (n,)

    def _log_likelihood(self, x: Tensor, times: Tensor, generator: Generator | None = None) -> Tensor:
        parts = (self.diffusion.denoise, self.diffusion.noise, x, times, self.diffusion.base().log_prob)
        return log_likelihood(*parts, generator=generator)

    def _solved(self, by: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
        """What the solver gives at its times, extrapolated if wanted."""
        once = by(self.diffusion.noise.times(self.steps, like))
        if not self.extrapolated:
            return once
        return (4 * by(self.diffusion.noise.times(2 * self.steps, like)) - once) / 3


def guided(with_label: Denoise, without: Denoise, w: float) -> Denoise:
    """(1 + w) E[x_0 | x_t, y] - w E[x_0 | x_t], and so of the scores: classifier-free guidance. w = 0 is none.

    The result is no denoiser of any law, and what its ODE draws is not p(x | y)^(1 + w) p(x)^-w, though it leans there.
    """
    return lambda x, t: (1 + w) * with_label(x, t) - w * without(x, t)


class LabelledDiffusion:
    """p(x | y) of a mixture of which y is the component; its classes are Gaussian, and are drawn without a solver."""

    number, family = "M27", "class-conditional diffusion"

    def __init__(self, law: GaussianMixture, noise: Schedule):
        self.whole = ExactDiffusion(law, noise)
        self.parts = tuple(ExactDiffusion(part, noise) for part in law.components)

    def class_prior(self) -> Tensor:
        return self.whole.weights  # (classes,)

    def log_prob(self, x: Tensor, *, given: Tensor) -> Tensor:
        return self._by_class(given, lambda part, rows: part.log_prob(rows), x)  # (n,)

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        return self._by_class(
            given, lambda part, z: part.law.loc + z @ part.law.cholesky.mT, self._normal(n, generator)
        )

    def guided_sample(self, n: int, w: float, *, given: Tensor, generator: Generator, steps: int = 32) -> Tensor:
        """By so many of Heun's steps of the guided ODE."""
        noise, without = self.whole.noise, self.whole.denoise
        z = noise.schedule(torch.full((1, 1), noise.last).to(self.whole.means))[1] * self._normal(n, generator)
        times = noise.times(steps, z)
        work = lambda part, rows: heun(guided(part.denoise, without, w), noise, rows, times)  # noqa: E731
        return self._by_class(given, work, z)  # (n, d)

    def _normal(self, n: int, generator: Generator) -> Tensor:
        means = self.whole.means
        return torch.randn(n, self.whole.d, generator=generator, dtype=means.dtype, device=means.device)

    def _by_class(self, y: Tensor, work: Callable[[ExactDiffusion, Tensor], Tensor], rows: Tensor) -> Tensor:
        """work(the part of y_i, row i) for every row, one call a class."""
        if y.shape != rows.shape[:1] or y.is_floating_point():
            raise ValueError(f"given should be {len(rows)} integers, a label for each event, not {tuple(y.shape)}")
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(self.parts):
            raise ValueError(f"given has labels outside of 0 to {len(self.parts) - 1}")
        chosen = [(y == k).nonzero()[:, 0] for k in range(len(self.parts))]
        found = torch.cat([work(part, rows[some]) for part, some in zip(self.parts, chosen, strict=True)])
        return found[torch.cat(chosen).argsort()]


# Ready-made models


def variance_preserving(
    *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> ExactDiffusion:
    """Three correlated coordinates under Song's VP; Heun's solver."""
    return ExactDiffusion(_ellipsoid(3, dtype, device), VariancePreserving(Linear()))


def sub_vp(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ExactDiffusion:
    """The same under sub-VP, by Euler's solver."""
    return ExactDiffusion(_ellipsoid(3, dtype, device), SubVP(Linear()), order=1)


def variance_exploding(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ExactDiffusion:
    """Two coordinates under Song's VE, by Euler's solver."""
    return ExactDiffusion(_ellipsoid(2, dtype, device), VarianceExploding(), order=1)


def two_clusters(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ExactDiffusion:
    """A mixture in the plane under EDM's schedule."""
    return ExactDiffusion(_clusters(dtype, device), EDM())


def chain_of_ddpm(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ExactDiffusion:
    """The mixture under the 1000 steps of Ho et al., by Euler's solver, which is DDIM."""
    betas = linear_betas().to(device=device or torch.get_default_device())
    return ExactDiffusion(_clusters(dtype, device), VariancePreserving(Steps(betas)), order=1)


def flow_on_a_line(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ProbabilityFlow:
    """The ODE of two bumps on a line under EDM's schedule from 0.02 to 20: 24 of Heun's steps and 48, extrapolated.

    Its mass is 1 to 5e-6: within float32, and beside it in float64.
    """
    weights, means, variances = torch.tensor([[0.4, 0.6], [-1.0, 0.8], [0.1, 0.4]], dtype=torch.float64, device="cpu")
    parts = [Gaussian(mean[None], variance[None, None]) for mean, variance in zip(means, variances, strict=True)]
    law = GaussianMixture(weights, parts).to(*_placing(dtype, device))
    return ProbabilityFlow(ExactDiffusion(law, EDM(0.02, 20.0)), 24, extrapolated=True)


def labelled_clusters(
    *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> LabelledDiffusion:
    return LabelledDiffusion(_clusters(dtype, device), EDM())


def _ellipsoid(d: int, dtype: torch.dtype | None, device: torch.device | str | None) -> Gaussian:
    """Means from -1/2 to 1/2, deviations from 1/2 to 2, correlations 0.6^|i - j|."""
    i = torch.arange(d, dtype=torch.float64, device="cpu")
    deviation = torch.logspace(-1, 1, d, base=2, dtype=torch.float64, device="cpu")
    covariance = deviation * deviation[:, None] * 0.6 ** (i - i[:, None]).abs()
    return Gaussian(torch.linspace(-0.5, 0.5, d, dtype=torch.float64, device="cpu"), covariance).to(
        *_placing(dtype, device)
    )


def _clusters(dtype: torch.dtype | None, device: torch.device | str | None) -> GaussianMixture:
    """A narrow one and a wide one, partly overlapping."""
    means = torch.tensor([[-1.0, 0.5], [0.8, -0.4]], dtype=torch.float64, device="cpu")
    covariances = torch.tensor(
        [[[0.1, 0.05], [0.05, 0.1]], [[0.5, -0.2], [-0.2, 0.3]]], dtype=torch.float64, device="cpu"
    )
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64, device="cpu")
    return GaussianMixture(weights, [Gaussian(*part) for part in zip(means, covariances, strict=True)]).to(
        *_placing(dtype, device)
    )


def _placing(dtype: torch.dtype | None, device: torch.device | str | None) -> tuple:
    return device or torch.get_default_device(), dtype or torch.get_default_dtype()
