"""`torch.distributions`: batch shapes become part of the event, and the global generator is left as it was.

A distribution with batch shape b and event shape e is one model with events of shape b + e, whose coordinates along b
are independent: log-densities, entropies and divergences are summed over b. Sums are formed of results of the right
shape only; anything else that a distribution returns is passed on as it is, for a check to give the verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    TransformedDistribution,
    constraints,
    kl_divergence,
)
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from harness.adapters.casting import must_move, tensors_in
from harness.adapters.foreign import Methods, extras, linked, misfits, shaped
from harness.adapters.global_rng import drawing_from
from harness.adapters.torch_rebuild import recast, sibling_of
from harness.errors import out_of_memory
from harness.model import Model

CONVENTIONS = ("log_prob", "mean", "variance", "entropy", "cdf", "icdf")
"""Names of the contract that torch uses as well, and whose overrides follow torch."""


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """The model of a distribution; None for anything else."""
    if not isinstance(thing, Distribution):
        return None
    law = recast(thing, device, dtype) if must_move(thing, device, dtype) else thing
    added = extras(law, "torch", CONVENTIONS)
    no_density = "" if "log_prob" in added else _no_density(law)
    methods = {**_methods(law, with_density=not no_density), **added}

    def model_of(other: object, suffix: str, dtype: torch.dtype | None = None) -> Any:
        return adapt(other, name + suffix, device, dtype) or other

    other = sibling_of(law) if "kl" in methods else None
    return Model(
        name=name,
        methods=linked(law, methods, lambda fitted: model_of(fitted, " fitted")),
        target=law,
        support=_support(law),
        event_shape=tuple(law.batch_shape + law.event_shape),
        device=device,
        cast=lambda wanted: model_of(law, "", wanted),
        sibling=None if other is None else lambda: model_of(other, " sibling"),
        unfit={**({"log_prob": no_density} if no_density else {}), **misfits(law, "torch", methods)},
    )


def _no_density(law: Distribution) -> str:
    """Why `log_prob` of one of torch's own classes is none: empty where it is one, or where somebody overrode it."""
    base = _base(law)
    if isinstance(base, ExpRelaxedCategorical):
        return "its density is with respect to the area of the surface logsumexp(x) = 0, not to volume"
    transformed = isinstance(base, TransformedDistribution) and not _overrides(
        base, "log_prob", TransformedDistribution
    )
    if transformed and not _answers(lambda: base.log_prob(_one_draw(base))):
        return "a transform has no log_abs_det_jacobian"
    return ""


def _methods(law: Distribution, *, with_density: bool) -> Methods:
    methods: Methods = {"sample": _sample(law)}
    batch, event = torch.Size(law.batch_shape), torch.Size(law.event_shape)  # which some subclasses give as tuples
    if with_density and _overrides(law, "log_prob"):
        methods["log_prob"] = _log_prob(law)
    if _answers(lambda: _stated(law, "mean")):
        methods["mean"] = lambda: _stated(law, "mean")
    if _answers(lambda: _stated(law, "variance")):
        methods["variance"] = lambda: _stated(law, "variance")
    if isinstance(_base(law), MultivariateNormal | LowRankMultivariateNormal):
        methods["covariance"] = lambda: _covariance(_base(law))
    if _overrides(law, "entropy") and _answers(law.entropy):
        methods["entropy"] = lambda: _sum(law.entropy(), tuple(batch), len(batch))
    if _answers(lambda: kl_divergence(law, law)):
        methods["kl"] = lambda other: _sum(kl_divergence(law, other), tuple(batch), len(batch))
    if batch.numel() * event.numel() == 1:
        shape = tuple(batch + event)
        if _overrides(law, "cdf") and _answers(lambda: law.cdf(_one_draw(law))):
            methods["cdf"] = lambda x: shaped(law.cdf(x), len(x))
        if _overrides(law, "icdf") and _answers(lambda: law.icdf(torch.full_like(_one_draw(law), 0.5))):
            methods["icdf"] = lambda u: law.icdf(u.reshape(-1, *shape))
    return methods


def _sample(law: Distribution) -> Callable[..., Any]:
    def sample(n: int, *, generator: torch.Generator) -> Any:
        with drawing_from(generator):
            # Several of torch's samplers and densities refuse a batch of none.
            return law.sample((n,)) if n else law.sample((1,))[:0]  # type: ignore[arg-type]

    return sample


