"""Placeholder: written next."""

from __future__ import annotations

import torch

from harness.model import Model


def adapt(thing: object, name: str, device: torch.device, dtype: torch.dtype | None) -> Model | None:
    return None
