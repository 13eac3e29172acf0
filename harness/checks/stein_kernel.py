r"""Kernel Stein discrepancy: draws against a score, by the one smooth function that sees most between them.

For a density p on R^d with score s, and functions f: R^d -> R^d that are smooth and bounded, Stein's identity says
E[s(x) . f(x) + div f(x)] = 0. Over the unit ball of the functions that a kernel k spans, the largest such mean of
another law q is

.. math:: \mathrm{KSD}^2 = E\, h(x, x'), \qquad
          h(x, y) = s(x)^T s(y) k + s(x)^T \nabla_y k + s(y)^T \nabla_x k + \mathrm{tr}\, \nabla_x \nabla_y k,

reached by f(x) = E_y[s(y) k(x, y) + grad_y k(x, y)], y from q. Here y are pilot draws, so that f is fixed before the
draws that it is judged on: their numbers h(x, .) are independent, of mean 0 if the law holds, and of mean KSD^2, up to
the noise of the pilot, if not. No normalising constant enters.

Slopes say little about how modes that lie apart are weighed, and so does this: a mode drawn half as often may pass.

k(x, y) = (c^2 + |x - y|^2)^(-1/2), in coordinates of scale 1: its tails are heavy enough to see draws that run away
(Gorham & Mackey 2017, theorem 8), and light enough that s . f is bounded for Gaussian tails.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.checks.law import Check, NotApplicable, statistical
from harness.checks.moments import PER_PROBABILITY
from harness.checks.score import said_score, whole_space
from harness.draws import Draws
from harness.model import Model
from harness.statistics.asymptotic import AsymptoticMean
from harness.subject import Subject

SOURCE = (
    "Liu, Lee & Jordan 2016, https://arxiv.org/abs/1602.03253; Chwialkowski, Strathmann & Gretton 2016, "
    "https://arxiv.org/abs/1602.02964; Gorham & Mackey 2017, https://arxiv.org/abs/1703.01717"
)

POINTS = 256
"""Pilot draws that the witness is made of; as many others say how large its numbers are."""

WIDTHS = (0.5, 1.0, 2.0)
"""c of the kernels, in median distances between two draws."""

BLOCK = 2**12
PAIRS, NODES = 64, 33
JUMP = 0.1
"""A gap, in nats and as a share, between log p at both ends of a line and its slope summed along it: of a jump."""

Score = Callable[[Tensor], Tensor]


def _coordinates(subject: Subject, x: Tensor) -> Tensor:
    """(n, d): events in units of each coordinate's scale."""
    chart = subject.profile.chart
    return (x.reshape(len(x), -1).double() - chart.location) / chart.scale


def _slopes(subject: Subject, x: Tensor, score: Score) -> Tensor:
    """(n, d): the score in those units."""
    return score(x).reshape(len(x), -1).double() * subject.profile.chart.scale


def _start(subject: Subject, score: Score) -> AsymptoticMean:
    whole_space(subject)
    if len(subject.pilot) < 2 * POINTS:
        raise NotApplicable(f"there are fewer than {2 * POINTS} pilot draws")
    subject.once("witness", lambda: _witness(subject, score))
    return AsymptoticMean(rarest=subject.effort.rarest)


