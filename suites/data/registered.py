"""Data sets under the names by which `harness compare --data` finds them (entry points of the group harness.data).

A frontier is the lowest mean test NLL, in nats, that we found published for exactly this split and this treatment of
the data; a model that is better should bring an exact certificate of normalisation.
"""

from pathlib import Path
from typing import Any

from suites import data
from suites.data.source import Splits

AS_PUBLISHED = "as published"
FRONTIERS = {
    "nltcs": (5.99, "hidden Chow-Liu trees, Liu & Van den Broeck 2021"),
    "binarized_mnist": (79.20, "Diagonal BiLSTM, van den Oord, Kalchbrenner & Kavukcuoglu 2016"),
}
"""Name to nats and source."""


def nltcs(path: str | Path | None = None) -> dict[str, Any]:
    """16 bits, 16,181 / 2,157 / 3,236 rows."""
    return _with_frontier("nltcs", data.nltcs(path))


def binarized_mnist(path: str | Path | None = None) -> dict[str, Any]:
    """Static binarisation, 784 bits, 50,000 / 10,000 / 10,000 rows."""
    return {**_with_frontier("binarized_mnist", data.binarized_mnist(path)), "image": (28, 28)}


def old_faithful(path: str | Path | None = None) -> dict[str, Any]:
    """272 eruptions: duration and waiting time in minutes."""
    return {"x": data.old_faithful(path), "discrete": False}


def _with_frontier(name: str, splits: Splits) -> dict[str, Any]:
    frontier, source = FRONTIERS[name]
    return {**splits._asdict(), "discrete": True, "frontier": frontier, "frontier_source": source}
