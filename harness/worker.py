"""The processes in which models are examined: server, wardens, children. POSIX.

    command line ── server: has imported torch, and computed nothing, so that it can be forked cheaply and safely
                      └─ warden, one a model: waits, kills, reports how the child ended
                           └─ child, in a session of its own: the author's code, under a memory limit

Each job has a channel (a socket: the parent hangs up to have the child killed, the warden answers with the child's
end), a pipe for the child's messages (JSON lines; nothing that a model could write is ever unpickled), and a pipe for
what it prints. A model may kill or exhaust its own process group and its warden; nothing else hangs on them. This
keeps accidents apart; it is no sandbox against malice.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import itertools
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

REQUEST_BYTES = 2**20
SEVERAL = 3
"""Requests of a run with more than one model."""

POLL_SECONDS = 0.2
LAST_WORDS_SECONDS = 0.2
CHANNEL_LOST = 74
"""Exit status of a child that cannot send its messages any more."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def serve(descriptor: int) -> None:
    """Say which checks there are, then fork a warden for each request, until the command line hangs up."""
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens are reaped by the system
    _greet(control)
    for served in itertools.count(1):
        # A receive never reads past the end of a message that carries descriptors, so one is one request.
        message, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES, 3)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _warden(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        if served == SEVERAL:
            _warm()


def _greet(control: socket.socket) -> None:
    """Import once what every child needs, and say so."""
    with _uncollected():
        from harness.job import laws
    with suppress(OSError):
        control.sendall(json.dumps(laws()).encode() + b"\n")


def _warm() -> None:
    """Import, while a child is at work, what a model of a large run may need, and a single one seldom does."""
    with _uncollected():
        import scipy.stats  # noqa: F401


@contextmanager
def _uncollected() -> Iterator[None]:
    """Imports: the collector would search half a million objects again and again, and find none that can go."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


# ------------------------------------------------------------------------------------------------- the warden


def _warden(request: dict[str, Any], channel: int, messages: int, output: int) -> NoReturn:
    """Start the child, wait for its end or for the parent to hang up, leave nothing of it alive, say how it ended."""
    try:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # processes that the model leaves behind are handed to the warden
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (channel, wake, woken):
                os.close(descriptor)
            _child(request, messages, output)
        os.close(messages)
        os.close(output)
        cause = _watched(child, channel, wake, request["memory"])
        status = _killed(child)
        os.write(channel, json.dumps({"code": os.waitstatus_to_exitcode(status), "cause": cause}).encode())
    finally:
        os._exit(0)


def _watched(child: int, channel: int, wake: int, memory: int) -> str:
    """Wait; 'memory' when the child had to be stopped for that, else nothing."""
    # A quarter more than `_limit_memory` allows, which is what stops an honest model: with a MemoryError of its own.
    allowed = _resident(child) + memory + memory // 4
    while True:
        ready, _, _ = select.select([channel, wake], [], [], POLL_SECONDS)
        if wake in ready:
            os.read(wake, 4096)
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return ""
        if channel in ready:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGUSR1)  # prints where it is
            time.sleep(LAST_WORDS_SECONDS)
            return ""
        if _resident(child) > allowed:
            return "memory"


def _killed(child: int) -> int:
    """Kill the child's group, reap it, then kill whoever escaped from the group; the child's status."""
    # The child is not reaped before: until then its number, and the group's, cannot be given to another process.
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    for _ in range(100):  # orphans come to their adopter one generation after the other
        strays = _children()
        for stray in strays:
            with suppress(ProcessLookupError):
                os.kill(stray, signal.SIGKILL)
        try:
            os.waitpid(-1, 0 if strays else os.WNOHANG)
        except ChildProcessError:
            break
    return status


def _prctl(option: int, value: int) -> None:
    """What only Linux offers; elsewhere, what leaves the child's process group escapes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _children() -> list[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    try:
        return [int(pid) for pid in listed.read_text().split()]
    except OSError:
        return []


def _resident(pid: int) -> int:
    """Bytes of memory in use; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


# -------------------------------------------------------------------------------------------------- the child


class Messages:
    """The child's end of the pipe of messages. A copy of the process that the model forks stops here."""

    def __init__(self, descriptor: int):
        self.descriptor, self.owner = descriptor, os.getpid()

    def send(self, **message: Any) -> None:
        if os.getpid() != self.owner:
            os._exit(0)
        line = memoryview(json.dumps(message, allow_nan=False).encode() + b"\n")
        while line:
            try:
                line = line[os.write(self.descriptor, line) :]
            except OSError:
                os._exit(CHANNEL_LOST)


def _child(request: dict[str, Any], messages: int, output: int) -> NoReturn:
    """Do the job and leave at once: threads and exit handlers that the model left are not waited for."""
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # the model may kill its warden, but not outlive it
        os.setsid()  # out of reach of the terminal and of its Ctrl-C
        _redirect(output)
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1)
        if request.get("device") != "cuda":  # whose driver reserves more than it uses; the warden's watch remains
            _limit_memory(request["memory"])
        _perform(request, Messages(messages).send)
    finally:
        os._exit(0)


def _perform(request: dict[str, Any], send: Callable[..., None]) -> None:
    from harness.job import perform
    from harness.run import raised

    try:
        perform(request, send)
    except BaseException as error:  # sys.exit among them
        seen = raised(error)
        send(raised={"kind": seen.kind, "message": seen.message, "trace": seen.trace})


def _redirect(output: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    for descriptor in (nothing, output):
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _limit_memory(growth: int) -> None:
    """Allow the process `growth` bytes of data more than it has, so that allocating too much raises MemoryError."""
    with suppress(OSError, ValueError):
        data = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
        limit = int(data.split()[1]) * 1024 + growth
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
