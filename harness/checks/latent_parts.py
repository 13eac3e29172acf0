"""The parts of a latent-variable model, asked for numbers: what comes back is checked for its shape, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.checks.law import NotApplicable
from harness.checks.pairing import chosen_coordinates
from harness.contract import attribute
from harness.draws import Draws
from harness.model import Model
from harness.statistics.one_sided import MeanAtMostZero
from harness.subject import Subject

KINGMA = "Kingma & Welling 2014, https://arxiv.org/abs/1312.6114"
PARTS = ("prior", "likelihood", "latent_posterior")
WELL, AGREE, MATCHES = "latent.elbo_well_formed", "latent.parts_agree", "latent.bound_matches_parts"

MOST_LATENT = 4
"""Latent coordinates that are watched."""

DITHER = 0.02
"""Nats of independent noise that are added to differences of log-densities, so that their rounding has no say."""

ROUNDINGS = 2**14
"""Unit roundoffs of a log-density that the noise exceeds at least."""


@dataclass(frozen=True)
class Parts:
    """p(z), p(x | z) and q(z | x), of which a missing one is None. Events and latent variables are rows."""

    prior: Any
    likelihood: Any
    posterior: Any

    def draw_latent(self, n: int, source: torch.Generator) -> Tensor:
        """z from the prior, (n, *latent)."""
        return _rows("prior().sample", _of_prior(self.prior, "sample")(n, generator=source), n)

    def draw_event(self, z: Tensor, source: torch.Generator) -> Tensor:
        """x from the likelihood, one for each row of z."""
        draw = _given("likelihood", self.likelihood, "sample")
        return _rows("likelihood().sample", draw(len(z), given=z, generator=source), len(z))

    def draw_posterior(self, x: Tensor, source: torch.Generator) -> Tensor:
        """z from q, one for each row of x."""
        draw = _given("posterior", self.posterior, "sample")
        return _rows("posterior().sample", draw(len(x), given=x, generator=source), len(x))

    def log_prior(self, z: Tensor) -> Tensor:
        return numbers("prior().log_prob", _of_prior(self.prior, "log_prob")(z), len(z))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return numbers("likelihood().log_prob", _given("likelihood", self.likelihood, "log_prob")(x, given=z), len(x))

    def log_posterior(self, z: Tensor, x: Tensor) -> Tensor:
        return numbers("posterior().log_prob", _given("posterior", self.posterior, "log_prob")(z, given=x), len(x))

    def log_weight(self, x: Tensor, z: Tensor) -> Tensor:
        """(n,): log w = log p(z) + log p(x | z) - log q(z | x)."""
        return self.log_prior(z) + self.log_likelihood(x, z) - self.log_posterior(z, x)


def parts_of(model: Model) -> Parts:
    """The parts that the model has."""
    names = ("prior", "likelihood", "latent_posterior")
    return Parts(*(model.methods[name]() if model.can(name) else None for name in names))


def parts(subject: Subject) -> Parts:
    """Those of the subject's model, asked for once."""
    return subject.once("parts of the latent-variable model", lambda: parts_of(subject.model))


def _given(part: str, law: Any, name: str) -> Callable[..., Any]:
    """The conditional method of a law. Raises ValueError where there is none."""
    method = law.methods.get(f"{name}_given") if isinstance(law, Model) else attribute(law, name)
    if not callable(method):
        raise ValueError(f"{part}() returned a {type(law).__name__} without {name} that takes `given`")
    return method


def _of_prior(law: Any, name: str) -> Callable[..., Any]:
    method = law.methods.get(name) if isinstance(law, Model) else attribute(law, name)
    if not callable(method):
        raise ValueError(f"prior() returned a {type(law).__name__} without {name}")
    return method


def _rows(name: str, value: object, n: int) -> Tensor:
    """Draws. Raises ValueError for anything but n rows."""
    if not isinstance(value, Tensor) or value.shape[:1] != (n,):
        raise ValueError(f"{name}() of {n} rows is {_seen(value)}, not a tensor of {n} rows")
    return value.detach()


def numbers(name: str, value: object, n: int) -> Tensor:
    """Floating numbers (n,), in float64. Raises ValueError for anything else."""
    if not isinstance(value, Tensor) or value.shape != (n,) or not value.is_floating_point():
        raise ValueError(f"{name}() of {n} rows is {_seen(value)}, not a floating tensor of shape ({n},)")
    return value.double()


