r"""Evidence over nights: e-values that are multiplied, sums that go on, and what both may cost in false alarms.

*Stakes.* Night k draws with a seed of its own and leaves, for one law of one model, the e-value :math:`E_k` of the look
at which the check stopped: not the largest look, of which the mean may exceed 1. Under the law
:math:`E[E_k \mid \text{nights before}] \le 1`, so for every stake :math:`0 \le \lambda \le 1`

.. math:: W_K(\lambda) = \prod_{k \le K} (1 - \lambda + \lambda E_k)

is a supermartingale over nights, started at 1, and so is the average over stakes (Ramdas, Grünwald, Vovk & Shafer 2023,
https://arxiv.org/abs/2210.01948). The stake 1 is the plain product, and has half of the weight. Each :math:`E_k` is of
all that a check looks at, but starts anew, and pays again for not knowing the deviation: below about a quarter of the
tolerance its mean is less than 1, and no number of nights finds anything.

*Sums.* So the other half of the capital bets on sums that go on from night to night (`suites.nightly.sums`): they pay
once, and find any bias in the end, after draws that grow like 1 / bias^2. The average of the two is a supermartingale
as well. Ville's inequality: on a correct model it reaches :math:`1/\alpha_c` on any night, ever, with probability at
most :math:`\alpha_c`. The half costs either log 2.

*Correct up to its arithmetic.* What thousands of nights can see, rounding can do. Both :math:`E_k` and the sums allow
for the slack that a law or an oracle states and for what the arithmetic of densities is measured to leave open
(`harness.checks.carried`): their means are at most 1 for every model within, so that no number of nights accuses one.

*Sharing alpha.* Half of it is for the nights as such: the verdicts of night k, which the harness shares among models
and checks, get :math:`\tfrac{\alpha}{2} \tfrac{6}{\pi^2 k^2}`. The other half is for what is accumulated. A night on
which series start, because models are new or code has changed, opens a generation; the g-th gets
:math:`\tfrac{\alpha}{2} \tfrac{6}{\pi^2 g^2}`, in equal parts for each of its models and each statistical check that
there is, whether or not it will apply. Levels are thus fixed before any draw. As :math:`\sum 6 / \pi^2 k^2 = 1`,
correct models turn any night red by a statistical verdict with probability at most alpha, however many nights and
changes there are.

*What adds nothing.* A check that was not made, or was blocked, leaves :math:`E_k = 1` and no sums. One that another's
FAIL blocked in mid-run is a choice that looked at draws, but without a false FAIL, which the first half pays for, it
never happens on a correct model. Asymptotic checks say nothing before they are confirmed, and nothing exact about it;
checks that rest on rows of a table see the same rows every night. They and exact checks count on each night alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

STAKES = (1.0, 0.5, 0.2, 0.05, 0.01)
"""Parts of the capital that are bet each night."""

LOG_WEIGHTS = (math.log(0.5), *(math.log(0.5 / (len(STAKES) - 1)) for _ in STAKES[1:]))
"""Log of the capital that each stake starts with; together 1."""

START = tuple(0.0 for _ in STAKES)
"""Log of what each stake has made of 1, before the first night."""


def spent(alpha: float, index: int) -> float:
    """The part of alpha for the index-th of infinitely many, from 1: 6 / (pi^2 index^2), which sums to alpha."""
    if index < 1:
        raise ValueError(f"index is {index}: count from 1")
    return alpha * 6 / (math.pi * index) ** 2


def grown(logs: Sequence[float], log_e: float) -> tuple[float, ...]:
    """`logs`, one a stake, after a night whose evidence was exp(log_e) against the law.

    What is no e-value, NaN or -inf, poisons: the capital is NaN from then on, which is never taken for a PASS.
    """
    if not log_e > -math.inf:
        return tuple(math.nan for _ in logs)
    return tuple(log + _factor(stake, log_e) for stake, log in zip(STAKES, logs, strict=True))


def _factor(stake: float, log_e: float) -> float:
    """log(1 - stake + stake exp(log_e))"""
    if stake == 1.0 or log_e > 700:  # exp would overflow; what is kept aside is then nothing beside what was bet
        return math.log(stake) + log_e
    return math.log1p(stake * math.expm1(log_e))


def log_stakes(logs: Sequence[float]) -> float:
    """log of the average over stakes: the evidence of all nights together."""
    return log_sum([log + weight for log, weight in zip(logs, LOG_WEIGHTS, strict=True)])


def log_sum(terms: Sequence[float]) -> float:
    """log of the sum of exp(terms); NaN when any is."""
    if any(math.isnan(term) for term in terms):
        return math.nan
    largest = max(terms)
    if largest == math.inf:
        return math.inf
    return largest + math.log(math.fsum(math.exp(term - largest) for term in terms))


def log_capital(logs: Sequence[float], sums: float) -> float:
    """log of the whole capital: half of it is in the stakes, half in the sums, which have made exp(`sums`) of 1."""
    return log_sum([log_stakes(logs), sums]) - math.log(2)


def reached(log_capital: float, level: float) -> bool:
    """Is it a FAIL: does the evidence reach 1 / level, or is it no number?"""
    return not log_capital < -math.log(level)
