r"""Diffusion models: a network learns to denoise at every level of noise, and a solver draws with it.

    D(x, level) = c_skip x + c_out F(c_in x, c_noise, label)        for x = x_0 + level e
    c_skip = s^2 / (level^2 + s^2)    c_out = level s / sqrt(level^2 + s^2)    c_in = 1 / sqrt(level^2 + s^2)

with s the spread of the data and c_noise = log(level) / 4, so that F sees inputs, and is asked for outputs, of
variance 1 at every level. Trained on the mean of |D - x_0|^2 over log level ~ N(-1.2, 1.2^2), weighted by 1 / c_out^2:
denoising score matching, of which the minimum is E[x_0 | x]. A schedule says at which times x_t / scale has which
level, and may be chosen when the network has been trained. With labels, one in ten of which is hidden during training,
one network knows E[x_0 | x, y] and E[x_0 | x], and guidance of weight w takes (1 + w) of the one less w of the other.

Sources: Vincent 2011, doi.org/10.1162/NECO_a_00142; Karras et al. 2022, arxiv.org/abs/2206.00364, table 1;
Ho & Salimans 2022, arxiv.org/abs/2207.12598; Saharia et al. 2022, arxiv.org/abs/2111.05826, for conditions on images.
"""

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from reference_impls.diffusion_exact import SOLVERS, guided
from reference_impls.gaussian import LOG_2PI
from reference_impls.samplers import log_likelihood
from reference_impls.schedules import EDM, Linear, Noised, Schedule, VariancePreserving
from reference_impls.training import train

LOG_LEVEL, SPREAD_OF_LOG_LEVEL = -1.2, 1.2
"""Mean and deviation of the logarithms of levels in training, in units of twice the data's spread (which was 1/2)."""

HIDDEN = 0.1
"""Share of labels that are hidden in training."""


