r"""The mass of a bound where no density is at hand to compare it with, by Gibbs' variational principle.

.. math:: \log \int e^{b(x)} dx = \max_r E_r[b(x) - \log r(x)],

so that for every law r whatever, :math:`E_r[b - \log r] \le 0` where exp(b) has a mass of at most 1. It is linear in b,
and draws of a bound will do for their mean. An r near to the model sees most. It must not leave the support, as a bound
may be any number at what is no event: so r is a law over events that were seen, where these repeat, and else the law
that was fitted to pilot draws, within the box that these span.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.checks.latent_parts import MATCHES, WELL, dither, elbo, never_minus_infinity, spread_of, start_below
from harness.checks.law import NotApplicable, statistical
from harness.draws import Draws
from harness.statistics.one_sided import MeanAtMostZero
from harness.subject import Subject

MOST_STATES = 4096
STATE_DRAWS = 64
"""Draws of the bound at each event that was seen, of which the softmax is the law that sees an excess best."""

PROBES, LEAST_INSIDE = 2**16, 0.1
SURE = math.log(1e9)
"""The share of the fitted law in the box is this far from certain to be overstated, in nats."""


def _start(subject: Subject) -> MeanAtMostZero:
    if subject.model.can("log_prob"):
        raise NotApplicable("the bound is compared with log_prob, and the mass of that is tested")
    _law(subject)
    return start_below(subject)


@statistical(
    "latent.elbo_is_a_density",
    needs=("sample", "elbo"),
    blocked_by=(WELL, MATCHES, "sample.finite"),
    start=_start,
    tolerance=4.0,
    asymptotic=True,
    unit="sd of the numbers, at least 1 nat",
    source="Gibbs 1902, chapter XI; Donsker & Varadhan 1975, https://doi.org/10.1002/cpa.3160280102",
)
def elbo_is_a_density(draws: Draws) -> Tensor:
    r"""E_r[elbo(x) - log r(x)] <= 0 for every law r of events, as int exp(E elbo(x)) dx <= 1.

    log int exp(b) = max over r of E_r[b - log r], Gibbs' variational principle, and a bound below the logarithm of a
    density has an integral of at most 1. r is the softmax of the bound over the events that pilot draws have shown,
    where these repeat, and otherwise the law that was fitted to them.
    """
    subject = draws.subject
    x, log_r = _law(subject).draw(subject, draws.n, subject.generator("law of reference", draws.index))
    with torch.no_grad():
        said = elbo(subject.model, x, subject.generator("gibbs", draws.index))
    never_minus_infinity(said)
    above = said - log_r
    return (above + dither(draws, "gibbs", said)) / spread_of(subject, "gibbs", above)


@dataclass(frozen=True)
class _Listed:
    """A law over events (m, *event) with log-probabilities (m,)."""

    states: Tensor
    log_r: Tensor

    def draw(self, subject: Subject, n: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.multinomial(self.log_r.exp(), n, replacement=True, generator=source)
        return self.states[chosen], self.log_r[chosen]


@dataclass(frozen=True)
class _Boxed:
    """The fitted law given that all coordinates (d,) lie between ends, of which it has a share exp(log_share) or more.

    An understated share overstates log r, and so errs to the side of no alarm.
    """

    low: Tensor
    high: Tensor
    log_share: float

    def draw(self, subject: Subject, n: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        found: list[tuple[Tensor, Tensor]] = []
        while sum(len(log_r) for _, log_r in found) < n:
            x, _, log_r = subject.reference.sample(n, source)
            kept = _within(x, self.low, self.high)
            found.append((x[kept], log_r[kept]))
        x, log_r = (torch.cat(parts)[:n] for parts in zip(*found, strict=True))
        return x, log_r - self.log_share


def _within(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    flat = x.reshape(len(x), -1)
    return ((flat >= low) & (flat <= high)).all(1)


def _law(subject: Subject) -> _Listed | _Boxed:
    return subject.once("law of reference", lambda: _listed(subject) or _boxed(subject))


def _listed(subject: Subject) -> _Listed | None:
    """A law over the distinct pilot draws; None where most of them are seen once only, or are levels of a density."""
    pilot = subject.pilot
    if subject.profile.kind != "discrete" or not bool((pilot == pilot.round()).all()):
        return None
    states, counts = pilot.reshape(len(pilot), -1).unique(dim=0, return_counts=True)
    if len(states) > MOST_STATES or int((counts == 1).sum()) > len(pilot) / 2:
        return None
    states = states.reshape(-1, *pilot.shape[1:])
    source, total = subject.generator("table of the bound"), torch.zeros(len(states), dtype=torch.float64)
    with torch.no_grad():
        for _ in range(STATE_DRAWS):
            total = total.to(states.device) + elbo(subject.model, states, source)
    if not bool(total.isfinite().all()):
        raise NotApplicable("the bound is not finite at an event that was drawn")
    return _Listed(states, (total / STATE_DRAWS).log_softmax(0))


def _boxed(subject: Subject) -> _Boxed:
    """The fitted law in the box of the pilot draws, where their coordinates are continuous."""
    if subject.profile.kind != "continuous":
        raise NotApplicable("events are discrete in part, are no integers, or are too many to be listed")
    flat = subject.pilot.reshape(len(subject.pilot), -1)
    low, high = flat.amin(0), flat.amax(0)
    x, _, _ = subject.reference.sample(PROBES, subject.generator("share of the box"))
    share = float(_within(x, low, high).double().mean()) - math.sqrt(SURE / (2 * PROBES))
    if share < LEAST_INSIDE:
        raise NotApplicable("of the law that was fitted too little lies where draws do")
    return _Boxed(low, high, math.log(share))
