r"""Numbers that are zero in mean when the two members of a pair have nothing to do with each other.

Take two pairs (a, b) and (c, d). If b and d are independent of a and c, and exchangeable with each other, then swapping
b with d changes nothing, so every statistic that changes its sign under that swap has mean zero, whatever the law is:

.. math:: (\phi(a) - \phi(c)) (\phi(b) - \phi(d)), \qquad
          \tfrac12 [1\{a = b\} + 1\{c = d\} - 1\{a = d\} - 1\{c = b\}].

The first is twice the covariance of the features within a pair, the second the share of pairs that are repeats, over
and above the repeats that the law itself makes: a coin, an atom, or the 2^24 values of a float32 raise no alarm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.draws import Draws
from harness.subject import Subject

MOST_COORDINATES = 8
_ODD = 0x9E3779B97F4A7C15 - 2**64  # the golden ratio in 64 bits: any odd number would do


def keys(x: Tensor) -> Tensor:
    """(n,) int64: equal for equal events. Different events share a key with a probability of about 2^-32 or less."""
    flat = x.reshape(len(x), -1)
    if flat.is_floating_point():
        flat = (flat + 0.0).to(torch.float64).view(torch.int64)  # -0.0 becomes 0.0
    flat = flat.to(torch.int64)
    # The shifts are arithmetic: without the masks -1 would be folded onto 0, and -k onto k - 1.
    flat = (flat ^ ((flat >> 29) & (2**35 - 1))) * _ODD
    flat = flat ^ ((flat >> 32) & (2**32 - 1))
    weights = torch.randint(-(2**62), 2**62, (flat.shape[1],), generator=torch.Generator().manual_seed(1)) * 2 + 1
    return (flat * weights.to(flat.device)).sum(1)


def at_lag(rows: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """The disjoint pairs (row i, row i + lag) of (n, ...) rows, as two tensors (m, ...)."""
    n = len(rows) - len(rows) % (2 * lag)
    blocks = rows[:n].reshape(-1, 2, lag, *rows.shape[1:])
    return blocks[:, 0].flatten(0, 1), blocks[:, 1].flatten(0, 1)


def quads(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs (first_i, second_i), i < m, as m // 2 quadruples a, b, c, d: pair i and pair i + m // 2."""
    h = len(first) // 2
    return first[:h], second[:h], first[h : 2 * h], second[h : 2 * h]


def repeats(first: Tensor, second: Tensor) -> Tensor:
    """(m // 2,) in [-1, 1]: repeats within pairs of keys (m,), less those between unrelated ones."""
    a, b, c, d = quads(first, second)
    return ((a == b).float() + (c == d).float() - (a == d).float() - (c == b).float()) / 2


def products(first: Tensor, second: Tensor) -> Tensor:
    """(m // 2, k) in [-1, 1]: covariances within pairs of features (m, k) that lie in [-1/2, 1/2]."""
    a, b, c, d = quads(first, second)
    return (a - c) * (b - d)


def features(subject: Subject, z: Tensor) -> Tensor:
    """(n, k) in [-1/2, 1/2]: tanh of up to 8 standardised coordinates, and the size of the whole event.

    0 for an event without coordinates: NaN, or outside the declared support, which other laws are there to say.
    """
    chosen = chosen_coordinates(subject)
    square = z.square()
    size = (square / (1 + square)).nan_to_num(1.0).mean(1, keepdim=True) - 0.5
    return torch.cat([torch.tanh(z[:, chosen]) / 2, size], 1).float().nan_to_num(0.0)


def feature_labels(subject: Subject) -> list[str]:
    return [f"coordinate {j}" for j in chosen_coordinates(subject).tolist()] + ["the size of events"]


def chosen_coordinates(subject: Subject) -> Tensor:
    """All coordinates, or 8 of them chosen by the seed."""
    size = subject.profile.size
    order = torch.randperm(size, generator=torch.Generator().manual_seed(subject.seed_for("coordinates")))
    return order[:MOST_COORDINATES].sort().values.to(subject.profile.chart.location.device)


def with_mean(numbers: Tensor) -> Tensor:
    """(n, k) to (n, k + 1): also the mean over all columns but the last, which adds up what many share."""
    return torch.cat([numbers, numbers[:, :-1].mean(1, keepdim=True)], 1)


def calls_after(draws: Draws) -> tuple[Tensor, Tensor]:
    """Two more calls of as many draws, from one generator: its seed is the one after the seed of the chunk itself."""
    subject = draws.subject
    source = torch.Generator(device=subject.model.device)
    source.manual_seed(subject.seed_for("draws", draws.index) + 1)
    return subject.model.sample(draws.n, generator=source), subject.model.sample(draws.n, generator=source)


def duplicates(first: Tensor, second: Tensor, source: torch.Generator) -> Tensor:
    """(m,) in [-1, 1]: for pairs of equal keys in two calls, 1 if both are in the same call, less its probability.

    If all draws are independent and of one law, then, given all values, it is random which fell into which call.
    Pairs are made of equal values at random and taken in the order of their keys; given the pairs before, the next one
    falls within one call with probability [r(r-1) + s(s-1)] / (r+s)(r+s-1), where r and s count the places left.
    """
    key = torch.cat([first, second])
    call = torch.arange(len(key), device=key.device) >= len(first)
    shuffled = torch.randperm(len(key), generator=source, device=source.device).to(key.device)
    key, order = torch.sort(key[shuffled], stable=True)
    call = call[shuffled][order]
    place = _place_in_group(key)
    starts = ((place[:-1] % 2 == 0) & (key[:-1] == key[1:])).nonzero().flatten()
    members = torch.stack([call[starts], call[starts + 1]], 1)  # (m, 2)
    within = (members[:, 0] == members[:, 1]).double()
    used = members.sum(1).double()
    s = len(second) - (used.cumsum(0) - used)
    r = len(first) - ((2 - used).cumsum(0) - (2 - used))
    return within - (r * (r - 1) + s * (s - 1)) / ((r + s) * (r + s - 1))


def _place_in_group(key: Tensor) -> Tensor:
    """(n,): the position of each sorted key among its equals."""
    index = torch.arange(len(key), device=key.device)
    new = torch.ones_like(key, dtype=torch.bool)
    new[1:] = key[1:] != key[:-1]
    return index - torch.where(new, index, 0).cummax(0).values
