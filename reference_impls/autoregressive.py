r"""What autoregressive models have in common: an order, factors that add up to log p, and labels before all else.

    log p(x) = sum_k log p(x_{o_k} | x_{o_1}, ..., x_{o_{k-1}}),      o a permutation of the coordinates

A label y of C kinds, each as likely as another, is one more variable in front of all others. Where it is not given,
what was seen so far tells about it, and each factor is a ratio of two mixtures:

    p(x_{o_k} | x_{o_<k}) = sum_y p(x_{o_<=k} | y) / sum_y p(x_{o_<k} | y)

Sources: Larochelle & Murray 2011, https://proceedings.mlr.press/v15/larochelle11a.html; Uria et al. 2016,
https://jmlr.org/papers/v17/16-272.html.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid

from reference_impls.discrete import is_state

ROWS = 2**15
"""Numbers (rows x hidden units) are kept in about this many rows at a time where no graph is."""


class Autoregressive(nn.Module):
    """A density by its factors. A model defines `factors`, `sample` and the buffer `order` (d,)."""

    number, family = "M14", "autoregressive model"
    order: Tensor

    def factors(self, x: Tensor, label: Tensor | None) -> Tensor:
        """log p(x_i | the coordinates before it, label) for events (n, d): a column a coordinate."""
        raise NotImplementedError

    def conditionals(self, x: Tensor) -> Tensor:
        return self.factors(self._checked(x), None)  # (n, d)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.conditionals(x).sum(-1)  # (n,)

    def loss(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        """-log p(x), a mean over rows; nothing is drawn for it."""
        return -self.log_prob(x).mean()  # ()

    def ordering(self) -> list[int]:
        """The coordinates, first drawn first."""
        return self.order.tolist()

    def _checked(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != len(self.order):
            raise ValueError(f"x should be events of shape (n, {len(self.order)}), not {tuple(x.shape)}")
        return x


class Labelled:
    """Beside `Autoregressive`: p(x | y) for y = 0, ..., classes - 1, and without `given` the mixture over uniform y."""

    classes: int

    def conditionals(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        x = self._checked(x)
        if given is not None:
            return self.factors(x, checked_labels(given, len(x), self.classes))
        each = [self.factors(x, torch.full_like(x[:, 0], y, dtype=torch.int64)) for y in range(self.classes)]
        upto = torch.stack(each)[..., self.order].cumsum(-1)  # (classes, n, d), in the order
        mixed = upto.logsumexp(0) - math.log(self.classes)  # (n, d)
        first = mixed[:, :1]
        later = torch.where(mixed[:, :-1] > -math.inf, mixed[:, 1:] - mixed[:, :-1], -math.inf)
        return torch.cat([first, later], 1)[:, self.order.argsort()]

    def log_prob(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        return self.conditionals(x, given=given).sum(-1)  # (n,)

    def sample(self, n: int, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        return self.draw(n, self._labels(n, given, generator), generator)  # (n, d)

    def sample_naive(self, n: int, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        return self.draw_naive(n, self._labels(n, given, generator), generator)  # (n, d)

    def class_prior(self) -> Tensor:
        return next(self.parameters()).new_full((self.classes,), 1 / self.classes)  # (classes,)

    def loss(self, x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor:
        """-log p(x | y), a mean over rows."""
        return -self.log_prob(x, given=y).mean()  # ()

    def _labels(self, n: int, given: Tensor | None, generator: Generator) -> Tensor:
        if given is None:
            return torch.randint(self.classes, (n,), generator=generator, device=self.order.device)
        return checked_labels(given, n, self.classes)


def checked_labels(y: Tensor, n: int, classes: int) -> Tensor:
    """(n,) int64. Raises ValueError unless there is a label from 0 to classes - 1 for each event."""
    y = torch.as_tensor(y)
    if y.shape != (n,) or not bool(is_state(y, classes).all()):
        raise ValueError(f"given should be {n} labels from 0 to {classes - 1}, of shape ({n},), not {tuple(y.shape)}")
    return y.long()


def checked_ordering(order: Sequence[int] | None, d: int) -> Tensor:
    """(d,) int64, first drawn first; 0, ..., d - 1 for None. Raises ValueError unless it is a permutation."""
    order = range(d) if order is None else [int(i) for i in order]
    if d < 1 or sorted(order) != list(range(d)):
        raise ValueError(f"order should be a permutation of the d = {d} coordinates 0, ..., {d - 1}, not {list(order)}")
    return torch.tensor(list(order), dtype=torch.int64)


def bits_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Which coordinates are on, and which are bits at all; both bool, of the shape of x."""
    on = x == 1
    return on, on | (x == 0)


def log_bernoulli(on: Tensor, is_bit: Tensor, logits: Tensor) -> Tensor:
    """log sigma(l) of what is on, log sigma(-l) of what is off, and -inf of what is no bit."""
    return torch.where(is_bit, logsigmoid(torch.where(on, logits, -logits)), -math.inf)


def uniform_numbers(n: int, d: int, like: Tensor, generator: Generator) -> Tensor:
    """(n, d) on [0, 1), with the 53 bits of float64: those of float32 would draw rare events too often."""
    return torch.rand(n, d, generator=generator, dtype=torch.float64, device=like.device)


def normal(shape: Sequence[int], std: float, source: Generator) -> nn.Parameter:
    """Initial weights N(0, std^2) from a generator of their own."""
    draws = torch.randn(*shape, generator=source, dtype=torch.float64)
    return nn.Parameter((std * draws).to(torch.get_default_dtype()))


def placed(model: nn.Module, dtype: torch.dtype | None, device: torch.device | str | None):
    """The model in that dtype on that device, in evaluation mode."""
    return model.to(device=device or torch.get_default_device(), dtype=dtype or torch.get_default_dtype()).eval()
