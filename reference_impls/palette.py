r"""Palette: a diffusion that learns to complete images, from the pixels that are known.

    D(x_t, level, y, mask) -> E[x_0 | x_t, y]        y = mask x_0

The network sees x_t, the image with holes, and the mask, side by side as channels. It is trained as any denoiser, with
errors counted in the holes alone, and sampled as any; pixels that are known are put back as they were. On Gaussian
images the answer is `restoration.Completion`.

Sources: Saharia et al. 2022, arxiv.org/abs/2111.05826, sections 3 and 4; Karras et al. 2022, arxiv.org/abs/2206.00364.
"""

import math

import torch
from torch import Generator, Tensor, nn

from reference_impls.diffusion import LOG_LEVEL, SPREAD_OF_LOG_LEVEL, Mlp, UNet, scalings
from reference_impls.restoration import inpainting, smooth_images
from reference_impls.samplers import heun
from reference_impls.schedules import EDM, Schedule
from reference_impls.training import train


class Palette(nn.Module):
    """Completes images (channels, h, w) of which the numbers are known where the mask is true.

    What is given are images (n, channels, h, w), which are looked at there only.

    The network maps (n, 3 channels, h, w), c_noise (n,) and an empty code to (n, channels, h, w).
    """

    number, family = "M28", "Palette"

    def __init__(
        self, network: nn.Module, mask: Tensor, noise: Schedule | None = None, *, spread: float = 0.5, steps: int = 18
    ):
        super().__init__()
        if mask.dim() != 3 or mask.dtype != torch.bool or mask.all():
            raise ValueError("mask should be booleans (channels, height, width), some of them false")
        if not 0 < spread < math.inf:
            raise ValueError(f"spread = {spread} should be the standard deviation of the data, a positive number")
        self.network, self.noise, self.spread, self.steps = network, noise or EDM(), spread, steps
        self.event_shape = self.given_shape = tuple(mask.shape)
        self.register_buffer("mask", mask)
        self.register_buffer("origin", torch.zeros(mask.shape))

    def observed(self, given: Tensor) -> tuple[Tensor, Tensor]:
        mask = self.mask.expand(len(self._checked(given)), *self.event_shape)
        return mask, torch.where(mask, given, 0)

    @torch.no_grad()
    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        if len(given) != n:
            raise ValueError(f"given should be {n} images, not {len(given)}")
        mask, known = self.observed(given.to(self.origin))
        z = torch.randn(known.shape, generator=generator, dtype=known.dtype, device=known.device)
        times = self.noise.times(self.steps, z)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            scale, sigma = self.noise.schedule(t)
            return self._clean(x / _beside(scale), sigma / scale, known, mask)

        x = heun(denoise, self.noise, self.noise.schedule(times[0])[1] * z, times)
        return torch.where(mask, known, x)  # (n, channels, h, w)

    def loss(self, x: Tensor, *, generator: Generator) -> Tensor:
        """The mean of |D - x_0|^2 / c_out^2 over the holes, at the model's mask."""
        mask, known = self.observed(x)
        n = torch.randn(len(x), generator=generator, dtype=x.dtype, device=x.device)
        level = 2 * self.spread * (LOG_LEVEL + SPREAD_OF_LOG_LEVEL * n).exp()
        e = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        clean = self._clean(x + _beside(level) * e, level, known, mask)
        c_out = scalings(level, self.spread)[1]
        return ((clean - x) / _beside(c_out)).square()[~mask].mean()  # ()

    def _clean(self, x: Tensor, level: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """Pixels that are known carry no noise, and so no news."""
        x = torch.where(mask, known, x)
        c_skip, c_out, c_in = (_beside(c) for c in scalings(level, self.spread))
        seen = torch.cat([c_in * x, known / self.spread, mask.to(x)], 1)
        learnt = self.network(seen, level.log() / 4, x.new_zeros(len(x), 0))
        return torch.where(mask, known, c_skip * x + c_out * learnt)

    def _checked(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.event_shape:
            raise ValueError(f"images should be of shape (n, *{self.event_shape}), not {tuple(x.shape)}")
        return x


class Flat(nn.Module):
    """An `Mlp` from images of 3 channels, for each that there is, to images."""

    def __init__(self, shape: tuple[int, int, int], hidden: tuple[int, ...], *, seed: int):
        super().__init__()
        self.shape = shape
        self.mlp = Mlp((3 * math.prod(shape),), hidden, out=math.prod(shape), seed=seed)

    def forward(self, x: Tensor, c_noise: Tensor, code: Tensor) -> Tensor:
        return self.mlp(x.flatten(1), c_noise, code).reshape(-1, *self.shape)


def _beside(level: Tensor) -> Tensor:
    return level.reshape(-1, 1, 1, 1)


# Ready-made models


def learnt_inpainting(
    *, dtype: torch.dtype | None = None, device: torch.device | str | None = None, steps: int = 400
) -> Palette:
    """4 x 4 pixels with a hole of 2 x 2, learnt from Gaussian images in so many steps of training."""
    shape = (1, 4, 4)
    model = Palette(Flat(shape, (48, 48), seed=4), inpainting(shape), spread=1.0, steps=12)
    law = smooth_images(shape, dtype=torch.float32, device="cpu")
    x = law.sample(8192, generator=Generator().manual_seed(0)).reshape(-1, *shape)
    train(model, model.loss, x, steps=steps, batch=256, rate=5e-3)
    return _placed(model, dtype, device)


def full_digits(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Palette:
    """28 x 28 images from -1 to 1 with a hole in the middle, a UNet of 64 to 128 channels; untrained."""
    return _placed(Palette(UNet(3, 64, out=1, seed=5), inpainting((1, 28, 28)), spread=0.6), dtype, device)


def _placed(model: nn.Module, dtype: torch.dtype | None, device: torch.device | str | None):
    return model.to(device=device or torch.get_default_device(), dtype=dtype or torch.get_default_dtype()).eval()
