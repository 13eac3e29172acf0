"""What a model could change in the process around it: saved, compared and put back."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def switches() -> dict[str, object]:
    """Name to value of the process-wide settings of torch and numpy that decide what arithmetic gives."""
    return {
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "torch's deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "torch's number of threads": torch.get_num_threads(),
        "torch's precision of float32 products": torch.get_float32_matmul_precision(),
        "numpy's error handling": tuple(sorted(np.geterr().items())),
    }


def switched(before: dict[str, object]) -> list[str]:
    """Names of the settings that are no longer as they were."""
    now = switches()
    return [name for name in before if now[name] != before[name]]


@contextmanager
def preserved() -> Iterator[None]:
    """Settings, warning filters and global generators are afterwards as they were, whatever a model did to them.

    What did not change is not set: some setters are dear, and touching the filters shows old warnings once more.
    """
    grad, dtype, device = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    filters = list(warnings.filters)
    errors, states = np.geterr(), (torch.get_rng_state(), np.random.get_state(), random.getstate())
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        now = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        if now != (deterministic, warn_only):  # setting them makes torch import its compiler: most of a second
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)
        if list(warnings.filters) != filters:
            warnings.resetwarnings()
            warnings.filters[:] = filters  # type: ignore[index]  # a list, whatever its stub says
        np.seterr(**errors)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
