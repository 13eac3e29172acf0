"""Laws of the callable surface: shapes, dtypes, devices, batches, inputs left alone."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.checks.law import Check, exact
from harness.evidence import Exact
from harness.subject import Subject


def broken(problems: list[str], n: int) -> Exact:
    """Evidence of a law that is a list of conditions: the number of those that do not hold."""
    return Exact(error=float(len(problems)), allowed=0.0, n=n, where="; ".join(problems), unit="violations")


@exact("sample.well_formed", needs=("sample",))
def sample_is_well_formed(subject: Subject) -> Exact:
    """sample(n, generator=g) is a tensor [n, *event] on the model's device, of a real dtype.

    Every later check relies on it.
    """
    problems = []
    x = subject.sample(7, "surface")
    if not isinstance(x, Tensor):
        return broken([f"sample(7) returned a {type(x).__name__}, not a torch.Tensor"], 7)
    if x.ndim == 0 or x.shape[0] != 7:
        problems.append(f"sample(7) has shape {tuple(x.shape)}, not (7, *event)")
    declared = subject.model.event_shape
    if declared is not None and x.ndim and tuple(x.shape[1:]) != declared:
        problems.append(f"events have shape {tuple(x.shape[1:])}, declared {declared}")
    if x.is_complex():
        problems.append(f"dtype {x.dtype} is not real")
    if x.device.type != subject.model.device.type:
        problems.append(f"draws are on {x.device}, the generator on {subject.model.device}")
    return broken(problems, 7)


@exact("log_prob.well_formed", needs=("log_prob",))
def log_prob_is_well_formed(subject: Subject) -> Exact:
    """log_prob(x) is a real floating tensor [n] on the device of x, and is not NaN at the model's own draws.

    Every later check relies on it.
    """
    x = subject.pilot[:7]
    value = subject.model.log_prob(x)
    if not isinstance(value, Tensor):
        return broken([f"log_prob returned a {type(value).__name__}, not a torch.Tensor"], 7)
    problems = []
    if tuple(value.shape) != (len(x),):
        problems.append(f"log_prob of events {tuple(x.shape)} has shape {tuple(value.shape)}, not ({len(x)},)")
    if not value.is_floating_point():
        problems.append(f"log_prob has dtype {value.dtype}, not a real floating one")
    elif bool(value.isnan().any()):
        problems.append("log_prob is NaN at a draw of the model")
    if value.device.type != x.device.type:
        problems.append(f"log_prob is on {value.device}, its input on {x.device}")
    return broken(problems, len(x))


CHECKS: tuple[Check, ...] = (sample_is_well_formed, log_prob_is_well_formed)
