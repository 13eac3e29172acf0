"""Models whose calls misbehave: wrong shapes, batches that matter, inputs and parameters that change, wrong slopes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.mutant import Change, Mutant, NearMiss
from harness.mutants.planted import Lattice, Normal

Methods = dict[str, Callable[..., Tensor]]
Density = Callable[[Model, Tensor], Tensor]

normal, coin = partial(Normal, 3, 1.0), partial(Lattice, 2)


def on_density(edit: Density) -> Change:
    """The change that replaces log_prob(x) by edit(model, x)."""
    return lambda model: {"log_prob": lambda x: edit(model, x)}


def on_sampler(edit: Callable[[Model, int, torch.Generator], Tensor]) -> Change:
    """The change that replaces sample(n) by edit(model, n, generator)."""
    return lambda model: {"sample": lambda n, *, generator: edit(model, n, generator)}


def _column(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x)[:, None]


def _flat_draws(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return model.sample(n, generator=generator).flatten()


def _squeezed_draws(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return model.sample(n, generator=generator).squeeze(0)


def _squeezed(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x).squeeze()


def _wide_draws(model: Model, n: int, generator: torch.Generator) -> Tensor:
    return model.sample(n, generator=generator)[:, None].squeeze(1)


def _noisy(model: Model) -> Methods:
    source = torch.Generator().manual_seed(0)
    return {"log_prob": lambda x: model.log_prob(x) + 1e-3 * torch.rand(len(x), generator=source)}


def _batch_centred(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x) - 1e-2 * (x[:, 0] - x[:, 0].to(torch.float64).mean()).tanh()


def _sum_of_batch(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x).mean() + 0 * model.log_prob(x)


def _other_order(model: Model, x: Tensor) -> Tensor:
    """The same sum, in blocks that depend on the number of rows."""
    log_p = model.log_prob(x)
    shift = float(len(x)) * torch.finfo(log_p.dtype).eps
    return (log_p * (1 + shift)) * (1 - shift)


def _memory_order(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(torch.as_strided(x, x.shape, (x[0].numel(), 1)))


def _copied_first(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x.contiguous().clone())


def _float64_shifted(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x) + 0.1 * (x.dtype == torch.float64)


def _float32_only(model: Model, x: Tensor) -> Tensor:
    if x.dtype != torch.float32:
        raise RuntimeError("mat1 and mat2 must have the same dtype")
    return model.log_prob(x)


def _in_place(model: Model, x: Tensor) -> Tensor:
    log_p = model.log_prob(x)
    x.mul_(2)
    return log_p


def _in_place_on_copy(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x.clone().mul_(2).div_(2))


def _remembers_draws(model: Model, n: int, generator: torch.Generator) -> Tensor:
    x = model.sample(n, generator=generator)
    model.target.location.add_(1e-3)  # type: ignore[attr-defined]
    return x


def _running_mean(model: Model, x: Tensor) -> Tensor:
    model.target.location.mul_(0.9)  # type: ignore[attr-defined]
    return model.log_prob(x)


def _keeps_last_batch(model: Model, x: Tensor) -> Tensor:
    model.target.last = x  # type: ignore[attr-defined]
    return model.log_prob(x)


def _nan_slope(model: Model, x: Tensor) -> Tensor:
    first = x[:, 0]
    return model.log_prob(x) + 0 * torch.where(first > 0, first.sqrt(), 0.0)


def _safe_slope(model: Model, x: Tensor) -> Tensor:
    first = x[:, 0]
    return model.log_prob(x) + 0 * torch.where(first > 0, torch.where(first > 0, first, 1.0).sqrt(), 0.0)


def _detached(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(torch.cat([x[:, :1].detach(), x[:, 1:]], 1))


class Refusing:
    """An exponential law that raises outside its support, which it does not declare: torch's own, validated."""

    rate = torch.tensor(1.3, dtype=torch.float64)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return -torch.log1p(-torch.rand(n, 1, generator=generator)) / self.rate.float()

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.distributions.Exponential(self.rate, validate_args=True).log_prob(x[:, 0])


def _steeper(model: Model, x: Tensor) -> Tensor:
    """The same value, with half a unit too much slope."""
    return model.log_prob(x) + (x - x.detach()).sum(1) / 2


def _kinked(model: Model, x: Tensor) -> Tensor:
    return model.log_prob(x) - 0.1 * x[:, 0].abs()


def _kinked_often(model: Model, x: Tensor) -> Tensor:
    """A thousand kinks at random places, as a network of rectified units has them."""
    source = torch.Generator().manual_seed(0)
    places, bends = 6 * torch.rand(2, 1000, generator=source, dtype=torch.float64) - 3
    return model.log_prob(x) + 0.02 * (bends * (x[:, :1].double() - places).relu()).sum(1).to(x)


def _none_refused(model: Model, x: Tensor) -> Tensor:
    if not len(x):
        raise ValueError("no events")
    return model.log_prob(x)


