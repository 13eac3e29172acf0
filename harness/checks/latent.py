r"""Latent-variable models: bounds below the likelihood, and parts that belong together.

With log w = log p(z) + log p(x | z) - log q(z | x) and z from q,

.. math:: E_q[\log w] = \log p(x) - \mathrm{KL}(q \,\|\, p(z \mid x)) \le \log p(x), \qquad E_q[w] = p(x).

What a bound is a mean of has no bounds of its own, so the laws of bounds lean on the central limit theorem; the laws
that tie prior, likelihood and posterior together do not.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from harness.checks.latent_gradient import reparameterised_gradient
from harness.checks.latent_parts import (
    BLEI,
    DITHER,
    dither,
    elbo,
    functions_of_events,
    functions_of_pairs,
    iwae,
    never_minus_infinity,
    parts_of,
)
from harness.checks.latent_posterior import joint_kept, posterior_calibrated
from harness.checks.law import Check, NotApplicable, bounded, exact, statistical
from harness.checks.surface import broken
from harness.draws import Draws, log_density
from harness.evidence import Exact
from harness.statistics.asymptotic import AsymptoticMean
from harness.statistics.bernstein import BoundedMean
from harness.statistics.one_sided import MeanAtMostZero
from harness.subject import Subject

BURDA = "Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519"
KINGMA = "Kingma & Welling 2014, https://arxiv.org/abs/1312.6114"
PARTS = ("prior", "likelihood", "latent_posterior")
WELL, AGREE, MATCHES = "latent.elbo_well_formed", "latent.parts_agree", "latent.bound_matches_parts"

ROWS = 256
WEIGHTS = (1, 3, 9)
"""Numbers k of weights of which the bounds are compared."""

LEAST_ACCEPTED = 0.01
MOST_STATES = 4096
STATE_DRAWS = 64
"""Draws of the bound at each state, by which the law over states is chosen that sees an excess best."""


@exact(WELL, needs=("sample", "elbo"), source=KINGMA)
def elbo_well_formed(subject: Subject) -> Exact:
    """elbo(x) is a floating tensor [n], never NaN or +inf, and a function of x and of the generator's state alone.

    A bound below log p(x) may be -inf; +inf would say that the event has all the mass.
    """
    x = subject.pilot[:ROWS]
    with torch.no_grad():
        first, again = (elbo(subject.model, x, subject.generator("elbo", "form")) for _ in range(2))
    wrong = first.isnan() | (first == torch.inf)
    problems = [f"NaN or +inf at {int(wrong.sum())} of {len(x)} draws"] if bool(wrong.any()) else []
    if not torch.equal(first.nan_to_num(), again.nan_to_num()):
        problems.append("two calls from the same generator state differ")
    return broken(problems, len(x))


@statistical(
    "latent.sample_is_ancestral",
    needs=("sample", "prior", "likelihood"),
    blocked_by=("sample.finite",),
    start=bounded(-1.0, 1.0),
    share=1 / 2,
    unit="probability",
    source=KINGMA,
)
def sample_is_ancestral(draws: Draws) -> Tensor:
    """E f(x) = E f(x') for x from sample, and x' from the likelihood given z from the prior.

    Both have the law int p(z) p(x | z) dz. f runs over locations, spreads, projections and products of coordinates.
    """
    subject, parts = draws.subject, parts_of(draws.subject.model)
    source = subject.generator("ancestral", draws.index)
    x = parts.draw_event(parts.draw_latent(draws.n, source), source)
    if x.shape != draws.x.shape:
        raise ValueError(
            f"likelihood().sample has events of shape {tuple(x.shape[1:])}, sample {tuple(draws.x.shape[1:])}"
        )
    return functions_of_events(subject, draws.x) - functions_of_events(subject, x)


def _start_moves(subject: Subject) -> BoundedMean:
    moved = _moves(subject, ROWS, "pilot")[0].mean()
    if not float(moved) >= LEAST_ACCEPTED and not bool(moved.isnan()):
        raise NotApplicable(f"draws of the posterior are accepted {float(moved):.1%} of the time: it is too far off")
    return BoundedMean(-1.0, 1.0)


def _moves(subject: Subject, n: int, *names: str | int) -> tuple[Tensor, Tensor]:
    """Acceptance (n,) of z' ~ q(. | x) in place of z, and the change of the functions (n, k), for (z, x) ancestral."""
    parts, source = parts_of(subject.model), subject.generator("moves", *names)
    with torch.no_grad():
        z = parts.draw_latent(n, source)
        x = parts.draw_event(z, source)
        other = parts.draw_posterior(x, source)
        accepted = (parts.log_weight(x, other) - parts.log_weight(x, z)).clamp(max=0).exp()
    return accepted, functions_of_pairs(subject, other, x) - functions_of_pairs(subject, z, x)


@statistical(
    AGREE,
    needs=("sample", *PARTS),
    blocked_by=("sample.finite",),
    start=_start_moves,
    share=1 / 2,
    unit="probability",
    source="Hastings 1970, https://doi.org/10.1093/biomet/57.1.97; Gandy & Scott 2021, https://arxiv.org/abs/2001.06465",
)
def parts_agree(draws: Draws) -> Tensor:
    """E[min(1, w(z') / w(z)) (f(z', x) - f(z, x))] = 0 for z from the prior, x from the likelihood, z' from q(. | x).

    Metropolis' rule with proposals of q leaves p(z | x) as it is, of which z is a draw: p(x), which is not known,
    cancels. So samplers and densities of prior, likelihood and posterior are each of one law, however far q is from
    p(z | x).
    """
    accepted, change = _moves(draws.subject, draws.n, draws.index)
    return accepted[:, None] * change


def _start_mean(subject: Subject) -> AsymptoticMean:
    return AsymptoticMean(rarest=subject.effort.rarest)


def _start_below(subject: Subject) -> MeanAtMostZero:
    return MeanAtMostZero(rarest=subject.effort.rarest)


def _size(subject: Subject, name: str, rows: Tensor) -> float:
    """The standard deviation of the first rows (n,) seen under that name, at least 1 nat: the unit of such numbers."""
    return subject.once(f"spread of {name}", lambda: max(1.0, float(rows.std()) if len(rows) > 1 else 1.0))


@statistical(
    MATCHES,
    needs=("sample", "elbo", *PARTS),
    blocked_by=(WELL, AGREE, "sample.finite"),
    start=_start_mean,
    tolerance=4.0,
    asymptotic=True,
    unit="sd of the difference, at least 1 nat",
    source=KINGMA,
)
def bound_matches_parts(draws: Draws) -> Tensor:
    """E elbo(x) = E_q[log p(z) + log p(x | z) - log q(z | x)].

    Whether KL(q || p(z)) is drawn or taken from a formula, as that of two Gaussians, the mean is the same.
    """
    subject, parts = draws.subject, parts_of(draws.subject.model)
    source = subject.generator("bound", draws.index)
    with torch.no_grad():
        said = elbo(subject.model, draws.x, source)
        log_w = parts.log_weight(draws.x, parts.draw_posterior(draws.x, source))
    never_minus_infinity(said, log_w)
    return (said - log_w + dither(draws, "bound", log_w)) / _size(subject, "bound", said - log_w)


@statistical(
    "latent.elbo_below_log_prob",
    needs=("sample", "log_prob", "elbo"),
    blocked_by=(
        WELL,
        MATCHES,
        "sample.finite",
        "density.integrates_to_one",
        "density.sums_to_one",
        "density.bridge_mass",
    ),
    start=_start_below,
    labels=lambda subject: ["all draws", "the likely third", "the third between", "the unlikely third"],
    tolerance=4.0,
    asymptotic=True,
    unit="sd of the difference, at least 1 nat",
    source=BLEI,
)
def elbo_below_log_prob(draws: Draws) -> Tensor:
    """E elbo(x) <= log p(x).

    The difference is KL(q || p(z | x)), which is not negative. It is averaged over all draws, and over the thirds of
    them by their density.
    """
    subject = draws.subject
    with torch.no_grad():
        said = elbo(subject.model, draws.x, subject.generator("below", draws.index))
    never_minus_infinity(said, draws.log_p)
    ends = subject.once("thirds", lambda: _thirds(log_density(subject, subject.pilot)))
    third = torch.bucketize(draws.log_p, ends)
    inside = torch.stack([torch.ones_like(third), third == 2, third == 1, third == 0], 1)
    above = said - draws.log_p
    return ((above + dither(draws, "below", draws.log_p)) / _size(subject, "below", above))[:, None] * inside


def _thirds(log_p: Tensor) -> Tensor:
    """(2,): between which the middle third of log-densities lies."""
    return log_p.quantile(torch.tensor([1 / 3, 2 / 3], dtype=log_p.dtype, device=log_p.device))


def _start_gibbs(subject: Subject) -> MeanAtMostZero:
    if subject.model.can("log_prob"):
        raise NotApplicable("the bound is compared with log_prob, and the mass of that is tested")
    try:
        subject.once("table of the bound", lambda: _table(subject))
        _reference_draws(Draws(subject, -1, ROWS))
    except (ValueError, IndexError) as refusal:
        raise NotApplicable(
            f"the bound raises at events beside the draws: {' '.join(str(refusal).split())[:80]}"
        ) from None
    return _start_below(subject)


@statistical(
    "latent.elbo_is_a_density",
    needs=("sample", "elbo"),
    blocked_by=(WELL, MATCHES, "sample.finite"),
    start=_start_gibbs,
    tolerance=4.0,
    asymptotic=True,
    unit="sd of the numbers, at least 1 nat",
    source="Gibbs 1902, chapter XI; Donsker & Varadhan 1975, https://doi.org/10.1002/cpa.3160280102",
)
def elbo_is_a_density(draws: Draws) -> Tensor:
    r"""E_r[elbo(x) - log r(x)] <= 0 for every law r of events, as int exp(E elbo(x)) dx <= 1.

    log int exp(b) = max over r of E_r[b - log r], Gibbs' variational principle, and a bound below the logarithm of a
    density has an integral of at most 1. It is linear in the bound, so that draws of it will do. r is the softmax of
    the bound itself, estimated at every state, where these can be listed, and otherwise the law fitted to pilot draws.
    """
    subject = draws.subject
    x, log_r = _reference_draws(draws)
    with torch.no_grad():
        said = elbo(subject.model, x, subject.generator("gibbs", draws.index))
    never_minus_infinity(said)
    above = said - log_r
    return (above + dither(draws, "gibbs", said)) / _size(subject, "gibbs", above)


def _reference_draws(draws: Draws) -> tuple[Tensor, Tensor]:
    """Events of a known law r, and log r of them."""
    subject = draws.subject
    source = subject.generator("law of reference", draws.index)
    table = subject.once("table of the bound", lambda: _table(subject))
    if table is None:
        x, _, log_r = subject.reference.sample(draws.n, source)
        return x, log_r
    states, log_r = table
    chosen = torch.multinomial(log_r.exp(), draws.n, replacement=True, generator=source)
    return states[chosen], log_r[chosen]


def _table(subject: Subject) -> tuple[Tensor, Tensor] | None:
    """All states, and log r at each: the bound's mean over some draws, normalised. None where there are too many."""
    alphabets = [a for a in subject.profile.alphabets if a is not None]
    if subject.profile.kind != "discrete" or math.prod(len(a) for a in alphabets) > MOST_STATES:
        return None
    states = torch.cartesian_prod(*alphabets).reshape(-1, len(alphabets))
    x = states.reshape(-1, *subject.pilot.shape[1:]).to(subject.pilot)
    source, total = subject.generator("table of the bound"), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    with torch.no_grad():
        for _ in range(STATE_DRAWS):
            total = total + elbo(subject.model, x, source)
    return x, (total / STATE_DRAWS).log_softmax(0)


@statistical(
    "latent.iwae_matches_parts",
    needs=("sample", "iwae", *PARTS),
    blocked_by=(AGREE, "sample.finite"),
    start=bounded(-1.0, 1.0),
    labels=lambda subject: [f"{what} of L_{k}" for k in WEIGHTS for what in ("location", "spread", "upper tail")],
    tolerance=2.0,
    share=1 / 4,
    unit="probability",
    source=BURDA,
)
def iwae_matches_parts(draws: Draws) -> Tensor:
    """iwae(x, k) has the law of log 1/k sum_i p(x, z_i) / q(z_i | x) with independent z_1, ..., z_k from q.

    The logarithm of a mean, not the mean of logarithms. Compared by bounded functions of both.
    """
    subject, columns = draws.subject, []
    for k in WEIGHTS:
        said = iwae(subject.model, draws.x, k, subject.generator("iwae", k, draws.index))
        made = _bound_of_parts(subject, draws.x, k, subject.generator("weights", k, draws.index))
        centre, scale = subject.once(f"scale of L_{k}", lambda: _scale(made))  # noqa: B023
        said, made = (value + dither(draws, f"{name} L_{k}", made) for name, value in (("said", said), ("made", made)))
        columns.append(_shapes(said, centre, scale) - _shapes(made, centre, scale))
    return torch.cat(columns, 1)


def _bound_of_parts(subject: Subject, x: Tensor, k: int, source: torch.Generator) -> Tensor:
    """(n,): log 1/k sum w."""
    parts = parts_of(subject.model)
    with torch.no_grad():
        log_w = [parts.log_weight(x, parts.draw_posterior(x, source)) for _ in range(k)]
    return torch.stack(log_w).logsumexp(0) - math.log(k)


def _scale(values: Tensor) -> tuple[float, float]:
    finite = values[values.isfinite()]
    spread = float(finite.std()) if len(finite) > 1 else 1.0
    return (float(finite.median()) if len(finite) else 0.0), max(spread, DITHER)


def _shapes(values: Tensor, centre: float, scale: float) -> Tensor:
    """(n, 3) in [-1/2, 1/2]."""
    t = (values.clamp(-1e300, 1e300) - centre) / scale
    return torch.stack([torch.tanh(t) / 2, t.square() / (1 + t.square()) - 0.5, (t > 1).double() - 0.5], 1)


@statistical(
    "latent.iwae_rises",
    needs=("sample", "iwae"),
    blocked_by=("latent.iwae_matches_parts", "sample.finite"),
    start=_start_below,
    labels=lambda subject: [f"L_{a} - L_{b}" for a, b in pairwise(WEIGHTS)] + [f"L_{WEIGHTS[-1]} - log p"],
    tolerance=4.0,
    asymptotic=True,
    unit="sd of the difference, at least 1 nat",
    source=BURDA,
)
def iwae_rises(draws: Draws) -> Tensor:
    """E L_1 <= E L_3 <= E L_9 <= log p(x) for L_k = iwae(x, k).

    Of k weights, the mean of l chosen at random has the mean of all in expectation, and log is concave (theorem 1).
    """
    subject = draws.subject
    bounds = [iwae(subject.model, draws.x, k, subject.generator("rises", k, draws.index)) for k in WEIGHTS]
    never_minus_infinity(*bounds)
    gaps = [low - high for low, high in pairwise(bounds)]
    if subject.model.can("log_prob"):
        never_minus_infinity(draws.log_p)
        gaps.append(bounds[-1] - draws.log_p)
    noise = dither(draws, "rises", bounds[-1])
    return torch.stack([(gap + noise) / _size(subject, f"gap {i}", gap) for i, gap in enumerate(gaps)], 1)


CHECKS: tuple[Check, ...] = (
    elbo_well_formed,
    sample_is_ancestral,
    parts_agree,
    bound_matches_parts,
    elbo_below_log_prob,
    elbo_is_a_density,
    iwae_matches_parts,
    iwae_rises,
    posterior_calibrated,
    joint_kept,
    reparameterised_gradient,
)
