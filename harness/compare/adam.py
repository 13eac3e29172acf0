"""A plain loop for densities that can be differentiated: Adam, and the parameters that the validation rows like best.

    theta <- theta - eta m / (sqrt(v) + eps)      on the mean of -log p(x), or of -elbo(x), over a minibatch

Source: Kingma & Ba 2015, https://arxiv.org/abs/1412.6980.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.utils import lazy_property

from harness.adapters import adapt
from harness.compare.view import View, as_events
from harness.streams import generator as stream

RATE, BATCH, CLIP = 2e-3, 128, 10.0
PATIENCE_EPOCHS, PATIENCE_STEPS = 30, 600
"""It stops when the validation rows have gained nothing for so many epochs, and so many steps."""

LOOK_STEPS = 25
"""Steps between two looks at the validation rows, at least; an epoch where that is longer."""


def descend(
    thing: Any,
    parameters: list[nn.Parameter],
    view: View,
    *,
    seed: int,
    seconds: float,
    tell: Callable[[str, int], None],
    device: torch.device | str = "cpu",
) -> tuple[int, str]:
    """Train in place, on the device where it is, leave a module in evaluation mode; the steps and a description.

    FloatingPointError where no look at the validation rows gave a number.
    """
    loss_of, name = _loss(thing, stream(seed, "compare", "loss", device=device))
    dtype = torch.int64 if view.discrete and not _takes_floats(thing, device) else parameters[0].dtype
    shape = adapt(thing, device=device).event_shape
    forget(thing)
    train, valid = (as_events(part.to(device, dtype), shape) for part in (view.train, view.valid))
    source = stream(seed, "compare", "minibatches")
    optimiser = torch.optim.Adam(parameters, lr=RATE)
    kept = [*parameters, *(thing.buffers() if isinstance(thing, nn.Module) else [])]
    best, best_value, best_step = [t.detach().clone() for t in kept], math.inf, 0
    n, began, step = len(train), time.perf_counter(), 0
    look = max(LOOK_STEPS, math.ceil(n / BATCH))
    patience = max(PATIENCE_STEPS, PATIENCE_EPOCHS * math.ceil(n / BATCH))
    order = torch.randperm(n, generator=source)
    while time.perf_counter() - began < seconds and step - best_step < patience:
        if len(order) == 0:
            order = torch.randperm(n, generator=source)
        rows, order = order[:BATCH], order[BATCH:]
        loss = loss_of(train[rows]).mean()
        optimiser.zero_grad(set_to_none=True)
        if bool(loss.isfinite()):
            loss.backward()
            if bool(nn.utils.clip_grad_norm_(parameters, CLIP).isfinite()):
                optimiser.step()
        forget(thing)
        step += 1
        if step % look == 0:
            value = _mean(thing, loss_of, valid)
            tell("training", step)
            if value < best_value:
                best, best_value, best_step = [t.detach().clone() for t in kept], value, step
    if not best_value < math.inf and _mean(thing, loss_of, valid) < math.inf:  # too short for a look
        best, best_value, best_step = [t.detach().clone() for t in kept], 0.0, step
    if not best_value < math.inf:
        raise FloatingPointError(f"the mean {name} of the validation rows was no number in {step} steps of Adam")
    with torch.no_grad():
        for tensor, value_of in zip(kept, best, strict=True):
            tensor.copy_(value_of)
    forget(thing)
    if isinstance(thing, nn.Module):
        thing.eval()
    stopped = "the budget ended" if step - best_step < patience else "the validation rows gained no more"
    words = f"Adam on {name} (rate {RATE:g}, batch {BATCH}), {step} steps until {stopped}, the best by validation kept"
    return step, words


def _loss(thing: Any, generator: torch.Generator) -> tuple[Callable[[Tensor], Tensor], str]:
    """The loss of each row, and its name."""
    model = adapt(thing, device=generator.device)
    if model.can("log_prob"):
        return lambda x: -model.log_prob(x), "-log_prob"
    if model.can("elbo"):
        return lambda x: -model.elbo(x, generator=generator), "-elbo"
    raise TypeError(f"{type(thing).__name__} has parameters, but neither log_prob nor elbo to train it by")


def _mean(thing: Any, loss_of: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """In evaluation mode; NaN counts as infinite."""
    was = thing.training if isinstance(thing, nn.Module) else False
    if was:
        thing.eval()
    with torch.no_grad():
        value = float(torch.cat([loss_of(rows) for rows in x.split(1024)]).double().mean())
    if was:
        thing.train()
    return value if math.isfinite(value) else math.inf


def _takes_floats(thing: Any, device: torch.device | str) -> bool:
    """Are the events of a discrete model written as floats, as its draws are?"""
    model = adapt(thing, device=device)
    if not model.can("sample"):
        return True
    x: Tensor = model.sample(2, generator=stream(0, "compare", "dtype", device=device))
    return x.is_floating_point()


def forget(thing: Any) -> None:
    """Have a distribution drop what it computed under other parameters: Pyro's transforms remember their last values,
    and torch's lazy properties (probs where logits were given) are kept for good, so that draws would follow the old
    parameters while log_prob follows the new."""
    if callable(clear := getattr(thing, "clear_cache", None)):
        clear()
    while isinstance(thing, Distribution):
        for name in [name for name, value in vars(thing).items() if _derived(thing, name, value)]:
            vars(thing).pop(name)
        thing = getattr(thing, "base_dist", None)


def _derived(law: Distribution, name: str, value: Any) -> bool:
    """Is the attribute a lazy property's answer? A parameter of the same name that was given is a leaf."""
    lazy = isinstance(getattr(type(law), name, None), lazy_property)
    return lazy and isinstance(value, Tensor) and not value.is_leaf
