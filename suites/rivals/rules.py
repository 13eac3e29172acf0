"""The rules that others use. Each looks at n draws once and raises an alarm or not, at a nominal level of 0.001.

A rule over several margins shares its level among them (Bonferroni). Those with "5 standard errors" state their level
by the Gaussian tail: 5.7e-7 a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from scipy import stats
from torch import Tensor

from harness.model import Model
from suites.rivals.binned import OURS, Binned, RefusedError, binned
from suites.rivals.truth import Margins, Table, covariance_of, margins_of

LEVEL = 1e-3
STANDARD_ERRORS = 5.0
PERMUTATIONS = 999


@dataclass(frozen=True)
class Exhibit:
    """What a rule is shown: a model that may have a planted bug, the correct one, and n draws of the first."""

    model: Model
    correct: Model
    x: Tensor  # (n, d)
    source: torch.Generator

    @cached_property
    def margins(self) -> Margins:
        """The exact margins of the correct model."""
        return margins_of(self.correct.target)


@dataclass(frozen=True)
class Rule:
    """One rule. `looks_at` are the methods of the model that it calls: a bug in any other is hidden from it."""

    name: str
    title: str
    who: str
    looks_at: tuple[str, ...]
    sizes: Callable[[str, int], tuple[int, ...]]  # kind of events, dimension -> numbers of draws
    alarm: Callable[[Exhibit], bool]
    nominal: Callable[[int], float] = lambda d: LEVEL
    dear: Callable[[str, int], bool] = lambda kind, d: False  # for which kind of events and dimension a seed is dear


def alarms(rule: Rule, exhibit: Exhibit) -> bool:
    """The rule's answer. RefusedError when it says that it cannot be used."""
    return bool(rule.alarm(exhibit))


# --------------------------------------------------------------------------------- against the stated margins


def _kolmogorov(exhibit: Exhibit) -> bool:
    """scipy's kstest on each margin. All have the same n, so the least p-value is that of the largest distance.

    For continuous models: it takes the steps of a discrete distribution function for distances, and always rejects.
    """
    n, d = exhibit.x.shape
    at = exhibit.margins.cdf(
        exhibit.x.T.contiguous().sort(1).values.T
    ).T.double()  # (d, n), a margin at a time in memory
    rank = torch.arange(1, n + 1, dtype=torch.float64) / n
    distance = max(float(torch.maximum(rank - row, row - rank + 1 / n).amax()) for row in at)
    return bool(stats.kstwo.sf(distance, n) < LEVEL / d)


def _chi_square(exhibit: Exhibit) -> bool:
    """Pearson's chi-square on each margin of a discrete model; cells of fewer than 5 expected draws are joined."""
    margins, n = _table(exhibit), len(exhibit.x)
    group = _pooled(n * margins.masses)
    expected = torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add_(0, group, n * margins.masses)
    values = exhibit.x.long()
    if bool(((values < 0) | (values >= len(margins.masses))).any()):
        return True  # an impossible value
    observed = [torch.bincount(group[column], minlength=len(expected)).numpy() for column in values.T]
    return bool(min(stats.chisquare(o, expected.numpy()).pvalue for o in observed) < LEVEL / margins.d)


def _pooled(expected: Tensor) -> Tensor:
    """(values,): the cell of each value, such that every cell has at least 5 expected draws."""
    cell, held, cells = 0, 0.0, []
    for mass in expected.tolist():
        cells.append(cell)
        held += mass
        if held >= 5:
            cell, held = cell + 1, 0.0
    last = cell if held >= 5 else cell - 1
    return torch.tensor(cells).clamp(max=last)


def _moments(exhibit: Exhibit) -> bool:
    """Means and variances within 5 standard errors of the true ones, the standard errors taken from the draws."""
    x, n = exhibit.x.double(), len(exhibit.x)
    mean, variance = exhibit.margins.mean(), exhibit.margins.variance()
    centred = x - x.mean(0)
    seen = centred.square().mean(0)
    error = (seen / n).sqrt(), (centred.square().square().mean(0) - seen.square()).clamp(min=0).div(n).sqrt()
    gaps = (x.mean(0) - mean).abs(), (seen - variance).abs()
    return not all(bool((gap <= STANDARD_ERRORS * se).all()) for gap, se in zip(gaps, error, strict=True))


