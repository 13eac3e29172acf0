"""Models that are torch modules, or hold some: modes, graphs, saving and loading, devices and dtypes.

A model is examined as it is handed over, and the examination leaves its mode as it was: nothing here touches the model
itself but through its own methods; modes, devices and states are those of copies.

What these laws cannot see: whether a tensor that is neither parameter nor buffer, and carries no gradient, is a
constant or was learnt. Only whoever builds the module knows; where answers depend on one, saving is undecided. A Python
number that the constructor worked out from parameters counts as a constant, whatever is loaded later. Buffers that are
declared `persistent=False` are taken for what the constructor makes anew.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from harness.adapters.casting import moved
from harness.checks.elsewhere import LeftBehindError, asked_there, moved_away
from harness.checks.law import Check, NotApplicable, exact
from harness.checks.module_parts import (
    ROWS,
    Answers,
    Copy,
    answers,
    apart,
    attempted,
    copied,
    loose_tensors,
    parts_of,
)
from harness.checks.rounding import compared, difference, rounding_bound
from harness.checks.surface import broken
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.subject import Subject

GATES = ("sample.well_formed", "log_prob.well_formed")
REPEATABLE = (
    *GATES,
    "log_prob.deterministic",
    "log_prob.leaves_model_unchanged",
    "log_prob.batch_invariant",
    "sample.repeats_under_generator",
    "sample.leaves_global_generator_alone",
    "sample.leaves_model_unchanged",
)
"""Two answers can be compared where each of them can be had again."""

IN_EVALUATION = "module.in_evaluation_mode"
MODULES = "https://docs.pytorch.org/docs/stable/notes/modules.html"
SAVING = "https://docs.pytorch.org/docs/stable/notes/serialization.html"
CUDA = "https://docs.pytorch.org/docs/stable/notes/cuda.html"

NUDGE = 2.0**-7
"""By how much of their size parameters are changed: enough to move what depends on them, and no model far away."""


def _evaluated(subject: Subject) -> tuple[Copy, Answers]:
    """A copy after eval(), every module that it holds in evaluation mode, and what it answers."""
    copy = copied(subject)
    copy.train(False)
    for module in copy.held():
        module.training = False
    return copy, answers(subject, copy.model)


def _same(first: Answers, second: Answers, where: str) -> Exact:
    """Evidence that two answers agree in every bit."""
    gap, name = apart(first, second)
    return Exact(gap, 0.0, ROWS, f"{name}, {where}" if gap else "", "nat")


@exact("module.calls_leave_mode", needs=(), blocked_by=GATES, source=MODULES)
def calls_leave_mode(subject: Subject) -> Exact:
    """log_prob and sample leave every submodule in the mode it was in, and every parameter as free as it was.

    A sample() that calls self.eval() and does not come back switches off dropout and batch statistics for the rest of
    the training. Called on copies in training mode and in evaluation mode.
    """
    problems = []
    for mode in (True, False):
        copy = copied(subject)
        copy.train(mode)
        before = _switches(copy)
        if mode:
            attempted(lambda: answers(subject, copy.model))  # noqa: B023  # it may refuse; the mode is what counts
        else:
            answers(subject, copy.model)
        after = _switches(copy)
        switched = [name for name in before if after.get(name) != before[name]]
        problems += [f"{name} changed in {'training' if mode else 'evaluation'} mode" for name in switched]
    return broken(problems, ROWS)


def _switches(copy: Copy) -> dict[str, bool]:
    found = {f"training of {_named(module, i)}": module.training for i, module in enumerate(copy.held())}
    for part in copy.parts:
        found |= {f"requires_grad of {name}": p.requires_grad for name, p in part.named_parameters()}
    return found


def _named(module: nn.Module, i: int) -> str:
    return f"module {i} ({type(module).__name__})"


@exact(IN_EVALUATION, needs=(), blocked_by=REPEATABLE, source=MODULES)
def in_evaluation_mode(subject: Subject) -> Exact:
    """What the model answers as it is handed over is what it answers in evaluation mode, bit by bit.

    The examination takes a model as it is, and does not call eval() for it: what a user would get is what is judged.
    A model in training mode passes if mode makes no difference. A submodule in a plain list is not reached by eval();
    the copy that is compared with has all of them in evaluation mode.
    """
    given, (_, wanted) = copied(subject), _evaluated(subject)
    return _same(wanted, answers(subject, given.model), "as handed over and after eval(): call eval() first")


@exact("module.eval_undoes_train", needs=(), blocked_by=(*REPEATABLE, IN_EVALUATION), source=MODULES)
def eval_undoes_train(subject: Subject) -> Exact:
    """After train() and then eval() the model answers what it answered in evaluation mode, up to rounding.

    An override of train() that forgets a part, or does not come back, leaves a validation loss between two epochs of
    another model. Weights that are merged for evaluation and taken apart for training may round.
    """
    copy, wanted = _evaluated(subject)
    copy.train(True)
    copy.train(False)
    found = answers(subject, copy.model)
    if "log_prob" not in wanted:
        return _same(wanted, found, "before train() and after train(), eval()")
    bounds = rounding_bound(subject, subject.pilot[:ROWS], wanted["log_prob"])
    return compared(difference(wanted["log_prob"], found["log_prob"]), bounds, subject.effort.tolerance)


@exact(
    "module.sample_without_graph", needs=("sample",), source="https://docs.pytorch.org/docs/stable/distributions.html"
)
def sample_without_graph(subject: Subject) -> Exact:
    """sample() returns draws that require no gradient, where gradients are on.

    Draws that carry a graph keep every step of the sampler in memory, and let a loss that only looks at them train it.
    A pathwise derivative is what rsample() is for, which is not looked at.
    """
    copy = copied(subject)
    if not any(p.requires_grad for part in copy.parts for p in part.parameters()):
        raise NotApplicable("no parameter requires a gradient")
    with torch.enable_grad():
        x = subject.model.sample(ROWS, generator=subject.generator("module"))
    problems = ["draws carry a graph: sample under torch.no_grad(), or detach them"] if x.requires_grad else []
    return broken(problems, ROWS)


@exact("module.saved_and_loaded", needs=(), blocked_by=(*REPEATABLE, IN_EVALUATION), source=SAVING)
def saved_and_loaded(subject: Subject) -> Exact:
    """state_dict(), saved, loaded with weights_only=True into a copy of which the state was lost, answers bit for bit.

    The copy has NaN in its parameters and persistent buffers before, 0 where they are integers. Nothing of a model is
    to be kept outside of its state_dict: no Parameter, and no tensor that is trained, in a plain list or attribute; no
    result that was worked out from parameters and is not worked out again when others are loaded. Where answers depend
    on a plain tensor without a gradient, it may be a constant: undecided; register_buffer() settles it.
    """
    copy, wanted = _evaluated(subject)
    outside = _outside(subject, wanted)
    if any(outside.values()):
        what = "is trained or made of what is, and neither saved nor restored by loading"
        return broken([f"{name} {what}" for name in outside if outside[name]], ROWS)
    states = [_through_a_file(part) for part in copy.parts]
    for part in copy.parts:
        _lose(part)
    _load(copy, states)
    seen = _same(wanted, answers(subject, copy.model), "before saving and after loading")
    seen = _stale(subject) if seen.error == 0 else seen
    if seen.error == 0 and outside:
        names = ", ".join(list(outside)[:4])
        return replace(seen, uncertainty=1.0, where=f"{names}: constant or state? register_buffer() says", unit="")
    return seen


def _outside(subject: Subject, wanted: Answers) -> dict[str, bool]:
    """Loose tensors that answers depend on even after loading, and if they are trained, or made of what is: they are a
    Parameter, or require a gradient. A result that is kept, and dropped by loading, is none of them."""
    found = {}
    for i, part in enumerate(parts_of(subject.model.target)):
        for name, original in loose_tensors(part).items():
            copy, _ = _evaluated(subject)
            loose_tensors(copy.parts[i])[name].detach().fill_(math.nan)
            _load(copy, [{**part.state_dict()} for part in copy.parts])
            said = attempted(lambda: answers(subject, copy.model))  # noqa: B023
            if said is None or apart(wanted, said)[0] > 0:
                found[name] = isinstance(original, nn.Parameter) or original.requires_grad
    return found


def _through_a_file(part: nn.Module) -> dict[str, Tensor]:
    file = io.BytesIO()
    torch.save(part.state_dict(), file)
    file.seek(0)
    loaded: dict[str, Tensor] = torch.load(file, weights_only=True)
    return loaded


def _load(copy: Copy, states: list[dict[str, Tensor]]) -> None:
    for part, state in zip(copy.parts, states, strict=True):
        part.load_state_dict(state)


@torch.no_grad()
def _lose(part: nn.Module) -> None:
    """NaN in floating parameters and persistent buffers, 0 in others."""
    for module in part.modules():
        kept = [b for name, b in module._buffers.items() if name not in module._non_persistent_buffers_set]
        for tensor in chain(module._parameters.values(), kept):
            if tensor is not None:
                tensor.fill_(math.nan if tensor.is_floating_point() else 0)


def _stale(subject: Subject) -> Exact:
    """Does the copy answer alike if it was asked before another state was loaded, and if train() came in between?

    Results that are kept in evaluation mode are dropped by train(), as a rule; loading must drop them too.
    """
    (asked, _), (fresh, _), other = _evaluated(subject), _evaluated(subject), copied(subject)
    states = [_nudged(part, subject.seed_for("nudge")) for part in other.parts]
    fresh.train(True)
    for copy in (fresh, asked):
        _load(copy, states)
    fresh.train(False)
    said = attempted(lambda: answers(subject, asked.model)), attempted(lambda: answers(subject, fresh.model))
    if said[0] is None or said[1] is None:  # the state is of no model
        return Exact(0.0, 0.0, ROWS, "", "nat")
    return _same(said[1], said[0], "loaded into a model that had been asked before: a result was kept")


@torch.no_grad()
def _nudged(part: nn.Module, seed: int) -> dict[str, Tensor]:
    """Its state with each number of the parameters a little larger or smaller, shared with no copy.

    A parameter of two names is moved once: the state says the same under both.
    """
    source = torch.Generator().manual_seed(seed)
    for p in part.parameters():
        p.mul_((1 + NUDGE * (2 * torch.rand(p.shape, generator=source) - 1)).to(p))
    return _through_a_file(part)


# Devices and dtypes


@exact("module.moves_to_device", needs=("log_prob",), blocked_by=(*REPEATABLE,), source=CUDA)
def moves_to_device(subject: Subject) -> Exact:
    """After to(device), log_prob of events on that device is what it was, up to rounding: no tensor is left behind.

    On CUDA where there is one, without TF32, and on the CPU for a model on CUDA. Elsewhere on a device that keeps its
    numbers on the CPU and refuses to mix them with others: `checks.elsewhere`. Tensors in plain attributes stay where
    they are when a module is moved; those without axes may be met from everywhere.
    """
    target, method = subject.model.target, subject.model.methods["log_prob"]
    if getattr(method, "__self__", None) is not target or not isinstance(target, nn.Module):
        raise NotApplicable("log_prob is not a method of a torch.nn.Module")
    x = subject.pilot[:ROWS]
    with torch.no_grad():
        wanted = subject.model.log_prob(x)
    try:
        found = _moved_and_asked(target, method.__name__, x)
    except LeftBehindError as mixed:
        return broken([str(mixed)], len(x))
    except RuntimeError as mixed:
        if out_of_memory(mixed):
            raise
        if "same device" in str(mixed):
            return broken([" ".join(str(mixed).split())[:160]], len(x))
        raise NotApplicable(f"it cannot be followed to another device: {' '.join(str(mixed).split())[:160]}") from None
    if found.shape != wanted.shape:
        return broken([f"log_prob has shape {tuple(found.shape)} there, {tuple(wanted.shape)} here"], len(x))
    bounds = rounding_bound(subject, x, wanted)
    return compared(difference(wanted, found.to(wanted.device)), bounds, subject.effort.tolerance)


def _moved_and_asked(module: nn.Module, method: str, x: Tensor) -> Tensor:
    """log_prob of the module on the other device."""
    if not torch.cuda.is_available():
        away = moved_away(module, chain(module.parameters(), module.buffers()))
        return asked_there(getattr(away, method), x)
    there = torch.device("cpu" if x.device.type == "cuda" else "cuda")
    copy = moved(module, x.device, None).to(there)
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        value = getattr(copy, method)(x.to(there))
    if value.device.type != there.type:
        raise LeftBehindError(f"the answer is on {value.device}")
    return value


@exact("module.same_in_float64", needs=("log_prob",), blocked_by=(*REPEATABLE,))
def same_in_float64(subject: Subject) -> Exact:
    """log_prob of the module after to(float64), at the same events, is that in float32, beyond the rounding of float32.

    Parameters and events in float32 are numbers of float64 too, so that the arithmetic alone differs. What rounding
    explains is measured by moving events by a unit in the last place, and at least the effort's tolerance is allowed.
    """
    target, x = subject.model.target, subject.pilot[:ROWS]
    if not isinstance(target, nn.Module) or not any(p.dtype == torch.float32 for p in target.parameters()):
        raise NotApplicable("the model is no torch.nn.Module with parameters in float32")
    copy = copied(subject)
    (part,) = copy.parts
    part.to(torch.float64)
    with torch.no_grad():
        narrow = subject.model.log_prob(x)
        try:
            wide = copy.model.log_prob(x.double() if x.is_floating_point() else x)
        except (RuntimeError, TypeError, ValueError) as refusal:
            if out_of_memory(refusal):
                raise
            raise NotApplicable(f"it answers in one dtype only: {' '.join(str(refusal).split())[:120]}") from None
    bounds = rounding_bound(subject, x, narrow, across_dtypes=True).clamp(min=subject.effort.tolerance)
    return compared(difference(narrow, wide), bounds, subject.effort.tolerance)


CHECKS: tuple[Check, ...] = (
    calls_leave_mode,
    in_evaluation_mode,
    eval_undoes_train,
    sample_without_graph,
    saved_and_loaded,
    moves_to_device,
    same_in_float64,
)
