r"""A variational autoencoder of linear maps, of which everything is known: the twin of `vae.py`.

    z ~ N(0, I) on R^q,   x | z ~ N(mu + W z, diag psi),   q(z | x) = N(A x + b, L L^T)

Without z, x ~ N(mu, W W^T + diag psi): factor analysis, with p(z | x) = N(M^-1 W^T diag(psi)^-1 (x - mu), M^-1) and
M = I + W^T diag(psi)^-1 W. So log p(x), the ELBO and the gap between them, KL(q || p(z | x)), have closed forms, and
the gap is 0 for the encoder that `exact_encoder` gives. Of a diagonal L L^T the best has the diagonal of M.

Sources: Tipping & Bishop (1999), doi.org/10.1111/1467-9868.00196; Lucas et al. (2019), arxiv.org/abs/1911.02469.
"""

import torch
from torch import Generator, Tensor
from torch.linalg import solve_triangular

from reference_impls.gaussian import LOG_2PI, DiagonalGaussian
from reference_impls.gaussian_factors import lower_factor
from reference_impls.linear_gaussian import FactorAnalysis
from reference_impls.vae import importance_bound


class LinearGiven:
    """v given u: N(M u + c, F F^T), with M (k, m), c (k,) and F (k, k), lower and with a positive diagonal."""

    def __init__(self, matrix: Tensor, shift: Tensor, factor: Tensor):
        self.matrix, self.shift, self.factor = matrix, shift, factor

    def mean(self, u: Tensor) -> Tensor:
        return u @ self.matrix.mT + self.shift  # (n, k)

    def log_prob(self, v: Tensor, *, given: Tensor) -> Tensor:
        white = solve_triangular(self.factor, (v - self.mean(given)).mT, upper=False)  # (k, n)
        return -white.square().sum(0) / 2 - self.factor.diagonal().log().sum() - len(self.shift) * LOG_2PI / 2  # (n,)

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        return self.draw(given, generator).detach()  # (n, k)

    def draw(self, given: Tensor, generator: Generator) -> Tensor:
        """M u + c + F e, with a graph."""
        mean = self.mean(given)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + noise @ self.factor.mT  # (n, k)


