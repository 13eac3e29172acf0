r"""Autoregressive logistic regression: the chain rule, each conditional a logistic regression on what came before.

    p(x) = prod_i p(x_i | x_1, ..., x_{i-1})

`AutoregressiveLogistic` is for bits, p(x_i = 1 | x_<i) = sigma(w_i . x_<i + b_i), also called a fully visible sigmoid
belief network. `AutoregressiveSoftmax` is for K levels, 256 of a grey pixel say: a softmax regression whose inputs are
the levels before, as numbers. The first variable has no input, W_1 is empty, so the i-th one has K (i - 1) weights and
K biases. Summed over D variables: K D (D + 1) / 2. The log-likelihood is a sum over variables that share no parameter,
so each is fitted alone, and each problem is convex.

Sources: Neal (1992), Connectionist learning of belief networks, doi.org/10.1016/0004-3702(92)90065-6;
Frey, Hinton & Dayan (1996), papers.nips.cc/paper/1153; Gan et al. (2015), proceedings.mlr.press/v38/gan15.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from reference_impls.discrete import is_state
from reference_impls.gaussian_factors import as_floats, checked_parameters, in_chunks
from reference_impls.indices import as_count
from reference_impls.logistic import SoftmaxRegression, refuse_separated, solve


def logistic_parameters(d: int) -> int:
    """Parameters of the model for d bits: i - 1 weights and a bias for the i-th, d (d + 1) / 2 in all."""
    return d * (d + 1) // 2


def softmax_parameters(d: int, states: int = 256) -> int:
    """Parameters for d variables of K states, K d (d + 1) / 2: 78,776,320 for 28 x 28 pixels of 256 levels.

    That counts all K rows of a softmax, as one stores them. K - 1 of them are free.
    """
    return states * d * (d + 1) // 2


class AutoregressiveLogistic:
    """A law on {0, 1}^d from strictly lower triangular weights W (d, d) and biases b (d,); draws are 0.0 or 1.0.

    A model that was fitted keeps the log-likelihood of its training draws, less n times the penalty, after each step or
    epoch in `history`.
    """

    number = "M16"
    family = "autoregressive logistic regression"

    def __init__(self, weight: Tensor, bias: Tensor, *, history: Tensor | None = None):
        self.weight, self.bias = as_floats(weight, bias)
        self.d = len(self.bias) if self.bias.dim() == 1 else 0
        if self.d == 0 or self.weight.shape != (self.d, self.d):
            shapes = f"{tuple(self.weight.shape)} and {tuple(self.bias.shape)}"
            raise ValueError(f"weight and bias should have shapes (d, d) and (d,), not {shapes}")
        if self.weight.triu().any():
            raise ValueError("weight should be 0 on and above its diagonal: a variable sees only those before it")
        if not (self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise ValueError("weight and bias should be finite; fit with l2 > 0 where the data determine a variable")
        self.history = history  # (steps,)

    def logits(self, x: Tensor) -> Tensor:
        """log p(x_i = 1 | x_<i) / p(x_i = 0 | x_<i); all of them in one product, as W hides what comes later."""
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"draws should have shape (n, {self.d}), not {tuple(x.shape)}")
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        return x.to(dtype) @ self.weight.to(dtype).mT + self.bias.to(dtype)  # (n, d)

    def conditional_laws(self, x: Tensor) -> Tensor:
        """log p(x_i = k | x_<i) for k = 0, 1, whatever x_i is."""
        logits = self.logits(x)
        return torch.stack([logsigmoid(-logits), logsigmoid(logits)], dim=-1)  # (n, d, 2)

    def conditionals(self, x: Tensor) -> Tensor:
        """log p(x_i | x_<i); -inf where x_i is no bit."""
        logits = self.logits(x)
        signs = 2 * x.to(logits.dtype) - 1  # in float: of a byte, 0 - 1 is 255
        return torch.where((x == 0) | (x == 1), logsigmoid(signs * logits), -math.inf)  # (n, d)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.conditionals(x).sum(-1)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """One variable after the other, each given those drawn before it."""
        x = self.bias.new_zeros(n, self.d)
        u = torch.rand(n, self.d, generator=generator, dtype=torch.float64, device=x.device)
        for i in range(self.d):
            x[:, i] = (u[:, i] < (x[:, :i] @ self.weight[i, :i] + self.bias[i]).double().sigmoid()).to(x)
        return x  # (n, d)

    def prefix(self, k: int) -> "AutoregressiveLogistic":
        """p(x_1, ..., x_k): the marginals of an autoregressive model that are free."""
        if not as_count(k, "k") <= self.d:
            raise ValueError(f"k = {k}; there are {self.d} variables")
        return AutoregressiveLogistic(self.weight[:k, :k], self.bias[:k])

    def given_prefix(self, values: Tensor) -> "AutoregressiveLogistic":
        """p(x_{k+1}, ..., x_d | x_1, ..., x_k = values): what was seen becomes a part of the biases."""
        values = torch.as_tensor(values)
        if values.dim() != 1 or not ((values == 0) | (values == 1)).all():
            raise ValueError(f"values should be bits (k,), each 0 or 1; their shape is {tuple(values.shape)}")
        k = len(values)
        if not k < self.d:
            raise ValueError(f"{k} values leave nothing of {self.d} variables; give fewer")
        shift = self.weight[k:, :k] @ values.to(self.weight)
        return AutoregressiveLogistic(self.weight[k:, k:], self.bias[k:] + shift)

    def parameters(self) -> Tensor:
        """b, then the weights below the diagonal, row by row: d (d + 1) / 2 numbers."""
        return torch.cat([self.bias, self.weight[_below(self.d, self.weight.device)]])

    def with_parameters(self, theta: Tensor) -> "AutoregressiveLogistic":
        """The model of this size that has these parameters; differentiable in theta (d (d + 1) / 2,)."""
        d = self.d
        theta = checked_parameters(theta, logistic_parameters(d))
        weight = theta.new_zeros(d, d).masked_scatter(_below(d, theta.device), theta[d:])
        return AutoregressiveLogistic(weight, theta[:d])

    @classmethod
    def fit(cls, x: Tensor, *, l2: float = 0.0, solver: str = "lbfgs", **options) -> "AutoregressiveLogistic":
        """The minimiser of -1/n sum log p(x) + l2 / 2 (||W||^2 + ||b||^2), in float64.

        L-BFGS solves for one variable after the other; the stochastic solvers (`logistic.descend`), which need a
        generator, step on all of them at once.
        """
        (x,) = as_floats(x)
        bits, d = _checked_levels(x, 2, l2).double(), x.shape[1]
        signs, below = 2 * bits - 1, _below(d, x.device)

        def loss_of_all(theta: Tensor, rows: Tensor | slice) -> Tensor:
            weight = theta.new_zeros(d, d).masked_scatter(below, theta[d:])
            logits = bits[rows] @ weight.mT + theta[:d]  # (n, d)
            return -logsigmoid(signs[rows] * logits).sum(-1).mean() + l2 / 2 * theta.square().sum()

        if solver != "lbfgs":
            theta, losses = solve(loss_of_all, bits.new_zeros(logistic_parameters(d)), len(x), solver, **options)
            fitted = cls(bits.new_zeros(d, d).masked_scatter(below, theta[d:]), theta[:d])
        else:
            weight, bias, columns = bits.new_zeros(d, d), bits.new_zeros(d), []
            for i in range(d):
                theta, history = _one_bit(bits[:, :i], bits[:, i], l2, **options)
                bias[i], weight[i, :i] = theta[0], theta[1:]
                columns.append(history)
            fitted, losses = cls(weight, bias), _summed(columns)
        return cls(fitted.weight.to(x.dtype), fitted.bias.to(x.dtype), history=-len(x) * losses)

    def to(self, *args, **kwargs) -> "AutoregressiveLogistic":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        weight, bias = self.weight.to(*args, **kwargs), self.bias.to(*args, **kwargs)
        return AutoregressiveLogistic(weight, bias, history=self.history)


class AutoregressiveSoftmax:
    """A law on {0, ..., K - 1}^d from weights W_i (K, i - 1) for i = 1, ..., d and biases (d, K); draws are int64.

    Inputs are levels divided by K - 1, in [0, 1]: that changes the units of W and no law, and steps become even.
    """

    number = "M16"
    family = "autoregressive softmax regression"

    def __init__(self, weights: Sequence[Tensor], bias: Tensor, *, history: Tensor | None = None):
        *weights, self.bias = as_floats(*weights, bias)
        self.weights = tuple(weights)
        if self.bias.dim() != 2 or self.bias.shape[1] < 2 or not self.bias.isfinite().all():
            raise ValueError(f"bias should be finite, of shape (d, K) with K > 1, not {tuple(self.bias.shape)}")
        self.d, self.states = self.bias.shape
        for i, weight in enumerate(self.weights):
            if weight.shape != (self.states, i) or not weight.isfinite().all():
                raise ValueError(
                    f"weights[{i}] should be finite, of shape ({self.states}, {i}), not {tuple(weight.shape)}"
                )
        if len(self.weights) != self.d:
            raise ValueError(f"{len(self.weights)} weights for {self.d} variables; the first one is ({self.states}, 0)")
        self.history = history  # (steps,)

    def log_conditional(self, before: Tensor) -> Tensor:
        """log p(x_i = k | x_<i) for all k, from the levels before (n, i - 1)."""
        i = before.shape[1]
        inputs = before.to(self.bias.dtype) / (self.states - 1)  # (n, i - 1)
        return (inputs @ self.weights[i].mT + self.bias[i]).log_softmax(-1)  # (n, K)

    def conditional_laws(self, x: Tensor) -> Tensor:
        """log p(x_i = k | x_<i) for all levels k, whatever x_i is."""
        self._checked(x)
        return torch.stack([self.log_conditional(x[:, :i]) for i in range(self.d)], dim=1)  # (n, d, K)

    def conditionals(self, x: Tensor) -> Tensor:
        """log p(x_i | x_<i); -inf where x_i is no level."""
        self._checked(x)
        is_level = is_state(x, self.states)  # (n, d)
        levels = torch.where(is_level, x, 0).long()
        columns = [self.log_conditional(levels[:, :i]).gather(1, levels[:, i : i + 1]) for i in range(self.d)]
        return torch.where(is_level, torch.cat(columns, 1), -math.inf)  # (n, d)

    def log_prob(self, x: Tensor) -> Tensor:
        """One variable after the other, and some rows at a time: n K numbers are never held at once, nor n d K."""
        self._checked(x)
        return in_chunks(self._log_prob, x, self.states + self.d)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        x = torch.zeros(n, self.d, dtype=torch.int64, device=self.bias.device)
        u = torch.rand(n, self.d, generator=generator, dtype=torch.float64, device=x.device)
        for i in range(self.d):
            ends = self.log_conditional(x[:, :i]).double().exp().cumsum(-1)  # (n, K)
            x[:, i] = torch.searchsorted(ends, u[:, i : i + 1] * ends[:, -1:], right=True)[:, 0]
        return x  # (n, d)

    def parameters(self) -> Tensor:
        """For each variable in turn b_k - b_K and w_k - w_K for k < K: (K - 1) d (d + 1) / 2 free numbers."""
        return torch.cat([SoftmaxRegression(w, b).parameters() for w, b in zip(self.weights, self.bias, strict=True)])

    def with_parameters(self, theta: Tensor) -> "AutoregressiveSoftmax":
        """The model of these sizes that has these parameters; differentiable in theta."""
        sizes = [(self.states - 1) * (i + 1) for i in range(self.d)]
        theta = checked_parameters(theta, sum(sizes))
        old = [SoftmaxRegression(w, b) for w, b in zip(self.weights, self.bias, strict=True)]
        new = [part.with_parameters(t) for part, t in zip(old, theta.split(sizes), strict=True)]
        return AutoregressiveSoftmax([part.weight for part in new], torch.stack([part.bias for part in new]))

    @classmethod
    def uniform(cls, d: int, states: int = 256) -> "AutoregressiveSoftmax":
        """All levels alike: the model to `fit` from."""
        return cls([torch.zeros(states, i) for i in range(d)], torch.zeros(d, states))

    def fit(self, x: Tensor, *, l2: float = 0.0, solver: str = "lbfgs", **options) -> "AutoregressiveSoftmax":
        """d softmax regressions, each on the levels before it; see `SoftmaxRegression.fit` for the arguments.

        As many levels as this model has. Where one never occurs the likelihood has no maximum, so that 256 levels ask
        for l2 > 0.
        """
        states = self.states
        levels = _checked_levels(x, states, l2)
        inputs = levels.double() / (states - 1)
        parts = [
            SoftmaxRegression.fit(inputs[:, :i], levels[:, i], classes=states, l2=l2, solver=solver, **options)
            for i in range(levels.shape[1])
        ]
        dtype = self.bias.dtype
        weights, bias = [part.weight.to(dtype) for part in parts], torch.stack([part.bias for part in parts]).to(dtype)
        return AutoregressiveSoftmax(weights, bias, history=_summed([part.history for part in parts]))

    def to(self, *args, **kwargs) -> "AutoregressiveSoftmax":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        weights, bias = [w.to(*args, **kwargs) for w in self.weights], self.bias.to(*args, **kwargs)
        return AutoregressiveSoftmax(weights, bias, history=self.history)

    def _log_prob(self, x: Tensor) -> Tensor:
        return self.conditionals(x).sum(-1)  # (n,)

    def _checked(self, x: Tensor) -> None:
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"draws should have shape (n, {self.d}), not {tuple(x.shape)}")


def _one_bit(before: Tensor, bit: Tensor, l2: float, **options) -> tuple[Tensor, Tensor]:
    """The logistic regression of one bit on those before it: (bias, weights), and the loss after each step."""
    if l2 == 0 and (bit == bit[0]).all():
        raise ValueError(f"variable {before.shape[1]} is constant in x: the likelihood has no maximum; give l2 > 0")
    inputs = torch.cat([torch.ones_like(bit)[:, None], before], dim=1)  # (n, i)

    def loss(theta: Tensor, rows: Tensor | slice) -> Tensor:
        return -logsigmoid((2 * bit - 1) * (inputs @ theta)).mean() + l2 / 2 * theta.square().sum()

    theta, losses = solve(loss, inputs.new_zeros(inputs.shape[1]), len(bit), "lbfgs", **options)
    if l2 == 0:
        logit = inputs @ theta
        refuse_separated(torch.stack([-logit, logit], dim=-1), bit.long())
    return theta, losses


def _summed(columns: list[Tensor]) -> Tensor:
    """The sum of series of different lengths, of which the shorter ones stay at what they ended with."""
    steps = max(len(column) for column in columns)
    return torch.stack([torch.cat([c, c[-1:].expand(steps - len(c))]) for c in columns]).sum(0)


def _below(d: int, device: torch.device) -> Tensor:
    return torch.ones(d, d, dtype=torch.bool, device=device).tril(-1)


def _checked_levels(x: Tensor, states: int, l2: float) -> Tensor:
    x = torch.as_tensor(x)
    if x.dim() != 2 or x.numel() == 0 or not is_state(x, states).all():
        raise ValueError(f"x should have shape (n, d) and hold levels 0 to {states - 1}; its shape is {tuple(x.shape)}")
    if not 0 <= l2 < math.inf:
        raise ValueError(f"l2 = {l2}; a penalty should be finite and not negative")
    return x.long()


# Ready-made models


def six_bits(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> AutoregressiveLogistic:
    """6 bits, each of which tends to repeat the one before and to differ from the first."""
    weight = 1.5 * torch.eye(5, dtype=torch.float64, device="cpu")
    weight = torch.nn.functional.pad(weight, (0, 1, 1, 0))  # (6, 6), on the first diagonal below
    weight[2:, 0] = -1.0
    bias = torch.tensor([0.3, -0.5, 0.0, 0.2, -0.3, 0.1], dtype=torch.float64, device="cpu")
    return AutoregressiveLogistic(weight, bias).to(*_placing(dtype, device))


def grey_row(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> AutoregressiveSoftmax:
    """3 pixels of 4 grey levels: each tends to the level of the mean of those before it."""
    level = torch.arange(4, dtype=torch.float64, device="cpu")
    slope = 2 * (level - 1.5)[:, None]  # (K, 1)
    weights = [slope.expand(4, i) / max(i, 1) for i in range(3)]
    bias = -(level - 1.5).square().expand(3, 4) / 2 - torch.tensor([[0.0], [1.0], [1.0]]).double() * level
    return AutoregressiveSoftmax(weights, bias).to(*_placing(dtype, device))


def _placing(dtype: torch.dtype | None, device: torch.device | str | None) -> tuple:
    return device or torch.get_default_device(), dtype or torch.get_default_dtype()
