"""Old Faithful geyser: 272 eruptions, their duration and the wait for the next, in minutes (Azzalini & Bowman 1990)."""

import csv
import math
from pathlib import Path

import torch
from torch import Tensor

from suites.data.source import File, contents, damaged, locate

ROWS = 272
FILE = File(
    "small/geyser.csv",
    "https://raw.githubusercontent.com/mwaskom/seaborn-data/71e2436a092d714350de0fc409ca8a8714e7e78f/geyser.csv",
    "ce8f6bd15967c9a3dee345aaf268f6b92623abb1e1d313e04d79b720aa6b8bd6",
)


def old_faithful(path: str | Path | None = None) -> Tensor:
    """Duration and waiting time, float64 (272, 2)."""
    found = locate(FILE, path)
    try:
        rows = list(csv.DictReader(contents(found).decode("utf-8").splitlines()))
        x = [[float(row["duration"]), float(row["waiting"])] for row in rows]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise damaged(found, f"not every row has numbers under duration and waiting ({error})") from error
    if len(x) != ROWS or not all(math.isfinite(v) for row in x for v in row):
        raise damaged(found, f"it has {len(x)} rows, not {ROWS}, or some that are not finite")
    return torch.tensor(x, dtype=torch.float64)
