"""One thread: the tests run side by side. Real data come from HARNESS_DATA alone: no test downloads any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from suites import data

torch.set_num_threads(1)

PLACES = {
    "nltcs": "debd/nltcs/nltcs.train.data",
    "old_faithful": "small/geyser.csv",
    "binarized_mnist": "binarized_mnist/binarized_mnist_packbits.npz",
}


@pytest.fixture(scope="session")
def here():
    """Skips the test where a data set is in a file, and that file is not here."""

    def check(name: str) -> None:
        folder = os.environ.get("HARNESS_DATA")
        if name in PLACES and not (folder and (Path(folder) / PLACES[name]).is_file()):
            pytest.skip(f"HARNESS_DATA names no folder with {PLACES[name]}")

    return check


@pytest.fixture(scope="session")
def nltcs(here):
    here("nltcs")
    return data.nltcs()


@pytest.fixture(scope="session")
def old_faithful(here):
    here("old_faithful")
    return data.old_faithful()
