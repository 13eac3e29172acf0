"""Expectations under the model's own density, exact up to a stated error: the oracle of the checks that need no draws.

Finite and countable supports are summed, up to three continuous dimensions are integrated, mixed events are integrated
value by value. Where none of that is feasible the checks that ask are NotApplicable, and those that use draws remain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from harness.chart import fit_chart
from harness.checks.law import NotApplicable
from harness.checks.precision import working_unit
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.model import Model
from harness.numerics import Function, Integral, LogDensity, surprisal
from harness.numerics.order import column_quantiles
from harness.peaks import peaks_of
from harness.space import Branches, Charted, Line, Space, States, quantiles
from harness.states import TooManyError, discrete_space, limits, must_be_asked, supported
from harness.subject import Subject

MAX_FREE = 3
MAX_BRANCHES = 64
OPERATIONS = 16
"""Units of roundoff by which a log-density may be off, relative to 1 + |log p|: log, square, quotient, a few sums."""

GAPS, ISOLATED, DENSEST = 16, 0.5, 3
"""Most gaps at which a line is cut, their least width in middle ranges, and the densest draws."""

SPIKE = 3.0
"""By how many nats the densest draw is above the median one where a mode may be narrow."""

MOST_REFUSALS = 2**11
"""Calls of a log-density that may raise before the search for the events at fault is given up."""

HALF_OF_THE_DIGITS = 2.0**-26
"""Precision beyond which nothing is asked: special functions of float64 are often accurate to half its digits."""


@dataclass(frozen=True)
class Oracle:
    """A space, the density on it, and the precision of that density. Functions see flattened events (n, d)."""

    space: Space
    log_density: LogDensity
    noise: float
    centre: Tensor  # (d,) pilot median
    scale: Tensor  # (d,) pilot spread

    def integral(self, *functions: Function) -> Integral:
        """Integrals of 1 and of the functions against the density."""
        return self.space.integrate(self.log_density, functions, self.noise)

    def standardised(self, i: int) -> Function:
        """t_i = (x_i - centre_i) / scale_i: moments of t lose no digits to a far origin."""
        centre, scale = float(self.centre[i]), float(self.scale[i])
        return lambda x, log_p: (x[:, i] - centre) / scale


def oracle_of(subject: Subject) -> Oracle:
    """The oracle of a subject. Raises NotApplicable where its support is too large to sum over."""
    return subject.once("oracle", lambda: _build(subject))


def mass_of(subject: Subject) -> Integral:
    """The integrals of 1, |log p| and -log p against the density; cubature, being dear, adds the moments' functions."""
    return subject.once("oracle mass", lambda: _mass(subject))


def _mass(subject: Subject) -> Integral:
    oracle = oracle_of(subject)
    moments = moment_functions(oracle, crossed=True) if isinstance(oracle.space, Charted) else []
    return oracle.integral(_size_of_log, surprisal, *moments)


def moment_functions(oracle: Oracle, crossed: bool) -> list[Function]:
    """t_i for all i, then t_i t_j for i <= j (only i = j unless `crossed`), of standardised coordinates t."""
    d = len(oracle.centre)
    t = [oracle.standardised(i) for i in range(d)]
    pairs = [(i, j) for i in range(d) for j in range(i, d if crossed else i + 1)]
    return [*t, *(_product(t[i], t[j]) for i, j in pairs)]


def _product(f: Function, g: Function) -> Function:
    return lambda x, log_p: f(x, log_p) * g(x, log_p)


def _size_of_log(x: Tensor, log_p: Tensor) -> Tensor:
    return torch.where(log_p == -math.inf, 0.0, log_p.abs())


def rounding(subject: Subject) -> float:
    """By how much, in nats and on average, rounding may move the log-densities; never below half the digits."""
    mass = mass_of(subject)
    size = float(mass.values[1]) if math.isfinite(float(mass.error[1])) else 10.0
    return max(4 * oracle_of(subject).noise * (1 + size), HALF_OF_THE_DIGITS)


def compared(
    subject: Subject, error: float, uncertainty: float, rounding: float, n: int, where: str = "", unit: str = ""
) -> Exact:
    """Evidence of a comparison with the oracle.

    What rounding explains is allowed; so is what the oracle cannot resolve, as long as that is below a tenth of the
    effort's tolerance. An error that is larger than both is a defect.
    """
    resolution = 2 * min(uncertainty, subject.effort.tolerance / 10)
    return Exact(error, max(rounding, resolution), n, where, unit, uncertainty)


