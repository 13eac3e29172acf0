"""The integrator finds 1, moments and entropies over a bank of nasty densities, and never by more than its error."""

import dataclasses
import math
import time

import numpy as np
import pytest
import scipy.stats as st
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from harness.numerics import Integral, integrate, panels, power, quadrature, segments, surprisal

BANK = {
    "normal": st.norm, "cauchy": st.cauchy, "t 2.5": st.t(2.5), "t 0.3": st.t(0.3), "laplace": st.laplace,
    "logistic": st.logistic, "gumbel": st.gumbel_r, "gumbel left": st.gumbel_l, "uniform": st.uniform,
    "arcsine": st.beta(0.5, 0.5), "beta 0.1": st.beta(0.1, 0.1), "beta 0.01": st.beta(0.01, 3),
    "beta 30": st.beta(30, 2),
    "gamma 0.01": st.gamma(0.01), "gamma 0.5": st.gamma(0.5), "gamma 1e4": st.gamma(1e4), "exponential": st.expon,
    "weibull 0.3": st.weibull_min(0.3), "weibull 10": st.weibull_min(10), "pareto 1.1": st.pareto(1.1),
    "pareto 0.2": st.pareto(0.2), "pareto 1.01": st.pareto(1.01), "lomax": st.lomax(1.5), "lognormal": st.lognorm(1),
    "lognormal 5": st.lognorm(5), "inverse gamma 1": st.invgamma(1), "inverse gamma 0.1": st.invgamma(0.1),
    "inverse gaussian": st.invgauss(2), "chi2 1": st.chi2(1), "f 3 2": st.f(3, 2), "levy": st.levy,
    "half cauchy": st.halfcauchy, "half normal": st.halfnorm, "truncated": st.truncnorm(-1, 2),
    "truncated tail": st.truncnorm(5, 7), "triangle": st.triang(0.3), "power 0.1": st.powerlaw(0.1),
    "gpd bounded": st.genpareto(-0.5), "gpd heavy": st.genpareto(2), "gev": st.genextreme(-0.4),
    "exponential power": st.gennorm(0.3), "nearly uniform": st.gennorm(20), "skew normal": st.skewnorm(10),
    "semicircle": st.semicircular, "rayleigh": st.rayleigh, "nakagami 0.1": st.nakagami(0.1),
    "trapezoid": st.trapezoid(0.2, 0.4),
    "log-laplace": st.loglaplace(1.5), "folded cauchy": st.foldcauchy(2), "hyperbolic secant": st.hypsecant,
    "moyal": st.moyal,
}  # fmt: skip
SCALES = [(0.0, 1.0), (0.0, 2.0**-27), (0.0, 2.0**27), (2.0**20, 2.0**-4), (-3.0, 2.0)]
"""Locations and scales; powers of two, so that the standardised draw carries no rounding of its own."""

ROUGH_ENTROPY = {"levy", "truncated tail"}
"""scipy's entropy is a numerical integral of less precision than ours."""


def placed(name, loc, scale):
    base = BANK[name]
    generic = base.dist if hasattr(base, "dist") else base
    return generic(*getattr(base, "args", ()), loc=loc, scale=scale)


def log_density(distribution):
    def log_p(x):
        with np.errstate(all="ignore"):
            return torch.from_numpy(np.asarray(distribution.logpdf(x[:, 0].numpy()), dtype=np.float64))

    return log_p


def dishonest(distribution, found: Integral, entropy=math.nan) -> list[str]:
    """What differs from scipy's answer by more than the error that was stated and scipy's own rounding."""
    slack = 2e-11
    wrong = []
    if not abs(found.total - 1) <= found.total_error + slack:
        wrong.append(f"total {found.total} +- {found.total_error}")
    mean, got, error = float(distribution.mean()), float(found.values[1]), float(found.error[1])
    if math.isfinite(mean) and not abs(got - mean) <= error + slack * abs(mean):
        wrong.append(f"mean {got} +- {error}, not {mean}")
    if not math.isfinite(mean) and math.isfinite(error):
        wrong.append(f"mean {got} +- {error}, but it diverges")
    got, error = float(found.values[2]), float(found.error[2])
    if math.isfinite(entropy) and not abs(got - entropy) <= error + slack * (1 + abs(entropy)):
        wrong.append(f"entropy {got} +- {error}, not {entropy}")
    return wrong


