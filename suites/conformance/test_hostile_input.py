"""Input that a careless or hostile user gives classical models: a right number, or one error that says what to do."""

import math

import pytest
import torch

from reference_impls import (
    autoregressive_logistic,
    bayesian_network,
    bernoulli_mixture,
    chow_liu,
    dequantisation,
    energy,
    gaussian,
    gaussian_missing,
    gaussian_streaming,
    generative_classifier,
    ising,
    logistic,
    markov_chain,
    mixture,
    rbm,
    tables,
    uniform,
)
from reference_impls.autoregressive_logistic import AutoregressiveLogistic, AutoregressiveSoftmax
from reference_impls.bayesian_network import BayesianNetwork
from reference_impls.discrete import Bernoulli, Categorical
from reference_impls.energy import GaussianEnergy, NeuralEnergy, langevin
from reference_impls.gaussian import Gaussian
from reference_impls.generative_classifier import GenerativeClassifier
from reference_impls.ising import IsingGrid
from reference_impls.logistic import SoftmaxRegression
from reference_impls.markov_chain import MarkovChain
from reference_impls.mixture import GaussianMixture, fit_mixture
from reference_impls.rbm import RestrictedBoltzmannMachine
from reference_impls.tables import ChainRuleTable, JointTable
from reference_impls.uniform import DiscreteUniform

NAN, INF = math.nan, math.inf


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


FAIR = float64([0.5, 0.5])
HALVES = float64([[0.5, 0.5], [0.5, 0.5]])
BYTES = torch.tensor([0, 1, 254, 255], dtype=torch.uint8)

# Dtypes


@pytest.mark.parametrize(
    "model",
    [
        Categorical(torch.arange(1.0, 257).double() / torch.arange(1.0, 257).double().sum()),
        DiscreteUniform(256),
        uniform.grey_level(),
    ],
)
def test_levels_may_come_as_bytes(model):
    assert torch.equal(model.log_prob(BYTES), model.log_prob(BYTES.long()))
    assert model.log_prob(BYTES).isfinite().all()


def test_images_may_come_as_bytes():
    row = BYTES[None, 2:]  # (1, 2)
    grey = AutoregressiveSoftmax.uniform(2).fit(row, l2=1.0)
    assert torch.equal(grey.log_prob(row), grey.log_prob(row.long()))
    assert grey.log_prob(row).isfinite().all()
    bits = autoregressive_logistic.six_bits().sample(20, generator=generator())
    for model in (autoregressive_logistic.six_bits(), bernoulli_mixture.strokes().marginal(range(6))):
        assert torch.equal(model.log_prob(bits.byte()), model.log_prob(bits))
    labels = SoftmaxRegression(drawn(256, 2), drawn(256))
    assert torch.equal(
        labels.log_prob(BYTES, given=torch.ones(2).double()),
        labels.log_prob(BYTES.long(), given=torch.ones(2).double()),
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64])
def test_cells_of_a_flow_end_at_the_last_level(dtype):
    model = dequantisation.grey_line()
    x = torch.tensor([[model.levels - 1] * model.d, [model.levels] * model.d, [0] * model.d]).to(dtype)
    assert model.log_prob(x).isfinite().tolist() == [True, False, True]


def test_spins_may_come_as_whole_numbers():
    """The coupling is no whole number, whatever the spins are."""
    model, s = ising.ising_3x3(), ising.ising_3x3().sample(50, generator=generator())
    moved = [model.gibbs(spins, 3, generator=generator(1)) for spins in (s, s.long())]
    assert moved[1].dtype == torch.int64
    assert torch.equal(moved[0], moved[1].float())


def test_weights_may_come_as_whole_numbers():
    ones, halves, x = torch.ones(2, 2), torch.full((2,), 0.5), torch.ones(1, 2)
    for build in (
        lambda weight: RestrictedBoltzmannMachine(weight, halves, halves),
        lambda weight: NeuralEnergy(1.5, weight, halves, halves),
        lambda weight: GaussianEnergy(halves, 2 * torch.eye(2).to(weight)),
        lambda weight: AutoregressiveLogistic(weight.tril(-1), halves),
    ):
        assert torch.equal(build(ones.long()).log_prob(x), build(ones).log_prob(x))


# Near-singular and singular


