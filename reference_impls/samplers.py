r"""Samplers of diffusions: from noise at the last time to events at the first one.

A denoiser D(x, t) = E[x_0 | x_t = x] is all they ask for. It says what noise there is, e = (x - scale_t D) / sigma_t,
and the score, -e / sigma_t. Along the probability-flow ODE the law at each time is that of x_t, without randomness:

    d(x / scale) / d(sigma / scale) = e(x, t)        so that a step is        x_s = r x_t + (sigma_s - r sigma_t) e

with r = scale_s / scale_t. `euler` takes e at the step's beginning, which is DDIM, and `heun` the mean of e at both
ends: errors fall as steps^-1 and steps^-2. Of the stochastic ones, `ancestral` draws from q(x_s | x_t, x_0 = D), `ddim`
with eta from 0 to 1 lies between it and `euler`, and `euler_maruyama` solves the SDE back in time.

Sources: Ho et al. 2020, arxiv.org/abs/2006.11239; Song, Meng & Ermon 2021, arxiv.org/abs/2010.02502;
Song et al. 2021, arxiv.org/abs/2011.13456; Karras et al. 2022, arxiv.org/abs/2206.00364.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Generator, Tensor

from reference_impls.schedules import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x (n, *event), t (n,)) -> E[x_0 | x_t = x], (n, *event)."""


def euler(denoise: Denoise, noise: Schedule, x: Tensor, times: Tensor) -> Tensor:
    """First order. One call of the denoiser a step."""
    for t, s in pairwise(times):
        x = _along(noise, x, t, s, noise_in(denoise, noise, x, t))
    return x  # (n, *event)


def heun(denoise: Denoise, noise: Schedule, x: Tensor, times: Tensor) -> Tensor:
    """Second order. Two calls a step (Karras et al. 2022, algorithm 1)."""
    for t, s in pairwise(times):
        e = noise_in(denoise, noise, x, t)
        ahead = _along(noise, x, t, s, e)
        x = _along(noise, x, t, s, (e + noise_in(denoise, noise, ahead, s)) / 2)
    return x  # (n, *event)


def ddim(
    denoise: Denoise, noise: Schedule, x: Tensor, times: Tensor, *, generator: Generator, eta: float = 0.0
) -> Tensor:
    """eta sigma of q(x_s | x_t, x_0) is drawn anew, and the rest of sigma_s is noise that was there before."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta} should be from 0 (no new noise) to 1 (as much as the chain has)")
    for t, s in pairwise(times):
        e = noise_in(denoise, noise, x, t)
        (scale_t, sigma_t), (scale_s, sigma_s) = noise.schedule(t), noise.schedule(s)
        new = eta * noise.backward(s, t)[2]
        clean = (x - sigma_t * e) / scale_t
        kept = ((sigma_s - new) * (sigma_s + new)).clamp(min=0).sqrt()
        x = scale_s * clean + kept * e + new * _normal(x, generator)
    return x  # (n, *event)


def ancestral(denoise: Denoise, noise: Schedule, x: Tensor, times: Tensor, *, generator: Generator) -> Tensor:
    """x_s ~ N(a D + b x_t, sigma^2 I), the kernel back in time with the denoiser's guess of x_0: DDPM."""
    for t, s in pairwise(times):
        a, b, sigma = noise.backward(s, t)
        x = a * denoise(x, t.expand(len(x))) + b * x + sigma * _normal(x, generator)
    return x  # (n, *event)


def euler_maruyama(denoise: Denoise, noise: Schedule, x: Tensor, times: Tensor, *, generator: Generator) -> Tensor:
    """dx = [f x - g^2 grad log p_t(x)] dt + g dw, back in time."""
    for t, s in pairwise(times):
        f, g2 = noise.rates(t)
        score = -noise_in(denoise, noise, x, t) / noise.schedule(t)[1]
        x = x - (f * x - g2 * score) * (t - s) + (g2 * (t - s)).sqrt() * _normal(x, generator)
    return x  # (n, *event)


