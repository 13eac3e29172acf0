"""Small models that are what they say, and things that are no models, for the tests of the command line."""

from functools import partial

import torch
from torch import Tensor
from torch.distributions import Normal


class Plain:
    """A standard Gaussian in the plane."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return Normal(0.0, 1.0).log_prob(x).sum(-1)


class Named(Plain):
    def __init__(self, name: str = "called by its own name"):
        self.name = name


class Shifted(Plain):
    """The sampler is off by 0.3 standard deviations."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return super().sample(n, generator=generator) + 0.3


class Holder:
    inside = Plain()


def factory() -> Plain:
    return Plain()


def broken_factory() -> Plain:
    raise RuntimeError("the weights are\nnot there")


def needs_arguments(scale: float) -> Plain:
    return Plain()


def makes_a_list() -> list[Plain]:
    return [Plain(), Plain()]


plain = Plain()
number = 3
empty: list[Plain] = []
several = [Plain(), Plain, factory, Named(), Normal(0.0, 1.0), partial(Named, "x"), lambda: Plain()]
same_names = (Named("twin"), Named("twin"))
by_name = {"first one": Plain(), "second": factory}
mixed = [Plain(), 3]
late_trouble = [Plain, broken_factory]
