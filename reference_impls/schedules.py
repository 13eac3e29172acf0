r"""Noise schedules of diffusions: how much is left of x_0 at time t, and how much noise there is.

    x_t = scale(t) x_0 + sigma(t) e,  e ~ N(0, I)             dx = f(t) x dt + g(t) dw

Both say the same when f = d log scale / dt and g^2 = d sigma^2 / dt - 2 f sigma^2. Between two times s < t, with
r = scale(t) / scale(s), x_t = r x_s + sigma_st e with sigma_st^2 = sigma_t^2 - r^2 sigma_s^2; and back again, by Bayes,

    q(x_s | x_t, x_0) = N(a x_0 + b x_t, c^2 I)
    a = scale_s sigma_st^2 / sigma_t^2,    b = r sigma_s^2 / sigma_t^2,    c = sigma_s sigma_st / sigma_t

All that matters of a schedule is the level sigma / scale: x_t / scale(t) has the law of x_0 + level e (Karras et al.,
equation 4). A solver chooses levels, and a schedule says at which times it has them.

Sources: Sohl-Dickstein et al. 2015, arxiv.org/abs/1503.03585; Ho et al. 2020, arxiv.org/abs/2006.11239;
Song et al. 2021, arxiv.org/abs/2011.13456; Karras et al. 2022, arxiv.org/abs/2206.00364.
"""

import math

import torch
from torch import Tensor

RHO = 7.0
"""Levels are spaced evenly in their RHO-th roots: short steps where there is little noise (Karras et al., table 1)."""


class Schedule:
    """What follows from the kernels. A schedule states `first`, `last`, and five functions of times:

    schedule(t) -> (scale, sigma); transition(s, t) -> (r, sigma_st), for s <= t; rates(t) -> (f, g^2); level(t); and
    time_of(level), its inverse. Each without cancellation, where sigma_t^2 - r^2 sigma_s^2 would lose its digits.
    """

    first: float
    last: float

    def time_range(self) -> tuple[float, float]:
        return self.first, self.last

    def backward(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b, sigma) of q(x_s | x_t, x_0) = N(a x_0 + b x_t, sigma^2 I), for s < t."""
        (scale, sigma_s), (_, sigma_t), (r, sigma_st) = self.schedule(s), self.schedule(t), self.transition(s, t)
        forward, before = sigma_st / sigma_t, sigma_s / sigma_t
        return scale * forward.square(), r * before.square(), sigma_s * forward

    def times(self, steps: int, like: Tensor, rho: float = RHO) -> Tensor:
        """steps + 1 times from the last to the first, in the dtype and on the device of `like`."""
        if steps < 1:
            raise ValueError(f"steps = {steps}: a solver takes one step or more")
        ends = torch.tensor([self.last, self.first], dtype=torch.float64, device=like.device)
        high, low = self.level(ends) ** (1 / rho)
        part = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=like.device)
        times = self.time_of((high + part * (low - high)) ** rho)
        times[0], times[-1] = ends
        return times.to(like.dtype)  # (steps + 1,)

    def level(self, t: Tensor) -> Tensor:
        scale, sigma = self.schedule(t)
        return sigma / scale


class Noised:
    """A model with a schedule, `noise`, which answers for it."""

    noise: Schedule

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.noise.schedule(t)

    def time_range(self) -> tuple[float, float]:
        return self.noise.time_range()

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.noise.transition(s, t)

    def backward(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.noise.backward(s, t)


class EDM(Schedule):
    """scale = 1, sigma = t: time is the level (Karras et al. 2022)."""

    def __init__(self, first: float = 0.002, last: float = 80.0):
        self.first, self.last = _ends(first, last)

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), t

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), ((t - s) * (t + s)).sqrt()

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), 2 * t

    def time_of(self, level: Tensor) -> Tensor:
        return level


class VarianceExploding(Schedule):
    """scale = 1, sigma = sigma_min (sigma_max / sigma_min)^t for t from 0 to 1 (Song et al. 2021, equation 31)."""

    first, last = 0.0, 1.0

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        if not 0 < sigma_min < sigma_max < math.inf:
            raise ValueError(f"sigma_min = {sigma_min} should be positive and less than sigma_max = {sigma_max}")
        self.sigma_min, self.growth = sigma_min, math.log(sigma_max / sigma_min)

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma_min * (self.growth * t).exp()

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """sigma_t^2 - sigma_s^2 = sigma_s^2 (e^(2 growth (t - s)) - 1)."""
        return torch.ones_like(t), self.schedule(s)[1] * torch.expm1(2 * self.growth * (t - s)).sqrt()

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), 2 * self.growth * self.schedule(t)[1].square()

    def time_of(self, level: Tensor) -> Tensor:
        return (level / self.sigma_min).log() / self.growth


class Linear:
    """beta rises in a line from t = 0 to 1: B(t) = int_0^t beta = beta_min t + (beta_max - beta_min) t^2 / 2."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, first: float = 1e-3, last: float = 1.0):
        if not 0 < beta_min <= beta_max < math.inf:
            raise ValueError(f"beta_min = {beta_min} should be positive and no more than beta_max = {beta_max}")
        self.beta_min, self.slope = beta_min, beta_max - beta_min
        self.first, self.last = _ends(first, last)

    def between(self, s: Tensor | float, t: Tensor) -> Tensor:
        """int_s^t beta."""
        return (t - s) * (self.beta_min + self.slope * (s + t) / 2)

    def rate(self, t: Tensor) -> Tensor:
        return self.beta_min + self.slope * t

    def time_of(self, total: Tensor) -> Tensor:
        """t with B(t) = total."""
        return 2 * total / (self.beta_min + (self.beta_min**2 + 2 * self.slope * total).sqrt())


