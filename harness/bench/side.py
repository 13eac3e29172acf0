"""The parent's end of one side: a process that is asked, answers, and whose end costs one clear line."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import CallError

TICK_SECONDS = 0.1
CODE = (
    "import sys; sys.path[:] = sys.argv[3:]; from harness.bench.worker import serve; "
    "serve(int(sys.argv[1]), int(sys.argv[2]))"
)


class SideError(Exception):
    """A side failed; one line that says which, at what, and how."""


class Side:
    """A process in which one model lives. Close it, or use it in a `with`."""

    def __init__(self, label: str, folder: Path, *, threads: int, timeout: float):
        """`label` names it in messages; it works in `folder`, where its SPEC is looked up."""
        self.label, self.timeout = label, timeout
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", CODE, str(requests), str(answers), *map(os.path.abspath, sys.path)],
            pass_fds=[requests, answers],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
            env={**os.environ, **counts},
        )
        os.close(requests)
        os.close(answers)
        self._partial = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer. CallError where the side was called wrongly, SideError where it failed, hung or died."""
        self.send(do, **request)
        return self.receive(do)

    def send(self, do: str, **request: Any) -> None:
        """Ask, and do not wait: several sides can then start at once."""
        with suppress(BrokenPipeError):  # whoever is gone is noticed by the answer
            os.write(self._requests, json.dumps({"do": do, **request}).encode() + b"\n")

    def receive(self, doing: str) -> dict[str, Any]:
        """The answer to what was sent."""
        line = self._line(doing)
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise SideError(f"{self.label}: wrote on the channel of the benchmark during {doing}") from None
        if "refused" in answer:
            raise CallError(str(answer["refused"]))
        if "raised" in answer:
            raise SideError(f"{self.label}: {answer['raised']} (during {doing})")
        return answer

    def _line(self, doing: str) -> bytes:
        deadline = time.monotonic() + self.timeout
        while b"\n" not in self._partial:
            ready, _, _ = select.select([self._answers], [], [], TICK_SECONDS)
            if ready:
                data = os.read(self._answers, 2**16)
                if not data:
                    raise SideError(f"{self.label}: {self._end()} during {doing}{self._last_words()}")
                self._partial += data
            elif time.monotonic() > deadline:
                raise SideError(
                    f"{self.label}: no answer for {self.timeout:g} s during {doing}: raise --timeout if it is slow"
                )
        line, _, self._partial = self._partial.partition(b"\n")
        return line

    def _end(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(5)
            return f"killed by {_signal_name(-code)}" if code < 0 else f"left its process with exit status {code}"
        return "closed its channel"

    def _last_words(self) -> str:
        """The last line that it printed, without anything that a terminal would obey."""
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - 4096))
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        last = "".join(c for c in lines[-1] if c.isprintable())[-200:] if lines else ""
        return f"; it printed last: {last}" if last else ""

    def close(self) -> None:
        """End the process and all of its group."""
        for descriptor in (self._requests, self._answers):
            with suppress(OSError):
                os.close(descriptor)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._said.close()


def close_all(sides: Sequence[Side]) -> None:
    for side in sides:
        side.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
