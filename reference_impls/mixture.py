r"""Mixtures of Gaussians: first choose a component, y ~ Cat(pi), then draw x ~ N(mu_y, Sigma_y).

    p(x) = sum_k pi_k N(x; mu_k, Sigma_k)

Marginals and conditionals of a mixture are mixtures; observing part of x also says which component it came from. There
is no closed form for the entropy, for a divergence or for the maximum likelihood estimate; the last is found by EM.

Sources: Bishop, Pattern Recognition and Machine Learning (2006), chapter 9;
Dempster, Laird & Rubin (1977), www.jstor.org/stable/2984875; McLachlan & Peel, Finite Mixture Models (2000).
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from reference_impls.discrete import Categorical
from reference_impls.gaussian import Gaussian, as_floats, lower_factor


class GaussianMixture:
    """sum_k pi_k N(mu_k, Sigma_k), from the weights pi (k,) and k components on the same R^d."""

    def __init__(self, weights: Tensor, components: Sequence[Gaussian]):
        self.choice = Categorical(weights)
        self.components = tuple(components)
        if len(self.components) != self.choice.states:
            raise ValueError(f"{self.choice.states} weights for {len(self.components)} components")
        if len({(c.d, c.loc.dtype, c.loc.device) for c in self.components}) != 1:
            raise ValueError("the components differ in dimension, dtype or device")
        self.d = self.components[0].d
        self.weights = self.choice.probs.to(self.components[0].loc)  # (k,)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_joint(x).logsumexp(-1)  # (n,)

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y = k) = log pi_k + log N(x; mu_k, Sigma_k); its softmax over k is p(y = k | x)."""
        log_prob = torch.stack([component.log_prob(x) for component in self.components], dim=-1)  # (n, k)
        return self.weights.to(log_prob.dtype).log() + log_prob

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
        return GaussianMixture(self.weights, [c.marginal(indices) for c in self.components])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "GaussianMixture":
        """p(x_b | x_a): component k stays N(x_b | x_a) of component k, its weight becomes p(y = k | x_a)."""
        conditionals = [c.conditional(indices, values) for c in self.components]
        observed = torch.as_tensor(values).to(self.weights)[None]  # (1, len(a))
        return GaussianMixture(self.marginal(indices).log_joint(observed)[0].softmax(-1), conditionals)

    def fit(self, x: Tensor, *, generator: Generator | None = None, restarts: int = 8, **stopping) -> "GaussianMixture":
        """A local maximum of the likelihood with as many components as this mixture.

        Given a generator, EM starts from the best of some short runs, each seeded by k-means++ (Biernacki, Celeux &
        Govaert 2003, doi.org/10.1016/S0167-9473(02)00163-9). Without, it starts here, and so ends no lower than here
        (unless a component lies below the floor, which the first step lifts).
        """
        start = self
        if generator is not None:
            seeds = [kmeans_plus_plus(x, len(self.components), generator=generator) for _ in range(restarts)]
            short = {**stopping, "iterations": 20}
            start, _ = max((expectation_maximisation(seed, x, **short) for seed in seeds), key=lambda run: run[1][-1])
        return expectation_maximisation(start, x, **stopping)[0]

    def to(self, *args, **kwargs) -> "GaussianMixture":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return GaussianMixture(self.choice.to(*args, **kwargs).probs, [c.to(*args, **kwargs) for c in self.components])

    def _means(self) -> Tensor:
        return torch.stack([c.mean() for c in self.components])  # (k, d)


