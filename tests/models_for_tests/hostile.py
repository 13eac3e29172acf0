"""Models that misbehave, each in its own way, after a few harmless calls."""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Normal


class Hostile:
    """A standard normal which calls `misbehave` at the third evaluation of its density."""

    def __init__(self) -> None:
        self.calls = 0

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 1, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 3:
            self.misbehave()
        return Normal(0.0, 1.0).log_prob(x).sum(-1)

    def misbehave(self) -> None:
        raise NotImplementedError


class Hangs(Hostile):
    def misbehave(self) -> None:
        while True:
            time.sleep(0.01)


class HangsDeafly(Hostile):
    """Ignores every signal that can be ignored."""

    def misbehave(self) -> None:
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass


class Raises(Hostile):
    def misbehave(self) -> None:
        raise ArithmeticError("no such luck")


class Exits(Hostile):
    def misbehave(self) -> None:
        sys.exit(3)


class LeavesAtOnce(Hostile):
    def misbehave(self) -> None:
        print("so long")
        os._exit(0)


class Segfaults(Hostile):
    def misbehave(self) -> None:
        ctypes.string_at(0)


class EatsMemory(Hostile):
    def misbehave(self) -> None:
        hoard = []
        while True:
            hoard.append(bytearray(2**26))


class EatsSharedMemory(Hostile):
    """Memory that no limit on the data of a process counts."""

    def misbehave(self) -> None:
        hoard = []
        while True:
            hoard.append(mmap.mmap(-1, 2**26))
            hoard[-1].write(b"x" * 2**26)
            time.sleep(0.01)


class PrintsAMegabyte(Hostile):
    def misbehave(self) -> None:
        for _ in range(2**4):
            print("x" * 2**16)
            print("\x1b[31mred" * 2**10, file=sys.stderr)


class PrintsAndFalls(Hostile):
    def misbehave(self) -> None:
        print("y" * 2**20)
        print("my last \x1b[31mwords", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGKILL)


class LeavesThread(Hostile):
    def misbehave(self) -> None:
        threading.Thread(target=time.sleep, args=(10_000,), name="straggler").start()


class LeavesDaemon(Hostile):
    """Allowed: the interpreter does not wait for daemons."""

    def misbehave(self) -> None:
        threading.Thread(target=time.sleep, args=(10_000,), daemon=True).start()


class LeavesProcesses(Hostile):
    """One child in the process group, and one that escaped from it. Their numbers go to a file."""

    def misbehave(self) -> None:
        sleeper = [sys.executable, "-c", "import time; time.sleep(10_000)"]
        left = [subprocess.Popen(sleeper), subprocess.Popen(sleeper, start_new_session=True)]
        Path(os.environ["HARNESS_TEST_PIDS"]).write_text(" ".join(str(process.pid) for process in left))


class Forks(Hostile):
    """Both copies of the process go on."""

    def misbehave(self) -> None:
        os.fork()


class ClosesDescriptors(Hostile):
    def misbehave(self) -> None:
        os.closerange(0, 256)


class WritesEverywhere(Hostile):
    def misbehave(self) -> None:
        for descriptor in range(1, 256):
            try:
                os.write(descriptor, b"\xff\x00garbage\n{}\n[]\n")
            except OSError:
                continue


class ChangesItsProcess(Hostile):
    """Allowed, since the process is its own."""

    def misbehave(self) -> None:
        os.chdir("/")
        os.environ.clear()
        sys.path.clear()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout = sys.stderr = None


class KillsItsWatcher(Hostile):
    def misbehave(self) -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(10_000)
