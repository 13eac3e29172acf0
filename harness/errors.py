"""What ends a call of the command line before its end."""

from __future__ import annotations


class CallError(ValueError):
    """The call itself was wrong (exit status 2); the message is one line that names the fix."""


class InterruptedRunError(Exception):
    """The run was stopped before anything was examined (exit status 130)."""