def _covariances(exhibit: Exhibit) -> bool:
    """As `_moments`, and the covariance of every pair."""
    if _moments(exhibit):
        return True
    n = len(exhibit.x)
    centred = exhibit.x.double() - exhibit.margins.mean()
    products = centred.T @ centred / n
    error = ((centred.square().T @ centred.square() / n - products.square()).clamp(min=0) / n).sqrt()
    gap = (products - covariance_of(exhibit.correct.target)).abs()
    pairs = ~torch.eye(len(gap), dtype=torch.bool)
    return not bool((gap <= STANDARD_ERRORS * error)[pairs].all())


def _entropy(exhibit: Exhibit) -> bool:
    """The mean of -log p at the draws within 5 standard errors of the stated entropy."""
    if not exhibit.model.can("entropy"):
        raise RefusedError("the model states no entropy")
    surprise = -exhibit.model.log_prob(exhibit.x).double()
    error = STANDARD_ERRORS * float(surprise.std()) / math.sqrt(len(surprise))
    return not abs(float(surprise.mean()) - float(exhibit.model.entropy())) <= error


def _gaussian_level(comparisons: Callable[[int], int]) -> Callable[[int], float]:
    return lambda d: min(1.0, 2 * float(stats.norm.sf(STANDARD_ERRORS)) * comparisons(d))


# -------------------------------------------------------------------------------------- Pyro's goodness of fit


def _binned(exhibit: Exhibit, by: Binned) -> bool:
    """`auto_goodness_of_fit` of continuous draws and their densities: gaps in one dimension, neighbours in several."""
    if isinstance(exhibit.margins, Table):
        return _binned_counts(exhibit, by)
    density = exhibit.model.log_prob(exhibit.x).double().exp()
    if exhibit.x.shape[1] == 1:
        return by.one_dimension(exhibit.x[:, 0].double(), density) < LEVEL
    return by.several_dimensions(exhibit.x, density) < LEVEL


def _binned_margins(exhibit: Exhibit, by: Binned) -> bool:
    """The rule for one dimension on each margin, with the exact density of the margin."""
    if isinstance(exhibit.margins, Table):
        return _binned_counts(exhibit, by)
    density, x = exhibit.margins.density(exhibit.x), exhibit.x.double()
    least = min(by.one_dimension(a, p) for a, p in zip(x.T, density.T, strict=True))
    return least < LEVEL / len(density.T)


def _binned_counts(exhibit: Exhibit, by: Binned) -> bool:
    """The rule for counts on each margin of a discrete model; cells that it refuses are left out, as it allows.

    One coordinate's masses are the model's own, those of a margin of several are the exact ones.
    """
    margins, n = _table(exhibit), len(exhibit.x)
    masses = margins.masses
    if margins.d == 1:
        masses = exhibit.model.log_prob(torch.arange(len(masses))[:, None]).double().exp()
    kept = n * masses * (1 - masses) > 1
    total = None if bool(kept.all()) else n
    values = exhibit.x.long().clamp(0, len(kept) - 1)
    counts = [torch.bincount(column, minlength=len(kept))[kept].double() for column in values.T]
    return min(by.multinomial(masses[kept], each, total) for each in counts) < LEVEL / margins.d


# ------------------------------------------------------------------ two samples: the model's and a correct one's


def _two_sample_kolmogorov(exhibit: Exhibit) -> bool:
    """scipy's ks_2samp on each margin against as many draws of the correct sampler."""
    y = exhibit.correct.sample(len(exhibit.x), generator=exhibit.source)
    pairs = zip(exhibit.x.T.numpy(), y.T.numpy(), strict=True)
    return bool(min(stats.ks_2samp(a, b, method="asymp").pvalue for a, b in pairs) < LEVEL / y.shape[1])


