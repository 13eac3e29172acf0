r"""What maps do to information: y = A x + b adds log |det A| to an entropy, and nothing to a divergence.

Densities are divided by |det A|, which cancels in every ratio of densities of the same variable: Kullback-Leibler
divergence and mutual information are properties of the laws, differential entropy is one of the coordinates as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.checks.blocks import cuts, marginal, rest, size_of
from harness.checks.law import Check, NotApplicable, exact
from harness.checks.precision import working_unit
from harness.checks.rounding import ELEMENTARY, LAMBDA, SAFETY
from harness.checks.second import second_model
from harness.checks.stated import gap, precision, scalar
from harness.evidence import Exact
from harness.model import Model
from harness.subject import Subject

COVER = "Cover & Thomas 2006, Elements of Information Theory, sections 2.5, 8.5 and 8.6"
WATANABE = "Watanabe 1960, https://doi.org/10.1147/rd.41.0066"

SPREAD = 4.0
"""Condition number of the maps, a rotation times scales from 1/2 to 2: by how much they may magnify rounding."""

NUDGES = (2.0, -2.0, 3.0)
"""By how many units in the last place a map is changed to see what rounding does."""

MOST_COORDINATES = 256

Quantity = Callable[[Tensor], float]
"""From a matrix (d, d) to what the model states after that map."""


@exact("information.kl_invariant_under_maps", needs=("kl", "affine"), unit="nats", source=COVER)
def kl_invariant_under_maps(subject: Subject) -> Exact:
    """KL(A p + b, A q + b) = KL(p, q) for invertible A, for a second model q of the same kind.

    log p - log q is the same number in both coordinates.
    """
    other = second_model(subject)
    if not other.model.can("affine"):
        raise NotApplicable("the second model has no affine")
    matrix, shift = affine_map(subject)
    before = scalar(subject, "kl", other.model)
    if not math.isfinite(before):
        raise NotApplicable("the stated divergence is not finite")

    def after(a: Tensor) -> float:
        return _number(_carried(subject.model, a, shift), "kl", _carried(other.model, a, shift))

    return _unchanged(subject, after, matrix, before, "KL")


@exact("information.entropy_under_maps", needs=("entropy", "affine"), unit="nats", source=COVER)
def entropy_under_maps(subject: Subject) -> Exact:
    """H(A x + b) = H(x) + log |det A|.

    A differential entropy is that of coordinates: stretched by 2, x has log 2 nats more in each.
    """
    matrix, shift = affine_map(subject)
    change = float(torch.linalg.slogdet(matrix.double()).logabsdet)
    before = scalar(subject, "entropy") + change
    return _unchanged(
        subject, lambda a: _number(_carried(subject.model, a, shift), "entropy"), matrix, before, "H(x) + log |det A|"
    )


@exact("mutual.invariant_under_maps", needs=("mutual_information", "affine"), unit="nats", source=COVER)
def mutual_invariant_under_maps(subject: Subject) -> Exact:
    """I(a; b) does not change when x_a and x_b are each mapped by an invertible matrix of their own.

    Processing that can be undone loses no information.
    """
    d = size_of(subject)
    matrix, shift = affine_map(subject)
    seen = []
    for a in cuts(d):
        blocks = a, rest(a, d)
        apart = torch.zeros_like(matrix)
        for block in blocks:
            apart[torch.tensor(block)[:, None], torch.tensor(block)] = _mixing(subject, len(block)).to(matrix)
        before = scalar(subject, "mutual_information", *blocks)
        seen.append(_unchanged(subject, _information(subject, blocks, shift), apart, before, "I"))
    return max(seen, key=lambda each: each.error - each.allowed)


def _information(subject: Subject, blocks: Sequence[list[int]], shift: Tensor) -> Quantity:
    return lambda a: _number(_carried(subject.model, a, shift), "mutual_information", *blocks)


@exact("information.total_correlation", needs=("entropy", "marginal"), unit="nats", source=WATANABE)
def total_correlation(subject: Subject) -> Exact:
    """C(x) = sum_i H(x_i) - H(x) >= 0.

    It is KL(p || product of the marginals), 0 if and only if the coordinates are independent. With the entropies that
    the model and its marginals state.
    """
    d = size_of(subject)
    if d > MOST_COORDINATES:
        raise NotApplicable(f"{d} marginals are more than the {MOST_COORDINATES} that are asked for")
    parts = [marginal(subject.model, [i]) for i in range(d)]
    if not all(part.can("entropy") for part in parts):
        raise NotApplicable("the marginals state no entropy")
    whole, single = scalar(subject, "entropy"), [_number(part, "entropy") for part in parts]
    if math.inf in (whole, *single) or -math.inf in (whole, *single):
        raise NotApplicable("a stated entropy is not finite")
    found = sum(single) - whole
    allowed = precision(subject, "entropy") * (d + abs(whole) + sum(map(abs, single)))
    error = 0.0 if found >= 0 else math.inf if math.isnan(found) else -found
    return Exact(error, allowed, d, f"sum of H(x_i) = {sum(single):.9g}, H(x) = {whole:.9g}", "nats")


def affine_map(subject: Subject) -> tuple[Tensor, Tensor]:
    """A rotation times scales 1/2 to 2, (d, d), and a shift (d,) of about the size of the draws."""
    x = subject.pilot
    if x.dim() != 2 or not x.is_floating_point():
        raise NotApplicable("events are no vectors of floating numbers")
    source = torch.Generator().manual_seed(subject.seed_for("shift of the map"))
    shift = x.to("cpu", torch.float64).std(0) * torch.randn(x.shape[1], generator=source, dtype=torch.float64)
    return _mixing(subject, x.shape[1]).to(x), shift.to(x)


def _mixing(subject: Subject, d: int) -> Tensor:
    """A rotation times scales from 1/2 to 2, (d, d) in float64."""
    source = torch.Generator().manual_seed(subject.seed_for("matrix of the map", d))
    rotation, _ = torch.linalg.qr(torch.randn(d, d, generator=source, dtype=torch.float64))
    return rotation * 2.0 ** (2 * torch.rand(d, generator=source, dtype=torch.float64) - 1)


def _carried(model: Model, matrix: Tensor, shift: Tensor) -> Model:
    """The model of A x + b. Raises ValueError where it is none."""
    answer = model.affine(matrix, shift)
    if not isinstance(answer, Model):
        raise ValueError(f"affine() returned a {type(answer).__name__}, not a model")
    return answer


def _number(model: Model, name: str, *arguments: object) -> float:
    """What a model states. Raises NotApplicable where it states nothing of that name."""
    if not model.can(name):
        raise NotApplicable(f"the model that was made of it has no {name}")
    return float(model.methods[name](*arguments))


def _unchanged(subject: Subject, after: Quantity, matrix: Tensor, before: float, name: str) -> Exact:
    """Evidence that the quantity after the map is `before`, up to rounding.

    How much the formula magnifies rounding is seen by changing the map in the last place, which changes the law that
    comes out, and not the quantity, by more than rounding does.
    """
    unit = torch.finfo(matrix.dtype).eps / 2
    if subject.model.can("log_prob"):
        unit = max(unit, working_unit(subject))
    seen = after(matrix)
    others = [after(matrix * (1 + nudge * 2 * unit * _signs(subject, matrix))) for nudge in NUDGES]
    magnified = max(gap(other, seen) for other in others)
    terms = SPREAD**2 * len(matrix) + abs(before) + abs(seen)
    allowed = LAMBDA * (ELEMENTARY + len(matrix)) ** 0.5 * unit * terms + SAFETY * magnified
    where = f"{name} = {before:.9g} before, {seen:.9g} after a rotation, scales 1/2 to 2, and a shift"
    return Exact(gap(seen, before), allowed, 1 + len(others), where, "nats")


def _signs(subject: Subject, matrix: Tensor) -> Tensor:
    """(d, d) of -1 and 1, so that entries do not change together, which would be a mere scale."""
    source = torch.Generator().manual_seed(subject.seed_for("signs of the nudges"))
    return (torch.randint(2, matrix.shape, generator=source) * 2 - 1).to(matrix)


CHECKS: tuple[Check, ...] = (
    kl_invariant_under_maps,
    entropy_under_maps,
    mutual_invariant_under_maps,
    total_correlation,
)
