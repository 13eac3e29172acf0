"""Bounds, posteriors and gradients of latent-variable models: mutants are found, near misses pass."""

from __future__ import annotations

import math
import re

import pytest
import torch

from engine import alone, changed, examined, record, troubles
from harness.checks import latent as laws
from harness.evidence import Verdict
from harness.mutants import latent
from harness.mutants.latent import Claiming, Drawn, Linear, Pixels, RightShades, WithDensity, linear

IDS = [check.id for check in laws.CHECKS]


@pytest.mark.parametrize("mutant", latent.MUTANTS, ids=lambda mutant: f"{mutant.check}-{mutant.name}")
def test_mutant_is_found(mutant):
    seen = record(changed(mutant), mutant.check, effort="standard")
    assert seen.verdict is (Verdict.ERROR if mutant.error else Verdict.FAIL), seen.message


@pytest.mark.parametrize("near", latent.NEAR_MISSES, ids=lambda near: f"{near.check}-{near.name}")
def test_near_miss_passes(near):
    seen = record(changed(near), near.check, effort="standard")
    assert seen.verdict is Verdict.PASS, seen.message


def test_every_law_has_a_mutant_and_a_near_miss():
    assert {m.check for m in latent.MUTANTS} == set(IDS) == {n.check for n in latent.NEAR_MISSES}


@pytest.mark.parametrize("build", [linear(Linear, 1.5), linear(Drawn), linear(Claiming), Pixels, RightShades])
@pytest.mark.parametrize("seed", range(2))
def test_correct_models_raise_no_alarm(build, seed):
    assert troubles(alone(build(), *IDS, seed=seed)) == {}


@pytest.mark.parametrize("build", [linear(), linear(Claiming, dtype=torch.float64), Pixels])
def test_a_whole_run_raises_no_alarm(build):
    assert troubles(examined(build())) == {}


# Models of other kinds


class Clusters(torch.nn.Module):
    """x [n] of one of three clusters, z an integer [n], with the exact posterior and trainable places."""

    def __init__(self):
        super().__init__()
        self.place = torch.nn.Parameter(torch.tensor([-1.5, 0.0, 2.0]))

    def prior(self):
        return _Uniform()

    def likelihood(self):
        return _Around(self.place)

    def posterior(self):
        return _Responsible(self.place)

    def sample(self, n, *, generator):
        return self.likelihood().sample(n, given=self.prior().sample(n, generator=generator), generator=generator)

    def log_prob(self, x):
        return (_log_normals(x, self.place) - math.log(3)).logsumexp(1)

    def elbo(self, x, *, generator):
        z = self.posterior().sample(len(x), given=x, generator=generator)
        return self.prior().log_prob(z) + self.likelihood().log_prob(x, given=z) - self.posterior().log_prob(z, given=x)


class _Uniform:
    def sample(self, n, *, generator):
        return torch.randint(3, (n,), generator=generator)

    def log_prob(self, z):
        return torch.full((len(z),), -math.log(3))


class _Around:
    def __init__(self, place):
        self.place = place

    def log_prob(self, x, *, given):
        return _log_normals(x, self.place).gather(1, given[:, None])[:, 0]

    def sample(self, n, *, given, generator):
        return self.place.detach()[given] + torch.randn(n, generator=generator)


class _Responsible:
    def __init__(self, place):
        self.place = place

    def log_prob(self, z, *, given):
        return _log_normals(given, self.place).log_softmax(1).gather(1, z[:, None])[:, 0]

    def sample(self, n, *, given, generator):
        share = _log_normals(given, self.place).softmax(1).detach()
        return torch.multinomial(share, 1, generator=generator)[:, 0]


def _log_normals(x, place):
    return -((x[:, None] - place) ** 2) / 2 - math.log(2 * math.pi) / 2


class Picture(Pixels):
    """The same bits as an integer picture [n, 1, 5, 1]."""

    def sample(self, n, *, generator):
        return super().sample(n, generator=generator).long().reshape(n, 1, 5, 1)

    def likelihood(self):
        return _Pictures(self.weight, self.bias)

    def posterior(self):
        plain = super().posterior()
        return latent.GaussianGiven(lambda x: plain.moments(x.reshape(len(x), 5).float()))