def _energy(exhibit: Exhibit) -> bool:
    """Energy distance to as many draws of the correct sampler, with a permutation test (Szekely & Rizzo 2004).

    With signs s_i = +-1 for the two samples, the energy distance is -s' D s / n^2 for the matrix D of distances.
    """
    y = exhibit.correct.sample(len(exhibit.x), generator=exhibit.source)
    n = len(y)
    both = torch.cat([exhibit.x, y]).float()
    distances = torch.cdist(both, both)
    order = torch.rand(PERMUTATIONS, 2 * n, generator=exhibit.source).argsort(1)
    order = torch.cat([torch.arange(2 * n)[None], order])
    signs = torch.where(order < n, 1.0, -1.0)  # (1 + permutations, 2n), the first as drawn
    energy = -((signs @ distances).double() * signs).sum(1)
    return bool((energy >= energy[0]).double().mean() <= LEVEL)


def _table(exhibit: Exhibit) -> Table:
    if not isinstance(exhibit.margins, Table):
        raise RefusedError("for discrete models only")
    return exhibit.margins


def _usual(kind: str, d: int) -> tuple[int, ...]:
    """What people draw; for many dimensions the larger number is kept to what runs in minutes."""
    return (10_000, 100_000) if d <= 10 else (10_000, 30_000)


def _binned_sizes(kind: str, d: int) -> tuple[int, ...]:
    """In several continuous dimensions it asks for more than 1000 draws each: one more, up to 10 dimensions.

    For 50 dimensions that would be minutes a seed, so it is asked at 10,000, and refuses.
    """
    return _usual(kind, d) if kind == "discrete" or d == 1 else (10_001,)


def _binned_margin_sizes(kind: str, d: int) -> tuple[int, ...]:
    """Where it differs from the rule itself: several continuous dimensions."""
    if kind == "discrete" or d == 1:
        return ()
    return _usual(kind, d) if d <= 10 else (10_000,)


def rules() -> tuple[Rule, ...]:
    """Every rule, with who computes it."""
    from importlib.metadata import version

    scipy = f"scipy {version('scipy')}"
    pairs = _gaussian_level(lambda d: 2 * d + d * (d - 1) // 2)
    means, one, usual = _gaussian_level(lambda d: 2 * d), _gaussian_level(lambda d: 1), ("sample",)
    return (
        Rule("ks", "KS test on margins", scipy, usual, _continuous_only, _kolmogorov),
        Rule("chi_square", "chi-square on margins", scipy, usual, _discrete_only, _chi_square),
        Rule("moments", "mean, variance within 5 se", "textbook", usual, _usual, _moments, means),
        Rule("covariances", "also covariances", "textbook", usual, _several_only, _covariances, pairs),
        Rule("entropy", "entropy within 5 se", "textbook", ("sample", "log_prob", "entropy"), _usual, _entropy, one),
        *_binned_rules(),
        Rule(
            "ks_two_sample", "two-sample KS on margins", scipy, usual, lambda kind, d: (10_000,), _two_sample_kolmogorov
        ),
        Rule(
            "energy",
            "two-sample energy distance",
            "textbook",
            usual,
            lambda kind, d: (1_000,),
            _energy,
            dear=lambda kind, d: True,
        ),
    )


def _neighbours(kind: str, d: int) -> bool:
    """Does the binned rule look for nearest neighbours?"""
    return kind == "continuous" and d > 1


def _binned_rules() -> list[Rule]:
    """Pyro's own where it is installed, and the same rule with an exact tail of the chi-square law (see `binned`)."""
    told = []
    for by, name, title in ((binned(), "pyro", "Pyro's goodness of fit"), (OURS, "binned", "the same, exact tail")):
        if name == "binned" or by is not OURS:
            whole, margins = partial(_binned, by=by), partial(_binned_margins, by=by)
            looks_at = ("sample", "log_prob")
            told.append(Rule(name, title, by.who, looks_at, _binned_sizes, whole, dear=_neighbours))
            told.append(
                Rule(f"{name}_margins", f"{title}, on margins", by.who, ("sample",), _binned_margin_sizes, margins)
            )
    return told


def _continuous_only(kind: str, d: int) -> tuple[int, ...]:
    return _usual(kind, d) if kind == "continuous" else ()


def _discrete_only(kind: str, d: int) -> tuple[int, ...]:
    return _usual(kind, d) if kind == "discrete" else ()


def _several_only(kind: str, d: int) -> tuple[int, ...]:
    return _usual(kind, d) if d > 1 else ()


__all__ = ["LEVEL", "Exhibit", "RefusedError", "Rule", "alarms", "rules"]