def integrated(name, loc, scale, ways=("quantiles", "limits", "alone"), **options):
    """A density with quantiles as knots, with its limits too, and with its limits only."""
    distribution = placed(name, loc, scale)
    low, high = map(float, distribution.support())
    knots = distribution.ppf(np.linspace(0.02, 0.98, 21))
    given_to = {
        "quantiles": {"knots": knots},
        "limits": {"knots": knots, "lower": low, "upper": high},
        "alone": {"lower": low, "upper": high},
    }
    for way in ways:
        yield way, integrate(log_density(distribution), [power(1), surprisal], **given_to[way], **options)


@pytest.mark.parametrize("name", BANK)
def test_the_error_is_honest_and_small_where_floating_point_allows(name):
    """At location 0 with known limits everything is resolved; 1e-6 leaves room for Beta(0.1, 0.1) at 1."""
    entropy = math.nan if name in ROUGH_ENTROPY else float(placed(name, 0.0, 1.0).entropy())
    for loc, scale in SCALES:
        distribution = placed(name, loc, scale)
        for way, found in integrated(name, loc, scale):
            assert not dishonest(distribution, found, entropy + math.log(scale)), (loc, scale, way)
            assert loc != 0 or way == "quantiles" or found.total_error <= 1e-6, (loc, scale, way)


@pytest.mark.parametrize("name", ["normal", "cauchy", "gamma 0.5", "uniform", "beta 0.1", "weibull 0.3", "lognormal 5"])
def test_cells_agree_with_the_cdf(name):
    distribution = placed(name, 0.0, 1.0)
    for _, found in integrated(name, 0.0, 1.0, ("limits",)):
        cdf = np.concatenate([[0.0], distribution.cdf(found.edges[1:-1].numpy()), [1.0]])
        assert (np.abs(np.diff(cdf) - found.cells[:, 0].numpy()) <= found.cell_error[:, 0].numpy() + 1e-13).all()
        assert float(found.cells[:, 0].sum()) == pytest.approx(found.total, abs=1e-14)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    means=some.lists(some.floats(-1e4, 1e4), min_size=1, max_size=4),
    log_scales=some.lists(some.floats(-4, 3), min_size=4, max_size=4),
)
def test_mixtures_whose_modes_have_knots(means, log_scales):
    scales = 10.0 ** np.array(log_scales[: len(means)])
    modes = st.norm(np.array(means), scales)
    knots = (np.array(means)[:, None] + scales[:, None] * np.array([-2.0, -0.7, 0.0, 0.7, 2.0])).ravel()

    def log_p(x):
        each = torch.from_numpy(modes.logpdf(x.numpy()))
        return each.logsumexp(-1) - math.log(len(means))

    found = integrate(log_p, [power(1)], knots=knots)
    assert abs(found.total - 1) <= found.total_error + 1e-13
    assert found.total_error < 1e-7
    assert abs(float(found.values[1]) - np.mean(means)) <= float(found.error[1]) + 1e-9


def staircase(seed):
    """A density on (0, 1) with ten jumps at places unknown to the integrator."""
    draw = np.random.default_rng(seed)
    edges = torch.from_numpy(np.concatenate([[0.0], np.sort(draw.random(10)), [1.0]]))
    heights = torch.from_numpy(draw.random(11))
    heights = heights / (heights * edges.diff()).sum()

    def log_p(x):
        return heights[(torch.searchsorted(edges, x[:, 0].contiguous()) - 1).clamp(0, 10)].log()

    return log_p


def dishonest_on_stairs():
    found = [integrate(staircase(seed), lower=0.0, upper=1.0, knots=[0.3, 0.7], rtol=1e-4) for seed in range(60)]
    return [f"{f.total} +- {f.total_error}" for f in found if not abs(f.total - 1) <= f.total_error]


def test_jumps_at_unknown_places_are_within_the_error():
    assert not dishonest_on_stairs()


def mutant_error(monkeypatch):
    honest = panels._quadpack_error
    monkeypatch.setattr(panels, "_quadpack_error", lambda *differences: honest(*differences) / 100)


