"""A zoo of small models: the correct ones raise no alarm, and each wrong one fails the check that its defect is about.

Every correct model is a textbook formula with an exact sampler; every wrong one has a bug that was made before. All are
examined whole, at `quick` effort and one seed. Where two checks are named, either may speak: a sampler and a density
that disagree differ in mass as well, once both are weighed against a third law.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, constraints

from harness import check_model
from harness.plan import BRIDGES, FREE_OF_MASS

LOG_2PI = math.log(2 * math.pi)

Draw = Callable[[int, torch.Generator], Tensor]
LogProb = Callable[[Tensor], Tensor]


class Model:
    """A sampler and a density from two functions; further capabilities by name."""

    def __init__(self, draw: Draw, log_prob: LogProb, **more: object):
        self._draw, self._log_prob = draw, log_prob
        vars(self).update(more)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self._draw(n, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_prob(x)


class Sampler:
    def __init__(self, draw: Draw):
        self._draw = draw

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self._draw(n, generator)


class Density:
    def __init__(self, log_prob: LogProb):
        self.log_prob = log_prob


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I); (n,)."""
    return -0.5 * z.square().sum(-1) - 0.5 * z.shape[-1] * LOG_2PI


def where(condition: Tensor, value: Tensor | float) -> Tensor:
    """The value where the condition holds, -inf elsewhere."""
    value = value if isinstance(value, Tensor) else torch.full(condition.shape, float(value))
    return torch.where(condition, value, -torch.inf)


def categorical(p: Tensor, n: int, g: torch.Generator) -> Tensor:
    """n indices drawn with probabilities p (k,), or one a row of p (n, k)."""
    return (torch.rand(n, 1, generator=g) > p.cumsum(-1)[..., :-1]).sum(-1)


def gaussian(d: int, **more: object) -> Model:
    return Model(lambda n, g: torch.randn(n, d, generator=g), log_normal, **more)


def with_sampler(model: Model, draw: Draw) -> Model:
    return Model(draw, model.log_prob)


def with_density(model: Model, log_prob: LogProb) -> Model:
    return Model(lambda n, g: model.sample(n, generator=g), log_prob)


# ------------------------------------------------------------------------------------------------- correct models


