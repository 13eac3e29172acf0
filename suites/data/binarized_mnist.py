"""Static binarised MNIST: the one fixed draw of bits of Salakhutdinov & Murray (2008) that NADE and others report on.

Figures on it do not compare with those on a binarisation that is drawn anew in every epoch. Two forms are read: the
original text, 784 bits to a line, and an .npz of train, valid and test, packed by `numpy.packbits(axis=1)`.
"""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from suites.data.source import DataError, File, Splits, contents, damaged, locate

ROWS = {"train": 50_000, "valid": 10_000, "test": 10_000}
D = 784
PACKED = File("binarized_mnist/binarized_mnist_packbits.npz")
FOLDER = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
SHA256 = {
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}


def binarized_mnist(path: str | Path | None = None) -> Splits:
    """Bits of 28 x 28 pixels, row by row: uint8 (n, 784)."""
    try:
        found = locate(PACKED, path)
    except DataError:
        if path is not None and Path(path).is_file():
            raise
        return Splits(*(_from_text(locate(_text_file(split), path), rows) for split, rows in ROWS.items()))
    return Splits(*_from_packed(found))


def _text_file(split: str) -> File:
    name = f"binarized_mnist_{split}.amat"
    return File(f"binarized_mnist/{name}", FOLDER + name, SHA256[split])


def _from_text(path: Path, rows: int) -> Tensor:
    text = np.frombuffer(contents(path), dtype=np.uint8)
    if len(text) != rows * D * 2:
        raise damaged(path, f"it has {len(text)} characters, not {rows * D * 2}: {rows} lines of {D} bits")
    bits = text.reshape(rows, D, 2)[..., 0] - 48
    if bits.max() > 1:
        raise damaged(path, "it holds something else than 0 and 1")
    return torch.from_numpy(bits)  # (n, 784)


def _from_packed(path: Path) -> list[Tensor]:
    data = contents(path)
    if data[:2] != b"PK":  # of anything else numpy says that it might be loaded unsafely
        raise damaged(path, "it is no .npz file, which is a zip file")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            packed = {split: arrays[split] for split in ROWS}
    except Exception as error:  # numpy, zipfile and zlib each have their own
        raise damaged(path, " ".join(str(error).split())) from error
    for split, rows in ROWS.items():
        if packed[split].shape != (rows, D // 8) or packed[split].dtype != np.uint8:
            seen = f"{packed[split].dtype} {packed[split].shape}"
            raise damaged(path, f"{split} is {seen}, not uint8 {(rows, D // 8)}")
    return [torch.from_numpy(np.unpackbits(packed[split], axis=1)) for split in ROWS]
