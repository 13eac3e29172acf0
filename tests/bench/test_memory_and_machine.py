"""Peak memory against tensors of known size, and the description of a machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from harness.bench.machine import machine, machine_name, slug
from harness.bench.memory import peak_memory


def test_the_peak_is_that_of_the_tensors():
    """Two tensors of 16 MB at once, or one after the other; pages, and how the kernel counts them, are below 1 MB."""
    code = (
        "import torch; from harness.bench.memory import peak_memory\n"
        "ones = lambda: torch.ones(4_000_000)\n"
        "ones()\n"
        "print(peak_memory(lambda: (ones(), ones())), peak_memory(lambda: (ones() is None, ones() is None)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    both, one = map(int, done.stdout.split())
    assert 31e6 < both < 33e6
    assert 15e6 < one < 17e6


def test_no_repeats_are_refused():
    with pytest.raises(ValueError, match="repeats"):
        peak_memory(lambda: None, repeats=0)


def test_a_machine_is_strict_json_without_paths():
    told = json.dumps(machine(), allow_nan=False)
    assert "/" not in json.loads(told)["name"]
    assert {"torch", "python", "driver", "cuda"} <= json.loads(told)["versions"].keys()


def test_the_name_of_a_machine_is_stable():
    assert machine_name() == machine_name() == slug(machine_name())
    assert slug("Linux Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz 2 cpus") == "linux-intel-xeon-e5-2680-v4-2-cpus"
