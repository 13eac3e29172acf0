"""What a model is to imitate, `data()`, as pairs of draws and fresh events of the data.

A law is drawn from, as often as the model. A table is finite: its first quarter, in a random order, steers (where the
modes are, how near is near), and is no evidence; every other row is evidence once. What is tested is that draws and the
rows that come next are exchangeable. So rows are taken to be independent draws of one law, which is what "held out"
means, and an e-value of them says nothing new when they are used again in another run: such e-values do not multiply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from harness.adapters import NotAModel, adapt
from harness.chart import Chart, fit_chart
from harness.checks.law import NotApplicable
from harness.draws import Draws
from harness.model import Model
from harness.numerics.rows import finite_rows
from harness.subject import Subject

T = TypeVar("T")

LEAST_ROWS = 128
"""Rows of a table below which nothing could be said."""

MOST_DRAWS = 8
"""Draws that a row of a table is held against, where there are more draws than rows: their mean has 1/8 of the noise
of one, and the row has all of its own, so that more would help little."""


@dataclass(frozen=True)
class Imitated:
    """The data of a model: a law, or the rows of a table that are evidence. `steer` are events that are none."""

    steer: Tensor
    chart: Chart
    law: Model | None
    table: Tensor
    group: int
    """Draws to a row."""

    @property
    def rows(self) -> str:
        """How many rows there are, where they are finite, as a part of a label."""
        return "" if self.law is not None else f", of {len(self.table):,} rows of data"


def imitated(subject: Subject) -> Imitated:
    """The data, worked out once. Raises ValueError for what is none, NotApplicable for too few rows."""
    return subject.once("what is imitated", lambda: _imitated(subject))


def _imitated(subject: Subject) -> Imitated:
    said = subject.model.data()
    table = isinstance(said, Tensor | np.ndarray)
    if not table:
        law, pilot = _law(subject, said), subject.effort.pilot
        steer = _drawn(subject, law, pilot, "data", "pilot")
        return Imitated(steer, _chart(steer), law, steer[:0], 1)
    rows = events(subject, said, "data()")
    if len(rows) < LEAST_ROWS:
        raise NotApplicable(f"data() has {len(rows)} rows, and {LEAST_ROWS} are the least that can say anything")
    order = torch.randperm(len(rows), generator=subject.generator("order of the data"), device=rows.device)
    few = min(subject.effort.pilot, len(rows) // 4)
    steer, kept = rows[order[:few]], rows[order[few:]]
    group = max(1, min(MOST_DRAWS, subject.effort.draws // len(kept)))
    return Imitated(steer, _chart(steer), None, kept, group)


def of_data(subject: Subject, statistic: T) -> T:
    """The statistic, marked where it rests on rows of a table, which every run sees again."""
    statistic.reused = imitated(subject).law is None  # type: ignore[attr-defined]
    return statistic


def events(subject: Subject, said: object, name: str) -> Tensor:
    """A table of events that the model stated. Raises ValueError for anything else."""
    rows = torch.as_tensor(said, device=subject.model.device) if isinstance(said, Tensor | np.ndarray) else None
    if rows is None or rows.ndim == 0 or rows.shape[1:] != subject.pilot.shape[1:]:
        seen = type(said).__name__ if rows is None else f"tensor of shape {tuple(rows.shape)}"
        shape = tuple(subject.pilot.shape[1:])
        raise ValueError(f"{name} is a {seen}; events of shape {shape} were asked for, a row each")
    if not bool(finite_rows(rows).all()):
        raise ValueError(f"{name} has rows that are not finite: leave them out")
    return rows.detach()


def _law(subject: Subject, said: object) -> Model:
    if isinstance(said, Model) and not said.can("sample"):
        said = said.target  # of another library, which has a sampler under another name
    try:
        law = adapt(said, f"data of {subject.model.name}", subject.model.device)
    except NotAModel:
        law = None
    if law is None or not law.can("sample"):
        raise ValueError(
            f"data() is a {type(said).__name__} that cannot be drawn from; a model that can sample was asked for, or a "
            "tensor of events that were not trained on"
        )
    return law


def _drawn(subject: Subject, law: Model, n: int, *names: str | int) -> Tensor:
    with torch.no_grad():
        return events(subject, law.sample(n, generator=subject.generator(*names)), "a draw of data()")


def _chart(steer: Tensor) -> Chart:
    """Standard coordinates of the data, so that a model's own defects do not stretch them."""
    size = steer[0].numel()
    return fit_chart(steer, None, torch.zeros(size, dtype=torch.bool, device=steer.device))


def fresh(draws: Draws) -> Tensor:
    """The events of the data that go with this chunk: as many of a law; of a table the next rows, if any are left."""
    return draws.once("events of the data", lambda: _fresh(draws))


def _fresh(draws: Draws) -> Tensor:
    subject = draws.subject
    data = imitated(subject)
    if data.law is not None:
        return _drawn(subject, data.law, draws.n, "data", draws.index)
    begins: dict[int, int] = subject.once("where chunks of the data begin", dict)
    start = begins.setdefault(draws.index, 0)
    rows = data.table[start : start + draws.n // data.group]
    begins.setdefault(draws.index + 1, start + len(rows))
    return rows


def difference(draws: Draws, columns: Callable[[Tensor], Tensor]) -> Tensor:
    """(rows, k): columns (n, k) of draws less those of the data; a row of a table against the mean of its draws."""
    y, group = fresh(draws), imitated(draws.subject).group
    if not len(y):
        return columns(draws.x[:1])[:0]
    return columns(draws.x[: len(y) * group]).unflatten(0, (len(y), group)).mean(1) - columns(y)