def expectation_maximisation(
    start: GaussianMixture, x: Tensor, *, floor: float = 1e-4, tolerance: float = 1e-10, iterations: int = 1000
) -> tuple[GaussianMixture, Tensor]:
    r"""Climb from `start` until a step gains less than `tolerance` nats per draw; also returns log p(x) at each step.

    E: r_ik = p(y_i = k | x_i).     M: maximise sum_ik r_ik [log pi_k + log N(x_i; mu_k, Sigma_k)].

    The likelihood is unbounded, as a component may shrink onto a single draw. So the maximum is taken over mixtures
    with Sigma_k >= floor S, S the covariance of all draws: by default no component is narrower, in any direction, than
    a hundredth of the data. Under that bound EM still never loses likelihood (see `_m_step`), and unlike a multiple of
    the identity it means the same after any change of units. (Hathaway 1985, doi.org/10.1214/aos/1176349557)

    Steps are taken in float64 on whitened draws; the mixture returned has the dtype of x.
    """
    (x,) = as_floats(x)
    whole = Gaussian.fit(x).to(torch.float64)
    identity = torch.eye(whole.d).to(whole.loc)
    to_white = torch.linalg.solve_triangular(whole.cholesky, identity, upper=False)  # (d, d)
    z = whole.whiten(x)  # (n, d)
    log_jacobian = -whole.cholesky.diagonal().log().sum()  # log |det dz/dx|
    mixture = _map(start.to(x.device, torch.float64), to_white, -to_white @ whole.loc)
    log_joint = mixture.log_joint(z)  # (n, k)
    history = [(log_joint.logsumexp(-1) + log_jacobian).sum()]
    for _ in range(iterations):
        mixture = _m_step(z, log_joint.softmax(-1), floor)
        log_joint = mixture.log_joint(z)
        history.append((log_joint.logsumexp(-1) + log_jacobian).sum())
        if history[-1] - history[-2] < tolerance * len(z):
            break
    return _map(mixture, whole.cholesky, whole.loc).to(x.dtype), torch.stack(history)


def _m_step(z: Tensor, responsibility: Tensor, floor: float) -> GaussianMixture:
    """Weighted maximum likelihood under Sigma_k >= floor I.

    For one Gaussian that is -1/2 [log det Sigma + tr(Sigma^-1 S)] with S the weighted covariance; the maximiser keeps
    the eigenvectors of S and lifts its eigenvalues to the floor.
    """
    components = []
    for r in responsibility.mT:  # (n,)
        share = r / r.sum().clamp_min(torch.finfo(r.dtype).tiny)
        mean = share @ z  # (d,)
        offset = z - mean  # (n, d)
        eigenvalues, axes = torch.linalg.eigh((share[:, None] * offset).mT @ offset)  # (d,), (d, d)
        components.append(Gaussian(mean, cholesky=lower_factor(axes * eigenvalues.clamp_min(floor).sqrt())))
    return GaussianMixture(responsibility.mean(0), components)


def kmeans_plus_plus(x: Tensor, k: int, *, generator: Generator) -> GaussianMixture:
    """Equal round components around k draws, each drawn in proportion to its squared distance from those before it.

    Distances are those of whitened draws, hence the same in any units. (Arthur & Vassilvitskii 2007,
    theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf)
    """
    whole = Gaussian.fit(x).to(torch.float64)
    z = whole.whiten(x)  # (n, d)
    weight = z.new_ones(len(z))  # the first is any draw
    nearest = z.new_full((len(z),), torch.inf)  # squared distance to the nearest centre
    centres = []
    for _ in range(k):
        if not weight.any():
            raise ValueError(f"there are fewer than {k} different draws")
        centres.append(z[Categorical(weight / weight.sum()).sample(1, generator=generator)[0]])
        nearest = weight = torch.minimum(nearest, (z - centres[-1]).square().sum(-1))
    deviation = (nearest.mean() / whole.d).sqrt().clamp_min(torch.finfo(z.dtype).eps ** 0.5)
    factor = deviation * torch.eye(whole.d).to(z)
    seeds = GaussianMixture(z.new_full((k,), 1 / k), [Gaussian(centre, cholesky=factor) for centre in centres])
    return _map(seeds, whole.cholesky, whole.loc)


def _map(mixture: GaussianMixture, matrix: Tensor, shift: Tensor) -> GaussianMixture:
    """The law of A x + b."""
    return GaussianMixture(mixture.weights, [c.affine(matrix, shift) for c in mixture.components])


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


def _mixture(weights: list, means: list, covariances: list, dtype, device) -> GaussianMixture:
    placing = device or torch.get_default_device(), dtype or torch.get_default_dtype()
    weights, means, covariances = (torch.tensor(t, dtype=torch.float64) for t in (weights, means, covariances))
    components = [Gaussian(mean, covariance) for mean, covariance in zip(means, covariances, strict=True)]
    return GaussianMixture(weights, components).to(*placing)
