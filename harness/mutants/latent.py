"""Bounds above the likelihood, posteriors that ignore the data; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from harness.model import Model
from harness.mutants.mutant import Change, Mutant, NearMiss, answering
from harness.mutants.structure import nothing

LOG_2PI = math.log(2 * math.pi)


def log_normal(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return (-((x - mean) * (-log_std).exp()).square() / 2 - log_std - LOG_2PI / 2).sum(-1)


def noise(like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


class GaussianGiven:
    """v given u: N(m(u), diag s(u)^2), from a function of u to m and log s."""

    def __init__(self, moments: Callable[[Tensor], tuple[Tensor, Tensor]]):
        self.moments = moments

    def log_prob(self, v: Tensor, *, given: Tensor) -> Tensor:
        return log_normal(v, *self.moments(given))

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        return self.draw(given, generator)

    def draw(self, given: Tensor, generator: Generator) -> Tensor:
        mean, log_std = self.moments(given)
        return mean + log_std.exp() * noise(mean, generator)


class BernoulliGiven:
    """x given z: bits with log-odds W z + c."""

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias

    def odds(self, z: Tensor) -> Tensor:
        return z @ self.weight.mT + self.bias

    def log_prob(self, x: Tensor, *, given: Tensor) -> Tensor:
        bits = ((x == 0) | (x == 1)).all(-1)
        return torch.where(bits, _cross_entropy(x, self.odds(given)), -torch.inf)

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        chance = self.odds(given).sigmoid()
        return (torch.rand(chance.shape, generator=generator, dtype=chance.dtype) < chance).to(chance.dtype)


class ContinuousBernoulliGiven(BernoulliGiven):
    """Shades in [0, 1] with the density p^x (1-p)^(1-x) / C(p), which is left without its C(p)."""

    def log_prob(self, x: Tensor, *, given: Tensor) -> Tensor:
        return _cross_entropy(x, self.odds(given))

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        """By its quantile function, log(1 + u (e^l - 1)) / l."""
        odds = self.odds(given).double()
        u = torch.rand(odds.shape, generator=generator, dtype=torch.float64)
        return (torch.log1p(u * torch.expm1(odds)) / odds).to(self.weight.dtype)


class NormalisedShades(ContinuousBernoulliGiven):
    """The same with C(p) = (1 - 2p) / (2 atanh(1 - 2p)), which is tanh(l / 2) / l."""

    def log_prob(self, x: Tensor, *, given: Tensor) -> Tensor:
        odds = self.odds(given)
        return super().log_prob(x, given=given) - (torch.tanh(odds / 2) / odds).log().sum(-1)


def _cross_entropy(x: Tensor, odds: Tensor) -> Tensor:
    return (x * odds - torch.nn.functional.softplus(odds)).sum(-1)


class StandardNormal:
    def __init__(self, like: Tensor):
        self.origin = torch.zeros_like(like)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return noise(self.origin.expand(n, -1), generator)

    def log_prob(self, z: Tensor) -> Tensor:
        return log_normal(z, self.origin, self.origin)


class Bounded:
    """A prior, a likelihood and a posterior, and the bounds that are made of them."""

    like: Tensor  # (q,)

    def prior(self) -> Any:
        return StandardNormal(self.like)

    def likelihood(self) -> Any:
        raise NotImplementedError

    def posterior(self) -> GaussianGiven:
        raise NotImplementedError

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        z = self.prior().sample(n, generator=generator)
        return self.likelihood().sample(n, given=z, generator=generator)

    def log_weight(self, x: Tensor, z: Tensor) -> Tensor:
        log_joint = self.prior().log_prob(z) + self.likelihood().log_prob(x, given=z)
        return log_joint - self.posterior().log_prob(z, given=x)

    def kl(self, mean: Tensor, log_std: Tensor) -> Tensor:
        return (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(-1) / 2

    def elbo(self, x: Tensor, *, generator: Generator) -> Tensor:
        z = self.posterior().draw(x, generator)
        return self.likelihood().log_prob(x, given=z) - self.kl(*self.posterior().moments(x))

    def iwae(self, x: Tensor, k: int, *, generator: Generator) -> Tensor:
        log_w = [self.log_weight(x, self.posterior().draw(x, generator)) for _ in range(k)]
        return torch.stack(log_w).logsumexp(0) - math.log(k)


class Linear(Bounded):
    """x | z ~ N(W z, s^2 I), with columns of W at right angles, so that q = N(A x, diag c^2) can be exact.

    M = I + W^T W / s^2 is diagonal, and A = M^-1 W^T / s^2, c^2 = 1 / M for the posterior, or `broad` times that.
    """

    d, q = 3, 2

    def __init__(self, theta: Tensor):
        d, q = self.d, self.q
        loading, log_s, matrix, log_c = theta.split([d * q, 1, q * d, q])
        self.loading, self.log_s = loading.reshape(d, q), log_s
        self.matrix, self.log_c, self.like = matrix.reshape(q, d), log_c, torch.zeros_like(log_c)

    def likelihood(self) -> GaussianGiven:
        return GaussianGiven(lambda z: (z @ self.loading.mT, self.log_s.expand(len(z), self.d)))

    def posterior(self) -> GaussianGiven:
        return GaussianGiven(lambda x: (x @ self.matrix.mT, self.log_c.expand(len(x), self.q)))

    def parameters(self) -> Tensor:
        return torch.cat([self.loading.flatten(), self.log_s, self.matrix.flatten(), self.log_c])

    def with_parameters(self, theta: Tensor) -> Linear:
        return type(self)(theta)


class WithDensity(Linear):
    def log_prob(self, x: Tensor) -> Tensor:
        """By the posterior at its mean z: log p(x) = log p(z) + log p(x | z) - log p(z | x) for any z."""
        precision = 1 + self.loading.square().sum(0) * (-2 * self.log_s).exp()
        z = x @ self.loading * (-2 * self.log_s).exp() / precision
        log_joint = self.prior().log_prob(z) + self.likelihood().log_prob(x, given=z)
        return log_joint - log_normal(z, z, -precision.log() / 2)


class Claiming(WithDensity):
    posterior_is_exact = True


class Drawn(WithDensity):
    """The KL is drawn and not worked out: for the exact posterior the bound is log p(x) itself."""

    def elbo(self, x: Tensor, *, generator: Generator) -> Tensor:
        return self.log_weight(x, self.posterior().draw(x, generator))


class ByScore(WithDensity):
    """The bound with the gradient of the score function: f + f grad log q."""

    def elbo(self, x: Tensor, *, generator: Generator) -> Tensor:
        z = self.posterior().draw(x, generator).detach()
        f, log_q = self.log_weight(x, z), self.posterior().log_prob(z, given=x)
        return f + f.detach() * (log_q - log_q.detach())


class GradientInside(Drawn):
    """The mean of the gradient, at z that are held fixed."""

    def elbo(self, x: Tensor, *, generator: Generator) -> Tensor:
        return self.log_weight(x, self.posterior().draw(x, generator).detach())


class SpreadDetached(WithDensity):
    """z = m + s e, of which s is a number to the gradient of log p(x | z)."""

    def elbo(self, x: Tensor, *, generator: Generator) -> Tensor:
        mean, log_std = self.posterior().moments(x)
        z = mean + log_std.detach().exp() * noise(mean, generator)
        return self.likelihood().log_prob(x, given=z) - self.kl(mean, log_std)


class Pixels(Bounded):
    """Five bits, and a latent variable that the encoder guesses from their weighted sum."""

    decoder: type[BernoulliGiven] = BernoulliGiven

    def __init__(self) -> None:
        self.weight = torch.tensor([[2.0], [1.5], [-1.0], [0.5], [-2.0]])
        self.bias = torch.tensor([0.3, -0.5, 0.2, 0.1, 0.4])
        self.like = torch.zeros(1)

    def likelihood(self) -> BernoulliGiven:
        return self.decoder(self.weight, self.bias)

    def posterior(self) -> GaussianGiven:
        return GaussianGiven(lambda x: ((x - 0.5) @ self.weight / 3, torch.full((len(x), 1), -0.4)))


class Shades(Pixels):
    decoder = ContinuousBernoulliGiven


class RightShades(Pixels):
    decoder = NormalisedShades


class OwnNoise(Pixels):
    """Noise from a generator of its own, beside the one that is passed in."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = Generator().manual_seed(0)

    def elbo(self, x: Tensor, *, generator: Generator) -> Tensor:
        return super().elbo(x, generator=self.hidden)


