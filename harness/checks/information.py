"""Stated entropy, distribution function, quantile function and Kullback-Leibler divergence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.checks.law import Check, NotApplicable, exact, statistical
from harness.checks.moments import PER_PROBABILITY
from harness.checks.oracle import Oracle, compared, mass_of, oracle_of, rounding, roundoff, typical_rounding
from harness.draws import Draws, log_density
from harness.evidence import Exact
from harness.numerics import Function
from harness.space import Line
from harness.statistics.asymptotic import AsymptoticMean
from harness.subject import Subject

LEVELS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""Probabilities at which quantiles are asked for."""

PLACES = 24
"""Number of places at which a distribution function is compared."""

DITHER = 0.02
"""Nats of independent noise that are added to differences of logarithms, so that their rounding has no say."""

SHANNON = "Shannon 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x"
QUANTILES = "DeGroot & Schervish 2012, Probability and Statistics, section 3.3"
KULLBACK = "Kullback & Leibler 1951, https://doi.org/10.1214/aoms/1177729694"


def _scalar(subject: Subject, name: str, *arguments: object) -> float:
    """What the model states, a single number. Raises ValueError for anything else."""
    value = subject.model.methods[name](*arguments)
    if not isinstance(value, Tensor) or value.numel() != 1 or value.ndim > 0:
        seen = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
        raise ValueError(f"{name}() has {seen}, not a tensor of shape ()")
    return float(value.detach())


def _precision(subject: Subject, name: str, *arguments: object) -> float:
    return roundoff(subject.model.methods[name](*arguments))


@exact("information.entropy", needs=("entropy", "log_prob"), unit="nats", source=SHANNON)
def entropy(subject: Subject) -> Exact:
    """entropy() = -int p log p, the sum over the states of a discrete law; states of probability 0 add nothing.

    By enumeration or quadrature of the density, normalised first. A differential entropy can be negative.
    """
    mass = mass_of(subject)
    value, error = mass.expectations
    truth = float(value[1]) + mass.log_total
    doubt = float(error[1]) + mass.log_error
    said = _scalar(subject, "entropy")
    allowed = rounding(subject) * (2 + abs(truth)) + _precision(subject, "entropy") * (1 + abs(truth))
    where = f"stated {said:.9g}, integrated {truth:.9g}"
    return compared(subject, _gap(said, truth), doubt, allowed, mass.points, where, "nats")


def _gap(said: float, truth: float) -> float:
    """|said - truth|; infinite when either is not a number."""
    gap = abs(said - truth) if said != truth else 0.0
    return math.inf if math.isnan(gap) else gap


def _start_entropy(subject: Subject) -> AsymptoticMean:
    if _has_oracle(subject):
        raise NotApplicable("the entropy was compared with an exact sum or integral; see information.entropy")
    subject.once("entropy controls", lambda: _controls(subject))
    return AsymptoticMean()


def _has_oracle(subject: Subject) -> bool:
    """Can the density be summed over? Then draws, which its arithmetic limits as much, have nothing to add."""
    try:
        oracle_of(subject)
    except NotApplicable:
        return False
    return True


def _controls(subject: Subject) -> tuple[Tensor, float]:
    """Coefficients of the control variates for log p, and the scale of what they leave over, in nats.

    Fitted on pilot draws, so that they are fixed before the draws that they are used on.
    """
    features = _features(subject, subject.pilot)
    log_p = log_density(subject, subject.pilot)
    usable = log_p.isfinite() & features.isfinite().all(1)
    features, log_p = features[usable], log_p[usable]
    if len(log_p) < 2:
        raise NotApplicable("log p is infinite at nearly every pilot draw")
    centred = log_p - log_p.mean()
    ridge = 1e-6 * len(log_p) * torch.eye(features.shape[1], dtype=torch.float64, device=features.device)
    weights = torch.linalg.solve(features.T @ features + ridge, features.T @ centred)
    return weights, max(1.0, float((centred - features @ weights).std()))


