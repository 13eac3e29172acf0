"""Posteriors that claim to be exact: calibrated by ranks, and part of a kernel that keeps the joint law.

An encoder is an approximation by its nature, and owes neither. The claim is made by `posterior_is_exact = True`, or by
a bound that equals log p(x) at every draw, as it does for the exact posterior and for no other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.checks.latent_parts import (
    elbo,
    functions_of_latents,
    functions_of_pairs,
    parts,
)
from harness.checks.law import NotApplicable, statistical
from harness.checks.pairing import chosen_coordinates
from harness.checks.rounding import rounding_bound
from harness.contract import attribute
from harness.draws import Draws
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

NEEDS = ("sample", "prior", "likelihood", "latent_posterior")
RANKED = 7
"""Draws of the posterior among which the truth is ranked."""

PAIRED = 4
"""Coordinates of the event with which latent ones are multiplied."""

SWEEPS = 3
ROWS = 64


def _start_claimed(subject: Subject) -> BoundedMean:
    said = attribute(subject.model.target, "posterior_is_exact")
    said = said() if callable(said) else said
    if not (said is True or (said is None and _tight(subject))):
        raise NotApplicable(
            "the posterior is an approximation, as far as is said: posterior_is_exact = True would claim more"
        )
    return BoundedMean(-1.0, 1.0)


def _tight(subject: Subject) -> bool:
    """Is the bound log p(x), up to rounding, whatever z was drawn?"""
    model = subject.model
    if not model.can("log_prob", "elbo"):
        return False
    x = subject.pilot[:ROWS]
    with torch.no_grad():
        log_p = model.log_prob(x)
        gap = (elbo(model, x, subject.generator("tight")) - log_p.double()).abs()
    return bool((gap <= 2 * rounding_bound(subject, x, log_p)).all())


@statistical(
    "latent.posterior_calibrated",
    needs=NEEDS,
    blocked_by=("latent.parts_agree", "sample.finite"),
    start=_start_claimed,
    tolerance=2.0,
    share=1 / 4,
    unit="probability",
    source="Talts et al. 2018, https://arxiv.org/abs/1804.06788; Modrak et al. 2023, https://doi.org/10.1214/23-BA1404",
)
def posterior_calibrated(draws: Draws) -> Tensor:
    """The rank of T(z, x) among T(z_1, x), ..., T(z_7, x) is uniform, for (z, x) ancestral and z_i from q(. | x).

    Given x, the truth and the draws are exchangeable if q is the posterior. T runs over latent coordinates, the
    likelihood, and latent coordinates times those of the event: without such a T, a posterior that ignores the data and
    is the prior would pass. Ties are broken at random.
    """
    subject = draws.subject
    law = parts(subject)
    source = subject.generator("ranks", draws.index)
    with torch.no_grad():
        z = law.draw_latent(draws.n, source)
        x = law.draw_event(z, source)
        truth = _quantities(subject, z, x)
        lot, rank = _lots(truth, source), torch.zeros_like(truth)
        for _ in range(RANKED):
            other = _quantities(subject, law.draw_posterior(x, source), x)
            rank += torch.where(other == truth, _lots(truth, source) < lot, other < truth)
    return _uniform(rank / RANKED) + 0 * truth.sum(1, keepdim=True)


def _lots(like: Tensor, source: torch.Generator) -> Tensor:
    """Numbers by which equal ones are put in order: one for each that is ranked, so that all orders are as likely."""
    return torch.rand(like.shape, generator=source, dtype=torch.float64, device=like.device)


def _quantities(subject: Subject, z: Tensor, x: Tensor) -> Tensor:
    """(n, k): T(z, x)."""
    t = functions_of_latents(subject, z)
    u = subject.profile.chart.coordinates(x)[:, chosen_coordinates(subject)[:PAIRED]]
    likelihood = parts(subject).log_likelihood(x, z)
    return torch.cat([t, likelihood[:, None], (t[:, :, None] * u[:, None]).flatten(1)], 1)


def _uniform(u: Tensor) -> Tensor:
    """(n, 3 k): functions of ranks u in {0, 1/7, ..., 1} less their means if all are equally likely."""
    grid = torch.linspace(0, 1, RANKED + 1, dtype=torch.float64)
    folded, extreme = (2 * u - 1).abs(), ((u == 0) | (u == 1)).double()
    return torch.cat([u - 0.5, folded - (2 * grid - 1).abs().mean(), extreme - 2 / (RANKED + 1)], 1)


@statistical(
    "latent.joint_kept",
    needs=NEEDS,
    blocked_by=("latent.parts_agree", "latent.posterior_calibrated", "sample.finite"),
    start=_start_claimed,
    share=1 / 4,
    unit="probability",
    source="Geweke 2004, https://doi.org/10.1198/016214504000001132",
)
def joint_kept(draws: Draws) -> Tensor:
    """E f(z', x') = E f(z, x) after three sweeps of z' from q(. | x) and x' from the likelihood given z'.

    A sweep is a step of Gibbs' sampler, which keeps the joint law that it starts from: Geweke's joint test.
    """
    subject = draws.subject
    law = parts(subject)
    source = subject.generator("sweeps", draws.index)
    with torch.no_grad():
        z = law.draw_latent(draws.n, source)
        x = law.draw_event(z, source)
        before = functions_of_pairs(subject, z, x)
        for _ in range(SWEEPS):
            z = law.draw_posterior(x, source)
            x = law.draw_event(z, source)
    return functions_of_pairs(subject, z, x) - before
