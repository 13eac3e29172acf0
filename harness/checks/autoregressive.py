r"""Autoregressive densities: that the conditionals are laws, strictly causal, and those that the sampler follows.

.. math:: \log p(x) = \sum_k \log p(x_{o_k} \mid x_{o_1}, \ldots, x_{o_{k-1}})

What each is as a law is in `checks.autoregressive_law`, what it may see in `checks.autoregressive_causal`, and the
samplers in `checks.autoregressive_sampler`. `conditionals` has a column for each coordinate of the flattened event, and
`ordering` says which comes first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.checks import autoregressive_causal, autoregressive_law, autoregressive_sampler
from harness.checks.factors import BENGIO, NEEDS, WELL, conditionals, factors_of, field_of, order_of
from harness.checks.law import Check, NotApplicable, exact
from harness.checks.rosenblatt import rosenblatt
from harness.checks.rounding import LAMBDA, compared, difference, rounding_bound
from harness.checks.surface import broken
from harness.evidence import Exact
from harness.subject import Subject

POINTS = 8
"""Draws at which an identity is tried, and as many mixtures of two of them."""


@exact(WELL, needs=NEEDS, source=BENGIO)
def well_formed(subject: Subject) -> Exact:
    """conditionals(x) is a floating tensor [n, d], never NaN at draws; ordering() is a permutation of 0, ..., d - 1.

    And receptive_field() is a bool tensor [d, d]. A column is that of a coordinate of the flattened event, not of a
    place in the order.
    """
    x = subject.pilot[:POINTS]
    with torch.no_grad():
        found = conditionals(subject.model, x)
    d = found.shape[1]
    order_of(subject.model, d)
    if subject.model.can("receptive_field"):
        field_of(subject.model, d)
    wrong = found.isnan().any(1)
    return broken([f"NaN at {int(wrong.sum())} of {len(x)} draws"] if bool(wrong.any()) else [], len(x))


@exact(
    "autoregressive.sums_to_log_prob", needs=("conditionals", "log_prob"), blocked_by=(WELL,), unit="nat", source=BENGIO
)
def sums_to_log_prob(subject: Subject) -> Exact:
    """sum_i log p(x_i | the coordinates before it) = log_prob(x): d factors for d coordinates, by the chain rule.

    At draws and at mixtures of two draws that are possible.
    """
    factors = factors_of(subject)
    x = factors.events(_mixed(factors.draws))
    with torch.no_grad():
        log_p = subject.model.log_prob(x)
        x, log_p = x[log_p > -math.inf], log_p[log_p > -math.inf]
    if len(x) == 0:
        raise NotApplicable("the density is 0 at its own draws")
    found = factors.columns(x.reshape(len(x), -1))
    # Roundings of the columns are as likely up as down, so that those of their sum grow with the root of d.
    spread = factors.bounds(found).square().sum(1).sqrt()
    bounds = rounding_bound(subject, x, log_p).double() + LAMBDA * spread
    return compared(difference(found.sum(1), log_p), bounds, subject.effort.tolerance)


def _mixed(x: Tensor) -> Tensor:
    """(2 n, d): draws, and draws of which every other coordinate is another draw's."""
    x = x[:POINTS]
    mixed = x.clone()
    mixed[:, ::2] = x.roll(1, 0)[:, ::2]
    return torch.cat([x, mixed])


CHECKS: tuple[Check, ...] = (
    well_formed,
    sums_to_log_prob,
    *autoregressive_law.CHECKS,
    *autoregressive_causal.CHECKS,
    *autoregressive_sampler.CHECKS,
    rosenblatt,
)
