r"""Diagonal BiLSTM: a PixelRNN that goes from diagonal to diagonal, all pixels of one at once, from both sides.

From the left, a state is made of those of the pixel above it and of the pixel to its left:

    state (i, j) from its input, state (i - 1, j) and state (i, j - 1)

which both lie on the diagonal i + j - 1. An image that is skewed, row i moved i places to the right, has its diagonals
as columns, and states come from the column before by a convolution of 2 places: h + w - 1 steps, and not h w. From the
right it is the same in the mirror, with states (i - 1, j) and (i, j + 1). What a state from the right knows is not all
before its pixel, but it is all before any pixel of the next row: so it is moved down a row, and added to the state from
the left. Together they see all pixels before, whatever the number of layers.

All but one, that is, where this is taken at its word. With mask A the features at the end (i, w - 1) of a row do not
know that pixel, and no features after it in its row do. The next row sees it through the first kernel alone, from its
last few columns, and pixels further left do not. So the image is continued by one column without pixels, whose features
know all of their row. `beyond = 0` leaves this column away.

Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759, section 3.2 and figure 3.
"""

from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import pad

from reference_impls.autoregressive import normal, placed
from reference_impls.line_lstm import cell, over_lines, spread_over_lines
from reference_impls.pixel_masks import MaskedConv, groups
from reference_impls.pixel_rnn import ConditionalPixelRNN, PixelRNN


