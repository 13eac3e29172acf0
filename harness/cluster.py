"""Jobs on a Dask cluster (the extra `cluster`): the interface of `Processes`, and its isolation on each worker.

    command line ── scheduler ── Dask worker, one or many: `Processes` with one child at a time ── child: the model

A job is a function of its request alone, and goes to whichever worker is free; what its child says comes back when it
is over. So the records are those of a run on one machine. A Dask worker that dies takes no verdict with it: the
scheduler gives its job to another one. Jobs for CUDA go to workers that offer the resource GPU.

Workers are to have the same harness and torch installed, and to see the folder in which the command was started, from
which local SPECs are read. See https://distributed.dask.org/en/stable/resources.html for resources.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from harness.errors import CallError
from harness.processes import DEFAULT_MEMORY, DEFAULT_TIMEOUT, TICK_SECONDS, Ending, Hear, Message, Processes, Request

CONNECT_SECONDS = 10.0
ASK_SECONDS = 1.0
"""How often a worker asks whether the run was stopped."""
STOP_SECONDS = 10.0
"""How long a stopped run waits for what its jobs have found."""
GPU = {"GPU": 1}

Said = tuple[list[Message], Ending | None]


def _check_address(address: str) -> None:
    """Refuse what is no address before a client waits for it. CallError with one line that names the form."""
    from distributed.comm import get_address_host_port

    if address.startswith(("ucx://", "inproc://")):  # of which only the client can tell
        return
    try:
        _, port = get_address_host_port(address)
        if not 0 < port < 2**16:
            raise ValueError(f"there is no port {port}")
    except ValueError as error:
        raise CallError(f"--scheduler {address!r} is no address ({error}): give one such as tcp://host:8786") from None


class Cluster:
    """The workers of the Dask scheduler at an address. CallError when they cannot do the work.

    `timeout`, `memory`, `stop` and `tick` are those of `Processes`.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        memory: int = DEFAULT_MEMORY,
        stop: Callable[[], bool] = lambda: False,
        tick: Callable[[], None] = lambda: None,
    ):
        self.address, self.timeout, self.memory, self.stop, self.tick = address, timeout, memory, stop, tick

    def __enter__(self) -> Self:
        try:
            from distributed import Client
        except ImportError:
            raise CallError("--scheduler needs Dask: pip install 'genharness[cluster]'") from None
        for name in ("distributed", "distributed.client", "distributed.core", "distributed.comm"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is said in our words
        _check_address(self.address)
        try:
            self._client = Client(self.address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise CallError(
                f"no Dask scheduler answers at {self.address} ({error or type(error).__name__}): start one with "
                "`dask scheduler`, workers with `dask worker ADDRESS`, and give its address, such as tcp://host:8786"
            ) from None
        try:
            self._examine_workers()
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def _examine_workers(self) -> None:
        """Every worker has our versions, and our folder."""
        if not self._client.scheduler_info(n_workers=-1)["workers"]:
            raise CallError(f"no worker has joined the scheduler at {self.address}: start some with `dask worker`")
        folder, ours = os.getcwd(), _versions()
        try:
            facts = self._client.run(_facts, folder)
        except ModuleNotFoundError as error:
            raise CallError(
                f"a worker of {self.address} cannot import {error.name}: install genharness there"
            ) from None
        for worker, (versions, there) in facts.items():
            if versions != ours:
                raise CallError(f"worker {worker} has {versions}, and this command {ours}: install the same")
            if not there:
                raise CallError(f"worker {worker} does not see {folder}: SPECs need a file system that all share")

    def greeting(self) -> list[tuple[str, str, str, str]]:
        """Of every check its id, law, why, and source."""
        from harness.job import laws

        return laws()

    def run(
        self, requests: Sequence[Request], hear: Hear, end: Callable[[int, Ending], None] = lambda index, ending: None
    ) -> list[Ending | None]:
        """Do all jobs, as `Processes.run` does; what a child says is heard when it has ended."""
        from distributed import Event

        self._offered(requests)
        stopped = Event(f"harness-{uuid.uuid4().hex}", client=self._client)
        waiting = {self._submitted(request, stopped.name, index): index for index, request in enumerate(requests)}
        endings: list[Ending | None] = [None] * len(requests)
        deadline = float("inf")
        while waiting and time.monotonic() < deadline:
            for future in [future for future in waiting if future.done()]:
                index = waiting.pop(future)
                ending = endings[index] = _heard(future, index, hear)
                if ending is not None:
                    end(index, ending)
            if self.stop() and deadline == float("inf"):
                deadline = time.monotonic() + STOP_SECONDS
                stopped.set()
            self.tick()
            self._wait(list(waiting))
        for future, index in waiting.items():  # nobody answers any more
            future.cancel()
            endings[index] = Ending("interrupted", None, "")
            end(index, Ending("interrupted", None, ""))
        return endings

    def _wait(self, futures: Sequence[Any]) -> None:
        """For one of them, or for a moment."""
        from distributed import wait

        if futures:
            with self._client.as_current(), suppress(TimeoutError):
                wait(futures, timeout=TICK_SECONDS, return_when="FIRST_COMPLETED")

    def _offered(self, requests: Sequence[Request]) -> None:
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        if any(map(_needs_gpu, requests)) and not any("GPU" in worker["resources"] for worker in workers):
            raise CallError(
                "--device is cuda, but no worker offers a GPU: start some with `dask worker ADDRESS --resources GPU=1`"
            )

    def _submitted(self, request: Request, stopped: str, index: int) -> Any:
        asked = {**request, "folder": os.getcwd()}
        return self._client.submit(
            _perform,
            *(asked, self.timeout, self.memory, stopped),
            key=f"{stopped}-{index}",
            pure=False,
            resources=GPU if _needs_gpu(request) else None,
        )


def _needs_gpu(request: Request) -> bool:
    return request.get("device") == "cuda"


def _heard(future: Any, index: int, hear: Hear) -> Ending | None:
    """Pass on what a job's child said; its ending, None when the job was stopped before it started."""
    if future.status != "finished":  # the workers that had it died, time after time, or the scheduler did
        error = future.exception() if future.status == "error" else "the scheduler dropped it"
        return Ending("cluster", None, " ".join(str(error).split()))
    messages, ending = future.result()
    for message in messages:
        try:
            hear(index, message)
        except (ValueError, RecursionError):
            return Ending("garbage", None, ending.tail if ending is not None else "")
    return ending


# -------------------------------------------------------------------------------------------- on the workers

_kept = threading.local()


def _perform(request: Request, timeout: float, memory: int, stopped: str) -> Said:
    """Do one job in a child of this worker: what it said, and how it ended."""
    stop = _Asked(stopped)
    if stop():
        return [], None
    processes = _processes()
    processes.timeout, processes.memory, processes.stop = timeout, memory, stop
    said: list[Message] = []
    (ending,) = processes.run([request], lambda _, message: said.append(message))
    return said, ending


def _processes() -> Processes:
    """This thread's server, which has imported torch: one for all its jobs."""
    if getattr(_kept, "processes", None) is None or not _kept.processes.alive():
        _kept.processes = Processes().__enter__()  # it ends with this process, which holds the other end of its socket
    return _kept.processes


class _Asked:
    """Was the run stopped? The scheduler is asked now and then."""

    def __init__(self, name: str):
        from distributed import Event

        self.event, self.next, self.stopped = Event(name), 0.0, False

    def __call__(self) -> bool:
        if not self.stopped and time.monotonic() >= self.next:
            self.next = time.monotonic() + ASK_SECONDS
            self.stopped = self.event.is_set()
        return self.stopped


def _versions() -> dict[str, str]:
    from harness.report import versions

    return {name: version for name, version in versions().items() if name in ("harness", "torch", "python", "numpy")}


def _facts(folder: str) -> tuple[dict[str, str], bool]:
    return _versions(), os.path.isdir(folder)
