r"""Chow-Liu trees: of all laws in which each variable has at most one parent, the most likely one.

The log-likelihood of a tree at its best tables is n [sum over edges I(x_i; x_j) - sum_i H(x_i)], with the mutual
informations and entropies of the draws. So the best tree is a maximum spanning tree under the weights I(x_i; x_j); its
tables are then shares, as in any Bayesian network, and the direction of the edges does not matter.

All pairwise counts come from one product of matrices: with a column of 0 and 1 for each state of each variable, X^T X
counts how often two states occur together.

Source: Chow & Liu (1968), doi.org/10.1109/TIT.1968.1054142.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from reference_impls.bayesian_network import BayesianNetwork
from reference_impls.discrete import shares
from reference_impls.states import checked_size, placing, sample_states

ROWS = 2**14
"""Draws to a product: their 0-1 columns take memory, and in float32 counts are exact up to 2^24."""


def chow_liu(x: Tensor, states: Sequence[int] | None = None, *, smoothing: float = 1.0) -> BayesianNetwork:
    """The tree, rooted at variable 0, with `smoothing` added to each count of its tables.

    x (n, d) holds states; without `states` a variable has one more than its largest value, and at least two.
    """
    x = torch.as_tensor(x)
    if x.dim() != 2 or 0 in x.shape:
        raise ValueError(f"x should be draws (n, d), one or more of one or more variables, not {tuple(x.shape)}")
    if x.is_floating_point() and not x.isfinite().all():
        raise ValueError("x should hold states, with no NaN or infinity; drop the rows that have some")
    if not x.is_floating_point():
        x = x.long()  # of which torch finds the largest in half the time that bytes take
    states = tuple(states) if states is not None else tuple(int(m) + 1 for m in x.amax(0).clamp_min(1).tolist())
    counts = pairwise_counts(x, states)
    parents = maximum_spanning_tree(pairwise_information(counts))
    return BayesianNetwork(parents, [_table(counts, i, pa, states, smoothing) for i, pa in enumerate(parents)])


def _table(counts: Tensor, i: int, parents: Sequence[int], states: Sequence[int], smoothing: float) -> Tensor:
    """p(x_i | its parent), or p(x_i) of the root: their counts were all taken for the tree."""
    if not parents:
        return shares(counts[i, :, i].diagonal()[: states[i]], smoothing)  # (K_i,)
    (j,) = parents
    return shares(counts[j, : states[j], i, : states[i]], smoothing)  # (K_j, K_i)


def pairwise_counts(x: Tensor, states: Sequence[int]) -> Tensor:
    """How often x_i = a and x_j = b together: (d, K, d, K) in float64, K the largest of the numbers of states.

    State 0 needs no column: it occurs where no other state does.
    """
    x = sample_states(x, states)
    (n, d), k = x.shape, max(states)
    checked_size([d, k, d, k])
    values = torch.arange(1, k, device=x.device)
    counts = torch.zeros(d, k, d, k, dtype=torch.float64, device=x.device)
    for rows in x.split(ROWS):
        columns = (rows[:, :, None] == values).flatten(1).float()  # (rows, d (K - 1))
        counts[:, 1:, :, 1:] += (columns.mT @ columns).double().reshape(d, k - 1, d, k - 1)
    alone = counts.diagonal(dim1=0, dim2=2).diagonal(dim1=0, dim2=1)[:, 1:].clone()  # (d, K - 1), of each state
    counts[:, 0, :, 1:] = alone - counts[:, 1:, :, 1:].sum(1)
    counts[:, 1:, :, 0] = alone[:, :, None] - counts[:, 1:, :, 1:].sum(3)
    counts[:, 0, :, 0] = n - counts[:, 1:, :, 0].sum(1) - alone.sum(1)
    return counts


def pairwise_information(counts: Tensor) -> Tensor:
    """I(x_i; x_j) = sum_ab p_ab log(p_ab / (p_a p_b)), in nats: (d, d); on the diagonal, H(x_i)."""
    p = counts / counts[0, :, 0].sum()  # (d, K, d, K)
    single = p.diagonal(dim1=0, dim2=2).diagonal(dim1=0, dim2=1)  # (d, K)
    entropy = -torch.xlogy(single, single).sum(-1)  # (d,)
    return entropy[:, None] + entropy + torch.xlogy(p, p).sum((1, 3))


def maximum_spanning_tree(weights: Tensor) -> list[list[int]]:
    """The parent of each node (none for node 0) in a tree of largest total weight, by Prim's rule, from (d, d).

    The tree grows from node 0 by the heaviest edge that leaves it; of equal edges, the one to the lowest node.
    """
    rows: list[list[float]] = weights.tolist()
    parents: list[list[int]] = [[] for _ in rows]
    heaviest = {i: (weight, 0) for i, weight in enumerate(rows[0]) if i}  # of the edges to i from the tree, and its end
    while heaviest:
        node = max(heaviest, key=lambda i: heaviest[i][0])
        parents[node] = [heaviest.pop(node)[1]]
        for i, (weight, _) in heaviest.items():
            if rows[node][i] > weight:
                heaviest[i] = rows[node][i], node
    return parents


# Ready-made models


def caterpillar(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> BayesianNetwork:
    """The tree learnt from 500 draws (seed 11) of six bits: a chain of three, each with a noisy copy."""
    generator = torch.Generator().manual_seed(11)
    flips = (torch.rand(500, 6, generator=generator, dtype=torch.float64) < 0.2).long()
    spine = flips[:, :3].cumsum(1) % 2
    return chow_liu(torch.cat([spine, (spine + flips[:, 3:]) % 2], 1)).to(*placing(dtype, device))
