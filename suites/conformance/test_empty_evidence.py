"""Evidence of nothing changes no law, evidence of all leaves none, and mistakes of the classical models are named."""

import pytest
import torch

from reference_impls import (
    bayesian_network,
    bernoulli_mixture,
    chow_liu,
    discrete,
    energy,
    gaussian,
    gaussian_missing,
    gaussian_precision,
    generative_classifier,
    linear_gaussian,
    markov_chain,
    mixture,
    rbm,
    tables,
    uniform,
)

MODELS = {
    "network": bayesian_network.asia,
    "mixture of Bernoullis": bernoulli_mixture.strokes,
    "pixels": discrete.pixels,
    "Gaussian energy": energy.bowl,
    "neural energy": energy.two_valleys,
    "Gaussian": gaussian.correlated,
    "diagonal Gaussian": gaussian.pixelwise,
    "precision": gaussian_precision.chain,
    "factor analysis": linear_gaussian.plane_in_noise,
    "chain": markov_chain.weather,
    "mixture": mixture.three_modes,
    "machine": rbm.small_machine,
    "table": tables.binary_image,
    "product": tables.independent,
    "box": uniform.box,
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param](dtype=torch.float64)


def test_to_condition_on_nothing_changes_nothing(model):
    x = model.sample(32, generator=torch.Generator().manual_seed(0))
    same = model.conditional([], torch.zeros(0, dtype=torch.float64))
    if hasattr(model, "log_prob"):
        assert torch.equal(same.log_prob(x), model.log_prob(x))
    else:
        assert torch.equal(same.energy(x), model.energy(x))


def test_to_condition_on_everything_leaves_no_law(model):
    x = model.sample(1, generator=torch.Generator().manual_seed(0))[0]
    with pytest.raises(ValueError, match="leave"):
        model.conditional(range(len(x)), x)


def test_a_classifier_of_which_nothing_is_seen_keeps_its_prior():
    model = generative_classifier.qda(dtype=torch.float64)
    assert torch.equal(model.conditional([], torch.zeros(0)).prior, model.prior)


NAN = float("nan")


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda: gaussian.correlated().conditional([0], torch.tensor([NAN])), "values should be finite numbers"),
        (lambda: chow_liu.chow_liu(torch.tensor([[0.0, NAN], [1.0, 0.0]])), "no NaN or infinity"),
        (
            lambda: mixture.fit_mixture(drawn(20, 2), 2, generator=torch.Generator(), restarts=0),
            "restarts should be a whole number of at least 1",
        ),
        (
            lambda: bernoulli_mixture.fit_bernoulli_mixture(
                (drawn(20, 3) > 0).float(), 2, generator=torch.Generator(), restarts=0
            ),
            "restarts should be a whole number of at least 1",
        ),
        (
            lambda: gaussian_missing.fit_observed(
                torch.tensor([[0.0, NAN], [1.0, NAN], [2.0, NAN], [NAN, 0.0], [NAN, 1.0], [NAN, 3.0]])
            ),
            "never observed together",
        ),
        (lambda: discrete.Categorical(torch.tensor([0.5, 0.6])), "divide them by their sum"),
        (lambda: discrete.Categorical(torch.tensor([1.5, -0.5])), "one of 1.5"),
        (
            lambda: bayesian_network.BayesianNetwork([[]], [torch.tensor([0.5, 0.5])], names=("a", "b")),
            "one for each of 1 variables",
        ),
    ],
)
def test_mistakes_are_named(mistake, said):
    with pytest.raises(ValueError, match=said):
        mistake()
