"""Samplers whose draws are not a function of the generator alone, or not independent, or too coarse."""

from __future__ import annotations

import math
import random
from functools import partial

import numpy as np
import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.mutant import Mutant, NearMiss
from harness.mutants.planted import Lattice, Normal
from harness.mutants.surface import Methods, on_sampler

normal, wide, lattice = partial(Normal, 1, 1.0), partial(Normal, 10, 1e3), partial(Lattice, 1)


def fair_coin() -> object:
    return torch.distributions.Bernoulli(torch.tensor(0.5))


def rare_coin() -> object:
    return torch.distributions.Bernoulli(torch.tensor(0.01))


def constant() -> object:
    return torch.distributions.Bernoulli(torch.tensor(1.0))


def small_gamma() -> object:
    return torch.distributions.Gamma(torch.tensor(0.01), torch.tensor(1.0))


def far_normal() -> object:
    return torch.distributions.Normal(torch.tensor(1e6), torch.tensor(1.0))


def uniform() -> object:
    return torch.distributions.Uniform(torch.tensor(0.0), torch.tensor(1.0))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _time_dependent(model: Model) -> Methods:
    source = _seeded(0)
    return {"sample": lambda n, *, generator: model.sample(n, generator=source)}


def _global(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator)
    return x + 1e-3 * torch.rand(x.shape)


def _reseeds_numpy(model: Model, n: int, generator: torch.Generator) -> Tensor:
    np.random.seed(generator.initial_seed() % 2**32)
    random.seed(0)
    return model.sample(n, generator=generator)


def _own_numpy(model: Model, n: int, generator: torch.Generator) -> Tensor:
    own = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    return model.sample(n, generator=_seeded(int(own.integers(2**62))))


def _one_nan(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator).clone()
    x[torch.rand(n, generator=generator) < 1e-3] = math.nan
    return x


def _one_seed(model: Model, n: int, generator: torch.Generator) -> Tensor:
    torch.rand(1, generator=generator)
    return model.sample(n, generator=_seeded(0))


def _seed_per_draw(model: Model, n: int, generator: torch.Generator) -> Tensor:
    start = generator.initial_seed() % 2**62
    return torch.cat([model.sample(1, generator=_seeded(start + i)) for i in range(n)])


