"""Random streams: each is a function of the seed and of names, so a check alone repeats what it saw in a run."""

from __future__ import annotations

import hashlib

import torch


def seed_for(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on every name and on nothing else."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator at the start of the stream called `names`."""
    return torch.Generator(device=device).manual_seed(seed_for(seed, *names))