def _features(subject: Subject, x: Tensor) -> Tensor:
    """(n, k): functions of the draws whose means are 0 if the stated moments are right.

    Coordinates less the mean, their squares less the variance, and the Mahalanobis distance less its dimension.
    """
    model = subject.model
    flat = x.reshape(len(x), -1).to(torch.float64)
    n, d = flat.shape
    columns = [torch.zeros(n, 1, dtype=torch.float64, device=flat.device)]
    if model.can("mean") and bool((mean := model.mean().reshape(-1).to(flat)).isfinite().all()):
        centred = flat - mean
        if model.can("variance"):
            variance = model.variance().reshape(-1).to(flat)
            known = variance.isfinite() & (variance > 0)
            unit = torch.where(known, variance, 1.0)
            columns += [centred * known / unit.sqrt(), (centred.square() / unit - 1) * known]
        if model.can("covariance"):
            factor, trouble = torch.linalg.cholesky_ex(model.covariance().reshape(d, d).to(flat))
            if not bool(trouble):
                white = torch.linalg.solve_triangular(factor, centred.T, upper=False)
                columns.append(((white.square().sum(0) - d) / math.sqrt(2 * d))[:, None])
    return torch.cat(columns, 1)


@statistical(
    "information.entropy_of_draws",
    needs=("sample", "log_prob", "entropy"),
    blocked_by=("density.bridge_mass",),
    start=_start_entropy,
    tolerance=PER_PROBABILITY,
    asymptotic=True,
    unit="nats",
    source=SHANNON,
)
def entropy_of_draws(draws: Draws) -> Tensor:
    """E[-log p(x)] = entropy() over draws.

    Functions of the draws whose means the model states (coordinates, squares, Mahalanobis distance) are subtracted, as
    control variates, from log p: for a Gaussian nothing is left over but rounding, which a dither of 0.02 nats covers.
    """
    subject = draws.subject
    weights, _ = subject.once("entropy controls", lambda: _controls(subject))
    said = subject.once("stated entropy", lambda: _scalar(subject, "entropy"))
    surprise = -draws.log_p + _features(subject, draws.x) @ weights
    return surprise - said + _dither(draws, "entropy")


def _dither(draws: Draws, name: str) -> Tensor:
    """(n,) independent noise of mean 0, so much larger than rounding that rounding cannot be mistaken for evidence."""
    size = max(DITHER, 2**10 * typical_rounding(draws.subject))
    source = draws.subject.generator("dither", name, draws.index)
    return size * torch.randn(draws.n, generator=source, dtype=torch.float64, device=draws.subject.model.device)


def _number(subject: Subject) -> None:
    if subject.pilot[0].numel() != 1:
        raise NotApplicable("distribution and quantile functions are those of a single number")


def _cdf_at(subject: Subject, places: Tensor) -> tuple[Tensor, Tensor, int]:
    """P(X <= x) at sorted places (m,), its error, and the points spent: by the oracle, of the normalised density."""
    oracle = oracle_of(subject)
    if isinstance(oracle.space, Line):
        line = Line(oracle.space.lower, oracle.space.upper, places, oracle.space.dtype)
        cells = line.integrate(oracle.log_density, (), oracle.noise)
        if cells.cells is not None and cells.cell_error is not None and cells.edges is not None:
            below = cells.cells[:, 0].cumsum(0) / cells.total
            doubt = torch.minimum(cells.cell_error[:, 0].cumsum(0), cells.cell_error[:, 0].flip(0).cumsum(0).flip(0))
            index = torch.searchsorted(cells.edges[1:-1].contiguous(), places)
            return below[index], doubt[index] + cells.total_error, cells.points
    integral = oracle.integral(*(_not_above(float(place)) for place in places))
    value, error = integral.expectations
    return value, error, integral.points


