r"""Softmax (multinomial logistic) regression: a model of the label alone, p(y | x), and none of x.

    p(y = k | x) = exp(w_k . x + b_k) / sum_j exp(w_j . x + b_j)

Learning is the minimisation of the cross-entropy -1/n sum_i log p(y_i | x_i), the *argmin* of a loss and the argmax of
the likelihood. It is convex: what stochastic gradient descent approaches, L-BFGS finds to many digits. Adding the same
vector to all w_k changes nothing, so that one of the K rows is redundant; a penalty l2 / 2 (||W||^2 + ||b||^2) chooses
among the equal ones, and keeps the optimum finite where classes can be separated.

Sources: Bishop, Pattern Recognition and Machine Learning (2006), section 4.3; Nocedal & Wright, Numerical Optimization
(2006), section 7.2; Albert & Anderson (1984), doi.org/10.1093/biomet/71.1.1 (when the estimate does not exist).
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from reference_impls.discrete import Categorical, is_state
from reference_impls.gaussian_factors import as_floats, checked_parameters, checked_values
from reference_impls.indices import as_count

SOLVERS = ("lbfgs", "sgd", "adam")


class SoftmaxRegression:
    """p(y | x) for y in {0, ..., K - 1} and x in R^d, from W (K, d) and b (K,).

    A model that was fitted keeps the log-likelihood of its training labels, less n times the penalty, after each step
    or epoch in `history`.
    """

    number = "M15"
    family = "softmax regression"

    def __init__(self, weight: Tensor, bias: Tensor, *, history: Tensor | None = None):
        self.weight, self.bias = as_floats(weight, bias)  # (K, d), (K,)
        if self.weight.dim() != 2 or self.bias.shape != self.weight.shape[:1] or len(self.bias) == 0:
            shapes = f"{tuple(self.weight.shape)} and {tuple(self.bias.shape)}"
            raise ValueError(f"weight and bias should have shapes (K, d) and (K,) with K > 0, not {shapes}")
        if not (self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise ValueError("weight and bias should be finite; fit with l2 > 0 where classes can be separated")
        self.states, self.d = self.weight.shape
        self.given_shape = (self.d,)  # of an x
        self.history = history  # (steps,)

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(y = k | x) for all labels; the largest logit is subtracted before any exponential is taken."""
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"inputs should have shape (n, {self.d}), not {tuple(x.shape)}")
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        return (x.to(dtype) @ self.weight.to(dtype).mT + self.bias.to(dtype)).log_softmax(-1)  # (n, K)

    def posterior(self, x: Tensor) -> Tensor:
        return self.log_posterior(x).exp()  # (n, K)

    def log_prob(self, y: Tensor, *, given: Tensor) -> Tensor:
        """log p(y | x) of labels y (n,) at inputs x = given, (n, d) or one (d,) for all; -inf for what is no label."""
        given = given.expand(len(y), -1) if given.dim() == 1 else given
        if y.dim() != 1 or len(given) != len(y):
            raise ValueError(f"{len(given)} inputs for labels of shape {tuple(y.shape)}; give one label an input")
        is_label = is_state(y, self.states)  # (n,)
        chosen = torch.where(is_label, y, 0).long()
        log_prob = self.log_posterior(given).gather(1, chosen[:, None])[:, 0]
        return torch.where(is_label, log_prob, -math.inf)  # (n,)

    def sample(self, n: int, *, given: Tensor, generator: Generator) -> Tensor:
        """n labels, one at each of the inputs (n, d), or all at one input (d,)."""
        if given.dim() == 2 and len(given) != n:
            raise ValueError(f"{n} labels for {len(given)} inputs; n should be their number")
        given = given.expand(n, -1) if given.dim() == 1 else given
        if not given.isfinite().all():
            raise ValueError("given should be finite inputs; there is no law of the label at others")
        ends = self.posterior(given).double().cumsum(-1)  # (n, K)
        u = torch.rand(n, 1, generator=generator, dtype=torch.float64, device=self.bias.device) * ends[:, -1:]
        return torch.searchsorted(ends, u, right=True)[:, 0]  # (n,)

    def at(self, x: Tensor) -> Categorical:
        """The law of y at one input x (d,)."""
        return Categorical(self.posterior(checked_values(x, self.d)[None])[0])

    def parameters(self) -> Tensor:
        """b_k - b_K for k < K, then w_k - w_K: the (K - 1)(d + 1) numbers on which the law depends."""
        return torch.cat([(self.bias - self.bias[-1])[:-1], (self.weight - self.weight[-1])[:-1].flatten()])

    def with_parameters(self, theta: Tensor) -> "SoftmaxRegression":
        """The regression of these sizes that has these parameters, with w_K = 0 and b_K = 0; differentiable."""
        K, d = self.states, self.d
        theta = checked_parameters(theta, (K - 1) * (d + 1))
        bias = torch.cat([theta[: K - 1], theta.new_zeros(1)])
        weight = torch.cat([theta[K - 1 :].reshape(K - 1, d), theta.new_zeros(1, d)])
        return SoftmaxRegression(weight, bias)

    @classmethod
    def fit(
        cls, x: Tensor, y: Tensor, *, classes: int | None = None, l2: float = 0.0, solver: str = "lbfgs", **options
    ) -> "SoftmaxRegression":
        """The minimiser of -1/n sum_i log p(y_i | x_i) + l2 / 2 (||W||^2 + ||b||^2), in float64.

        Without a penalty it does not exist if a label never occurs, or if planes separate the classes: scaling W and b
        up would go on gaining. `options` are those of `minimise` and `descend`; the stochastic ones need a generator.
        Without a penalty L-BFGS sees columns of mean 0 and variance 1: the slopes at which it stops have units of x.
        """
        x, y, classes = _checked_labels(x, y, classes, l2)
        centre, unit = _units(x) if solver == "lbfgs" and l2 == 0 else (0.0, 1.0)
        inputs, labels = (x.double() - centre) / unit, y.long()

        def loss(theta: Tensor, rows: Tensor | slice) -> Tensor:
            logits = inputs[rows] @ theta[classes:].reshape(classes, -1).mT + theta[:classes]  # (n, K)
            return torch.nn.functional.cross_entropy(logits, labels[rows]) + l2 / 2 * theta.square().sum()

        start = inputs.new_zeros(classes * (inputs.shape[1] + 1))
        theta, losses = solve(loss, start, len(x), solver, **options)
        logits = inputs @ theta[classes:].reshape(classes, -1).mT + theta[:classes]
        if l2 == 0:
            refuse_separated(logits, labels)
        weight = theta[classes:].reshape(classes, -1) / unit
        bias = theta[:classes] - (weight * centre).sum(-1)
        return cls(weight.to(x.dtype), bias.to(x.dtype), history=-len(x) * losses)

    def to(self, *args, **kwargs) -> "SoftmaxRegression":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return SoftmaxRegression(self.weight.to(*args, **kwargs), self.bias.to(*args, **kwargs), history=self.history)


