"""The two fits that stop where the validation draws are likeliest."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reference_impls.autoregressive_logistic import AutoregressiveLogistic, logistic_parameters
from reference_impls.bernoulli_mixture import BernoulliMixture, expectation_maximisation, pool, random_start

Tell = Callable[[str], None]


def _silent(_: str) -> None:
    pass


def mixture_of_bernoullis(
    train: Tensor,
    valid: Tensor,
    *,
    components: int = 50,
    parts: int = 6,
    rounds: int = 6,
    prior: float = 0.5,
    tell: Tell = _silent,
) -> BernoulliMixture:
    """An even mixture of `parts` fits from seeds 0, 1, ..., each stopped at its best multiple of ten EM steps."""
    chosen = []
    for seed in range(parts):
        fitted = random_start(train, components, generator=torch.Generator().manual_seed(seed))
        path = []
        for _ in range(rounds):
            fitted = expectation_maximisation(fitted, train, prior=prior, tolerance=0, iterations=10)
            path.append((float(fitted.log_prob(valid).mean()), fitted))
        best, model = max(path, key=lambda pair: pair[0])
        tell(f"part {seed + 1} of {parts}: {best:.4f} nats on the validation draws")
        chosen.append(model)
    return pool(chosen)


def autoregressive_by_adam(
    train: Tensor,
    valid: Tensor,
    *,
    epochs: int = 40,
    rate: float = 0.01,
    batch: int = 250,
    l2: float = 0.0,
    seed: int = 0,
    tell: Tell = _silent,
) -> AutoregressiveLogistic:
    """Adam (Kingma & Ba 2015, arxiv.org/abs/1412.6980) on all d regressions at once, and the best of its epochs.

    It starts at the independent law, whose biases are the logits of the shares (add-1 smoothing). The rate falls
    linearly to 0. The penalty l2 / 2 ||W||^2, in nats per draw, spares the biases: without one the d^2 / 2 weights of
    many pixels follow the noise of the draws.
    """
    d, n = train.shape[1], len(train)
    share = (train.sum(0) + 1) / (n + 2)  # (d,)
    theta = torch.cat([share.logit(), train.new_zeros(logistic_parameters(d) - d)]).requires_grad_()
    empty = AutoregressiveLogistic(train.new_zeros(d, d), train.new_zeros(d))  # of the size for theta
    optimiser = torch.optim.Adam([theta], lr=rate)
    generator = torch.Generator().manual_seed(seed)
    steps, step, best = epochs * math.ceil(n / batch), 0, (-math.inf, empty)
    for epoch in range(epochs):
        for rows in torch.randperm(n, generator=generator).split(batch):
            optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
            optimiser.zero_grad()
            loss = -empty.with_parameters(theta).log_prob(train[rows]).mean() + l2 / 2 * theta[d:].square().sum()
            loss.backward()
            optimiser.step()
            step += 1
        model = empty.with_parameters(theta.detach().clone())
        score = float(model.log_prob(valid).mean())
        best = max(best, (score, model), key=lambda pair: pair[0])
        tell(f"epoch {epoch + 1} of {epochs}: {score:.3f} nats on the validation draws")
    return best[1]
