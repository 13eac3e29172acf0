"""Two samplers of one autoregressive density: the one that keeps what it worked out, and the naive one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.checks.factors import BY_CHANCE, WELL, factors_of
from harness.checks.law import Check, exact
from harness.checks.rounding import ELEMENTARY, LAMBDA, SAFETY
from harness.errors import out_of_memory
from harness.evidence import Exact
from harness.subject import Subject

SAMPLED = 256
"""Draws that both samplers make."""


@exact(
    "autoregressive.cached_is_naive",
    needs=("sample", "sample_naive"),
    blocked_by=(WELL, "sample.well_formed", "sample.finite"),
    unit="of the draws",
    source="Le Paine et al. 2016, https://arxiv.org/abs/1611.09482",
)
def cached_is_naive(subject: Subject) -> Exact:
    """sample(n, generator) = sample_naive(n, generator) for two generators in the same state, up to rounding.

    A cache is a way to compute and no model of its own. A continuous number may differ in half of its digits; a
    discrete one changes where rounding carries a uniform number over an end of its interval, and what follows changes
    with it: so many draws as rounding of the conditionals explains may do so, a billion to one.
    """
    model = subject.model
    if model.cast is not None:
        try:
            wide = model.cast(torch.float64)
            model = wide if wide.can("sample", "sample_naive") else model
            wide.sample(1, generator=subject.generator("cached"))
        except Exception as refusal:  # a model that has only one dtype
            if out_of_memory(refusal):
                raise
            model = subject.model
    with torch.no_grad():
        cached = model.sample(SAMPLED, generator=subject.generator("cached"))
        naive = model.sample_naive(SAMPLED, generator=subject.generator("cached"))
    if not isinstance(naive, Tensor) or naive.shape != cached.shape or naive.dtype != cached.dtype:
        seen = f"{tuple(naive.shape)} {naive.dtype}" if isinstance(naive, Tensor) else f"a {type(naive).__name__}"
        raise ValueError(
            f"sample_naive({SAMPLED}) is {seen}, and sample({SAMPLED}) {tuple(cached.shape)} {cached.dtype}"
        )
    flat = cached.reshape(SAMPLED, -1).double()
    gap = (flat - naive.reshape(SAMPLED, -1).double()).abs().nan_to_num(math.inf, math.inf)
    spread = subject.pilot.reshape(len(subject.pilot), -1).double().std(0).nan_to_num(0.0)
    digits = torch.finfo(cached.dtype).eps ** 0.5 if cached.is_floating_point() else 0.0
    differing = (gap > digits * (spread + flat.abs())).any(1)
    allowed = _flips(subject, cached, wide=model is not subject.model)
    first = int(differing.nonzero()[0]) if bool(differing.any()) else 0
    where = f"draw {first}, coordinate {int(gap[first].argmax())}" if bool(differing.any()) else ""
    return Exact(float(differing.double().mean()), allowed / SAMPLED, SAMPLED, where)


def _flips(subject: Subject, x: Tensor, wide: bool) -> int:
    """How many draws rounding may change: for a mean m of a Poisson law, the k above which it is not by chance.

    The ends of k intervals move by at most half of the error of the log-probabilities each.
    """
    discrete = subject.profile.chart.discrete.tolist()
    if not any(discrete):
        return 0
    values = sum(len(a) for a in subject.profile.alphabets if a is not None)
    unit = torch.finfo(torch.float64 if wide else torch.float32).eps / 2
    size = 1.0
    if subject.model.can("conditionals"):
        factors = factors_of(subject)
        size += factors.amplified
        unit = unit if wide else max(unit, factors.unit)
    error = SAFETY * unit * (LAMBDA * (ELEMENTARY + len(discrete)) ** 0.5 + size)
    mean = SAMPLED * values * error
    flips = 0
    while _poisson_tail(mean, flips + 1) > BY_CHANCE:
        flips += 1
    return min(flips, SAMPLED)


def _poisson_tail(mean: float, k: int) -> float:
    """Chernoff's bound on P(N >= k) of a Poisson law, which is exp(-m) (e m / k)^k for k above m."""
    return 1.0 if k <= mean else math.exp(k - mean + k * math.log(mean / k)) if mean > 0 else 0.0


CHECKS: tuple[Check, ...] = (cached_is_naive,)
