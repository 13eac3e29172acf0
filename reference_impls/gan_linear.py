r"""Linear generators of Gaussian data, x = b + A z: the GAN of which everything is known.

Draws are N(b, A A^T). The data are N(m, S), and the distance W2 between the two has a closed form,

    W2^2 = |b - m|^2 + tr(A A^T) + tr S - 2 tr (S^1/2 A A^T S^1/2)^1/2,

the last trace being the sum of the singular values of S^1/2 A. With as many latent variables as dimensions it can be 0,
for A = S^1/2 Q with any rotation Q. With k of them it is least at the principal components: b = m, and A A^T the sum of
l_i u_i u_i^T over the k largest eigenvalues of S. What is left, W2^2 = l_{k+1} + ... + l_d, is what principal component
analysis leaves out (Feizi et al. 2017).

Of two Gaussians, a* = log p - log q is a polynomial of degree two, so that a discriminator of that kind can be exact.

Sources: Gelbrich (1990), doi.org/10.1002/mana.19901470121 (W2); Feizi, Farnia, Ginart & Tse (2017),
arxiv.org/abs/1710.10793 (the optimum).
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from reference_impls.gan import GAN, ConditionalGAN, placed
from reference_impls.gaussian import Gaussian


class LinearGenerator(nn.Module):
    """b + A z, from A (d, k) and b (d,); with labels, b_y + A_y z, from A (classes, d, k) and b (classes, d)."""

    def __init__(self, weights: Tensor, shift: Tensor):
        super().__init__()
        if weights.shape[:-1] != shift.shape or shift.dim() not in (1, 2):
            raise ValueError(
                f"weights {tuple(weights.shape)} and shift {tuple(shift.shape)} should be (d, k) and (d,), "
                "or (classes, d, k) and (classes, d)"
            )
        self.weights, self.shift = nn.Parameter(weights), nn.Parameter(shift)

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        if self.shift.dim() == 1:
            return self.shift + z @ self.weights.mT  # (n, d)
        y = code.argmax(1)
        return self.shift[y] + (self.weights[y] @ z[:, :, None])[:, :, 0]  # (n, d)


class Quadratic(nn.Module):
    """a(x) = c + w^T x + x^T M x, zero at first; one for each label where there are any."""

    def __init__(self, d: int, classes: int = 0):
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(max(1, classes)))
        self.linear = nn.Parameter(torch.zeros(max(1, classes), d))
        self.square = nn.Parameter(torch.zeros(max(1, classes), d, d))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        y = code.argmax(1) if code.shape[1] else torch.zeros(len(x), dtype=torch.long, device=x.device)
        bent = (x[:, None] @ self.square[y])[:, 0]  # (n, d)
        return self.constant[y] + ((self.linear[y] + bent) * x).sum(1)  # (n,)


class LinearGAN(GAN):
    """A linear generator, a quadratic discriminator, and data of the law N(m, S) with S positive definite."""

    family = "linear generative adversarial network"

    def __init__(self, weights: Tensor, shift: Tensor, data: Gaussian, **settings):
        if weights.dim() != 2 or len(weights) != data.d:
            raise ValueError(f"weights should be (d, k) with d = {data.d} as in the data, not {tuple(weights.shape)}")
        super().__init__(LinearGenerator(weights, shift), Quadratic(data.d), weights.shape[1], **settings)
        self.register_buffer("data_mean", data.loc)
        self.register_buffer("data_factor", data.cholesky)

    def data(self) -> Gaussian:
        return Gaussian(self.data_mean, cholesky=self.data_factor)

    def mean(self) -> Tensor:
        return self.generator.shift.detach()  # (d,)

    def covariance(self) -> Tensor:
        weights = self.generator.weights.detach()
        return weights @ weights.mT  # (d, d)


class LabelledGaussians:
    """x given y normal with a mean (d,) and factor (d, d) of its own; y uniform."""

    def __init__(self, parts: Sequence[Gaussian]):
        self.parts = tuple(parts)

    def class_prior(self) -> Tensor:
        return self.parts[0].loc.new_full((len(self.parts),), 1 / len(self.parts))  # (classes,)

    def sample(self, n: int, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        first = self.parts[0].loc
        y = given
        if y is None:
            y = torch.randint(len(self.parts), (n,), generator=generator, device=first.device)
        x = first.new_empty(n, len(first))
        for label, part in enumerate(self.parts):
            rows = (y == label).nonzero()[:, 0]
            x[rows] = part.sample(len(rows), generator=generator)
        return x  # (n, d)


class LabelledLinearGAN(ConditionalGAN):
    """A linear generator for each label, and Gaussian data for each."""

    family = "linear conditional generative adversarial network"

    def __init__(self, weights: Tensor, shift: Tensor, data: LabelledGaussians, **settings):
        classes, d = shift.shape
        super().__init__(LinearGenerator(weights, shift), Quadratic(d, classes), weights.shape[2], classes, **settings)
        self.register_buffer("data_means", torch.stack([part.loc for part in data.parts]))
        self.register_buffer("data_factors", torch.stack([part.cholesky for part in data.parts]))

    def data(self) -> LabelledGaussians:
        pairs = zip(self.data_means, self.data_factors, strict=True)
        return LabelledGaussians([Gaussian(mean, cholesky=factor) for mean, factor in pairs])


# Distances and optima


def w2_squared(weights: Tensor, shift: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """W2^2 between the law of b + A z and N(m, S), differentiable in A (d, k) and b (d,) where S^1/2 A has rank k."""
    across = torch.linalg.svdvals(square_root(covariance) @ weights).sum()  # tr (S^1/2 A A^T S^1/2)^1/2
    return (shift - mean).square().sum() + weights.square().sum() + covariance.trace() - 2 * across  # ()


def square_root(covariance: Tensor) -> Tensor:
    """The symmetric positive semidefinite R with R R = S."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.mT  # (d, d)


