"""`torch.distributions`: the model says what the distribution says, defects included, and nothing else is disturbed."""

import math

import pytest
import torch
import torch.distributions as td
from torch import tensor
from torch.distributions import constraints

from harness.adapters import adapt

PLANE = tensor([[2.0, 0.5], [0.5, 1.0]])
LAWS = {
    "normal": lambda: td.Normal(0.0, 1.0),
    "normal batch": lambda: td.Normal(torch.zeros(2, 3), tensor([1.0, 2.0, 3.0])),
    "bernoulli": lambda: td.Bernoulli(logits=tensor([0.3, -2.0])),
    "beta": lambda: td.Beta(tensor([2.0, 0.5]), 0.5),
    "binomial": lambda: td.Binomial(tensor([3.0, 10.0]), tensor([0.3, 0.9])),
    "categorical": lambda: td.Categorical(tensor([0.2, 0.3, 0.5])),
    "categorical batch": lambda: td.Categorical(logits=tensor([[0.2, 0.3], [1.0, 2.0]])),
    "cauchy": lambda: td.Cauchy(0.0, 1.0),
    "chi2": lambda: td.Chi2(tensor(3.0)),
    "continuous bernoulli": lambda: td.ContinuousBernoulli(tensor(0.3)),
    "dirichlet": lambda: td.Dirichlet(tensor([[0.5, 2.0, 3.0], [1.0, 1.0, 1.0]])),
    "exponential": lambda: td.Exponential(tensor(2.0)),
    "fisher": lambda: td.FisherSnedecor(tensor(5.0), tensor(6.0)),
    "gamma": lambda: td.Gamma(tensor([0.5, 2.0]), 3.0),
    "generalised pareto": lambda: td.GeneralizedPareto(tensor(0.0), tensor(1.0), tensor(0.2)),
    "geometric": lambda: td.Geometric(tensor(0.3)),
    "gumbel": lambda: td.Gumbel(tensor(1.0), tensor(2.0)),
    "half cauchy": lambda: td.HalfCauchy(tensor(2.0)),
    "half normal": lambda: td.HalfNormal(tensor(2.0)),
    "independent": lambda: td.Independent(td.Normal(torch.zeros(2, 3), 1.0), 1),
    "inverse gamma": lambda: td.InverseGamma(tensor(3.0), tensor(2.0)),
    "kumaraswamy": lambda: td.Kumaraswamy(tensor(2.0), tensor(3.0)),
    "lkj": lambda: td.LKJCholesky(3, 1.5),
    "laplace": lambda: td.Laplace(tensor(1.0), tensor(2.0)),
    "log-normal": lambda: td.LogNormal(tensor([0.0, 1.0]), 0.5),
    "logistic-normal": lambda: td.LogisticNormal(tensor([0.0, 1.0]), tensor([1.0, 1.0])),
    "low rank": lambda: td.LowRankMultivariateNormal(torch.zeros(2), tensor([[1.0], [0.5]]), torch.ones(2)),
    "mixture": lambda: td.MixtureSameFamily(td.Categorical(tensor([0.3, 0.7])), td.Normal(tensor([-2.0, 2.0]), 1.0)),
    "mixture of vectors": lambda: td.MixtureSameFamily(
        td.Categorical(tensor([0.3, 0.7])), td.MultivariateNormal(tensor([[-2.0, 0.0], [2.0, 1.0]]), torch.eye(2))
    ),
    "multinomial": lambda: td.Multinomial(5, tensor([0.2, 0.3, 0.5])),
    "multivariate normal": lambda: td.MultivariateNormal(tensor([0.0, 1.0]), PLANE),
    "multivariate normal batch": lambda: td.MultivariateNormal(torch.zeros(3, 2), precision_matrix=PLANE),
    "negative binomial": lambda: td.NegativeBinomial(tensor(5.0), logits=tensor(0.4)),
    "one-hot": lambda: td.OneHotCategorical(tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])),
    "one-hot straight through": lambda: td.OneHotCategoricalStraightThrough(tensor([0.2, 0.3, 0.5])),
    "pareto": lambda: td.Pareto(tensor(1.0), tensor(3.0)),
    "relaxed bernoulli": lambda: td.RelaxedBernoulli(tensor(0.7), tensor(0.3)),
    "relaxed one-hot": lambda: td.RelaxedOneHotCategorical(tensor(0.7), logits=tensor([0.2, 0.3, 0.5])),
    "student": lambda: td.StudentT(tensor(5.0), 1.0, 2.0),
    "poisson": lambda: td.Poisson(tensor([0.1, 40.0])),
    "uniform": lambda: td.Uniform(tensor([-1.0, 0.0]), tensor([2.0, 1.0])),
    "von mises": lambda: td.VonMises(tensor(1.0), tensor(2.0)),
    "weibull": lambda: td.Weibull(tensor(2.0), tensor(1.5)),
    "wishart": lambda: td.Wishart(tensor(4.0), torch.eye(2)),
    "transformed uniform": lambda: td.TransformedDistribution(td.Uniform(0.0, 1.0), td.AffineTransform(3.0, -2.0)),
    "stick-breaking": lambda: td.TransformedDistribution(td.Normal(torch.zeros(3), 1.0), td.StickBreakingTransform()),
}


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def over_batch(law, value):
    """A value a batch element, summed."""
    batch = len(law.batch_shape)
    return value.sum(tuple(range(-batch, 0))) if batch else value


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]()