class RealNVP(nn.Module):
    """Affine couplings (Dinh, Sohl-Dickstein & Bengio 2017); `share` of the log-determinant is counted, 1 is right."""

    def __init__(self, d: int, share: float = 1.0, seed: int = 0):
        super().__init__()
        self.d, self.half, self.share, source = d, d // 2, share, stream(seed)
        self.nets = nn.ModuleList()
        for layer in range(4):
            seen = self.half if layer % 2 == 0 else d - self.half
            self.nets.append(nn.Sequential(nn.Linear(seen, 32), nn.Tanh(), nn.Linear(32, 2 * (d - seen))))
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=source) * 0.5 / p.shape[-1] ** 0.5

    def _parts(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        first, second = x[:, : self.half], x[:, self.half :]
        return (first, second) if layer % 2 == 0 else (second, first)

    @staticmethod
    def _whole(seen: Tensor, moved: Tensor, layer: int) -> Tensor:
        return torch.cat([seen, moved] if layer % 2 == 0 else [moved, seen], 1)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        # A layer keeps the size of its first part, whichever half that is, as d is even.
        x = torch.randn(n, self.d, generator=generator)
        for layer, net in enumerate(self.nets):
            seen, moved = self._parts(x, layer)
            s, t = net(seen).chunk(2, -1)
            x = self._whole(seen, moved * torch.exp(torch.tanh(s)) + t, layer)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        log_det = torch.zeros(len(x), dtype=x.dtype)
        for layer, net in reversed(list(enumerate(self.nets))):
            seen, moved = self._parts(x, layer)
            s, t = net(seen).chunk(2, -1)
            x = self._whole(seen, (moved - t) * torch.exp(-torch.tanh(s)), layer)
            log_det = log_det - torch.tanh(s).sum(-1)
        return log_normal(x) + self.share * log_det


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


class Pixels:
    """Bernoulli pixels, each given those before it: logit_j = b_j + sum_i W_ij x_i over i < j (i <= j if it leaks)."""

    def __init__(self, d: int = 10, leak: bool = False, temperature: float = 1.0):
        self.w = torch.triu(torch.randn(d, d, generator=stream(2)), 0 if leak else 1)
        self.b, self.temperature = torch.randn(d, generator=stream(3)) / 2, temperature

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        x = torch.zeros(n, len(self.b))
        for j in range(len(self.b)):
            logit = (self.b[j] + x @ self.w[:, j]) / self.temperature
            x[:, j] = torch.bernoulli(torch.sigmoid(logit), generator=generator)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        logits = self.b + x @ self.w
        log_p = nn.functional.logsigmoid(torch.where(x == 1, logits, -logits)).sum(1)
        return where(((x == 0) | (x == 1)).all(1), log_p)


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


def mixture(weights: list[float], means: list[list[float]], drawn: list[float] | None = None) -> Model:
    """Unit Gaussians; `drawn` are the sampler's weights where they differ from the density's."""
    w, mu = torch.tensor(weights), torch.tensor(means)
    p = torch.tensor(drawn or weights)
    return Model(
        lambda n, g: mu[categorical(p, n, g)] + torch.randn(n, mu.shape[1], generator=g),
        lambda x: torch.logsumexp(w.log() + log_normal(x[:, None] - mu), 1),
    )


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


def scaled(
    scale: float, location: float = 0.0, shape: tuple[int, ...] = (3,), dtype: torch.dtype | None = None
) -> Model:
    def draw(n: int, g: torch.Generator) -> Tensor:
        return location + scale * torch.randn(n, *shape, generator=g, dtype=dtype)

    size = math.prod(shape)
    return Model(draw, lambda x: log_normal(((x - location) / scale).reshape(len(x), size)) - size * math.log(scale))


class Regression(nn.Module):
    """(a, b): b is Gaussian about a network of a with batch norm and dropout, which only `eval` makes a density."""

    def __init__(self, dropout: bool = False):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 2))
        source, self.dropout = stream(3), dropout
        for p in self.parameters():
            p.data = 0.7 * torch.randn(p.shape, generator=source)
        self.eval()

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        a = torch.randn(n, 1, generator=generator)
        return torch.cat([a, self.net(a) + 0.5 * torch.randn(n, 2, generator=generator)], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        self.net[3].train(self.dropout)
        value = log_normal(x[:, :1]) + log_normal((x[:, 1:] - self.net(x[:, :1])) / 0.5) + 2 * math.log(2)
        self.eval()
        return value


def positive(log_prob: LogProb) -> LogProb:
    """log_prob at positive events, -inf elsewhere."""
    return lambda x: where((x > 0).all(1), log_prob(torch.where(x > 0, x, 1.0)))


def uniform_ball() -> Model:
    def draw(n: int, g: torch.Generator) -> Tensor:
        z = torch.randn(n, 3, generator=g)
        return z / z.norm(dim=1, keepdim=True) * torch.rand(n, 1, generator=g) ** (1 / 3)

    return Model(draw, lambda x: where(x.norm(dim=1) <= 1 + 1e-6, -math.log(4 / 3 * math.pi)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums come out the same everywhere, and small tensors are not slowed by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


# --------------------------------------------------------------------------------------------------- wrong models


def in_place(x: Tensor) -> Tensor:
    with torch.no_grad():
        x.sub_(0.1)
    return log_normal(x + 0.1)


def reseeding(n: int, g: torch.Generator) -> Tensor:
    torch.manual_seed(1234)
    return torch.randn(n, 3, generator=g)


def antithetic(n: int, g: torch.Generator) -> Tensor:
    z = torch.randn((n + 1) // 2, 3, generator=g)
    return torch.cat([z, -z])[:n]


def draws_of(model: Pixels) -> Draw:
    return lambda n, g: model.sample(n, generator=g)


def die(drawn: list[float], stated: list[float]) -> Model:
    p, q = torch.tensor(drawn), torch.tensor(stated)
    size = len(stated)
    return Model(
        lambda n, g: categorical(p, n, g), lambda x: where((x >= 0) & (x < size), q.log()[x.clamp(0, size - 1).long()])
    )


FAIR, NEVER_LAST = [0.3, 0.3, 0.2, 0.15, 0.05], [0.32, 0.32, 0.2, 0.16]
CORRELATED = torch.linalg.cholesky(torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.5], [0.0, 0.5, 2.0]]))


def correlated_log_prob(x: Tensor) -> Tensor:
    white = torch.linalg.solve_triangular(CORRELATED.to(x.dtype), x.T, upper=False).T
    return log_normal(white) - float(CORRELATED.diagonal().log().sum())


SAMPLER = " or ".join(("density.bridge_mass", *FREE_OF_MASS, *BRIDGES))
"""A sampler that does not follow the density is one FAIL, of whichever check is the first to be sure."""

WRONG: dict[str, tuple[str, Callable[[], object]]] = {
    "log-determinant missing": ("density.integrates_to_one", lambda: RealNVP(2, share=0.0)),
    "log-determinant halved": ("density.integrates_to_one", lambda: RealNVP(2, share=0.5)),
    "log-determinant of the other sign": (SAMPLER, lambda: RealNVP(10, share=-1.0)),
    "logarithm to base 2": (
        "density.integrates_to_one",
        lambda: with_density(gaussian(3), lambda x: log_normal(x) / math.log(2)),
    ),
    "-d/2 log 2 pi missing": (
        "density.bridge_mass",
        lambda: with_density(gaussian(10), lambda x: -0.5 * x.square().sum(1)),
    ),
    "mean over coordinates for their sum": (
        "density.integrates_to_one",
        lambda: with_density(gaussian(3), lambda x: Normal(0.0, 1.0).log_prob(x).mean(1)),
    ),
    "autoregressive mask leaks": ("density.sums_to_one", lambda: Pixels(leak=True)),
    "temperature 0.8 when sampling": (
        SAMPLER,
        lambda: with_sampler(Pixels(), draws_of(Pixels(temperature=0.8))),
    ),
    "prior of the classes": (SAMPLER, lambda: mixture([0.5, 0.5], [[0.0], [4.0]], drawn=[0.6, 0.4])),
    "transpose of the Cholesky factor": (
        SAMPLER,
        lambda: Model(lambda n, g: torch.randn(n, 3, generator=g) @ CORRELATED, correlated_log_prob),
    ),
    "draws clipped to [0, 1]": (
        SAMPLER,
        lambda: with_sampler(scaled(0.3, 0.5), lambda n, g: (0.5 + 0.3 * torch.randn(n, 3, generator=g)).clamp(0, 1)),
    ),
    "last value never drawn": ("support.every_value_drawn or sampler.region_masses", lambda: die(NEVER_LAST, FAIR)),
    "last value has no mass": ("support.draws_are_possible", lambda: die(FAIR, NEVER_LAST)),
    "draws off by one": (
        "support.draws_are_possible",
        lambda: with_sampler(die(FAIR, FAIR), lambda n, g: categorical(torch.tensor(FAIR), n, g) + 1),
    ),
    "seed ignored": (
        "sample.varies_with_seed",
        lambda: with_sampler(gaussian(3), lambda n, g: torch.randn(n, 3, generator=stream())),
    ),
    "generator ignored": (
        "sample.repeats_under_generator",
        lambda: with_sampler(gaussian(3), lambda n, g: torch.randn(n, 3)),
    ),
    "global generator reseeded": ("sample.leaves_global_generator_alone", lambda: with_sampler(gaussian(3), reseeding)),
    "antithetic draws": ("sample.uncorrelated_along_batch", lambda: with_sampler(gaussian(3), antithetic)),
    "draws sorted": (
        "sample.uncorrelated_along_batch",
        lambda: with_sampler(gaussian(1), lambda n, g: torch.randn(n, 1, generator=g).sort(0).values),
    ),
    "float16 inside": (
        "sample.resolution",
        lambda: with_sampler(gaussian(3), lambda n, g: torch.randn(n, 3, generator=g).half().float()),
    ),
    "log_prob a coordinate": (
        "log_prob.well_formed",
        lambda: with_density(gaussian(3), lambda x: Normal(0.0, 1.0).log_prob(x)),
    ),
    "input changed in place": ("log_prob.leaves_input_unchanged", lambda: with_density(gaussian(3), in_place)),
    "NaN beyond 3.5 sd": (
        "support.draws_are_possible",
        lambda: with_density(gaussian(3), lambda x: log_normal(torch.where(x.abs() > 3.5, torch.nan, x))),
    ),
    "dropout on in log_prob": ("log_prob.deterministic", lambda: Regression(dropout=True)),
    "statistics of the batch": (
        "log_prob.batch_invariant",
        lambda: with_density(gaussian(3), lambda x: log_normal(x - 0.1 * x.mean(0))),
    ),
    "density beyond the support": (
        "support.impossible_outside",
        lambda: Model(
            lambda n, g: -torch.log1p(-torch.rand(n, 1, generator=g)),
            lambda x: -x[:, 0].abs(),
            support=constraints.independent(constraints.nonnegative, 1),
        ),
    ),
    "entropy in bits": (
        "information.entropy",
        lambda: gaussian(3, entropy=lambda: torch.tensor(1.5 * (1 + LOG_2PI) / math.log(2))),
    ),
    "variance over n - 1": (
        "moments.variance_of_density",
        lambda: gaussian(3, variance=lambda: torch.full((3,), 100 / 99)),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model_fails_the_check_of_its_defect(name: str) -> None:
    checks, model = WRONG[name]
    report = check_model(model(), effort="quick", seed=0)
    verdicts = {r.check: f"{r.verdict}" for r in report.records}
    assert any(verdicts[check] == "FAIL" for check in checks.split(" or ")), [
        f"{r.check}: {r.verdict} {r.message}" for r in report.records if r.verdict in ("FAIL", "ERROR")
    ]
    assert "ERROR" not in verdicts.values()
