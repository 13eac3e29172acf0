"""Integrals in 2 and 3 dimensions agree with closed forms within their errors, and say when they do not converge."""

import math
import time

import numpy as np
import pytest
import scipy.stats as st
import torch

from harness.numerics import cubature as module
from harness.numerics import integrate_nd, locate, power, surprisal

D = torch.float64


def normal(mean, covariance):
    return torch.distributions.MultivariateNormal(torch.tensor(mean, dtype=D), torch.as_tensor(covariance, dtype=D))


def correlated(d, rho=0.99):
    return torch.full((d, d), rho, dtype=D) + (1 - rho) * torch.eye(d, dtype=D)


def mixture(means, scales):
    parts = [normal(m, s * s * np.eye(len(m))).log_prob for m, s in zip(means, scales, strict=True)]
    return lambda x: torch.stack([p(x) for p in parts]).logsumexp(0) - math.log(len(parts))


def in_unit_box(x):
    return torch.where(((x >= 0) & (x <= 1)).all(-1), 0.0, -math.inf).to(D)


def banana(x):
    return -(x[:, 0] ** 2) / 2 - ((x[:, 1] - x[:, 0] ** 2) / 0.5) ** 2 / 2 - math.log(math.pi)


def betas(*pairs):
    a, b = torch.tensor(pairs, dtype=D).T
    return lambda x: torch.distributions.Beta(a, b, validate_args=False).log_prob(x).sum(-1)


def dirichlet(*alpha):
    a = torch.tensor(alpha, dtype=D)
    constant = torch.lgamma(a.sum()) - torch.lgamma(a).sum()

    def log_p(x):
        y = torch.cat([x, 1 - x.sum(-1, keepdim=True)], -1)
        return torch.where((y > 0).all(-1), ((a - 1) * y.clamp(min=1e-300).log()).sum(-1) + constant, -math.inf)

    return log_p


def student(df, d):
    shape = st.multivariate_t(np.zeros(d), np.eye(d), df=df)
    return lambda x: torch.from_numpy(shape.logpdf(x.numpy()))


UNIT = {"lower": 0.0, "upper": 1.0}
CASES = {  # log-density, locations, scale, limits, E x_0, smallest error that we insist on
    "gaussian 0.99": (normal([1.0, 0.0], correlated(2)).log_prob, [1.0, 0], correlated(2), {}, 1.0, 1e-6),
    "gaussian 0.99, scale unknown": (normal([1.0, 0.0], correlated(2)).log_prob, [0.5, 0.2], 1.5, {}, 1.0, 1e-5),
    "gaussian 3-d 0.99": (normal([1.0, 0.0, 2.0], correlated(3)).log_prob, [1.0, 0, 2], correlated(3), {}, 1.0, 1e-6),
    "modes 2-d": (mixture([[0.0, 0], [20, 5]], [1, 0.1]), [[0, 0], [20, 5]], [1, 0.1], {}, 10.0, 1e-6),
    "modes 3-d": (mixture([[0.0, 0, 0], [20, 5, 1]], [1, 0.1]), [[0, 0, 0], [20, 5, 1]], [1, 0.1], {}, 10.0, 1e-4),
    "box with limits": (in_unit_box, [0.5, 0.5], 0.3, UNIT, 0.5, 1e-6),
    "box 3-d with limits": (in_unit_box, [0.5, 0.5, 0.5], 0.3, UNIT, 0.5, 1e-4),
    "box unknown": (in_unit_box, [0.4, 0.5], 0.3, {}, 0.5, 2e-2),
    "box 3-d unknown": (in_unit_box, [0.4, 0.5, 0.6], 0.3, {}, 0.5, 1e-1),
    "banana": (banana, [0.0, 1.0], 1.2, {}, 0.0, 1e-5),
    "student 3": (student(3, 2), [0.0, 0.0], 1.0, {}, 0.0, 1e-5),
    "student 1": (student(1, 2), [0.0, 0.0], 1.0, {}, math.inf, 1e-3),
    "betas": (betas((0.5, 0.5), (2, 3)), [0.5, 0.4], 0.2, UNIT, 0.5, 1e-5),
    "betas 3-d": (betas((0.5, 0.5), (2, 3), (0.3, 4)), [0.5, 0.4, 0.1], 0.2, UNIT, 0.5, 1e-5),
    "dirichlet": (dirichlet(2.0, 3, 4), [0.25, 0.3], 0.15, UNIT, 2 / 9, 1e-4),
    "dirichlet flat": (dirichlet(1.0, 1, 1), [0.3, 0.3], 0.15, UNIT, 1 / 3, 1e-2),
    "dirichlet 3-d": (dirichlet(2.0, 3, 4, 2), [0.2, 0.25, 0.3], 0.12, UNIT, 2 / 11, 2e-2),
}


