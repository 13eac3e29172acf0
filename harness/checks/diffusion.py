r"""Diffusions: kernels that compose, Bayes backwards, denoisers and scores of the noisy laws, orders of solvers.

x_t = scale(t) x_0 + sigma(t) e with standard normal e. Everything else that a diffusion says follows from that and from
the law of x_0, and so can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from harness.checks import diffusion_solver
from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.moments import PER_PROBABILITY
from harness.checks.noising import answers, dtype_of, finest, flat, grid, noisy, said, schedule, time_range, times
from harness.checks.pairing import chosen_coordinates
from harness.checks.precision import Watched
from harness.checks.rounding import ELEMENTARY, LAMBDA, SAFETY, compared
from harness.checks.surface import broken
from harness.draws import Draws
from harness.evidence import Exact
from harness.model import Model
from harness.statistics.asymptotic import AsymptoticMean
from harness.statistics.slack import NearlyZeroMean
from harness.subject import Subject

SOHL_DICKSTEIN = "Sohl-Dickstein et al. 2015, https://arxiv.org/abs/1503.03585"
HO = "Ho, Jain & Abbeel 2020, https://arxiv.org/abs/2006.11239, equation 7"
SONG = "Song et al. 2021, https://arxiv.org/abs/2011.13456"
EFRON = "Robbins 1956; Efron 2011, https://doi.org/10.1198/jasa.2011.tm11181"

MONOTONE = "diffusion.schedule_monotone"
COMPOSE = "diffusion.kernels_compose"

ROWS = 64
"""Noisy events at each time."""

CHAIN_LENGTH = 1000
"""Roundings of a schedule that is a product over the steps of a chain."""

ROUNDING = LAMBDA * (ELEMENTARY + CHAIN_LENGTH) ** 0.5 * torch.finfo(torch.float32).eps / 2
"""1.5e-5: what a schedule in float32 may be off by, beside E x_t^2 for data of variance 1. Also granted in float64, as
tables often are float32; 1 - scale^2 for sigma^2, say, errs by so much however small sigma is."""

FAINT = 0.02
"""The most that what is left of the data at the last time may move probabilities by, to be called noise."""

LEVELS = (0.25, 1.0, 4.0)
"""Noise beside the spread of the data, at which denoisers and scores are held against draws."""


@exact(MONOTONE, needs=("schedule", "time_range"), source=SOHL_DICKSTEIN)
def schedule_monotone(subject: Subject) -> Exact:
    """scale(t) >= 0 and sigma(t) >= 0 are finite, not both 0, and scale / sigma never rises; it falls in all.

    Adding noise adds no signal. From the first time to the last, at more than 250 times.
    """
    t = grid(subject)
    scale, sigma = schedule(subject.model, t)
    sound = scale.isfinite() & sigma.isfinite() & (scale >= 0) & (sigma >= 0) & (scale + sigma > 0)
    problems = [f"no scale and sigma at {int((~sound).sum())} of {len(t)} times"] if not bool(sound.all()) else []
    size = (scale[1:].square() + sigma[1:].square()) * ROUNDING
    rises = (scale[1:] * sigma[:-1] - scale[:-1] * sigma[1:]) > size
    if bool(rises.any()):
        at = int(rises.nonzero()[0])
        problems.append(f"scale / sigma rises between t = {float(t[at]):.4g} and {float(t[at + 1]):.4g}")
    if not bool(scale[-1] * sigma[0] < scale[0] * sigma[-1] - size[-1]):
        problems.append("scale / sigma is at the last time what it is at the first")
    return broken(problems, len(t))


@exact(COMPOSE, needs=("schedule", "time_range", "transition"), blocked_by=(MONOTONE,), source=SOHL_DICKSTEIN)
def kernels_compose(subject: Subject) -> Exact:
    """For s < t < u: r_su = r_tu r_st and sigma_su^2 = r_tu^2 sigma_st^2 + sigma_tu^2; and so from x_0 by the schedule.

    Independent noises add their variances (Chapman & Kolmogorov). At every triple of up to eleven times.
    """
    model = subject.model
    points = times(subject)
    if len(points) < 3:
        raise NotApplicable(f"a chain of {len(points)} times has no three of them")
    s, t, u = torch.combinations(points, 3).unbind(1)
    (scale_s, sigma_s), (scale_u, sigma_u) = schedule(model, s), schedule(model, u)
    (r_st, st), (r_tu, tu), (r_su, su) = (
        answers(model, "transition", *pair, count=2) for pair in ((s, t), (t, u), (s, u))
    )
    size = scale_u.square() + sigma_u.square()
    errors = {
        "r_tu r_st - r_su": (r_tu * r_st - r_su) / r_su.clamp(min=1),
        "sigma_su^2": (r_tu.square() * st.square() + tu.square() - su.square()) / size,
        "scale(u)": (r_su * scale_s - scale_u) / scale_s.clamp(min=1),
        "sigma(u)^2": (r_su.square() * sigma_s.square() + su.square() - sigma_u.square()) / size,
    }
    return _largest(errors, lambda i: f"s, t, u = {float(s[i]):.4g}, {float(t[i]):.4g}, {float(u[i]):.4g}")


@exact(
    "diffusion.backward_by_bayes",
    needs=("schedule", "time_range", "backward"),
    blocked_by=(MONOTONE, COMPOSE),
    source=HO,
)
def backward_by_bayes(subject: Subject) -> Exact:
    """q(x_s | x_t, x_0) q(x_t | x_0) = q(x_t | x_s) q(x_s | x_0), for N(a x_0 + b x_t, c^2 I) backward.

    Both are Gaussian laws of (x_s, x_t), and so the same if and only if a + b scale_t = scale_s,
    b sigma_t^2 = r sigma_s^2 with r = scale_t / scale_s, and b^2 sigma_t^2 + c^2 = sigma_s^2. At every pair of times.
    """
    model = subject.model
    s, t = torch.combinations(times(subject), 2).unbind(1)
    (scale_s, sigma_s), (scale_t, sigma_t) = schedule(model, s), schedule(model, t)
    a, b, c = answers(model, "backward", s, t, count=3)
    size_s, size_t = scale_s.square() + sigma_s.square(), scale_t.square() + sigma_t.square()
    mean = sigma_t.square() * (a + b * scale_t - scale_s)  # where sigma_t is small, so are its digits
    errors = {
        "mean": mean / (size_t * scale_s.clamp(min=1)),
        "covariance": (scale_s * b * sigma_t.square() - scale_t * sigma_s.square()) / (size_t * scale_s.clamp(min=1)),
        "variance": (b.square() * sigma_t.square() + c.square() - sigma_s.square()) / size_s,
    }
    return _largest(errors, lambda i: f"s, t = {float(s[i]):.4g}, {float(t[i]):.4g}")


def _largest(errors: dict[str, Tensor], place: Callable[[int], str]) -> Exact:
    """Evidence of the largest of named errors (n,)."""
    table = torch.stack([error.abs().nan_to_num(torch.inf) for error in errors.values()])
    worst = int(table.amax(1).argmax())
    at = int(table[worst].argmax())
    where = f"{list(errors)[worst]} at {place(at)}"
    return Exact(float(table[worst, at]), ROUNDING, table.shape[1], where, "of E x_t^2")


@exact(
    "diffusion.tweedie",
    needs=("schedule", "time_range", "denoise", "score_at"),
    blocked_by=(MONOTONE, COMPOSE),
    source=EFRON,
)
def tweedie(subject: Subject) -> Exact:
    """scale(t) denoise(x, t) = x + sigma(t)^2 score_at(x, t).

    By grad log p_t(x) = E[grad log p(x | x_0) | x] with p(x | x_0) = N(scale x_0, sigma^2 I). At noisy draws, in
    standard deviations of x_t. How far rounding takes both is measured by moving x by one unit in the last place; that
    of float32 is allowed even in float64, as parameters were rounded when they were made.
    """
    points = times(subject)
    x = subject.pilot[:ROWS]
    rows = x[:1]
    model, dtype = finest(subject, lambda model, kind: model.denoise(rows.to(kind), points[:1].to(kind)))
    errors, bounds, names = [], [], []
    for t in points:
        at = t.to(dtype).expand(len(x))
        x_t = noisy(subject, x.to(dtype), at, "tweedie", str(float(t)))
        error, bound = _tweedie_at(model, x_t, at)
        if error is not None:
            errors.append(error)
            bounds.append(bound)
            names.append(f"t = {float(t):.4g}")
    if not errors:
        raise NotApplicable("there is no noise at any time, and nothing to denoise")
    seen = compared(torch.stack(errors), torch.stack(bounds), subject.effort.tolerance)
    worst = int((torch.stack(errors) / torch.stack(bounds)).nan_to_num(torch.inf).argmax())
    return replace(seen, where=names[worst], unit="sd of x_t", n=len(errors) * len(x))


def _tweedie_at(model: Model, x: Tensor, t: Tensor) -> tuple[Tensor | None, Tensor]:
    """The largest error at events x (n, *event) of one time, and what rounding explains, in standard deviations."""
    scale, sigma = (part[0] for part in schedule(model, t[:1]))
    if not bool(sigma > 0):
        return None, sigma
    with Watched() as watched:
        clean, noise = _both(model, x, t, scale, sigma)
    moved_clean, moved_noise = _both(model, torch.nextafter(x, torch.full_like(x, torch.inf)), t, scale, sigma)
    wide = x.double()
    spread = wide.square().mean().sqrt()
    own = torch.finfo(x.dtype).eps / 2
    unit = max(torch.finfo(kind).eps / 2 for kind in {*watched.dtypes, x.dtype, torch.float32})
    size = clean.abs().max() + wide.abs().max() + noise.abs().max()
    amplified = ((moved_clean - clean).abs() + (moved_noise - noise).abs()).max() * unit / own
    bound = LAMBDA * (ELEMENTARY + x[0].numel()) ** 0.5 * unit * size + SAFETY * amplified
    error = (clean - wide - noise).abs().nan_to_num(torch.inf).max()
    return error / spread, bound.nan_to_num(0.0) / spread


def _both(model: Model, x: Tensor, t: Tensor, scale: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """scale D and sigma^2 score, in float64."""
    return scale * said(model, "denoise", x, t).double(), sigma.square() * said(model, "score_at", x, t).double()


# Laws of noisy draws


def _data(subject: Subject, n: int, *names: str | int) -> Tensor:
    """n draws of the law of x_0. Raises NotApplicable where that is a table of draws."""
    law = subject.model.data()
    if not isinstance(law, Model) or not law.can("sample"):
        raise NotApplicable("data() is no law that can be drawn from, and a denoiser is right for a law")
    with torch.no_grad():
        x = law.sample(n, generator=subject.generator("data", *names))
    if x.shape[1:] != subject.pilot.shape[1:]:
        raise ValueError(f"data() has events {tuple(x.shape[1:])}, and the model {tuple(subject.pilot.shape[1:])}")
    return x.to(dtype_of(subject))


def _watched(subject: Subject) -> list[float]:
    """Times at which the noise is a quarter of the spread of the data, as large, and four times as large."""

    def work() -> list[float]:
        candidates = grid(subject)
        scale, sigma = schedule(subject.model, candidates)
        spread = float(subject.profile.chart.scale.median())
        level = (sigma / scale).nan_to_num(torch.inf) / spread
        usable = (level > 0) & level.isfinite()
        if not bool(usable.any()):
            raise NotApplicable("there is no noise at any time")
        gap = [(level.log() - wanted).abs().where(usable, torch.inf) for wanted in torch.tensor(LEVELS).log().tolist()]
        return sorted({float(candidates[int(each.argmin())]) for each in gap})

    return subject.once("times at which draws are noisy", work)


def _start(subject: Subject, name: str) -> AsymptoticMean:
    subject.once(name, lambda: _raw(subject, name, len(subject.pilot), "pilot").std(0).clamp(min=1e-30))
    return AsymptoticMean(rarest=subject.effort.rarest)


def _numbers(draws: Draws, name: str) -> Tensor:
    """(n, times 2 k), in units of their standard deviations over other draws."""
    unit: Tensor = draws.subject.once(name, lambda: torch.ones(()))
    return _raw(draws.subject, name, draws.n, "draws", draws.index) / unit


def _raw(subject: Subject, name: str, n: int, *names: str | int) -> Tensor:
    x = _data(subject, n, *names)
    formula = {"denoise": _residuals, "score_at": _stein}[name]
    columns = []
    for t in _watched(subject):
        at = torch.full((n,), t, dtype=x.dtype, device=x.device)
        columns.append(formula(subject, x, noisy(subject, x, at, *names, str(t)), at))
    return torch.cat(columns, 1)


def _standardised(subject: Subject, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The watched coordinates of x_t less their centre, in standard deviations (n, k), and those deviations (k,)."""
    chart, watched = subject.profile.chart, chosen_coordinates(subject)
    scale, sigma = (part[0] for part in schedule(subject.model, t[:1]))
    spread = (scale * chart.scale[watched]).square().add(sigma.square()).sqrt()
    return (flat(x_t).double()[:, watched] - scale * chart.location[watched]) / spread, spread


