"""asv: what the examiner itself takes: whole examinations, its statistics, its integrals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.statistics.asymptotic import AsymptoticMean
from harness.statistics.band import UniformBand
from harness.statistics.bernstein import BoundedMean
from harness.statistics.binomial import BinomialCount
from harness.statistics.categorical import CategoricalCounts
from suites import cost, cost_models

from . import measures
from .measures import SEED, Samples

EXAMINED: dict[str, Callable[[], Any]] = {
    "Normal": cost_models.normal,
    "64-d Gaussian": cost_models.gaussian_64d,
    "coupling flow": cost_models.coupling_flow,
}


class Examination:
    """Every check of a model, in one process, where none can pass before it has had so many draws."""

    params = (list(EXAMINED), [2**12, 2**16])
    param_names = ("model", "draws")
    version = "1"
    timeout = 600

    def setup(self, name: str, draws: int) -> None:
        measures.on("cpu")
        self.model, self.draws = EXAMINED[name](), draws

    def run(self) -> None:
        cost.examined(self.model, self.draws)

    def track_seconds(self, *_: Any) -> Samples:
        return measures.seconds(self.run, "cpu", budget=0.0, fewest=3)

    def track_peak_bytes(self, *_: Any) -> int:
        return measures.peak_bytes_of(self.run, "cpu")

    track_seconds.unit, track_peak_bytes.unit = "seconds", "bytes"


STATISTICS: dict[str, Callable[[], Any]] = {
    "BoundedMean": BoundedMean,
    "AsymptoticMean": AsymptoticMean,
    "UniformBand": UniformBand,
    "BinomialCount": lambda: BinomialCount(0.5),
    "CategoricalCounts": lambda: CategoricalCounts(torch.full((16,), 1 / 16)),
}


def values(name: str, rows: int, source: torch.Generator) -> Tensor:
    """Draws under which the law holds that the statistic tests."""
    if name == "CategoricalCounts":
        return torch.randint(16, (rows,), generator=source)
    u = torch.rand(rows, generator=source)
    if name == "BinomialCount":
        return u < 0.5
    return u if name == "UniformBand" else 2 * u - 1


class Statistic:
    """An update with a chunk of rows, and a look; seconds of one row."""

    params = (list(STATISTICS), [2**10, 2**14])
    param_names = ("statistic", "rows")
    version = "1"

    def setup(self, name: str, rows: int) -> None:
        measures.on("cpu")
        self.name, self.rows, self.statistic = name, rows, STATISTICS[name]()

    def fresh(self, i: int) -> Tensor:
        return values(self.name, self.rows, torch.Generator().manual_seed(SEED + i))

    def run(self, chunk: Tensor) -> Any:
        self.statistic.update(chunk)
        return self.statistic.look(0.999)

    def track_seconds(self, *_: Any) -> Samples:
        return measures.seconds(self.run, "cpu", self.rows, fresh=self.fresh)

    track_seconds.unit = "seconds"
