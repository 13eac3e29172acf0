r"""A small convolutional network that tells labels from images: p(y | x), and no law of x. Much like LeNet.

    p(y | x) = softmax(W_2 relu(W_1 u + b_1) + b_2)_y,      u the units of the last stage, side by side
    stage:  y <- pool(relu(w * y + b)),      (w * y)_{oij} = sum_{c, a, b} w_{ocab} y_{c, i + a - 1, j + b - 1}

with 3 x 3 weights, zeros around the image, and the maximum of each 2 x 2 block, so that a stage halves both sides
(rounding down). The same weights serve every place: w y moves when y moves, and the maximum forgets some of where. A
generative classifier models x for each y and asks Bayes' rule; this one is its discriminative counterpart. It minimises
the mean of -log p(y | x), a loss that is not convex, by stochastic gradients.

Convolutions on a GPU may be in TF32, with 10 bits, where `torch.backends.cudnn.allow_tf32` is as torch has it; set it
to False to compare digits.

Source: LeCun, Bottou, Bengio & Haffner 1998, Gradient-based learning applied to document recognition,
https://doi.org/10.1109/5.726791 (LeNet-5 has 5 x 5 weights, means for maxima, and sigmoid units).
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear, max_pool2d, relu

from reference_impls.autoregressive import normal, placed
from reference_impls.discrete import is_state

ROWS = 2**11
"""Images that are worked on at a time where no graph is kept."""


class ConvNet(nn.Module):
    """p(y | x) for y in {0, ..., classes - 1} and grey images x (n, height, width).

    `channels` are the units of each stage, `hidden` those of the dense layer.
    """

    number, family = "M31", "convolutional network"

    def __init__(
        self,
        height: int,
        width: int,
        classes: int,
        *,
        channels: Sequence[int] = (16, 32),
        hidden: int = 64,
        gain: float = 1.0,
        seed: int = 0,
    ):
        super().__init__()
        if min(classes, hidden, *channels) < 1:
            raise ValueError(f"classes = {classes}, hidden = {hidden} and channels = {channels} should be at least 1")
        if min(height, width) < 2 ** len(channels):
            raise ValueError(
                f"an image of {height} x {width} is too small to be halved {len(channels)} times; give fewer channels"
            )
        source = Generator().manual_seed(seed)
        self.given_shape, self.classes = (height, width), classes
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        shapes, before = [], 1
        for after in channels:
            shapes.append((after, before, 3, 3))
            before = after
        units = before * (height >> len(channels)) * (width >> len(channels))
        for shape in (*shapes, (hidden, units), (classes, hidden)):
            self.weights.append(normal(shape, gain * math.sqrt(2 / math.prod(shape[1:])), source))  # He et al. 2015
            self.biases.append(nn.Parameter(torch.zeros(shape[0])))

    def logits(self, x: Tensor) -> Tensor:
        """(n, classes). Raises ValueError for images of another size, and for NaN or infinite pixels."""
        if x.dim() != 3 or x.shape[1:] != self.given_shape:
            raise ValueError(f"images should have shape (n, {self._size()}), not {tuple(x.shape)}")
        if not bool(x.isfinite().all()):
            raise ValueError("images should have finite pixels; fill in what is missing first")
        if torch.is_grad_enabled():
            return self._network(x)
        return torch.cat([self._network(rows) for rows in x.split(ROWS)])

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(y = k | x) for all labels."""
        return self.logits(x).log_softmax(-1)  # (n, classes)

    def posterior(self, x: Tensor) -> Tensor:
        return self.log_posterior(x).exp()  # (n, classes)

    def classify(self, x: Tensor) -> Tensor:
        """The most probable label."""
        return self.logits(x).argmax(-1)  # (n,)

    def log_prob(self, y: Tensor, *, given: Tensor) -> Tensor:
        """log p(y | x) of labels y (n,) at images x = given, one a label or one for all; -inf for what is no label."""
        if y.dim() != 1:
            raise ValueError(f"labels should have shape (n,), not {tuple(y.shape)}")
        is_label = is_state(y, self.classes)  # (n,)
        chosen = torch.where(is_label, y, 0).long()
        log_p = self.log_posterior(self._for_each(given, len(y))).gather(1, chosen[:, None])[:, 0]
        return torch.where(is_label, log_p, -math.inf)  # (n,)

    @torch.no_grad()
    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        """n labels, one at each of the images, or all at one."""
        ends = self.posterior(self._for_each(given, n)).double().cumsum(-1)  # (n, classes)
        u = torch.rand(n, 1, generator=generator, dtype=torch.float64, device=ends.device) * ends[:, -1:]
        return torch.searchsorted(ends, u, right=True)[:, 0]  # (n,)

    def loss(self, x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor:
        """-log p(y | x), a mean over images; nothing is drawn for it. Raises ValueError for what is no label."""
        if y.shape != x.shape[:1] or not bool(is_state(y, self.classes).all()):
            raise ValueError(f"y should be a label from 0 to {self.classes - 1} for each of {len(x)} images")
        return cross_entropy(self.logits(x), y.long())  # ()

    def _network(self, x: Tensor) -> Tensor:
        y = x.to(self.biases[0])[:, None]  # (n, 1, height, width)
        *stages, dense, last = zip(self.weights, self.biases, strict=True)
        for w, b in stages:
            y = max_pool2d(relu(conv2d(y, w, b, padding=1)), 2)
        return linear(relu(linear(y.flatten(1), *dense)), *last)  # (n, classes)

    def _for_each(self, x: Tensor, n: int) -> Tensor:
        x = x.expand(n, *x.shape) if x.dim() == 2 else x
        if len(x) != n:
            raise ValueError(f"{n} labels for {len(x)} images; give one label an image")
        return x

    def _size(self) -> str:
        return ", ".join(map(str, self.given_shape))


# Ready-made models


def six_by_six(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ConvNet:
    """Three labels of images of 6 x 6 pixels, with weights so large that it matters where a pixel is."""
    return placed(ConvNet(6, 6, 3, channels=(4, 6), hidden=8, gain=1.5, seed=35), dtype, device)


def full_mnist(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> ConvNet:
    """Ten labels of 28 x 28 pixels; 32 and 64 channels, 128 hidden units; untrained."""
    return placed(ConvNet(28, 28, 10, channels=(32, 64), hidden=128, seed=36), dtype, device)
