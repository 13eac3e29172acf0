r"""WaveNet: audio sample by sample, each from a softmax over levels that looks far back through dilated convolutions.

    p(x_1, ..., x_T) = prod_t softmax(logits_t)[x_t],      logits_t a function of x_{t-R}, ..., x_{t-1}, and of h
    z = tanh(W_f * y + V_f h) . sigmoid(W_g * y + V_g h)                          a gated unit; . is element by element
    y <- y + W_r z,      logits = W_2 relu(W_1 relu(sum over blocks of W_s z))    residual and skip connections

`*` is a causal convolution, (W * y)_t = sum_{j=0}^{k-1} W_j y_{t - d j}, with zeros before the beginning; d, the
dilation, doubles from block to block. A layer looks back by 0, d, ..., (k - 1) d, and all layers in a row by sums of
these, so that they see

    R = 1 + sum over layers of (k - 1) d

inputs and no other, whatever the weights; all of them where each d is at most 1 + the sum over layers before it, as in
doubling, and else with holes. The input at t is the one-hot x_{t-1}, all zeros at t = 1. The first layer is a
convolution with d = 1 and no gate.

h is what is known beside the samples (V h is 0 without it): a label or a vector, the same for all t (global
conditioning), or a series with fewer steps than samples (local), brought to T steps by a transposed convolution whose
kernel is as long as its stride. The law of x given a label sees R samples; that of x alone sees all before, as they
tell about the label.

Drawing keeps the last (k - 1) d inputs of each layer in a queue: a sample costs one step in each layer, whatever R is.
Without queues it takes a pass over R inputs.

Sources: van den Oord et al. 2016, https://arxiv.org/abs/1609.03499; Le Paine et al. 2016,
https://arxiv.org/abs/1611.09482 (the queues).
"""

import math
from collections import deque
from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import linear, one_hot, pad, relu

from reference_impls.autoregressive import Autoregressive, Labelled, normal, placed, uniform_numbers
from reference_impls.discrete import is_state

POSITIONS = 2**15
"""Samples (rows x T) that are worked on at a time where no graph is kept."""

Queue = deque[Tensor]
"""The last (k - 1) d inputs of a layer, (n, units) each, oldest first."""