def linear(
    kind: type[Linear] = WithDensity, broad: float = 1.0, dtype: torch.dtype = torch.float32
) -> Callable[[], Linear]:
    """With the exact posterior, or one of a spread `broad` times as large."""

    def build() -> Linear:
        loading = torch.tensor([[1.0, 0.5], [1.0, -0.5], [0.5, 0.0]], dtype=dtype)
        log_s = torch.tensor([math.log(0.6)], dtype=dtype)
        precision = 1 + loading.square().sum(0) / 0.36
        matrix = loading.mT / 0.36 / precision[:, None]
        log_c = math.log(broad) - precision.log() / 2
        return kind(torch.cat([loading.flatten(), log_s, matrix.flatten(), log_c]))

    return build


# Changes


def _with_kl(kl: Callable[[Tensor, Tensor], Tensor]) -> Change:
    """The bound with another formula for the KL of the posterior from the prior."""

    def elbo(law: Bounded, x: Tensor, *, generator: Generator) -> Tensor:
        z = law.posterior().draw(x, generator)
        return law.likelihood().log_prob(x, given=z) - kl(*law.posterior().moments(x))

    return answering(elbo=elbo)


def _right(mean: Tensor, log_std: Tensor) -> Tensor:
    return Bounded.kl(None, mean, log_std)  # type: ignore[arg-type]


