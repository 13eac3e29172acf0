r"""Restoring images by conditional diffusion, on Gaussian images, for which the answer is known.

    x ~ N(mu, Sigma),   y = A x + tau e     so that     x | y ~ N(mu + K (y - A mu), Sigma - K A Sigma)

with K = Sigma A^T (A Sigma A^T + tau^2 I)^-1. The four tasks of Palette, and two more, are choices of A and tau:
inpainting and uncropping observe some of the pixels, colorization a weighted sum of each pixel's colours,
super-resolution means of blocks; restoration sees a blurred image with noise, and denoising one with noise alone.

A conditional diffusion denoises x_t with y at hand, E[x_0 | x_t, y], here that of the Gaussian x | y; its sampler is
that of any diffusion. It starts from noise, ends at the denoiser, and puts observed pixels back as they were.

Sources: Saharia et al. 2022, arxiv.org/abs/2111.05826; Bishop (2006), section 2.3.3.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from reference_impls.gaussian import LOG_2PI, Gaussian
from reference_impls.samplers import heun
from reference_impls.schedules import EDM, Schedule

Shape = tuple[int, int, int]
"""(channels, height, width)."""


class Restoration:
    """x given y = A x + tau e, from the law of images as vectors (d,), A (m, d) and tau. What is given is y (n, m).

    `sample` takes so many of Heun's steps, with an error that falls as steps^-2, and is not exact; `mean_given` and
    `covariance_given` are.
    """

    number, family = "M28", "conditional diffusion that restores"

    def __init__(
        self,
        law: Gaussian,
        shape: Shape,
        matrix: Tensor,
        tau: float = 0.0,
        noise: Schedule | None = None,
        steps: int = 64,
    ):
        channels, height, width = shape
        if law.d != channels * height * width:
            raise ValueError(f"images of shape {shape} have {channels * height * width} numbers, and the law {law.d}")
        if matrix.dim() != 2 or matrix.shape[1] != law.d or len(matrix) == 0:
            raise ValueError(f"the matrix should be (m, {law.d}) with m > 0, not {tuple(matrix.shape)}")
        if not tau >= 0:
            raise ValueError(f"tau = {tau}: noise has a deviation of 0 or more")
        self.law, self.event_shape, self.tau, self.steps = law, tuple(shape), tau, steps
        self.matrix, self.noise = matrix.to(law.loc), noise or EDM(0.002, 20.0)
        self.given_shape = (len(matrix),)
        self.gain, self.covariance_given = _posterior(law, self.matrix, tau)  # (d, m), (d, d)
        variances, axes = torch.linalg.eigh(self.covariance_given.double())
        least = len(variances) * torch.finfo(law.loc.dtype).eps * variances[-1]
        variances = variances.where(variances > least, 0.0)  # of what is observed nothing is left to vary
        self.variances, self.axes = variances.to(law.loc), axes.to(law.loc)  # (d,), (d, d)

    def mean_given(self, y: Tensor) -> Tensor:
        return self.law.loc + (y - self.matrix @ self.law.loc) @ self.gain.mT  # (n, d)

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        mean = self.mean_given(self._checked(given, n))  # (n, d)
        e = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        times = self.noise.times(self.steps, mean)
        scale, sigma = self.noise.schedule(times[0])
        denoise = self.denoiser(given)
        x = heun(denoise, self.noise, scale * mean + sigma * e, times)
        return self._finished(denoise(x, times[-1].expand(n)), given).reshape(n, *self.event_shape)

    def denoiser(self, given: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """(x_t (n, d), t (n,)) -> E[x_0 | x_t, y], for y = given (n, m)."""
        mean = self.mean_given(given)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            scale, sigma = (part[:, None] for part in self.noise.schedule(t))
            shrink = scale * self.variances / (scale.square() * self.variances + sigma.square())  # (n, d)
            return mean + (shrink * ((x - scale * mean) @ self.axes)) @ self.axes.mT

        return denoise

    def degraded(self, x: Tensor, *, generator: Generator) -> Tensor:
        """y for images x (n, *event)."""
        y = x.flatten(1) @ self.matrix.mT
        return y + self.tau * torch.randn(y.shape, generator=generator, dtype=y.dtype, device=y.device)  # (n, m)

    def _finished(self, x: Tensor, y: Tensor) -> Tensor:
        return x

    def _checked(self, y: Tensor, n: int) -> Tensor:
        if y.shape != (n, *self.given_shape):
            raise ValueError(f"given should be of shape {(n, *self.given_shape)}, not {tuple(y.shape)}")
        return y


class Completion(Restoration):
    """Some numbers of an image are observed, those where the mask (channels, height, width) is true."""

    family = "conditional diffusion that completes"

    def __init__(self, law: Gaussian, mask: Tensor, **options):
        if mask.dim() != 3 or mask.dtype != torch.bool or mask.all() or not mask.any():
            raise ValueError("mask should be booleans (channels, height, width), some of them true and some false")
        identity = torch.eye(mask.numel(), dtype=law.loc.dtype, device=law.loc.device)
        super().__init__(law, tuple(mask.shape), identity[mask.flatten()], **options)
        self.mask = mask

    def observed(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Where pixels are known, and what they are there (0 elsewhere), both (n, *event)."""
        values = given.new_zeros(len(given), self.mask.numel())
        values[:, self.mask.flatten()] = given
        return self.mask.expand(len(given), *self.event_shape), values.reshape(-1, *self.event_shape)

    def _finished(self, x: Tensor, y: Tensor) -> Tensor:
        mask, values = self.observed(y)
        return torch.where(mask.flatten(1), values.flatten(1), x)


