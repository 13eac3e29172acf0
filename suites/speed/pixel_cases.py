"""The Diagonal BiLSTM beside a loop over pixels, and its sampler beside one that makes a pass for every pixel.

The peer of the density has the same weights, and the same convolutions over whole images: what is compared are
h + w - 1 steps over diagonals, both sides at once, and h w steps over pixels for each side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from reference_impls.diagonal_lstm import DiagonalBiLSTM, DiagonalLayer
from reference_impls.line_lstm import cell
from reference_impls.pixel_rnn import PixelRNN
from reference_impls.row_lstm import RowLSTM
from suites.speed.cases import SMALL, Case, Pair, Sizes

HIDDEN, LAYERS, BATCH = 16, 7, 16
"""The paper's size for binarised MNIST, and its batch."""

DRAWN, SIDE, FEWER = 100, 10, 2
"""Images, their side, and layers, where each pixel is drawn with a pass too."""

Prepare = Callable[[Sizes, torch.dtype, int], Pair]


class ByPixels(DiagonalLayer):
    """A layer of the Diagonal BiLSTM in which one state is made after the other."""

    def forward(self, y: Tensor, shift: Tensor | None) -> Tensor:
        h, w = y.shape[:2]
        left, right = self.into(y).chunk(2, -1)  # (rows, columns, n, 4 h)
        from_left = self._states(left, 0, range(w), -1)
        from_right = self._states(right, 1, range(w - 1, -1, -1), 1)
        nothing = torch.zeros_like(from_left[0, 0])
        sums = [from_left[i, j] + from_right.get((i - 1, j), nothing) for i in range(h) for j in range(w)]
        return y + self.up(torch.stack(sums).unflatten(0, (h, w)))

    def _states(self, into: Tensor, side: int, columns: range, beside: int) -> dict[tuple[int, int], Tensor]:
        weight = self.state[side].flatten(0, 1)
        nothing = into.new_zeros(into.shape[2], self.hidden)
        h: dict[tuple[int, int], Tensor] = {}
        c: dict[tuple[int, int], Tensor] = {}
        for i, row in enumerate(into.unbind()):
            pixels = row.unbind()
            for j in columns:
                before = torch.cat([h.get((i - 1, j), nothing), h.get((i, j + beside), nothing)], 1)
                h[i, j], c[i, j] = cell(torch.addmm(pixels[j], before, weight), c.get((i, j + beside), nothing))
        return h


class PixelLoop(DiagonalBiLSTM):
    recurrent = ByPixels


def log_prob(images: int) -> Prepare:
    def prepare(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
        model, other, x = _pair(sizes, images, dtype)

        def quietly(asked: PixelRNN) -> Tensor:
            with torch.no_grad():
                return asked.log_prob(x)

        return Pair(lambda: quietly(model), lambda: quietly(other), _apart(model, dtype))

    return prepare


def gradient(images: int) -> Prepare:
    """Of the loss, for all parameters: its norms are compared."""

    def prepare(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
        model, other, x = _pair(sizes, images, dtype)

        def norms(asked: PixelRNN) -> Tensor:
            slopes = torch.autograd.grad(asked.loss(x), list(asked.parameters()))
            return torch.stack([slope.norm() for slope in slopes])

        return Pair(lambda: norms(model), lambda: norms(other), _apart(model, dtype))

    return prepare


def sample(kind: type[PixelRNN]) -> Prepare:
    def prepare(sizes: Sizes, dtype: torch.dtype, threads: int) -> Pair:
        n, side = (2, 3) if sizes == SMALL else (DRAWN, SIDE)
        model = kind((side, side), hidden=HIDDEN, layers=FEWER).to(dtype)
        cached, naive = (
            lambda draw=draw: draw(n, generator=torch.Generator().manual_seed(1))
            for draw in (model.sample, model.sample_naive)
        )
        # Levels differ where a uniform number lies within rounding of an end, after which all of that image may.
        allowed = n * side**2 * 2 * _roundoffs(model) * torch.finfo(dtype).eps + 1
        return Pair(cached, naive, lambda a, b: float((a != b).flatten(1).any(1).sum()) / allowed)

    return prepare


def _pair(sizes: Sizes, n: int, dtype: torch.dtype) -> tuple[PixelRNN, PixelRNN, Tensor]:
    side = 5 if sizes == SMALL else 28
    model, other = (kind((side, side), hidden=HIDDEN, layers=LAYERS).to(dtype) for kind in (DiagonalBiLSTM, PixelLoop))
    x = torch.rand(n, side, side, generator=torch.Generator().manual_seed(0)) < 0.2
    return model, other, x.to(dtype)


def _roundoffs(model: PixelRNN) -> int:
    """Terms that are added up on the way through all layers to a logit: those of a state, and of two 1 x 1."""
    hidden = model.layers[0].hidden
    return int(model.first.mask[0].sum()) + len(model.layers) * 7 * hidden + 4 * hidden


def _apart(model: PixelRNN, dtype: torch.dtype) -> Callable[[Tensor, Tensor], float]:
    """Beside the largest value: eps for each of those terms."""
    allowed = torch.finfo(dtype).eps * _roundoffs(model)
    return lambda a, b: float((a - b).abs().max() / b.abs().max()) / allowed


def _cases() -> Iterator[Case]:
    loop, versions = "per-pixel loop", ("torch",)
    size = f"{LAYERS} layers of {HIDDEN} features, 28 x 28"
    yield Case("diagonal_bilstm.log_prob", loop, 5.0, "float32", versions, log_prob(1), f"{size}, 1 image")
    # So many images keep a thread busy with products and gates, which both have to work out.
    note = f"{size}, {BATCH} images"
    yield Case("diagonal_bilstm.log_prob", loop, 1.0, "float32", versions, log_prob(BATCH), note)
    yield Case("diagonal_bilstm.gradient", loop, 5.0, "float32", versions, gradient(BATCH), note)
    note = f"{FEWER} layers of {HIDDEN} features, {SIDE} x {SIDE}, {DRAWN} images"
    for name, kind in (("diagonal_bilstm", DiagonalBiLSTM), ("row_lstm", RowLSTM)):
        yield Case(f"{name}.sample", "a pass for each pixel", 5.0, "float32", versions, sample(kind), note)


CASES = tuple(_cases())
