"""Bounds below the likelihood: against the parts that they are made of, against log p(x), and against each other."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from harness.checks.latent_parts import (
    AGREE,
    DITHER,
    KINGMA,
    MATCHES,
    PARTS,
    WELL,
    dither,
    elbo,
    iwae,
    never_minus_infinity,
    parts,
    spread_of,
    start_below,
)
from harness.checks.law import bounded, statistical
from harness.draws import Draws, log_density
from harness.statistics.asymptotic import AsymptoticMean
from harness.subject import Subject

BLEI = "Blei, Kucukelbir & McAuliffe 2017, https://arxiv.org/abs/1601.00670"
BURDA = "Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519"

WEIGHTS = (1, 3, 9)
"""Numbers k of weights of which the bounds are compared."""


def _start_mean(subject: Subject) -> AsymptoticMean:
    return AsymptoticMean(rarest=subject.effort.rarest)


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
    subject = draws.subject
    law = parts(subject)
    source = subject.generator("bound", draws.index)
    with torch.no_grad():
        said = elbo(subject.model, draws.x, source)
        log_w = law.log_weight(draws.x, law.draw_posterior(draws.x, source))
    never_minus_infinity(said, log_w)
    return (said - log_w + dither(draws, "bound", log_w)) / spread_of(subject, "bound", said - log_w)


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
    start=start_below,
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
    return ((above + dither(draws, "below", draws.log_p)) / spread_of(subject, "below", above))[:, None] * inside


def _thirds(log_p: Tensor) -> Tensor:
    """(2,): between which the middle third of log-densities lies."""
    return log_p.quantile(torch.tensor([1 / 3, 2 / 3], dtype=log_p.dtype, device=log_p.device))


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
    law = parts(subject)
    with torch.no_grad():
        log_w = [law.log_weight(x, law.draw_posterior(x, source)) for _ in range(k)]
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
    start=start_below,
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
    return torch.stack([(gap + noise) / spread_of(subject, f"gap {i}", gap) for i, gap in enumerate(gaps)], 1)