def _build(subject: Subject) -> Oracle:
    space, pilot = space_of(subject), subject.pilot
    flat = pilot.reshape(len(pilot), -1).to("cpu", torch.float64)
    low, middle, high = column_quantiles(flat[: 2**14], torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    spread = torch.where(high > low, high - low, 1.349 * flat.nan_to_num(0.0, 0.0, 0.0).std(0))
    scale = torch.where(spread > 0, spread / 1.349, 1.0)
    return Oracle(space, flat_density(subject.model, pilot), noise_of(subject), middle, scale)


def flat_density(model: Model, like: Tensor) -> LogDensity:
    """log p of flattened events (n, d), handed to the model in the shape, dtype and device of its pilot draws.

    Events outside the declared support count as impossible here, and so do those that the model refuses by raising;
    that it should answer -inf is another law.
    """

    refusals, bounded = count(1), must_be_asked(model)

    def log_p(x: Tensor) -> Tensor:
        events = x.reshape(len(x), *like.shape[1:]).to(like.device, like.dtype)
        with torch.no_grad():
            if not bounded:
                return _or_impossible(model, events, refusals).to("cpu", torch.float64)
            inside = supported(model, events)
            value = torch.full(inside.shape, -math.inf, dtype=torch.float64)
            if bool(inside.any()):
                value[inside.cpu()] = _or_impossible(model, events[inside], refusals).to("cpu", torch.float64)
            return value

    return log_p


def _or_impossible(model: Model, x: Tensor, refusals: Iterator[int]) -> Tensor:
    """log p, and -inf for the events that make the model raise: found by halving the batch."""
    try:
        return model.log_prob(x)
    except (ValueError, IndexError, RuntimeError) as refusal:
        if next(refusals) > MOST_REFUSALS:
            raise NotApplicable(f"log_prob raises at too many events: {' '.join(str(refusal).split())[:80]}") from None
        if len(x) == 1:
            if out_of_memory(refusal):  # which says nothing of the event
                raise
            return torch.full((1,), -math.inf, dtype=torch.float64, device=x.device)
        half = len(x) // 2
        return torch.cat([_or_impossible(model, part, refusals).to(torch.float64) for part in (x[:half], x[half:])])


def noise_of(subject: Subject) -> float:
    """Relative precision of the log-densities: |error of log p| <= noise (1 + |log p|)."""
    return subject.once("noise of log p", lambda: _noise(subject))


def typical_rounding(subject: Subject) -> float:
    """`rounding` from pilot draws alone, for events of any size."""
    with torch.no_grad():
        value = subject.model.log_prob(subject.pilot[:256]).double()
    size = float(value[value.isfinite()].abs().mean()) if bool(value.isfinite().any()) else 0.0
    return max(4 * noise_of(subject) * (1 + size), HALF_OF_THE_DIGITS)


def roundoff(value: Tensor) -> float:
    """Units of roundoff that a number which the model states may be off by, relative to its terms; from its dtype."""
    dtype = value.dtype if value.is_floating_point() else torch.float64
    return max(OPERATIONS * torch.finfo(dtype).eps, HALF_OF_THE_DIGITS)


def _noise(subject: Subject) -> float:
    """Relative precision of the log-densities: from that of their arithmetic, and their scatter about a twin's.

    A narrow dtype is held against float64. For float64 the twin is in float32, whose scatter is larger in proportion to
    its unit: large terms that cancel, as in x log m - m - log x! for m = 1e8, lose as many digits in both.
    Only the scatter counts, so that a constant which is wrong in the narrow dtype alone is still a defect.
    """
    model, x = subject.model, subject.pilot[:256]
    unit = working_unit(subject)
    noise = OPERATIONS * unit
    if unit <= torch.finfo(torch.float64).eps:
        kind, share = torch.float32, torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
        x = x.to(torch.float32).to(x.dtype) if x.is_floating_point() else x
    else:
        kind, share = torch.float64, 1.0
    twin = _log_prob_in(kind, model, x)
    if twin is None:
        return noise
    with torch.no_grad():
        value = model.log_prob(x).double()
    gap = value - twin
    gap = gap[gap.isfinite()]
    size = 1 + float(value[value.isfinite()].abs().mean())
    return max(noise, 2 * share * float(gap.std()) / size) if len(gap) >= 8 else noise


def _log_prob_in(dtype: torch.dtype, model: Model, x: Tensor) -> Tensor | None:
    """log p in another dtype by the model's twin, or by the model itself where it computes as its input does."""
    try:
        with torch.no_grad():
            twin = model.cast(dtype) if model.cast is not None else model
            value = twin.log_prob(x.to(dtype) if x.is_floating_point() else x)
    except Exception as trouble:  # a twin is a convenience: its own trouble is for other checks
        if out_of_memory(trouble):
            raise
        return None
    return value if value.dtype == dtype and value.shape == x.shape[:1] else None


def space_of(subject: Subject) -> Space:
    """The space of a subject's events. Raises NotApplicable where it is too large."""
    kind = subject.profile.kind
    if kind == "discrete":
        try:
            return discrete_space(subject)
        except TooManyError as reason:
            raise NotApplicable(f"{reason}; density.bridge_mass tests the mass by draws") from None
    return _continuous(subject) if kind == "continuous" else _branches(subject)


def _continuous(subject: Subject) -> Space:
    pilot, chart = subject.pilot, subject.profile.chart
    if pilot[0].numel() == 1:
        lower, upper = limits(subject.model, pilot.shape[1:])
        return Line(float(lower), float(upper), line_knots(subject), pilot.dtype)
    if chart.size > MAX_FREE:
        raise NotApplicable(
            f"{chart.size} continuous dimensions are more than the {MAX_FREE} that quadrature can do; "
            "density.bridge_mass tests the mass by draws"
        )
    z = chart.coordinates(pilot).cpu()
    z = z[z.isfinite().all(1)]
    if chart.transform is None and _flat(z):
        raise NotApplicable("the draws lie on a surface, and no support that says which was declared")
    try:
        chart.log_volume(z[:2].to(chart.location.device))
    except NotImplementedError:
        raise NotApplicable(f"no Jacobian is known for the support {subject.model.support}") from None
    found = peaks_of(subject)
    return Charted(chart, found.centres, found.scales)


def line_knots(subject: Subject) -> Tensor:
    """Where a line is cut: pilot quantiles, both sides of the widest gaps between draws, and the densest draws.

    A rare far mode shows as a gap, a narrow one as draws of high density; between two cuts neither would be seen.
    """
    column = subject.pilot.flatten()[: 2**14]
    cuts = quantiles(column)
    x = column[column.isfinite()].to("cpu", torch.float64).unique()
    if len(x) < 2:
        return cuts
    gaps = x.diff()
    wide = gaps.argsort(descending=True)[:GAPS]
    wide = wide[gaps[wide] > ISOLATED * (cuts[-1 - len(cuts) // 4] - cuts[len(cuts) // 4])]
    log_p = flat_density(subject.model, subject.pilot)(x[:, None]).nan_to_num(-math.inf, posinf=-math.inf)
    spiked = float(log_p.max()) > float(log_p.quantile(0.5)) + SPIKE
    densest = x[log_p.argsort(descending=True)[:DENSEST]] if spiked else x[:0]
    return torch.cat([cuts, x[wide], x[wide + 1], densest]).unique()


def _flat(z: Tensor) -> bool:
    """Do points (n, k) lie in a plane of fewer dimensions, to float32 precision?"""
    correlation = torch.corrcoef(z.T)
    return not float(torch.linalg.eigvalsh(correlation.nan_to_num(0.0)).min()) > 1e-10


def _branches(subject: Subject) -> Space:
    profile, pilot = subject.profile, subject.pilot
    flat = pilot.reshape(len(pilot), -1).to("cpu", torch.float64)
    discrete = profile.chart.discrete.cpu()
    free = int((~discrete).sum())
    if free > MAX_FREE:
        raise NotApplicable(f"{free} continuous dimensions are more than the {MAX_FREE} that quadrature can do")
    alphabets = tuple(a.cpu() for a in profile.alphabets if a is not None)
    grid = States(alphabets)
    if grid.count > MAX_BRANCHES:
        raise NotApplicable(f"{grid.count} combinations of discrete values are more than {MAX_BRANCHES}")
    log_p = flat_density(subject.model, pilot)
    parts = []
    for values in torch.cartesian_prod(*alphabets).reshape(grid.count, -1):
        rows = flat[(flat[:, discrete] == values).all(1)]
        probe = flat[:64].clone()
        probe[:, discrete] = values
        if not len(rows) and bool((log_p(probe) == -math.inf).all()):
            continue
        rest = (rows if len(rows) >= 16 else flat)[:, ~discrete]
        full = torch.full((len(discrete),), math.nan, dtype=torch.float64)
        full[discrete] = values
        parts.append((full, _free_space(rest, pilot.dtype)))
    return Branches(tuple(parts), ~discrete)


def _free_space(x: Tensor, dtype: torch.dtype) -> Space:
    """The space of the continuous numbers (n, k) of a mixed event."""
    if x.shape[1] == 1:
        return Line(-math.inf, math.inf, quantiles(x[:, 0]), dtype)
    chart = fit_chart(x, None, torch.zeros(x.shape[1], dtype=torch.bool))
    z = chart.coordinates(x)
    return Charted(chart, z.mean(0)[None], torch.linalg.cholesky(torch.cov(z.T))[None])
