"""Data files: .npy, .npz, .csv and .pt. Nothing that a file holds is ever unpickled or run."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.compare.data import SPLITS, SUFFIXES, DataError

TENSORS_ALONE = "save a tensor, or a dict of tensors"
ALIASES = {"val": "valid", "validation": "valid", "training": "train", "data": "x", "X": "x"}


def read(path: Path) -> dict[str, Any]:
    """`x`, or `train`, `valid` and `test`, as tensors. Integers are discrete, numbers with a point continuous.

    .npy    one array [n, ...]
    .npz    arrays train, valid and test, or x
    .csv    one row a line; a first line of names is left out
    .pt     a tensor, or a dict of tensors with the keys of .npz, read with weights_only
    """
    if not path.is_file():
        raise DataError(f"--data {path}: there is no such file: check the path")
    readers = {".npy": _npy, ".npz": _npz, ".csv": _csv, ".pt": _pt}
    if path.suffix not in readers:
        raise DataError(f"--data {path}: files end in {', '.join(SUFFIXES)}: write it as one of these")
    try:
        found = readers[path.suffix](path)
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile, zlib, pickle and torch each have their own
        if "allow_pickle" in str(error):  # which numpy advises, whether the file is a pickle or no array at all
            raise DataError(f"--data {path} is no array of numbers: save numbers, not objects of Python") from None
        text = " ".join(str(error).split())[:200]
        raise DataError(f"--data {path} is damaged or no {path.suffix} file ({type(error).__name__}: {text})") from None
    tensors = {ALIASES.get(key, key): value for key, value in found.items()}
    kept = {key: value for key, value in tensors.items() if key in (*SPLITS, "x")}
    if not kept:
        has = ", ".join(map(str, found)) or "nothing"
        raise DataError(f"--data {path} holds {has}: name its arrays train, valid and test, or x")
    return kept


def _npy(path: Path) -> dict[str, Tensor]:
    return {"x": _numbers(path, np.load(path, allow_pickle=False))}


def _npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        named = {key: _numbers(path, arrays[key]) for key in arrays.files}
    only = list(named.values())
    return {"x": only[0]} if len(only) == 1 and not set(named) & set(SPLITS) else named


def _numbers(path: Path, array: Any) -> Tensor:
    if array.dtype.kind not in "buif":
        raise DataError(f"--data {path}: an array holds {array.dtype}, not numbers: write numbers")
    if array.dtype.kind in "bu":
        array = array.astype(np.int64)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # long doubles, of which torch knows nothing
        array = array.astype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))


def _pt(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose text advises to trust the file
        raise DataError(f"--data {path} is damaged, or holds more than tensors: {TENSORS_ALONE}") from None
    if isinstance(found, Tensor):
        return {"x": _dense(found)}
    if isinstance(found, dict):
        return {str(key): _dense(value) for key, value in found.items() if isinstance(value, Tensor)}
    raise DataError(f"--data {path}: it holds a {type(found).__name__}: {TENSORS_ALONE}")


def _dense(tensor: Tensor) -> Tensor:
    """A plain tensor: no gradient, nothing sparse or quantised."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _csv(path: Path) -> dict[str, Tensor]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    if lines and not any(_is_number(cell) for cell in lines[0][1]):
        lines = lines[1:]  # names
    if not lines:
        raise DataError(f"--data {path}: it has no rows of numbers: write one row a line, its numbers between commas")
    width = len(lines[0][1])
    for number, line in lines:
        if len(line) != width or not all(map(_is_number, line)):
            seen = ",".join(line)[:60]
            raise DataError(
                f"--data {path}: line {number}, {seen!r}, is not {width} numbers between commas: correct it"
            )
    cells = [cell for _, line in lines for cell in line]
    rows = torch.tensor([float(cell) for cell in cells], dtype=torch.float64).reshape(len(lines), width)
    whole = all(cell.strip().lstrip("+-").isdigit() for cell in cells)
    return {"x": rows.to(torch.int64) if whole else rows}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
