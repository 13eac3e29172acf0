"""Diffusions whose kernels, denoisers, scores and solvers do not belong together; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from harness.mutants.energy import edited
from harness.mutants.mutant import Change, Mutant, NearMiss, answering
from harness.mutants.structure import nothing

Kernel = tuple[Tensor, Tensor]


class Cloud:
    """N(mu, diag v) in d dimensions under noise of which `total` says how much there is; solved in Heun's steps.

    scale^2 = exp(-B), sigma^2 = 1 - exp(-B) with B = total(t): the variance-preserving family.
    """

    first, last = 1e-3, 1.0

    def __init__(self, location: Tensor, variance: Tensor):
        self.location, self.variance = location, variance  # (d,), (d,)

    def total(self, t: Tensor) -> Tensor:
        return 0.1 * t + 9.95 * t.square()

    def time_of(self, total: Tensor) -> Tensor:
        return 2 * total / (0.1 + (0.01 + 39.8 * total).sqrt())

    # What a diffusion says

    def time_range(self) -> tuple[float, float]:
        return self.first, self.last

    def schedule(self, t: Tensor) -> Kernel:
        b = self.total(t)
        return (-b / 2).exp(), (-torch.expm1(-b)).sqrt()

    def transition(self, s: Tensor, t: Tensor) -> Kernel:
        (scale_s, sigma_s), (scale_t, sigma_t) = self.schedule(s), self.schedule(t)
        r = scale_t / scale_s
        return r, (sigma_t.square() - (r * sigma_s).square()).clamp(min=0).sqrt()

    def backward(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (scale_s, sigma_s), (_, sigma_t), (r, between) = self.schedule(s), self.schedule(t), self.transition(s, t)
        a, b = scale_s * (between / sigma_t).square(), r * (sigma_s / sigma_t).square()
        return a, b, sigma_s * between / sigma_t

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        scale, sigma = self.columns(x, t)
        gain = scale * self.variance / (scale.square() * self.variance + sigma.square())
        return self.location + gain * (x - scale * self.location)

    def score_at(self, x: Tensor, t: Tensor) -> Tensor:
        scale, sigma = self.columns(x, t)
        return -(x - scale * self.location) / (scale.square() * self.variance + sigma.square())

    def columns(self, x: Tensor, t: Tensor) -> Kernel:
        """scale and sigma of each row, beside x."""
        scale, sigma = self.schedule(t)
        return scale.reshape(-1, *(1,) * (x.ndim - 1)), sigma.reshape(-1, *(1,) * (x.ndim - 1))

    def data(self) -> Any:
        draw = lambda n, *, generator: Cloud.sample(self, n, generator=generator)  # noqa: E731
        return type("Data", (), {"sample": staticmethod(draw)})()

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.location + self.variance.sqrt() * self.normal(n, generator)

    def base(self) -> Any:
        draw = lambda n, *, generator: self.at_end() * self.normal(n, generator)  # noqa: E731
        return type("Base", (), {"sample": staticmethod(draw)})()

    def normal(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, *self.location.shape, generator=generator, dtype=self.location.dtype)

    def at_end(self) -> float:
        return float(self.schedule(torch.tensor([self.last], dtype=torch.float64))[1])

    # The way back

    def order(self) -> int:
        return 2

    def integrate(self, x: Tensor, steps: int) -> Tensor:
        times = self.times(steps, x)
        for t, s in pairwise(times):
            e = self.noise(x, t)
            x = self.along(x, t, s, (e + self.noise(self.along(x, t, s, e), s)) / 2)
        return x

    def times(self, steps: int, x: Tensor) -> Tensor:
        """From the last to the first, evenly in the seventh root of the level."""
        scale, sigma = self.schedule(torch.tensor([self.last, self.first], dtype=torch.float64))
        high, low = (sigma / scale) ** (1 / 7)
        levels = (high + torch.linspace(0, 1, steps + 1, dtype=torch.float64) * (low - high)) ** 7
        return self.time_at(levels).to(x.dtype)

    def time_at(self, level: Tensor) -> Tensor:
        return self.time_of(torch.log1p(level.square()))

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        scale, sigma = self.schedule(t)
        return (x - scale * self.denoise(x, t.expand(len(x)))) / sigma

    def along(self, x: Tensor, t: Tensor, s: Tensor, e: Tensor) -> Tensor:
        (scale_t, sigma_t), (scale_s, sigma_s) = self.schedule(t), self.schedule(s)
        r = scale_s / scale_t
        return r * x + (sigma_s - r * sigma_t) * e


class Exploding(Cloud):
    """scale = 1, sigma = t up to 80."""

    first, last = 0.002, 80.0

    def schedule(self, t: Tensor) -> Kernel:
        return torch.ones_like(t), t

    def time_at(self, level: Tensor) -> Tensor:
        return level


class SubPreserving(Cloud):
    """scale^2 = exp(-B), sigma = 1 - exp(-B)."""

    def schedule(self, t: Tensor) -> Kernel:
        b = self.total(t)
        return (-b / 2).exp(), -torch.expm1(-b)

    def time_at(self, level: Tensor) -> Tensor:
        return self.time_of(2 * torch.asinh(level / 2))


class Straight(Cloud):
    """scale = 1 - t, sigma = t: the straight paths of flow matching, almost to their end."""

    first, last = 1e-3, 1 - 1e-3

    def schedule(self, t: Tensor) -> Kernel:
        return 1 - t, t

    def time_at(self, level: Tensor) -> Tensor:
        return level / (1 + level)


class AllNoise(Straight):
    """The same to their very end, where nothing is left of x_0; solved in t."""

    last = 1.0

    def integrate(self, x: Tensor, steps: int) -> Tensor:
        """dx / dt = e - D by Heun's steps, that are shorter where t is small."""
        times = (torch.linspace(1, self.first ** (1 / 3), steps + 1, dtype=torch.float64) ** 3).to(x.dtype)
        for t, s in pairwise(times):
            slope = self.slope(x, t)
            x = x + (s - t) * (slope + self.slope(x + (s - t) * slope, s)) / 2
        return x

    def slope(self, x: Tensor, t: Tensor) -> Tensor:
        return self.noise(x, t) - self.denoise(x, t.expand(len(x)))


