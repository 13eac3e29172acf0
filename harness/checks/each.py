"""One law of samplers and densities for several models that belong to one subject, as one check: of its slices, say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from harness.checks.law import NotApplicable, StatisticalCheck
from harness.draws import Draws
from harness.statistics.accumulator import Accumulator
from harness.statistics.bernstein import Sums
from harness.statistics.several import Several
from harness.subject import Subject

Parts = Callable[[Subject], Sequence[tuple[str, Subject]]]
"""Names and subjects of the models that belong to a subject."""


def for_each(
    law: StatisticalCheck,
    parts: Parts,
    *,
    id: str,
    says: str,
    why: str,
    needs: tuple[str, ...],
    blocked_by: tuple[str, ...],
) -> StatisticalCheck:
    """The check of that law for all parts to which it applies; each draws as many rows as the check takes."""

    def start(subject: Subject) -> Accumulator:
        found, refusal = [], None
        for name, part in parts(subject):
            try:
                found.append((name, part, law.start(part)))
            except NotApplicable as reason:
                refusal = reason
        if not found:
            raise refusal or NotApplicable("there is no part to look at")
        subject.once(f"parts of {id}", lambda: [(name, part) for name, part, _ in found])
        return Several([statistic for _, _, statistic in found], [len(labels_of(part)) for _, part, _ in found])  # type: ignore[return-value]

    def labels_of(part: Subject) -> list[str]:
        return law.labels(part) if law.labels is not None else [""]

    def chosen(subject: Subject) -> list[tuple[str, Subject]]:
        return subject.once(f"parts of {id}", list)

    def numbers(draws: Draws) -> list[Tensor | Sums]:
        return [law.numbers(draws_of(draws, name, part)) for name, part in chosen(draws.subject)]

    return StatisticalCheck(
        id=id,
        law=says,
        why=f"{why} See `{law.id}`, which says this of one law.\n\n{law.law}\n\n{law.why}",
        source=law.source,
        needs=needs,
        blocked_by=blocked_by,
        unit=law.unit,
        numbers=numbers,  # type: ignore[arg-type]  # lists, which `Several` takes apart
        start=start,
        labels=lambda subject: [
            f"{name} {label}".strip() for name, part in chosen(subject) for label in labels_of(part)
        ],
        tolerance=law.tolerance,
        share=law.share,
        asymptotic=law.asymptotic,
    )


def draws_of(draws: Draws, name: str, part: Subject) -> Draws:
    """The chunk of the part of that name that goes with this one, drawn once for all laws."""
    return draws.once(f"draws of {name}", lambda: Draws(part, draws.index, draws.n))
