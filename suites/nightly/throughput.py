"""python -m suites.nightly.throughput --device cpu|cuda --json FILE

What the machine can do tonight: copy bandwidth and matmul rate, the ceilings that every figure of speed is held
against, with the settings that they hold for. On CUDA they are measured with TF32 off, as in conformance, and on, as
throughput is. A process of its own, so that no setting outlives it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

from harness.bench.ceilings import ceilings
from harness.bench.machine import machine
from harness.bench.nvml import Nvml
from harness.bench.settings import flags
from harness.store import write_text


def measured(device: str, copied: int | None = None, side: int | None = None) -> dict[str, Any]:
    """The machine, and its ceilings once for each setting of TF32 that it has. ValueError for a figure that is none.

    `copied` bytes and matrices of this `side` are used, where the sizes of `harness.bench.ceilings` are too large.
    """
    rows = [_row(device, tf32, copied, side) for tf32 in ((False, True) if device == "cuda" else (False,))]
    return {"machine": machine(device), "ceilings": rows}


def _row(device: str, tf32: bool, copied: int | None, side: int | None) -> dict[str, Any]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    nvml = Nvml.of(device)
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        limits, reading = ceilings(device, copied=copied, side=side).as_json(), nvml.read()
        settings = flags()
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    for name in ("copy_bytes_per_second", "matmul_flops_per_second"):
        if not 0 < limits[name] < math.inf:
            raise ValueError(f"{name} is {limits[name]}: a ceiling is a positive number")
    clock = None if reading is None else {"megahertz": reading.megahertz, "celsius": reading.celsius}
    return {"tf32": tf32, **limits, "direction": "higher is better", "flags": settings, "clock": clock}


def main(arguments: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m suites.nightly.throughput")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    call = parser.parse_args(arguments)
    if call.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch finds no CUDA device: choose --device cpu")
    write_text(call.json, json.dumps(measured(call.device), indent=1, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
