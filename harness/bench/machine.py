"""What a figure was measured on, as strict JSON, and a name of it that is the same tomorrow.

No path, host name or address is part of either: results are published.
"""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from harness.bench.settings import flags

PACKAGES = ("torch", "numpy", "scipy", "genharness")


def machine(device: str = "cpu", threads: int = 1) -> dict[str, Any]:
    """Processor, GPU, system, versions and settings. None where there is no such thing."""
    return {
        "name": machine_name(device),
        "processor": processor(),
        "processors": processors(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "device": device,
        "device_name": _device_name(device),
        "threads": threads,
        "flags": flags(),
        "versions": versions(device),
    }


def versions(device: str = "cpu") -> dict[str, str | None]:
    """Of python and the packages, and of CUDA and its driver where the device is one."""
    cuda = device.startswith("cuda")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": str(torch.backends.cudnn.version()) if cuda else None,
        "driver": _driver() if cuda else None,
    }


def machine_name(device: str = "cpu") -> str:
    """Such as `linux-x86-64-intel-xeon-2-cpus`: equal machines have equal names."""
    words = [platform.system(), platform.machine(), processor(), f"{processors()} cpus"]
    words += [_device_name(device)] if device.startswith("cuda") else []
    return slug(" ".join(words))


def slug(text: str) -> str:
    """Lower-case letters, digits and single hyphens; clock rates and trade marks are left out."""
    text = re.sub(r"\((?:r|tm|c)\)|@.*?ghz|\bcpu\b", " ", text.lower())
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def processor() -> str:
    """The model of the processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # neither the package nor the driver has to be there
        return None
