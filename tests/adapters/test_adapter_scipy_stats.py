"""`scipy.stats`: the model says what scipy says, whatever conventions the distribution has."""

import math

import numpy as np
import pytest
import scipy.stats as st
import torch
from torch import tensor

from harness.adapters import NotAModel, adapt

SCALARS = {
    "norm": lambda: st.norm(1.0, 2.0),
    "norm without parameters": lambda: st.norm,
    "gamma": lambda: st.gamma(2.5),
    "beta": lambda: st.beta(2.0, 0.5, loc=1.0, scale=3.0),
    "weibull_max": lambda: st.weibull_max(2.9),
    "t": lambda: st.t(2.7),
    "poisson": lambda: st.poisson(3.0),
    "poisson moved": lambda: st.poisson(3.0, loc=-2),
    "binom": lambda: st.binom(5, 0.4),
    "skellam": lambda: st.skellam(15, 8),
    "values": lambda: st.rv_discrete(values=([1, 2, 5], [0.2, 0.3, 0.5])),
    "values between integers": lambda: st.rv_discrete(values=([0.5, 1.5], [0.3, 0.7])),
    "histogram": lambda: st.rv_histogram((np.array([1, 2, 0, 3]), np.array([0.0, 1.0, 2.0, 3.0, 4.0]))),
    "normal batch": lambda: st.norm([0.0, 1.0], [1.0, 2.0]),
    "poisson batch": lambda: st.poisson([[1.0], [20.0]]),
}

NEW = {
    "Normal": lambda: st.Normal(mu=1.0, sigma=2.0),
    "Normal batch": lambda: st.Normal(mu=[0.0, 1.0]),
    "Binomial": lambda: st.Binomial(n=5, p=0.3),
    "Mixture": lambda: st.Mixture([st.Normal(), st.Normal(mu=3.0)], weights=[0.3, 0.7]),
    "exp": lambda: st.exp(st.Normal()),
    "truncate": lambda: st.truncate(st.Normal(), lb=0.0, ub=2.0),
    "affine": lambda: 1 - 3 * st.make_distribution(st.gamma)(a=2.0),
}

VECTORS = {
    "multivariate_normal": lambda: st.multivariate_normal([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]]),
    "multivariate_normal in one dimension": lambda: st.multivariate_normal(0.0, 2.0),
    "multivariate_t": lambda: st.multivariate_t([0.0, 1.0], np.eye(2), 4),
    "dirichlet": lambda: st.dirichlet([0.5, 2.0, 3.0]),
    "multinomial": lambda: st.multinomial(5, [0.2, 0.3, 0.5]),
    "multivariate_hypergeom": lambda: st.multivariate_hypergeom([3, 4, 5], 4),
    "matrix_normal": lambda: st.matrix_normal(np.zeros((2, 3))),
    "wishart": lambda: st.wishart(4, np.eye(2)),
    "invwishart": lambda: st.invwishart(6, np.eye(3)),
    "random_table": lambda: st.random_table([2, 3], [1, 4]),
    "normal_inverse_gamma": lambda: st.normal_inverse_gamma(0.0, 1.0, 3.0, 2.0),
    "gaussian_kde": lambda: st.gaussian_kde(np.random.default_rng(0).normal(size=(2, 20))),
    "gaussian_kde in one dimension": lambda: st.gaussian_kde(np.random.default_rng(0).normal(size=20)),
}
SAMPLERS = {
    "ortho_group": lambda: st.ortho_group(3),
    "random_correlation": lambda: st.random_correlation([0.5, 1.5]),
    "uniform_direction": lambda: st.uniform_direction(3),
    "vonmises_fisher": lambda: st.vonmises_fisher([0.0, 1.0], 2.0),
    "singular normal": lambda: st.multivariate_normal([0.0, 0.0], np.ones((2, 2)), allow_singular=True),
}
EVERY = {**SCALARS, **NEW, **VECTORS, **SAMPLERS}


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", EVERY)
def test_draws_depend_on_the_generator_alone_and_disturb_nothing(name):
    model = adapt(EVERY[name]())
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    x = model.sample(20, generator=stream())
    assert torch.equal(x, model.sample(20, generator=stream()))
    assert not torch.equal(x, model.sample(20, generator=stream(1)))
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(legacy, np.random.get_state()[1])
    assert x.shape == (20, *model.event_shape)
    for n in (0, 1):
        assert model.sample(n, generator=stream()).shape == (n, *model.event_shape)


@pytest.mark.parametrize("name", [*SCALARS, *NEW, *VECTORS])
def test_every_draw_lies_in_the_support_and_has_a_density(name):
    model = adapt(EVERY[name]())
    x = model.sample(50, generator=stream())
    assert model.log_prob(x).shape == (50,)
    assert model.log_prob(x).isfinite().all()
    assert model.log_prob(x[:1]).shape == (1,)
    assert model.log_prob(x[:0]).shape == (0,)
    if model.support is not None:
        assert model.support.check(x).tolist() == [True] * 50


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_law_on_a_surface_has_no_density_here(name):
    assert set(adapt(SAMPLERS[name]()).methods) & {"log_prob", "entropy"} == set()