def _not_above(place: float) -> Function:
    return lambda x, log_p: (x[:, 0] <= place).to(torch.float64)


def _events(subject: Subject, numbers: Tensor) -> Tensor:
    pilot = subject.pilot
    return numbers.to(pilot.dtype).to(pilot.device).reshape(-1, *pilot.shape[1:])


def _places(subject: Subject) -> Tensor:
    """Distinct pilot quantiles (m,), sorted, as the model's dtype has them."""
    flat = subject.pilot.flatten()
    flat = flat[torch.isfinite(flat)].to("cpu", torch.float64).sort().values
    index = torch.linspace(0.002, 0.998, PLACES) * (len(flat) - 1)
    return flat[index.round().long()].unique()


def _steepness(subject: Subject, numbers: Tensor) -> Tensor:
    """|x| p(x) of numbers (m,): how far a relative change of x moves a probability; 0 for a discrete law."""
    if subject.profile.kind == "discrete":
        return torch.zeros(len(numbers), dtype=torch.float64)
    log_p = oracle_of(subject).log_density(numbers[:, None])
    return (log_p.clamp(max=600).exp() * numbers.abs()).nan_to_num(0.0, 1.0, 0.0)


@exact("information.cdf", needs=("cdf", "log_prob"), unit="probability", source=QUANTILES)
def cdf(subject: Subject) -> Exact:
    """cdf(x) = P(X <= x) = int_{-inf}^x p, at quantiles of pilot draws; at the values themselves for a discrete law.

    A cumulative sum or integral of the density, normalised first. That it rises, and runs from 0 to 1, follows.
    """
    _number(subject)
    places = _places(subject)
    truth, doubt, points = _cdf_at(subject, places)
    stated = subject.model.cdf(_events(subject, places))
    if tuple(stated.shape) != (len(places),):
        raise ValueError(f"cdf has shape {tuple(stated.shape)} for {len(places)} events, not ({len(places)},)")
    said = stated.detach().to("cpu", torch.float64)
    gap = (said - truth).abs()
    gap = torch.where(gap.isnan(), math.inf, gap)
    worst = int((gap - doubt).argmax())
    allowed = rounding(subject) + roundoff(stated) * (1 + float(_steepness(subject, places)[worst]))
    where = f"x = {float(places[worst]):.6g}: stated {float(said[worst]):.9g}, summed {float(truth[worst]):.9g}"
    return compared(subject, float(gap[worst]), float(doubt[worst]), allowed, points, where, "probability")


@exact("information.cdf_is_monotone", needs=("cdf",), unit="probability")
def cdf_is_monotone(subject: Subject) -> Exact:
    """x <= y implies cdf(x) <= cdf(y), and 0 <= cdf <= 1.

    Over sorted pilot draws; a step down is allowed the rounding of the cdf's own dtype.
    """
    _number(subject)
    x = subject.pilot.flatten().sort().values
    stated = subject.model.cdf(x.reshape(-1, *subject.pilot.shape[1:])).detach()
    value = stated.to("cpu", torch.float64)
    problems = {
        "step down": float((value[:-1] - value[1:]).max()),
        "below 0": float((-value).max()),
        "above 1": float((value - 1).max()),
    }
    worst = max(problems, key=lambda key: math.inf if math.isnan(problems[key]) else problems[key])
    error = math.inf if math.isnan(problems[worst]) else max(0.0, problems[worst])
    return Exact(error, roundoff(stated), len(x), worst if error > 0 else "", "probability")


