r"""Generative adversarial networks: a generator x = G(z) of noise z, and a discriminator that tells x from data.

    min_G max_D  V(D, G) = E_p[log D(x)] + E_q[log(1 - D(x))],     q the law of G(z),  z ~ N(0, I)

D is kept as its log-odds a, D = 1 / (1 + exp(-a)). For a fixed G the best is D* = p / (p + q), a* = log p - log q, and

    V(D*, G) = -log 4 + 2 JSD(p, q),     JSD(p, q) = KL(p || m) / 2 + KL(q || m) / 2,  m = (p + q) / 2,

which is -log 4 if q = p, and larger for every other G. The objectives differ in what moves whom:

    original         D goes up V,                         G down E_q[log(1 - D)]
    non-saturating   the same D,                          G up E_q[log D], whose gradient lasts where D is sure
    Wasserstein      a up E_p[a] - E_q[a] - penalty,      G up E_q[a]
                     penalty = lambda E(|grad a(y)| - 1)^2 at y = t x + (1 - t) G(z), t uniform on [0, 1],

the last as a is then nearly 1-Lipschitz, and E_p[a] - E_q[a] at most the distance W1. D and G move in turn, D first and
`critic_steps` times, each time on rows of its own. Such a model draws, and has no density.

A label y, where there is one, is known to both: as a one-hot code beside z and beside x. Alone, it is uniform.

Sources: Goodfellow et al. (2014), arxiv.org/abs/1406.2661; Gulrajani et al. (2017), arxiv.org/abs/1704.00028;
Mirza & Osindero (2014), arxiv.org/abs/1411.1784 (labels). Beside this file: `gan_linear`, where all is known in closed
form, and `gan_images` (convolutions).
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot, softplus

from reference_impls.gaussian import DiagonalGaussian
from reference_impls.mixture import GaussianMixture
from reference_impls.training import Player, train
from reference_impls.vae_parts import mlp

Network = Callable[[Tensor, Tensor], Tensor]
"""(rows, codes (n, classes)) -> rows: z to events for a generator, events to log-odds (n,) for a discriminator."""

OBJECTIVES = ("original", "non-saturating", "wasserstein")


class GAN(nn.Module):
    """Generator and discriminator, both modules that map rows and codes of labels; see the top of the file."""

    number, family = "M23", "generative adversarial network"

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent: int,
        classes: int = 0,
        *,
        objective: str = "non-saturating",
        penalty: float = 10.0,
        critic_steps: int = 1,
    ):
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"objective = {objective!r} should be one of {', '.join(map(repr, OBJECTIVES))}")
        if not 0 <= penalty < math.inf:
            raise ValueError(f"penalty = {penalty} weighs the gradients of a critic: it should be 0 or above")
        if latent < 1 or critic_steps < 1:
            raise ValueError(f"latent = {latent} and critic_steps = {critic_steps} should be 1 or more")
        self.generator, self.discriminator = generator, discriminator
        self.latent, self.classes = latent, classes
        self.objective, self.penalty, self.critic_steps = objective, penalty, critic_steps
        self.register_buffer("origin", torch.zeros(latent))

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        with torch.no_grad():
            return self.generator(self.noise(n, generator), self.some_codes(n, generator))  # (n, *event)

    def noise(self, n: int, generator: Generator) -> Tensor:
        return torch.randn(n, self.latent, generator=generator, dtype=self.origin.dtype, device=self.origin.device)

    def some_codes(self, n: int, generator: Generator) -> Tensor:
        """Codes (n, classes) of uniform labels; (n, 0) where there are none."""
        if not self.classes:
            return self.origin.new_zeros(n, 0)
        y = torch.randint(self.classes, (n,), generator=generator, device=self.origin.device)
        return self.codes(y, n)

    def codes(self, y: Tensor | None, n: int) -> Tensor:
        """Codes of given labels. Raises ValueError for labels that are none."""
        if y is None:
            if self.classes:
                raise ValueError(f"a label for each event is needed, one of 0 to {self.classes - 1}")
            return self.origin.new_zeros(n, 0)
        if y.shape != (n,) or y.is_floating_point():
            raise ValueError(f"y should be {n} integers, a label for each event, not {y.dtype} of {tuple(y.shape)}")
        if n and not 0 <= int(y.min()) <= int(y.max()) < self.classes:
            raise ValueError(f"y has labels outside of 0 to {self.classes - 1}")
        return one_hot(y.long(), self.classes).to(self.origin)

    # Who goes down what

    def discriminator_loss(self, x: Tensor, y: Tensor | None = None, *, generator: Generator, part: int = 0) -> Tensor:
        """-V, or -(E_p[a] - E_q[a]) + penalty, of the rows of that part of the minibatch."""
        code = self.codes(y, len(x))[part :: self.critic_steps]
        x = x[part :: self.critic_steps].to(self.origin.dtype)
        with torch.no_grad():
            drawn = self.generator(self.noise(len(x), generator), code)
        if drawn.shape != x.shape:
            raise ValueError(f"x has events {tuple(x.shape[1:])}, and the generator's are {tuple(drawn.shape[1:])}")
        on_data, on_draws = self.discriminator(x, code), self.discriminator(drawn, code)  # (n,), (n,)
        if self.objective != "wasserstein":
            return -value(on_data, on_draws)  # ()
        steep = gradient_penalty(lambda rows: self.discriminator(rows, code), x, drawn, generator)
        return on_draws.mean() - on_data.mean() + self.penalty * steep  # ()

    def generator_loss(self, x: Tensor, y: Tensor | None = None, *, generator: Generator) -> Tensor:
        """What G goes down, at as many draws as a part of the minibatch has rows; of those only labels are read."""
        code = self.codes(y, len(x))[:: self.critic_steps]
        a = self.discriminator(self.generator(self.noise(len(code), generator), code), code)  # (n,)
        if self.objective == "original":
            return -softplus(a).mean()  # log(1 - D)
        return softplus(-a).mean() if self.objective == "non-saturating" else -a.mean()  # ()

    def players(self, rate: float = 2e-4, betas: tuple[float, float] = (0.5, 0.999)) -> list[Player]:
        """In the order in which they move: the discriminator `critic_steps` times, then the generator."""
        critic, maker = list(self.discriminator.parameters()), list(self.generator.parameters())
        moves = [partial(self.discriminator_loss, part=i) for i in range(self.critic_steps)]
        return [*(Player(critic, move, rate, betas) for move in moves), Player(maker, self.generator_loss, rate, betas)]


class ConditionalGAN(GAN):
    """Draws of p(x | y) for labels y = 0, ..., classes - 1; without `given`, of the mixture over uniform y."""

    family = "conditional generative adversarial network"

    def __init__(self, generator: nn.Module, discriminator: nn.Module, latent: int, classes: int, **settings):
        if classes < 1:
            raise ValueError(f"classes = {classes} should be 1 or more; without labels, take a GAN")
        super().__init__(generator, discriminator, latent, classes, **settings)

    def class_prior(self) -> Tensor:
        return self.origin.new_full((self.classes,), 1 / self.classes)  # (classes,)

    def sample(self, n: int, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        if given is None:
            return super().sample(n, generator=generator)
        with torch.no_grad():
            return self.generator(self.noise(n, generator), self.codes(given, n))  # (n, *event)


# The game


def value(on_data: Tensor, on_draws: Tensor) -> Tensor:
    """V(D, G) from log-odds at data and at draws (n,): the mean of log D plus that of log(1 - D)."""
    return -softplus(-on_data).mean() - softplus(on_draws).mean()  # ()


def gradient_penalty(a: Callable[[Tensor], Tensor], x: Tensor, drawn: Tensor, generator: Generator) -> Tensor:
    """E(|grad a(y)| - 1)^2 at y = t x + (1 - t) G(z), t uniform and one for each row."""
    t = torch.rand(len(x), *(1,) * (x.dim() - 1), generator=generator, dtype=x.dtype, device=x.device)
    y = (t * x + (1 - t) * drawn).requires_grad_()
    (slope,) = torch.autograd.grad(a(y).sum(), y, create_graph=True)  # (n, *event)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()  # ()


# Networks


class Perceptron(nn.Module):
    """Rows with their codes through fully connected layers; log-odds (n,) for the `one` number of a discriminator."""

    def __init__(self, layers: nn.Module, one: bool = False):
        super().__init__()
        self.layers, self.one = layers, one

    def forward(self, rows: Tensor, code: Tensor) -> Tensor:
        out = self.layers(torch.cat([rows, code], 1))
        return out.squeeze(1) if self.one else out  # (n,) or (n, d)


class RingGenerator(nn.Module):
    """The k modes of a ring, made of three normal numbers: the first chooses the mode, the others are the noise."""

    def __init__(self, modes: int, radius: float, spread: float):
        super().__init__()
        self.register_buffer("centres", ring_centres(modes, radius))
        self.spread = spread

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        turn = torch.special.ndtr(z[:, 0]) * len(self.centres)  # uniform on [0, k]
        return self.centres[turn.long().clamp(max=len(self.centres) - 1)] + self.spread * z[:, 1:]  # (n, 2)


def ring_centres(modes: int, radius: float) -> Tensor:
    angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    return radius * torch.stack([angle.cos(), angle.sin()], 1)  # (modes, 2)


class RingGAN(GAN):
    """A GAN whose data are Gaussian modes of equal weight on a ring: the usual test of whether modes are lost."""

    def __init__(
        self, generator: nn.Module, latent: int, modes: int = 8, radius: float = 1.0, spread: float = 0.05, **by
    ):
        super().__init__(generator, Perceptron(mlp((2, 64, 64, 1), seed=12), one=True), latent, **by)
        self.register_buffer("centres", ring_centres(modes, radius))
        self.spread = spread

    def data(self) -> GaussianMixture:
        variance = torch.full((2,), self.spread**2).to(self.centres)
        parts = [DiagonalGaussian(centre, variance) for centre in self.centres]
        return GaussianMixture(self.centres.new_full((len(parts),), 1 / len(parts)), parts)


# Ready-made models


def ring(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> RingGAN:
    """Eight modes in the plane, and a generator that has exactly their law; the discriminator is untrained."""
    return placed(RingGAN(RingGenerator(8, 1.0, 0.05), latent=3), dtype, device)


def learnt_ring(
    *, dtype: torch.dtype | None = None, device: torch.device | str | None = None, steps: int = 1500, seed: int = 0
) -> RingGAN:
    """The same modes, learnt by a generator with 64 hidden units twice. Its draws are near the data, and not theirs."""
    model = RingGAN(Perceptron(mlp((8, 64, 64, 2), seed=11)), latent=8)
    x = model.data().sample(20_000, generator=Generator().manual_seed(seed)).to(model.origin)
    train(model, model.players(rate=4e-3), x, steps=steps, batch=128, seed=seed)
    return placed(model, dtype, device)


def placed(model: nn.Module, dtype: torch.dtype | None, device: torch.device | str | None):
    return model.to(device=device or torch.get_default_device(), dtype=dtype or torch.get_default_dtype()).eval()
