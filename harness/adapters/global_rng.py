"""Draws by code that knows torch's global generator only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def numpy_left_alone() -> Iterator[None]:
    """numpy's global generator is afterwards as it was: for code that is given a seed, and reseeds that one with it."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Inside, the global generator of the device goes on where `generator` stands; afterwards, both are as if the code
    had been given `generator`, and had left the global one alone.

    A model on an accelerator may draw on the CPU as well: there, the global generator is seeded from `generator`.
    """
    if generator.device.type == "cpu":
        with _swapped(torch.default_generator, generator):
            yield
        return
    on_cpu = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
    with _swapped(_global(generator.device), generator), _swapped(torch.default_generator, on_cpu):
        yield


@contextmanager
def _swapped(common: torch.Generator, own: torch.Generator) -> Iterator[None]:
    saved = common.get_state()
    common.set_state(own.get_state())
    try:
        yield
        own.set_state(common.get_state())
    finally:
        common.set_state(saved)


def _global(device: torch.device) -> torch.Generator:
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
