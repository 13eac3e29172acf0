r"""What is allowed to a bijection of which one way is a root or an integral, beside the rounding of a formula.

No number tells the error of a solver from a small error of a formula: both are smooth, and the same at every call. What
tells whether it matters is the promise that verdicts make, of which the smallest is the tolerance of `thorough`. A
solver may move probabilities by a tenth of that, :math:`\tau`, as little as oracles are allowed to be unsure of
(`oracle.compared`), so that no verdict on a probability turns by it at any effort. A point that is off by s standard
deviations moves the probability of an event by at most :math:`s \, \varphi(0) = s / \sqrt{2 \pi}` of a Gaussian, and a
log-density that is off by e moves mass by at most e of itself.

The rest is measured. A way back that is right for an event near to the one it was given is as right as a solver can be
that stops by its residual (backward stability: Higham 2002, Accuracy and Stability of Numerical Algorithms, section
1.5): how far the way back itself goes from there is allowed, which is much where the map is flat. Of volumes, it is a
few times what the Jacobians of both ways fail to cancel by. A PASS states the bound that it used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from harness.checks.determinants import determinants, few
from harness.checks.ends import Ends, Map, ends_of, tried
from harness.checks.law import NotApplicable
from harness.checks.rounding import SAFETY
from harness.effort import EFFORTS
from harness.errors import out_of_memory
from harness.subject import Subject

MOVED = min(effort.tolerance for effort in EFFORTS.values()) / 10
"""Probability that a solver may move, 3e-4: tau above. As nats it is what a log-density may be off by."""

SOLVED = MOVED * math.sqrt(2 * math.pi)
"""Standard deviations that a point may be off by after the way there and back, 7.5e-4, over all of its coordinates."""


def allowed(subject: Subject, errors: Tensor, bounds: Tensor, granted: Callable[[], Tensor]) -> Tensor:
    """The bounds, and at least what is granted to solvers if rounding leaves an error unexplained; all of one shape.

    Maps in closed form are held to their rounding. Where that is more than the effort promises to find, it decides
    nothing, and so not this either.
    """
    explained = (errors <= bounds) | (bounds > subject.effort.tolerance)
    return bounds if bool(explained.all()) else torch.maximum(bounds, granted())


def of_points(ends: Ends, errors: Tensor, back: Map, far: Tensor, spreads: tuple[Tensor, Tensor]) -> Tensor:
    """(n, d): what a solver is granted of errors (n, d) of back(far), in `spreads` of the points and of `far`.

    SOLVED of the whole point, or as far as `back` goes for a step of that size; 0 where an error is infinite.
    """
    here, near = spreads
    whole = (SOLVED * errors / errors.norm(dim=1, keepdim=True)).nan_to_num(0.0, 0.0)
    there, step = back(far), SOLVED * near / far.shape[1] ** 0.5
    for other in ends.around(far, step.expand_as(far)):
        moved = (tried(back, other, there) - there).abs() / here
        whole = torch.maximum(whole, moved.double().nan_to_num(0.0, 0.0))
    return whole


def of_volumes(subject: Subject, *seen: float) -> float:
    """What a solver is granted in nats: what all are, or a few times the least of what it was seen to leave, and never
    more than the effort promises to find. A defect of one part shows in some of what is seen; the steps of a solver in
    all of it, though less where the ways there and back err alike."""
    return min(max(MOVED, SAFETY * min(seen)), subject.effort.tolerance)


def left_by_solver(subject: Subject) -> float:
    """By how many nats log |det J| of one way and of the other fail to cancel, beyond rounding, at the worst of points.

    Both are of derivatives that autograd takes, and no log_det is asked. Of maps in closed form it is 0; of an
    integrator, what its steps leave of a volume, where they do not leave the same on both ways. 0 where it cannot be
    measured.
    """
    return subject.once("what the solver leaves", lambda: _left(ends_of(subject)))


def _left(ends: Ends) -> float:
    if not ends.model.can("inverse"):
        return 0.0
    try:
        z = few(ends.z)
        with torch.no_grad():
            x = ends.forward(z)
        kept = x.isfinite().all(1)
        there, back = determinants(ends, ends.forward, z[kept]), determinants(ends, ends.inverse, x[kept])
    except (NotApplicable, ValueError, RuntimeError) as refusal:  # it is for the laws themselves to say so
        if out_of_memory(refusal):
            raise
        return 0.0
    gap = (there.log_abs + back.log_abs).abs() - there.rounding - back.rounding
    gap = gap[gap.isfinite()].clamp(min=0.0)
    return float(gap.max()) if len(gap) else 0.0