def _witness(subject: Subject, score: Score) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points y (m, d), their slopes (m, d), widths (k,), and the standard deviations (k,) of the numbers."""
    x = subject.pilot[:POINTS]
    y, slopes = _coordinates(subject, x), _slopes(subject, x, score)
    widths = torch.pdist(y).median() * torch.tensor(WIDTHS, dtype=y.dtype, device=y.device)
    other = subject.pilot[POINTS : 2 * POINTS]
    seen = _numbers(_coordinates(subject, other), _slopes(subject, other, score), y, slopes, widths)
    if not bool(seen.isfinite().all()):
        raise NotApplicable("the score is not finite at its own draws; see score.is_gradient")
    return y, slopes, widths, seen.std(0).clamp(min=1e-300)


def _numbers(x: Tensor, s: Tensor, y: Tensor, t: Tensor, widths: Tensor) -> Tensor:
    """(n, k): means over y of h(x, y) for each width, from coordinates and slopes of both.

    With u = c^2 + |x - y|^2: h = s . t u^(-1/2) + (s - t) . (x - y) u^(-3/2) + d u^(-3/2) - 3 |x - y|^2 u^(-5/2).
    """
    squares = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()  # (n, m)
    both = s @ t.mT
    turned = (s * x).sum(1)[:, None] - s @ y.mT - x @ t.mT + (t * y).sum(1)
    columns = []
    for c in widths:
        u = squares + c.square()
        h = both * u**-0.5 + (turned + x.shape[1]) * u**-1.5 - 3 * squares * u**-2.5
        columns.append(h.mean(1))
    return torch.stack(columns, 1)


def _judged(draws: Draws, score: Score) -> Tensor:
    """(n, k) numbers, in units of their standard deviation."""
    subject = draws.subject
    y, t, widths, spread = subject.once("witness", lambda: _witness(subject, score))
    blocks = [
        _numbers(_coordinates(subject, part), _slopes(subject, part, score), y, t, widths)
        for part in draws.x.split(BLOCK)
    ]
    return torch.cat(blocks) / spread


def _labels(subject: Subject) -> list[str]:
    return [f"a kernel of {width:g} median distances" for width in WIDTHS]


UNIT = "sd of the witness's numbers"


@statistical(
    "score.kernel_stein",
    needs=("sample", "score"),
    blocked_by=("score.is_gradient", "sample.finite"),
    start=lambda subject: _start(subject, lambda x: said_score(subject.model, x)),
    labels=_labels,
    tolerance=2 * PER_PROBABILITY,
    share=1 / 4,
    asymptotic=True,
    unit=UNIT,
    source=SOURCE,
)
def kernel_stein(draws: Draws) -> Tensor:
    """E[s(x) . f(x) + div f(x)] = 0 over draws, for the f of a kernel's unit ball that pilot draws speak against most.

    The kernel Stein discrepancy of the draws, split so that its numbers are independent. Unlike `score.stein`, which
    looks at one coordinate at a time, it sees how coordinates depend on each other.
    """
    return _judged(draws, lambda x: said_score(draws.subject.model, x))


def _start_energy(subject: Subject) -> AsymptoticMean:
    if subject.model.can("log_prob") or subject.model.can("score"):
        raise NotApplicable("the score is compared with the sampler, or log_prob is, and the energy with these")
    score = _of_energy(subject.model)
    whole_space(subject)
    if _jumps(subject, score):
        raise NotApplicable("the energy has jumps, or slopes that autograd does not see")
    return _start(subject, score)


def _of_energy(model: Model) -> Score:
    """-grad E by autograd."""

    def score(x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            value = model.energy(leaf)
            if not value.requires_grad:
                raise NotApplicable("energy() keeps no graph")
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return -gradient

    return score


def _jumps(subject: Subject, score: Score) -> bool:
    """Do differences of the energy disagree with its slopes, summed along lines between draws?

    By Simpson's rule. An energy that is flat between jumps has no slope anywhere, and no identity of Stein's.
    """
    x = subject.pilot[: 2 * PAIRS]
    a, b = x[0::2], x[1::2]
    at = torch.linspace(0, 1, NODES, dtype=torch.float64, device=x.device).reshape(-1, 1, *(1,) * (x.ndim - 1))
    line = (a + at * (b - a)).to(x.dtype)  # (nodes, pairs, *event)
    slopes = score(line.flatten(0, 1)).reshape(NODES, len(a), -1).double()
    along = (slopes * (b - a).reshape(len(a), -1).double()).sum(-1)  # (nodes, pairs)
    weights = torch.tensor([1.0, *([4.0, 2.0] * (NODES // 2))[:-1], 1.0], dtype=torch.float64, device=x.device)
    integral = weights @ along / (3 * (NODES - 1))
    with torch.no_grad():
        ends = subject.model.energy(a).double() - subject.model.energy(b).double()
    return not bool(((integral - ends).abs() <= JUMP * (1 + ends.abs())).all())


@statistical(
    "energy.kernel_stein",
    needs=("sample", "energy"),
    blocked_by=("energy.well_formed", "sample.finite"),
    start=_start_energy,
    labels=_labels,
    tolerance=2 * PER_PROBABILITY,
    share=1 / 4,
    asymptotic=True,
    unit=UNIT,
    source=SOURCE,
)
def energy_kernel_stein(draws: Draws) -> Tensor:
    """E[f(x) . (-grad E(x)) + div f(x)] = 0 over draws, for the f that pilot draws speak against most.

    As `score.kernel_stein`, with the gradient of the energy by autograd. Where an energy has jumps it has no such
    gradient, and the check says nothing.
    """
    return _judged(draws, _of_energy(draws.subject.model))


CHECKS: tuple[Check, ...] = (kernel_stein, energy_kernel_stein)