class _Pictures(latent.BernoulliGiven):
    def log_prob(self, x, *, given):
        return super().log_prob(x.reshape(len(x), 5).float(), given=given)

    def sample(self, n, *, given, generator):
        return super().sample(n, given=given, generator=generator).long().reshape(n, 1, 5, 1)


class ElboAlone:
    """A sampler and a bound, without parts or a density."""

    def __init__(self):
        self.law = linear(Linear, 1.5)()

    def sample(self, n, *, generator):
        return self.law.sample(n, generator=generator)

    def elbo(self, x, *, generator):
        return self.law.elbo(x, generator=generator)


class Timid(Pixels):
    """Its bound is -inf wherever the first bit is 1."""

    def elbo(self, x, *, generator):
        return torch.where(x[:, 0] == 1, -math.inf, super().elbo(x, generator=generator))


@pytest.mark.parametrize("build", [Clusters, Picture, ElboAlone, Timid])
def test_models_of_other_kinds_raise_no_alarm(build):
    assert troubles(examined(build())) == {}


def test_a_bound_of_minus_infinity_says_nothing_of_its_mean():
    seen = alone(Timid(), *IDS)
    assert seen["latent.bound_matches_parts"].verdict is Verdict.SKIP
    assert seen["latent.elbo_well_formed"].verdict is Verdict.PASS


def test_an_exact_posterior_of_an_integer_is_recognised_and_calibrated():
    seen = alone(Clusters(), *IDS, effort="standard")
    assert seen["latent.posterior_calibrated"].verdict is Verdict.PASS
    assert seen["latent.joint_kept"].verdict is Verdict.PASS


def test_of_an_approximate_posterior_no_calibration_is_asked():
    seen = alone(linear(WithDensity, 1.5)(), "latent.posterior_calibrated", "latent.joint_kept")
    assert {record.verdict for record in seen.values()} == {Verdict.SKIP}
    assert "posterior_is_exact = True" in seen["latent.joint_kept"].message


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("elbo", lambda x, *, generator: torch.zeros(len(x), 1), r"elbo\(\) of 256 rows is \(256, 1\)"),
        ("iwae", lambda x, k, *, generator: torch.zeros(k, len(x)), r"iwae\(\) of \d+ rows is \(1, \d+\)"),
        ("likelihood", lambda: object(), r"likelihood\(\) returned a object without sample that takes `given`"),
    ],
)
def test_what_has_another_shape_is_an_error_that_says_so(name, wrong, message):
    law = linear()()
    law.sample = linear()().sample
    setattr(law, name, wrong)
    seen = [record for record in alone(law, *IDS).values() if record.verdict is Verdict.ERROR]
    assert seen
    assert any(re.search(message, record.message) for record in seen), [record.message for record in seen]


def test_one_defect_is_one_failure():
    class Wrong(WithDensity):
        def kl(self, mean, log_std):
            return -super().kl(mean, log_std)

    assert set(troubles(examined(linear(Wrong)()))) == {"latent.bound_matches_parts"}


def test_gradients_are_looked_at_with_and_without_parameters():
    def verdict(law):
        return record(law, "latent.reparameterised_gradient", effort="standard").verdict

    class Bare(WithDensity):
        parameters = with_parameters = None

    assert verdict(linear(Bare)()) is Verdict.SKIP

    class Module(torch.nn.Module):
        """The linear model as a torch module, of which torch holds the parameters."""

        def __init__(self, kind):
            super().__init__()
            self.theta = torch.nn.Parameter(linear(kind, 1.3)().parameters())
            self.kind = kind

        def sample(self, n, *, generator):
            return self.kind(self.theta).sample(n, generator=generator).detach()

        def elbo(self, x, *, generator):
            return self.kind(self.theta).elbo(x, generator=generator)

        def prior(self):
            return self.kind(self.theta).prior()

        def likelihood(self):
            return self.kind(self.theta).likelihood()

        def posterior(self):
            return self.kind(self.theta).posterior()

    assert verdict(Module(WithDensity)) is Verdict.PASS
    assert verdict(Module(latent.SpreadDetached)) is Verdict.FAIL