# Solvers of smooth convex problems, for `loss(theta, rows)`: the mean over these rows, plus a penalty

Loss = Callable[[Tensor, Tensor | slice], Tensor]


def solve(loss: Loss, start: Tensor, n: int, solver: str, **options) -> tuple[Tensor, Tensor]:
    """The minimiser by that solver, and the loss of all rows after each step (L-BFGS) or epoch (the others)."""
    if solver not in SOLVERS:
        raise ValueError(f"solver is {solver!r}; it should be one of {', '.join(SOLVERS)}")
    if solver == "lbfgs":
        return minimise(loss, start, **options)
    if "generator" not in options:
        raise ValueError(f"solver {solver} takes its batches at random; give it a generator")
    return descend(loss, start, n, method=solver, **options)


def minimise(loss: Loss, start: Tensor, *, tolerance: float = 1e-7, iterations: int = 2000) -> tuple[Tensor, Tensor]:
    """L-BFGS with a line search (strong Wolfe), until no slope is larger than `tolerance`.

    If f is m-strongly convex, a gradient g leaves f - min f <= |g|^2 / (2 m): 1e-7 is far below what statistics sees,
    and above sqrt(eps) = 1.5e-8, where values of f can no longer tell two steps apart. A ValueError when it is missed.
    """
    theta, everything = start.clone().requires_grad_(), slice(None)
    losses = []
    optimiser = torch.optim.LBFGS(
        [theta],
        max_iter=iterations,
        max_eval=4 * iterations,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        optimiser.zero_grad()
        value = loss(theta, everything)
        value.backward()
        losses.append(value.detach())
        return value

    optimiser.step(evaluate)
    final = evaluate().detach()
    if not theta.grad.abs().max() <= tolerance:
        raise ValueError(
            f"after {iterations} steps a slope of {theta.grad.abs().max():.1e} is left: the optimum may lie at "
            "infinity; give l2 > 0, scale the inputs, or allow more iterations"
        )
    # A line search also tries worse points: what each step ended at is the lowest so far.
    return theta.detach(), torch.stack([*losses, final]).cummin(0).values


def descend(
    loss: Loss,
    start: Tensor,
    n: int,
    *,
    generator: Generator,
    method: str = "sgd",
    rate: float = 0.5,
    batch: int = 128,
    epochs: int = 50,
) -> tuple[Tensor, Tensor]:
    """theta <- theta - rate g, with g the gradient of a batch of rows: on average that of all rows.

    Each epoch goes through the rows in a new order. The rate falls linearly to 0, so that the noise of the batches dies
    out. `adam` divides each slope by its recent size (Kingma & Ba 2015, arxiv.org/abs/1412.6980).
    """
    batch, epochs = as_count(batch, "batch"), as_count(epochs, "epochs")
    theta = start.clone().requires_grad_()
    optimiser = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[method]([theta], lr=rate)
    steps, step, losses = epochs * math.ceil(n / batch), 0, []
    for _ in range(epochs):
        for rows in torch.randperm(n, generator=generator, device=start.device).split(batch):
            optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
            optimiser.zero_grad()
            loss(theta, rows).backward()
            optimiser.step()
            step += 1
        with torch.no_grad():
            losses.append(loss(theta, slice(None)))
    return theta.detach(), torch.stack(losses)


def refuse_separated(logits: Tensor, labels: Tensor) -> None:
    """If each label has the strictly largest logit (n, K), scaling the parameters up gains without end."""
    own = logits.gather(1, labels[:, None])  # (n, 1)
    others = logits.scatter(1, labels[:, None], -math.inf)  # (n, K)
    if (own[:, 0] > others.amax(1)).all():
        raise ValueError("planes separate the classes, so that the likelihood has no maximum; give l2 > 0")


# Arguments


def _units(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, in float64; 1 for a constant one, whose weight then stays 0."""
    mean = x.double().mean(0)  # (d,)
    deviation = (x - mean).square().mean(0).sqrt()
    rounding = len(x) * torch.finfo(torch.float64).eps * mean.abs()  # by which the mean of equal numbers may be off
    return mean, deviation.where(deviation > rounding, 1)


def _checked_labels(x: Tensor, y: Tensor, classes: int | None, l2: float) -> tuple[Tensor, Tensor, int]:
    (x,), y = as_floats(x), torch.as_tensor(y)
    if x.dim() != 2 or len(x) == 0 or y.shape != x.shape[:1] or not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError(f"x (n, d) and y (n,) should be finite, n > 0; theirs are {tuple(x.shape)}, {tuple(y.shape)}")
    classes = int(y.max()) + 1 if classes is None else as_count(classes, "classes")
    if not is_state(y, classes).all():
        raise ValueError(f"y should hold labels 0 to {classes - 1}; it lies in [{y.min()}, {y.max()}]")
    if not 0 <= l2 < math.inf:
        raise ValueError(f"l2 = {l2}; a penalty should be finite and not negative")
    if l2 == 0 and len(y.unique()) < classes:
        raise ValueError(f"only {len(y.unique())} of {classes} labels occur: no maximum; give l2 > 0 or fewer classes")
    return x, y, classes


# Ready-made models


def bayes_of_two_gaussians(
    *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> SoftmaxRegression:
    r"""The exact posterior of two even classes N(mu_y, Sigma): w_1 - w_0 = Sigma^-1 (mu_1 - mu_0).

    With mu_1 = -mu_0 = (1, 0.5), and Sigma with variances 1 and correlation 0.5, that is (2, 0).
    """
    weight = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64, device="cpu")
    return SoftmaxRegression(weight, torch.zeros(2, dtype=torch.float64, device="cpu")).to(*_placing(dtype, device))


def three_classes(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> SoftmaxRegression:
    """Three labels that share the plane out in sectors."""
    weight = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]], dtype=torch.float64, device="cpu")
    bias = torch.tensor([0.2, 0.0, -0.4], dtype=torch.float64, device="cpu")
    return SoftmaxRegression(weight, bias).to(*_placing(dtype, device))


def label_at_a_point(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Categorical:
    """p(y | x) of `three_classes` at x = (1, 2)."""
    model = three_classes(dtype=dtype, device=device)
    return model.at(model.weight.new_tensor([1.0, 2.0]))


def _placing(dtype: torch.dtype | None, device: torch.device | str | None) -> tuple:
    return device or torch.get_default_device(), dtype or torch.get_default_dtype()
