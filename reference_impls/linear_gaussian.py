r"""Latent Gaussian variables seen through a linear map: probabilistic PCA and factor analysis.

    z ~ N(0, I) on R^q,     x = mu + W z + e,  e ~ N(0, Psi) on R^d,  Psi diagonal,  q < d as a rule

Everything stays Gaussian. With M = I + W^T Psi^-1 W,

    p(x) = N(mu, W W^T + Psi)     and     p(z | x) = N(M^-1 W^T Psi^-1 (x - mu), M^-1).

The covariance of all d coordinates is described by q + 1 numbers for each: factor analysis gives every coordinate its
own noise, probabilistic PCA one to all, Psi = sigma^2 I. W and W R are the same law of x for any rotation R of z, so
that `parameters` are those of the one W whose entries right of the diagonal are 0.

Cost: the quadratic form is the least of ||Psi^-1/2 (x - mu - W z)||^2 + ||z||^2 over z, reached at E[z | x]. It takes
d q steps a row in place of d^2, is a sum of squares, and is accurate to second order in the error of E[z | x].

Sources: Tipping & Bishop (1999), doi.org/10.1111/1467-9868.00196; Rubin & Thayer (1982), doi.org/10.1007/BF02293851;
Bishop, Pattern Recognition and Machine Learning (2006), section 12.2.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.linalg import solve_triangular

from reference_impls.gaussian import LOG_2PI, DiagonalGaussian, Gaussian
from reference_impls.gaussian_factors import (
    as_floats,
    checked_draws,
    checked_parameters,
    checked_sample,
    checked_values,
    length,
    lower_factor,
    normals,
)
from reference_impls.indices import as_count, split, split_evidence


class FactorAnalysis:
    """x = mu + W z + e from mu (d,), the loading W (d, q) and the variances psi (d,) of the noise."""

    number, family = "M12", "factor analysis"
    history: Tensor | None = None  # log-likelihood at each step, where the fit was iterative

    def __init__(self, mean: Tensor, loading: Tensor, noise: Tensor):
        self.loc, self.loading, self.noise = as_floats(mean, loading, noise)  # (d,), (d, q), (d,)
        self.d = length(self.loc)
        if self.loading.dim() != 2 or self.loading.shape[0] != self.d or not self.loading.isfinite().all():
            raise ValueError(f"the loading should be finite, ({self.d}, q), not {tuple(self.loading.shape)}")
        if self.noise.shape != (self.d,):
            raise ValueError(f"the noise should be variances ({self.d},), not {tuple(self.noise.shape)}")
        if not ((self.noise > 0) & self.noise.isfinite()).all():
            raise ValueError("each variance of the noise must be positive and finite, so that there is a density")
        self.q = self.loading.shape[1]
        if self.q == 0:
            raise ValueError("without a latent variable, q = 0, the law is a DiagonalGaussian; use that")

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x; mu, W W^T + Psi), by the two identities that avoid its d x d matrix; see the top of the file."""
        x, loc, loading, noise = as_floats(checked_draws(x, self.d), self.loc, self.loading, self.noise)
        deviation, factor = noise.sqrt(), _root_of_m(loading, noise)  # (d,), (q, q)
        rows = max(1, (2**16 if x.device.type == "cpu" else 2**24) // self.d)
        squares = []
        for some in x.split(rows):
            z = _posterior_mean(some - loc, loading, noise, factor)  # (m, q)
            rest = (some - loc - z @ loading.mT) / deviation  # (m, d)
            squares.append(rest.square().sum(-1) + z.square().sum(-1))
        half_log_det = deviation.log().sum() + factor.diagonal().log().sum()  # det(W W^T + Psi) = det Psi det M
        log_prob = -torch.cat(squares) / 2 - half_log_det - self.d / 2 * LOG_2PI  # (n,)
        return torch.where(x.isinf().any(-1), -torch.inf, log_prob)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return self.sample_joint(n, generator=generator)[1]  # (n, d)

    def sample_joint(self, n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """Pairs (z, x): first the latent variable, then what is seen of it."""
        z = normals(n, self.loading.new_empty(self.q), generator)  # (n, q)
        noise = normals(n, self.loc, generator) * self.noise.sqrt()  # (n, d)
        return z, self.loc + z @ self.loading.mT + noise

    def prior(self) -> DiagonalGaussian:
        """p(z) = N(0, I)."""
        return DiagonalGaussian(self.loading.new_zeros(self.q), self.loading.new_ones(self.q))

    def likelihood(self, z: Tensor) -> DiagonalGaussian:
        """p(x | z) for one z (q,)."""
        return DiagonalGaussian(self.loc + self.loading @ checked_values(z, self.q).to(self.loc), self.noise)

    def infer(self, x: Tensor) -> Gaussian:
        """p(z | x) = N(M^-1 W^T Psi^-1 (x - mu), M^-1) for one x (d,)."""
        mean = self.posterior_mean(checked_values(x, self.d)[None])[0]
        return Gaussian(mean, cholesky=self._posterior_factor().to(mean))

    def posterior_mean(self, x: Tensor) -> Tensor:
        """E[z | x] for each row of x; unlike PCA it shrinks towards 0, as part of x is noise."""
        x, loc, loading, noise = as_floats(checked_draws(x, self.d), self.loc, self.loading, self.noise)
        return _posterior_mean(x - loc, loading, noise, _root_of_m(loading, noise))  # (n, q)

    def posterior_covariance(self) -> Tensor:
        """Cov[z | x] = M^-1, the same for every x."""
        factor = self._posterior_factor()
        return factor @ factor.mT  # (q, q)

    def gaussian(self) -> Gaussian:
        """The law of x without its latent variable, N(mu, W W^T + Psi)."""
        root = torch.cat([self.loading.double(), self.noise.double().sqrt().diag()], dim=1)  # (d, q + d)
        return Gaussian(self.loc, cholesky=lower_factor(root).to(self.loc.dtype))

    def mean(self) -> Tensor:
        return self.loc  # (d,)

    def variance(self) -> Tensor:
        return self.loading.square().sum(-1) + self.noise  # (d,)

    def covariance(self) -> Tensor:
        return self.loading @ self.loading.mT + self.noise.diag()  # (d, d)

    @property
    def cholesky(self) -> Tensor:
        return self.gaussian().cholesky  # (d, d)

    def entropy(self) -> Tensor:
        return self.gaussian().entropy()  # ()

    def kl(self, other) -> Tensor:
        """Between the laws of x; the other one is any Gaussian, with `loc` and `cholesky`."""
        return self.gaussian().kl(other)  # ()

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        return self.gaussian().mutual_information(a, b)  # ()

    def latent_information(self) -> Tensor:
        """I(x, z) = 1/2 log det M in nats: what the latent variable and its image tell of each other."""
        return _root_of_m(self.loading, self.noise).diagonal().log().sum()  # ()

    def marginal(self, indices: Sequence[int]) -> "FactorAnalysis":
        """Drop the other rows of W: the latent variable stays."""
        a, _ = split(indices, self.d)
        return FactorAnalysis(self.loc[a], self.loading[a], self.noise[a])

    def conditional(self, indices: Sequence[int], values: Tensor) -> "FactorAnalysis":
        """p(x_b | x_a) = int p(x_b | z) p(z | x_a) dz: what was seen acts through the latent variable alone."""
        a, b = split_evidence(indices, self.d)
        values = checked_values(values, len(a)).to(self.loc)
        if not a:
            return self
        seen = self.marginal(a).infer(values)  # z = m + S^1/2 z', z' ~ N(0, I)
        return FactorAnalysis(self.loc[b] + self.loading[b] @ seen.loc, self.loading[b] @ seen.cholesky, self.noise[b])

    def fit(self, x: Tensor) -> "FactorAnalysis":
        """Maximum likelihood with as many factors as this model has; see `factor_analysis`."""
        return factor_analysis(x, self.q)

    def parameters(self) -> Tensor:
        """theta = (mu, W on and below its diagonal, log psi): d + (d q - q (q - 1)/2) + d numbers, if q <= d.

        The W is the one with zeros right of its diagonal, a rotation of the latent variable away from this model's.
        """
        rows, columns = self._below()
        q = min(self.q, self.d)
        below = torch.linalg.qr(self.loading.double().mT).R.mT.to(self.loc.dtype)  # (d, q), W W^T unchanged
        return torch.cat([self.loc, below[:, :q][rows, columns], self._noise_parameters()])  # (k,)

    def with_parameters(self, theta: Tensor) -> "FactorAnalysis":
        """The law of x with those parameters; differentiable in theta."""
        rows, columns = self._below()
        noises = len(self._noise_parameters())
        theta = checked_parameters(theta, self.d + len(rows) + noises)
        loc, below, log_noise = theta.split([self.d, len(rows), noises])
        loading = theta.new_zeros(self.d, min(self.q, self.d)).index_put((rows, columns), below)
        return self._with(loc, loading, log_noise.exp())

    def to(self, *args, **kwargs) -> "FactorAnalysis":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return self._with(*(t.to(*args, **kwargs) for t in (self.loc, self.loading, self.noise)))

    def _with(self, loc: Tensor, loading: Tensor, noise: Tensor) -> "FactorAnalysis":
        return FactorAnalysis(loc, loading, noise)

    def _noise_parameters(self) -> Tensor:
        return self.noise.log()  # (d,)

    def _below(self) -> tuple[Tensor, Tensor]:
        return tuple(torch.tril_indices(self.d, min(self.q, self.d), device=self.loc.device))

    def _posterior_factor(self) -> Tensor:
        factor = _root_of_m(self.loading.double(), self.noise.double())  # M = A A^T, so M^-1 = A^-T A^-1
        identity = torch.eye(self.q, dtype=factor.dtype, device=factor.device)
        return lower_factor(solve_triangular(factor.mT, identity, upper=True)).to(self.loc.dtype)  # (q, q)


class ProbabilisticPCA(FactorAnalysis):
    """x = mu + W z + e with the same noise in every coordinate, e ~ N(0, sigma^2 I); noise is sigma^2, a scalar."""

    number, family = "M12", "probabilistic PCA"

    def __init__(self, mean: Tensor, loading: Tensor, noise: Tensor | float):
        (mean,) = as_floats(mean)
        noise = torch.as_tensor(noise, dtype=None if isinstance(noise, Tensor) else mean.dtype)
        if noise.dim() != 0:
            raise ValueError(f"the noise is one variance, not {tuple(noise.shape)}; see FactorAnalysis for one each")
        super().__init__(mean, loading, noise.expand(mean.shape))

    def fit(self, x: Tensor) -> "ProbabilisticPCA":
        """Maximum likelihood with as many latent variables as this model has; see `probabilistic_pca`."""
        return probabilistic_pca(x, self.q)

    def _with(self, loc: Tensor, loading: Tensor, noise: Tensor) -> "ProbabilisticPCA":
        return ProbabilisticPCA(loc, loading, noise.reshape(-1)[0])

    def _noise_parameters(self) -> Tensor:
        return self.noise[:1].log()  # (1,)


def parameter_count(d: int, q: int, *, own_noise: bool) -> int:
    """Free parameters of the law of x: d + d q - q (q - 1)/2, and d variances of noise or one."""
    return d + d * q - q * (q - 1) // 2 + (d if own_noise else 1)


# Estimation, in float64


def probabilistic_pca(x: Tensor, q: int) -> ProbabilisticPCA:
    """Maximum likelihood in closed form, from the eigenvalues l_1 >= ... >= l_d of the covariance S (divide by N):

    sigma^2 = mean of l_{q+1}, ..., l_d, and W = U_q (diag(l_1, ..., l_q) - sigma^2 I)^1/2 (Tipping & Bishop, eq. 7 and
    8). Of the variance l along an axis, sigma^2 is noise and the rest is signal.
    """
    x, loc, unit, covariance = _standardised(x, q, together=True)
    loading, noise = _principal(covariance, q)
    return ProbabilisticPCA(loc, unit * loading, unit.square() * noise).to(x.dtype)


def probabilistic_pca_by_em(
    x: Tensor, q: int, *, generator: Generator, tolerance: float = 1e-12, iterations: int = 10_000
) -> ProbabilisticPCA:
    """The same by EM from a random W, as long as a step gains more than `tolerance` nats a row; has `history`.

    Slow where the noise is small: a step closes a share of about sigma^2 / l of the gap along an axis of variance l.
    """
    x, loc, unit, covariance = _standardised(x, q, together=True)
    start = torch.randn(x.shape[1], q, generator=generator, dtype=torch.float64, device=x.device)
    noise = covariance.diagonal().mean().expand(x.shape[1])
    loading, noise, history = _em(covariance, start, noise, len(x), tolerance, iterations, shared=True)
    fitted = ProbabilisticPCA(loc, unit * loading, unit.square() * noise[0]).to(x.dtype)
    fitted.history = history - x.numel() * unit.log()  # of x, in its own units
    return fitted


def factor_analysis(x: Tensor, q: int, *, tolerance: float = 1e-12, iterations: int = 10_000) -> FactorAnalysis:
    """Maximum likelihood with q factors by EM, from principal components; has `history`. There is no closed form.

    Steps are taken in units in which each coordinate has variance 1, so that the estimate follows any change of units.
    Raises ValueError where the likelihood is greatest without noise in some column, as it may be with few rows.
    """
    x, loc, units, covariance = _standardised(x, q)
    loading, noise = _principal(covariance, q)
    start = noise.expand(x.shape[1])
    loading, noise, history = _em(covariance, loading, start, len(x), tolerance, iterations, shared=False)
    fitted = FactorAnalysis(loc, units[:, None] * loading, units.square() * noise).to(x.dtype)
    fitted.history = history - len(x) * units.log().sum()  # of x, in its own units
    return fitted


def _principal(covariance: Tensor, q: int) -> tuple[Tensor, Tensor]:
    """W (d, q) and sigma^2 () of probabilistic PCA."""
    values, axes = torch.linalg.eigh(covariance)  # ascending
    values, axes = values.flip(0), axes.flip(1)
    noise = values[q:].mean()
    if not noise > len(covariance) * torch.finfo(values.dtype).eps * values[0]:
        raise ValueError(
            f"x lies in a plane of {q} dimensions and leaves no noise: choose a smaller q, or give more rows"
        )
    return axes[:, :q] * (values[:q] - noise).clamp_min(0).sqrt(), noise  # l_i < noise by rounding alone


def _em(S: Tensor, W: Tensor, psi: Tensor, n: int, tolerance: float, iterations: int, shared: bool):
    """E: z | x ~ N(beta (x - mu), M^-1), beta = M^-1 W^T Psi^-1.   M: regress x on z, given the moments of z.

    E[x z^T] = S beta^T and E[z z^T] = M^-1 + beta S beta^T give W' = E[x z^T] E[z z^T]^-1, and psi' is the diagonal of
    S - W' E[z x^T], or the mean of that where all coordinates share the noise.
    """
    identity = torch.eye(W.shape[1]).to(W)
    history = [_log_likelihood(S, W, psi, n)]
    for _ in range(iterations):
        factor = _root_of_m(W, psi)
        beta = torch.cholesky_solve((W / psi[:, None]).mT, factor)  # (q, d)
        cross = S @ beta.mT  # (d, q)
        second = torch.cholesky_solve(identity, factor) + beta @ cross  # (q, q)
        W = torch.linalg.solve(second, cross.mT).mT
        left = S.diagonal() - (W * cross).sum(-1)
        psi = left.mean().expand(len(S)) if shared else left
        if not (psi > 0).all():
            raise ValueError(
                "the noise of a coordinate went to 0, where the likelihood has no maximum: choose a smaller q"
            )
        history.append(_log_likelihood(S, W, psi, n))
        if history[-1] - history[-2] <= tolerance * n:
            break
    else:
        if not shared:
            _refuse_noise_that_creeps(S, W, psi, n, history[-1])
    return W, psi, torch.stack(history)


def _refuse_noise_that_creeps(S: Tensor, W: Tensor, psi: Tensor, n: int, reached: Tensor) -> None:
    """Raises ValueError where the least noise had better be 0: a Heywood case, to which EM comes closer like 1 / steps.

    It is usual with no more rows than columns. There x_j is a sum of the factors and has no density given them.
    """
    least = psi.argmin()
    if _log_likelihood(S, W, psi.index_fill(0, least, 0.0), n) > reached:
        raise ValueError(
            f"the noise of column {int(least)} creeps to 0, where the likelihood is greatest: "
            f"give more than these {n} rows, or choose a smaller q"
        )


def _log_likelihood(S: Tensor, W: Tensor, psi: Tensor, n: int) -> Tensor:
    """-N/2 [d log 2 pi + log det C + tr(C^-1 S)], C = W W^T + Psi, of N draws with mean mu and covariance S."""
    factor = torch.linalg.cholesky(W @ W.mT + psi.diag())
    trace = torch.cholesky_solve(S, factor).diagonal().sum()
    return -n / 2 * (len(S) * LOG_2PI + 2 * factor.diagonal().log().sum() + trace)


def _standardised(x: Tensor, q: int, together: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, its mean, a unit for each column (or one for all), and the covariance (divided by N) in these units."""
    x = checked_sample(x)
    if not 1 <= as_count(q, "q", 0) < x.shape[1]:
        raise ValueError(f"q should be from 1 to {x.shape[1] - 1}, fewer than the columns of x; it is {q}")
    loc = x.double().mean(0)
    deviation = (x - loc).square().mean(0).sqrt()
    deviation = deviation.square().mean().sqrt() if together else deviation
    if not (deviation > len(x) * torch.finfo(torch.float64).eps * loc.abs()).all():
        raise ValueError("a column of x is constant, so that it has no noise; drop it, or give more rows")
    z = (x - loc) / deviation
    return x, loc, deviation, z.mT @ z / len(z)


def _root_of_m(loading: Tensor, noise: Tensor) -> Tensor:
    """The factor of M = I + W^T Psi^-1 W, without forming it."""
    scaled = loading / noise.sqrt()[:, None]  # (d, q)
    return lower_factor(torch.cat([torch.eye(loading.shape[1]).to(loading), scaled.mT], dim=1))  # (q, q)


def _posterior_mean(offset: Tensor, loading: Tensor, noise: Tensor, factor: Tensor) -> Tensor:
    return torch.cholesky_solve(loading.mT @ (offset / noise).mT, factor).mT  # (n, q)


# Ready-made models


def one_factor(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> FactorAnalysis:
    """Five measurements of one thing, each with its own gain and noise."""
    gain, noise = torch.tensor([[1.0, 0.8, -0.5, 2.0, 0.1], [0.1, 0.5, 0.2, 1.0, 0.3]], dtype=torch.float64)
    model = FactorAnalysis(torch.linspace(-1, 1, 5, dtype=torch.float64), gain[:, None], noise)
    return model.to(device or torch.get_default_device(), dtype or torch.get_default_dtype())


def plane_in_noise(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ProbabilisticPCA:
    """A plane in 10 dimensions with a tenth of noise in each; its axes are drawn with seed 12."""
    draws = torch.randn(10, 2, generator=torch.Generator().manual_seed(12), dtype=torch.float64, device="cpu")
    model = ProbabilisticPCA(torch.zeros(10, dtype=torch.float64), draws * torch.tensor([2.0, 1.0]), 0.01)
    return model.to(device or torch.get_default_device(), dtype or torch.get_default_dtype())