def _log_prob(law: Distribution) -> Callable[[Tensor], Any]:
    batch = len(law.batch_shape)

    def summed(x: Tensor) -> Any:
        return _sum(law.log_prob(x), (len(x), *law.batch_shape), batch)

    def log_prob(x: Tensor) -> Any:
        # Outside the support torch raises, or extrapolates with validation off: the contract says -inf.
        if len(x) == 0:
            return log_prob(_one_draw(law))[:0]
        inside = _inside(law, x)
        if inside is None or bool(inside.all()):
            return summed(x)
        # An empty sum of x joins it to the graph of x, so that a gradient outside is 0 rather than an error.
        outside = x.reshape(len(x), -1)[:, :0].sum(1) - torch.inf
        if not bool(inside.any()):
            return outside
        values = summed(x[inside])
        if not isinstance(values, Tensor) or values.shape != (int(inside.sum()),):
            return values
        return outside.to(values).index_put((inside,), values)

    return log_prob


def _inside(law: Any, x: Tensor) -> Tensor | None:
    """(n,): is the whole event in the support? None where no support is declared.

    A transformed distribution declares the range of its last transform, whatever the support of its base is, so that
    the base is asked too: it is the one that raises.
    """
    if isinstance(law, Independent):
        return _inside(law.base_dist, x)
    support = _declared_support(law)
    if support is None or not len(x):
        return None
    inside = _settled(support, x)
    transformed = isinstance(law, TransformedDistribution) and not _overrides(law, "log_prob", TransformedDistribution)
    if not transformed or _everywhere(_declared_support(law.base_dist)):
        return inside
    for transform in reversed(law.transforms):
        inside = inside & _settled(transform.codomain, x)
        x = transform.inv(x)
    base = _inside(law.base_dist, x)
    return inside if base is None else inside & base


def _everywhere(support: constraints.Constraint | None) -> bool:
    """Is every vector in it?"""
    if isinstance(support, type(constraints.real_vector)):
        return _everywhere(support.base_constraint)
    return support is constraints.real


def _settled(support: constraints.Constraint, x: Tensor) -> Tensor:
    """(n,): rows in the support. Asked again of those, as torch's answer for a matrix depends on the batch:
    `positive_definite` looks for symmetry only where one matrix is not symmetric."""
    inside = _whole(support.check(x))
    if bool(inside.all()) or not bool(inside.any()):
        return inside
    return inside.index_put((inside,), _settled(support, x[inside]))


def _whole(flags: Tensor) -> Tensor:
    """(n,) from one flag a coordinate."""
    return flags.reshape(len(flags), -1).all(1)


def _declared_support(law: Distribution) -> constraints.Constraint | None:
    try:
        support = law.support
    except Exception as trouble:
        if out_of_memory(trouble):
            raise
        return None
    return support if isinstance(support, constraints.Constraint) else None


def _support(law: Distribution) -> constraints.Constraint | None:
    """The support of events of shape batch + event: a check answers once for the event, not once a batch."""
    support = _declared_support(law)
    if support is None or not law.batch_shape:
        return support
    return constraints.independent(support, len(law.batch_shape))


def _stated(law: Distribution, name: str) -> Any:
    """A moment: a property of torch's distributions, though a subclass may have made it a method."""
    value = getattr(law, name)
    return value() if callable(value) else value


def _base(law: Distribution) -> Distribution:
    return _base(law.base_dist) if isinstance(law, Independent) else law


def _covariance(law: Any) -> Any:
    """Of the flattened event: a block per element of the batch."""
    covariance = law.covariance_matrix
    if law.batch_shape and isinstance(covariance, Tensor):
        return torch.block_diag(*covariance.reshape(-1, *covariance.shape[-2:]))
    return covariance


def _sum(value: Any, shape: tuple[int, ...], last: int) -> Any:
    """A tensor of that shape summed over its last axes; anything else unchanged."""
    if isinstance(value, Tensor) and tuple(value.shape) == shape and last:
        return value.sum(tuple(range(-last, 0)))
    return value


def _one_draw(law: Distribution) -> Tensor:
    device = next(iter(tensors_in(law)), torch.empty(0)).device
    with drawing_from(torch.Generator(device).manual_seed(0)):
        return law.sample((1,))  # type: ignore[arg-type]


def _overrides(law: Distribution, name: str, base: type = Distribution) -> bool:
    """Does a class below `base`, or the instance, define it?"""
    return name in vars(law) or getattr(type(law), name, None) is not getattr(base, name, None)


def _answers(question: Callable[[], Any]) -> bool:
    """Is it implemented? Any other trouble is the checks' business."""
    try:
        question()
    except NotImplementedError:
        return False
    except Exception as trouble:
        if out_of_memory(trouble):  # which says nothing of what is implemented
            raise
        return True
    return True
