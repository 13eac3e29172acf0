"""What ends a call of the command line before its end."""

from __future__ import annotations


class CallError(ValueError):
    """The call itself was wrong (exit status 2); the message is one line that names the fix."""


class InterruptedRunError(Exception):
    """The run was stopped; the message says what is kept of it (exit status 130)."""


def out_of_memory(error: BaseException) -> bool:
    """Did memory run out? That is a limit of the process, and says nothing of what the model was asked.

    Python and numpy raise MemoryError, torch a RuntimeError that only its text tells apart: "can't allocate memory" on
    the CPU, "out of memory" on a GPU.
    """
    if isinstance(error, RuntimeError):
        return "allocate memory" in str(error) or "out of memory" in str(error)
    return isinstance(error, MemoryError)