def _none_refused_by_an_operator(model: Model, x: Tensor) -> Tensor:
    """Its rows are counted by a view, which torch cannot make of none."""
    return model.log_prob(x.view(len(x), -1))


def _none_refused_by_torch(model: Model, x: Tensor) -> Tensor:
    """The same law, as one of torch's that refuses an empty batch."""
    return torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3), validate_args=True).log_prob(x)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("draws_flattened", "draws have shape [n d]", "sample.well_formed", normal, on_sampler(_flat_draws)),
    Mutant("log_prob_column", "log_prob has shape [n, 1]", "log_prob.well_formed", normal, on_density(_column)),
    Mutant(
        "one_draw_squeezed", "sample(1) lost its axis", "sample.any_batch_size", normal, on_sampler(_squeezed_draws)
    ),
    Mutant(
        "one_row_squeezed", "log_prob of one row is a scalar", "log_prob.any_batch_size", normal, on_density(_squeezed)
    ),
    Mutant("none_refused", "raises for no rows", "log_prob.any_batch_size", normal, on_density(_none_refused)),
    Mutant("log_prob_noisy", "noise of 0.001 nat", "log_prob.deterministic", normal, _noisy),
    Mutant(
        "batch_statistics", "rows centred by the batch", "log_prob.batch_invariant", normal, on_density(_batch_centred)
    ),
    Mutant("batch_statistics_discrete", "mean of batch", "log_prob.batch_invariant", coin, on_density(_sum_of_batch)),
    Mutant(
        "memory_order", "strides of the input ignored", "log_prob.layout_invariant", normal, on_density(_memory_order)
    ),
    Mutant(
        "float64_differs", "0.1 nat more in float64", "log_prob.dtype_invariant", normal, on_density(_float64_shifted)
    ),
    Mutant("input_doubled", "input changed in place", "log_prob.leaves_input_unchanged", normal, on_density(_in_place)),
    Mutant(
        "sample_moves_parameters",
        "drawing shifts it",
        "sample.leaves_model_unchanged",
        normal,
        on_sampler(_remembers_draws),
    ),
    Mutant(
        "running_statistics", "asking changes it", "log_prob.leaves_model_unchanged", normal, on_density(_running_mean)
    ),
    Mutant("slope_nan", "where() with a NaN slope", "log_prob.gradient_finite", normal, on_density(_nan_slope)),
    Mutant("slope_detached", "one coordinate detached", "log_prob.gradient_right", normal, on_density(_detached)),
    Mutant("slope_refusing", "a wrong backward pass", "log_prob.gradient_right", Refusing, on_density(_steeper)),
)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("draws_viewed", "draws reshaped there and back", "sample.well_formed", normal, on_sampler(_wide_draws)),
    NearMiss("draws_viewed", "draws reshaped there and back", "sample.any_batch_size", normal, on_sampler(_wide_draws)),
    NearMiss("density_copied", "works on a copy", "log_prob.well_formed", normal, on_density(_copied_first)),
    NearMiss("density_copied", "works on a copy", "log_prob.any_batch_size", normal, on_density(_copied_first)),
    NearMiss(
        "none_refused_by_an_operator",
        "counts by a view",
        "log_prob.any_batch_size",
        normal,
        on_density(_none_refused_by_an_operator),
    ),
    NearMiss(
        "none_refused_by_torch",
        "is MultivariateNormal",
        "log_prob.any_batch_size",
        normal,
        on_density(_none_refused_by_torch),
    ),
    NearMiss("density_copied", "works on a copy", "log_prob.layout_invariant", normal, on_density(_copied_first)),
    NearMiss("other_order", "rounding depends on n", "log_prob.deterministic", normal, on_density(_other_order)),
    NearMiss("other_order", "rounding depends on n", "log_prob.batch_invariant", normal, on_density(_other_order)),
    NearMiss("float32_only", "refuses float64", "log_prob.dtype_invariant", normal, on_density(_float32_only)),
    NearMiss(
        "works_in_place", "on its own copy", "log_prob.leaves_input_unchanged", normal, on_density(_in_place_on_copy)
    ),
    NearMiss(
        "draws_viewed", "reshaped there and back", "sample.leaves_model_unchanged", normal, on_sampler(_wide_draws)
    ),
    NearMiss("keeps_batch", "new attribute", "log_prob.leaves_model_unchanged", normal, on_density(_keeps_last_batch)),
    NearMiss("slope_guarded", "the double where()", "log_prob.gradient_finite", normal, on_density(_safe_slope)),
    NearMiss("kink", "a kink at 0", "log_prob.gradient_right", normal, on_density(_kinked)),
    NearMiss("kinks", "a thousand kinks", "log_prob.gradient_right", normal, on_density(_kinked_often)),
    NearMiss("refusing", "raises off its support", "log_prob.gradient_right", Refusing, on_density(_copied_first)),
)
