"""How a SPEC's object becomes a trained model: each rule, what stops it, and the view of the data it is trained in."""

import functools
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.compare.data import made
from harness.compare.fitting import entered
from harness.compare.training import AS_IT_IS, refuse_elsewhere, trained
from harness.compare.view import raw, standardised

sys.path.insert(0, str(Path(__file__).parents[1] / "models_for_tests"))
from compared import Bits, Independent, Learnt


def table(n: int = 120) -> torch.Tensor:
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z * torch.tensor([3.0, 0.2]) + torch.tensor([5.0, -3.0])


DATA = made("x", table(), 0)
STATES = made("s", torch.randint(0, 3, (120, 2), generator=torch.Generator().manual_seed(0)), 0)


def quiet(stage: str, n: int) -> None:
    pass


def train(thing, view=None, **options):
    options = {"seed": 0, "seconds": 5.0, **options}
    return trained(thing, view or standardised(DATA, 0), tell=quiet, **options)


def enter(thing, data=DATA, **options):
    return entered(thing, data, seed=0, seconds=5.0, tell=quiet, **options)


def test_a_function_gets_the_rows_and_what_it_names():
    seen = {}

    def recipe(x, valid, seed, generator, seconds, other=3):
        seen.update(locals())
        return Independent(x)

    view = standardised(DATA, 0)
    done = train(recipe, view)
    assert done.how == "made of the training rows"
    assert torch.equal(seen["x"], view.train)
    assert torch.equal(seen["valid"], view.valid)
    assert (seen["seed"], seen["seconds"], seen["other"]) == (0, 5.0, 3)
    assert isinstance(seen["generator"], torch.Generator)


def test_what_names_a_device_gets_the_rows_there_and_what_does_not_gets_them_here():
    """`meta` has no numbers, but it is another place than the CPU."""
    seen = {}

    def there(x, valid, device):
        seen["there"] = (x.device.type, valid.device.type, device)
        return Independent(table())

    def here(x, valid, generator):
        seen["here"] = (x.device.type, valid.device.type, generator.device.type)
        return Independent(x)

    for recipe in (there, here):
        assert train(recipe, device="meta").how == "made of the training rows"
    assert seen == {"there": ("meta", "meta", torch.device("meta")), "here": ("cpu", "cpu", "cpu")}


def test_what_computes_on_the_cpu_alone_is_refused_elsewhere():
    from scipy import stats
    from sklearn.mixture import GaussianMixture

    for thing, library in ((GaussianMixture(), "sklearn"), (stats.norm(), "scipy")):
        with pytest.raises(TypeError, match=f"{library} computes on the CPU alone: compare it with --device cpu"):
            train(thing, device="cuda")
        refuse_elsewhere(thing, torch.device("cpu"))
    refuse_elsewhere(Learnt(), torch.device("cuda"))
    with pytest.raises(TypeError, match="sklearn computes on the CPU alone"):
        enter(GaussianMixture, device="cuda")  # a class of it, too


def test_a_partial_keeps_what_it_was_given():
    done = train(functools.partial(lambda x, seed: seed, seed=9))
    assert done.thing == 9


def test_a_recipe_that_needs_more_says_what():
    with pytest.raises(TypeError, match="needs width"):
        train(lambda x, width: None)


def test_a_class_method_fit_is_the_recipe():
    class Fitted(Independent):
        @classmethod
        def fit(cls, x):
            return cls(x)

    assert train(Fitted).how == "fit(rows) of its class"
    assert isinstance(train(Fitted).thing, Fitted)


def test_a_model_with_fit_is_fitted_and_one_that_a_function_made_is_not_again():
    class Fits(Independent):
        def fit(self, x):
            return Fits(x + 100)

    model = Fits(table())
    done = train(model)
    assert done.how == "its own fit(rows)"
    assert float(done.thing.law.loc[0]) > 50
    assert train(lambda x: Fits(x)).how == "made of the training rows"
    assert train(model, as_it_is=True).thing is model


def test_an_estimator_is_fitted_unless_it_is():
    mixture = pytest.importorskip("sklearn.mixture", reason="scikit-learn is not installed")
    done = train(mixture.GaussianMixture(1))
    assert done.how == "fit of its library"
    rows = standardised(DATA, 0).train
    assert torch.allclose(torch.from_numpy(done.thing.means_[0]), rows.mean(0), atol=1e-12)  # 72 rows, float64
    assert train(done.thing).how == AS_IT_IS