class Steps:
    """beta_1, ..., beta_T of a chain x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) e, at times that count its steps.

    Between two whole times B is a line, so that the chain is a diffusion looked at now and then.
    """

    first = 1.0

    def __init__(self, betas: Tensor):
        if betas.dim() != 1 or len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
            raise ValueError(f"betas should be two or more numbers in (0, 1), not of shape {tuple(betas.shape)}")
        self.betas, self.last = betas, float(len(betas))
        self.total = torch.cat([betas.new_zeros(1), -torch.log1p(-betas)]).cumsum(0)  # (T + 1,)

    def between(self, s: Tensor | float, t: Tensor) -> Tensor:
        return self._upto(t) - self._upto(torch.as_tensor(s).to(t))

    def rate(self, t: Tensor) -> Tensor:
        """Of the step that t is in, or ends."""
        step, total = t.ceil().long().clamp(1, len(self.betas)), self.total.to(t.device)
        return (total[step] - total[step - 1]).to(t.dtype)

    def time_of(self, total: Tensor) -> Tensor:
        table = self.total.to(total.device)
        step = torch.searchsorted(table, total.to(table)).clamp(1, len(self.betas))
        low, high = table[step - 1], table[step]
        return (step - 1 + (total - low) / (high - low)).to(total.dtype)

    def _upto(self, t: Tensor) -> Tensor:
        step = t.floor().long()
        if t.numel() and not 0 <= int(step.min()) <= int(step.max()) <= len(self.betas):
            raise ValueError(
                f"times should be from 0 to {len(self.betas)}, not from {float(t.min())} to {float(t.max())}"
            )
        total = self.total.to(t.device)
        low, high = total[step], total[(step + 1).clamp(max=len(self.betas))]
        return low.to(t.dtype) + (t - step) * (high - low).to(t.dtype)


class VariancePreserving(Schedule):
    """scale^2 = e^-B, sigma^2 = 1 - e^-B: data of variance 1 keep it. With `Steps` this is the chain of DDPM."""

    def __init__(self, clock: Linear | Steps | None = None):
        self.clock = clock or Linear()
        self.first, self.last = self.clock.first, self.clock.last

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.transition(torch.zeros_like(t), t)

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        total = self.clock.between(s, t)
        return (-total / 2).exp(), (-torch.expm1(-total)).sqrt()

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        beta = self.clock.rate(t)
        return -beta / 2, beta

    def time_of(self, level: Tensor) -> Tensor:
        """level^2 = e^B - 1."""
        return self.clock.time_of(torch.log1p(level.square()))


class SubVP(VariancePreserving):
    """scale^2 = e^-B, sigma = 1 - e^-B, less noise than that of VP (Song et al. 2021, appendix B)."""

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        total = self.clock.between(0.0, t)
        return (-total / 2).exp(), -torch.expm1(-total)

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - e^-B_t)^2 - e^-B_st (1 - e^-B_s)^2 = (1 - e^-B_st) (1 - e^-(B_s + B_t))."""
        passed, both = self.clock.between(s, t), self.clock.between(0.0, s) + self.clock.between(0.0, t)
        return (-passed / 2).exp(), (torch.expm1(-passed) * torch.expm1(-both)).sqrt()

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        beta = self.clock.rate(t)
        return -beta / 2, -beta * torch.expm1(-2 * self.clock.between(0.0, t))

    def time_of(self, level: Tensor) -> Tensor:
        """level = (1 - e^-B) e^(B/2) = 2 sinh(B / 2)."""
        return self.clock.time_of(2 * torch.asinh(level / 2))


def linear_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """Those of Ho et al. 2020."""
    return torch.linspace(first, last, steps, dtype=torch.float64)


def cosine_betas(steps: int = 1000, offset: float = 0.008, most: float = 0.999) -> Tensor:
    """scale^2(t) ~ cos^2 of a quarter turn (Nichol & Dhariwal 2021, arxiv.org/abs/2102.09672)."""
    turn = (torch.arange(steps + 1, dtype=torch.float64) / steps + offset) / (1 + offset) * math.pi / 2
    kept = turn.cos().square()
    return (1 - kept[1:] / kept[:-1]).clamp(max=most)


def _ends(first: float, last: float) -> tuple[float, float]:
    if not 0 < first < last < math.inf:
        raise ValueError(f"first = {first} should be positive, and less than last = {last}")
    return float(first), float(last)
