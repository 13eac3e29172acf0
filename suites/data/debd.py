"""The binary density estimation sets of Lowd & Davis (2010) and others: comma-separated bits, a draw to a line.

Source: github.com/arranger1044/DEBD, which asks to cite Lowd & Davis, ICDM 2010, and Van Haaren & Davis, AAAI 2012.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from suites.data.source import DataError, File, Splits, contents, damaged, locate

COMMIT = "850908666388f1b1c766a304b37dae14613f1e51"

SHAPES = {
    "nltcs": (16, 16181, 2157, 3236),
    "msnbc": (17, 291326, 38843, 58265),
    "kdd": (65, 180092, 19907, 34955),
    "plants": (69, 17412, 2321, 3482),
    "baudio": (100, 15000, 2000, 3000),
    "jester": (100, 9000, 1000, 4116),
    "bnetflix": (100, 15000, 2000, 3000),
    "accidents": (111, 12758, 1700, 2551),
    "mushrooms": (112, 2000, 500, 5624),
    "adult": (123, 5000, 1414, 26147),
    "connect4": (126, 16000, 4000, 47557),
    "ocr_letters": (128, 32152, 10000, 10000),
    "rcv1": (150, 40000, 10000, 150000),
    "tretail": (135, 22041, 2938, 4408),
    "pumsb_star": (163, 12262, 1635, 2452),
    "dna": (180, 1600, 400, 1186),
    "kosarek": (190, 33375, 4450, 6675),
    "msweb": (294, 29441, 3270, 5000),
    "nips": (500, 400, 100, 1240),
    "book": (500, 8700, 1159, 1739),
    "tmovie": (500, 4525, 1002, 591),
    "cwebkb": (839, 2803, 558, 838),
    "cr52": (889, 6532, 1028, 1540),
    "c20ng": (910, 11293, 3764, 3764),
    "moviereview": (1001, 1600, 150, 250),
    "bbc": (1058, 1670, 225, 330),
    "voting": (1359, 1214, 200, 350),
    "ad": (1556, 2461, 327, 491),
}
"""Variables, and draws for training, validation and test, as the source states them."""

SHA256 = {
    "nltcs.train": "e547a7aedad1dd2f7177030881ab1b92c7e24ae5464c71a0f1f89daecaf52b30",
    "nltcs.valid": "93bbbf5c6febdc9bc6e5b5bfab636f4dc0685ab2896d24b23dd267794c3bfcf6",
    "nltcs.test": "f9ffa6b74b27dc03bee3203d157ee31079e80b13be40d0c0093d635c25aed523",
}


def nltcs(path: str | Path | None = None) -> Splits:
    """National Long Term Care Survey: 16 yes-or-no questions on disability, so all 65,536 states can be summed."""
    return debd("nltcs", path)


def debd(name: str, path: str | Path | None = None) -> Splits:
    """Bits of a set by its name, uint8 (n, d); `path` is the folder that holds its three files."""
    if name not in SHAPES:
        raise DataError(f"there is no set {name!r}: choose one of {', '.join(SHAPES)}")
    d, *rows = SHAPES[name]
    return Splits(*(_bits(_file(name, split), path, n, d) for split, n in zip(Splits._fields, rows, strict=True)))


def _file(name: str, split: str) -> File:
    sha256 = SHA256.get(f"{name}.{split}", "")
    address = f"https://raw.githubusercontent.com/arranger1044/DEBD/{COMMIT}/datasets/{name}/{name}.{split}.data"
    return File(f"debd/{name}/{name}.{split}.data", address if sha256 else "", sha256)


def _bits(file: File, path: str | Path | None, n: int, d: int) -> Tensor:
    found = locate(file, path)
    lines = contents(found).split()
    if len(lines) != n:
        raise damaged(found, f"it has {len(lines)} lines, not {n}")
    if any(len(line) != 2 * d - 1 for line in lines):
        bad = next(i for i, line in enumerate(lines) if len(line) != 2 * d - 1)
        raise damaged(found, f"line {bad + 1} does not hold {d} bits with commas between")
    text = np.frombuffer(b",".join(lines) + b",", dtype=np.uint8).reshape(n, d, 2)
    if not (((text[..., 0] == 48) | (text[..., 0] == 49)).all() and (text[..., 1] == 44).all()):
        raise damaged(found, "it holds something else than 0, 1 and commas")
    return torch.from_numpy(text[..., 0] - 48)  # (n, d)