def _initial_seed(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return model.sample(n, generator=_seeded(generator.initial_seed()))


def _clone(model: Model, n: int, generator: torch.Generator) -> Tensor:
    own = torch.Generator()
    own.set_state(generator.get_state())
    return model.sample(n, generator=own)


def _each_twice(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return model.sample((n + 1) // 2, generator=generator).repeat_interleave(2, 0)[:n]


def _batch_twice(model: Model, n: int, generator: torch.Generator) -> Tensor:
    half = model.sample((n + 1) // 2, generator=generator)
    return torch.cat([half, half])[:n]


def _twice_shuffled(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return _batch_twice(model, n, generator)[torch.randperm(n, generator=generator)]


def _shuffled(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return model.sample(n, generator=generator)[torch.randperm(n, generator=generator)]


def _few_repeats(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator)
    again = torch.rand(n, generator=generator) < 0.15
    return torch.where(again.reshape(-1, *(1,) * (x.ndim - 1)), x.roll(1, 0), x)


def _blend(x: Tensor, y: Tensor, rho: float) -> Tensor:
    return rho * x + math.sqrt(1 - rho**2) * y


def _markov(model: Model, n: int, generator: torch.Generator) -> Tensor:
    """Pairs of neighbours correlate by 0.3; each draw has the right law. The base has its mean at 0.5."""
    x = model.sample(n, generator=generator) - model.target.location  # type: ignore[attr-defined]
    x[1::2] = _blend(x[: 2 * (n // 2) : 2], x[1::2], 0.3)
    return x + model.target.location  # type: ignore[attr-defined]


def _antithetic(model: Model, n: int, generator: torch.Generator) -> Tensor:
    half = model.sample((n + 1) // 2, generator=generator)
    return torch.cat([half, 2 * model.target.location - half])[:n]  # type: ignore[attr-defined]


def _sticky(model: Model, n: int, generator: torch.Generator) -> Tensor:
    """A discrete chain that stays where it was one time in five: repeats that are correlation."""
    x = model.sample(n, generator=generator).clone()
    stays = torch.rand(n // 2, generator=generator) < 0.2
    x[1 : 2 * (n // 2) : 2][stays] = x[: 2 * (n // 2) : 2][stays]
    return x


def _shared_shift(model: Model, n: int, generator: torch.Generator) -> Tensor:
    """One shift a call, of half the variance."""
    e = (model.sample(n + 1, generator=generator) - model.target.location) / math.sqrt(2)  # type: ignore[attr-defined]
    return model.target.location + e[1:] + e[:1]  # type: ignore[attr-defined]


def _half_from_seed(model: Model, n: int, generator: torch.Generator) -> Tensor:
    """Half of the variance from a stream that is the same for every seed."""
    torch.rand(1, generator=generator)
    e = model.sample(n, generator=generator) - model.target.location  # type: ignore[attr-defined]
    common = model.sample(n, generator=_seeded(0)) - model.target.location  # type: ignore[attr-defined]
    return model.target.location + _blend(common, e, math.sqrt(0.5))  # type: ignore[attr-defined]


def _rounded(x: Tensor, step: float) -> Tensor:
    return ((x.double() / step).round() * step).to(x.dtype)


def _float16(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator)
    return x.to(torch.float16).to(x.dtype)


def _bfloat16(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator)
    return x.to(torch.bfloat16).to(x.dtype)


def _three_decimals(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return _rounded(model.sample(n, generator=generator), 1e-3)


def _decimals_of_scale(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return _rounded(model.sample(n, generator=generator), 0.7)


def _float32_in_float64(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return model.sample(n, generator=generator).to(torch.float32).to(torch.float64)


def _sixteen_bits(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2**14, (n,), generator=generator) / 2**14


def _as_it_is(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return model.sample(n, generator=generator)


def _two_calls(model: Model, n: int, generator: torch.Generator) -> Tensor:
    half = model.sample(n // 2, generator=generator)
    return torch.cat([half, model.sample(n - n // 2, generator=generator)])


def _one_end(model: Model, n: int, generator: torch.Generator) -> Tensor:
    """An atom at 1 of mass 1/5: repeats, but no coarseness."""
    return model.sample(n, generator=generator).clamp(max=0.8)


def _mutant(name: str, defect: str, check: str, base: object, edit: object) -> Mutant:
    return Mutant(name, defect, check, base, on_sampler(edit))  # type: ignore[arg-type]


def _near_miss(name: str, change: str, check: str, base: object, edit: object = _as_it_is) -> NearMiss:
    return NearMiss(name, change, check, base, on_sampler(edit))  # type: ignore[arg-type]


MUTANTS: tuple[Mutant, ...] = (
    Mutant("own_generator", "draws from its own stream", "sample.repeats_under_generator", normal, _time_dependent),
    _mutant("global_noise", "reads the global generator", "sample.repeats_under_generator", normal, _global),
    _mutant("numpy_reseeded", "reseeds numpy", "sample.leaves_global_generator_alone", normal, _reseeds_numpy),
    _mutant("one_nan", "1 draw in 1000 is NaN", "sample.finite", normal, _one_nan),
    _mutant("one_seed", "the generator is ignored", "sample.varies_with_seed", normal, _one_seed),
    _mutant("one_seed_discrete", "the generator is ignored", "sample.varies_with_seed", fair_coin, _one_seed),
    _mutant("seed_per_draw", "draw i from seed + i", "sample.varies_with_seed", normal, _seed_per_draw),
    _mutant("initial_seed", "each call starts anew", "sample.advances_generator", normal, _initial_seed),
    _mutant("state_copied", "works on a copy of the generator", "sample.advances_generator", lattice, _clone),
    _mutant("each_twice", "every draw twice, side by side", "sample.not_repeated", wide, _each_twice),
    _mutant("each_twice_discrete", "every draw twice, side by side", "sample.not_repeated", fair_coin, _each_twice),
    _mutant("batch_twice", "every call twice", "sample.not_repeated", normal, _batch_twice),
    _mutant("twice_shuffled", "every draw twice, shuffled", "sample.not_repeated", normal, _twice_shuffled),
    _mutant("few_repeats", "15 % of the draws repeat the last", "sample.not_repeated", wide, _few_repeats),
    _mutant("markov", "neighbours correlate by 0.3", "sample.uncorrelated_along_batch", normal, _markov),
    _mutant("antithetic", "half a call mirrors the other", "sample.uncorrelated_along_batch", wide, _antithetic),
    _mutant("sticky", "1 in 5 repeats its neighbour", "sample.not_repeated", lattice, _sticky),
    _mutant("common_stream", "half the noise the same", "sample.independent_across_calls", wide, _half_from_seed),
    _mutant("shared_shift", "one shift a call", "sample.independent_within_call", normal, _shared_shift),
    _mutant("float16", "rounded to float16", "sample.resolution", wide, _float16),
    _mutant("bfloat16", "rounded to bfloat16", "sample.resolution", normal, _bfloat16),
    _mutant("three_decimals", "rounded to 3 decimals", "sample.resolution", normal, _three_decimals),
    _mutant("grid", "multiples of 0.7, of sd 1000", "sample.resolution", wide, _decimals_of_scale),
    _mutant("fourteen_bits", "multiples of 2^-14", "sample.resolution", uniform, _sixteen_bits),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    _near_miss("own_numpy", "its own generator, seeded", "sample.repeats_under_generator", normal, _own_numpy),
    _near_miss("own_numpy", "its own generator, seeded", "sample.leaves_global_generator_alone", normal, _own_numpy),
    _near_miss("subnormal", "atoms of float32", "sample.finite", small_gamma),
    _near_miss("one_point", "always the same", "sample.varies_with_seed", constant),
    _near_miss("rare_coin", "mostly the same", "sample.varies_with_seed", rare_coin),
    _near_miss("rare_coin", "mostly the same", "sample.advances_generator", rare_coin),
    _near_miss("rare_coin", "mostly the same", "sample.not_repeated", rare_coin),
    _near_miss("subnormal", "42 % on one number", "sample.not_repeated", small_gamma),
    _near_miss("shuffled", "in another order", "sample.not_repeated", normal, _shuffled),
    _near_miss("shuffled", "in another order", "sample.uncorrelated_along_batch", wide, _shuffled),
    _near_miss("two_calls", "made of two calls", "sample.independent_across_calls", normal, _two_calls),
    _near_miss("two_calls", "made of two calls", "sample.independent_within_call", wide, _two_calls),
    _near_miss("far_normal", "1e6 +- 1 in float32", "sample.resolution", far_normal),
    _near_miss("uniform", "multiples of 2^-24", "sample.resolution", uniform),
    _near_miss("one_end", "an atom at one end", "sample.resolution", uniform, _one_end),
    _near_miss("subnormal", "42 % on one number", "sample.resolution", small_gamma),
)
