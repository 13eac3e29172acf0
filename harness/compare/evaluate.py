"""Test NLL point by point, always by the model's own log_prob (or bound), never by a number that it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.compare.view import View, as_events
from harness.model import Model
from harness.streams import generator as stream

ROWS = 512
IWAE_DRAWS, ELBO_DRAWS = 64, 16
"""Latent draws of a bound for each test row."""


@dataclass(frozen=True)
class Points:
    """-log p of each test row in nats, in the data's units, and what kind of number it is."""

    nll: Tensor  # (n,) float64
    meaning: str

    @property
    def trouble(self) -> str:
        """Why there is no NLL: a value that is no number is a failure, not a row to be left out."""
        bad = int((~self.nll.isfinite()).sum())
        if not bad:
            return ""
        first = int((~self.nll.isfinite()).nonzero()[0])
        return (
            f"log_prob is {-float(self.nll[first]):g} at {bad} of {len(self.nll)} test rows, the first of them {first}"
        )


def test_points(model: Model, view: View, dtype: torch.dtype, seed: int, alive: Callable[[int], None]) -> Points:
    """The points. TypeError for a model without log_prob, energy with log_partition, elbo or iwae, and for one that
    does not answer a number a row."""
    density, bound = _density(model, seed)
    copies = []
    for copy in view.test:
        rows = as_events(copy.to(model.device, dtype), model.event_shape)
        parts = []
        for start in range(0, len(rows), ROWS):
            with torch.no_grad():
                parts.append(_checked(density(rows[start : start + ROWS]), rows[start : start + ROWS]))
            alive(start)
        copies.append(torch.cat(parts))
    meaning = "exact" if view.exact and not bound else "upper bound on the NLL"
    reasons = [bound] if bound else []
    reasons += [] if view.exact else ["dequantised"]
    return Points(
        -(torch.stack(copies).mean(0) + view.log_jacobian), meaning + (f" ({', '.join(reasons)})" if reasons else "")
    )


def _density(model: Model, seed: int) -> tuple[Callable[[Tensor], Tensor], str]:
    """log p of rows, and the name of the bound where it is one."""
    if model.can("log_prob"):
        return model.log_prob, ""
    if model.can("energy", "log_partition"):
        return lambda x: -model.energy(x) - model.log_partition(), ""
    generator = stream(seed, "compare", "bound", device=model.device)
    if model.can("iwae"):
        return lambda x: model.iwae(x, IWAE_DRAWS, generator=generator), f"importance-weighted, {IWAE_DRAWS} draws"
    if model.can("elbo"):
        return (
            lambda x: torch.stack([model.elbo(x, generator=generator) for _ in range(ELBO_DRAWS)]).mean(0),
            f"ELBO, {ELBO_DRAWS} draws",
        )
    raise TypeError("it has no log_prob, no bound on it, and no energy with log_partition: there is no NLL to rank by")


def _checked(log_p: object, x: Tensor) -> Tensor:
    if not isinstance(log_p, Tensor) or log_p.shape != (len(x),) or log_p.is_complex():
        what = f"{tuple(log_p.shape)}" if isinstance(log_p, Tensor) else type(log_p).__name__
        raise TypeError(f"log_prob of {len(x)} rows returned {what}, not {len(x)} numbers")
    return log_p.double().cpu()