def _residuals(subject: Subject, x: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """(n, 2 k): x_0 - D and (x_0 - D) tanh z."""
    z, _ = _standardised(subject, x_t, t)
    apart = flat(x - said(subject.model, "denoise", x_t, t)).double()[:, chosen_coordinates(subject)]
    return torch.cat([apart, apart * torch.tanh(z)], 1)


def _stein(subject: Subject, x: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """(n, 2 k): s and s f + f' for f = tanh z, in standard deviations of x_t."""
    z, spread = _standardised(subject, x_t, t)
    s = flat(said(subject.model, "score_at", x_t, t)).double()[:, chosen_coordinates(subject)] * spread
    f = torch.tanh(z)
    return torch.cat([s, s * f + 1 - f.square()], 1)


def _labels(subject: Subject, first: str, second: str) -> list[str]:
    watched = chosen_coordinates(subject).tolist()
    return [f"{text} {j} at t = {t:.4g}" for t in _watched(subject) for text in (first, second) for j in watched]


@statistical(
    "diffusion.denoiser_is_conditional_mean",
    needs=("schedule", "time_range", "denoise", "data"),
    blocked_by=(MONOTONE, COMPOSE, "diffusion.tweedie"),
    start=lambda subject: _start(subject, "denoise"),
    labels=lambda subject: _labels(subject, "x_0 - D of coordinate", "(x_0 - D) tanh z of coordinate"),
    tolerance=PER_PROBABILITY,
    share=0.5,
    asymptotic=True,
    unit="sd of the numbers",
    source=EFRON,
)
def denoiser_is_conditional_mean(draws: Draws) -> Tensor:
    """E[(x_0 - denoise(x_t, t)) f(x_t)] = 0 for x_0 from the data, f = 1 and f = tanh of a coordinate of x_t.

    What is left over of x_0 is orthogonal to every function of x_t. Where the noise is a quarter of the spread of the
    data, as large, and four times as large. It asks the denoiser of a law to be exact; one that was trained is nearly.
    """
    return _numbers(draws, "denoise")


@statistical(
    "diffusion.score_of_noisy_data",
    needs=("schedule", "time_range", "score_at", "data"),
    blocked_by=(MONOTONE, COMPOSE, "diffusion.tweedie", "diffusion.denoiser_is_conditional_mean"),
    start=lambda subject: _start(subject, "score_at"),
    labels=lambda subject: _labels(subject, "E s of coordinate", "E[s f + f'] of coordinate"),
    tolerance=PER_PROBABILITY,
    share=0.5,
    asymptotic=True,
    unit="sd of the numbers",
    source="Stein 1972; Hyvarinen 2005, https://jmlr.org/papers/v6/hyvarinen05a.html",
)
def score_of_noisy_data(draws: Draws) -> Tensor:
    """E[s_j] = 0 and E[s_j f + df/dx_j] = 0 over x_t with x_0 from the data, for s = score_at(x_t, t), f = tanh.

    Noise makes any law smooth, so that Stein's identity holds whatever the data are, with no edge of a support.
    """
    return _numbers(draws, "score_at")


def _start_end(subject: Subject) -> NearlyZeroMean:
    scale, sigma = _at_end(subject)
    ratio = scale / sigma
    x = flat(subject.pilot).double()
    size = float(x.abs().mean(0).max()), float(x.square().mean(0).max())
    # |E u(a + e) - E u(e)| <= |a| / sqrt(2 pi), and u sees another variance by half of it at most
    return NearlyZeroMean(-1.0, 1.0, min(FAINT, ratio * size[0] / 2 + ratio**2 * (1 + size[1]) / 2))


def _at_end(subject: Subject) -> tuple[float, float]:
    last = torch.tensor([time_range(subject.model)[1]], dtype=dtype_of(subject), device=subject.model.device)
    scale, sigma = (float(part[0]) for part in schedule(subject.model, last))
    return scale, sigma


@statistical(
    "diffusion.ends_in_noise",
    needs=("sample", "schedule", "time_range", "base"),
    blocked_by=(MONOTONE, "sample.finite"),
    start=_start_end,
    labels=lambda subject: [
        f"{text} {j}"
        for text in ("tanh of coordinate", "size of coordinate")
        for j in chosen_coordinates(subject).tolist()
    ],
    unit="probability",
    source=SONG,
)
def ends_in_noise(draws: Draws) -> Tensor:
    """E u(x_t) at the last time = E u(z) over draws z of the base, for functions u of a range of 1.

    The way back begins with pure noise, and is right if the way there ends with it. What is left of the data may move
    probabilities as far as scale x_0 / sigma does, and no further than 0.02.
    """
    subject = draws.subject
    last = torch.full((draws.n,), time_range(subject.model)[1], dtype=draws.x.dtype, device=draws.x.device)
    base = subject.model.base()
    if not isinstance(base, Model) or not base.can("sample"):
        raise NotApplicable("base() is no model that can be drawn from")
    z = base.sample(draws.n, generator=subject.generator("end", draws.index)).detach()
    if z.shape != draws.x.shape:
        raise ValueError(f"base() has events {tuple(z.shape[1:])}, and the model {tuple(draws.x.shape[1:])}")
    _, sigma = _at_end(subject)
    x_t = noisy(subject, draws.x, last, "end", draws.index)
    return _functions(subject, x_t / sigma) - _functions(subject, z / sigma)


def _functions(subject: Subject, z: Tensor) -> Tensor:
    """(n, 2 k) in [-1/2, 1/2]."""
    some = flat(z).double()[:, chosen_coordinates(subject)]
    return torch.cat([torch.tanh(some) / 2, some.square() / (1 + some.square()) - 0.5], 1)


CHECKS: tuple[Check, ...] = (
    schedule_monotone,
    kernels_compose,
    backward_by_bayes,
    tweedie,
    denoiser_is_conditional_mean,
    score_of_noisy_data,
    ends_in_noise,
    *diffusion_solver.CHECKS,
)
