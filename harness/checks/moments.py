"""Stated moments: mean, variance and covariance against the density, and against draws.

Both comparisons are made where both are possible, so that a wrong moment (both fail), a wrong density (one fails) and a
wrong sampler (the other fails) are told apart. Errors are in standard deviations: a shift of a Gaussian by d of them
changes probabilities by 0.4 d, which is why the tolerance on draws is 2.5 times the effort's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.oracle import compared, mass_of, moment_functions, oracle_of, rounding, roundoff
from harness.checks.tails import FINITE, integrated, reachable, tail_index, unreachable
from harness.draws import Draws
from harness.evidence import Exact
from harness.space import Charted
from harness.statistics.asymptotic import AsymptoticMean, Unseen
from harness.subject import Subject

MOST_PAIRS = 64
"""Pairs of coordinates whose covariance is compared with draws: those that the pilot draws find most suspect."""

MOST_EXACT = 8
"""Most coordinates of which all covariances are integrated."""

ORDERS = {"mean": 2, "variance": 4, "covariance": 4}
"""The moments that must be finite for an average of draws to settle what is stated."""

PER_PROBABILITY = 2.5
"""Standard deviations of a mean per unit of probability, at a Gaussian."""

KOLMOGOROV = "Kolmogorov 1933, Grundbegriffe der Wahrscheinlichkeitsrechnung, section IV.1"


@dataclass(frozen=True)
class Moments:
    """Mean (d,), covariance (d, d) and their error bounds, in the density's own units; infinite where not known."""

    mean: Tensor
    mean_error: Tensor
    covariance: Tensor
    covariance_error: Tensor
    points: int

    @property
    def sd(self) -> Tensor:
        """Standard deviations (d,)."""
        return self.covariance.diagonal().clamp(min=0).sqrt()


def moments_of(subject: Subject, crossed: bool = False) -> Moments:
    """Moments of the normalised density; `crossed` with the covariances between coordinates (else 0)."""
    return subject.once(f"moments {crossed}", lambda: _integrated(subject, crossed))


def _integrated(subject: Subject, crossed: bool) -> Moments:
    oracle = oracle_of(subject)
    d = len(oracle.centre)
    if isinstance(oracle.space, Charted):
        integral, crossed, first = mass_of(subject), True, 2
    else:
        integral, first = oracle.integral(*moment_functions(oracle, crossed)), 0
    pairs = [(i, j) for i in range(d) for j in range(i, d if crossed else i + 1)]
    value, error = (part[first:] for part in integral.expectations)
    mean, mean_error = value[:d], error[:d]
    second, second_error = torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for (i, j), v, e in zip(pairs, value[d:], error[d:], strict=True):
        second[i, j] = second[j, i] = v - mean[i] * mean[j]
        second_error[i, j] = second_error[j, i] = e + abs(mean[i]) * mean_error[j] + abs(mean[j]) * mean_error[i]
    area = oracle.scale[:, None] * oracle.scale
    return Moments(
        mean=oracle.centre + oracle.scale * mean,
        mean_error=oracle.scale * mean_error,
        covariance=area * second,
        covariance_error=_unknown_where_nan(area * second_error),
        points=integral.points,
    )


def stated(subject: Subject, name: str, shape: tuple[int, ...]) -> Tensor:
    """What the model states, flattened, in float64. Raises ValueError for a wrong shape."""
    value = subject.model.methods[name]()
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        seen = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        raise ValueError(f"{name}() has {seen}, not a tensor of shape {shape}")
    return value.detach().to("cpu", torch.float64)


def _event(subject: Subject) -> tuple[int, ...]:
    return tuple(subject.pilot.shape[1:])


def _precision(subject: Subject, name: str) -> float:
    return roundoff(subject.model.methods[name]())


