"""Small recipes for `harness compare`: some that conform, and some that cost their own row only."""

import os
import time

import torch
from torch import Generator, Tensor, nn


class Independent:
    """Independent Gaussians, fitted by means and standard deviations."""

    def __init__(self, x: Tensor):
        self.law = torch.distributions.Normal(x.mean(0), x.std(0, correction=0))

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        z = torch.randn(n, len(self.law.loc), generator=generator, dtype=self.law.loc.dtype)
        return self.law.loc + self.law.scale * z

    def log_prob(self, x: Tensor) -> Tensor:
        return self.law.log_prob(x).sum(-1)


class Narrow(Independent):
    """The same with half the scale: a model that conforms, and fits worse."""

    def __init__(self, x: Tensor):
        super().__init__(x)
        self.law = torch.distributions.Normal(self.law.loc, self.law.scale / 2)


class Boastful(Independent):
    """Its density has the mass e^2."""

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) + 2


class Bits:
    """Independent bits."""

    def __init__(self, x: Tensor, levels: tuple[int, ...]):
        self.p = (x.double().sum(0) + 1) / (len(x) + 2)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return (torch.rand(n, len(self.p), generator=generator, dtype=torch.float64) < self.p).long()

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.where(x == 1, self.p.log(), (1 - self.p).log()).sum(-1)


class Learnt(nn.Module):
    """N(loc, exp(log_scale)^2), to be trained."""

    def __init__(self, d: int = 2):
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(torch.zeros(d)), nn.Parameter(torch.zeros(d))

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return (self.loc + self.log_scale.exp() * torch.randn(n, len(self.loc), generator=generator)).detach()

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.distributions.Normal(self.loc, self.log_scale.exp()).log_prob(x).sum(-1)


def crashes(x: Tensor) -> None:
    os.abort()


def hangs(x: Tensor) -> None:
    time.sleep(600)


def twice(x: Tensor) -> Independent:
    """The same model as `Independent`, so that the two tie."""
    return Independent(x)


def restless(x: Tensor, seed: int) -> Independent:
    """A training that ends elsewhere at each seed."""
    return Independent(x * (1 + 0.1 * seed))


def mortal(x: Tensor, seed: int) -> Independent:
    """It does not live at seed 4."""
    if seed == 4:
        os.abort()
    return Independent(x)