def principal_weights(covariance: Tensor, k: int) -> Tensor:
    """U_k L_k^1/2: the A (d, k) of the generator with k latent variables that is nearest to N(m, S) in W2."""
    if not 1 <= k <= len(covariance):
        raise ValueError(f"k = {k} latent variables should be 1 to {len(covariance)}")
    values, vectors = torch.linalg.eigh(covariance)  # rising
    return (vectors * values.clamp(min=0).sqrt())[:, -k:].flip(1)  # (d, k)


def optimal_log_odds(p: Gaussian, q: Gaussian) -> Quadratic:
    """a* = log p - log q as a quadratic discriminator, for two Gaussians with densities."""
    exact = Quadratic(p.d).to(p.loc)
    with torch.no_grad():
        for sign, law in ((1, p), (-1, q)):
            precision = law.precision()
            exact.square[0] -= sign * precision / 2
            exact.linear[0] += sign * precision @ law.loc
            squared = law.loc @ precision @ law.loc / 2 + law.cholesky.diagonal().log().sum()
            exact.constant[0] -= sign * squared
    return exact


# Ready-made models


def linear(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> LinearGAN:
    """Three correlated coordinates, and the generator that has exactly the law of its data."""
    law = _gaussian(3, seed=21)
    turn = torch.linalg.qr(_normal((3, 3), seed=22)).Q
    weights = square_root(law.covariance()) @ turn
    return placed(LinearGAN(weights, law.loc, law), dtype, device)


def labelled(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> LabelledLinearGAN:
    """Two coordinates and three labels, with a Gaussian and an exact linear generator for each."""
    laws = [_gaussian(2, seed=23 + label) for label in range(3)]
    weights = torch.stack([square_root(law.covariance()) for law in laws])
    shift = torch.stack([law.loc for law in laws])
    return placed(LabelledLinearGAN(weights, shift, LabelledGaussians(laws)), dtype, device)


def _gaussian(d: int, seed: int) -> Gaussian:
    """A law with a covariance of condition 30 or so."""
    factor = _normal((d, d), seed) + torch.eye(d, dtype=torch.float64)
    return Gaussian(2 * _normal((d,), seed + 100), factor @ factor.mT + 0.1 * torch.eye(d, dtype=torch.float64))


def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)
