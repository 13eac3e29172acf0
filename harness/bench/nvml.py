"""What the driver says of a GPU while it is timed: clock, temperature, and whether it was throttled.

Needs `pynvml` (package nvidia-ml-py); where that, a GPU or the driver's answer is missing, nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

REASONS = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of nvmlClocksThrottleReasons that slow down a busy GPU, from the NVML manual; idling and limits that a user set
are none of them."""

SLOW = 0.75
"""Below this share of the highest clock a sample is dropped, as NVIDIA's nvbench does. A power cap alone, which large
GPUs touch whenever they are busy, drops none: the clock that it leaves decides."""


@dataclass(frozen=True)
class Reading:
    megahertz: float  # of the streaming multiprocessors
    highest: float
    celsius: float
    reasons: tuple[str, ...]

    @property
    def throttled(self) -> bool:
        """Slowed by heat or by the hardware, or far below the clock that it could have under load."""
        serious = any(reason != REASONS[0x4] for reason in self.reasons)
        capped = bool(self.reasons) and self.megahertz < SLOW * self.highest
        return serious or capped


@dataclass(frozen=True)
class Nvml:
    """The driver's library and the handle of one GPU; both None where there is nobody to ask."""

    library: Any = None
    handle: Any = None

    @classmethod
    def of(cls, device: str) -> Nvml:
        """The GPU that torch calls `device`; it is found by its UUID, since CUDA may number GPUs otherwise."""
        if not device.startswith("cuda"):
            return cls()
        try:
            import pynvml
            import torch

            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(device).uuid
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        except Exception:  # a package, a field or a permission is missing: figures without clocks
            return cls()

    def read(self) -> Reading | None:
        """The state now; None where the driver does not answer."""
        if self.handle is None:
            return None
        n = self.library
        try:
            mask = n.nvmlDeviceGetCurrentClocksThrottleReasons(self.handle)
            return Reading(
                megahertz=float(n.nvmlDeviceGetClockInfo(self.handle, n.NVML_CLOCK_SM)),
                highest=float(n.nvmlDeviceGetMaxClockInfo(self.handle, n.NVML_CLOCK_SM)),
                celsius=float(n.nvmlDeviceGetTemperature(self.handle, n.NVML_TEMPERATURE_GPU)),
                reasons=tuple(word for bit, word in REASONS.items() if mask & bit),
            )
        except n.NVMLError:
            return None
