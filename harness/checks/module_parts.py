"""The torch modules in a model: which there are, copies of them, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.adapters import adapt
from harness.adapters.casting import found_in, moved
from harness.checks.law import NotApplicable
from harness.checks.rounding import difference
from harness.errors import out_of_memory
from harness.model import Model, NotAModel
from harness.subject import Subject

ROWS = 16
"""Events at which answers are compared."""

OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes that torch gives a module, parameters, buffers, submodules and hooks among them."""

Answers = dict[str, Tensor]


@dataclass(frozen=True)
class Copy:
    """A copy of the object behind the model, adapted as that one was, and the modules in it."""

    model: Model
    parts: tuple[nn.Module, ...]

    def train(self, mode: bool) -> None:
        """By the modules' own train() and eval()."""
        for part in self.parts:
            part.train() if mode else part.eval()

    def held(self) -> list[nn.Module]:
        """Every module, those that are registered nowhere too."""
        return list(dict.fromkeys(module for part in self.parts for module in found_in(part, nn.Module)))


def copied(subject: Subject) -> Copy:
    """Raises NotApplicable where the model holds no module, or cannot be copied."""
    target, model = subject.model.target, subject.model
    if not parts_of(target):
        raise NotApplicable("the model neither is nor holds a torch.nn.Module")
    try:
        other = moved(target, model.device, None)
        return Copy(adapt(other, model.name, model.device), parts_of(other))
    except NotAModel as refusal:
        raise NotApplicable(f"no copy can be examined: {refusal}") from None


def parts_of(thing: object) -> tuple[nn.Module, ...]:
    """The outermost modules: those that no other module holds, be it registered there or not."""
    found = list(dict.fromkeys(found_in(thing, nn.Module)))
    inner = {id(child) for module in found for child in module.modules() if child is not module}
    roots = [module for module in found if id(module) not in inner]
    hidden = {id(other) for root in roots for other in found_in(root, nn.Module) if other is not root}
    return tuple(root for root in roots if id(root) not in hidden)


def loose_tensors(part: nn.Module) -> dict[str, Tensor]:
    """Floating tensors in plain attributes of a module and its submodules, by name: neither parameters nor buffers."""
    registered = {id(tensor) for tensor in (*part.parameters(), *part.buffers())}
    found: dict[str, Tensor] = {}
    for path, module in part.named_modules():
        for name in set(vars(module)) - OF_EVERY_MODULE:
            for i, tensor in enumerate(_tensors_outside(vars(module)[name], part)):
                if id(tensor) not in registered and tensor.is_floating_point():
                    label = f"{path}.{name}" if path else name
                    found[f"{label}[{i}]" if i else label] = tensor
    return dict(sorted(found.items()))


def _tensors_outside(value: Any, part: nn.Module) -> Iterator[Tensor]:
    """Tensors that the attribute holds; none by way of a module that is registered, which answers for itself."""
    registered = set(part.modules())
    inner = [module for module in found_in(value, nn.Module) if module in registered]
    theirs = {id(tensor) for module in inner for tensor in found_in(module, Tensor)}
    return (tensor for tensor in found_in(value, Tensor) if id(tensor) not in theirs)


def answers(subject: Subject, model: Model) -> Answers:
    """What the model says of the subject's pilot, and what it draws from one stream. Raises NotApplicable for nothing.

    Every call is made without a graph, and draws start from the same state each time.
    """
    x = subject.pilot[:ROWS]
    with torch.no_grad():
        said: Answers = {}
        if model.can("log_prob"):
            said["log_prob"] = model.log_prob(x).detach().clone()
        if model.can("sample"):
            said["sample"] = model.sample(ROWS, generator=subject.generator("module")).detach().clone()
        if subject.only_given and model.can("sample_given"):
            said["sample"] = model.sample_given(len(x), given=x, generator=subject.generator("module")).detach().clone()
        if model.can("elbo"):
            said["elbo"] = model.elbo(x, generator=subject.generator("module", "elbo")).detach().clone()
    if not said:
        raise NotApplicable("the model has neither log_prob nor sample nor elbo")
    return said


def apart(first: Answers, second: Answers) -> tuple[float, str]:
    """The largest difference of two answers, infinite for another shape, and the name of the one that has it."""
    gaps = {name: _gap(first[name], second[name]) for name in first}
    worst = max(gaps, key=lambda name: gaps[name])
    return gaps[worst], worst


def _gap(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float(difference(a, b).max()) if a.numel() else 0.0


def attempted(work: Callable[[], Answers]) -> Answers | None:
    """The answers; None where the model raises, as it may in a state that nobody asked it to be in."""
    try:
        return work()
    except NotApplicable:
        raise
    except Exception as refusal:
        if out_of_memory(refusal):
            raise
        return None