def mismatch(said: Tensor, value: Tensor, error: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Deviation of stated numbers from the oracle's, and the oracle's uncertainty, both in `unit`s; elementwise.

    An infinite or undefined statement agrees with an oracle that finds no finite value, and with no other.
    """
    known = error.isfinite()
    gap = torch.where(known & said.isfinite(), (said - value).abs() / unit, torch.where(known, math.inf, 0.0))
    doubt = torch.where(known, error / unit, torch.where(said.isfinite(), math.inf, 0.0))
    return _unknown_where_nan(gap), doubt


def _unknown_where_nan(error: Tensor) -> Tensor:
    return torch.where(error.isnan(), math.inf, error)


def _worst(subject: Subject, gap: Tensor, doubt: Tensor, allowed: Tensor, points: int, name: str, unit: str) -> Exact:
    """Evidence of the coordinate whose deviation is largest beside what is allowed there."""
    room = torch.maximum(allowed, 2 * doubt.clamp(max=subject.effort.tolerance / 10))
    place = int(((gap + doubt) / room).flatten().argmax())
    pick = tuple(int(i) for i in numpy.unravel_index(place, tuple(gap.shape)))  # torch's would import sympy: 0.8 s
    where = f"{name}{list(pick) if len(gap.flatten()) > 1 else ''}"
    return compared(subject, float(gap[pick]), float(doubt[pick]), float(allowed[pick]), points, where, unit)


@exact("moments.mean_of_density", needs=("mean", "log_prob"), unit="sd", source=KOLMOGOROV)
def mean_of_density(subject: Subject) -> Exact:
    """mean() = E x = int x p(x) dx.

    By enumeration or quadrature of the density, normalised first, in units of its standard deviation. Where the
    integral does not converge, an infinite or undefined mean is right (Cauchy's), and a finite one is undecided.
    """
    said = _said(subject, "mean")
    found = moments_of(subject)
    sd = _unit(found, subject)
    gap, doubt = mismatch(said, found.mean, found.mean_error, sd)
    shifted = (1 + (said.abs() + _reach(subject)) / sd).nan_to_num(1.0, 1.0, 1.0)
    allowed = rounding(subject) + _precision(subject, "mean") * shifted
    return _worst(subject, gap, doubt, allowed, found.points, "mean", "sd")


def _said(subject: Subject, name: str) -> Tensor:
    """The stated moments (d,). Raises NotApplicable where labels are said to have none."""
    said = stated(subject, name, _event(subject)).flatten()
    if subject.profile.kind == "discrete" and bool(said.isnan().all()):
        raise NotApplicable(f"{name}() is NaN: the model says that its labels have none")
    return said


def _reach(subject: Subject) -> Tensor:
    """(d,): how far apart the values of a discrete coordinate lie, 0 for a continuous one.

    A probability that is rounded, or kept from being 0, by u moves a mean by up to u times that distance.
    """
    alphabets = subject.profile.alphabets
    if all(alphabet is None for alphabet in alphabets):
        return torch.zeros(subject.pilot[0].numel(), dtype=torch.float64)
    return torch.tensor([0.0 if a is None else float(a[-1] - a[0]) for a in alphabets], dtype=torch.float64)


def _unit(found: Moments, subject: Subject) -> Tensor:
    """Standard deviations where they are known and positive, else the spread of the pilot draws."""
    known = found.covariance_error.diagonal().isfinite() & (found.sd > 0)
    return torch.where(known, found.sd, oracle_of(subject).scale)


@exact("moments.variance_of_density", needs=("variance", "log_prob"), unit="of the variance", source=KOLMOGOROV)
def variance_of_density(subject: Subject) -> Exact:
    """variance() = E (x - E x)^2 = int (x - E x)^2 p(x) dx, for every coordinate.

    By enumeration or quadrature of the density, relative to the variance itself.
    """
    said = _said(subject, "variance")
    found = moments_of(subject)
    unit = _unit(found, subject).square()
    gap, doubt = mismatch(said, found.covariance.diagonal(), found.covariance_error.diagonal(), unit)
    steep = 1 + (found.mean / unit.sqrt()).square().clamp(max=2.0**20).nan_to_num(0.0)
    cancelling = torch.where(unit.sqrt() * 2**10 < found.mean.abs(), steep, 1.0)  # E x^2 - (E x)^2 in narrow numbers
    allowed = 8 * rounding(subject) + _precision(subject, "variance") * (cancelling + _reach(subject).square() / unit)
    return _worst(subject, gap, doubt, allowed, found.points, "variance", "of the variance")


@exact("moments.covariance_of_density", needs=("covariance", "log_prob"), unit="sd sd", source=KOLMOGOROV)
def covariance_of_density(subject: Subject) -> Exact:
    """covariance()[i, j] = E (x_i - E x_i)(x_j - E x_j).

    By enumeration or quadrature of the density, in units of sd_i sd_j, so that the error is that of a correlation.
    """
    d = subject.pilot[0].numel()
    if d > MOST_EXACT:
        raise NotApplicable(f"{d} coordinates are more than the {MOST_EXACT} whose covariances are integrated")
    found = moments_of(subject, crossed=True)
    said = stated(subject, "covariance", (d, d))
    sd = _unit(found, subject)
    gap, doubt = mismatch(said, found.covariance, found.covariance_error, sd[:, None] * sd)
    allowed = torch.full_like(gap, 8 * rounding(subject) + _precision(subject, "covariance"))
    return _worst(subject, gap, doubt, allowed, found.points, "covariance", "sd sd")


@exact("moments.covariance_is_coherent", needs=("covariance",), unit="of the variance")
def covariance_is_coherent(subject: Subject) -> Exact:
    """covariance() is symmetric and positive semidefinite, and its diagonal is variance().

    Var(a x) = a C a^T >= 0 for every direction a. In units of the standard deviations on the diagonal.
    """
    d = subject.pilot[0].numel()
    said = stated(subject, "covariance", (d, d))
    diagonal = said.diagonal()
    if not bool(said.isfinite().all()):
        raise NotApplicable("the stated covariance is not finite")
    sd = torch.where(diagonal > 0, diagonal, 1.0).sqrt()
    scaled = said / (sd[:, None] * sd)
    problems = {
        "asymmetry": float((scaled - scaled.T).abs().max()),
        "smallest eigenvalue": max(0.0, -float(torch.linalg.eigvalsh((scaled + scaled.T) / 2).min())),
        "negative variance": max(0.0, -float(diagonal.min())),
    }
    if subject.model.can("variance"):
        variance = stated(subject, "variance", _event(subject)).flatten()
        problems["diagonal less variance"] = float(((diagonal - variance) / sd.square()).abs().max())
    worst = max(problems, key=lambda key: problems[key] if problems[key] == problems[key] else math.inf)
    return Exact(problems[worst], d * _precision(subject, "covariance"), d * d, worst, "of the variance")


def _known(subject: Subject, name: str) -> Tensor:
    """(d,) bool: coordinates of which the model states a finite moment that draws can settle.

    Raises NotApplicable if there are none.
    """
    finite = finite_coordinates(subject, name)
    settled = finite & reachable(subject, ORDERS[name])
    if not bool(settled.any()):
        raise unreachable(subject, name, _instead(subject, name))
    return settled


def _instead(subject: Subject, name: str) -> str:
    """Where else a moment is examined that draws cannot settle."""
    if not integrated(subject):
        return "the bridge laws compare sampler and density, and nothing here the tail"
    exact = f"moments.{name}_of_density confirms or refutes it"
    return exact if name != "variance" else f"{exact}, and moments.clipped_variance_of_draws looks at all but the tail"


def finite_coordinates(subject: Subject, name: str) -> Tensor:
    """(d,) bool: coordinates of which the model states a finite moment. Raises NotApplicable if there are none."""
    finite = stated(subject, name, _event(subject)).flatten().isfinite()
    if name == "mean" and subject.model.can("variance"):
        finite &= stated(subject, "variance", _event(subject)).flatten() < math.inf
    if not bool(finite.any()):
        raise NotApplicable(f"the stated {name} is infinite or undefined, so that draws have no average")
    return finite


def _pilot_sd(subject: Subject) -> Tensor:
    def work() -> Tensor:
        flat = subject.pilot.reshape(len(subject.pilot), -1).to("cpu", torch.float64)
        sd = flat.std(0)
        return torch.where((sd > 0) & sd.isfinite(), sd, 1.0)

    return subject.once("sd of pilot draws", work)


def _flat(draws: Draws) -> Tensor:
    return draws.once("flat numbers", lambda: draws.x.reshape(draws.n, -1).to(torch.float64))


def _start_mean(subject: Subject) -> AsymptoticMean:
    subject.once("stated mean", lambda: _columns(subject, "mean"))
    return AsymptoticMean(rarest=subject.effort.rarest, unseen=_unseen_by_the_mean(subject))


def _unseen_by_the_mean(subject: Subject) -> Unseen:
    """|E (x - mean) 1_A| <= sqrt(P(A)) sd for an event A that was never drawn, with the sd that the model states."""
    known = _known(subject, "mean")
    if not subject.model.can("variance"):
        return _unseen_letters(_on_a_lattice(subject, known))
    sd = stated(subject, "variance", _event(subject)).flatten()[known].clamp(min=0).sqrt() / _pilot_sd(subject)[known]
    return lambda q, varies: math.sqrt(q) * sd


def _on_a_lattice(subject: Subject, known: Tensor) -> Tensor:
    """Which of the known coordinates (d,) are discrete; none where the chart has other coordinates, as on a simplex."""
    discrete = subject.profile.chart.discrete.cpu()
    return discrete[known] if len(discrete) == len(known) else torch.zeros(int(known.sum()), dtype=torch.bool)


def _unseen_letters(discrete: Tensor) -> Unseen:
    """Numbers (k,) bool that come from a lattice and were the same all the time: some other letter may be too rare to
    be seen, and as large as it has to be."""
    return lambda q, varies: torch.where(discrete & ~varies, math.inf, 0.0)


def _columns(subject: Subject, name: str) -> tuple[Tensor, Tensor]:
    """Which coordinates are compared, and the stated numbers of those, on the model's device."""
    known = _known(subject, name)
    device = subject.model.device
    return known.to(device), stated(subject, name, _event(subject)).flatten()[known].to(device)


def _names(subject: Subject, name: str) -> list[str]:
    return [f"{name} of coordinate {j}" for j in _known(subject, name).nonzero().flatten().tolist()]


@statistical(
    "moments.mean_of_draws",
    needs=("sample", "mean"),
    start=_start_mean,
    labels=lambda subject: _names(subject, "mean"),
    tolerance=PER_PROBABILITY,
    asymptotic=True,
    unit="sd",
    source="Waudby-Smith et al. 2024, https://arxiv.org/abs/2103.06476",
)
def mean_of_draws(draws: Draws) -> Tensor:
    """E (x - mean()) / sd = 0 over draws, for every coordinate of which a finite mean (and variance) is stated.

    By the central-limit theorem, hence asymptotic: a FAIL is confirmed on fresh draws. Heavy tails stay undecided, and
    so does a mean that rests on values too rare to be drawn (a bit of probability 1e-6).
    """
    known, mean = draws.subject.once("stated mean", lambda: _columns(draws.subject, "mean"))
    sd = _pilot_sd(draws.subject).to(known.device)
    return (_flat(draws)[:, known] - mean) / sd[known]


def _start_variance(subject: Subject) -> AsymptoticMean:
    subject.once("stated variance", lambda: _columns(subject, "variance"))
    discrete = _on_a_lattice(subject, _known(subject, "variance"))
    return AsymptoticMean(rarest=subject.effort.rarest, unseen=_unseen_letters(discrete))


@statistical(
    "moments.variance_of_draws",
    needs=("sample", "variance"),
    start=_start_variance,
    labels=lambda subject: _names(subject, "variance"),
    tolerance=2 * PER_PROBABILITY,
    asymptotic=True,
    unit="of the variance",
    source="Waudby-Smith et al. 2024, https://arxiv.org/abs/2103.06476",
)
def variance_of_draws(draws: Draws) -> Tensor:
    """E (x - x')^2 / 2 = variance() over pairs of independent draws, for every coordinate with a finite one.

    Pairs need no mean, so that a wrong mean is not blamed on the variance. The sd is off by half of what this bounds.
    """
    known, variance = draws.subject.once("stated variance", lambda: _columns(draws.subject, "variance"))
    x = _flat(draws)[:, known]
    half = len(x) // 2
    unit = torch.where(variance > 0, variance, 1.0)
    return ((x[:half] - x[half : 2 * half]).square() / 2 - variance) / unit


def _start_covariance(subject: Subject) -> AsymptoticMean:
    i, j, *_ = subject.once("stated covariance", lambda: _pairs(subject))
    discrete = subject.profile.chart.discrete.to(i.device)
    return AsymptoticMean(rarest=subject.effort.rarest, unseen=_unseen_letters((discrete[i] | discrete[j]).cpu()))


def _pairs(subject: Subject) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices i and j, stated covariances and sd_i sd_j of the pairs that the pilot draws find most suspect."""
    d = subject.pilot[0].numel()
    said = stated(subject, "covariance", (d, d))
    if d < 2:
        raise NotApplicable("a single number has no covariance with another; see moments.variance_of_draws")
    diagonal = said.diagonal()
    unit = torch.where(diagonal > 0, diagonal, 1.0).sqrt()
    flat = subject.pilot.reshape(len(subject.pilot), -1).to("cpu", torch.float64)
    gap = ((torch.cov(flat.T) - said) / (unit[:, None] * unit)).abs()
    i, j = torch.triu_indices(d, d, 1)
    finite = said[i, j].isfinite() & unit[i].isfinite() & unit[j].isfinite()
    if not bool(finite.any()):
        raise NotApplicable("the stated covariances are not finite")
    heavy = tail_index(subject) < FINITE * ORDERS["covariance"]
    finite &= ~(heavy[i] | heavy[j])
    if not bool(finite.any()):
        raise unreachable(subject, "covariance", _instead(subject, "covariance"))
    suspect = gap[i, j].nan_to_num(0.0).masked_fill(~finite, -1.0)
    order = suspect.argsort(descending=True)[: min(MOST_PAIRS, int(finite.sum()))]
    i, j = i[order], j[order]
    device = subject.model.device
    return i.to(device), j.to(device), said[i, j].to(device), (unit[i] * unit[j]).to(device)


def _pair_names(subject: Subject) -> list[str]:
    i, j, *_ = subject.once("stated covariance", lambda: _pairs(subject))
    return [f"covariance of coordinates {a} and {b}" for a, b in zip(i.tolist(), j.tolist(), strict=True)]


@statistical(
    "moments.covariance_of_draws",
    needs=("sample", "covariance"),
    start=_start_covariance,
    labels=_pair_names,
    tolerance=2 * PER_PROBABILITY,
    asymptotic=True,
    unit="sd sd",
    source="Waudby-Smith et al. 2024, https://arxiv.org/abs/2103.06476",
)
def covariance_of_draws(draws: Draws) -> Tensor:
    """E (x_i - x'_i)(x_j - x'_j) / 2 = covariance()[i, j] over pairs of independent draws.

    For the 64 pairs of coordinates in which pilot draws and statement differ most; fresh draws judge them.
    """
    i, j, covariance, unit = draws.subject.once("stated covariance", lambda: _pairs(draws.subject))
    x = _flat(draws)
    half = len(x) // 2
    gap = x[:half] - x[half : 2 * half]
    return (gap[:, i] * gap[:, j] / 2 - covariance) / unit


CHECKS: tuple[Check, ...] = (
    mean_of_density,
    variance_of_density,
    covariance_of_density,
    covariance_is_coherent,
    mean_of_draws,
    variance_of_draws,
    covariance_of_draws,
)
