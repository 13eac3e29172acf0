"""The contract: capabilities are found by name and signature, and what does not fit is told."""

import pytest
import torch

from harness.contract import CAPABILITIES, PROTOCOLS, attribute, capabilities_of, unfit_of


class Everything:
    def sample(self, n, *, generator, given=None): ...
    def log_prob(self, x, *, given=None): ...
    def mean(self): ...
    def variance(self): ...
    def covariance(self): ...
    def entropy(self): ...
    def cdf(self, x): ...
    def icdf(self, u): ...
    def kl(self, other): ...
    def fit(self, x): ...
    def parameters(self): ...
    def with_parameters(self, theta): ...
    def affine(self, matrix, shift): ...
    def marginal(self, indices): ...
    def conditional(self, indices, values): ...
    def mutual_information(self, a, b): ...
    def energy(self, x): ...
    def log_partition(self): ...
    def score(self, x): ...
    def class_prior(self): ...
    def posterior(self, x): ...


def test_an_object_with_every_method_has_every_capability():
    assert set(capabilities_of(Everything())) == set(CAPABILITIES)
    assert unfit_of(Everything()) == {}


def test_each_protocol_promises_one_documented_method():
    assert len(PROTOCOLS) == len(CAPABILITIES)
    assert all(promise.__doc__ for promise in CAPABILITIES.values())


@pytest.mark.parametrize(
    "sample",
    [
        lambda n, *, generator: ...,
        lambda n, generator: ...,
        lambda n, generator=None: ...,
        lambda n, *, generator, antithetic=False: ...,
        lambda *shape, generator: ...,
        lambda n, **keywords: ...,
    ],
)
def test_any_signature_that_can_be_called_as_the_contract_calls_is_a_capability(sample):
    thing = type("Thing", (), {"sample": staticmethod(sample)})()
    assert set(capabilities_of(thing)) == {"sample"}


@pytest.mark.parametrize("sample", [lambda k: ..., lambda n, m, *, generator: ..., lambda *, generator: ...])
def test_a_signature_that_does_not_fit_is_named_with_what_was_wanted(sample):
    thing = type("Thing", (), {"sample": staticmethod(sample)})()
    assert capabilities_of(thing) == {}
    assert "cannot be called as sample(n, *, generator)" in unfit_of(thing)["sample"]


def test_an_attribute_that_is_no_method_is_named():
    thing = type("Thing", (), {"mean": torch.zeros(2)})()
    assert unfit_of(thing) == {"mean": "mean is a Tensor, not a method that can be called as mean()"}


def test_a_property_that_raises_is_a_capability_that_raises_when_it_is_called():
    class Broken:
        @property
        def log_prob(self):
            raise RuntimeError("no weights")

    method = capabilities_of(Broken())["log_prob"]
    with pytest.raises(RuntimeError, match="no weights"):
        method(torch.zeros(3))


def test_an_absent_attribute_is_neither_capability_nor_misfit():
    assert capabilities_of(object()) == unfit_of(object()) == {}
    assert attribute(object(), "sample") is None


def test_a_builtin_without_a_signature_is_left_to_its_calls():
    thing = type("Thing", (), {"log_prob": {}.get})()
    assert "log_prob" in capabilities_of(thing)


def test_a_method_that_names_given_is_the_conditional_capability_too():
    both = type("Both", (), {"log_prob": lambda self, x, *, given=None: ...})()
    assert set(capabilities_of(both)) == {"log_prob", "log_prob_given"}
    conditional = type("Conditional", (), {"sample": lambda self, n, *, given, generator: ...})()
    assert set(capabilities_of(conditional)) == {"sample_given"}
    assert "cannot be called as sample(n, *, generator)" in unfit_of(conditional)["sample"]


def test_a_method_that_takes_any_keyword_is_not_conditional():
    thing = type("Thing", (), {"log_prob": lambda self, x, **keywords: ...})()
    assert set(capabilities_of(thing)) == {"log_prob"}
    assert unfit_of(thing) == {}


def test_a_conditional_method_of_another_signature_is_named_as_it_is_written():
    thing = type("Thing", (), {"sample": lambda self, given: ...})()
    assert unfit_of(thing)["sample_given"] == "sample(given) cannot be called as sample(n, *, given, generator)"
