r"""Models that only draw, beside the data that they are to imitate: sequential two-sample tests.

For a bounded f that is fixed before a draw x and an event y of the data are seen, f(x) - f(y) has mean zero when both
have one law, so that it is evidence at every stopping time, whatever f was learnt from. A model says by `data()` what
it is to imitate: another model, or events that it was not trained on. See `implicit_data` for what is assumed of those.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness import features
from harness.checks.each import for_each
from harness.checks.given import slices
from harness.checks.implicit_data import difference, events, fresh, imitated, of_data
from harness.checks.implicit_memory import not_memorised, not_repeated
from harness.checks.implicit_modes import modes_covered
from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.pairing import keys
from harness.checks.surface import broken
from harness.draws import Draws
from harness.evidence import Exact
from harness.statistics.bernstein import BoundedMean
from harness.statistics.two_sample import ClassifierBets
from harness.subject import Subject

WELL, GAUSSIAN = "implicit.data_well_formed", "implicit.gaussian_w2"
RADII = (0.05, 0.25, 0.5, 0.75, 0.95)
COSINES, WATCHED = 128, 64


@exact(WELL, needs=("sample", "data"))
def data_well_formed(subject: Subject) -> Exact:
    """data() can be drawn from, or is a table of events of the model's shape of which none was trained on.

    Of a law, equal generator states give equal events. Rows of continuous events that the model was trained on are no
    news to it: a comparison with them praises copies. Discrete events may be equal by right.
    """
    data, problems = imitated(subject), []
    if data.law is not None:
        x, y = (data.law.sample(64, generator=subject.generator("data", "twice")) for _ in range(2))
        problems += [] if torch.equal(x, y) else ["two draws of data() from one generator state differ"]
    elif subject.model.can("training_data") and not bool(subject.profile.chart.discrete.any()):
        known = events(subject, subject.model.training_data(), "training_data()")
        rows = torch.cat([data.steer, data.table])
        twice = int(torch.isin(keys(rows.double()), keys(known.double())).sum())
        problems += [f"{twice} of {len(rows)} rows of data() are in training_data()"] if twice else []
    return broken(problems, len(data.steer) + len(data.table))


@exact(
    GAUSSIAN,
    needs=("sample", "data", "mean", "covariance"),
    blocked_by=(WELL,),
    unit="sd of the data",
    source="Gelbrich 1990, https://doi.org/10.1002/mana.19901470121; Powers & Stormer 1970, "
    "https://doi.org/10.1007/BF01645492",
)
def gaussian_w2(subject: Subject) -> Exact:
    r"""|m - m'|^2 + tr(S + S' - 2 (S^1/2 S' S^1/2)^1/2) = 0 for the means and covariances of the model and its data.

    The square of the Wasserstein distance W2 between Gaussians that have these, and never more than that between the
    laws themselves. So a linear generator of Gaussian noise is right for Gaussian data if and only if it is 0. Divided
    by tr S'. Where S and S' differ by rounding alone, it is at most the trace norm of what they differ by.
    """
    data = imitated(subject).law
    if data is None or not data.can("mean", "covariance"):
        raise NotApplicable("data() is no law that states its mean and covariance")
    said = [(each.mean().detach(), each.covariance().detach()) for each in (subject.model, data)]
    eps = max(torch.finfo(part.dtype).eps for each in said for part in each)
    (m, s), (other_m, other_s) = ((mean.double().flatten(), cov.double()) for mean, cov in said)
    if s.shape != other_s.shape or m.shape != other_m.shape or s.shape != (len(m), len(m)):
        raise ValueError(f"covariance() is {tuple(s.shape)}, that of data() {tuple(other_s.shape)}")
    scale = float(other_s.trace()) or 1.0
    distance = math.sqrt(abs(gaussian_w2_squared(m, s, other_m, other_s)) / scale)
    largest = float(torch.maximum(m.abs(), other_m.abs()).max())
    allowed = math.sqrt(16 * eps * len(m) + len(m) * (16 * eps * largest) ** 2 / scale)
    return Exact(distance, allowed, n=2 * (len(m) + s.numel()), unit="sd of the data")


def gaussian_w2_squared(m: Tensor, s: Tensor, other_m: Tensor, other_s: Tensor) -> float:
    """W2^2 between N(m, s) and N(m', s'), for means (d,) and covariances (d, d) that may be singular."""
    cross = torch.linalg.svdvals(_root(other_s) @ _root(s)).sum()  # tr (S^1/2 S' S^1/2)^1/2
    return float((m - other_m).square().sum() + s.trace() + other_s.trace() - 2 * cross)


def _root(s: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(s)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def _start_means(subject: Subject) -> BoundedMean:
    return of_data(subject, BoundedMean(-1.5, 1.5))  # differences of columns in [-1/2, 1]


def _mean_labels(subject: Subject) -> list[str]:
    rows = imitated(subject).rows
    named = [*features.coordinate_labels(subject), *(f"radius at its {level:.0%} level" for level in RADII)]
    return [f"{name}{rows}" for name in named]


@statistical(
    "implicit.agrees_with_data",
    needs=("sample", "data"),
    blocked_by=(WELL, GAUSSIAN, "sample.finite"),
    start=_start_means,
    labels=_mean_labels,
    unit="probability",
    source="Shekhar & Ramdas 2023, https://arxiv.org/abs/2112.09162",
)
def agrees_with_data(draws: Draws) -> Tensor:
    """E f(x) = E f(y) for draws x and events y of the data: f are location, scale, tails and values of coordinates.

    And the radius of the whole event. Draws of the data's law have the same mean of everything.
    """
    subject = draws.subject
    radii = subject.once("radii of the data", lambda: _radii(subject))

    def columns(seen: Tensor) -> Tensor:
        whole = _radius(subject, seen)[:, None] > radii
        return torch.cat([features.coordinate_columns(subject, subject.profile.chart.coordinates(seen)), whole], 1)

    return difference(draws, columns)


def _radius(subject: Subject, seen: Tensor) -> Tensor:
    return imitated(subject).chart.coordinates(seen).square().sum(1)


def _radii(subject: Subject) -> Tensor:
    levels = torch.tensor(RADII, dtype=torch.float64, device=subject.model.device)
    return torch.quantile(_radius(subject, imitated(subject).steer), levels)


class _Earnings(ClassifierBets):
    """Bets whose mean payoff is of second order in the difference, and is to be below the tolerance's square."""

    def __init__(self, subject: Subject):
        super().__init__()
        of_data(subject, self)
        self.strictness = 1 / subject.effort.tolerance


@statistical(
    "implicit.adversary",
    needs=("sample", "data"),
    blocked_by=(WELL, GAUSSIAN, "sample.finite"),
    start=lambda subject: _Earnings(subject),
    unit="of a classifier's stakes",
    source="Lopez-Paz & Oquab 2017, https://arxiv.org/abs/1610.06545; Pandeva et al. 2024, "
    "https://arxiv.org/abs/2210.13027",
)
def adversary(draws: Draws) -> Tensor:
    r"""E tanh(w . (f(x) - f(y)) / 2) = 0 for a draw x and an event y of the data, with w learnt from earlier pairs.

    Swapping x and y changes the sign, and nothing else when both have one law. f are coordinates, squares and random
    cosines of the whole event, from which w is fitted to tell draws from data. It finds what no single coordinate
    shows. One that is off by T standard deviations earns T^2 / 2, so that a PASS excludes the square of the tolerance.
    """
    subject = draws.subject
    y, group = fresh(draws), imitated(subject).group
    if not len(y):
        return _witnessed(subject, draws.x[:1])[:0]
    return _witnessed(subject, draws.x[: len(y) * group : group]) - _witnessed(subject, y)


def _witnessed(subject: Subject, seen: Tensor) -> Tensor:
    """(n, k): bounded features of standard coordinates."""
    z = imitated(subject).chart.coordinates(seen).nan_to_num(0.0).clamp(-1e3, 1e3)
    watched, frequencies, phases = subject.once("what the classifier sees", lambda: _lens(subject))
    square = z[:, watched].square()
    cosines = torch.cos(z.clamp(-30, 30) @ frequencies + phases)
    return torch.cat([torch.tanh(z[:, watched]), square / (1 + square), cosines], 1)


def _lens(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates that are watched, and frequencies (d, k) and phases (k,) of cosines, of several widths."""
    d, source = imitated(subject).chart.size, subject.generator("classifier")
    watched = torch.randperm(d, generator=source, device=source.device)[:WATCHED].sort().values
    normal = torch.randn(d, min(COSINES, 8 * d), generator=source, device=source.device, dtype=torch.float64)
    width, phases = torch.rand(2, normal.shape[1], generator=source, device=source.device, dtype=torch.float64)
    return watched, normal * 2 * width / d**0.5, 2 * math.pi * phases


agrees_given = for_each(
    agrees_with_data,
    slices,
    id="implicit.agrees_given",
    says=f"For each y: {agrees_with_data.law}",
    why="The draws given y are to imitate the data given y, where data() has a law given y.",
    needs=("sample_given", "data"),
    blocked_by=(WELL,),
)


CHECKS: tuple[Check, ...] = (
    data_well_formed,
    gaussian_w2,
    modes_covered,
    agrees_with_data,
    not_memorised,
    not_repeated,
    adversary,
    agrees_given,
)
