"""Training of deep models: rounds of gradient steps, of which the validation draws choose one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from reference_impls.training import train

Tell = Callable[[str], None]
ROWS = 500
"""Rows at a time where no graph is kept."""


@dataclass(frozen=True)
class Run:
    """Where a model is trained, and the folder that its checkpoints are kept in, so that a killed run goes on."""

    device: str = "cpu"
    checkpoints: Path | None = None

    def checkpoint(self, name: str) -> Path | None:
        return self.checkpoints / f"{name}.pt" if self.checkpoints else None


@dataclass(frozen=True)
class Recipe:
    """`rounds` of `steps` gradient steps. In each the rate falls from `rate` to 0 by half a cosine; it starts where
    the one before ended (Loshchilov & Hutter 2017, arxiv.org/abs/1608.03983). `l2` is that of the loss + l2 / 2 |W|^2
    over matrices W: biases are free."""

    steps: int
    rounds: int = 1
    batch: int = 100
    rate: float = 1e-3
    clip: float | None = None
    l2: float = 0.0

    def __str__(self) -> str:
        rounds = f"{self.rounds} rounds of " if self.rounds > 1 else ""
        clip = f", gradients of norm {self.clip:g} at most" if self.clip else ""
        l2 = f", l2 {self.l2:g}" if self.l2 else ""
        return f"Adam: {rounds}{self.steps} steps, batch {self.batch}, rate {self.rate:g} falling to 0{clip}{l2}"


def trained(
    model: nn.Module,
    data: Tensor | Sequence[Tensor],
    score: Callable[[nn.Module], float] | None,
    recipe: Recipe,
    *,
    name: str,
    run: Run,
    tell: Tell,
    seed: int = 0,
) -> nn.Module:
    """The model, changed in place, as it was after the round with the highest score; without gradients from then on.

    `score` looks at validation draws; without one the last round is kept. `name` is that of the checkpoints, a file a
    round. Raises FloatingPointError for a loss that is no number, and ValueError for scores that are none.
    """

    def loss(*rows: Tensor, generator: Generator) -> Tensor:
        value = model.loss(*rows, generator=generator)
        if recipe.l2:
            value = value + recipe.l2 / 2 * sum(p.square().sum() for p in model.parameters() if p.dim() > 1)
        return value

    best: tuple[float, dict[str, Tensor]] = (-math.inf, {})
    for i in range(recipe.rounds):
        train(
            model,
            loss,
            data,
            steps=recipe.steps,
            batch=recipe.batch,
            rate=recipe.rate,
            clip=recipe.clip,
            seed=1000 * seed + i,
            checkpoint=run.checkpoint(f"{name}-{i + 1}"),
        )
        with torch.no_grad():
            value = float(i) if score is None else score(model)
        if score is not None:
            tell(f"{name}, round {i + 1} of {recipe.rounds}: {value:.4f} nats on the validation draws")
        if value > best[0]:
            best = (value, {key: part.clone() for key, part in model.state_dict().items()})
    if not best[1]:
        raise ValueError(f"{name}: no round has a finite score on the validation draws; lower the rate {recipe.rate}")
    model.load_state_dict(best[1])
    return model.requires_grad_(False).eval()


class InParts:
    """The same law, some rows at a time and without a graph."""

    def __init__(self, model: nn.Module):
        self.model = model

    def log_prob(self, x: Tensor) -> Tensor:
        return each(self.model.log_prob, x)

    def mean(self, x: Tensor) -> float:
        return float(self.log_prob(x).double().mean())


def each(value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """value(x) (n,), some rows at a time and without a graph."""
    with torch.no_grad():
        return torch.cat([value(part) for part in x.split(ROWS)])  # (n,)


def importance_bound(model: nn.Module, x: Tensor, k: int, seed: int) -> float:
    """The mean of L_k over rows: E log 1/k sum_i w_i <= log p(x)."""
    source = Generator(x.device).manual_seed(seed)
    return float(each(lambda part: model.iwae(part, k, generator=source), x).double().mean())