@exact(
    "information.icdf", needs=("icdf", "log_prob"), unit="probability", source="DeGroot & Schervish 2012, section 3.3"
)
def icdf(subject: Subject) -> Exact:
    """P(X <= icdf(u)) >= u, and P(X < icdf(u)) <= u: the quantile is the smallest x whose cdf reaches u.

    For a continuous law both say cdf(icdf(u)) = u. Measured in probability, by a cumulative sum or integral of the
    density, so that a flat stretch of the cdf, where quantiles are ill-conditioned, costs nothing.
    """
    _number(subject)
    u = torch.tensor(LEVELS, dtype=torch.float64).to(_number_dtype(subject))
    stated = subject.model.icdf(u.to(subject.model.device))
    if stated.numel() != len(u) or len(stated) != len(u):
        raise ValueError(f"icdf has shape {tuple(stated.shape)} for {len(u)} probabilities")
    x = stated.detach().flatten().to("cpu", torch.float64)
    if not bool(x.isfinite().all()) or bool((x.diff() < 0).any()):
        return Exact(math.inf, 0.0, len(u), "quantiles that are not finite or fall", "probability")
    level = u.to(torch.float64)
    short, over, doubt, points = _missed(subject, x, level)
    gap = torch.maximum(short, over).clamp(min=0)
    worst = int((gap - doubt).argmax())
    allowed = rounding(subject) + roundoff(stated) * (1 + float(_steepness(subject, x)[worst]))
    where = f"u = {float(level[worst]):.4g}, icdf(u) = {float(x[worst]):.6g}"
    return compared(subject, float(gap[worst]), float(doubt[worst]), allowed, points, where, "probability")


def _number_dtype(subject: Subject) -> torch.dtype:
    return subject.pilot.dtype if subject.pilot.is_floating_point() else torch.float32


