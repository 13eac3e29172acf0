"""Several statistics as one: of the same law for several conditions, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.evidence import Look
from harness.statistics.accumulator import Accumulator, log_mean_exp
from harness.statistics.bernstein import Sums
from harness.statistics.carried import Carries, Quads


class Several:
    """Is the law's number 0 for each of m statistics? Streams lists of m chunks, one a statistic.

    Intervals are at 1 - (1 - confidence) / m each, so that they hold together (Boole), and the e-value is the mean of
    theirs, which is one whatever the dependence between them (Vovk & Wang 2021, https://arxiv.org/abs/1912.06116).
    `columns` are the numbers of quantities that each watches, by which the column of a look is counted through.
    """

    def __init__(self, parts: Sequence[Accumulator], columns: Sequence[int]):
        if not parts:
            raise ValueError("there is no statistic to combine")
        self.parts, self.columns = list(parts), list(columns)

    @property
    def strictness(self) -> float:
        """The strictest of all."""
        return max(getattr(part, "strictness", 1.0) for part in self.parts)

    def update(self, values: Sequence[Tensor | Sums]) -> None:
        """Each takes in its own chunk."""
        for part, chunk in zip(self.parts, values, strict=True):
            part.update(chunk)  # type: ignore[arg-type]  # a law knows its statistic

    @property
    def reused(self) -> bool:
        """Does any rest on what every run sees again?"""
        return any(getattr(part, "reused", False) for part in self.parts)

    def carried(self, doubt: float) -> Quads:
        """What later runs go on from, of all parts."""
        return torch.cat([part.carried(doubt) for part in self._carrying()])

    def allowing(self, doubt: float) -> float:
        """The mean of the parts' e-values, as a logarithm."""
        return log_mean_exp(torch.tensor([part.allowing(doubt) for part in self._carrying()], dtype=torch.float64))

    def _carrying(self) -> list[Carries]:
        return [part for part in self.parts if isinstance(part, Carries)]

    def look(self, confidence: float) -> Look:
        """The look of the part whose interval reaches furthest from 0, with the evidence against all."""
        looks = [part.look(1 - (1 - confidence) / len(self.parts)) for part in self.parts]
        return self._of(looks, max(range(len(looks)), key=lambda i: (looks[i].bound != looks[i].bound, looks[i].bound)))

    def suspect(self, confidence: float) -> Look:
        """The look of the part with the strongest evidence against it, at its most suspicious quantity."""
        at = 1 - (1 - confidence) / len(self.parts)
        looks = [getattr(part, "suspect", part.look)(at) for part in self.parts]
        return self._of(looks, max(range(len(looks)), key=lambda i: looks[i].log_e))

    def _of(self, looks: Sequence[Look], which: int) -> Look:
        evidence = log_mean_exp(torch.tensor([look.log_e for look in looks], dtype=torch.float64))
        column = sum(self.columns[:which]) + looks[which].column
        return replace(looks[which], log_e=evidence, column=column)
