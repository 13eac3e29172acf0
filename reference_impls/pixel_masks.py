r"""Masked convolutions: a pixel is told of the pixels before it in raster order, and of its own colours before its own.

Pixels come row by row, each row from the left, and the colours of a pixel in the order R, G, B. Feature maps are split
into as many groups as there are colours, and group c is what a model knows when it says the law of colour c: all of the
pixels before, and of the pixel itself the colours before c. A weight from input group b to output group a, at a place
relative to the pixel, is kept

    before the pixel: always        after it: never        at it: where b < a (mask A), or b <= a (mask B)

Mask A is for the image itself, whose group c is the colour that is to be predicted; mask B for features, which are made
of what came before already. One layer with mask B on the image, and a pixel sees itself.

Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759, section 3.4 and figure 2.
"""

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import conv2d, linear

from reference_impls.autoregressive import normal


def groups(width: int, colours: int) -> Tensor:
    """(width,): the colour that each of `width` feature maps belongs to, as many to each, R first."""
    if width < 1 or width % colours:
        raise ValueError(f"{width} feature maps do not split into {colours} colours; make it a multiple")
    return torch.arange(width) * colours // width


def mask(kind: str, after: Tensor, before: Tensor, size: tuple[int, int]) -> Tensor:
    """Which weights are kept, bool (outputs, inputs, *size), for groups `after` of outputs and `before` of inputs."""
    if kind not in ("A", "B"):
        raise ValueError(f"kind = {kind!r} should be 'A', for images, or 'B', for features")
    rows, columns = size
    if min(size) < 1 or rows % 2 == 0 or columns % 2 == 0:
        raise ValueError(f"a kernel {rows} x {columns} has no middle; both sides should be odd")
    place = torch.arange(rows * columns).reshape(size) - rows * columns // 2  # in raster order; 0 in the middle
    own = before < after[:, None] if kind == "A" else before <= after[:, None]  # (outputs, inputs)
    return (place < 0) | (place == 0) & own[..., None, None]


class MaskedConv(nn.Module):
    """A convolution of images (h, w, n, inputs) with a mask; what lies beyond the border is 0.

    `after` and `before` are the groups of outputs and inputs. Weights are normal, with variance gain^2 / (number of
    those kept for an output), and biases 0 to begin with.
    """

    mask: Tensor

    def __init__(
        self, kind: str, after: Tensor, before: Tensor, size: tuple[int, int], source: Generator, gain: float = 1.0
    ):
        super().__init__()
        kept = mask(kind, after, before, size)
        self.kind, self.size, self.colours = kind, size, int(after.max()) + 1
        self.register_buffer("mask", kept, persistent=False)
        self.weight = normal(kept.shape, gain, source)
        self.weight.data *= kept / kept.sum((1, 2, 3), keepdim=True).clamp(min=1).sqrt()
        self.bias = nn.Parameter(torch.zeros(len(after)))

    def forward(self, x: Tensor) -> Tensor:
        if self.size == (1, 1):
            return linear(x, self.masked()[..., 0, 0], self.bias)  # (h, w, n, outputs)
        images = conv2d(x.permute(2, 3, 0, 1), self.masked(), self.bias, padding=self.margin)  # (n, outputs, h, w)
        return images.permute(2, 3, 0, 1).contiguous()

    def masked(self) -> Tensor:
        return self.weight * self.mask

    @property
    def margin(self) -> tuple[int, int]:
        """Rows above and below, and columns on either side, that a kernel reaches to."""
        return self.size[0] // 2, self.size[1] // 2

    def walk(self, n: int, w: int) -> "Walk":
        """The same, pixel by pixel."""
        return Walk(self, n, w)

    def spread(self, seen: Tensor) -> Tensor:
        """Where a sign can arrive that is at `seen` (h, w, n, colours), both 0 or 1: whatever the weights may be."""
        colour = torch.arange(self.colours)
        kept = mask(self.kind, colour, colour, self.size).to(seen)
        found = conv2d(seen.permute(2, 3, 0, 1), kept, padding=self.margin) > 0
        return found.permute(2, 3, 0, 1).to(seen)


class Walk:
    """A masked convolution that is asked for one pixel at a time, in raster order, and told its inputs as they come.

    It keeps as many rows as the kernel has. The middle one is the row of the pixel; those below hold nothing yet, and
    are masked.
    """

    def __init__(self, conv: MaskedConv, n: int, w: int):
        self.size, self.margin, self.bias = conv.size, conv.margin, conv.bias
        self.weight = conv.masked().flatten(1)  # (outputs, inputs * kernel)
        self.seen = self.weight.new_zeros(n, conv.weight.shape[1], self.size[0], w + 2 * self.margin[1])

    def put(self, j: int, value: Tensor) -> None:
        """The inputs (n, inputs) at column j."""
        self.seen[:, :, self.margin[0], j + self.margin[1]] = value

    def at(self, j: int) -> Tensor:
        around = self.seen[..., j : j + self.size[1]]
        return linear(around.flatten(1), self.weight, self.bias)  # (n, outputs)

    def told(self, j: int, value: Tensor) -> Tensor:
        """What is there as soon as column j is."""
        self.put(j, value)
        return self.at(j)

    def end_row(self) -> None:
        """The next row is the middle one."""
        self.seen = torch.cat([self.seen[:, :, 1:], torch.zeros_like(self.seen[:, :, :1])], 2)