@pytest.mark.parametrize(("dtype", "condition"), [(torch.float64, 1e12), (torch.float32, 1e6)])
@pytest.mark.parametrize("d", [2, 5, 16])
def test_near_singular_covariances_are_taken(dtype, condition, d):
    axes = torch.linalg.qr(drawn(d, d, seed=d)).Q
    variance = torch.logspace(0, -math.log10(condition), d, dtype=torch.float64)
    sigma = ((axes * variance) @ axes.mT).to(dtype)
    sigma = (sigma + sigma.mT) / 2
    model = Gaussian(torch.zeros(d, dtype=dtype), sigma)
    assert torch.allclose(model.covariance(), sigma, rtol=0, atol=4 * d * torch.finfo(dtype).eps)  # of entries below 1
    pair = torch.eye(d, dtype=torch.float64)
    pair[0, 1] = pair[1, 0] = 1 - 2 / condition
    Gaussian(torch.zeros(d, dtype=dtype), pair.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_covariance_of_too_few_draws_is_refused_whatever_rounding_made_of_it(dtype):
    for seed in range(30):
        for n, d in ((1, 2), (3, 4), (7, 8)):
            x = drawn(n, d, seed=seed, dtype=dtype)
            with pytest.raises(ValueError, match="not positive definite"):
                Gaussian(torch.zeros(d, dtype=dtype), x.mT @ x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_draws_in_a_plane_have_no_density(dtype, scale):
    constant = torch.cat([drawn(7, 1, dtype=dtype), torch.full((7, 1), 0.1, dtype=dtype)], 1) * scale
    flat = (drawn(40, 2, dtype=dtype) @ drawn(2, 3, seed=1, dtype=dtype) + 5) * scale
    near = flat + scale * 1e-3 * drawn(40, 3, seed=2, dtype=dtype)
    for x in (constant, flat):
        for fit in (Gaussian.fit, lambda x: gaussian_streaming.fit_stream(x.double().split(3))):
            if x.dtype == torch.float64 or fit == Gaussian.fit:
                with pytest.raises(ValueError, match="constant, or follows from others; drop it, or give more rows"):
                    fit(x)
    assert Gaussian.fit(near).log_prob(near).isfinite().all()


# Scales


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_softmax_regression_is_the_same_in_any_units(scale):
    """L-BFGS stops where no slope exceeds 1e-7, so within 1e-7 sqrt(k) / m of the optimum, m the least curvature."""
    x = drawn(100, 3) + 10
    y = (x[:, 0] + drawn(100, seed=1) > 10).long()
    here, there = SoftmaxRegression.fit(x, y), SoftmaxRegression.fit(x * scale, y)
    z = torch.cat([torch.ones(100, 1).double(), (x - x.mean(0)) / x.std(0, correction=0)], 1)  # (n, k)
    p = here.posterior(x)[:, :1]
    m = torch.linalg.eigvalsh((p * (1 - p) * z).mT @ z / len(z))[0]
    near = 2 * 1e-7 * 2 / m  # two fits, k = 4
    gap = (here.weight - there.weight * scale)[0] * x.std(0, correction=0)
    assert 2 * gap.abs().max() <= near  # a row is half of the difference of the two


def test_the_entropy_of_frozen_spins_is_that_of_their_sign():
    frozen = IsingGrid(3, 3, float64(1e8))
    assert frozen.entropy() == pytest.approx(math.log(2), rel=4 * torch.finfo(torch.float64).eps)


def test_energies_are_infinite_at_infinity():
    for model in (energy.bowl(), energy.two_valleys()):
        x = torch.zeros(2, model.d)
        x[0, 0] = INF
        assert model.log_prob(x)[0] == -INF
        assert model.log_prob(x)[1].isfinite()


def test_weights_of_zero_have_infinite_parameters_and_come_back():
    for weights in ([1.0, 0.0], [0.0, 1.0]):
        model = GaussianMixture(float64(weights), mixture.three_modes(dtype=torch.float64).components[:2])
        assert torch.equal(model.with_parameters(model.parameters()).weights, model.weights)


# Mistakes


@pytest.mark.parametrize("indices", [[0.5], [0.0], ["smoke"], [True, False], torch.tensor([0.7]), 0, [[0]], [NAN]])
def test_coordinates_are_whole_numbers(indices):
    for model in (gaussian.correlated(), bayesian_network.asia(), tables.binary_image(), mixture.three_modes()):
        with pytest.raises(ValueError, match="indices should be a list of whole numbers, not"):
            model.marginal(indices)
        with pytest.raises(ValueError, match="indices should be a list of whole numbers, not"):
            model.conditional(indices, torch.zeros(1))


def test_coordinates_may_be_whole_numbers_of_any_library():
    model = gaussian.correlated()
    for indices in (torch.tensor([1, 0]), torch.tensor([1, 0]).numpy(), [torch.tensor(1), 0], range(1, -1, -1)):
        assert torch.equal(model.marginal(indices).loc, model.loc[[1, 0]])


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda: BayesianNetwork([[], [0.7]], [FAIR, HALVES]), r"parents\[1\] should be a list of whole numbers"),
        (lambda: BayesianNetwork([[], ["a"]], [FAIR, HALVES]), r"parents\[1\] should be a list of whole numbers"),
        (lambda: BayesianNetwork([[], []], [FAIR, FAIR], names="aa"), "names should be different"),
        (lambda: BayesianNetwork([[]], [FAIR], labels=[["yes"]]), "labels should name each"),
        (lambda: bayesian_network.asia().table([0], {"smoke": 1}), "given should be a list of whole numbers"),
        (lambda: bayesian_network.asia().table([0], {2: 0.5}), "given should be a list of whole numbers"),
        (lambda: bayesian_network.asia().expected_log_prob(bayesian_network.student()), "other should be a law on"),
        (lambda: BayesianNetwork.from_draws(torch.zeros(3, 2), [[]], (2, 2)), "states for 2"),
        (lambda: ChainRuleTable([0.5], [FAIR]), "order should be a list of whole numbers"),
        (lambda: JointTable.from_draws(torch.zeros(1, 2), (2.0, 2.0)), "number of states should be a whole number"),
        (lambda: MarkovChain(torch.zeros(0), torch.zeros(0, 0), 3), "one state or more"),
        (lambda: MarkovChain.from_draws(torch.zeros(1, 2), 2.5), "states should be a whole number"),
        (lambda: chow_liu.chow_liu(torch.tensor([[0, 10**9]])), "more than"),
        (lambda: DiscreteUniform(INF), "states should be a whole number"),
        (lambda: uniform.interval().icdf(torch.zeros(2, 1)), r"u should have shape \(n,\)"),
        (lambda: autoregressive_logistic.six_bits().given_prefix(torch.tensor([0.5])), "each 0 or 1"),
        (lambda: autoregressive_logistic.six_bits().prefix(9), "there are 6 variables"),
        (lambda: autoregressive_logistic.six_bits().prefix(-1), "k should be a whole number"),
        (lambda: SoftmaxRegression.fit(drawn(4, 1), torch.full((4,), NAN)), "should be finite"),
        (lambda: SoftmaxRegression.fit(drawn(4, 1), torch.arange(4) % 2, solver="sgd"), "give it a generator"),
        (
            lambda: SoftmaxRegression.fit(
                drawn(4, 1), torch.arange(4) % 2, solver="sgd", generator=generator(), batch=0
            ),
            "batch should be a whole number",
        ),
        (lambda: logistic.three_classes().sample(2, given=torch.full((2,), NAN), generator=generator()), "given"),
        (lambda: logistic.three_classes().at(torch.full((2,), NAN)), "finite"),
        (lambda: GaussianEnergy([NAN, 0.0], torch.eye(2)), "mean should be a finite vector"),
        (lambda: GaussianEnergy(torch.zeros(0), torch.zeros(0, 0)), "mean should be a finite vector"),
        (lambda: langevin(energy.bowl(), torch.zeros(1, 3), step=INF, steps=1, generator=generator()), "finite"),
        (lambda: langevin(energy.bowl(), torch.zeros(1, 3), step=0.1, steps=-1, generator=generator()), "steps"),
        (lambda: langevin(energy.bowl(), torch.full((1, 3), NAN), step=0.1, steps=1, generator=generator()), "x,"),
        (lambda: rbm.small_machine().train(torch.ones(4, 8), generator=generator(), batch=0), "batch should be"),
        (lambda: rbm.small_machine().gibbs(torch.full((1, 8), 0.5), 1, generator=generator()), "0 or 1"),
        (lambda: rbm.small_machine().visible_given(torch.ones(1, 3)), r"h should have shape \(n, 4\)"),
        (lambda: rbm.small_machine().gradient(torch.full((1, 8), NAN), torch.ones(1, 8)), "0 or 1"),
        (lambda: ising.ising_3x3().gibbs(torch.zeros(1, 3, 3), 1, generator=generator()), "spins -1 or 1"),
        (lambda: IsingGrid(2.5, 3, 0.4), "rows should be a whole number"),
        (lambda: mixture.round_modes().fit(drawn(20, 3)), "x has 3 columns, but"),
        (lambda: mixture.three_modes().fit(drawn(20, 2), floor=INF), "floor"),
        (lambda: mixture.three_modes(dtype=torch.float64).conditional([0], float64([1e200])), "density is 0"),
        (lambda: fit_mixture(drawn(20, 2), 2.5, generator=generator()), "k = 2.5"),
        (
            lambda: fit_mixture(drawn(3, 1), 5, generator=generator()),
            "fewer than 5 different draws; choose a smaller k",
        ),
        (lambda: bernoulli_mixture.strokes().fit(torch.ones(2, 9), prior=INF), "finite"),
        (lambda: bernoulli_mixture.pool([]), "one or more"),
        (lambda: bernoulli_mixture.pool([bernoulli_mixture.strokes(), bernoulli_mixture.exclusive()]), "same number"),
        (lambda: gaussian_missing.impute(gaussian.standard(), torch.tensor([[INF, NAN]])), "numbers and NaN"),
        (lambda: GenerativeClassifier.fit(drawn(4, 1), torch.full((4,), NAN)), "should be finite"),
        (lambda: GenerativeClassifier.fit(drawn(4, 2), torch.arange(4), family="lda"), "give more rows"),
        (
            lambda: GenerativeClassifier(FAIR, [Bernoulli(float64([0.0])), Bernoulli(float64([0.0]))]).classify(
                float64([[1.0]])
            ),
            "impossible under every class",
        ),
        (lambda: generative_classifier.false_alarm_rate(1.0, 1.5), "d should be a whole number"),
        (lambda: MarkovChain(FAIR, HALVES, 2).fit([[0, 1, 0]]), "x should have 2 steps"),
        (lambda: markov_chain.weather().marginal([0.5]), "whole numbers"),
    ],
)
def test_mistakes_are_named(mistake, said):
    with pytest.raises(ValueError, match=said) as error:
        mistake()
    assert "\n" not in str(error.value)
