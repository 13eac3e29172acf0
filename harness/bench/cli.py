"""The commands `harness bench` and `harness regressions`: names, types and help; the work is imported late."""

from __future__ import annotations

from harness.errors import CallError


def bench() -> int:
    """Time two things beside each other, in turns, and say which is faster and by how much."""
    raise CallError("bench is not there yet")


def regressions() -> int:
    """Read a stored history and say where time, memory or NLL took a step that is beyond noise."""
    raise CallError("regressions is not there yet")