class Chain(Cloud):
    """A thousand steps, of which only whole numbers are known: a table in float32, with 1 - scale^2 for sigma^2."""

    first, last = 0.0, 999.0
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)

    def schedule(self, t: Tensor) -> Kernel:
        kept = self.kept[t.long()]
        return kept.sqrt(), (1 - kept).sqrt()

    def order(self) -> int:
        return 1

    def integrate(self, x: Tensor, steps: int) -> Tensor:
        """DDIM."""
        times = torch.linspace(999, 0, steps + 1).round()
        for t, s in pairwise(times):
            x = self.along(x, t, s, self.noise(x, t))
        return x


def cloud(
    kind: type[Cloud] = Cloud, shape: tuple[int, ...] = (3,), dtype: torch.dtype = torch.float32, spread: float = 1.0
) -> Callable[[], Cloud]:
    """Means from -1/2 to 1/2 and variances from 1/2 to 2, times `spread` and its square."""

    def build() -> Cloud:
        d = math.prod(shape)
        variance = 2 ** torch.linspace(-1, 1, d, dtype=torch.float64)
        location = torch.linspace(-0.5, 0.5, d, dtype=torch.float64)
        return kind((spread * location).reshape(shape).to(dtype), (spread**2 * variance).reshape(shape).to(dtype))

    return build


# Defects


def saying(**formulas: Callable[..., Any]) -> Change:
    """The change that answers by formula(law, ...) under its name, with tuples of tensors."""
    return lambda model: {name: partial(formula, model.target) for name, formula in formulas.items()}