_sign_wrong = _with_kl(lambda m, s: -_right(m, s))
_dropped = _with_kl(lambda m, s: 0 * _right(m, s))
_undivided = _with_kl(lambda m, s: 2 * _right(m, s))
_variance_as_std = _with_kl(lambda m, s: _right(m, 2 * s))


def _posterior(change: Callable[[GaussianGiven], GaussianGiven]) -> Change:
    """Another posterior, of which the bounds know nothing."""
    return lambda model: {"latent_posterior": lambda: change(model.target.posterior())}  # type: ignore[attr-defined]


def _scaled(factor: float) -> Callable[[GaussianGiven], GaussianGiven]:
    return lambda q: GaussianGiven(lambda x: (q.moments(x)[0], q.moments(x)[1] + math.log(factor)))


def _ignoring(q: GaussianGiven) -> GaussianGiven:
    return GaussianGiven(lambda x: tuple(0 * moment for moment in q.moments(x)))  # type: ignore[arg-type,return-value]


def _beside(q: GaussianGiven) -> GaussianGiven:
    return GaussianGiven(lambda x: (q.moments(x)[0] + 0.2, q.moments(x)[1]))


class _SharedDraw(GaussianGiven):
    """The posterior of the first row, one draw of it for the whole batch."""

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        return self.draw(given[:1], generator).expand(n, -1)


class _VarianceAsStd(GaussianGiven):
    def draw(self, given: Tensor, generator: Generator) -> Tensor:
        mean, log_std = self.moments(given)
        return mean + (2 * log_std).exp() * noise(mean, generator)


class _WidePrior(StandardNormal):
    def log_prob(self, z: Tensor) -> Tensor:
        return log_normal(z, self.origin, self.origin + math.log(1.5))


def _wide_prior(model: Model) -> dict[str, Callable[..., Any]]:
    return {"prior": lambda: _WidePrior(model.target.like)}  # type: ignore[attr-defined]


def _drawn(latent: Callable[[Tensor], Tensor], event: Callable[[Tensor], Tensor] = lambda x: x) -> Change:
    """A sampler that changes z before it is decoded, or x after."""

    def sample(law: Bounded, n: int, *, generator: Generator) -> Tensor:
        z = latent(law.prior().sample(n, generator=generator))
        return event(law.likelihood().sample(n, given=z, generator=generator))

    return answering(sample=sample)


