r"""Maximum likelihood: what an estimator `fit` owes to the data that it is given, and to the law that they came from.

The model under examination is the truth: its own draws are the data, so the truth is known and lies in the family. For
k free parameters and n draws, under the usual conditions (Wilks 1938, https://doi.org/10.1214/aoms/1177732360),

.. math:: 2 [\ell(\hat\theta) - \ell(\theta)] \to \chi^2_k \qquad\text{and}\qquad
          2 n\, \mathrm{KL}(p_\theta \,\|\, p_{\hat\theta}) \to \chi^2_k.

A fit that goes step by step (an attribute `history` or `n_iter_` says so) starts somewhere and stops somewhere: laws on
its exact answer do not apply, and of several data sets the median counts, as one start in a few may end badly.
"""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from harness.checks.fitting import (
    FISHER,
    INDISTINCT,
    SOUND,
    ascend,
    difference,
    draws_for_fit,
    fit,
    history_of,
    likelihood_rounding,
    log_likelihoods,
    parameters_of,
    require_finite,
    size_of,
    steps_of,
    total,
)
from harness.checks.law import Check, NotApplicable, exact
from harness.effort import Effort
from harness.evidence import Exact
from harness.model import Model
from harness.subject import Subject

DATA_SETS = 5
"""Data sets on which the likelihoods of truth and estimate are compared."""

MOST_PARAMETERS = 16
"""Most parameters for which the laws of large samples are tried: they ask for 32 k^2 draws a data set."""

UNSURE, ALLOWED = 2.0, 5.0
"""Standard errors of a mean over data sets: those that count as its uncertainty, and those that are allowed. A FAIL is
more than 7 of them away, with probability 3e-12 in the limit, a PASS at most 3."""

TRIALS = 64
"""Estimates that are looked at to tell whether a sample is large."""

WILKS = "Wilks 1938, https://doi.org/10.1214/aoms/1177732360"

NEEDS = ("fit", "sample", "log_prob")


@exact("estimation.as_likely_as_the_truth", needs=NEEDS, blocked_by=SOUND, unit="nats", source=FISHER)
def as_likely_as_the_truth(subject: Subject) -> Exact:
    """sum log p(x_i | theta_hat) >= sum log p(x_i | theta): no member of the family makes the data more likely.

    The truth is such a member. Five data sets of different sizes are tried.
    """
    gaps, allowed, rows = [], [], 0
    iterative = ""
    for i in range(DATA_SETS):
        x = draws_for_fit(subject, f"likely {i}", size_of(subject, 16 * 2**i))
        estimate = fit(subject, x)
        iterative = iterative or steps_of(estimate)
        reached = total(estimate, x)
        gaps.append(math.inf if math.isnan(reached) else max(0.0, total(subject.model, x) - reached))
        allowed.append(2 * likelihood_rounding(subject, x))
        rows += len(x)
    pick = _middle(gaps) if iterative else max(range(DATA_SETS), key=lambda i: gaps[i] / allowed[i])
    where = f"the median of {DATA_SETS} data sets" if iterative else f"data set {pick + 1} of {DATA_SETS}"
    return Exact(gaps[pick], allowed[pick], rows, where, "nats")


@exact("estimation.rows_in_any_order", needs=NEEDS, blocked_by=SOUND, unit="nats", source=FISHER)
def rows_in_any_order(subject: Subject) -> Exact:
    """fit(x) does not depend on the order of the rows of x.

    Draws are exchangeable: a likelihood is a product over them, and a product has no order.
    """
    x = _few(subject)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(subject.seed_for("estimation order")))
    return _same(subject, x, x[order.to(x.device)], "the rows in another order")


@exact("estimation.doubled_data_change_nothing", needs=NEEDS, blocked_by=SOUND, unit="nats", source=FISHER)
def doubled_data_change_nothing(subject: Subject) -> Exact:
    """fit(x and x again) = fit(x).

    Every row twice doubles the log-likelihood of every member of the family, so the maximum stays where it is. An
    estimate that divides by n - 1, shrinks, or smooths, moves.
    """
    x = _few(subject)
    return _same(subject, x, torch.cat([x, x]), "every row twice")


@exact("estimation.affine_equivariant", needs=(*NEEDS, "affine"), blocked_by=SOUND, unit="nats", source=FISHER)
def affine_equivariant(subject: Subject) -> Exact:
    """fit(A x + b) = A fit(x) + b, for a family that affine maps do not leave.

    The maximum of a likelihood does not depend on the coordinates in which the data are written.
    """
    x = _few(subject)
    if x.dim() != 2 or not x.is_floating_point():
        raise NotApplicable("events are no vectors of floating numbers")
    matrix, shift = _affine_map(subject, x)
    moved = x @ matrix.T + shift
    direct, carried = fit(subject, moved), fit(subject, x).affine(matrix, shift)
    _require_exact_fit(direct)
    gap = difference(total(direct, moved), total(carried, moved))
    allowed = INDISTINCT + 4 * likelihood_rounding(subject, x)
    return Exact(gap, allowed, len(x), "a random rotation, scales 1/2 to 2, and a shift", "nats")


