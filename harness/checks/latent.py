r"""Latent-variable models: bounds below the likelihood, and parts that belong together.

With log w = log p(z) + log p(x | z) - log q(z | x) and z from q,

.. math:: E_q[\log w] = \log p(x) - \mathrm{KL}(q \,\|\, p(z \mid x)) \le \log p(x), \qquad E_q[w] = p(x).

What a bound is a mean of has no bounds of its own, so the laws of bounds (`latent_bounds`, `latent_mass`) lean on the
central limit theorem; those that tie prior, likelihood and posterior together do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.checks.latent_bounds import (
    bound_matches_parts,
    elbo_below_log_prob,
    iwae_matches_parts,
    iwae_rises,
)
from harness.checks.latent_gradient import reparameterised_gradient
from harness.checks.latent_mass import elbo_is_a_density
from harness.checks.latent_parts import (
    AGREE,
    KINGMA,
    PARTS,
    WELL,
    elbo,
    functions_of_events,
    functions_of_pairs,
    parts,
)
from harness.checks.latent_posterior import joint_kept, posterior_calibrated
from harness.checks.law import Check, NotApplicable, bounded, exact, statistical
from harness.checks.surface import broken
from harness.draws import Draws
from harness.evidence import Exact
from harness.statistics.bernstein import BoundedMean
from harness.subject import Subject

ROWS = 256
LEAST_ACCEPTED = 0.01


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
    subject = draws.subject
    law = parts(subject)
    source = subject.generator("ancestral", draws.index)
    x = law.draw_event(law.draw_latent(draws.n, source), source)
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
    law, source = parts(subject), subject.generator("moves", *names)
    with torch.no_grad():
        z = law.draw_latent(n, source)
        x = law.draw_event(z, source)
        other = law.draw_posterior(x, source)
        accepted = (law.log_weight(x, other) - law.log_weight(x, z)).clamp(max=0).exp()
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
