r"""Mixtures of Gaussians: first choose a component, y ~ Cat(pi), then draw x ~ N(mu_y, Sigma_y).

    p(x) = sum_k pi_k N(x; mu_k, Sigma_k)

The covariances are `full` (one matrix for each component), `tied` (one matrix for all of them), `diagonal` or
`spherical` (sigma_k^2 I). Marginals and conditionals of a mixture are mixtures of the same kind; observing part of x
also says which component it came from. There is no closed form for the entropy, for a divergence or for the maximum
likelihood estimate; the last is found by EM.

Sources: Bishop, Pattern Recognition and Machine Learning (2006), chapter 9;
Dempster, Laird & Rubin (1977), www.jstor.org/stable/2984875; McLachlan & Peel, Finite Mixture Models (2000).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from reference_impls.discrete import Categorical, from_logits, logits_of
from reference_impls.gaussian import LOG_2PI, DiagonalGaussian, Gaussian
from reference_impls.gaussian_factors import (
    as_floats,
    checked_draws,
    checked_parameters,
    checked_values,
    in_chunks,
    infinite_at_infinity,
    inverse_factor,
    squared,
)
from reference_impls.indices import as_count, split_evidence
from reference_impls.mixture_em import Modes, e_step, m_step

KINDS = ("full", "tied", "diagonal", "spherical")


class GaussianMixture:
    """sum_k pi_k N(mu_k, Sigma_k), from the weights pi (k,) and k components on the same R^d.

    The components are `Gaussian`s of a full or tied mixture, `DiagonalGaussian`s of a diagonal or spherical one. A
    mixture that was fitted keeps the log-likelihood of its training draws after each step in `history`.
    """

    number = "M11"
    family = "Gaussian mixture"

    def __init__(
        self,
        weights: Tensor,
        components: Sequence[Gaussian | DiagonalGaussian],
        kind: str | None = None,
        *,
        history: Tensor | None = None,
    ):
        self.choice = Categorical(weights)
        self.components = tuple(components)
        if len(self.components) != self.choice.states:
            raise ValueError(f"{self.choice.states} weights for {len(self.components)} components")
        if len({(c.d, c.loc.dtype, c.loc.device, type(c)) for c in self.components}) != 1:
            raise ValueError("the components differ in dimension, dtype, device or class")
        self.kind = _checked_kind(kind, self.components)
        self.d = self.components[0].d
        self.weights = self.choice.probs.to(self.components[0].loc)  # (k,)
        self.history = history  # (steps + 1,)

    def log_prob(self, x: Tensor) -> Tensor:
        return self._from_log_joint(lambda log_joint: log_joint.logsumexp(0), x)  # (n,)

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y = k) = log pi_k + log N(x; mu_k, Sigma_k); its softmax over k is p(y = k | x)."""
        return self._from_log_joint(lambda log_joint: log_joint, x).mT  # (n, k)

    def posterior(self, x: Tensor) -> Tensor:
        """p(y = k | x), the share of component k in a draw at x; NaN where every component has density 0."""
        return self.log_joint(x).softmax(-1)  # (n, k)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        y = self.choice.sample(n, generator=generator)  # (n,)
        x = self.weights.new_empty(n, self.d)
        for k, component in enumerate(self.components):
            is_k = y == k
            x[is_k] = component.sample(int(is_k.sum()), generator=generator)
        return x  # (n, d)

    def mean(self) -> Tensor:
        return self.weights @ self._means()  # (d,)

    def covariance(self) -> Tensor:
        """E Cov[x | y] + Cov E[x | y]: what varies within the components, and between them."""
        within = sum(w * c.covariance() for w, c in zip(self.weights, self.components, strict=True))
        offset = self._means() - self.mean()  # (k, d)
        return within + (self.weights[:, None] * offset).mT @ offset  # (d, d)

    def variance(self) -> Tensor:
        within = sum(w * c.variance() for w, c in zip(self.weights, self.components, strict=True))
        return within + self.weights @ (self._means() - self.mean()).square()  # (d,)

    def marginal(self, indices: Sequence[int]) -> "GaussianMixture":
        return GaussianMixture(self.weights, [c.marginal(indices) for c in self.components], self.kind)

    def conditional(self, indices: Sequence[int], values: Tensor) -> "GaussianMixture":
        """p(x_b | x_a): component k stays N(x_b | x_a) of component k, its weight becomes p(y = k | x_a)."""
        a, _ = split_evidence(indices, self.d)
        values = checked_values(values, len(a)).to(self.weights)
        if not a:
            return self
        conditionals = [c.conditional(a, values) for c in self.components]
        weights = self.marginal(a).posterior(values[None])[0]  # (k,)
        if weights.isnan().any():
            raise ValueError("values are so far from every component that their density is 0; give possible ones")
        return GaussianMixture(weights, conditionals, self.kind)

    def parameters(self) -> Tensor:
        """The free parameters, without constraints: log(pi_k / pi_K) for k < K, the means, then the scales.

        The scale of a full or tied covariance is its Cholesky factor, row by row, with the logarithms of its diagonal;
        that of a diagonal or spherical one is log sigma.
        """
        logits = logits_of(self.weights)  # (k - 1,), infinite for a weight of 0
        return torch.cat([logits, self._means().flatten(), *(_scale_of(c, self.kind) for c in self._scales())])

    def with_parameters(self, theta: Tensor) -> "GaussianMixture":
        """The mixture of this kind and size that has these parameters; differentiable in theta (parameters,)."""
        K, d = len(self.components), self.d
        wanted = len(self.parameters())
        theta = checked_parameters(theta, wanted)
        logits, means, scales = theta.split([K - 1, K * d, wanted - K + 1 - K * d])
        weights = from_logits(logits)
        scales = scales.reshape(len(self._scales()), -1).expand(K, -1)  # a tied one serves all components
        parts = [_component(mean, scale, self.kind) for mean, scale in zip(means.reshape(K, d), scales, strict=True)]
        return GaussianMixture(weights, parts, self.kind)

    def fit(self, x: Tensor, *, generator: Generator | None = None, restarts: int = 8, **stopping) -> "GaussianMixture":
        """A local maximum of the likelihood, with the kind and the number of components of this mixture.

        Without a generator EM starts here, and so ends no lower than here (unless a component lies below the floor,
        which the first step lifts). With one it is `fit_mixture`, which starts from the draws alone.
        """
        if generator is None:
            return expectation_maximisation(self, x, **stopping)[0]
        return fit_mixture(x, len(self.components), kind=self.kind, generator=generator, restarts=restarts, **stopping)

    def to(self, *args, **kwargs) -> "GaussianMixture":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        weights = self.choice.to(*args, **kwargs).probs
        return GaussianMixture(
            weights, [c.to(*args, **kwargs) for c in self.components], self.kind, history=self.history
        )

    def _from_log_joint(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """function(log p(x, y = k)), which is (k, rows) for some rows of x at a time: no temporary grows with n k d.

        A draw is a column, so that sums over coordinates and over components add whole rows.
        """
        x, means, weights = as_floats(checked_draws(x, self.d), self._means(), self.weights)
        whiten, log_det = self._whitening(x.dtype)
        log_scale = weights.log() - log_det - self.d / 2 * LOG_2PI  # (k,)

        def of_rows(rows: Tensor) -> Tensor:
            squares = squared(whiten(rows.mT - means[:, :, None])).sum(1)  # (k, rows)
            return function(log_scale[:, None] - infinite_at_infinity(squares, rows) / 2)

        return in_chunks(of_rows, x, len(self.components) * self.d)

    def _whitening(self, dtype: torch.dtype) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """The map from x - mu_k, (k, d, rows), to z_k = L_k^-1 (x - mu_k), and log det L_k (k,)."""
        if self.kind in ("full", "tied"):
            factors = torch.stack([c.cholesky for c in self.components]).to(dtype)  # (k, d, d)
            to_white = inverse_factor(factors)
            return (lambda offset: to_white @ offset), factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        deviations = torch.stack([c.variance() for c in self.components]).to(dtype).sqrt()  # (k, d)
        return (lambda offset: offset / deviations[:, :, None]), deviations.log().sum(-1)

    def _means(self) -> Tensor:
        return torch.stack([c.mean() for c in self.components])  # (k, d)

    def _scales(self) -> tuple[Gaussian | DiagonalGaussian, ...]:
        """The components whose scales are free: one of them when the covariances are tied."""
        return self.components[:1] if self.kind == "tied" else self.components


# Estimation


def fit_mixture(
    x: Tensor, k: int, *, generator: Generator, kind: str = "full", restarts: int = 8, **stopping
) -> GaussianMixture:
    """A good local maximum of the likelihood with k components: EM from the best of some short runs.

    Each short run is seeded by k-means++ (Biernacki, Celeux & Govaert 2003, doi.org/10.1016/S0167-9473(02)00163-9).
    """
    seeds = [kmeans_plus_plus(x, k, kind=kind, generator=generator) for _ in range(as_count(restarts, "restarts"))]
    short = {**stopping, "iterations": 20}
    start, _ = max((expectation_maximisation(seed, x, **short) for seed in seeds), key=lambda run: run[1][-1])
    return expectation_maximisation(start, x, **stopping)[0]


def expectation_maximisation(
    start: GaussianMixture, x: Tensor, *, floor: float = 1e-4, tolerance: float = 1e-10, iterations: int = 1000
) -> tuple[GaussianMixture, Tensor]:
    r"""Climb from `start` until a step gains less than `tolerance` nats per draw; also returns log p(x) at each step.

    E: r_ik = p(y_i = k | x_i).     M: maximise sum_ik r_ik [log pi_k + log N(x_i; mu_k, Sigma_k)].

    The likelihood is unbounded, as a component may shrink onto a single draw. So the maximum is taken over mixtures
    with Sigma_k >= floor S, S the covariance of all draws: by default no component is narrower, in any direction, than
    a hundredth of the data. Under that bound EM still never loses likelihood (see `m_step`), and unlike a multiple of
    the identity it means the same after any change of units. (Hathaway 1985, doi.org/10.1214/aos/1176349557.) For a
    diagonal mixture S is the diagonal of that covariance, for a spherical one the mean of its diagonal times I.

    Steps are taken in float64 on draws whitened by S; the mixture returned has the dtype of x.
    """
    (x,) = as_floats(x)
    if not 0 < floor < torch.inf:
        raise ValueError(f"the variance floor is {floor}; without a positive one the likelihood has no maximum")
    whole = _whole(x, start.kind)
    if start.d != whole.d:
        raise ValueError(f"x has {whole.d} columns, but the mixture to start from has {start.d} coordinates")
    identity = torch.eye(whole.d).to(whole.loc)
    to_white = torch.linalg.solve_triangular(whole.cholesky, identity, upper=False)  # (d, d)
    z = torch.cat([whole.whiten(x).mT, whole.loc.new_ones(1, len(x))])  # (d + 1, n)
    log_jacobian = -whole.cholesky.diagonal().log().sum()  # log |det dz/dx|
    modes = _modes_of(_map(start.to(x.device, torch.float64), to_white, -to_white @ whole.loc))
    log_likelihood, seen = e_step(modes, z)
    history = [log_likelihood + len(x) * log_jacobian]
    for _ in range(iterations):
        modes = m_step(modes, seen, floor)
        log_likelihood, seen = e_step(modes, z)
        history.append(log_likelihood + len(x) * log_jacobian)
        if history[-1] - history[-2] < tolerance * len(x):
            break
    fitted, steps = _map(_mixture_of(modes), whole.cholesky, whole.loc).to(x.dtype), torch.stack(history)
    return GaussianMixture(fitted.weights, fitted.components, fitted.kind, history=steps), steps


def _modes_of(mixture: GaussianMixture) -> Modes:
    if mixture.kind in ("full", "tied"):
        scales = torch.stack([c.cholesky for c in mixture.components])
    else:
        scales = torch.stack([c.variance() for c in mixture.components]).sqrt()
    return Modes(mixture.kind, mixture.weights, mixture._means(), scales)


def _mixture_of(modes: Modes) -> GaussianMixture:
    pairs = zip(modes.means, modes.scales, strict=True)
    if modes.kind in ("full", "tied"):
        parts = [Gaussian(mean, cholesky=factor) for mean, factor in pairs]
    else:
        parts = [DiagonalGaussian(mean, deviations.square()) for mean, deviations in pairs]
    return GaussianMixture(modes.weights, parts, modes.kind)


def kmeans_plus_plus(x: Tensor, k: int, *, generator: Generator, kind: str = "full") -> GaussianMixture:
    """Equal round components around k draws, each drawn in proportion to its squared distance from those before it.

    Distances are those of whitened draws, hence the same in any units. (Arthur & Vassilvitskii 2007,
    theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf)
    """
    if not isinstance(k, int) or k < 1 or kind not in KINDS:
        raise ValueError(f"k = {k} components of kind {kind!r}; k should be positive, kind one of {', '.join(KINDS)}")
    whole = _whole(x, kind)
    z = whole.whiten(x)  # (n, d)
    weight = z.new_ones(len(z))  # the first is any draw
    nearest = z.new_full((len(z),), torch.inf)  # squared distance to the nearest centre
    centres = []
    for _ in range(k):
        if not weight.any():
            raise ValueError(f"x has fewer than {k} different draws; choose a smaller k")
        centres.append(z[Categorical(weight / weight.sum()).sample(1, generator=generator)[0]])
        nearest = weight = torch.minimum(nearest, (z - centres[-1]).square().sum(-1))
    variance = (nearest.mean() / whole.d).clamp_min(torch.finfo(z.dtype).eps).expand(whole.d)  # (d,)
    components = [DiagonalGaussian(centre, variance) for centre in centres]
    if kind in ("full", "tied"):
        components = [Gaussian(centre, cholesky=variance.sqrt().diag()) for centre in centres]
    return _map(GaussianMixture(z.new_full((k,), 1 / k), components, kind), whole.cholesky, whole.loc)


def _whole(x: Tensor, kind: str) -> Gaussian | DiagonalGaussian:
    """The one Gaussian of that kind that fits all draws, in float64."""
    (x,) = as_floats(x)
    if kind in ("full", "tied"):
        return Gaussian.fit(x).to(torch.float64)
    whole = DiagonalGaussian.fit(x.double())
    if kind == "diagonal":
        return whole
    return DiagonalGaussian(whole.mean(), whole.variance().mean().expand(whole.d))


def _map(mixture: GaussianMixture, matrix: Tensor, shift: Tensor) -> GaussianMixture:
    """The law of A x + b; A is diagonal where the covariances are."""
    if mixture.kind in ("full", "tied"):
        parts = [c.affine(matrix, shift) for c in mixture.components]
    else:
        a = matrix.diagonal()  # (d,)
        parts = [DiagonalGaussian(a * c.mean() + shift, a.square() * c.variance()) for c in mixture.components]
    return GaussianMixture(mixture.weights, parts, mixture.kind)


# Helpers


def _scale_of(component: Gaussian | DiagonalGaussian, kind: str) -> Tensor:
    if kind in ("full", "tied"):
        factor = component.cholesky
        lower = torch.ones_like(factor, dtype=torch.bool).tril()
        return (factor.tril(-1) + factor.diagonal().log().diag())[lower]  # (d (d + 1) / 2,)
    log_sigma = component.variance().log() / 2  # (d,)
    return log_sigma[:1] if kind == "spherical" else log_sigma


def _component(mean: Tensor, scale: Tensor, kind: str) -> Gaussian | DiagonalGaussian:
    d = len(mean)
    if kind not in ("full", "tied"):
        return DiagonalGaussian(mean, (2 * scale).exp().expand(d))
    at = torch.ones(d, d, dtype=torch.bool, device=scale.device).tril()
    packed = scale.new_zeros(d, d).masked_scatter(at, scale)
    return Gaussian(mean, cholesky=packed.tril(-1) + packed.diagonal().exp().diag())


def _checked_kind(kind: str | None, components: Sequence[Gaussian | DiagonalGaussian]) -> str:
    diagonal = isinstance(components[0], DiagonalGaussian)
    kind = kind or ("diagonal" if diagonal else "full")
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it should be one of {', '.join(KINDS)}")
    if diagonal != (kind in ("diagonal", "spherical")):
        raise ValueError(f"components of a {kind} mixture cannot be {type(components[0]).__name__}s")
    if kind == "tied" and not all(torch.equal(c.cholesky, components[0].cholesky) for c in components):
        raise ValueError("the components of a tied mixture should have the same covariance; kind='full' allows others")
    if kind == "spherical" and not all((c.variance() == c.variance()[0]).all() for c in components):
        raise ValueError("a spherical component should have one variance; kind='diagonal' allows one a coordinate")
    return kind


# Ready-made models


def three_modes(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GaussianMixture:
    """Three separate modes in the plane, of weights 1/2, 0.3 and 0.2: one round, one long, one small and tilted."""
    means = [[-3.0, 0.0], [3.0, 2.0], [1.0, -4.0]]
    covariances = [[[1.0, 0.0], [0.0, 1.0]], [[0.3, 0.0], [0.0, 2.0]], [[0.5, 0.4], [0.4, 0.5]]]
    return _mixture([0.5, 0.3, 0.2], means, covariances, dtype, device)


def old_faithful_like(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GaussianMixture:
    """Duration and waiting time of the eruptions of Old Faithful, in minutes: the two-component fit, rounded."""
    means = [[2.036, 54.48], [4.290, 79.97]]
    covariances = [[[0.0692, 0.435], [0.435, 33.70]], [[0.170, 0.941], [0.941, 36.05]]]
    return _mixture([0.356, 0.644], means, covariances, dtype, device)


def tied_modes(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GaussianMixture:
    """Two tilted modes of the same shape, of weights 0.6 and 0.4."""
    shape = [[1.0, 0.6], [0.6, 0.8]]
    return _mixture([0.6, 0.4], [[-2.0, 1.0], [2.0, 0.0]], [shape, shape], dtype, device, "tied")


def diagonal_modes(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GaussianMixture:
    """Two modes in space, a flat one and a narrow one, whose coordinates are independent within each."""
    return _mixture(
        [0.7, 0.3], [[0.0, 0.0, 0.0], [2.0, -2.0, 1.0]], [[4.0, 4.0, 0.25], [0.1, 0.2, 0.4]], dtype, device, "diagonal"
    )


def round_modes(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GaussianMixture:
    """A round mode within a wider one around the same point, and a third aside."""
    means, variances = [[0.0, 0.0], [0.0, 0.0], [4.0, 1.0]], [[0.1, 0.1], [4.0, 4.0], [0.5, 0.5]]
    return _mixture([0.3, 0.4, 0.3], means, variances, dtype, device, "spherical")


def _mixture(weights: list, means: list, scales: list, dtype, device, kind: str = "full") -> GaussianMixture:
    placing = device or torch.get_default_device(), dtype or torch.get_default_dtype()
    weights, means, scales = (torch.tensor(t, dtype=torch.float64) for t in (weights, means, scales))
    family = Gaussian if kind in ("full", "tied") else DiagonalGaussian
    components = [family(mean, scale) for mean, scale in zip(means, scales, strict=True)]
    return GaussianMixture(weights, components, kind).to(*placing)
