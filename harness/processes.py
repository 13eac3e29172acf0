"""Jobs in processes of their own, seen from the command line: bytes, deadlines and ends. `harness/worker.py` is the
other end, `harness/isolate.py` gives the jobs and reads the messages.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

TAIL_BYTES = 4096
LINE_BYTES = 2**26
TICK_SECONDS = 0.1
DEFAULT_TIMEOUT = 60.0
DEFAULT_MEMORY = 4 * 2**30

Request = dict[str, Any]
Message = dict[str, Any]
Hear = Callable[[int, Message], None]


@dataclass(frozen=True)
class Ending:
    """How a job ended. `cause` is empty when the child said `end`; else hung, memory, garbage, interrupted or died."""

    cause: str
    code: int | None
    tail: str


@dataclass
class _Running:
    """One job: its three channels and what came through them."""

    index: int
    channel: socket.socket
    messages: int
    output: int
    deadline: float | None = None  # set by the first message, so that starting the server is nobody's fault
    partial: bytes = b""
    tail: bytes = b""
    status: bytes = b""
    cause: str = ""
    ended: bool = False
    open: set[int] = field(default_factory=set)

    def hang_up(self, cause: str) -> None:
        """Have the warden kill the child, for this reason."""
        self.cause = self.cause or cause
        self.deadline = None
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)

    def ending(self) -> Ending:
        said = json.loads(self.status) if self.status else {}
        code = said.get("code")
        cause = "" if self.ended else self.cause or said.get("cause") or "died"
        return Ending(cause, code, _printable(self.tail))


class Processes:
    """A server that has imported torch, and as many children at once as there are workers.

    `timeout` is the seconds without a message after which a child counts as hung; `stop` is asked all the time whether
    the run was interrupted; `tick` is called now and then, for a display.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        timeout: float = DEFAULT_TIMEOUT,
        memory: int = DEFAULT_MEMORY,
        stop: Callable[[], bool] = lambda: False,
        tick: Callable[[], None] = lambda: None,
    ):
        self.workers, self.timeout, self.memory = workers, timeout, memory
        self.stop, self.tick = stop, tick

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        code = "import sys; sys.path[:] = sys.argv[2:]; from harness.worker import serve; serve(int(sys.argv[1]))"
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-P", "-c", code, str(theirs.fileno()), *sys.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
                # Libraries that start threads when they are imported are asked not to: the server forks.
                env={
                    **os.environ,
                    "OPENBLAS_NUM_THREADS": "1",
                    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
                },
            )
        self._control = ours
        self._said: bytes | None = b""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control.close()
        self._server.kill()  # it may still be importing; wardens, which have something to clean up, are not harmed
        self._server.wait()

    def greeting(self) -> list[list[str]]:
        """What the server says once it has imported torch: of every check its id, law, why, and source.

        Nothing, when it is stopped or dies before.
        """
        while self._said is not None and not self._said.endswith(b"\n"):
            ready, _, _ = select.select([self._control], [], [], TICK_SECONDS)
            data = self._control.recv(2**16) if ready else b""
            self._said = None if self.stop() or (ready and not data) else self._said + data
            self.tick()
        return json.loads(self._said) if self._said is not None else []

    def run(
        self, requests: Sequence[Request], hear: Hear, end: Callable[[int, Ending], None] = lambda index, ending: None
    ) -> list[Ending | None]:
        """Do all jobs; `hear(index, message)` gets what the children say, `end(index, ending)` how they ended.

        Returns the endings in the order of the requests; None for a job that was never started. A `hear` that raises
        ValueError refuses the message, which ends that child.
        """
        self.greeting()  # before any request: it need not fit into the socket's buffer
        endings: list[Ending | None] = [None] * len(requests)
        waiting = list(range(len(requests)))[::-1]
        running: dict[int, _Running] = {}
        with selectors.DefaultSelector() as selector:
            try:
                while (waiting and not self._halted()) or running:
                    while waiting and len(running) < self.workers and not self._halted():
                        index = waiting.pop()
                        running[index] = self._start(index, requests[index], selector)
                    self._listen(selector, hear)
                    self._mind(running.values())
                    for job in [job for job in running.values() if job.channel.fileno() not in job.open]:
                        self._finish(job, selector, hear)
                        ending = endings[job.index] = running.pop(job.index).ending()
                        end(job.index, ending)
                    self.tick()
            finally:
                for job in running.values():
                    job.hang_up("interrupted")
                    self._close(job, selector)
        return endings

    def alive(self) -> bool:
        """Can further jobs be started?"""
        return self._server.poll() is None

    def _halted(self) -> bool:
        """Is no further job to be started? Those that run do not need the server any more."""
        return self.stop() or not self.alive()

    def _start(self, index: int, request: Request, selector: selectors.BaseSelector) -> _Running:
        ours, theirs = socket.socketpair()
        messages, their_messages = os.pipe()
        output, their_output = os.pipe()
        job = _Running(index, ours, messages, output, open={ours.fileno(), messages, output})
        for descriptor in job.open:
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ, job)
        payload = json.dumps({**request, "memory": self.memory}).encode()
        with theirs, suppress(OSError):  # a server that died is seen as a channel that closes
            socket.send_fds(self._control, [payload], [theirs.fileno(), their_messages, their_output])
        os.close(their_messages)
        os.close(their_output)
        return job

    def _listen(self, selector: selectors.BaseSelector, hear: Hear) -> None:
        for key, _ in selector.select(TICK_SECONDS):
            if key.fd in key.data.open and not self._read(key.data, key.fd, hear):
                selector.unregister(key.fd)
                key.data.open.discard(key.fd)

    def _read(self, job: _Running, descriptor: int, hear: Hear) -> bool:
        """Take in what is there; False at the end of the stream."""
        try:
            data = os.read(descriptor, 2**16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if descriptor == job.messages:
            self._hear(job, data, hear)
        elif descriptor == job.output:
            job.tail = (job.tail + data)[-TAIL_BYTES:]
        else:
            job.status += data
        return bool(data)

    def _hear(self, job: _Running, data: bytes, hear: Hear) -> None:
        if job.cause == "garbage":
            return
        *lines, job.partial = (job.partial + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise ValueError(message)
                hear(job.index, message)
            except (ValueError, RecursionError):
                job.hang_up("garbage")
                return
            job.ended = job.ended or "end" in message
            job.deadline = time.monotonic() + self.timeout
        if len(job.partial) > LINE_BYTES:
            job.hang_up("garbage")

    def _mind(self, running: Iterable[_Running]) -> None:
        stopping = self.stop()
        for job in running:
            if stopping:
                job.hang_up("interrupted")
            elif job.deadline is not None and time.monotonic() > job.deadline:
                job.hang_up("hung")

    def _finish(self, job: _Running, selector: selectors.BaseSelector, hear: Hear) -> None:
        """The warden is gone, and so is the child: take in what is left in the pipes."""
        for descriptor in (job.messages, job.output):
            # No end is waited for: a process that escaped may hold the pipe open.
            while descriptor in job.open and select.select([descriptor], [], [], 0)[0]:
                if not self._read(job, descriptor, hear) or descriptor == job.output:
                    break
        self._close(job, selector)

    def _close(self, job: _Running, selector: selectors.BaseSelector) -> None:
        for descriptor in job.open:
            selector.unregister(descriptor)
        job.open.clear()
        job.channel.close()
        os.close(job.messages)
        os.close(job.output)


def _printable(tail: bytes) -> str:
    """What a child printed last, without anything that a terminal would obey."""
    text = tail.decode(errors="replace")
    return "".join(character for character in text if character.isprintable() or character == "\n").strip()
