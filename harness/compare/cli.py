"""The command `harness compare`: names, types and help; the work is imported late."""

from __future__ import annotations

from harness.errors import CallError


def compare() -> int:
    """Rank models on a data set by what they give unseen draws; only models that conform are ranked."""
    raise CallError("compare is not there yet")
