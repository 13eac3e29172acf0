r"""PixelRNN: an image pixel by pixel, each told by a recurrent network over all the pixels before it.

    p(x) = prod_{i,j} p(x_{ij,R} | x_<) p(x_{ij,G} | x_<, x_{ij,R}) p(x_{ij,B} | x_<, x_{ij,R}, x_{ij,G})
    p(x_{ij,c} = v | ...) = softmax(0, l_1, ..., l_{K-1})_v          K levels; for two this is sigma(l_1)

x_< are the pixels before (i, j), row by row from the left. Nothing is assumed independent of anything; parameters are
shared by all pixels. Layers: a masked convolution with mask A, recurrent layers with mask B that each add to what comes
in, and two convolutions 1 x 1 with mask B. Recurrent layers know h features of a pixel, and pass on 2 h.

The Row LSTM and the Diagonal BiLSTM have this order in common. What sets them apart is how far a pixel sees, which is
what `receptive_field` says. Events are (n, h, w) or (n, colours, h, w), with levels 0.0, ..., K - 1. To the network
they are numbers from -1 to 1, so that a pixel of level 0 is told from what lies beyond the border, which is 0.

Drawing keeps the states of the pixels so far: each pixel then costs what it costs in one pass, and not a pass.

Sources: van den Oord, Kalchbrenner & Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759; for labels, van den Oord et
al. 2016, Conditional image generation with PixelCNN decoders, https://arxiv.org/abs/1606.05328, equation 4.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import pad, relu

from reference_impls.autoregressive import Autoregressive, Labelled, normal, uniform_numbers
from reference_impls.discrete import is_state
from reference_impls.pixel_masks import MaskedConv, groups

Choose = Callable[[int, Tensor], Tensor]
"""(step, logits (n, K - 1)) -> levels (n,) of the coordinate that is drawn at that step."""

NUMBERS = 2**24
"""Gates, over rows, pixels and features, that are kept at a time where no graph is."""


class PixelRNN(Autoregressive):
    """A law on images of `shape` (h, w) or (colours, h, w). A kind of PixelRNN defines `recurrent`, its layer.

    `hidden` is h, the features of a recurrent layer, split evenly among the colours; `first` the side of the first
    kernel.
    """

    event_shape: tuple[int, ...]
    beyond = 0
    """Columns to the right of the image that hold no pixels, and are told of those of their row."""

    def __init__(
        self,
        shape: Sequence[int],
        *,
        levels: int = 2,
        hidden: int = 16,
        layers: int = 2,
        first: int = 7,
        seed: int = 0,
        gain: float = 1.0,
        **options: Any,
    ):
        super().__init__()
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"shape = {tuple(shape)} should be (rows, columns) or (colours, rows, columns)")
        if levels < 2 or layers < 1:
            raise ValueError(f"levels = {levels} should be at least 2, and layers = {layers} at least 1")
        self.event_shape, self.levels = tuple(shape), levels
        self.colours, self.h, self.w = (1, *shape)[-3:]
        pixels = torch.arange(self.h * self.w)
        self.register_buffer("order", (pixels[:, None] + len(pixels) * torch.arange(self.colours)).flatten())
        last = constraints.boolean if levels == 2 else constraints.integer_interval(0, levels - 1)
        self.support = constraints.independent(last, len(shape))

        source = Generator().manual_seed(seed)
        image, features = torch.arange(self.colours), groups(2 * hidden, self.colours)
        groups(hidden, self.colours)  # raises where h does not split
        self.first = MaskedConv("A", features, image, (first, first), source, gain)
        self.layers = nn.ModuleList(
            self.recurrent(hidden, self.colours, source, gain, **options) for _ in range(layers)
        )
        self.wide = MaskedConv("B", features, features, (1, 1), source, gain)
        self.last = MaskedConv("B", image.repeat_interleave(levels - 1), features, (1, 1), source, gain)

    @staticmethod
    def recurrent(hidden: int, colours: int, source: Generator, gain: float, **options: Any) -> nn.Module:
        raise NotImplementedError

    def factors(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        is_level = is_state(x, self.levels)
        levels = torch.where(is_level, x, 0).long()  # (n, d)
        logits = torch.cat([self.logits(levels[rows], _of(label, rows)) for rows in self._parts(len(x))])
        log_p = pad(logits, (1, 0)).log_softmax(-1).gather(2, levels[..., None])[..., 0]
        return torch.where(is_level, log_p, -math.inf)  # (n, d)

    def logits(self, levels: Tensor, label: Tensor | None = None) -> Tensor:
        """l_1, ..., l_{K-1} of each coordinate given those before it, (n, d, K - 1), from levels (n, d)."""
        images = self._scaled(levels).reshape(-1, self.colours, self.h, self.w)
        y = self.first(pad(images, (0, self.beyond)).permute(2, 3, 0, 1))  # (rows, columns, n, 2 h)
        for layer, shift in zip(self.layers, self._shifts(label), strict=True):
            y = layer(y, shift)
        out = self.last(relu(self.wide(relu(y[:, : self.w])))).unflatten(3, (self.colours, self.levels - 1))
        return out.permute(2, 3, 0, 1, 4).flatten(1, 3)

    def logits_by_pixel(self, levels: Tensor, label: Tensor | None = None) -> Tensor:
        """The same, pixel by pixel, with one state after the other; without gradients."""
        found = self.order.new_zeros(len(levels), len(self.order), self.levels - 1, dtype=self.first.weight.dtype)

        def told(step: int, logits: Tensor) -> Tensor:
            site = self.order[step]
            found[:, site] = logits
            return levels[:, site]

        self._walk(len(levels), label, told)
        return found  # (n, d, K - 1)

    def loss(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        """-log p(x), a mean over rows. Raises ValueError for values that are no levels."""
        return super().loss(self._possible(x))  # ()

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """Each state once."""
        return self.draw(n, None, generator)  # (n, *shape)

    def sample_naive(self, n: int, *, generator: Generator) -> Tensor:
        """What `sample` returns, up to rounding, by a pass over the image for each coordinate."""
        return self.draw_naive(n, None, generator)  # (n, *shape)

    def receptive_field(self) -> Tensor:
        """Entry (i, j): is there a path from coordinate j to the law of coordinate i? Bool (d, d)."""
        d = len(self.order)
        signs = torch.eye(d, device=self.order.device).reshape(d, self.colours, self.h, self.w)
        seen = pad(signs, (0, self.beyond)).permute(2, 3, 0, 1)  # (rows, columns, d, colours)
        for part in (self.first, *self.layers, self.wide, self.last):
            seen = part.spread(seen)
        return seen[:, : self.w].permute(3, 0, 1, 2).flatten(0, 2) > 0

    @torch.no_grad()
    def draw(self, n: int, label: Tensor | None, generator: Generator) -> Tensor:
        u = uniform_numbers(n, len(self.order), self.first.weight, generator)
        parts = [(u[rows], _of(label, rows)) for rows in self._parts(n)]
        levels = [self._walk(len(v), y, lambda step, logits, v=v: _chosen(logits, v[:, step])) for v, y in parts]
        return self._events(torch.cat(levels))

    @torch.no_grad()
    def draw_naive(self, n: int, label: Tensor | None, generator: Generator) -> Tensor:
        u = uniform_numbers(n, len(self.order), self.first.weight, generator)
        levels = torch.zeros_like(u, dtype=torch.int64)
        for step, site in enumerate(self.order.tolist()):
            levels[:, site] = _chosen(self.logits(levels, label)[:, site], u[:, step])
        return self._events(levels)

    @torch.no_grad()
    def _walk(self, n: int, label: Tensor | None, choose: Choose) -> Tensor:
        """Levels (n, d), each chosen from its logits as soon as all before it are there."""
        levels = self.order.new_zeros(n, self.colours, self.h, self.w)
        w, shifts = self.w + self.beyond, self._shifts(label)
        first, wide, last = (part.walk(n, w) for part in (self.first, self.wide, self.last))
        layers = [layer.walk(n, w, shift) for layer, shift in zip(self.layers, shifts, strict=True)]

        def features(j: int) -> Tensor:
            y = first.at(j)
            for layer in layers:
                y = layer.told(j, y)
            return y  # (n, 2 h)

        for i in range(self.h):
            for j in range(self.w):
                for colour in range(self.colours):  # a state that is told of one more colour is written over
                    out = last.told(j, relu(wide.told(j, relu(features(j)))))
                    step = (i * self.w + j) * self.colours + colour
                    levels[:, colour, i, j] = choose(step, out.unflatten(1, (self.colours, -1))[:, colour])
                    first.put(j, self._scaled(levels[:, :, i, j]))
            for j in range(self.w, w):
                features(j)
            for part in (first, *layers):
                part.end_row()
        return levels.flatten(1)

    def _parts(self, n: int) -> list[slice]:
        """All n rows, in parts where no gradients are wanted."""
        size = max(1, n) if torch.is_grad_enabled() else max(1, NUMBERS // (self.h * self.w * self.layers[0].gates))
        return [slice(begin, begin + size) for begin in range(0, max(1, n), size)]

    def _shifts(self, label: Tensor | None) -> Sequence[Tensor | None]:
        """What a label adds to the gates of each layer."""
        return [None] * len(self.layers)

    def _scaled(self, levels: Tensor) -> Tensor:
        return levels.to(self.first.weight) * (2 / (self.levels - 1)) - 1

    def _events(self, levels: Tensor) -> Tensor:
        return levels.reshape(-1, *self.event_shape).to(self.first.weight)

    def _checked(self, x: Tensor) -> Tensor:
        """Events, flat."""
        if x.shape[1:] != self.event_shape:
            wanted = ", ".join(map(str, self.event_shape))
            raise ValueError(f"x should be images of shape (n, {wanted}), not {tuple(x.shape)}")
        return x.flatten(1)  # (n, d)

    def _possible(self, x: Tensor) -> Tensor:
        wrong = ~is_state(x, self.levels)
        if bool(wrong.any()):
            raise ValueError(
                f"x has a value {float(x[wrong][0]):g}, which is no level 0, ..., {self.levels - 1}; "
                "round images to levels first"
            )
        return x


class ConditionalPixelRNN(Labelled):
    """Before a kind of PixelRNN: p(x | y). A label adds a shift to the gates of each layer; without `given`, the law is
    the mixture over uniform y."""

    def __init__(self, shape: Sequence[int], classes: int, *, seed: int = 0, **options: Any):
        super().__init__(shape, seed=seed, **options)  # type: ignore[call-arg]
        if classes < 1:
            raise ValueError(f"classes = {classes} should be the number of labels, at least 1")
        self.classes = classes
        source = Generator().manual_seed(seed + 1)
        self.of_label = nn.ParameterList([normal((classes, layer.gates), 1.0, source) for layer in self.layers])

    def loss(self, x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor:
        """-log p(x | y), a mean over rows. Raises ValueError for values that are no levels."""
        return super().loss(self._possible(x), y)  # ()

    def _shifts(self, label: Tensor | None) -> Sequence[Tensor | None]:
        return [shift[label] for shift in self.of_label]  # (n, gates)


def _of(label: Tensor | None, rows: slice) -> Tensor | None:
    return None if label is None else label[rows]


def _chosen(logits: Tensor, u: Tensor) -> Tensor:
    """One level (n,) for each row of logits (n, K - 1), where u (n,) falls among the cumulated probabilities."""
    ends = pad(logits.double(), (1, 0)).softmax(-1).cumsum(-1)  # (n, K)
    return torch.searchsorted(ends, u[:, None] * ends[:, -1:], right=True)[:, 0]
