"""Laws of the sampler against masses worked out from the density: counts in regions, and the transform by the cdf."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from harness.cells import FINE, neighbours, spacing, spread_out
from harness.checks.coarseness import require_resolution
from harness.checks.law import Check, NotApplicable, statistical
from harness.checks.oracle import flat_density, line_knots, typical_rounding
from harness.draws import Draws
from harness.evidence import Cell, Look
from harness.numerics.enumeration import enumerate_grid
from harness.numerics.quadrature import integrate
from harness.reference import codes
from harness.statistics import binomial
from harness.statistics.accumulator import Accumulator, log_mean_exp
from harness.statistics.band import UniformBand
from harness.statistics.carried import Quads, of_counts
from harness.statistics.categorical import CategoricalCounts
from harness.subject import Subject

REGIONS = 64
MOST_STATES = 4096
MOST_CELLS = 256


@dataclass(frozen=True)
class Partition:
    """Regions that cover all events, the mass of each under the density, and how wrong that mass may be."""

    masses: Float64[Tensor, " cells"]  # sums to 1
    uncertainty: Float64[Tensor, " cells"]
    index: Callable[[Draws], Int[Tensor, " n"]]  # cell of each draw
    labels: list[str]


def partition(subject: Subject) -> Partition:
    """Intervals between pilot quantiles in one dimension, single states of a small discrete support."""
    profile = subject.profile
    if profile.kind == "discrete":
        return subject.once("partition", lambda: _states(subject))
    if profile.kind == "continuous" and math.prod(profile.chart.event_shape) == 1:
        return subject.once("partition", lambda: _intervals(subject))
    raise NotApplicable("masses of regions are worked out for one continuous dimension, or a small discrete support")


def _intervals(subject: Subject) -> Partition:
    chart = subject.profile.chart
    flat = subject.pilot.reshape(-1).double()
    levels = torch.arange(1, REGIONS, dtype=torch.float64, device=flat.device) / REGIONS
    knots = torch.quantile(flat[: 2**13], levels).unique()
    density = flat_density(subject.model, subject.pilot)

    def log_p(x: Tensor) -> Tensor:
        return density(x.reshape(-1, 1))

    cuts = torch.cat([knots.cpu(), line_knots(subject)]).unique()
    result = integrate(log_p, knots=cuts, dtype=chart.dtype, rtol=1e-8)
    if result.cells is None or result.edges is None or result.cell_error is None or not result.total > 0:
        raise NotApplicable(f"the masses of regions are not to be had: {result.message or 'no convergence'}")
    if not abs(result.total - 1) <= result.total_error + typical_rounding(subject):
        raise NotApplicable(f"the masses of regions add up to {result.total:.6g}")
    masses, error = result.cells[:, 0] / result.total, result.cell_error[:, 0] / result.total
    if not float(error.max()) < 1e-3:
        raise NotApplicable(f"the masses of regions are known to {float(error.max()):.1g} only")
    inner = result.edges[1:-1].to(flat.device)
    # An edge rounded to the dtype moves mass between neighbours: by less than one spacing's share of their mass.
    return Partition(
        masses / masses.sum(),
        error,
        lambda draws: torch.bucketize(draws.x.reshape(-1).double().contiguous(), inner, right=True),
        [f"({a:.4g}, {b:.4g})" for a, b in zip(result.edges[:-1].tolist(), result.edges[1:].tolist(), strict=True)],
    )


def _states(subject: Subject) -> Partition:
    profile = subject.profile
    alphabets = [alphabet for alphabet in profile.alphabets if alphabet is not None]
    sizes = [len(alphabet) for alphabet in alphabets]
    if math.prod(sizes) > MOST_STATES:
        raise NotApplicable("the support may have too many states to count one by one")
    states = torch.cat(list(enumerate_grid([alphabet.cpu() for alphabet in alphabets])))
    shaped = states.reshape(-1, *profile.chart.event_shape).to(profile.chart.dtype).to(subject.model.device)
    mass = flat_density(subject.model, subject.pilot)(states).exp()
    if not float(mass.sum()) < 1 + 1e-3:
        raise NotApplicable(f"the masses of the states add up to {float(mass.sum()):.6g}")
    kept = mass.argsort(descending=True)[:MOST_CELLS]
    kept = kept[mass[kept] > 1e-6].sort().values
    rest = (1 - mass[kept].sum()).clamp(min=0)
    cell = torch.full((len(mass),), len(kept))
    cell[kept] = torch.arange(len(kept))

    def index(draws: Draws) -> Tensor:
        place = torch.zeros(draws.n, dtype=torch.long, device=draws.z.device)
        inside = torch.ones(draws.n, dtype=torch.bool, device=draws.z.device)
        for j, size in enumerate(sizes):
            code, known = codes(profile, draws.z[:, j], j)
            place, inside = place * size + code, inside & known
        return torch.where(inside, cell.to(place.device)[place], len(kept))

    names = [", ".join(f"{value:g}" for value in state) for state in states[kept].tolist()]
    masses = torch.cat([mass[kept], rest[None]])
    # The rest is 1 minus a sum of as many rounded masses; log-masses near 0 are rounded to about one eps.
    doubt = float(torch.finfo(subject.model.log_prob(shaped[:1]).dtype).eps) * (2 + math.log(len(masses))) * 4
    return Partition(masses / masses.sum(), torch.full_like(masses, doubt), index, [*names, "any other event"])


def _counts(subject: Subject) -> Accumulator:
    found = partition(subject)
    intervals = subject.profile.kind == "continuous"
    return RegionCounts(found.masses, found.uncertainty, found.labels, intervals=intervals)


class RegionCounts(CategoricalCounts):
    """Counts of cells, and of the unions of the first k cells: a small drift through many cells shows in the unions."""

    def __init__(
        self,
        masses: Float64[Tensor, " cells"],
        uncertainty: Float64[Tensor, " cells"],
        labels: list[str],
        *,
        intervals: bool = False,
    ):
        super().__init__(masses, uncertainty)
        self.labels, self.intervals = labels, intervals
        self.union_masses = self.masses.cumsum(0)[:-1].clamp(max=1.0)
        self.union_uncertainty = self.uncertainty.cumsum(0)[:-1].clamp(max=1.0)

    def allowing(self, doubt: float) -> float:
        if self.n == 0:
            return 0.0
        errors = self.union_uncertainty + doubt
        unions = binomial.log_e_value(self.counts.cumsum(0)[:-1], self.n, self.union_masses, errors)
        return log_mean_exp(torch.tensor([super().allowing(doubt), log_mean_exp(unions)], dtype=torch.float64))

    def carried(self, doubt: float) -> Quads:
        """What later runs go on from: of each cell, or of all between two levels of the mass, then of their unions."""
        zero = torch.zeros(1, dtype=torch.float64)
        columns = self.counts, self.masses, self.uncertainty
        below = [torch.cat([zero, column.cumsum(0)[self._ends()]]) for column in columns]
        events, masses, errors = (torch.cat([each.diff(), each[1:-1]]) for each in below)
        return of_counts(events, self.n, masses.clamp(0, 1), errors + doubt)

    def _ends(self) -> Tensor:
        """The last cell of each part that later runs see again: other runs cut intervals at other places."""
        last = len(self.masses) - 1
        if not self.intervals or not last:
            return torch.arange(last + 1)
        levels = torch.arange(1, REGIONS, dtype=torch.float64) / REGIONS
        nearest = (self.union_masses[:, None] - levels).abs().argmin(0)
        return torch.cat([nearest, torch.tensor([last])])

    def look(self, confidence: float) -> Look:
        low, high = self._reach(confidence)
        return self._look_at(int(torch.argmax(torch.maximum(-low, high))), low, high)

    def suspect(self, confidence: float) -> Look:
        """The look at the region whose interval is furthest from 0 for its width."""
        low, high = self._reach(confidence)
        return self._look_at(int(torch.argmax(torch.maximum(low, -high) / (high - low))), low, high)

    def _reach(self, confidence: float) -> tuple[Tensor, Tensor]:
        """Intervals for share less mass, cells first and then unions."""
        masses = torch.cat([self.masses, self.union_masses])
        if self.n == 0:
            return -torch.ones_like(masses), torch.ones_like(masses)
        doubt = torch.cat([self.uncertainty, self.union_uncertainty])
        level = math.log(len(masses) / (1 - confidence))
        low, high = binomial.interval(self._all_counts(), self.n, masses, level)
        return low - masses - doubt, high - masses + doubt

    def _look_at(self, region: int, low: Tensor, high: Tensor) -> Look:
        mass = torch.cat([self.masses, self.union_masses])[region]
        estimate = float(self._all_counts()[region] / max(self.n, 1) - mass)
        return Look(self.n, estimate, float(low[region]), float(high[region]), self.log_e(), region)

    def _all_counts(self) -> Tensor:
        return torch.cat([self.counts, self.counts.cumsum(0)[:-1]])

    def cells(self) -> tuple[Cell, ...]:
        return tuple(replace(cell, label=label) for cell, label in zip(super().cells(), self.labels, strict=True))


def region_labels(subject: Subject) -> list[str]:
    """Names of the cells, then of their unions."""
    names = partition(subject).labels
    return names + [f"the events up to {name}" for name in names[:-1]]


@statistical(
    "sampler.region_masses",
    needs=("sample", "log_prob"),
    blocked_by=("density.integrates_to_one", "density.sums_to_one"),
    start=_counts,
    labels=region_labels,
    unit="probability",
    source="Lindon & Malek 2022, https://arxiv.org/abs/2011.03567",
)
def region_masses(draws: Draws) -> Int[Tensor, " n"]:
    r"""P(x in A) under the sampler is the integral of p over A, for every region A of a partition.

    Masses come from quadrature between pilot quantiles in one dimension, from enumeration for a small discrete
    support, and their numerical error widens the null hypothesis. A value that should be drawn and never is shows as
    an empty cell.
    """
    return partition(draws.subject).index(draws)


def _band(subject: Subject) -> Accumulator:
    require_resolution(subject)
    return UniformBand()


def _cdf(draws: Draws) -> Tensor:
    """(n,): F at the draws; of a coarse dtype at a random place of their cells, by the line from the inner neighbour.

    Beyond 0 and 1 the place is reflected: the last event of a support has half a cell.
    """
    subject, x = draws.subject, draws.x
    stated = subject.model.cdf(x).reshape(-1)
    u = stated.to(torch.float64)
    if not spacing(subject) > FINE:
        return u
    source = subject.generator("cells of the transform", draws.index)
    below, above = neighbours(x)
    inner = torch.where(x > subject.pilot.median(), below, above)
    slope = (subject.model.cdf(inner).to(torch.float64).reshape(-1) - u) / (inner.double() - x.double()).reshape(-1)
    placed = u + slope * (spread_out(subject, x, source) - x.double()).reshape(-1)
    placed = placed + _rounded_away(subject, stated, source)
    return torch.where((u >= 0) & (u <= 1), 1 - (1 - placed.abs()).abs(), u)


def _rounded_away(subject: Subject, stated: Tensor, source: torch.Generator) -> Tensor:
    """(n,): a random part of the cell that a value (n,) of F was rounded to, where its dtype is coarse.

    Values a unit apart in the dtype of F may be those of many events, or of none, whatever F is before it is rounded.
    """
    step = torch.finfo(stated.dtype).eps if stated.is_floating_point() else 0.0
    if not step > FINE:
        return torch.zeros_like(stated, dtype=torch.float64)
    if step / 2 > subject.effort.tolerance / 4:
        raise NotApplicable(f"the distribution function is given to {step / 2:.2g} near 1, too coarse to be tested")
    below, above = neighbours(stated)
    v = torch.rand(len(stated), generator=source, dtype=torch.float64, device=stated.device) - 0.5
    return v * (above.double() - below.double()) / 2


@statistical(
    "sampler.pit_uniform",
    needs=("sample", "cdf"),
    blocked_by=("information.cdf", "information.cdf_is_monotone"),
    start=_band,
    unit="probability",
    source="Rosenblatt 1952; Czado, Gneiting & Held 2009, https://doi.org/10.1111/j.1541-0420.2009.01191.x",
)
def pit_uniform(draws: Draws) -> Float64[Tensor, " n"]:
    r"""u = F(x) is uniform on (0, 1) when x is drawn from F; for a discrete law u = F(x) - v p(x) with v uniform.

    The probability integral transform, randomised over the jumps of a discrete distribution function, and between
    neighbours where the dtype is coarse.
    """
    subject = draws.subject
    u = _cdf(draws)
    if subject.profile.kind == "discrete":
        if not subject.model.can("log_prob"):
            raise NotApplicable("a discrete law needs log_prob to randomise its transform")
        v = torch.rand(len(u), generator=subject.generator("transform", draws.index), dtype=u.dtype, device=u.device)
        u = u - v * draws.log_p.exp()
    rounding = torch.finfo(torch.float32).eps
    return torch.where((u > -rounding) & (u < 1 + rounding), u.clamp(0, 1), u)


CHECKS: tuple[Check, ...] = (region_masses, pit_uniform)
