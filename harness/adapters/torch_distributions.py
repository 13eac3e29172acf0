"""`torch.distributions`: batch shapes become part of the event, and the global generator is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints, kl_divergence

from harness.adapters.casting import moved
from harness.contract import capabilities_of
from harness.model import Model


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    """A distribution with batch shape b and event shape e is one model with events of shape b + e."""
    if not isinstance(thing, Distribution):
        return None
    if dtype is not None or device.type != "cpu":
        thing = moved(thing, device, dtype)
    own = {key: method for key, method in capabilities_of(thing).items() if not hasattr(Distribution, key)}
    return Model(
        name=name,
        methods={**_methods(thing), **own},
        target=thing,
        support=_support(thing),
        event_shape=tuple(thing.batch_shape + thing.event_shape),
        device=device,
        cast=lambda other: adapt(thing, name, device, other),  # type: ignore[arg-type,return-value]
        sibling=_sibling(thing, name, device),
    )


def _methods(law: Distribution) -> dict[str, Callable[..., Any]]:
    joint = Independent(law, len(law.batch_shape)) if law.batch_shape else law
    methods: dict[str, Callable[..., Any]] = {"sample": _sample(law)}
    scalar = law.batch_shape.numel() * law.event_shape.numel() == 1

    def log_prob(x: Tensor) -> Tensor:
        # Outside the support torch raises (or extrapolates, with validation off): the contract says -inf.
        inside = _inside(law, x)
        if bool(inside.all()):
            return joint.log_prob(x)
        safe = torch.where(_spread(inside, x), x, _some_draw(law, x))
        return joint.log_prob(safe).masked_fill(~inside, -torch.inf)

    if _overrides(law, "log_prob"):
        methods["log_prob"] = log_prob
    for name in ("mean", "variance"):
        if _answers(lambda name=name: getattr(law, name)):
            methods[name] = lambda name=name: getattr(law, name)
    if _answers(lambda: law.covariance_matrix) and not law.batch_shape:  # type: ignore[attr-defined]
        methods["covariance"] = lambda: law.covariance_matrix  # type: ignore[attr-defined]
    if _answers(law.entropy):
        methods["entropy"] = lambda: law.entropy().sum()
    if scalar and _overrides(law, "cdf"):
        methods["cdf"] = lambda x: law.cdf(x).reshape(len(x))
    if scalar and _overrides(law, "icdf"):
        shape = law.batch_shape + law.event_shape
        methods["icdf"] = lambda u: law.icdf(u.reshape(-1, *(1,) * len(shape)))
    if _answers(lambda: kl_divergence(law, law)):
        methods["kl"] = lambda other: kl_divergence(law, other.target if isinstance(other, Model) else other).sum()
    return methods


def _sample(law: Distribution) -> Callable[..., Tensor]:
    def sample(n: int, *, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        devices = [generator.device] if generator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            return law.sample((n,))

    return sample


def _inside(law: Distribution, x: Tensor) -> Tensor:
    """(n,): is the whole event in the support?"""
    return law.support.check(x).reshape(len(x), -1).all(1)  # type: ignore[union-attr]


def _spread(rows: Tensor, x: Tensor) -> Tensor:
    return rows.reshape(-1, *(1,) * (x.ndim - 1))


def _some_draw(law: Distribution, x: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(0)
        return law.sample((1,)).to(x)


def _support(law: Distribution) -> constraints.Constraint | None:
    try:
        return law.support
    except NotImplementedError:
        return None


def _overrides(law: Distribution, name: str) -> bool:
    """Does any class below Distribution define it? (A call would need an argument.)"""
    return getattr(type(law), name, None) is not getattr(Distribution, name, None)


def _answers(question: Callable[[], Any]) -> bool:
    """Is it implemented? Any other trouble is the checks' business."""
    try:
        question()
    except (NotImplementedError, AttributeError):
        return False
    except Exception:
        return True
    return True


def _sibling(law: Distribution, name: str, device: torch.device) -> Callable[[], Model] | None:
    """The same family at other parameters: each one moved a little inside its constraint."""
    expressible = {
        key: value
        for key, constraint in law.arg_constraints.items()  # type: ignore[union-attr]
        if isinstance(value := law.__dict__.get(key), Tensor) and value.is_floating_point() and not constraint.is_discrete
    }
    if not expressible:
        return None

    def build() -> Model:
        other = {}
        for key, value in expressible.items():
            transform = torch.distributions.transform_to(law.arg_constraints[key])  # type: ignore[index]
            free = transform.inv(value)
            other[key] = transform(free + 0.3 * torch.cos(torch.arange(free.numel()).to(free)).reshape(free.shape))
        fixed = {
            key: value
            for key in law.arg_constraints  # type: ignore[union-attr]
            if key not in expressible and (value := law.__dict__.get(key)) is not None
        }
        model = adapt(type(law)(**other, **fixed), f"{name} sibling", device, None)
        assert model is not None
        return model

    return build