def _missed(subject: Subject, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """u - P(X <= x), P(X < x) - u, the error of both, and the points spent."""
    places, back = torch.unique(x, return_inverse=True)
    upto, doubt, points = _cdf_at(subject, places)
    if subject.profile.kind != "discrete":
        return level - upto[back], upto[back] - level, doubt[back], points
    below, more, again = _cdf_at(subject, places - 0.5)
    return level - upto[back], below[back] - level, doubt[back] + more[back], points + again


def _sibling(subject: Subject) -> Subject:
    """Another model of the same kind. Raises NotApplicable where the adapter cannot build one."""
    build = subject.model.sibling
    if build is None:
        raise NotApplicable("no second model of the same kind is known")
    return subject.once("sibling", lambda: Subject(build(), subject.effort, subject.seed_for("sibling")))


@exact("information.kl_to_itself_is_zero", needs=("kl", "log_prob"), unit="nats", source=KULLBACK)
def kl_to_itself_is_zero(subject: Subject) -> Exact:
    """KL(p, p) = 0.

    Up to the rounding of its terms, of which there is at least one a coordinate.
    """
    said = _scalar(subject, "kl", subject.model)
    size = subject.pilot[0].numel()
    allowed = typical_rounding(subject) + size * _precision(subject, "kl", subject.model)
    return Exact(_gap(said, 0.0), allowed, 1, f"stated {said:.3g}", "nats")


@exact("information.kl", needs=("kl", "log_prob"), unit="nats", source=KULLBACK)
def kl(subject: Subject) -> Exact:
    """KL(p, q) = int p (log p - log q) >= 0, for a second model q of the same kind, in both directions.

    By enumeration or quadrature. It is infinite where q leaves out a part of p; swapping p and q changes it.
    """
    oracle_of(subject)  # before a second model is built for nothing
    other = _sibling(subject)
    mass = mass_of(other)
    if not abs(mass.total - 1) <= mass.total_error + rounding(other):
        raise NotApplicable(f"the second model that was built has mass {mass.total:.6g}")
    forth = _divergence(subject, other)
    back = _divergence(other, subject) if other.model.can("kl") else forth
    return max(forth, back, key=lambda seen: seen.error - seen.uncertainty - seen.allowed)


def _divergence(subject: Subject, other: Subject) -> Exact:
    oracle = oracle_of(subject)
    integral = oracle.integral(*_ratio_functions(oracle, other))
    value, error = integral.expectations
    said, precision = _scalar(subject, "kl", other.model), _precision(subject, "kl", other.model)
    missing, nearly = float(value[1] - error[1]), float(value[2])
    where = f"stated {said:.9g} from {subject.model.name}"
    if missing > subject.effort.tolerance / 10 or (said == math.inf and nearly > 0):
        where = f"{where}, of which the other leaves out {max(missing, nearly):.3g}"
        return Exact(0.0 if said == math.inf else math.inf, 0.0, integral.points, where, "nats")
    truth = float(value[0])
    allowed = (rounding(subject) + rounding(other)) * (2 + abs(truth)) + precision * (1 + abs(truth))
    where = f"{where}, integrated {truth:.9g}"
    return compared(subject, _gap(said, truth), float(error[0]), allowed, integral.points, where, "nats")


def _ratio_functions(oracle: Oracle, other: Subject) -> tuple[Function, ...]:
    """log p - log q where q is positive, where it is not, and where a discrete q is no more than a clamped 0."""
    density = oracle_of(other).log_density
    clamped = math.log(2 * torch.finfo(torch.float32).eps) if other.profile.kind == "discrete" else -math.inf

    def log_ratio(x: Tensor, log_p: Tensor) -> Tensor:
        ratio = log_p - density(x)
        return torch.where(ratio.isfinite(), ratio, 0.0)

    def left_out(x: Tensor, log_p: Tensor, floor: float = -math.inf) -> Tensor:
        return ((density(x) <= floor) & (log_p > -math.inf)).to(torch.float64)

    return log_ratio, left_out, lambda x, log_p: left_out(x, log_p, clamped)


def _start_kl(subject: Subject) -> AsymptoticMean:
    other = _sibling(subject)
    if _has_oracle(subject):
        raise NotApplicable("the divergence was compared with an exact sum or integral; see information.kl")
    subject.once("stated kl", lambda: _both_ways(subject, other))
    return AsymptoticMean()


def _both_ways(subject: Subject, other: Subject) -> tuple[float, float, float]:
    """KL(p, q), KL(q, p), and the largest standard deviation of a log-ratio, from pilot draws."""
    forth, back = _scalar(subject, "kl", other.model), _scalar(other, "kl", subject.model)
    if not (math.isfinite(forth) and math.isfinite(back)):
        raise NotApplicable("a stated divergence is not finite, so that draws have no average to compare with it")
    spreads = [
        float((log_density(a, a.pilot) - log_density(b, a.pilot)).std())
        for a, b in ((subject, other), (other, subject))
    ]
    return forth, back, max(1.0, *(s for s in spreads if math.isfinite(s)), 1.0)


@statistical(
    "information.kl_of_draws",
    needs=("sample", "log_prob", "kl"),
    blocked_by=("density.bridge_mass",),
    start=_start_kl,
    labels=lambda subject: ["KL(p, q)", "KL(q, p)"],
    tolerance=PER_PROBABILITY,
    share=0.25,
    asymptotic=True,
    unit="nats, or sd of log p - log q where that is larger",
    source=KULLBACK,
)
def kl_of_draws(draws: Draws) -> Tensor:
    """E_p[log p - log q] = KL(p, q), and the same with p and q swapped, for a second model q of the same kind.

    The definition, read as a mean over draws, where an exact sum or integral is out of reach.
    """
    subject = draws.subject
    other = _sibling(subject)
    forth, back, scale = subject.once("stated kl", lambda: _both_ways(subject, other))
    theirs = other.sample(draws.n, "kl", draws.index)
    noise = _dither(draws, "kl")
    here = draws.log_p - log_density(other, draws.x) - forth
    there = log_density(other, theirs) - log_density(subject, theirs) - back
    return torch.stack([here + noise, there + noise], 1) / scale


CHECKS: tuple[Check, ...] = (
    entropy,
    cdf,
    cdf_is_monotone,
    icdf,
    kl_to_itself_is_zero,
    kl,
    entropy_of_draws,
    kl_of_draws,
)
