"""MNIST from its four original idx files: big-endian, a header of magic number and sizes, then bytes.

Source: LeCun, Cortes & Burges, yann.lecun.com/exdb/mnist, from a mirror; SHA-256 of the packed files as published.
"""

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from suites.data.source import File, Labelled, contents, damaged, locate

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
SHA256 = {
    "train-images-idx3": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def mnist(split: str = "train", path: str | Path | None = None) -> Labelled:
    """Images uint8 (n, 28, 28) and digits, of "train" (60,000) or "test" (10,000); `path` is their folder."""
    if split not in ("train", "test"):
        raise ValueError(f"split should be 'train' or 'test', not {split!r}")
    prefix, n = ("train", 60_000) if split == "train" else ("t10k", 10_000)
    images = read_idx(locate(_file(f"{prefix}-images-idx3"), path), (n, 28, 28))
    found = locate(_file(f"{prefix}-labels-idx1"), path)
    labels = read_idx(found, (n,))
    if labels.max() > 9:
        raise damaged(found, f"it has a label {int(labels.max())}, where digits 0 to 9 should be")
    return Labelled(images, labels.long())


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """An idx file of bytes, which should hold an array of this shape."""
    data = contents(path)
    header = 4 + 4 * len(shape)
    if len(data) < header or data[:4] != bytes([0, 0, 8, len(shape)]):
        raise damaged(path, f"it does not begin like an idx file of bytes with {len(shape)} axes")
    found = struct.unpack(f">{len(shape)}I", data[4:header])
    if found != shape or len(data) - header != math.prod(shape):
        raise damaged(path, f"it says {found} and holds {len(data) - header:,} bytes, where {shape} should be")
    return torch.frombuffer(bytearray(data[header:]), dtype=torch.uint8).reshape(shape)


def _file(name: str) -> File:
    return File(f"mnist/{name}-ubyte.gz", f"{MIRROR}{name}-ubyte.gz", SHA256[name])