def log_likelihood(
    denoise: Denoise,
    noise: Schedule,
    x: Tensor,
    times: Tensor,
    log_base: Callable[[Tensor], Tensor],
    *,
    generator: Generator | None = None,
) -> Tensor:
    r"""log p(x) at the first time, (n,), by Heun's steps of the ODE up to the last one.

    log p(x_first) = log base(x_last) + d log(scale_last / scale_first) + int div e d(sigma / scale)

    where the divergence is over x / scale. It is exact, by a pass back for each coordinate; or, with a generator,
    v^T J v for random signs v (Hutchinson 1990), the same for all steps, which is unbiased for the integral.
    """
    signs = None if generator is None else _signs(x, generator)
    up, total = times.flip(0), 0.0
    start, d = x, math.prod(x.shape[1:])
    for s, t in pairwise(up):
        step = noise.level(t) - noise.level(s)
        e, slope = _with_divergence(denoise, noise, x, s, signs)
        ahead, slope_ahead = _with_divergence(denoise, noise, _along(noise, x, s, t, e), t, signs)
        x = _along(noise, x, s, t, (e + ahead) / 2)
        total = total + step * (slope + slope_ahead) / 2
    (scale_first, _), (scale_last, _) = noise.schedule(up[0]), noise.schedule(up[-1])
    value = log_base(x) + d * (scale_last / scale_first).log() + total
    return value if start.requires_grad else value.detach()  # (n,)


def evidence_bound(
    denoise: Denoise,
    noise: Schedule,
    x: Tensor,
    times: Tensor,
    log_base: Callable[[Tensor], Tensor],
    *,
    generator: Generator,
) -> Tensor:
    r"""An unbiased estimate of a lower bound of log p(x), (n,), for the law that `ancestral` makes of the base.

    log p(x_0) >= E_q[log p(x_last) / q(x_last | x_0) + log p(x_0 | x_first)]
                  - sum E_q KL(q(x_s | x_t, x_0), p(x_s | x_t))

    by Jensen's inequality for the whole chain, with each x_t drawn from q(x_t | x_0). Both kernels of a step have the
    same variance c^2, so that its KL is a^2 |x_0 - D|^2 / 2 c^2. The last step, p(x_0 | x_first), is N(D, level^2 I).
    """

    def noisy(t: Tensor) -> tuple[Tensor, Tensor]:
        (scale, sigma), e = noise.schedule(t), _normal(x, generator)
        return scale * x + sigma * e, _log_normal(e, sigma)

    end, log_q = noisy(times[0])
    value = log_base(end) - log_q
    for t, s in pairwise(times):
        a, _, c = noise.backward(s, t)
        x_t, _ = noisy(t)
        missed = (x - denoise(x_t, t.expand(len(x)))).flatten(1)
        value = value - (a / c).square() * missed.square().sum(1) / 2
    first, level = times[-1], noise.level(times[-1])
    left = (x - denoise(noisy(first)[0], first.expand(len(x)))) / level
    return value + _log_normal(left, level)  # (n,)


def _log_normal(e: Tensor, sigma: Tensor) -> Tensor:
    """log N(sigma e; 0, sigma^2 I), (n,)."""
    return -(e.square() + 2 * sigma.log() + math.log(2 * math.pi)).flatten(1).sum(1) / 2


def noise_in(denoise: Denoise, noise: Schedule, x: Tensor, t: Tensor) -> Tensor:
    """e = (x - scale D(x, t)) / sigma, at one time for all rows."""
    scale, sigma = noise.schedule(t)
    return (x - scale * denoise(x, t.expand(len(x)))) / sigma  # (n, *event)


def _along(noise: Schedule, x: Tensor, t: Tensor, s: Tensor, e: Tensor) -> Tensor:
    """r x_t + (sigma_s - r sigma_t) e."""
    (scale_t, sigma_t), (scale_s, sigma_s) = noise.schedule(t), noise.schedule(s)
    r = scale_s / scale_t
    return r * x + (sigma_s - r * sigma_t) * e


def _with_divergence(
    denoise: Denoise, noise: Schedule, x: Tensor, t: Tensor, signs: Tensor | None
) -> tuple[Tensor, Tensor]:
    """e (n, *event) and its divergence over x / scale (n,), with a graph where x has one."""
    keep = x.requires_grad
    with torch.enable_grad():
        leaf = x if keep else x.detach().requires_grad_()
        e = noise_in(denoise, noise, leaf, t)
        directions = _units(x) if signs is None else iter([signs])
        slope = torch.zeros((), dtype=x.dtype, device=x.device)
        for v in directions:
            (back,) = torch.autograd.grad((e * v).sum(), leaf, retain_graph=True, create_graph=keep)
            slope = slope + (back * v).flatten(1).sum(1)
    return (e if keep else e.detach()), noise.schedule(t)[0] * slope


def _units(x: Tensor) -> Iterator[Tensor]:
    """The d unit vectors, each of the shape of an event."""
    d = math.prod(x.shape[1:])
    return (row.reshape(x.shape[1:]) for row in torch.eye(d, dtype=x.dtype, device=x.device))


def _signs(x: Tensor, generator: Generator) -> Tensor:
    return (torch.randint(2, x.shape, generator=generator, device=x.device) * 2 - 1).to(x)


def _normal(x: Tensor, generator: Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