class NoisyRestoration(Restoration):
    """With noise in y every image is possible, and x | y has a density."""

    family = "conditional diffusion that restores noisy images"

    def __init__(self, law: Gaussian, shape: Shape, matrix: Tensor, tau: float, **options):
        if not tau > 0:
            raise ValueError(f"tau = {tau}: without noise x | y has no density; take Restoration")
        super().__init__(law, shape, matrix, tau, **options)

    def log_prob(self, x: Tensor, *, given: Tensor) -> Tensor:
        """log N(x; mean given y, covariance given y)."""
        if x.shape[1:] != self.event_shape:
            raise ValueError(f"x should be images of shape (n, *{self.event_shape}), not {tuple(x.shape)}")
        y = (x.flatten(1) - self.mean_given(self._checked(given, len(x)))) @ self.axes  # (n, d)
        return -(y.square() / self.variances + self.variances.log() + LOG_2PI).sum(1) / 2  # (n,)


def _posterior(law: Gaussian, matrix: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """K and Sigma - K A Sigma, in float64 until they are done; the latter as (I - K A) Sigma (I - K A)^T + tau^2 K K^T,
    which is a sum of squares (Joseph's form)."""
    sigma, a = law.covariance().double(), matrix.double()
    seen = a @ sigma @ a.mT + tau**2 * torch.eye(len(a), dtype=a.dtype, device=a.device)
    factor, failed = torch.linalg.cholesky_ex(seen)
    if failed:
        raise ValueError("the rows of the matrix are linearly dependent, and say the same twice without noise")
    gain = torch.cholesky_solve(a @ sigma, factor).mT  # (d, m)
    left = torch.eye(len(sigma), dtype=a.dtype, device=a.device) - gain @ a
    covariance = left @ sigma @ left.mT + tau**2 * gain @ gain.mT
    return gain.to(law.loc), covariance.to(law.loc)


# Tasks: masks (channels, height, width), true where pixels are known, and matrices (m, channels height width)


def inpainting(shape: Shape) -> Tensor:
    """A hole in the middle, of half the height and width."""
    _, h, w = shape
    mask = torch.ones(shape, dtype=torch.bool)
    mask[:, h // 4 : h // 4 + (h + 1) // 2, w // 4 : w // 4 + (w + 1) // 2] = False
    return mask


def uncropping(shape: Shape) -> Tensor:
    """The left half is known."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[:, :, : shape[2] // 2] = True
    return mask


def colorization(shape: Shape) -> Tensor:
    """Luma of red, green and blue, by the weights of ITU-R BT.601."""
    channels, h, w = shape
    if channels != 3:
        raise ValueError(f"colours are three, and shape {shape} has {channels} channels")
    return torch.kron(torch.tensor([[0.299, 0.587, 0.114]]), torch.eye(h * w))  # (h w, 3 h w)


def super_resolution(shape: Shape, factor: int = 2) -> Tensor:
    """Means of blocks of factor x factor pixels."""
    channels, h, w = shape
    if h % factor or w % factor:
        raise ValueError(f"blocks of {factor} pixels do not fill images of shape {shape}")
    rows, columns = (torch.eye(size // factor).repeat_interleave(factor, 1) / factor for size in (h, w))
    return torch.kron(torch.eye(channels), torch.kron(rows, columns))  # (m, d)


def blur(shape: Shape) -> Tensor:
    """(1, 2, 1) / 4 along both axes; the edge is continued."""
    channels, h, w = shape

    def along(size: int) -> Tensor:
        line = torch.eye(size) / 2
        for i in range(size):
            line[i, max(i - 1, 0)] += 0.25
            line[i, min(i + 1, size - 1)] += 0.25
        return line

    return torch.kron(torch.eye(channels), torch.kron(along(h), along(w)))  # (d, d)


def smooth_images(
    shape: Shape, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None, length: float = 1.5
) -> Gaussian:
    """Pixels of variance 1 with correlations exp(-distance / length), half as large between colours; means of 1/4."""
    channels, h, w = shape
    place = torch.cartesian_prod(torch.arange(h), torch.arange(w)).double()
    near = torch.exp(-torch.cdist(place, place) / length)
    colours = (torch.ones(channels, channels) + torch.eye(channels)).double() / 2
    law = Gaussian(torch.full((channels * h * w,), 0.25, dtype=torch.float64), torch.kron(colours, near))
    return law.to(device or torch.get_default_device(), dtype or torch.get_default_dtype())


# Ready-made models


def inpainted(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Completion:
    """4 x 4 pixels with a hole of 2 x 2."""
    return Completion(smooth_images((1, 4, 4), dtype=dtype, device=device), _on(device, inpainting((1, 4, 4))))


def uncropped(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Completion:
    """The right half of 4 x 4 pixels."""
    return Completion(smooth_images((1, 4, 4), dtype=dtype, device=device), _on(device, uncropping((1, 4, 4))))


def colorized(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Restoration:
    """2 x 2 pixels of three colours, of which the luma is known."""
    return Restoration(smooth_images((3, 2, 2), dtype=dtype, device=device), (3, 2, 2), colorization((3, 2, 2)))


def enlarged(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Restoration:
    """4 x 4 pixels from means of 2 x 2."""
    return Restoration(smooth_images((1, 4, 4), dtype=dtype, device=device), (1, 4, 4), super_resolution((1, 4, 4)))


def restored(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> NoisyRestoration:
    """3 x 3 pixels, blurred and with noise of deviation 1/2."""
    return NoisyRestoration(smooth_images((1, 3, 3), dtype=dtype, device=device), (1, 3, 3), blur((1, 3, 3)), 0.5)


def denoised(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> NoisyRestoration:
    """2 x 2 pixels with noise of deviation 1/2."""
    return NoisyRestoration(smooth_images((1, 2, 2), dtype=dtype, device=device), (1, 2, 2), torch.eye(4), 0.5)


def _on(device: torch.device | str | None, mask: Tensor) -> Tensor:
    return mask.to(device or torch.get_default_device())