def test_it_draws_and_scores_as_the_distribution_does(law):
    model = adapt(law)
    x = model.sample(5, generator=stream())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert torch.equal(x, law.sample((5,)))
    assert model.event_shape == tuple(x.shape[1:]) == tuple(law.batch_shape + law.event_shape)
    assert torch.equal(model.log_prob(x), over_batch(law, law.log_prob(x)))
    assert model.support.check(x).shape == (5,)


def test_the_global_generator_is_left_as_it_was(law):
    before = torch.get_rng_state()
    model = adapt(law)
    model.log_prob(model.sample(3, generator=stream()))
    assert torch.equal(before, torch.get_rng_state())


def test_its_own_generator_goes_on(law):
    generator, model = stream(), adapt(law)
    first, second = model.sample(50, generator=generator), model.sample(50, generator=generator)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", [name for name in LAWS if name != "generalised pareto"])
def test_a_cast_is_what_the_constructor_would_make_of_float64_parameters(name):
    law = LAWS[name]()
    wide = adapt(law).cast(torch.float64)
    x = wide.sample(4, generator=stream())
    assert wide.log_prob(x).dtype == torch.float64
    assert wide.can(*adapt(law).methods)
    if name.startswith("categorical"):
        assert abs(wide.target.logits.exp().sum(-1) - 1).max() <= 8 * torch.finfo(torch.float64).eps
    if name == "multivariate normal batch":
        factor = wide.target.scale_tril
        assert (wide.target.covariance_matrix - factor @ factor.mT).abs().max() <= 8 * torch.finfo(torch.float64).eps


def test_moments_and_entropy_are_the_distributions_own():
    law = td.Gamma(tensor([0.5, 2.0]), 3.0)
    model = adapt(law)
    assert torch.equal(model.mean(), law.mean)
    assert torch.equal(model.variance(), law.variance)
    assert torch.equal(model.entropy(), law.entropy().sum())


def test_the_covariance_of_a_batch_has_a_block_for_each_element():
    law = td.MultivariateNormal(torch.zeros(2, 2), torch.stack([PLANE, torch.eye(2)]))
    assert torch.equal(adapt(law).covariance(), torch.block_diag(*law.covariance_matrix))
    assert torch.equal(adapt(td.Independent(law, 1)).covariance(), torch.block_diag(*law.covariance_matrix))


def test_the_parameter_of_a_wishart_law_is_not_its_covariance():
    assert not adapt(td.Wishart(tensor(4.0), torch.eye(2))).can("covariance")


def test_what_a_family_does_not_implement_is_no_capability():
    assert not adapt(td.Poisson(tensor(3.0))).can("entropy")
    assert not adapt(td.TransformedDistribution(td.Beta(tensor(2.0), tensor(3.0)), td.ExpTransform())).can("cdf")
    assert not adapt(td.LKJCholesky(3)).can("mean")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_distribution_and_quantile_function_of_one_element_keep_the_shape_of_events(shape):
    model = adapt(td.Normal(torch.zeros(shape), 2.0))
    u = tensor([0.1, 0.5, 0.9])
    x = model.icdf(u)
    assert x.shape == (3, *shape)
    assert model.cdf(x).shape == (3,)
    assert (model.cdf(x) - u).abs().max() <= 8 * torch.finfo(torch.float32).eps


def test_several_elements_have_no_distribution_function():
    assert not adapt(td.Normal(torch.zeros(2), 1.0)).can("cdf")