def test_adam_finds_the_maximum_of_the_likelihood():
    """Each parameter ends within 2 rates of the optimum, where the NLL's second derivative is at most 2: of 4
    parameters, NLL - NLL* <= 4 x 1/2 x 2 x (2 x 2e-3)^2 = 6.4e-5."""
    view = standardised(DATA, 0)
    view = type(view)(**{**vars(view), "valid": view.train})
    done = train(Learnt, view, seconds=200.0)  # it stops by itself, after a second or two of work
    best = Independent(view.train)
    gap = best.log_prob(view.train).mean() - done.thing.log_prob(view.train.float()).double().mean()
    assert -1e-6 <= float(gap.detach()) <= 6.4e-5  # float32 below 0
    assert not done.thing.training
    assert done.steps is not None
    assert done.how.startswith("Adam on -log_prob")


def test_training_does_not_touch_the_authors_module():
    module = Learnt()
    train(module, seconds=0.05)
    assert module.training
    assert not any(bool(parameter.any()) for parameter in module.parameters())


def test_a_module_in_evaluation_mode_is_taken_as_it_is_in_the_datas_units():
    entry = enter(Learnt().eval())
    assert entry.trained.how == AS_IT_IS
    assert torch.equal(entry.view.test[0], DATA.test)


def test_a_loss_that_is_no_number_is_a_failure():
    class Broken(Learnt):
        def log_prob(self, x):
            return super().log_prob(x) * torch.nan

    with pytest.raises(FloatingPointError, match="no number"):
        train(Broken, seconds=0.05)


def test_a_fit_that_takes_longer_than_the_budget_is_stopped():
    began = time.perf_counter()
    with pytest.raises(TimeoutError, match=r"budget of 0\.2 s"):
        train(lambda x: time.sleep(30), seconds=0.2)
    assert time.perf_counter() - began < 15  # far below 30, whatever else the machine does


def test_states_are_given_to_discrete_models_and_dequantised_rows_to_densities():
    discrete = enter(Bits, made("b", (table() > 0).long(), 0))
    assert discrete.view.discrete
    assert discrete.view.exact
    density = enter(Independent, STATES)
    assert not density.view.discrete
    assert density.view.how.startswith("dequantised")
    assert enter(Learnt, STATES).view.how.startswith("dequantised")


def test_a_trained_density_is_asked_at_dequantised_rows_in_their_own_units():
    entry = enter(torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1), STATES)
    assert entry.trained.how == AS_IT_IS
    assert not entry.view.exact
    # Put back by a product and a sum: two roundings.
    assert torch.equal(entry.view.test.add(1e-12).floor().long()[0], STATES.test)


def test_what_raises_says_what_the_author_said():
    def recipe(x):
        raise RuntimeError("no rows like these")

    with pytest.raises(RuntimeError, match="no rows like these"):
        enter(recipe)
    with pytest.raises(RuntimeError, match="no rows like these"):
        enter(recipe, STATES)


def test_a_pyro_distribution_with_parameters_is_trained():
    dist = pytest.importorskip("pyro.distributions", reason="Pyro is not installed: pip install 'genharness[bench]'")
    x = (torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) < 0.2).long()
    view = raw(made("b", x, 0))
    done = train(lambda x: dist.Bernoulli(logits=nn.Parameter(torch.zeros(2))).to_event(1), view)
    before = dist.Bernoulli(logits=torch.zeros(2)).to_event(1).log_prob(view.valid.float()).mean()
    assert done.how.startswith("made of the training rows, then Adam")
    after = done.thing.log_prob(view.valid.float()).mean()
    assert float(after.detach()) > float(before)


@pytest.mark.parametrize("given", ["logits", "probs"])
def test_draws_and_moments_follow_the_trained_parameters(given):
    """torch keeps probs that it derived from logits once: an old one would outlive the training."""
    x = (torch.rand(300, 2, generator=torch.Generator().manual_seed(1)) < 0.1).long()
    start = {"logits": torch.zeros(2), "probs": torch.full((2,), 0.5)}[given]
    law = torch.distributions.Bernoulli(**{given: nn.Parameter(start)})
    law.sample()
    law.entropy()
    done = train(torch.distributions.Independent(law, 1), raw(made("b", x, 0)))
    p = done.thing.log_prob(torch.tensor([[1.0, 1.0], [1.0, 0.0]])).exp().sum().detach()
    assert torch.allclose(done.thing.mean[0], p, rtol=1e-5)  # float32: a sum of two of a dozen roundings
    assert float(p) < 0.45  # it was 1/2, and goes towards 0.1 by as many steps as a slow machine has time for