def _variance_for_sigma(law: Cloud, t: Tensor) -> Kernel:
    scale, sigma = law.schedule(t)
    return scale, sigma.square()


def _deviations_added(law: Cloud, s: Tensor, t: Tensor) -> Kernel:
    """sigma_t - r sigma_s, as if noises added and not their variances."""
    r, _ = law.transition(s, t)
    return r, (law.schedule(t)[1] - r * law.schedule(s)[1]).clamp(min=0)


def _variance_between(law: Cloud, s: Tensor, t: Tensor) -> Kernel:
    r, between = law.transition(s, t)
    return r, between.square()


def _scale_of_last(law: Cloud, s: Tensor, t: Tensor) -> Kernel:
    """scale(t) for scale(t) / scale(s)."""
    return law.schedule(t)[0], law.transition(s, t)[1]


def _swapped(law: Cloud, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b, c = law.backward(s, t)
    return b, a, c


def _forward_variance(law: Cloud, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """That of the step there for that of the step back: beta for beta tilde."""
    a, b, _ = law.backward(s, t)
    return a, b, law.transition(s, t)[1]


def _noise_for_clean(law: Cloud, x: Tensor, t: Tensor) -> Tensor:
    """The noise in x in place of what is clean in it."""
    scale, sigma = law.columns(x, t)
    return (x - scale * law.denoise(x, t)) / sigma


def _scale_forgotten(law: Cloud, x: Tensor, t: Tensor) -> Tensor:
    return x + law.columns(x, t)[1].square() * law.score_at(x, t)


def _not_conditioned(law: Cloud, x: Tensor, t: Tensor) -> Tensor:
    """The score over sigma^2 that belongs to one x_0, its mean."""
    scale, sigma = law.columns(x, t)
    return -(x - scale * law.location) / sigma.square()


def _guided(law: Cloud, x: Tensor, t: Tensor, w: float = 0.0) -> Tensor:
    """w D(x, t | y) + (1 - w) D(x, t), a convention in which w = 1 is no guidance, called with w = 0."""
    wide = type(law)(0 * law.location, 1.5 * law.variance)
    return w * law.denoise(x, t) + (1 - w) * wide.denoise(x, t)


def _guided_score(law: Cloud, x: Tensor, t: Tensor) -> Tensor:
    return type(law)(0 * law.location, 1.5 * law.variance).score_at(x, t)


def _step(law: Cloud, x: Tensor, steps: int, along: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    times = law.times(steps, x)
    for t, s in pairwise(times):
        x = along(x, t, s, law.noise(x, t))
    return x


def _uncorrected(law: Cloud, x: Tensor, steps: int) -> Tensor:
    """Heun's first half: Euler's step."""
    return _step(law, x, steps, law.along)


def _ancestral_variance(law: Cloud, x: Tensor, steps: int) -> Tensor:
    """DDIM with the variance of DDPM taken off the noise, and nothing drawn in its place."""

    def along(x: Tensor, t: Tensor, s: Tensor, e: Tensor) -> Tensor:
        (scale_t, sigma_t), (scale_s, sigma_s) = law.schedule(t), law.schedule(s)
        kept = (sigma_s.square() - law.backward(s, t)[2].square()).clamp(min=0).sqrt()
        return scale_s * (x - sigma_t * e) / scale_t + kept * e

    return _step(law, x, steps, along)


def _whole_score(law: Cloud, x: Tensor, steps: int) -> Tensor:
    """The drift of the SDE back in time without its noise: the score counts twice."""

    def along(x: Tensor, t: Tensor, s: Tensor, e: Tensor) -> Tensor:
        (scale_t, sigma_t), (scale_s, sigma_s) = law.schedule(t), law.schedule(s)
        r = scale_s / scale_t
        return r * x + 2 * (sigma_s - r * sigma_t) * e

    return _step(law, x, steps, along)


def _drawn(law: Cloud, x: Tensor, steps: int) -> Tensor:
    """DDPM in place of its ODE: noise at every step, here from a generator of its own."""
    source = torch.Generator().manual_seed(steps)
    times = law.times(steps, x)
    for t, s in pairwise(times):
        a, b, c = law.backward(s, t)
        e = torch.randn(x.shape, generator=source, dtype=x.dtype)
        x = a * law.denoise(x, t.expand(len(x))) + b * x + c * e
    return x


def _normal(law: Cloud, variance: float) -> Cloud:
    return type(law)(0 * law.location, 0 * law.variance + variance)


class Short(Cloud):
    """A last time at which half of the data is left."""

    last = 0.35

    def at_end(self) -> float:
        return 1.0


class OneTooMany(Cloud):
    """A last step of its own, to no noise at all: to where the denoiser points."""

    def integrate(self, x: Tensor, steps: int) -> Tensor:
        x = super().integrate(x, steps)
        return self.denoise(x, torch.full_like(x[:, 0], self.first))


class Backwards(Cloud):
    """t = 0 is noise."""

    def schedule(self, t: Tensor) -> Kernel:
        return super().schedule(1 + self.first - t)


MONOTONE, COMPOSE = "diffusion.schedule_monotone", "diffusion.kernels_compose"
BAYES, TWEEDIE = "diffusion.backward_by_bayes", "diffusion.tweedie"
MEAN, SCORE = "diffusion.denoiser_is_conditional_mean", "diffusion.score_of_noisy_data"
END, ORDER, FLOW = "diffusion.ends_in_noise", "diffusion.solver_order", "diffusion.solver_follows_flow"
CHECKED = (MONOTONE, COMPOSE, BAYES, TWEEDIE, MEAN, SCORE, END, ORDER, FLOW)

MUTANTS: tuple[Mutant, ...] = (
    Mutant("backwards", "noise first", MONOTONE, cloud(Backwards), nothing),
    Mutant("no_number", "NaN late", MONOTONE, cloud(), edited("schedule", lambda k: (k[0].log().sqrt(), k[1]))),
    Mutant("negative", "-sigma", MONOTONE, cloud(), edited("schedule", lambda k: (k[0], -k[1]))),
    Mutant("constant", "one level", MONOTONE, cloud(), edited("schedule", lambda k: (k[0], k[0]))),
    Mutant("a_tensor", "no pair", MONOTONE, cloud(), edited("schedule", lambda k: k[0]), error=True),
    Mutant("variance", "sigma^2 for sigma", COMPOSE, cloud(), saying(schedule=_variance_for_sigma)),
    Mutant("variance_between", "sigma^2 for sigma", COMPOSE, cloud(), saying(transition=_variance_between)),
    Mutant("deviations_added", "sigma_t - r sigma_s", COMPOSE, cloud(Exploding), saying(transition=_deviations_added)),
    Mutant("scale_of_last", "scale(t) for scale(t) / scale(s)", COMPOSE, cloud(), saying(transition=_scale_of_last)),
    Mutant("swapped", "a and b", BAYES, cloud(), saying(backward=_swapped)),
    Mutant("forward_variance", "beta for beta tilde", BAYES, cloud(Chain), saying(backward=_forward_variance)),
    Mutant("variance", "c^2 for c", BAYES, cloud(Exploding), edited("backward", lambda k: (k[0], k[1], k[2].square()))),
    Mutant("sign", "-score", TWEEDIE, cloud(), edited("score_at", lambda s: -s)),
    Mutant("noise_for_clean", "e for x_0", TWEEDIE, cloud(), answering(denoise=_noise_for_clean)),
    Mutant("scale_forgotten", "x + sigma^2 s", TWEEDIE, cloud(SubPreserving), answering(denoise=_scale_forgotten)),
    Mutant("off", "score x 1.001", TWEEDIE, cloud(Exploding), edited("score_at", lambda s: 1.001 * s)),
    Mutant("noise_for_clean", "e for x_0", MEAN, cloud(), answering(denoise=_noise_for_clean)),
    Mutant("off_by_one", "w = 0 where w = 1 is none", MEAN, cloud(Exploding), answering(denoise=_guided)),
    Mutant("shrunk", "0.95 D", MEAN, cloud(Straight), edited("denoise", lambda d: 0.95 * d)),
    Mutant("sign", "-score", SCORE, cloud(), edited("score_at", lambda s: -s)),
    Mutant("of_one_event", "as if all x_0 were their mean", SCORE, cloud(), answering(score_at=_not_conditioned)),
    Mutant("off_by_one", "w = 0 where w = 1 is none", SCORE, cloud(Exploding), answering(score_at=_guided_score)),
    Mutant("short", "half of the data is left", END, cloud(Short), nothing),
    Mutant("base_too_wide", "N(0, 1.44 I)", END, cloud(), answering(base=lambda law: _normal(law, 1.44))),
    Mutant("base_narrow", "N(0, I), not 80 z", END, cloud(Exploding), answering(base=lambda law: _normal(law, 1.0))),
    Mutant("uncorrected", "Euler for Heun", ORDER, cloud(), answering(integrate=_uncorrected)),
    Mutant("uncorrected_exploding", "Euler for Heun", ORDER, cloud(Exploding), answering(integrate=_uncorrected)),
    Mutant("no_whole_number", "an order of 1.5", ORDER, cloud(), edited("order", lambda p: 1.5), error=True),
    Mutant("drawn", "DDPM in place of its ODE", ORDER, cloud(), answering(integrate=_drawn)),
    Mutant("ancestral_variance", "DDIM with DDPM's variance", FLOW, cloud(), answering(integrate=_ancestral_variance)),
    Mutant("whole_score", "twice the score", FLOW, cloud(Exploding), answering(integrate=_whole_score)),
)  # fmt: skip

NEAR_MISSES: tuple[NearMiss, ...] = (
    *(NearMiss("exploding", "scale = 1, sigma = t", check, cloud(Exploding), nothing) for check in CHECKED),
    *(NearMiss("sub_preserving", "less noise", check, cloud(SubPreserving), nothing) for check in CHECKED),
    *(NearMiss("straight", "flow matching", check, cloud(Straight), nothing) for check in CHECKED),
    *(NearMiss("all_noise", "scale = 0 at the end", check, cloud(AllNoise), nothing) for check in CHECKED),
    *(
        NearMiss("scalars", "events of shape ()", check, cloud(shape=()), nothing)
        for check in (TWEEDIE, MEAN, END, FLOW)
    ),
    *(NearMiss("chain", "whole times, a float32 table", check, cloud(Chain), nothing) for check in CHECKED),
    *(
        NearMiss("pictures", "events (1, 4, 4)", check, cloud(shape=(1, 4, 4)), nothing)
        for check in (TWEEDIE, MEAN, END, FLOW)
    ),
    *(NearMiss("wide", "float64", check, cloud(dtype=torch.float64), nothing) for check in (TWEEDIE, SCORE, ORDER)),
    *(
        NearMiss("tiny", "data of spread 0.05", check, cloud(spread=0.05), nothing)
        for check in (TWEEDIE, MEAN, SCORE, FLOW)
    ),
    NearMiss("first_order", "Euler's method, of order 1", ORDER, cloud(Chain), nothing),
    NearMiss("modest", "Heun's method said to be of order 1", ORDER, cloud(), edited("order", lambda p: 1)),
    NearMiss("one_too_many", "a last step to no noise", FLOW, cloud(OneTooMany), nothing),
    NearMiss("one_too_many", "a last step to no noise", ORDER, cloud(OneTooMany), nothing),
)