@exact(
    "estimation.nothing_is_more_likely",
    needs=(*NEEDS, "parameters", "with_parameters"),
    blocked_by=SOUND,
    unit="nats",
    source=FISHER,
)
def nothing_is_more_likely(subject: Subject) -> Exact:
    """max over theta of sum log p(x_i | theta) is reached at theta_hat: the score is zero there.

    L-BFGS climbs the likelihood from the estimate and from the truth. What it gains over the estimate is the error; a
    fit that goes step by step may stop short by the effort's tolerance of k / 2, what n draws make it gain over the
    truth.
    """
    x = _few(subject)
    estimate = fit(subject, x)
    reached = total(estimate, x)
    at_estimate, at_truth = parameters_of(estimate), parameters_of(subject.model)
    starts = [theta for theta in (at_estimate, at_truth) if bool(theta.isfinite().all())]
    if not starts:
        raise NotApplicable("the parameters are not finite: the estimate lies on the edge of the family")
    starts = starts[:1] if steps_of(estimate) else starts
    best = max(ascend(subject.model, theta, x) for theta in starts)
    room = subject.effort.tolerance * len(at_truth) / 2 if steps_of(estimate) else INDISTINCT
    gain = best - reached
    return Exact(max(0.0, gain), room + 4 * likelihood_rounding(subject, x), len(x), "the best of L-BFGS", "nats")


@exact(
    "estimation.steps_never_descend",
    needs=NEEDS,
    blocked_by=SOUND,
    unit="nats",
    source="Dempster, Laird & Rubin 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x",
)
def steps_never_descend(subject: Subject) -> Exact:
    """The training log-likelihood `history` of a fit by EM never decreases.

    Each step maximises a lower bound that touches the log-likelihood where the step began.
    """
    x = _few(subject)
    history = history_of(fit(subject, x))
    if history is None:
        raise NotApplicable("the fitted model keeps no `history` of log-likelihoods")
    if len(history) < 2:
        raise NotApplicable("the history has one step")
    if bool(history.isnan().any()):
        return Exact(math.inf, 0.0, len(history), "a history with NaN", "nats")
    drop = (-history.diff()).clamp(min=0)
    step = int(drop.argmax())
    allowed = likelihood_rounding(subject, x) * float(history.abs().max()) / (1 + abs(total(subject.model, x)))
    return Exact(float(drop[step]), allowed, len(history), f"step {step + 1}", "nats")


@exact(
    "estimation.twice_the_gain_is_chi_squared",
    needs=(*NEEDS, "parameters"),
    blocked_by=(*SOUND, "estimation.as_likely_as_the_truth"),
    unit="of k",
    source=WILKS,
)
def twice_the_gain_is_chi_squared(subject: Subject) -> Exact:
    """2 [l(theta_hat) - l(theta)] has mean k, that of chi^2 with k degrees of freedom, in large samples.

    k is the number of free parameters. It holds in the limit: so many draws are taken that estimates do not lie on the
    edge of the family, as that of a probability does whose state was never drawn; and a deviation has to be there at
    four times the draws too.
    """
    k = _free_parameters(subject)
    n = _inside(subject, 32 * k**2)
    seen = _wilks(subject, k, n)
    return seen if seen.error <= seen.allowed else min(seen, _wilks(subject, k, 4 * n), key=lambda w: w.error)


@exact(
    "estimation.divergence_falls_as_one_over_n",
    needs=(*NEEDS, "parameters", "kl"),
    blocked_by=(*SOUND, "information.kl_to_itself_is_zero"),
    unit="of the exponent",
    source=WILKS,
)
def divergence_falls_as_one_over_n(subject: Subject) -> Exact:
    """E KL(p_theta || p_theta_hat) falls as k / 2n: the slope of its logarithm on log n is -1.

    So the estimator is consistent, and at the best rate. A bias that stays makes the slope 0.
    """
    k = _free_parameters(subject)
    few, many = 32 * k**2, 512 * k**2
    runs = _data_sets(subject.effort, k) // 4
    first, second = (_divergences(subject, n, runs) for n in (few, many))
    if not bool(torch.cat([first, second]).isfinite().all()):
        raise NotApplicable("some estimates rule out what the truth allows, so that the divergence is infinite")
    if not (float(first.mean()) > 0 and float(second.mean()) > 0):
        return Exact(math.inf, 0.0, 2 * runs, "a divergence that is not positive", "of the exponent")
    span = math.log(many / few)
    slope = math.log(float(second.mean()) / float(first.mean())) / span
    error = sum(float(v.var()) / (len(v) * float(v.mean()) ** 2) for v in (first, second)) ** 0.5 / span
    return Exact(
        abs(slope + 1),
        16 * subject.effort.tolerance,
        2 * runs,
        f"slope {slope:.3f} over n = {few:,} to {many:,}",
        "of the exponent",
        UNSURE * error,
    )