class Diagonals:
    """The pixels of h x w, which are numbered row by row, from diagonal to diagonal; and those of the mirror image."""

    def __init__(self, h: int, w: int, device: torch.device):
        pixel = torch.arange(h * w, device=device)
        row, column = pixel // w, pixel % w
        left = ((row + column) * h + row).argsort()
        self.orders = left, row[left] * w + (w - 1 - column[left])
        ends = [(max(0, t - w + 1), min(h, t + 1)) for t in range(h + w - 1)]
        self.starts, self.lengths = [first for first, _ in ends], [stop - first for first, stop in ends]

    def skewed(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        """Both sides (rows, columns, n, f), the right one in the mirror: (2, places, n, f) for each diagonal."""
        both = zip((left, right), self.orders, strict=True)
        sides = torch.stack([side.flatten(0, 1).index_select(0, order) for side, order in both])
        return sides.split(self.lengths, 1)

    def unskewed(self, lines: list[Tensor], like: Tensor) -> list[Tensor]:
        """The way back, to the two sides (rows, columns, n, f)."""
        both = zip(torch.cat(lines, 1), self.orders, strict=True)
        return [side.index_select(0, order.argsort()).unflatten(0, like.shape[:2]) for side, order in both]


class DiagonalLayer(nn.Module):
    """Features (rows, columns, n, 2 h) to such features: what comes in, and what the LSTMs of both sides make of it."""

    def __init__(self, hidden: int, colours: int, source: Generator, gain: float):
        super().__init__()
        self.hidden, self.gates = hidden, 8 * hidden
        outer, inner = groups(2 * hidden, colours), groups(hidden, colours)
        self.into = MaskedConv("B", inner.repeat(8), outer, (1, 1), source, gain)
        self.state = normal((2, 2, hidden, 4 * hidden), gain / (2 * hidden) ** 0.5, source)
        self.up = MaskedConv("B", outer, inner, (1, 1), source, gain)

    def forward(self, y: Tensor, shift: Tensor | None) -> Tensor:
        gates = self.into(y) if shift is None else self.into(y) + shift  # (rows, columns, n, 8 h)
        diagonals = Diagonals(*y.shape[:2], y.device)
        lines = diagonals.skewed(*gates.chunk(2, -1))
        h = over_lines(lines, diagonals.starts, self.state, above=1)
        left, right = diagonals.unskewed(list(h), y)
        return y + self.up(left + _down(right))

    def walk(self, n: int, w: int, shift: Tensor | None) -> "DiagonalWalk":
        return DiagonalWalk(self, n, w, shift)

    def spread(self, seen: Tensor) -> Tensor:
        into = self.into.spread(seen)
        diagonals = Diagonals(*seen.shape[:2], seen.device)
        lines = diagonals.skewed(into, into)
        left, right = diagonals.unskewed(list(spread_over_lines(lines, diagonals.starts, 2, above=1)), seen)
        return torch.maximum(seen, self.up.spread(torch.maximum(left, _down(right))))


class DiagonalWalk:
    """A layer pixel by pixel. The left side's state follows its pixel; the right side's, once the row is complete.

    States stand after a zero, that of column j at j + 1, and those of the right side in the mirror.
    """

    def __init__(self, layer: DiagonalLayer, n: int, w: int, shift: Tensor | None):
        self.into, self.up = layer.into.walk(n, w), layer.up.walk(n, w)
        self.state, self.shift, self.w = layer.state.flatten(1, 2), shift, w
        self.above = layer.state.new_zeros(2, w + 1, n, layer.hidden)  # h of both sides
        self.h, self.c = torch.zeros_like(self.above), torch.zeros_like(self.above)
        self.waiting = [layer.state.new_zeros(0)] * w  # input to state of the right side

    def told(self, j: int, y: Tensor) -> Tensor:
        """The features (n, 2 h) that leave column j, from those that come in, when all pixels before were told."""
        gates = self.into.told(j, y)
        left, self.waiting[j] = (gates if self.shift is None else gates + self.shift).chunk(2, 1)
        self._step(0, j, left)
        return y + self.up.told(j, self.h[0, j + 1] + self.above[1, self.w - j])

    def end_row(self) -> None:
        for j in range(self.w):
            self._step(1, j, self.waiting[self.w - 1 - j])
        self.above, self.h = self.h, torch.zeros_like(self.h)

    def _step(self, side: int, j: int, gates: Tensor) -> None:
        h, c = self.h[side], self.c[side]
        gates = torch.addmm(gates, torch.cat([self.above[side, j + 1], h[j]], 1), self.state[side])
        h[j + 1], c[j + 1] = cell(gates, c[j])


class DiagonalBiLSTM(PixelRNN):
    """Sees all pixels before; with `beyond = 0`, all but the last one of a row, from the row below."""

    number, family = "M21", "PixelRNN, Diagonal BiLSTM"
    recurrent = DiagonalLayer

    def __init__(self, *shape_and_others: Any, beyond: int = 1, **options: Any):
        super().__init__(*shape_and_others, **options)
        if beyond not in (0, 1):
            raise ValueError(f"beyond = {beyond} should be 0 or 1")
        self.beyond = beyond


class ConditionalDiagonalBiLSTM(ConditionalPixelRNN, DiagonalBiLSTM):
    """p(x | y)."""


def _down(x: Tensor) -> Tensor:
    """Each row of (rows, columns, n, f) where the next one was; the first one is 0."""
    return pad(x[:-1], (0, 0, 0, 0, 0, 0, 1, 0))


# Ready-made models


def three_by_three(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> DiagonalBiLSTM:
    """3 x 3 binary pixels. The first kernel is 3 x 3, so that far pixels are seen through the states alone."""
    return placed(DiagonalBiLSTM((3, 3), hidden=6, first=3, seed=33, gain=1.5), dtype, device)


def two_by_two_levels(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> DiagonalBiLSTM:
    """2 x 2 pixels of three levels."""
    return placed(DiagonalBiLSTM((2, 2), levels=3, hidden=6, seed=34, gain=2.5), dtype, device)


def two_colour_pixels(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> DiagonalBiLSTM:
    """Two pixels side by side, whose red, green and blue are on or off."""
    return placed(DiagonalBiLSTM((3, 1, 2), hidden=6, seed=35, gain=2.0), dtype, device)


def labelled_pixels(
    *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> ConditionalDiagonalBiLSTM:
    """2 x 3 binary pixels given one of three labels."""
    return placed(ConditionalDiagonalBiLSTM((2, 3), 3, hidden=6, first=3, seed=36, gain=1.5), dtype, device)


def full_mnist(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> DiagonalBiLSTM:
    """28 x 28 binary pixels, seven layers of 16 features, the paper's size for binarised MNIST; untrained."""
    return placed(DiagonalBiLSTM((28, 28), hidden=16, layers=7, seed=37), dtype, device)
