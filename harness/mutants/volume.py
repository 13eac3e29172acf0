"""Samplers that share nothing with the density, and draws that lie on a surface beside which the density goes on."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.mutant import Mutant, NearMiss
from harness.mutants.planted import Normal
from harness.mutants.support import ring
from harness.mutants.surface import on_sampler

normal = partial(Normal, 3, 1.0)

THIN = 1e-3
"""Width of a law that is thin, but a law: thousands of roundings of float32."""


def _in_other_units(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return 180 / torch.pi * model.sample(n, generator=generator) + 90


def _rarely_in_other_units(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator)
    return torch.where(torch.rand(n, 1, generator=generator) < 0.1, x + 10, x)


def _broadcast(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return model.sample(n, generator=generator)[:, :1].expand(n, 3).contiguous()


def _normalised(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(model.sample(n, generator=generator), dim=1)


def _nearly_equal(model: Model) -> dict[str, object]:
    """x = (a, a + t b, c): as thin as t, and normal all the same."""

    def sample(n: int, *, generator: torch.Generator) -> Tensor:
        a, b, c = model.sample(n, generator=generator).T
        return torch.stack([a, a + THIN * b, c], 1)

    def log_prob(x: Tensor) -> Tensor:
        a, b, c = x.T
        return model.log_prob(torch.stack([a, (b - a) / THIN, c], 1)) - torch.tensor(THIN).log()

    return {"sample": sample, "log_prob": log_prob}


MUTANTS: tuple[Mutant, ...] = (
    Mutant("degrees_for_radians", "draws in another unit", "support.in_common", ring, on_sampler(_in_other_units)),
    Mutant("broadcast", "one number in all coordinates", "support.has_volume", normal, on_sampler(_broadcast)),
    Mutant("normalised", "draws on the sphere", "support.has_volume", normal, on_sampler(_normalised)),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("one_in_ten", "a tenth is impossible", "support.in_common", ring, on_sampler(_rarely_in_other_units)),
    NearMiss("thin", "0.001 thin", "support.has_volume", normal, _nearly_equal),  # type: ignore[arg-type]
)