@pytest.mark.parametrize(
    ("law", "outside"),
    [
        (td.Gamma(2.0, 1.0), [-1.0, math.nan]),
        (td.Beta(2.0, 1.0), [-0.1, 1.1]),
        (td.Poisson(3.0), [-1.0, 0.5]),
        (td.Bernoulli(0.3), [0.5, 2.0]),
        (td.Categorical(torch.ones(3)), [-1, 3]),
        (td.TransformedDistribution(td.Uniform(0.0, 1.0), td.AffineTransform(3.0, -2.0)), [0.9, 3.1]),
        (td.TransformedDistribution(td.Gamma(2.0, 1.0), [td.AffineTransform(1.0, 1.0)]), [0.5]),
        (td.Dirichlet(torch.ones(2)), [[0.5, 0.6], [-0.5, 1.5]]),
        (td.Uniform(tensor([0.0, 0.0]), 1.0), [[0.5, 2.0], [2.0, 0.5]]),
    ],
)
def test_the_density_is_zero_outside_and_unchanged_beside_it(law, outside):
    model, x = adapt(law), tensor(outside)
    assert (model.log_prob(x) == -math.inf).all()
    inside = model.sample(4, generator=stream())
    mixed = torch.cat([inside, x.to(inside)])
    values = model.log_prob(mixed)
    assert torch.equal(values[:4], model.log_prob(inside))
    assert (values[4:] == -math.inf).all()


def test_matrices_are_judged_one_by_one():
    model = adapt(td.Wishart(tensor(4.0), torch.eye(2)))
    lopsided, indefinite = tensor([[1.0, 0.5], [0.0, 1.0]]), tensor([[1.0, 2.0], [2.0, 1.0]])
    values = model.log_prob(torch.stack([torch.eye(2), lopsided, indefinite]))
    assert (values > -math.inf).tolist() == [True, False, False]


def test_the_gradient_outside_is_zero_and_inside_the_distributions():
    model = adapt(td.Gamma(2.0, 1.0))
    for points in ([-1.0, 1.0], [-1.0, -2.0]):
        x = tensor(points, requires_grad=True)
        (gradient,) = torch.autograd.grad(model.log_prob(x).nan_to_num(neginf=0.0).sum(), x)
        assert torch.equal(gradient, torch.where(x > 0, 1 / x - 1, 0.0))


def test_the_support_answers_once_an_event():
    model = adapt(td.Uniform(tensor([0.0, 1.0]), tensor([1.0, 2.0])))
    assert model.support.check(tensor([[0.5, 1.5], [0.5, 0.5]])).tolist() == [True, False]


def test_a_sibling_is_of_the_same_family_elsewhere_and_near():
    for name, law in LAWS.items():
        model = adapt(law())
        if model.sibling is not None:
            sibling = model.sibling()
            assert type(sibling.target) is type(model.target), name
            assert 0 < model.kl(sibling) < 100, name  # a sum over a few elements of at most 2 nats each
    assert adapt(td.Normal(0.0, 1e-6)).sibling() is not None
    assert adapt(td.Pareto(tensor(2.0), tensor(0.7))).kl(adapt(td.Pareto(tensor(2.0), tensor(0.7)))) == 0


def test_a_distribution_with_a_fixed_number_of_trials_keeps_it():
    sibling = adapt(td.Binomial(7, tensor(0.3))).sibling()
    assert sibling.target.total_count == 7
    assert sibling.target.probs != 0.3


# What others added, and what others broke.


class Fitted(td.Normal):
    def fit(self, x):
        return Fitted(x.mean(), x.std(correction=0))

    def covariance(self):
        return self.variance.reshape(1, 1)


def test_a_subclass_has_the_capabilities_that_it_adds():
    model = adapt(Fitted(tensor(0.0), tensor(1.0)), "mine")
    assert model.covariance() == 1.0
    fitted = model.fit(tensor([1.0, 3.0]))
    assert fitted.mean() == 2.0
    assert fitted.can("log_prob", "fit", "covariance")


def test_a_subclass_may_speak_the_contract_in_place_of_torch():
    class Own(td.Normal):
        def sample(self, n, *, generator):
            return torch.zeros(n)

    class Torch(td.Normal):
        def sample(self, sample_shape=(), **keywords):
            return torch.ones(sample_shape)

    assert adapt(Own(0.0, 1.0)).sample(3, generator=stream()).tolist() == [0, 0, 0]
    assert adapt(Torch(0.0, 1.0)).sample(3, generator=stream()).tolist() == [1, 1, 1]


def test_a_subclass_with_a_method_of_another_signature_is_told():
    class Odd(td.Normal):
        def fit(self, x, y): ...

    assert "fit(x, y) cannot be called as fit(x)" in adapt(Odd(0.0, 1.0)).unfit["fit"]
    assert adapt(td.Normal(0.0, 1.0)).unfit == {}


@pytest.mark.parametrize("wrong", [lambda x: x.sum(), lambda x: x[:, None], lambda x: x * math.nan, lambda x: None])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_wrong_log_density_gets_through(wrong, batch):
    class Wrong(td.Normal):
        def log_prob(self, value):
            return wrong(super().log_prob(value))

    law = Wrong(torch.zeros(batch), 1.0)
    model = adapt(law)
    value = model.log_prob(model.sample(3, generator=stream()))
    assert value is None or value.shape != (3,) or bool(value.isnan().all())


