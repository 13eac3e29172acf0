r"""Row LSTM: a PixelRNN that goes from row to row, all pixels of a row at once.

From input to state goes a convolution 1 x k with mask B, from state to state one of 1 x k without a mask, as all of the
row before comes earlier. So a state sees a triangle above it, one that widens by (k - 1) / 2 places a row: to the right
it never gets wider, however many layers there are. With k = 3, a feature at (i - 1, j + 2) does not reach pixel (i, j);
and as the first convolution, 7 x 7, looks 3 columns to the right of a feature in the row above it, the first *pixel*
of row i - 1 that is not seen is (i - 1, j + 4). To the left, layers add up.

Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759, section 3.1.
"""

import torch
from torch import Generator, Tensor, nn

from reference_impls.autoregressive import normal, placed
from reference_impls.line_lstm import cell, over_lines, spread_over_lines
from reference_impls.pixel_masks import MaskedConv, groups
from reference_impls.pixel_rnn import ConditionalPixelRNN, PixelRNN


class RowLayer(nn.Module):
    """Features (rows, columns, n, 2 h) to such features: what comes in, and what the LSTM makes of it."""

    def __init__(self, hidden: int, colours: int, source: Generator, gain: float, kernel: int = 3):
        super().__init__()
        self.hidden, self.kernel, self.gates = hidden, kernel, 4 * hidden
        outer, inner = groups(2 * hidden, colours), groups(hidden, colours)
        self.into = MaskedConv("B", inner.repeat(4), outer, (1, kernel), source, gain)
        self.state = normal((1, kernel, hidden, 4 * hidden), gain / (hidden * kernel) ** 0.5, source)
        self.up = MaskedConv("B", outer, inner, (1, 1), source, gain)

    def forward(self, y: Tensor, shift: Tensor | None) -> Tensor:
        gates = self.into(y) if shift is None else self.into(y) + shift  # (rows, columns, n, 4 h)
        h = over_lines(gates[:, None].unbind(), [0] * len(gates), self.state, self.kernel // 2)
        return y + self.up(torch.cat(list(h)))

    def walk(self, n: int, w: int, shift: Tensor | None) -> "RowWalk":
        return RowWalk(self, n, w, shift)

    def spread(self, seen: Tensor) -> Tensor:
        into = self.into.spread(seen)
        h = spread_over_lines(into[:, None].unbind(), [0] * len(into), self.kernel, self.kernel // 2)
        return torch.maximum(seen, self.up.spread(torch.cat(list(h))))


class RowWalk:
    """A layer pixel by pixel. States of the row above, and of this row, have (k - 1) / 2 zeros on either side."""

    def __init__(self, layer: RowLayer, n: int, w: int, shift: Tensor | None):
        self.into, self.up = layer.into.walk(n, w), layer.up.walk(n, w)
        self.state, self.kernel, self.shift = layer.state[0].flatten(0, 1), layer.kernel, shift
        self.above = layer.state.new_zeros(2, w + layer.kernel - 1, n, layer.hidden)  # h and c
        self.row = torch.zeros_like(self.above)

    def told(self, j: int, y: Tensor) -> Tensor:
        """The features (n, 2 h) that leave column j, from those that come in, when all pixels before were told."""
        gates = self.into.told(j, y)
        gates = gates if self.shift is None else gates + self.shift
        around, middle = self.above[0, j : j + self.kernel], j + self.kernel // 2  # (k, n, h)
        gates = torch.addmm(gates, around.movedim(0, 1).flatten(1), self.state)
        self.row[0, middle], self.row[1, middle] = cell(gates, self.above[1, middle])
        return y + self.up.told(j, self.row[0, middle])

    def end_row(self) -> None:
        self.above, self.row = self.row, torch.zeros_like(self.row)
        self.into.end_row()


class RowLSTM(PixelRNN):
    """`kernel` is k, odd, of both convolutions along a row."""

    number, family = "M20", "PixelRNN, Row LSTM"
    recurrent = RowLayer


class ConditionalRowLSTM(ConditionalPixelRNN, RowLSTM):
    """p(x | y)."""


# Ready-made models


def three_by_three(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> RowLSTM:
    """3 x 3 binary pixels. The first kernel is 3 x 3, so that (1, 0) does not see (0, 2), nor (2, 0) pixel (1, 2)."""
    return placed(RowLSTM((3, 3), hidden=6, first=3, seed=30, gain=1.5), dtype, device)


def two_by_two_levels(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> RowLSTM:
    """2 x 2 pixels of three levels."""
    return placed(RowLSTM((2, 2), levels=3, hidden=6, seed=31, gain=2.5), dtype, device)


def full_mnist(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> RowLSTM:
    """28 x 28 binary pixels, seven layers of 16 features; untrained."""
    return placed(RowLSTM((28, 28), hidden=16, layers=7, seed=32), dtype, device)
