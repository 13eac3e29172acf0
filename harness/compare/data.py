"""A data set: its three splits, what its numbers are, and where it comes from.

NAME    digits, iris, wine, breast_cancer (inside scikit-learn), or one that a package registers
PATH    .npy, .npz, .csv or .pt; see `harness/compare/files.py`
SPEC    package.module:function, which returns what a registered function may

A package registers a function under the entry-point group `harness.data`. It takes no argument and returns rows
[n, ...], or a tuple (train, valid, test) of such, or a dict with `x`, or `train`, `valid` and `test`, and optionally
`discrete` (bool), `image` ([height, width]), `split` (in words), `frontier` (the lowest published mean test NLL, in
nats) and `frontier_source`.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import CallError
from harness.resolve import close_to
from harness.streams import generator as stream

GROUP = "harness.data"
SUFFIXES = (".npy", ".npz", ".csv", ".pt")
EMBEDDED = {"digits": (8, 8), "iris": None, "wine": None, "breast_cancer": None}
"""Sets inside scikit-learn, and the shape of a picture where a row is one."""

SHARES = (0.6, 0.15)
"""Of the rows for training and validation; the rest is for the test."""

LEAST = 5
"""Rows that a split must have."""

SPLITS = ("train", "valid", "test")


class DataError(CallError):
    """The data cannot be had, or is not what it should be; one line that names the fix."""


@dataclass(frozen=True)
class Dataset:
    """Rows [n, d]: int64 states 0, 1, ... where discrete, else float64.

    `levels` is how many states each coordinate has, None where the data is continuous. `frontier` is the lowest
    published mean test NLL, in nats.
    """

    name: str
    train: Tensor
    valid: Tensor
    test: Tensor
    split: str
    levels: tuple[int, ...] | None = None
    image: tuple[int, ...] | None = None
    frontier: float | None = None
    frontier_source: str = ""

    @property
    def d(self) -> int:
        return self.train.shape[1]

    def first(self, d: int) -> Dataset:
        """The same rows, of which only the first d coordinates are kept."""
        levels = None if self.levels is None else self.levels[:d]
        return Dataset(self.name, self.train[:, :d], self.valid[:, :d], self.test[:, :d], self.split, levels)

    def ceiling(self) -> float | None:
        """H of the empirical law of the test rows, in nats: no normalised model of discrete rows has a lower NLL there.

        By Gibbs' inequality - sum_x f(x) log q(x) >= - sum_x f(x) log f(x), f the shares of the distinct rows.
        """
        if self.levels is None:
            return None
        _, counts = self.test.unique(dim=0, return_counts=True)
        f = counts.double() / counts.sum()
        return float(-(f * f.log()).sum())

    def fingerprint(self) -> str:
        """The SHA-256 of all rows, abbreviated."""
        digest = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            digest.update(str(tuple(part.shape)).encode() + part.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """What a report says of it, as strict JSON."""
        return {
            "name": self.name,
            "rows": {name: len(getattr(self, name)) for name in SPLITS},
            "d": self.d,
            "kind": "continuous" if self.levels is None else "discrete",
            "levels": None if self.levels is None else [min(self.levels), max(self.levels)],
            "image": None if self.image is None else list(self.image),
            "split": self.split,
            "fingerprint": self.fingerprint(),
            "entropy_ceiling_nats": self.ceiling(),
            "frontier_nats": self.frontier,
            "frontier_source": self.frontier_source,
        }


def load(name: str, seed: int) -> Dataset:
    """The data set of that NAME, PATH or SPEC; `seed` decides the split where there is none. Raises DataError."""
    if name in EMBEDDED:
        return made(name, {"x": _embedded(name), "discrete": name == "digits", "image": EMBEDDED[name]}, seed)
    entry = {entry.name: entry for entry in entry_points(group=GROUP)}.get(name)
    if entry is not None:
        return made(name, _answer(name, entry.load), seed)
    if name.endswith(SUFFIXES) or Path(name).exists():
        from harness.compare.files import read

        return made(Path(name).stem, read(Path(name).expanduser()), seed)
    if ":" in name:
        return made(name.rpartition(":")[2], _answer(name, lambda: _function(name)), seed)
    known = [*EMBEDDED, *(entry.name for entry in entry_points(group=GROUP))]
    raise DataError(f"--data {name} is no data set{close_to(name, known)}: give one of {', '.join(known)}, or a file")


def made(name: str, found: object, seed: int) -> Dataset:
    """A data set of what a function or a file gave. Raises DataError."""
    facts = _facts(name, found)
    parts = _split(name, facts, seed)
    split = str(facts.get("split") or _split_in_words(facts, parts, seed))
    discrete = facts.get("discrete", not any(part.is_floating_point() for part in parts))
    rows = [_rows(name, part, bool(discrete)) for part in parts]
    if len({part.shape[1] for part in rows}) > 1:
        raise DataError(f"{name}: its splits have {[part.shape[1] for part in rows]} columns: give them as many")
    levels = None
    if discrete:
        levels = tuple(int(k) + 1 for k in torch.cat(rows).amax(0).clamp_min(1).tolist())
    elif bool((same := rows[0].amin(0) == rows[0].amax(0)).any()):  # a deviation of equal numbers is rounded, not 0
        j = int(same.nonzero()[0])
        raise DataError(f"{name}: column {j} is constant, where a density has no bound: leave that column out")
    image = facts.get("image") or (tuple(parts[0].shape[1:]) if parts[0].dim() == 3 else None)
    frontier = facts.get("frontier")
    return Dataset(
        name,
        rows[0],
        rows[1],
        rows[2],
        split=split,
        levels=levels,
        image=None if image is None else tuple(int(side) for side in image),
        frontier=None if frontier is None else float(frontier),
        frontier_source=str(facts.get("frontier_source", "")),
    )


def _facts(name: str, found: object) -> dict[str, Any]:
    """The answer as a dict, whatever form it had."""
    if isinstance(found, Mapping):
        facts = dict(found)
    elif isinstance(found, tuple) and len(found) == 3:
        facts = dict(zip(SPLITS, found, strict=True))
    elif isinstance(found, tuple) and len(found) == 2:  # rows and labels
        facts = {"x": found[0]}
    else:
        facts = {"x": found}
    for key in (*SPLITS, "x"):
        if facts.get(key) is None:
            facts.pop(key, None)
            continue
        try:
            facts[key] = torch.as_tensor(facts[key])
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{name}: {key} is no table of numbers ({error}): give one row a draw") from None
    if not {"train", "test"} <= set(facts) and "x" not in facts:
        has = ", ".join(map(str, facts)) or "nothing"
        raise DataError(f"{name}: it has {has}: give x, or train, valid and test")
    return facts


def _split(name: str, facts: Mapping[str, Any], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    if "train" in facts and "valid" in facts:
        return facts["train"], facts["valid"], facts["test"]
    source = facts["train"] if "train" in facts else facts["x"]
    if source.dim() == 0 or len(source) < 3 * LEAST:
        raise DataError(f"{name}: it has {source.numel() and len(source)} rows, too few to split: give {3 * LEAST}")
    order = torch.randperm(len(source), generator=stream(seed, "compare", "split"))
    first = round(SHARES[0] * len(source))
    second = first + max(LEAST, round(SHARES[1] * len(source)))
    if "train" in facts:  # a test split is there: validation rows are taken from those for training
        cut = len(source) - (second - first)
        return source[order[:cut]], source[order[cut:]], facts["test"]
    return source[order[:first]], source[order[first:second]], source[order[second:]]


def _split_in_words(facts: Mapping[str, Any], parts: tuple[Tensor, ...], seed: int) -> str:
    sizes = " / ".join(str(len(part)) for part in parts)
    if "valid" in facts:
        return f"as published: {sizes} rows for training / validation / test"
    if "train" in facts:
        return f"test as published, validation from the training rows by a permutation of seed {seed}: {sizes}"
    return f"random permutation of seed {seed}: {sizes} rows for training / validation / test"


def _rows(name: str, part: Tensor, discrete: bool) -> Tensor:
    """One split as rows [n, d]."""
    if part.dim() == 0 or len(part) < LEAST:
        raise DataError(f"{name}: a split has {part.numel() and len(part)} rows, too few: give {LEAST}")
    if part.is_complex():
        raise DataError(f"{name}: its numbers are complex: give real ones")
    rows = part.reshape(len(part), math.prod(part.shape[1:]))
    if not rows.shape[1]:
        raise DataError(f"{name}: its rows have no columns: give numbers")
    bad = ~rows.double().isfinite()
    if bool(bad.any()):
        seen, column = int(bad.any(1).sum()), int(bad.any(0).nonzero()[0])
        where = f"{seen} of {len(rows)} rows of a split hold NaN or infinity, the first in column {column}"
        raise DataError(f"{name}: {where}: leave those rows out")
    if not discrete:
        return rows.double()
    states = rows.to(torch.int64)
    if bool((states != rows).any()) or bool((states < 0).any()):
        raise DataError(f"{name}: discrete rows must hold states 0, 1, 2, ...: number them so, or write floats")
    return states


def _answer(name: str, function: Callable[[], Any]) -> object:
    """What a function of somebody else's returns."""
    try:
        found = function()
        return found() if callable(found) else found
    except CallError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise DataError(f"--data {name}: {type(error).__name__}: {text}") from None


def _function(spec: str) -> Any:
    module, _, attr = spec.partition(":")
    return getattr(importlib.import_module(module), attr)


def _embedded(name: str) -> Tensor:
    try:
        from sklearn import datasets
    except ImportError:
        raise DataError(f"--data {name} comes with scikit-learn: pip install scikit-learn") from None
    return torch.from_numpy(getattr(datasets, f"load_{name}")().data)