def _expected(law: Linear, n: int, *, generator: Generator) -> Tensor:
    return law.prior().sample(n, generator=generator) @ law.loading.mT


def _bound_of(combine: Callable[[Tensor], Tensor]) -> Change:
    """iwae from log-weights (k, n)."""

    def iwae(law: Bounded, x: Tensor, k: int, *, generator: Generator) -> Tensor:
        return combine(torch.stack([law.log_weight(x, law.posterior().draw(x, generator)) for _ in range(k)]))

    return answering(iwae=iwae)


def _log_mean(log_w: Tensor) -> Tensor:
    return log_w.logsumexp(0) - math.log(len(log_w))


def _one_draw(law: Bounded, x: Tensor, k: int, *, generator: Generator) -> Tensor:
    """The same z for all k weights."""
    return law.log_weight(x, law.posterior().draw(x, generator))


def _edited(edit: Callable[[Tensor], Tensor]) -> Change:
    return lambda model: {"elbo": lambda x, **named: edit(model.elbo(x, **named))}


WELL, ANCESTRAL, AGREE = "latent.elbo_well_formed", "latent.sample_is_ancestral", "latent.parts_agree"
MATCHES, BELOW, GIBBS = "latent.bound_matches_parts", "latent.elbo_below_log_prob", "latent.elbo_is_a_density"
WEIGHTS, RISES = "latent.iwae_matches_parts", "latent.iwae_rises"
RANKS, KEPT, SLOPES = "latent.posterior_calibrated", "latent.joint_kept", "latent.reparameterised_gradient"

_sampled_with = linear(WithDensity, 1.5)

