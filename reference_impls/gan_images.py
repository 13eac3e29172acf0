r"""Convolutional networks for the GAN of images, after DCGAN: 28 x 28 from 7 x 7 by two steps of doubling, and back.

The generator ends in tanh, so that pixels are in [-1, 1]. Its layers are normalised within each image and not across
the batch, so that a draw depends on no other; the discriminator's are not, as a gradient penalty asks. Weights start
as N(0, 0.02^2).

Sources: Radford, Metz & Chintala (2016), arxiv.org/abs/1511.06434; Gulrajani et al. (2017), arxiv.org/abs/1704.00028.
"""

import torch
from torch import Generator, Tensor, nn

from reference_impls.gan import ConditionalGAN, placed

WEIGHT = 0.02
SMALLEST = 7
"""Pixels on a side where the convolutions begin."""


class ImageGenerator(nn.Module):
    """(n, latent) and codes (n, classes) to (n, channels, 28, 28)."""

    def __init__(self, latent: int, classes: int = 0, channels: int = 1, width: int = 64, *, seed: int):
        super().__init__()
        self.width = width
        self.first = nn.utils.skip_init(nn.Linear, latent + classes, 2 * width * SMALLEST**2)
        self.layers = nn.Sequential(
            *(nn.GroupNorm(8, 2 * width), nn.ReLU(), _up(2 * width, width)),
            *(nn.GroupNorm(8, width), nn.ReLU(), _up(width, channels), nn.Tanh()),
        )
        initialise(self, seed)

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        h = self.first(torch.cat([z, code], 1)).reshape(len(z), 2 * self.width, SMALLEST, SMALLEST)
        return self.layers(h)  # (n, channels, 28, 28)


class ImageDiscriminator(nn.Module):
    """(n, channels, 28, 28) and codes (n, classes), which are planes of ones and zeros beside the image, to (n,)."""

    def __init__(self, classes: int = 0, channels: int = 1, width: int = 64, *, seed: int):
        super().__init__()
        self.layers = nn.Sequential(
            *(_down(channels + classes, width), nn.LeakyReLU(0.2)),
            *(_down(width, 2 * width), nn.LeakyReLU(0.2), nn.Flatten()),
            nn.utils.skip_init(nn.Linear, 2 * width * SMALLEST**2, 1),
        )
        initialise(self, seed)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[2:] != (4 * SMALLEST, 4 * SMALLEST):
            raise ValueError(f"x should be images (n, channels, 28, 28), not {tuple(x.shape)}")
        planes = code[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.layers(torch.cat([x, planes], 1)).squeeze(1)  # (n,)


def _up(into: int, out: int) -> nn.Module:
    """Twice the height and width."""
    return nn.utils.skip_init(nn.ConvTranspose2d, into, out, 4, stride=2, padding=1)


def _down(into: int, out: int) -> nn.Module:
    """Half the height and width."""
    return nn.utils.skip_init(nn.Conv2d, into, out, 4, stride=2, padding=1)


def initialise(network: nn.Module, seed: int) -> None:
    """Normal weights of deviation 0.02 from one generator, and no biases."""
    source = Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.copy_(WEIGHT * torch.randn(layer.weight.shape, generator=source, device="cpu"))
                layer.bias.zero_()


def full_digits(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ConditionalGAN:
    """28 x 28 digits with ten labels, 100 latent variables, Wasserstein with gradient penalty; untrained."""
    model = ConditionalGAN(
        *(ImageGenerator(100, 10, seed=31), ImageDiscriminator(10, seed=32)),
        *(100, 10),
        objective="wasserstein",
        critic_steps=5,
    )
    return placed(model, dtype, device)
