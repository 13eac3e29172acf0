"""Laws that tie the sampler to the density."""

from __future__ import annotations

import torch
from torch import Tensor

from harness import features
from harness.checks.law import Check, bounded, statistical
from harness.draws import Draws


def bridge_weights(draws: Draws) -> tuple[Tensor, Tensor]:
    """2q/(p+q) at the model's draws and 2p/(p+q) at the proposals; each (n,) in [0, 2]."""
    proposals = draws.proposals
    return 2 * _share(draws.log_q - draws.log_p), 2 * _share(proposals.log_p - proposals.log_q)


def _share(log_ratio: Tensor) -> Tensor:
    return torch.sigmoid(log_ratio)


@statistical(
    "density.bridge_mass",
    needs=("sample", "log_prob"),
    start=bounded(-2.0, 2.0),
    unit="of the mass",
    source="Bennett 1976; Meng & Wong 1996, https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n43/j6n43.htm",
)
def bridge_mass(draws: Draws) -> Tensor:
    r"""E_p[2q / (p + q)] = E_q[2p / (p + q)]: density and sampler carry the same mass.

    Both sides are the integral of 2pq / (p + q) when the sampler draws from p and p integrates to 1. A density that is
    off by a constant c moves the difference by about c; so does a sampler that leaves out a part of mass c.
    """
    at_draws, at_proposals = bridge_weights(draws)
    return at_draws - at_proposals


@statistical(
    "sampler.bridge",
    needs=("sample", "log_prob"),
    blocked_by=("density.bridge_mass",),
    start=bounded(-2.0, 2.0),
    labels=features.labels,
    unit="probability",
    source="Meng & Wong 1996, https://www3.stat.sinica.edu.tw/statistica/j6n4/j6n43/j6n43.htm",
)
def bridge(draws: Draws) -> Tensor:
    r"""E_p[g 2q / (p + q)] = E_q[g 2p / (p + q)] for every bounded g: the sampler draws from the density.

    Both sides are the integral of 2gpq / (p + q). g runs over location, scale, tails and values of each coordinate,
    radius and log-density. With q fitted to pilot draws the weights are near 1, and the sides differ by E g under
    the sampler minus E g under the density.
    """
    at_draws, at_proposals = bridge_weights(draws)
    proposals = draws.proposals
    g_draws = features.columns(draws.subject, draws.z, draws.log_p)
    g_proposals = features.columns(draws.subject, proposals.z, proposals.log_p)
    return g_draws * at_draws[:, None].float() - g_proposals * at_proposals[:, None].float()


CHECKS: tuple[Check, ...] = (bridge_mass, bridge)