def test_values_are_scipys():
    law = st.gamma(2.5)
    model = adapt(law)
    x, u = tensor([0.5, 1.0, 2.0], dtype=torch.float64), tensor([0.1, 0.9], dtype=torch.float64)
    assert model.log_prob(x).tolist() == law.logpdf(x.numpy()).tolist()
    assert model.cdf(x).tolist() == law.cdf(x.numpy()).tolist()
    assert model.icdf(u).tolist() == law.ppf(u.numpy()).tolist()
    assert (model.mean(), model.variance(), model.entropy()) == (law.mean(), law.var(), law.entropy())


def test_values_of_the_newer_variables_are_scipys():
    law = st.exp(st.Normal())
    model = adapt(law)
    x = tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    assert model.log_prob(x).tolist() == law.logpdf(x.numpy()).tolist()
    assert model.mean() == law.mean()
    assert model.variance() == law.variance()


def test_a_batch_is_one_event_of_independent_coordinates():
    law = st.norm([0.0, 1.0], [1.0, 2.0])
    model = adapt(law)
    x = model.sample(4, generator=stream())
    assert model.log_prob(x).tolist() == law.logpdf(x.numpy()).sum(1).tolist()
    assert model.entropy() == law.entropy().sum()
    assert model.mean().tolist() == [0.0, 1.0]
    assert not model.can("cdf")
    assert not model.can("icdf")


@pytest.mark.parametrize("name", ["dirichlet", "multivariate_hypergeom", "multivariate_normal"])
def test_moments_of_vectors_are_those_of_draws(name):
    model, n = adapt(VECTORS[name]()), 20_000
    x = model.sample(n, generator=stream()).double()
    error = torch.cov(x.T) / n
    assert ((x.mean(0) - model.mean()).abs() <= 5 * error.diagonal().sqrt()).all()
    # A fourth moment is at most 3 variances squared here (Gaussian or bounded): so much does a covariance vary.
    spread = (3 * model.covariance().diagonal().outer(model.covariance().diagonal()) / n).sqrt()
    assert ((torch.cov(x.T) - model.covariance()).abs() <= 5 * spread).all()


def test_the_density_of_each_row_is_scipys_whatever_axis_it_wants():
    for name in ("dirichlet", "wishart", "multinomial", "matrix_normal"):
        law = VECTORS[name]()
        model = adapt(law)
        x = model.sample(6, generator=stream())
        one_by_one = [
            float(np.squeeze((law.logpmf if name == "multinomial" else law.logpdf)(row.numpy()))) for row in x
        ]
        assert (model.log_prob(x) - tensor(one_by_one, dtype=torch.float64)).abs().max() <= 1e3 * torch.finfo(
            torch.float64
        ).eps


@pytest.mark.parametrize(
    ("law", "outside"),
    [
        (st.gamma(2.0), [-1.0]),
        (st.poisson(3.0), [-1.0, 0.5]),
        (st.truncate(st.Normal(), lb=0.0, ub=2.0), [-0.1, 2.1]),
        (st.dirichlet([1.0, 2.0]), [[0.5, 0.6], [1.5, -0.5]]),
        (st.dirichlet([0.5, 2.0]), [[0.0, 1.0]]),
        (st.wishart(4, np.eye(2)), [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]]]),
        (st.multinomial(2, [0.5, 0.5]), [[1, 2], [-1, 3]]),
        (st.random_table([2, 3], [1, 4]), [[[3, -1], [-2, 5]], [[0.5, 1.5], [0.5, 2.5]]]),
    ],
)
def test_the_density_is_zero_outside_and_unchanged_beside_it(law, outside):
    model, x = adapt(law), tensor(outside)
    inside = model.sample(3, generator=stream())
    values = model.log_prob(torch.cat([inside.double(), x.double()]))
    assert torch.equal(values[:3], model.log_prob(inside))
    assert (values[3:] == -math.inf).all()
    assert (model.log_prob(x) == -math.inf).all()


@pytest.mark.parametrize(("name", "dtype"), [("norm", "float64"), ("poisson", "int64"), ("Binomial", "int64")])
def test_draws_are_float64_or_int64(name, dtype):
    model = adapt(EVERY[name](), dtype=torch.float32)  # a request that scipy cannot follow
    assert str(model.sample(2, generator=stream()).dtype) == f"torch.{dtype}"
    assert model.cast is None
    assert model.log_prob(model.sample(2, generator=stream())).dtype == torch.float64


def test_values_between_integers_stay_between_them():
    x = adapt(SCALARS["values between integers"]()).sample(20, generator=stream())
    assert sorted(set(x.tolist())) == [0.5, 1.5]