def integral(name, **options):
    log_p, location, scale, limits, mean, smallest = CASES[name]
    location = torch.tensor(location, dtype=D)
    d = location.shape[-1]
    if isinstance(scale, torch.Tensor):
        scale = torch.linalg.cholesky(scale)
    else:
        scale = torch.tensor(scale, dtype=D).reshape(-1, 1, 1) * torch.eye(d, dtype=D)
    options = {"max_points": 300_000, **options}
    return integrate_nd(log_p, [power(1)], location=location, scale=scale, **limits, **options), mean, smallest


def dishonest(found, mean):
    slack = 1e-13
    wrong = [] if abs(found.total - 1) <= found.total_error + slack else [f"total {found.total} +- {found.total_error}"]
    got, error = float(found.values[1]), float(found.error[1])
    if math.isfinite(mean) and not abs(got - mean) <= error + slack * (1 + abs(mean)):
        wrong.append(f"mean {got} +- {error}, not {mean}")
    if math.isinf(mean) and not error > 0.1:
        wrong.append(f"mean {got} +- {error}, but it diverges")
    return wrong


@pytest.mark.parametrize("name", CASES)
def test_the_error_is_honest_and_useful(name):
    found, mean, smallest = integral(name)
    assert not dishonest(found, mean)
    assert found.total_error <= smallest
    assert not found.converged or found.total_error <= 1e-6 * found.total
    assert found.points <= 350_000  # the budget, and one last grid


def test_entropy_and_second_moments_of_a_correlated_gaussian():
    g = normal([0.0, 0.0], correlated(2))
    found = integrate_nd(
        g.log_prob, [power(2), surprisal, lambda x, lp: x.prod(-1)], location=torch.zeros(2), scale=g.scale_tril
    )
    want = torch.tensor([1.0, float(g.entropy()), 0.99], dtype=D)
    assert ((found.values[1:] - want).abs() <= found.error[1:]).all()
    assert found.converged


@pytest.mark.parametrize("name", ["box unknown", "dirichlet flat", "dirichlet 3-d"])
def test_too_few_points_are_not_convergence(name):
    found, mean, _ = integral(name, max_points=30_000)
    assert not found.converged
    assert not dishonest(found, mean)


def test_an_integrator_that_understates_its_error_is_caught(monkeypatch):
    honest = module._GenzMalik.__call__

    def optimistic(self, *place):
        value, error, size, axis = honest(self, *place)
        return value, error / 1000, size, axis

    monkeypatch.setattr(module._GenzMalik, "__call__", optimistic)
    names = ("box unknown", "box 3-d unknown", "dirichlet flat", "dirichlet 3-d")
    assert any(dishonest(*integral(name, max_points=60_000)[:2]) for name in names)


def test_an_integrator_that_forgets_the_tails_is_caught(monkeypatch):
    monkeypatch.setattr(module, "_extent", lambda integrand, d, rtol, room: (-2 * torch.ones(d), 2 * torch.ones(d)))
    honest = module._grid_sums

    def blind(*where):
        sums, size, beyond, noise = honest(*where)
        return sums, size, beyond * 0, noise

    monkeypatch.setattr(module, "_grid_sums", blind)
    assert dishonest(*integral("student 1")[:2])


def test_peaks_found_by_locate_are_enough():
    log_p = normal([1e3, -2.0], 1e-4 * correlated(2)).log_prob
    found = locate(log_p, 2)
    assert found.found
    total = integrate_nd(log_p, location=found.centres, scale=found.scales)
    assert total.converged
    assert abs(total.total - 1) <= total.total_error + 1e-9


def test_a_gaussian_in_three_dimensions_takes_less_than_a_second():
    start = time.process_time()
    integral("gaussian 3-d 0.99")
    assert time.process_time() - start < 1.0