# ------------------------------------------------------------------------------------------------------- data and fits


def _few(subject: Subject) -> Tensor:
    """Few rows, so that what is lost by dividing by n - 1 shows."""
    return draws_for_fit(subject, "few", size_of(subject, 16))


def _same(subject: Subject, x: Tensor, again: Tensor, where: str) -> Exact:
    """Do both data sets give the same estimate? Measured by the log-likelihood of x."""
    one, other = fit(subject, x), fit(subject, again)
    _require_exact_fit(one)
    gap = difference(total(one, x), total(other, x))
    allowed = INDISTINCT + 2 * likelihood_rounding(subject, x)
    return Exact(math.inf if math.isnan(gap) else gap, allowed, len(x), where, "nats")


def _require_exact_fit(fitted: Model) -> None:
    if steps := steps_of(fitted):
        raise NotApplicable(f"the fit goes step by step (it keeps `{steps}`): where it ends depends on where it starts")


def _free_parameters(subject: Subject) -> int:
    """k, where the laws of large samples apply and can be tried."""
    theta = parameters_of(subject.model)
    require_finite(theta)
    if len(theta) == 0:
        raise NotApplicable("the family has no free parameter")
    if len(theta) > MOST_PARAMETERS:
        raise NotApplicable(f"{len(theta)} parameters are more than {MOST_PARAMETERS}: too many draws would be needed")
    _require_exact_fit(fit(subject, _few(subject)))
    return len(theta)


def _data_sets(effort: Effort, k: int) -> int:
    """So many that the standard error of the mean of chi^2_k / k, sqrt(2 / k m), is the effort's tolerance."""
    return math.ceil(2.0 / (k * effort.tolerance**2))


def _inside(subject: Subject, n: int) -> int:
    """n, 4 n or 16 n: the least draws at which no estimate of `TRIALS` lies on the edge of the family.

    A state that is expected m times is missed with probability exp(-m), and by Bartlett's correction the mean of
    chi^2 is then off by 1 / 6m of a parameter: no miss in 64 trials makes m > 2, and a FAIL is confirmed at 4 m.
    """
    for size in (n, 4 * n, 16 * n):
        if not any(_on_edge(subject, size, i) for i in range(TRIALS)):
            return size
    raise NotApplicable(f"estimates from {16 * n:,} draws lie on the edge of the family: the sample is not a large one")


def _on_edge(subject: Subject, n: int, i: int) -> bool:
    """Are parameters of the estimate not finite, or does it rule out what the truth has drawn elsewhere?"""
    estimate = fit(subject, subject.sample(n, "estimation", "edge", n, i))
    infinite = estimate.can("parameters") and not bool(parameters_of(estimate).isfinite().all())
    return infinite or bool((log_likelihoods(estimate, subject.pilot) == -math.inf).any())


def _wilks(subject: Subject, k: int, n: int) -> Exact:
    runs = _data_sets(subject.effort, k)
    gains = []
    for i in range(runs):
        x = subject.sample(n, "estimation", "wilks", n, i)
        gain = log_likelihoods(fit(subject, x), x) - log_likelihoods(subject.model, x)
        gains.append(2 * float(gain.sum()))
    error = math.sqrt(2 / (k * runs))
    mean = statistics.fmean(gains) / k
    gap = math.inf if math.isnan(mean) else abs(mean - 1)
    where = f"k = {k}: mean {mean:.3f} k over {runs:,} data sets of {n:,}"
    return Exact(gap, ALLOWED * error, runs, where, "of k", UNSURE * error)


def _divergences(subject: Subject, n: int, runs: int) -> Tensor:
    found = []
    for i in range(runs):
        estimate = fit(subject, subject.sample(n, "estimation", "divergence", n, i))
        found.append(float(torch.as_tensor(subject.model.kl(estimate)).detach()))
    return torch.tensor(found, dtype=torch.float64)


def _middle(values: list[float]) -> int:
    """The place of the median."""
    return sorted(range(len(values)), key=lambda i: values[i])[len(values) // 2]


def _affine_map(subject: Subject, x: Tensor) -> tuple[Tensor, Tensor]:
    """A rotation times scales 1/2 to 2, (d, d), and a shift (d,) of about the size of x."""
    d = x.shape[1]
    source = torch.Generator().manual_seed(subject.seed_for("estimation map"))
    rotation, _ = torch.linalg.qr(torch.randn(d, d, generator=source, dtype=torch.float64))
    scales = 2.0 ** (2 * torch.rand(d, generator=source, dtype=torch.float64) - 1)
    shift = x.to("cpu", torch.float64).std(0) * torch.randn(d, generator=source, dtype=torch.float64)
    return (rotation * scales).to(x), shift.to(x)


CHECKS: tuple[Check, ...] = (
    as_likely_as_the_truth,
    rows_in_any_order,
    doubled_data_change_nothing,
    affine_equivariant,
    nothing_is_more_likely,
    steps_never_descend,
    twice_the_gain_is_chi_squared,
    divergence_falls_as_one_over_n,
)