def mutant_no_tails(monkeypatch):
    monkeypatch.setattr(
        quadrature,
        "beyond",
        lambda evaluate, segment, shift, dtype, sizes: (torch.zeros_like(sizes), torch.zeros_like(sizes)),
    )


def mutant_short_tails(monkeypatch):
    honest = segments._towards

    def short(*where):
        segment = honest(*where)
        return dataclasses.replace(segment, length=min(segment.length, 8.0))

    monkeypatch.setattr(segments, "_towards", short)
    mutant_no_tails(monkeypatch)


@pytest.mark.parametrize("mutant", [mutant_error, mutant_no_tails, mutant_short_tails])
def test_a_broken_integrator_is_caught_by_the_bank(mutant, monkeypatch):
    mutant(monkeypatch)
    caught = dishonest_on_stairs()
    for name in ("uniform", "laplace", "cauchy", "pareto 0.2", "beta 0.1", "gamma 0.01", "weibull 0.3", "triangle"):
        for loc, scale in SCALES:
            for _, found in integrated(name, loc, scale, ("quantiles", "limits"), rtol=1e-6):
                caught += dishonest(placed(name, loc, scale), found)
    assert caught


def test_the_same_bank_is_honest_at_a_loose_tolerance():
    """The near miss of the mutants above: nothing broken, the same tolerance."""
    for name in ("uniform", "laplace", "cauchy", "pareto 0.2", "beta 0.1", "gamma 0.01", "weibull 0.3", "triangle"):
        for loc, scale in SCALES:
            for way, found in integrated(name, loc, scale, ("quantiles", "limits"), rtol=1e-6):
                assert not dishonest(placed(name, loc, scale), found), (name, loc, scale, way)


def test_float32_noise_is_part_of_the_error_and_ends_the_refinement():
    def log_p(x):
        z = x[:, 0].float()
        return (-z * z / 2 - 0.5 * math.log(2 * math.pi)).double()

    found = integrate(log_p, [surprisal], knots=[-2, 0, 2], dtype=torch.float32)
    assert abs(found.total - 1) <= found.total_error < 1e-5
    assert found.converged
    assert found.points < 20_000


def test_undeclared_noise_does_not_exhaust_the_budget():
    def log_p(x):
        return -(x[:, 0] ** 2) / 2 - 0.5 * math.log(2 * math.pi) + 1e-6 * torch.sin(1e9 * x[:, 0])

    found = integrate(log_p, knots=[-2.0, 0.0, 2.0])
    assert abs(found.total - 1) <= found.total_error + 1e-8
    assert found.points < 200_000


def test_the_defect_of_an_unnormalised_density_is_measured():
    found = integrate(lambda x: log_density(st.norm)(x) + math.log1p(1e-6), knots=[0.0])
    assert found.total - 1 == pytest.approx(1e-6, abs=1e-11)


def test_densities_far_below_the_range_of_exp():
    found = integrate(lambda x: log_density(st.norm)(x) - 1e5, [power(2)], knots=[0.0, 1.0])
    assert found.log_total == pytest.approx(-1e5, abs=1e-9)


def test_divergence_of_the_total_is_noticed():
    assert math.isinf(integrate(lambda x: -x[:, 0].abs().log1p(), knots=[0.0, 1.0]).total_error)
    assert math.isinf(integrate(lambda x: -x[:, 0].log(), lower=0.0, upper=1.0, knots=[0.5]).total_error)


def test_nan_is_an_infinite_error():
    found = integrate(
        lambda x: torch.where((x[:, 0] - 0.3).abs() < 0.1, math.nan, -(x[:, 0] ** 2)), knots=[-1.0, 0.0, 1.0]
    )
    assert not found.converged
    assert math.isinf(found.total_error)


def test_a_density_that_is_nowhere_is_not_found():
    found = integrate(lambda x: torch.full_like(x[:, 0], -math.inf))
    assert not found.converged
    assert math.isinf(found.total_error)
    assert found.message


def test_a_normal_density_takes_milliseconds():
    def log_p(x):
        return -(x[:, 0] ** 2) / 2 - 0.5 * math.log(2 * math.pi)

    def seconds():
        start = time.process_time()
        integrate(log_p, knots=[-2, -1, 0, 1, 2])
        return time.process_time() - start

    assert min(seconds() for _ in range(20)) < 0.02  # 2 ms on an idle core; the bound leaves room for a busy one
