"""One thread, as in every timing."""

from __future__ import annotations

import pytest
import torch

from harness.bench.settings import pinned


@pytest.fixture(autouse=True)
def one_thread():
    with pinned(1), torch.no_grad():
        yield
