r"""How far two evaluations of the same log-density may lie apart in floating-point arithmetic.

Each operation errs by a relative u = eps / 2 at most, and m of them in a row by about :math:`\lambda \sqrt m\, u` with
probability :math:`1 - 2 m e^{-\lambda^2 / 2}` (Higham & Mary 2019, theorem 2.4, https://doi.org/10.1137/18M1226312).
That covers a sum of terms as large as its result. How much larger the terms are, and how much the formula amplifies
rounding, is measured: by evaluating it in a second dtype, or else by moving the events by one unit in the last place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.checks.precision import working_unit
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.subject import Subject

ELEMENTARY = 32
"""Roundings in the longest chain besides one a coordinate: a few elementary functions of a few operations each."""

LAMBDA = 8.0
"""2 m exp(-lambda^2 / 2) is 1e-9 for m = 50,000."""

SAFETY = 4.0
"""Two evaluations err each, and the measured error is one sample of what another order of operations would make."""


def difference(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| in float64, 0 where both are the same infinity or both NaN, infinite where only one is finite."""
    a, b = a.to(torch.float64), b.to(torch.float64)
    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0.0, (a - b).abs().nan_to_num(torch.inf, torch.inf))


def rounding_bound(subject: Subject, x: Tensor, log_p: Tensor, *, across_dtypes: bool = False) -> Tensor:
    """(n,): how far two evaluations of log_prob at events x (n, *event) may lie apart; log_p (n,) is one of them.

    `across_dtypes` is for evaluations in float32 and float64, of which nothing is learnt by comparing the two.
    """
    dtype = torch.float32 if across_dtypes else working_dtype(x, log_p)
    unit = max(torch.finfo(dtype).eps / 2, working_unit(subject))
    operations = ELEMENTARY + max(1, x[:1].numel())
    value = 1 + log_p.to(torch.float64).abs().nan_to_num(0.0, 0.0, 0.0)
    amplified = amplification(subject, x, across_dtypes) * unit
    return LAMBDA * operations**0.5 * unit * value + SAFETY * amplified


def working_dtype(x: Tensor, log_p: Tensor) -> torch.dtype:
    """The coarser of the dtypes of the events and of the densities."""
    kinds = [t.dtype for t in (x, log_p) if t.is_floating_point()]
    return max(kinds, key=lambda dtype: torch.finfo(dtype).eps)


def amplification(subject: Subject, x: Tensor, across_dtypes: bool) -> float:
    """The largest measured error of log_prob at x (n, *event), in unit roundoffs of the dtype it was measured in."""
    with torch.no_grad():
        log_p = subject.model.log_prob(x)
        other = None if across_dtypes else _in_other_dtype(subject, x, log_p)
        errors = [other] if other is not None else _one_ulp_away(subject, x, log_p)
    return max((float(e[e.isfinite()].max()) if bool(e.isfinite().any()) else 0.0) for e in errors)


def _in_other_dtype(subject: Subject, x: Tensor, log_p: Tensor) -> Tensor | None:
    """|error| of the narrower of two dtypes, in its own unit roundoffs: rounding grows in proportion to that unit."""
    if subject.model.cast is None:
        return None
    dtype = working_dtype(x, log_p)
    try:
        if dtype == torch.float64:
            narrow = x.to(torch.float32) if x.is_floating_point() else x
            wide = subject.model.log_prob(narrow.to(x.dtype))
            error = difference(subject.model.cast(torch.float32).log_prob(narrow), wide)
            return error / (torch.finfo(torch.float32).eps / 2)
        wide = subject.model.cast(torch.float64).log_prob(x.to(torch.float64) if x.is_floating_point() else x)
        return difference(log_p, wide) / (torch.finfo(dtype).eps / 2)
    except Exception as refusal:  # a model that has only one dtype
        if out_of_memory(refusal):
            raise
        return None


def _one_ulp_away(subject: Subject, x: Tensor, log_p: Tensor) -> list[Tensor]:
    """Changes of log_prob when every coordinate moves to the next number up, or down, in unit roundoffs.

    The next number of the precision that log_prob works in, where this is less than that of the events.
    """
    if not x.is_floating_point() or bool(subject.profile.chart.discrete.any()):
        return [torch.zeros(1, dtype=torch.float64)]
    own = torch.finfo(x.dtype).eps / 2
    unit = max(own, working_unit(subject))
    if unit > own:
        moved = [x + sign * 2 * unit * x.abs() for sign in (1, -1)]
    else:
        moved = [torch.nextafter(x, torch.full_like(x, end)) for end in (torch.inf, -torch.inf)]
    return [difference(subject.model.log_prob(y), log_p) / unit for y in moved]


def compared(errors: Tensor, bounds: Tensor, tolerance: float, where: str = "") -> Exact:
    """Evidence that errors (n,) are rounding. One that exceeds its bound is a defect; one that is within a bound wider
    than the tolerance (nats: a log-density off by e moves probabilities by at most e) is undecided."""
    excess = torch.where(errors == 0, 0.0, errors / bounds)
    worst = int(torch.argmax(excess.nan_to_num(torch.inf)))
    error, bound = float(errors[worst]), float(bounds[worst])
    if error <= tolerance or not error <= bound:
        return Exact(error, bound, len(errors), where, "nat")
    return Exact(error, tolerance, len(errors), where, "nat", uncertainty=bound - tolerance)