@pytest.mark.parametrize(
    ("law", "inside", "outside"),
    [
        (st.norm(), [-1e9, 1e9], []),
        (st.gamma(2.0, loc=1.0), [1.0, 5.0], [0.9]),
        (st.weibull_max(2.0, loc=1.0), [1.0, -5.0], [1.1]),
        (st.uniform(1.0, 2.0), [1.0, 3.0], [0.9, 3.1]),
        (st.poisson(3.0, loc=-2), [-2.0, 0.0], [-3.0, 0.5]),
        (st.binom(5, 0.5), [0.0, 5.0], [-1.0, 6.0, 0.5]),
    ],
)
def test_the_support_is_scipys_closed_interval(law, inside, outside):
    support = adapt(law).support
    assert support.check(tensor(inside)).all()
    assert not support.check(tensor(outside)).any()


def test_a_half_line_below_has_a_bijection_for_charts():
    transform = torch.distributions.biject_to(adapt(st.weibull_max(2.0, loc=1.0)).support)
    assert (transform(torch.linspace(-3, 3, 5)) < 1).all()


@pytest.mark.parametrize(
    ("law", "fix"),
    [
        (st.gamma, r"scipy\.stats\.gamma\(a=\.\.\.\)"),
        (st.multivariate_normal, "call it with parameters"),
        (st.unitary_group(2), "complex"),
    ],
)
def test_a_family_is_refused_with_the_fix(law, fix):
    with pytest.raises(NotAModel, match=fix):
        adapt(law)


def test_a_moment_that_does_not_exist_is_not_stated():
    assert not adapt(st.invwishart(4, np.eye(2))).can("variance")
    assert adapt(st.invwishart(6, np.eye(2))).can("variance")


def test_a_law_without_a_sampler_is_a_density():
    assert set(adapt(st.dirichlet_multinomial([1.0, 2.0], 4)).methods) == {"log_prob", "mean", "variance", "covariance"}


def test_a_custom_distribution_is_adapted_with_its_defects():
    class Triangle(st.rv_continuous):
        def _pdf(self, x):
            return 3 * x  # 2 x would be normalised

    model = adapt(Triangle(a=0.0, b=1.0))
    assert model.log_prob(tensor([0.5])) == math.log(1.5)


def test_a_subclass_has_the_capabilities_that_it_adds():
    class Known(type(st.norm())):
        def kl(self, other):
            return (self.mean() - other.mean()) ** 2 / 2

        def fit(self, x, weights): ...

    model = adapt(Known(st.norm, 1.0))
    assert model.kl(adapt(Known(st.norm, 3.0))) == 2.0
    assert "fit(x, weights) cannot be called" in model.unfit["fit"]
    assert model.log_prob(tensor([1.0])) == st.norm.logpdf(0.0)


def test_an_array_that_is_no_number_is_passed_on():
    class Words(st.rv_continuous):
        def _pdf(self, x):
            return x

        def entropy(self, *args, **keywords):
            return "unknown"

    assert adapt(Words(a=0.0, b=1.0)).entropy() == "unknown"


def test_a_sampler_that_refuses_none_draws_none():
    law = st.kstwo(10)
    with pytest.raises(ValueError, match="zero-sized"):
        law.rvs(size=0)
    assert adapt(law).sample(0, generator=torch.Generator().manual_seed(0)).shape == (0,)


def test_a_law_on_the_circle_is_one_turn():
    model = adapt(st.vonmises(2.0, loc=5.0))
    x = model.sample(1000, generator=torch.Generator().manual_seed(0))
    assert bool(model.support.check(x).all())
    assert model.log_prob(tensor([4.0, -4.0])).tolist() == [-math.inf, -math.inf]
    inside = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)
    mass = torch.trapezoid(model.log_prob(inside).exp(), inside)
    assert float(mass) == pytest.approx(1.0, abs=1e-12)  # the trapezoidal rule of a smooth periodic function
    assert not model.can("cdf")
    assert "circle" in model.unfit["cdf"]


def test_a_density_on_a_surface_says_why_it_is_left_out():
    model = adapt(st.vonmises_fisher([0, 0, 1], 5.0))
    assert not model.can("log_prob")
    assert "surface" in model.unfit["log_prob"]


def test_counts_that_are_no_numbers_of_things_have_no_mass():
    model = adapt(st.dirichlet_multinomial([1.0, 2.0, 3.0], 5))
    x = tensor([[1, 2, 2], [-1, 3, 3], [1, 1, 1]])
    assert model.log_prob(x).isfinite().tolist() == [True, False, False]
    assert model.log_prob(tensor([[0.5, 2.5, 2.0]])).tolist() == [-math.inf]


def test_a_density_of_counts_without_a_sampler_is_summed():
    from harness import check_model

    report = check_model(adapt(st.dirichlet_multinomial([1.0, 2.0, 3.0], 5)), effort="quick")
    verdicts = {record.check: record.verdict.value for record in report.records}
    assert verdicts["density.sums_to_one"] == "PASS"
    assert not {"FAIL", "ERROR"} & set(verdicts.values())