def scalings(level: Tensor, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out and c_in, of the shape of the level."""
    total = (level.square() + spread**2).sqrt()
    return (spread / total).square(), level * spread / total, 1 / total


class Diffusion(Noised, nn.Module):
    """A network F(x (n, *event), c_noise (n,), code (n, classes + 1)) under a schedule. No labels, an empty code.

    `sample` and `integrate` take steps of a solver, so that draws have the law of the data up to what the network has
    not learnt, and the error of the steps.
    """

    number, family = "M24", "diffusion"

    def __init__(
        self,
        network: nn.Module,
        event_shape: tuple[int, ...],
        noise: Schedule | None = None,
        *,
        spread: float = 0.5,
        order: int = 2,
        steps: int = 18,
    ):
        super().__init__()
        if order not in SOLVERS:
            raise ValueError(f"order = {order}: there are solvers of the orders {sorted(SOLVERS)}")
        if not 0 < spread < math.inf:
            raise ValueError(f"spread = {spread} should be the standard deviation of the data, a positive number")
        self.network, self.event_shape, self.noise = network, tuple(event_shape), noise or EDM()
        self.spread, self._order, self.steps = spread, order, steps
        self.register_buffer("origin", torch.zeros(self.event_shape))

    # What has been learnt

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """D(x / scale, sigma / scale)."""
        return self._denoise(x, t, self._code(None, x))  # (n, *event)

    def score_at(self, x: Tensor, t: Tensor) -> Tensor:
        """(scale D - x) / sigma^2."""
        scale, sigma = (self._beside(part) for part in self.noise.schedule(t))
        return (scale * self.denoise(x, t) - x) / sigma.square()  # (n, *event)

    def loss(self, x: Tensor, *given: Tensor, generator: Generator) -> Tensor:
        """The mean of |D - x_0|^2 / c_out^2 over coordinates and levels; `given` are labels (n,), or nothing."""
        code = self._hidden(self._code(*(given or (None,)), x), generator)
        n = torch.randn(len(x), generator=generator, dtype=x.dtype, device=x.device)
        level = 2 * self.spread * (LOG_LEVEL + SPREAD_OF_LOG_LEVEL * n).exp()
        e = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        clean = self._clean(x + self._beside(level) * e, level, code)
        c_out = scalings(level, self.spread)[1]
        return ((clean - x) / self._beside(c_out)).square().mean()  # ()

    def _denoise(self, x: Tensor, t: Tensor, code: Tensor) -> Tensor:
        self._checked(x)
        scale, sigma = self.noise.schedule(t)
        return self._clean(x / self._beside(scale), sigma / scale, code)

    def _clean(self, x: Tensor, level: Tensor, code: Tensor) -> Tensor:
        c_skip, c_out, c_in = (self._beside(c) for c in scalings(level, self.spread))
        return c_skip * x + c_out * self.network(c_in * x, level.log() / 4, code)

    # The noise

    def base(self) -> "Noise":
        """sigma z of the last time."""
        return Noise(self._last_sigma(), self.event_shape)

    # The way back

    def order(self) -> int:
        return self._order

    def integrate(self, x: Tensor, steps: int) -> Tensor:
        return self._solve(self.denoise, self._checked(x), steps)  # (n, *event)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return self._solve(self.denoise, self.base().sample(n, generator=generator), self.steps)  # (n, *event)

    def estimated_log_prob(self, x: Tensor, *, steps: int = 64, generator: Generator | None = None) -> Tensor:
        """log p(x) of the ODE's law by so many of Heun's steps, with Hutchinson's divergence given a generator."""
        times = self.noise.times(steps, self._checked(x))
        return log_likelihood(self.denoise, self.noise, x, times, self.base().log_prob, generator=generator)  # (n,)

    def _solve(self, denoise, x: Tensor, steps: int) -> Tensor:
        return SOLVERS[self._order](denoise, self.noise, x, self.noise.times(steps, x))

    def _last_sigma(self) -> Tensor:
        return self.noise.schedule(torch.tensor(self.noise.last, dtype=torch.float64, device=self.origin.device))[1].to(
            self.origin
        )

    def _code(self, y: Tensor | None, x: Tensor) -> Tensor:
        """What the network is told besides, (n, 0): nothing."""
        if y is not None:
            raise ValueError("this model has no labels; take ConditionalDiffusion")
        return x.new_zeros(len(x), 0)

    def _hidden(self, code: Tensor, generator: Generator) -> Tensor:
        return code

    def _beside(self, level: Tensor) -> Tensor:
        return level.reshape(-1, *(1,) * len(self.event_shape))

    def _checked(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.event_shape:
            raise ValueError(f"x should be events of shape (n, *{self.event_shape}), not {tuple(x.shape)}")
        return x


class ConditionalDiffusion(Diffusion):
    """With labels 0, ..., classes - 1; the code's last place says that the label is hidden."""

    number, family = "M29", "class-conditional diffusion"

    def __init__(self, network: nn.Module, event_shape: tuple[int, ...], classes: int, *, w: float = 0.0, **options):
        super().__init__(network, event_shape, **options)
        self.classes, self.w = classes, w

    def class_prior(self) -> Tensor:
        """Labels are as frequent as each other."""
        return self.origin.new_full((self.classes,), 1 / self.classes)

    @torch.no_grad()
    def sample(self, n: int, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        """Draws given labels (n,), with guidance w; without labels, of the whole."""
        z = self.base().sample(n, generator=generator)
        if given is None:
            return self._solve(self.denoise, z, self.steps)
        code = self._code(given, z)
        with_label = lambda x, t: self._denoise(x, t, code)  # noqa: E731
        denoise = with_label if self.w == 0 else guided(with_label, self.denoise, self.w)
        return self._solve(denoise, z, self.steps)  # (n, *event)

    def _code(self, y: Tensor | None, x: Tensor) -> Tensor:
        if y is None:
            y = torch.full((len(x),), self.classes, device=x.device)
        elif y.shape != (len(x),) or y.is_floating_point():
            raise ValueError(f"y should be {len(x)} integers, a label for each event, not {tuple(y.shape)}")
        elif len(y) and not 0 <= int(y.min()) <= int(y.max()) < self.classes:
            raise ValueError(f"y has labels outside of 0 to {self.classes - 1}")
        return one_hot(y.long(), self.classes + 1).to(x)

    def _hidden(self, code: Tensor, generator: Generator) -> Tensor:
        hide = torch.rand(len(code), 1, generator=generator, dtype=code.dtype, device=code.device) < HIDDEN
        nothing = one_hot(torch.tensor(self.classes), self.classes + 1).to(code)
        return torch.where(hide, nothing, code)


class Noise:
    """N(0, sigma^2 I) on events of that shape."""

    def __init__(self, sigma: Tensor, event_shape: tuple[int, ...]):
        self.sigma, self.event_shape = sigma, event_shape

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        sigma = self.sigma
        return sigma * torch.randn(n, *self.event_shape, generator=generator, dtype=sigma.dtype, device=sigma.device)

    def log_prob(self, x: Tensor) -> Tensor:
        return -((x / self.sigma).square() + 2 * self.sigma.log() + LOG_2PI).flatten(1).sum(1) / 2  # (n,)


# Networks


class Waves(nn.Module):
    """cos and sin of c_noise at `count` frequencies, spaced evenly in log from 1/2 to 4: it ranges from -1.6 to 1.1."""

    def __init__(self, count: int = 8):
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(-1, 2, count, base=2.0))

    def forward(self, c_noise: Tensor) -> Tensor:
        phase = c_noise[:, None] * self.frequencies.to(c_noise.dtype)
        return torch.cat([phase.cos(), phase.sin()], 1)  # (n, 2 count)


class Mlp(nn.Module):
    """x, the waves of the level and the code, through smooth layers, for events of any shape; or `out` numbers."""

    def __init__(
        self, event_shape: tuple[int, ...], hidden: tuple[int, ...], classes: int = 0, *, out: int = 0, seed: int
    ):
        super().__init__()
        self.waves = Waves()
        d = math.prod(event_shape)
        sizes = [d + 16 + (classes + 1 if classes else 0), *hidden, out or d]
        with torch.random.fork_rng(devices=[]):  # torch's own initial weights are drawn, and then replaced
            layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        _initialise(layers, seed)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, c_noise: Tensor, code: Tensor) -> Tensor:
        h = torch.cat([x.flatten(1), self.waves(c_noise), code], 1)
        for layer in self.layers[:-1]:
            h = nn.functional.silu(layer(h))
        h = self.layers[-1](h)
        return h.reshape(x.shape) if h.shape[1] == math.prod(x.shape[1:]) else h


class Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm x)) (1 + a) + b))), with a and b of what is known of level and label."""

    def __init__(self, into: int, out: int, known: int):
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(min(8, into), into), nn.GroupNorm(min(8, out), out)
        self.conv_1, self.conv_2 = nn.Conv2d(into, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.film, self.skip = nn.Linear(known, 2 * out), nn.Conv2d(into, out, 1)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        a, b = self.film(known)[:, :, None, None].chunk(2, 1)
        h = self.conv_1(nn.functional.silu(self.norm_1(x)))
        return self.skip(x) + self.conv_2(nn.functional.silu(self.norm_2(h) * (1 + a) + b))


class UNet(nn.Module):
    """Images (channels, h, w) at three resolutions, h and w multiples of 4, to as many or `out` channels."""

    def __init__(self, channels: int, width: int = 64, classes: int = 0, *, out: int = 0, seed: int):
        super().__init__()
        known, wide = 4 * width, [width, 2 * width, 2 * width]
        ups = ((wide[2], wide[2]), (wide[2], wide[1]), (wide[1], wide[0]))
        with torch.random.fork_rng(devices=[]):  # torch's own initial weights are drawn, and then replaced
            self.waves, self.read = Waves(), nn.Linear(16 + (classes + 1 if classes else 0), known)
            self.first, self.last = (
                nn.Conv2d(channels, width, 3, padding=1),
                nn.Conv2d(width, out or channels, 3, padding=1),
            )
            self.down = nn.ModuleList([Block(a, b, known) for a, b in pairwise([width, *wide])])
            self.middle = Block(wide[-1], wide[-1], known)
            self.up = nn.ModuleList([Block(a + b, b, known) for a, b in ups])
        _initialise([m for m in self.modules() if isinstance(m, nn.Linear | nn.Conv2d)], seed)

    def forward(self, x: Tensor, c_noise: Tensor, code: Tensor) -> Tensor:
        known = nn.functional.silu(self.read(torch.cat([self.waves(c_noise), code], 1)))
        h, kept = self.first(x), []
        for i, block in enumerate(self.down):
            h = block(nn.functional.avg_pool2d(h, 2) if i else h, known)
            kept.append(h)
        h = self.middle(h, known)
        for i, block in enumerate(self.up):
            h = nn.functional.interpolate(h, scale_factor=2) if i else h
            h = block(torch.cat([h, kept.pop()], 1), known)
        return self.last(nn.functional.silu(h))


def _initialise(layers: list[nn.Module], seed: int) -> None:
    """Normal weights of variance 1 / fan-in from one generator, and no biases."""
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers:
            fan_in = layer.weight[0].numel()
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, device="cpu") / math.sqrt(fan_in))
            layer.bias.zero_()


# Ready-made models


def untrained(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Diffusion:
    """Two coordinates under VP, as the network was before any training: its kernels and its solver are right."""
    return _placed(Diffusion(Mlp((2,), (16, 16), seed=1), (2,), VariancePreserving(Linear()), steps=8), dtype, device)


def ring(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None, steps: int = 800) -> Diffusion:
    """A noisy circle in the plane, learnt in so many steps of training."""
    model = Diffusion(Mlp((2,), (48, 48), seed=2), (2,), spread=0.72)
    train(model, model.loss, circle(4096, Generator().manual_seed(0)), steps=steps, batch=256, rate=5e-3)
    return _placed(model, dtype, device)


def full_digits(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ConditionalDiffusion:
    """28 x 28 images from -1 to 1 with ten labels, a UNet of 64 to 128 channels; untrained."""
    model = ConditionalDiffusion(UNet(1, 64, 10, seed=3), (1, 28, 28), 10, w=1.0, spread=0.6)
    return _placed(model, dtype, device)


def circle(n: int, generator: Generator) -> Tensor:
    """Points at distance 1 from the origin, give or take noise of deviation 0.1."""
    turn = 2 * math.pi * torch.rand(n, generator=generator)
    return torch.stack([turn.cos(), turn.sin()], 1) + 0.1 * torch.randn(n, 2, generator=generator)


def _placed(model: nn.Module, dtype: torch.dtype | None, device: torch.device | str | None):
    return model.to(device=device or torch.get_default_device(), dtype=dtype or torch.get_default_dtype()).eval()