class LinearVAE:
    """From mu (d,), W (d, q), psi (d,), and of the encoder A (q, d), b (q,) and L (q, q), lower.

    `posterior_is_exact` says of q that it is p(z | x), and not an approximation of it.
    """

    number, family = "M22", "linear variational autoencoder"

    def __init__(
        self,
        loc: Tensor,
        loading: Tensor,
        noise: Tensor,
        matrix: Tensor,
        shift: Tensor,
        factor: Tensor,
        posterior_is_exact: bool = False,
    ):
        self.law = FactorAnalysis(loc, loading, noise)
        d, q = self.law.d, self.law.q
        for name, value, shape in (("matrix", matrix, (q, d)), ("shift", shift, (q,)), ("factor", factor, (q, q))):
            if value.shape != shape or not value.isfinite().all():
                raise ValueError(f"{name} of the encoder should be finite, of shape {shape}, not {tuple(value.shape)}")
        if not (factor.diagonal() > 0).all():
            raise ValueError("factor should have a positive diagonal, so that q has a density")
        self.encoder = LinearGiven(matrix, shift, factor.tril())
        self.decoder = LinearGiven(self.law.loading, self.law.loc, self.law.noise.sqrt().diag())
        self.d, self.q, self.posterior_is_exact = d, q, posterior_is_exact

    def prior(self) -> DiagonalGaussian:
        return self.law.prior()

    def likelihood(self) -> LinearGiven:
        return self.decoder

    def posterior(self) -> LinearGiven:
        return self.encoder

    def log_prob(self, x: Tensor) -> Tensor:
        return self.law.log_prob(x)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return self.law.sample(n, generator=generator)  # (n, d)

    def elbo(self, x: Tensor, *, generator: Generator) -> Tensor:
        """log p(x | z) - KL(q || p(z)) at one z of q, which can be differentiated with respect to everything."""
        z = self.encoder.draw(self._checked(x), generator)
        return self.decoder.log_prob(x, given=z) - self.kl_to_prior(x)  # (n,)

    def iwae(self, x: Tensor, k: int, *, generator: Generator) -> Tensor:
        x, prior = self._checked(x), self.prior()

        def log_weights(count: int) -> Tensor:
            pairs = x.repeat_interleave(count, 0)
            z = self.encoder.draw(pairs, generator)
            log_w = prior.log_prob(z) + self.decoder.log_prob(pairs, given=z) - self.encoder.log_prob(z, given=pairs)
            return log_w.reshape(len(x), count)

        return importance_bound(log_weights, len(x), k)  # (n,)

    def expected_elbo(self, x: Tensor) -> Tensor:
        """E elbo(x): the squares in log p(x | z) have means (x - mu - W m)^2 + diag(W L L^T W^T)."""
        spread = (self.law.loading @ self.encoder.factor).square().sum(-1)  # (d,)
        squares = (x - self.decoder.mean(self.encoder.mean(x))).square() + spread
        log_p = -(squares / self.law.noise + self.law.noise.log() + LOG_2PI).sum(-1) / 2
        return log_p - self.kl_to_prior(x)  # (n,)

    def kl_to_prior(self, x: Tensor) -> Tensor:
        """KL(N(m, L L^T) || N(0, I)) = (|m|^2 + |L|^2 - q) / 2 - log det L."""
        factor = self.encoder.factor
        constant = (factor.square().sum() - self.q) / 2 - factor.diagonal().log().sum()
        return self.encoder.mean(x).square().sum(-1) / 2 + constant  # (n,)

    def parameters(self) -> Tensor:
        """mu, W by rows, log psi, A by rows, b, then L by rows with the logarithms of its diagonal."""
        law, encoder = self.law, self.encoder
        below = torch.ones_like(encoder.factor, dtype=torch.bool).tril()
        packed = (encoder.factor.tril(-1) + encoder.factor.diagonal().log().diag())[below]
        parts = (law.loc, law.loading, law.noise.log(), encoder.matrix, encoder.shift, packed)
        return torch.cat([part.flatten() for part in parts])

    def with_parameters(self, theta: Tensor) -> "LinearVAE":
        """The model of these sizes at theta; nothing is claimed of its q. Differentiable."""
        d, q = self.d, self.q
        sizes = (d, d * q, d, q * d, q, q * (q + 1) // 2)
        if theta.shape != (sum(sizes),):
            raise ValueError(f"theta should have shape ({sum(sizes)},), not {tuple(theta.shape)}")
        loc, loading, noise, matrix, shift, packed = theta.split(sizes)
        below = torch.ones(q, q, dtype=torch.bool, device=theta.device).tril()
        lower = theta.new_zeros(q, q).masked_scatter(below, packed)
        factor = lower.tril(-1) + lower.diagonal().exp().diag()
        return LinearVAE(loc, loading.reshape(d, q), noise.exp(), matrix.reshape(q, d), shift, factor)

    def to(self, *args, **kwargs) -> "LinearVAE":
        """The same model with its parameters on another device or in another dtype, as `Tensor.to`."""
        law, encoder = self.law, self.encoder
        parts = (law.loc, law.loading, law.noise, encoder.matrix, encoder.shift, encoder.factor)
        return LinearVAE(*(part.to(*args, **kwargs) for part in parts), self.posterior_is_exact)

    def _checked(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"x should be events of shape (n, {self.d}), not {tuple(x.shape)}")
        return x


def exact_encoder(loc: Tensor, loading: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A, b and L of p(z | x): A = M^-1 W^T diag(psi)^-1, b = -A mu, L L^T = M^-1."""
    root = torch.cat([torch.eye(loading.shape[1]).to(loading), (loading / noise.sqrt()[:, None]).mT], 1)
    factor = lower_factor(root)  # of M
    matrix = torch.cholesky_solve((loading / noise[:, None]).mT, factor)  # (q, d)
    identity = torch.eye(len(factor)).to(factor)
    return matrix, -matrix @ loc, lower_factor(solve_triangular(factor.mT, identity, upper=True))


# Ready-made models


def exact_posterior(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> LinearVAE:
    """Four coordinates of two latent ones, whose encoder leaves no gap."""
    law = _four_of_two()
    return LinearVAE(*law, *exact_encoder(*law), posterior_is_exact=True).to(*_placing(dtype, device))


def broad_posterior(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> LinearVAE:
    """The same seen by an encoder that takes the latent coordinates for independent, and is a half too broad."""
    law = _four_of_two()
    matrix, shift, factor = exact_encoder(*law)
    broad = 1.5 * (factor @ factor.mT).diagonal().sqrt().diag()
    return LinearVAE(*law, 0.9 * matrix, 0.9 * shift, broad).to(*_placing(dtype, device))


def _four_of_two() -> tuple[Tensor, Tensor, Tensor]:
    loading = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.5, 1.0], [0.0, -0.7]], dtype=torch.float64, device="cpu")
    noise = torch.tensor([0.3, 0.5, 0.2, 0.4], dtype=torch.float64, device="cpu")
    return torch.linspace(-1, 1, 4, dtype=torch.float64, device="cpu"), loading, noise


def _placing(dtype: torch.dtype | None, device: torch.device | str | None) -> tuple:
    return device or torch.get_default_device(), dtype or torch.get_default_dtype()