class WaveNet(Autoregressive):
    """A law on sequences (n, length) of levels 0, ..., levels - 1; draws are int64.

    `width` are the units between blocks, `skip` those of the output; `kernel` is k. A subclass has `features` of side
    information h in every block.
    """

    number, family = "M26", "WaveNet"
    features = 0

    def __init__(
        self,
        levels: int,
        length: int,
        *,
        dilations: Sequence[int] = (1, 2, 4, 8),
        kernel: int = 2,
        width: int = 16,
        skip: int = 32,
        gain: float = 1.0,
        seed: int = 0,
    ):
        super().__init__()
        if min(levels, length, kernel, width, skip) < 1:
            raise ValueError(
                f"levels = {levels}, length = {length}, kernel = {kernel}, width = {width} and skip = {skip} should "
                "be at least 1"
            )
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations = {list(dilations)} should be one or more steps, each at least 1")
        source = Generator().manual_seed(seed)
        self.levels, self.length, self.kernel = levels, length, kernel
        self.support = constraints.independent(constraints.integer_interval(0, levels - 1), 1)
        self.register_buffer("order", torch.arange(length), persistent=False)  # weights do not depend on the length
        self.first = Causal(levels, width, kernel, 1, gain * levels**0.5, source)  # one input in `levels` is on
        self.blocks = nn.ModuleList(Block(width, skip, kernel, d, self.features, gain, source) for d in dilations)
        self.middle, self.last = Causal(skip, skip, 1, 1, gain, source), Causal(skip, levels, 1, 1, gain, source)

    @property
    def field(self) -> int:
        """R: how far back the samples are on which one may depend, given h."""
        return 1 + sum(layer.reach for layer in self._layers())

    def receptive_field(self) -> Tensor:
        """(T, T) bool: entry (t, s) says that the law of x_t may depend on x_s."""
        lags = {1}
        for layer in self._layers():
            lags = {lag + delay for lag in lags for delay in layer.delays}
        return torch.isin(self.order[:, None] - self.order, torch.tensor(sorted(lags), device=self.order.device))

    def factors(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """log p(x_t | x_1, ..., x_{t-1}, h); -inf where x_t is no level."""
        size = max(1, len(x) if torch.is_grad_enabled() else POSITIONS // self.length)
        told = repeat(None) if given is None else given.split(size)
        return torch.cat([self._factors(*rows) for rows in zip(x.split(size), told, strict=False)])  # (n, T)

    def logits(self, before: Tensor, given: Tensor | None = None) -> Tensor:
        """(n, t + 1, levels): of the sample after each of the first 0, ..., t samples of `before` (n, t) int64."""
        inputs = pad(self._one_hot(before), (0, 0, 1, 0))  # (n, t + 1, levels)
        return self._network(inputs, _steps(self._side(given), 0, inputs.shape[1]))

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """With queues: the cost is that of one pass over T samples."""
        return self.draw(n, None, generator)  # (n, T)

    def sample_naive(self, n: int, *, generator: Generator) -> Tensor:
        """What `sample` returns, up to rounding, by a pass over the last R inputs for each sample."""
        return self.draw_naive(n, None, generator)  # (n, T)

    @torch.no_grad()
    def draw(self, n: int, given: Tensor | None, generator: Generator) -> Tensor:
        u, side = uniform_numbers(n, self.length, self.last.bias, generator), self._side(given)
        x = torch.zeros(n, self.length, dtype=torch.int64, device=u.device)
        queues = [layer.queue(n) for layer in self._layers()]
        inputs = self.last.bias.new_zeros(n, self.levels)
        for t in range(self.length):
            h = None if side is None else _steps(side, t, t + 1)[:, 0]
            x[:, t] = _drawn(self._network(inputs, h, queues), u[:, t])
            inputs = self._one_hot(x[:, t])
        return x

    @torch.no_grad()
    def draw_naive(self, n: int, given: Tensor | None, generator: Generator) -> Tensor:
        u, side = uniform_numbers(n, self.length, self.last.bias, generator), self._side(given)
        x = torch.zeros(n, self.length, dtype=torch.int64, device=u.device)
        inputs = self.last.bias.new_zeros(n, self.length + 1, self.levels)
        for t in range(self.length):
            start = max(0, t + 1 - self.field)
            logits = self._network(inputs[:, start : t + 1], _steps(side, start, t + 1))
            x[:, t] = _drawn(logits[:, -1], u[:, t])
            inputs[:, t + 1] = self._one_hot(x[:, t])
        return x

    def _factors(self, x: Tensor, given: Tensor | None) -> Tensor:
        is_level = is_state(x, self.levels)
        level = torch.where(is_level, x, 0).long()
        log_p = self.logits(level[:, :-1], given).log_softmax(-1).gather(2, level[..., None])[..., 0]
        return torch.where(is_level, log_p, -math.inf)  # (n, T)

    def _network(self, inputs: Tensor, h: Tensor | None, queues: Sequence[Queue] | None = None) -> Tensor:
        """Logits after inputs (n, t, levels); with queues, after inputs (n, levels) of one step and those before it."""
        first, *others = queues or [None] * (1 + len(self.blocks))
        y, total = self.first(inputs, first), 0.0
        for block, queue in zip(self.blocks, others, strict=True):
            y, skip = block(y, h, queue)
            total = total + skip
        return self.last(relu(self.middle(relu(total))))

    def _side(self, given: Tensor | None) -> Tensor | None:
        """h for all samples, (n, T, features), or the same for each, (n, 1, features)."""
        return None

    def _layers(self) -> list["Causal"]:
        """Those that look back."""
        return [self.first, *(block.gates for block in self.blocks)]

    def _one_hot(self, x: Tensor) -> Tensor:
        return one_hot(x, self.levels).to(self.last.bias)  # (..., levels)


class LabelledWaveNet(Labelled, WaveNet):
    """p(x | y), a global label y. Without `given` the law is the mixture over uniform y."""

    def __init__(self, levels: int, length: int, classes: int, **options):
        if classes < 1:
            raise ValueError(f"classes = {classes} should be the number of labels, at least 1")
        self.features = self.classes = classes
        super().__init__(levels, length, **options)

    def receptive_field(self) -> Tensor:
        """Of the mixture: all samples before tell about the label."""
        return self.order[:, None] > self.order

    def _side(self, given: Tensor) -> Tensor:
        return one_hot(given, self.classes).to(self.last.bias)[:, None]  # (n, 1, classes)


class GuidedWaveNet(WaveNet):
    """p(x | h), of a series h (n, frames, features) of numbers, as of pitch and loudness; one frame is a global vector.

    Frame f stands beside samples f s, ..., f s + s - 1, with s = length / frames, at each of which another matrix is
    applied to it; they begin as the identity, which repeats the frame.
    """

    def __init__(self, levels: int, length: int, frames: int, features: int, **options):
        if frames < 1 or length % frames or features < 1:
            raise ValueError(
                f"length = {length} should be a multiple of frames = {frames}, with features = {features} at least 1"
            )
        self.features = features
        super().__init__(levels, length, **options)
        self.given_shape = (frames, features)
        self.up = nn.Parameter(torch.eye(features).repeat(length // frames if frames > 1 else 1, 1, 1))  # (s, c, c)

    def conditionals(self, x: Tensor, *, given: Tensor) -> Tensor:
        return self.factors(self._checked(x), self._checked_series(given, len(x)))  # (n, T)

    def log_prob(self, x: Tensor, *, given: Tensor) -> Tensor:
        return self.conditionals(x, given=given).sum(-1)  # (n,)

    def loss(self, x: Tensor, h: Tensor, *, generator: Generator | None = None) -> Tensor:
        """-log p(x | h), a mean over rows."""
        return -self.log_prob(x, given=h).mean()  # ()

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        return self.draw(n, self._checked_series(given, n), generator)  # (n, T)

    def sample_naive(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        return self.draw_naive(n, self._checked_series(given, n), generator)  # (n, T)

    def _side(self, given: Tensor) -> Tensor:
        return torch.einsum("nfc, scd -> nfsd", given.to(self.up), self.up).flatten(1, 2)  # (n, T or 1, features)

    def _checked_series(self, h: Tensor, n: int) -> Tensor:
        if h.shape != (n, *self.given_shape) or not bool(h.isfinite().all()):
            shape = (n, *self.given_shape)
            raise ValueError(f"given should be finite numbers of shape {shape}, a series a row, not {tuple(h.shape)}")
        return h


class Block(nn.Module):
    """A gated unit; what goes on to the next block, and what goes to the output."""

    def __init__(
        self, width: int, skip: int, kernel: int, dilation: int, features: int, gain: float, source: Generator
    ):
        super().__init__()
        self.gates = Causal(width, 2 * width, kernel, dilation, gain, source)  # W_f over W_g
        self.out = Causal(width, width + skip, 1, 1, gain, source)  # W_r over W_s
        self.V = normal((2 * width, features), gain / features**0.5, source) if features else None

    def forward(self, y: Tensor, h: Tensor | None, queue: Queue | None) -> tuple[Tensor, Tensor]:
        a = self.gates(y, queue)
        a = a if self.V is None else a + linear(h, self.V)
        tanh, sigmoid = a.chunk(2, -1)
        out = self.out(tanh.tanh() * sigmoid.sigmoid())
        return y + out[..., : y.shape[-1]], out[..., y.shape[-1] :]


class Causal(nn.Module):
    """b + sum_j W_j y_{t - d j}. With k = 1 it is a 1 x 1 convolution, the same matrix at every step."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int, gain: float, source: Generator):
        super().__init__()
        std = gain / (kernel * inputs) ** 0.5
        self.inputs, self.reach = inputs, (kernel - 1) * dilation
        self.delays = range(0, self.reach + 1, dilation)
        self.weight = normal((outputs, kernel * inputs), std, source)  # W_{k-1}, ..., W_0 side by side: oldest first
        self.bias = normal((outputs,), std, source)

    def forward(self, y: Tensor, queue: Queue | None = None) -> Tensor:
        """Of all steps, y (n, t, inputs); or of one, y (n, inputs), after those in the queue, which it joins."""
        if queue is None:
            taps = [pad(y, (0, 0, delay, 0))[:, : y.shape[1]] for delay in reversed(self.delays)]
        else:
            queue.append(y)
            taps = [queue[place] for place in self.delays]
            queue.popleft()
        return linear(torch.cat(taps, -1), self.weight, self.bias)

    def queue(self, n: int) -> Queue:
        """That of a beginning: zeros."""
        return deque([self.weight.new_zeros(n, self.inputs)] * self.reach)


def _steps(side: Tensor | None, start: int, stop: int) -> Tensor | None:
    """The part of h for these samples; one that is for all stays."""
    return side if side is None or side.shape[1] == 1 else side[:, start:stop]


def _drawn(logits: Tensor, u: Tensor) -> Tensor:
    """The level whose interval, of the probabilities (n, levels) end to end, holds u (n,)."""
    ends = logits.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(ends, u[:, None] * ends[:, -1:], right=True)[:, 0]  # (n,)


# Ready-made models


def four_levels(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> WaveNet:
    """Six samples of four levels, of which each sees the four before it: R = 1 + 1 + 2."""
    return placed(WaveNet(4, 6, dilations=(2,), width=8, skip=8, gain=2.0, seed=30), dtype, device)


def labelled(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> LabelledWaveNet:
    """Five samples of three levels, given one of three labels; R = 1 + 1 + 1."""
    return placed(LabelledWaveNet(3, 5, 3, dilations=(1,), width=8, skip=8, gain=2.0, seed=31), dtype, device)


def guided(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GuidedWaveNet:
    """Six samples of three levels, given a series of three frames of two numbers; k = 3 and R = 1 + 2 + 2."""
    model = GuidedWaveNet(3, 6, 3, 2, dilations=(1,), kernel=3, width=8, skip=8, gain=2.0, seed=32)
    return placed(model, dtype, device)


def full_audio(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> WaveNet:
    """A second at 16 kHz, in 256 mu-law levels: 30 blocks, of dilations 1 to 512 three times; R = 3,071; untrained."""
    dilations = [2**i for i in range(10)] * 3
    return placed(WaveNet(256, 16_000, dilations=dilations, width=64, skip=256, seed=33), dtype, device)
