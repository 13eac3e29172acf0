r"""A convolutional LSTM that goes over an image line by line: all places of a line at once, from the line before.

    o, f, i, g = K_ss * h_{t-1} + (input to state at line t)          four maps for each hidden unit
    c_t = sigma(f) c_{t-1} + sigma(i) tanh(g)
    h_t = sigma(o) tanh(c_t)                                          c_0 = h_0 = 0, and 0 where a line has no place

K_ss is a convolution along the line, with a kernel of k places of which `above` come before the middle. Lines are rows
and k is odd for the Row LSTM; they are diagonals, which begin and end at other places each, and k = 2 for the Diagonal
BiLSTM. Batches come third, (G, places, n, units) for G independent LSTMs: a line is then one block of memory.

Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759, equation 3.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad


def over_lines(into: Sequence[Tensor], starts: Sequence[int], weight: Tensor, above: int) -> Iterator[Tensor]:
    """The states h (G, places, n, units) of one line after the other.

    `into` (G, places, n, 4 units) is what goes from input to state on each line, `starts` its first place, and `weight`
    (G, k, units, 4 units) is K_ss.
    """
    k, units = weight.shape[1:3]
    flat = weight.flatten(1, 2)  # (G, k * units, 4 units)
    h = c = torch.zeros_like(into[0][..., :units])
    for line, start, before in zip(into, starts, [starts[0], *starts], strict=False):
        places, n = line.shape[1:3]
        around = _cut(h, before, start - above, places + k - 1)
        seen = torch.cat([around[:, q : q + places] for q in range(k)], -1)  # (G, places, n, k * units)
        gates = torch.baddbmm(line.flatten(1, 2), seen.flatten(1, 2), flat).unflatten(1, (places, n))
        h, c = cell(gates, _cut(c, before, start, places))
        yield h


def cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c (..., units) from the gates (..., 4 units) and the c before."""
    units = c.shape[-1]
    o, f, i, _ = gates.sigmoid().chunk(4, -1)  # of all four, as one block takes less time than three quarters of each
    c = torch.addcmul(f * c, i, gates[..., 3 * units :].tanh())
    return o * c.tanh(), c


def spread_over_lines(into: Sequence[Tensor], starts: Sequence[int], k: int, above: int) -> Iterator[Tensor]:
    """Where a sign can arrive, 0 or 1, on one line (1, places, n, colours) after the other.

    States know no colours: what a place has of the line before, it has for all of them.
    """
    h = torch.zeros_like(into[0])
    for line, start, before in zip(into, starts, [starts[0], *starts], strict=False):
        places = line.shape[1]
        around = _cut(h, before, start - above, places + k - 1).amax(-1, keepdim=True)
        h = torch.stack([line, *(around[:, q : q + places].expand_as(line) for q in range(k))]).amax(0)
        yield h


def _cut(x: Tensor, first: int, start: int, places: int) -> Tensor:
    """So many places from `start` on, of x (G, places, n, units) whose own begin at `first`; 0 where x has none."""
    return pad(x, (0, 0, 0, 0, first - start, start + places - first - x.shape[1]))
