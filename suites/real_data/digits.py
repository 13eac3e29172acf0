"""Small models of the 8 x 8 digits, trained in seconds on a CPU, whose draws are shown as pictures.

Pixels have 17 levels, 0 to 16. A flow is fitted to levels plus uniform noise on [0, 1); the others to levels / 8 - 1.
"""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from reference_impls.diffusion import ConditionalDiffusion, Mlp
from reference_impls.flows import ConditionalFlow, Squash, StandardNormal
from reference_impls.gan import ConditionalGAN, Perceptron
from reference_impls.masked_flows import Masked
from reference_impls.palette import Flat, Palette
from reference_impls.restoration import inpainting
from reference_impls.training import Loss, Player, train
from reference_impls.vae import ConditionalVAE
from reference_impls.vae_parts import Encoder, GaussianDecoder, mlp
from suites.data import Labelled

PIXELS, SIDE, LEVELS, LABELS = 64, 8, 17, 10


@dataclass(frozen=True)
class Painter:
    """A class-conditional model: how it is built and trained, on which x, and how its draws become shares of ink.

    `players` says who goes down what, instead of the model going down its loss.
    """

    name: str
    build: Callable[[], nn.Module]
    steps: int
    rate: float
    enters: Callable[[Tensor], Tensor]
    leaves: Callable[[Tensor], Tensor]
    players: Callable[[Any], Loss | Sequence[Player]] | None = None

    def trained(self, digits: Labelled, steps: int | None = None) -> nn.Module:
        model = self.build()
        x = self.enters(digits.x.float())
        who = self.players(model) if self.players else model.loss
        train(model, who, (x, digits.y), steps=self.steps if steps is None else steps, batch=100, rate=self.rate)
        return model.requires_grad_(False)

    def draws(self, model: nn.Module, labels: Tensor, seed: int = 0) -> Tensor:
        """(n, 8, 8), a share of ink for each pixel."""
        x = model.sample(len(labels), given=labels, generator=Generator().manual_seed(seed))
        return self.leaves(x).clamp(0, 1).reshape(-1, SIDE, SIDE)


def flow() -> ConditionalFlow:
    """Four layers of MAF on (0, 17)^64, in raster order and back in turn."""
    orders = [range(PIXELS), range(PIXELS - 1, -1, -1)] * 2
    layers = [
        Masked(order, hidden=(256,), given=LABELS, activation=torch.relu, seed=i) for i, order in enumerate(orders)
    ]
    return ConditionalFlow(StandardNormal(PIXELS), [*layers, Squash(PIXELS, 0, LEVELS)], LABELS)


def with_noise(model: ConditionalFlow) -> Loss:
    """The loss at x + u, with u uniform on [0, 1) and drawn anew each time."""

    def loss(x: Tensor, y: Tensor, *, generator: Generator) -> Tensor:
        v = x + torch.rand(x.shape, generator=generator)
        return model.loss(v.clamp(1e-4, LEVELS - 1e-4), y)  # 0 and 17 are no points of the flow

    return loss


def vae() -> ConditionalVAE:
    """16 latent variables, 256 hidden units on either side; pixels with a deviation that is learnt."""
    encoder = Encoder(mlp((PIXELS + LABELS, 256, 32), seed=41), 16, classes=LABELS)
    decoder = GaussianDecoder(mlp((16 + LABELS, 256, PIXELS), seed=42), torch.full((PIXELS,), -1.0))
    return ConditionalVAE(encoder, decoder, PIXELS)


def diffusion() -> ConditionalDiffusion:
    return ConditionalDiffusion(Mlp((PIXELS,), (256, 256), LABELS, seed=43), (PIXELS,), LABELS, w=0.5, spread=0.75)


def gan() -> ConditionalGAN:
    """Wasserstein with gradient penalty: the discriminator moves three times, then the generator."""
    generator = nn.Sequential(mlp((32 + LABELS, 256, 256, PIXELS), seed=44), nn.Tanh())
    discriminator = Perceptron(mlp((PIXELS + LABELS, 256, 256, 1), seed=45), one=True)
    return ConditionalGAN(Perceptron(generator), discriminator, 32, LABELS, objective="wasserstein", critic_steps=3)


def levels(x: Tensor) -> Tensor:
    return x


def to_symmetric(x: Tensor) -> Tensor:
    return x / 8 - 1  # [-1, 1]


def from_levels(v: Tensor) -> Tensor:
    return v.floor() / (LEVELS - 1)


def from_symmetric(x: Tensor) -> Tensor:
    return (x + 1) / 2


PAINTERS = (
    Painter("flow", flow, 3000, 2e-3, levels, from_levels, with_noise),
    Painter("vae", vae, 4000, 1e-3, to_symmetric, from_symmetric),
    Painter("diffusion", diffusion, 6000, 2e-3, to_symmetric, from_symmetric),
    Painter("gan", gan, 4000, 0.0, to_symmetric, from_symmetric, lambda model: model.players(rate=5e-4)),
)


# Images that are completed


def completer(mask: Tensor, spread: float, seed: int) -> Palette:
    return Palette(Flat(tuple(mask.shape), (256, 256), seed=seed), mask, spread=spread)


def completed(model: Palette, x: Tensor, unseen: Tensor, *, steps: int, draws: int) -> Tensor:
    """Train on images x, then complete each of the unseen ones so many times: (draws, n, channels, 8, 8)."""
    train(model, model.loss, x, steps=steps, batch=100, rate=2e-3)
    source = Generator().manual_seed(0)
    return torch.stack([model.sample(len(unseen), given=unseen, generator=source) for _ in range(draws)])


def hole() -> Tensor:
    return inpainting((1, SIDE, SIDE))


def luma_known() -> Tensor:
    """Of (luma, blue less luma, red less luma) the first is known: colorization is completion."""
    return torch.tensor([True, False, False])[:, None, None].expand(3, SIDE, SIDE).clone()


def inked(ink: Tensor, labels: Tensor, source: Generator) -> Tensor:
    """Shares of ink (n, 8, 8) in the colour of the label, a hue for each, give or take: (n, 3, 8, 8) of r, g, b."""
    hues = (labels / LABELS + 0.02 * torch.randn(len(labels), generator=source)) % 1
    colours = torch.tensor([colorsys.hsv_to_rgb(float(hue), 0.9, 1.0) for hue in hues])  # (n, 3)
    return ink[:, None] * colours[:, :, None, None]


LUMA = torch.tensor([0.299, 0.587, 0.114])
"""Weights of red, green and blue by ITU-R BT.601, as in `restoration.colorization`."""


def to_luma(rgb: Tensor) -> Tensor:
    """(n, 3, h, w) in [0, 1] to luma, blue less luma, and red less luma, luma scaled to [-1, 1]."""
    luma = torch.einsum("c,nchw->nhw", LUMA, rgb)
    return torch.stack([2 * luma - 1, rgb[:, 2] - luma, rgb[:, 0] - luma], 1)


def from_luma(x: Tensor) -> Tensor:
    """The way back, cut off at 0 and 1."""
    luma = (x[:, 0] + 1) / 2
    blue, red = x[:, 1] + luma, x[:, 2] + luma
    green = (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    return torch.stack([red, green, blue], 1).clamp(0, 1)