def _seen(value: object) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def elbo(model: Model, x: Tensor, source: torch.Generator) -> Tensor:
    """(n,), with a graph where there is one."""
    return numbers("elbo", model.elbo(x, generator=source), len(x))


def iwae(model: Model, x: Tensor, k: int, source: torch.Generator) -> Tensor:
    """(n,), without a graph."""
    with torch.no_grad():
        return numbers("iwae", model.iwae(x, k, generator=source), len(x))


def never_minus_infinity(*values: Tensor) -> None:
    """Raises NotApplicable where a bound is -inf: its mean is, and says nothing."""
    if any(bool((value == -torch.inf).any()) for value in values):
        raise NotApplicable("the bound is -inf at some draws, and so is its mean")


def dither(draws: Draws, name: str, size: Tensor) -> Tensor:
    """(n,) independent noise of mean 0, so much larger than the rounding of log-densities like `size` (n,) that
    rounding cannot be mistaken for evidence."""
    subject = draws.subject
    unit = torch.finfo(draws.x.dtype if draws.x.is_floating_point() else torch.float32).eps / 2

    def scale() -> float:
        typical = float(size.abs().nan_to_num(0.0, 0.0, 0.0).mean())
        return max(DITHER, ROUNDINGS * unit * (1 + typical))

    source = subject.generator("dither", name, draws.index)
    noise = torch.randn(draws.n, generator=source, dtype=torch.float64, device=subject.model.device)
    return subject.once(f"dither of {name}", scale) * noise


def start_below(subject: Subject) -> MeanAtMostZero:
    return MeanAtMostZero(rarest=subject.effort.rarest)


def spread_of(subject: Subject, name: str, rows: Tensor) -> float:
    """The standard deviation of the first rows (n,) seen under that name, at least 1 nat: the unit of such numbers."""
    return subject.once(f"spread of {name}", lambda: max(1.0, float(rows.std()) if len(rows) > 1 else 1.0))


# Bounded functions


def functions_of_events(subject: Subject, x: Tensor) -> Tensor:
    """(n, k) in [-1/2, 1/2]: of up to 8 coordinates location and spread, products of neighbours, projections, size."""
    z = subject.profile.chart.coordinates(x).nan_to_num(0.0, 1e3, -1e3)
    chosen = chosen_coordinates(subject)
    t = torch.tanh(z[:, chosen])
    source = torch.Generator().manual_seed(subject.seed_for("projections"))
    axes = torch.randn(z.shape[1], 4, generator=source, dtype=torch.float64).to(z.device)
    lines = torch.tanh(z @ (axes / axes.norm(dim=0)))
    size = z.square() / (1 + z.square())
    return torch.cat(
        [t / 2, size[:, chosen] - 0.5, t[:, 1:] * t[:, :-1] / 2, lines / 2, size.mean(1)[:, None] - 0.5], 1
    )


def functions_of_latents(subject: Subject, z: Tensor) -> Tensor:
    """(n, k) in [-1, 1]: tanh of up to 4 latent coordinates, in the scale of the prior."""
    flat = z.reshape(len(z), -1)[:, :MOST_LATENT].double()

    def scales() -> tuple[Tensor, Tensor]:
        draws = parts(subject).draw_latent(1024, subject.generator("latent", "scale"))
        rows = draws.reshape(1024, -1)[:, :MOST_LATENT].double()
        spread = rows.std(0)
        return rows.mean(0), torch.where(spread > 0, spread, 1.0)

    centre, spread = subject.once("scale of the latent variable", scales)
    return torch.tanh((flat - centre) / spread)


def functions_of_pairs(subject: Subject, z: Tensor, x: Tensor) -> Tensor:
    """(n, k) in [-1/2, 1/2]: location and spread of latent coordinates, and their products with those of the event."""
    t = functions_of_latents(subject, z)
    u = torch.tanh(subject.profile.chart.coordinates(x).nan_to_num(0.0, 1e3, -1e3)[:, chosen_coordinates(subject)])
    return torch.cat([t / 2, t.square() - 0.5, (t[:, :, None] * u[:, None]).flatten(1) / 2], 1)
