"""Models whose cost is known, for the tests of `harness bench`."""

import os
import signal
import time

import torch
from torch import Tensor
from torch.distributions import Normal


class Quick:
    """A standard normal that sleeps 10 ms before it answers: a clock that other processes cannot slow down much."""

    seconds, mean = 0.010, 0.0

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 1, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return Normal(self.mean, 1.0).log_prob(x).sum(-1)


class Slow(Quick):
    """10 % slower."""

    seconds = 0.011


class Double(Quick):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x).double()


class Short(Quick):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x)[1:]


class Infinite(Quick):
    def log_prob(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 1, -torch.inf, super().log_prob(x))


class Hangs(Quick):
    seconds = 1e6


class Dies(Quick):
    def log_prob(self, x: Tensor) -> Tensor:
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        return x


class Leaves(Quick):
    def log_prob(self, x: Tensor) -> Tensor:
        os._exit(3)


class Raises(Quick):
    def log_prob(self, x: Tensor) -> Tensor:
        raise ArithmeticError("no such luck")
