"""A zoo of small models, the correct half: none raises an alarm.

Each is a textbook formula with an exact sampler, examined whole at `quick` effort and one seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from harness import check_model
from zoo import (
    LOG_2PI,
    Density,
    LogProb,
    Model,
    Pixels,
    RealNVP,
    Regression,
    Sampler,
    categorical,
    log_normal,
    mixture,
    scaled,
    stream,
    where,
)


def masked_autoregressive_flow(d: int = 5) -> Model:
    """x_j = t_j + u_j exp(s_j), where s_j and t_j see x_1 .. x_{j-1} only."""
    source = stream(1)
    w = torch.tril(torch.randn(d, d, generator=source), -1)
    v = torch.tril(torch.randn(d, d, generator=source), -1) / 2

    def draw(n: int, g: torch.Generator) -> Tensor:
        u, x = torch.randn(n, d, generator=g), torch.zeros(n, d)
        for j in range(d):
            x[:, j] = u[:, j] * torch.exp(torch.tanh(x @ v[j])) + x @ w[j]
        return x

    def log_prob(x: Tensor) -> Tensor:
        s, t = torch.tanh(x @ v.T.to(x.dtype)), x @ w.T.to(x.dtype)
        return log_normal((x - t) * torch.exp(-s)) - s.sum(-1)

    return Model(draw, log_prob)


class Ising:
    """3 x 3 spins, drawn from the list of all 512 states."""

    states = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=9))).reshape(-1, 3, 3)

    def _log_weight(self, s: Tensor) -> Tensor:
        bonds = (s[:, 1:] * s[:, :-1]).sum((1, 2)) + (s[:, :, 1:] * s[:, :, :-1]).sum((1, 2))
        return 0.5 * bonds + 0.1 * s.sum((1, 2))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        p = torch.softmax(self._log_weight(self.states), 0)
        return self.states[torch.multinomial(p, n, True, generator=generator)] if n else self.states[:0]

    def log_prob(self, x: Tensor) -> Tensor:
        log_z = torch.logsumexp(self._log_weight(self.states), 0)
        return where((x.abs() == 1).flatten(1).all(1), self._log_weight(x) - log_z)


def student(d: int, nu: int) -> Model:
    """Multivariate t with identity scale."""
    constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - d / 2 * math.log(nu * math.pi)

    def draw(n: int, g: torch.Generator) -> Tensor:
        chi2 = torch.randn(n, nu, generator=g).square().sum(1, keepdim=True)
        return torch.randn(n, d, generator=g) * torch.sqrt(nu / chi2)

    return Model(draw, lambda x: constant - (nu + d) / 2 * torch.log1p(x.square().sum(1) / nu))


def polar(radius: Callable[[Tensor], Tensor], log_prob: LogProb) -> Model:
    """Isotropic in the plane: a radius made of a uniform number."""

    def draw(n: int, g: torch.Generator) -> Tensor:
        u, angle = torch.rand(n, generator=g), torch.rand(n, generator=g) * 2 * math.pi
        return radius(u)[:, None] * torch.stack([torch.cos(angle), torch.sin(angle)], 1)

    return Model(draw, log_prob)


def hidden_markov_gaussian(steps: int = 6) -> Model:
    """Three hidden states; the density by the forward recursion."""
    source = stream(3)
    start = torch.softmax(torch.randn(3, generator=source), 0)
    move = torch.softmax(1.5 * torch.randn(3, 3, generator=source), 1)
    mu, sd = torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([0.5, 1.0, 0.3])

    def draw(n: int, g: torch.Generator) -> Tensor:
        states = [categorical(start, n, g)]
        for _ in range(steps - 1):
            states.append(categorical(move[states[-1]], n, g))
        s = torch.stack(states, 1)
        return mu[s] + sd[s] * torch.randn(n, steps, generator=g)

    def log_prob(x: Tensor) -> Tensor:
        emitted = Normal(mu, sd).log_prob(x[..., None])  # (n, steps, 3)
        alpha = start.log() + emitted[:, 0]
        for t in range(1, steps):
            alpha = torch.logsumexp(alpha[:, :, None] + move.log(), 1) + emitted[:, t]
        return torch.logsumexp(alpha, 1)

    return Model(draw, log_prob)


def label_and_features() -> Model:
    """(k, x): an integer label, and two features whose mean depends on it."""
    w, mu = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([[0.0, 0.0], [3.0, 1.0], [-2.0, 5.0]])

    def draw(n: int, g: torch.Generator) -> Tensor:
        k = categorical(w, n, g)
        return torch.cat([k[:, None].float(), mu[k] + torch.randn(n, 2, generator=g)], 1)

    def log_prob(x: Tensor) -> Tensor:
        label = x[:, :1] == torch.arange(3)
        k = label.float().argmax(1)
        return where(label.any(1), w.log()[k] + log_normal(x[:, 1:] - mu[k]))

    return Model(draw, log_prob)


def grey_levels(levels: int, shape: tuple[int, ...]) -> Model:
    """Images of independent pixels with values k / (levels - 1)."""
    d = math.prod(shape)
    p = torch.softmax(torch.randn(d, levels, generator=stream(8)), 1)

    def draw(n: int, g: torch.Generator) -> Tensor:
        k = (torch.rand(n, d, 1, generator=g) > p.cumsum(1)[:, :-1]).sum(-1)
        return (k / (levels - 1)).reshape(n, *shape)

    def log_prob(x: Tensor) -> Tensor:
        k = x.reshape(len(x), d) * (levels - 1)
        whole = k.round().clamp(0, levels - 1)
        return where(((k - whole).abs() < 1e-3).all(1), p.log()[torch.arange(d), whole.long()].sum(1))

    return Model(draw, log_prob)


def counts() -> Model:
    """Zero-inflated Poisson, three independent coordinates."""

    def draw(n: int, g: torch.Generator) -> Tensor:
        y = torch.poisson(torch.full((n, 3), 4.0), generator=g)
        return torch.where(torch.rand(n, 3, generator=g) < 0.3, 0.0, y)

    def log_prob(x: Tensor) -> Tensor:
        possible = (x >= 0) & (x == x.round())
        y = torch.where(possible, x, 0.0)
        poisson = y * math.log(4.0) - 4 - torch.lgamma(y + 1)
        inflated = torch.where(y == 0, torch.log(0.3 + 0.7 * torch.exp(poisson)), math.log(0.7) + poisson)
        return where(possible.all(1), inflated.sum(1))

    return Model(draw, log_prob)


def von_mises(kappa: float = 2.0) -> Model:
    """On [-pi, pi), by rejection from the uniform law."""
    log_z = math.log(2 * math.pi * float(torch.special.i0(torch.tensor(kappa, dtype=torch.float64))))

    def draw(n: int, g: torch.Generator) -> Tensor:
        kept = torch.empty(0)
        while len(kept) < n:
            angle = (2 * torch.rand(n, generator=g) - 1) * math.pi
            kept = torch.cat([kept, angle[torch.rand(n, generator=g) < torch.exp(kappa * (torch.cos(angle) - 1))]])
        return kept[:n, None]

    return Model(draw, lambda x: where(x[:, 0].abs() <= math.pi, kappa * torch.cos(x[:, 0]) - log_z))


def positive(log_prob: LogProb) -> LogProb:
    """log_prob at positive events, -inf elsewhere."""
    return lambda x: where((x > 0).all(1), log_prob(torch.where(x > 0, x, 1.0)))


def uniform_ball() -> Model:
    def draw(n: int, g: torch.Generator) -> Tensor:
        z = torch.randn(n, 3, generator=g)
        return z / z.norm(dim=1, keepdim=True) * torch.rand(n, 1, generator=g) ** (1 / 3)

    return Model(draw, lambda x: where(x.norm(dim=1) <= 1 + 1e-6, -math.log(4 / 3 * math.pi)))


CORRECT: dict[str, Callable[[], object]] = {
    "RealNVP in 2 dimensions": lambda: RealNVP(2),
    "RealNVP in 10 dimensions": lambda: RealNVP(10),
    "masked autoregressive flow": masked_autoregressive_flow,
    "autoregressive pixels": Pixels,
    "hidden Markov model": hidden_markov_gaussian,
    "Ising by enumeration": Ising,
    "mixture with a mode of 1 %": lambda: mixture([0.9, 0.09, 0.01], [[0.0, 0.0], [10.0, 0.0], [0.0, 50.0]]),
    "Student t in 10 dimensions": lambda: student(10, 3),
    "Cauchy in 5 dimensions": lambda: student(5, 1),
    "uniform in a ball": uniform_ball,
    "ring": lambda: polar(
        lambda u: torch.sqrt(1 + 3 * u),
        lambda x: where((x.norm(dim=1) - 1.5).abs() <= 0.5 + 1e-6, -math.log(3 * math.pi)),
    ),
    "Gaussian with a hole": lambda: polar(
        lambda u: torch.sqrt(1 - 2 * torch.log1p(-u)),
        lambda x: where(x.norm(dim=1) >= 1 - 1e-6, log_normal(x) + 0.5),
    ),
    "label and features": label_and_features,
    "zero-inflated counts": counts,
    "images of 17 grey levels": lambda: grey_levels(17, (2, 3)),
    "one point": lambda: Model(lambda n, g: torch.zeros(n, 2).long(), lambda x: where((x == 0).all(1), 0.0)),
    "von Mises": von_mises,
    "lognormal in 5 dimensions": lambda: Model(
        lambda n, g: torch.exp(torch.randn(n, 5, generator=g)),
        positive(lambda x: log_normal(x.log()) - x.log().sum(1)),
    ),
    "Levy": lambda: Model(
        lambda n, g: torch.randn(n, 1, generator=g, dtype=torch.float64) ** -2,
        positive(lambda x: -0.5 * LOG_2PI - 1.5 * x[:, 0].log() - 0.5 / x[:, 0]),
    ),
    "events of shape (3, 4, 4)": lambda: scaled(1.0, shape=(3, 4, 4)),
    "scale 1e-6": lambda: scaled(1e-6),
    "scale 1e6": lambda: scaled(1e6),
    "1e6 +- 1 in float64": lambda: scaled(1.0, 1e6, dtype=torch.float64),
    "dropout and batch norm in eval mode": Regression,
    "a sampler alone": lambda: Sampler(lambda n, g: torch.randn(n, 2, generator=g) @ torch.ones(2, 5)),
    "an energy in three dimensions": lambda: Density(
        lambda x: log_normal(torch.stack([x[:, 0], x[:, 1] - x[:, 0] ** 2 / 2, x[:, 2]], 1))
    ),
}


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_model_raises_no_alarm(name: str) -> None:
    report = check_model(CORRECT[name](), effort="quick", seed=0)
    assert not [f"{r.check}: {r.verdict} {r.message}" for r in report.records if r.verdict in ("FAIL", "ERROR")]
