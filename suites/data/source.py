"""Where a data file is: at a path that is given, in the folder HARNESS_DATA, or at an address with a checksum."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor


class DataError(ValueError):
    """A data file is missing, damaged, or not what it should be; the message says what to do."""


class Splits(NamedTuple):
    """Draws for fitting, for choosing, and for the number that is reported."""

    train: Tensor
    valid: Tensor
    test: Tensor


class Labelled(NamedTuple):
    """Events (n, *event) and what each is, int64 (n,)."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class File:
    """A file by its place under HARNESS_DATA, and, where it can be downloaded, its address and SHA-256."""

    place: str
    url: str = ""
    sha256: str = ""


def locate(file: File, path: str | Path | None = None) -> Path:
    """The file itself. `path` may be the file, or a folder that holds it by its name or by its whole place."""
    if path is not None:
        return _at(file, Path(path))
    folder = os.environ.get("HARNESS_DATA")
    if not folder:
        return _downloaded(file)
    if not Path(folder).is_dir():
        raise DataError(f"HARNESS_DATA names {folder}, which is no folder; name the one that holds {file.place}")
    local = Path(folder) / file.place
    return _verified(file, local) if local.is_file() else _downloaded(file)


def _at(file: File, path: Path) -> Path:
    for candidate in (path, path / file.place, path / Path(file.place).name):
        if candidate.is_file():
            return candidate
    raise DataError(f"path {path} is no file and holds no {file.place}; give the file or the folder that holds it")


def _verified(file: File, path: Path) -> Path:
    """A file that was packed again has another checksum, and gzip's own inside."""
    import hashlib

    if file.sha256 and path.suffix != ".gz" and hashlib.sha256(_bytes(path)).hexdigest() != file.sha256:
        raise damaged(path, "its SHA-256 is not the published one")
    return path


def _downloaded(file: File) -> Path:
    by_hand = f"set HARNESS_DATA to a folder that holds {file.place}, or give its path"
    if not file.url:
        raise DataError(f"{file.place} was not found and cannot be downloaded with a checksum: {by_hand}")
    try:
        import pooch
    except ImportError:
        raise DataError(f"{file.place} was not found: {by_hand}, or install pooch to download {file.url}") from None
    try:
        return Path(pooch.retrieve(file.url, f"sha256:{file.sha256}", path=pooch.os_cache("genharness")))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{file.url} could not be downloaded ({reason}): without a network, {by_hand}") from error


def contents(path: Path) -> bytes:
    """The bytes of a file, unpacked if gzip made it."""
    import gzip
    import zlib

    data = _bytes(path)
    try:
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, str(error)) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; see to its rights, or give another path") from error


def damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged or not what it should be: {reason}; fetch it again, or give another path")