MUTANTS: tuple[Mutant, ...] = (
    Mutant("no_number", "NaN for low bounds", WELL, linear(), _edited(lambda b: b.where(b > -4, math.nan))),
    Mutant("certain", "+inf for high bounds", WELL, Pixels, _edited(lambda b: b.where(b < -3, math.inf))),
    Mutant("own_noise", "a generator of its own", WELL, OwnNoise, nothing),
    Mutant("mean_of_the_batch", "one number a batch", WELL, Pixels, _edited(lambda b: b.mean()), error=True),
    Mutant("wide_prior", "1.3 z is decoded", ANCESTRAL, linear(), _drawn(lambda z: 1.3 * z)),
    Mutant("expected_events", "E[x | z] for a draw", ANCESTRAL, linear(), answering(sample=_expected)),
    Mutant("flipped", "z of the wrong sign, to half", ANCESTRAL, Pixels, _drawn(torch.abs)),
    Mutant("shared_draw", "one z for the batch", AGREE, linear(), _posterior(lambda q: _SharedDraw(q.moments))),
    Mutant("variance_as_std", "s^2 for s", AGREE, linear(), _posterior(lambda q: _VarianceAsStd(q.moments))),
    Mutant("wide_prior", "log N(z; 0, 1.5^2)", AGREE, linear(), _wide_prior),
    Mutant("shades", "a pmf of bits on [0, 1]", AGREE, Shades, nothing, erratum="E28"),
    Mutant("kl_sign", "+ KL", MATCHES, linear(), _sign_wrong),
    Mutant("kl_undivided", "KL without 1/2", MATCHES, linear(), _undivided),
    Mutant("kl_dropped", "without KL", MATCHES, Pixels, _dropped),
    Mutant("variance_as_std", "log s^2 for log s", MATCHES, linear(), _variance_as_std),
    Mutant("another_posterior", "a bound of another q", MATCHES, linear(), _posterior(_scaled(1.5))),
    Mutant("kl_sign", "+ KL", BELOW, linear(), _sign_wrong),
    Mutant("kl_dropped", "without KL", BELOW, _sampled_with, _dropped),
    Mutant("a_little_above", "+ 0.1", BELOW, linear(), _edited(lambda b: b + 0.1)),
    Mutant("kl_sign", "+ KL", GIBBS, linear(Linear), _sign_wrong),
    Mutant("kl_dropped", "without KL", GIBBS, Pixels, _dropped),
    Mutant("mean_of_logs", "mean log w for log mean w", WEIGHTS, _sampled_with, _bound_of(lambda w: w.mean(0))),
    Mutant("sum_for_mean", "log sum w", WEIGHTS, Pixels, _bound_of(lambda w: w.logsumexp(0))),
    Mutant("one_draw", "k times the same z", WEIGHTS, _sampled_with, answering(iwae=_one_draw)),
    Mutant("sum_for_mean", "log sum w", RISES, _sampled_with, _bound_of(lambda w: w.logsumexp(0))),
    Mutant("divided_twice", "log sum w / k^2", RISES, Pixels, _bound_of(lambda w: _log_mean(w) - math.log(len(w)))),
    Mutant("ignores_the_data", "q(z | x) = p(z)", RANKS, linear(Claiming), _posterior(_ignoring)),
    Mutant("too_narrow", "0.8 s", RANKS, linear(Claiming), _posterior(_scaled(0.8))),
    Mutant("beside", "m + 0.2", RANKS, linear(Claiming), _posterior(_beside)),
    Mutant("too_narrow", "0.8 s", KEPT, linear(Claiming), _posterior(_scaled(0.8))),
    Mutant("beside", "m + 0.2", KEPT, linear(Claiming), _posterior(_beside)),
    Mutant("gradient_inside", "E[grad log w], z fixed", SLOPES, linear(GradientInside, 1.5), nothing, erratum="E29"),
    Mutant("spread_detached", "no gradient through s", SLOPES, linear(SpreadDetached, 1.3), nothing),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("hopeless", "- 1000", WELL, linear(), _edited(lambda b: b - 1000)),
    NearMiss("impossible", "-inf for some", WELL, Pixels, _edited(lambda b: b.where(b > -4, -math.inf))),
    NearMiss("mirrored", "-z is decoded", ANCESTRAL, linear(), _drawn(lambda z: -z)),
    NearMiss("broad", "1.5 s", AGREE, _sampled_with, nothing),
    NearMiss("ignores_the_data", "q(z | x) = p(z)", AGREE, linear(), _posterior(_ignoring)),
    NearMiss("shades", "a density of shades with its normaliser", AGREE, RightShades, nothing, erratum="E28"),
    NearMiss("drawn", "the KL is drawn", MATCHES, linear(Drawn, 1.5), nothing),
    NearMiss("exact", "the bound is log p(x)", MATCHES, linear(Drawn), nothing),
    NearMiss("bits", "five bits", MATCHES, Pixels, nothing),
    NearMiss("exact", "the bound is log p(x)", BELOW, linear(Drawn), nothing),
    NearMiss("broad", "1.5 s", BELOW, _sampled_with, nothing),
    NearMiss("hopeless", "- 1000", BELOW, linear(), _edited(lambda b: b - 1000)),
    NearMiss("exact", "the bound is log p(x)", GIBBS, linear(Linear), nothing),
    NearMiss("bits", "five bits", GIBBS, Pixels, nothing),
    NearMiss("exact", "every weight is p(x)", WEIGHTS, linear(Drawn), nothing),
    NearMiss("broad", "1.5 s", WEIGHTS, _sampled_with, nothing),
    NearMiss("exact", "every weight is p(x)", RISES, linear(Drawn), nothing),
    NearMiss("one_draw", "k times the same z: it does not fall", RISES, _sampled_with, answering(iwae=_one_draw)),
    NearMiss("exact", "the posterior", RANKS, linear(Claiming), nothing),
    NearMiss("unsaid", "no claim, but the bound is log p(x)", RANKS, linear(Drawn), nothing),
    NearMiss("exact", "the posterior", KEPT, linear(Claiming), nothing),
    NearMiss("ignores_the_data", "q(z | x) = p(z) keeps the joint law", KEPT, linear(Claiming), _posterior(_ignoring)),
    NearMiss("by_score", "the score function's gradient", SLOPES, linear(ByScore, 1.3), nothing, erratum="E29"),
    NearMiss("drawn", "the KL is drawn", SLOPES, linear(Drawn, 1.3), nothing),
    NearMiss("float64", "in float64", SLOPES, linear(WithDensity, 1.3, torch.float64), nothing),
)