def test_a_moment_of_the_wrong_type_gets_through():
    class Wrong(td.Normal):
        mean = property(lambda self: "zero")

        def entropy(self):
            return torch.zeros(7)

    model = adapt(Wrong(torch.zeros(2), 1.0))
    assert model.mean() == "zero"
    assert model.entropy().shape == (7,)


def test_a_property_that_raises_raises_when_it_is_asked():
    class Wrong(td.Normal):
        @property
        def variance(self):
            raise OSError("disk")

    model = adapt(Wrong(0.0, 1.0))
    with pytest.raises(OSError, match="disk"):
        model.variance()


def test_a_subclass_keeps_its_state_in_a_cast():
    class Shifted(td.Normal):
        def __init__(self, shift):
            self.shift = shift
            super().__init__(tensor(0.1), tensor(1.0))

        def log_prob(self, value):
            return super().log_prob(value - self.shift)

    wide = adapt(Shifted(tensor(0.5))).cast(torch.float64)
    assert wide.target.shift.dtype == torch.float64
    assert wide.log_prob(tensor([0.6], dtype=torch.float64)).dtype == torch.float64


def test_the_parameters_may_have_a_graph():
    scale = torch.ones((), requires_grad=True).exp()
    model = adapt(td.Normal(0.0, scale))
    assert model.cast(torch.float64).sample(1, generator=stream()).dtype == torch.float64
    assert model.sibling is not None


def test_a_support_that_raises_is_no_support():
    class Unknown(td.Distribution):
        def sample(self, sample_shape=()):
            return torch.randn(sample_shape)

        def log_prob(self, value):
            return -value.abs() - math.log(2)

    model = adapt(Unknown(validate_args=False))
    assert model.support is None
    assert set(model.methods) == {"sample", "log_prob"}
    assert (
        adapt(td.Independent(td.Normal(torch.zeros(2), 1.0), 1)).support.event_dim == constraints.real_vector.event_dim
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_a_gpu_leaves_both_global_generators_alone():
    model = adapt(td.Gamma(tensor([0.5, 2.0]), 3.0), device="cuda")
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    draws = [model.sample(5, generator=torch.Generator("cuda").manual_seed(1)) for _ in range(2)]
    assert draws[0].is_cuda
    assert torch.equal(*draws)
    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.equal(before[1], torch.cuda.get_rng_state())
    assert model.log_prob(draws[0]).is_cuda
    assert model.cast(torch.float64).log_prob(draws[0].double()).is_cuda


@pytest.mark.parametrize(
    ("law", "why"),
    [
        (td.TransformedDistribution(td.Normal(0.0, 1.0), [td.transforms.AbsTransform()]), "log_abs_det_jacobian"),
        (
            td.relaxed_categorical.ExpRelaxedCategorical(tensor(0.7), tensor([0.3, 0.2, 0.5])),
            "surface",
        ),
    ],
    ids=["no Jacobian", "a surface"],
)
def test_what_has_no_density_of_volume_is_a_sampler_that_says_why(law, why):
    model = adapt(law)
    assert model.can("sample")
    assert not model.can("log_prob")
    assert why in model.unfit["log_prob"]


def test_a_sibling_keeps_to_what_its_transforms_are_defined_on():
    normal = td.TransformedDistribution(
        td.Uniform(0.0, 1.0), [td.transforms.CumulativeDistributionTransform(td.Normal(0.0, 1.0)).inv]
    )
    sibling = adapt(normal).sibling
    assert sibling is None or bool(sibling().sample(4096, generator=torch.Generator().manual_seed(0)).isfinite().all())


def test_no_events_have_no_densities_even_where_no_draw_is_possible():
    parts = td.Uniform(tensor([0.0, 2.0]), tensor([1.0, 4.0]))  # torch intersects these
    model = adapt(td.MixtureSameFamily(td.Categorical(tensor([0.3, 0.7])), parts))
    assert model.log_prob(torch.empty(0)).shape == (0,)


class Exhausted(td.Normal):
    """Runs out of memory when it is asked for its support, its entropy or a draw."""

    @property
    def support(self):
        raise MemoryError

    def entropy(self):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")


def test_running_out_of_memory_is_not_taken_for_an_answer():
    with pytest.raises((MemoryError, RuntimeError)):
        adapt(Exhausted(0.0, 1.0))


def test_shapes_may_be_plain_tuples_as_in_some_subclasses():
    class Tuples(td.Poisson):
        batch_shape, event_shape = (), ()

    model = adapt(Tuples(tensor(3.0)))
    assert model.event_shape == ()
    assert model.sample(4, generator=stream()).shape == (4,)
