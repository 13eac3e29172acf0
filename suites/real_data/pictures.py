"""Pictures of digits: class-conditional draws of four models, and completions beside the truth.

    python -m suites.real_data.pictures [--only NAME]... [--to FOLDER]

One PNG each, in results/ unless said otherwise. Test images are every third of scikit-learn's digits; the models are
trained on the others.
"""

import argparse
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor

from suites import data
from suites.data import Labelled
from suites.real_data import digits
from suites.real_data.cases import thirds

RESULTS = Path(__file__).resolve().parents[2] / "results"
EACH = 10
"""Draws of each label, and images that are completed."""
ZOOM = 5


def main(arguments: list[str] | None = None) -> int:
    """Exit status 2 when the call was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m suites.real_data.pictures", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--only", action="append", default=[], choices=list(PICTURES), help="repeatable")
    parser.add_argument("--to", type=Path, default=RESULTS, metavar="FOLDER", help="instead of results/")
    call = parser.parse_args(arguments)
    if not call.to.is_dir():
        parser.error(f"--to {call.to} is no folder: create it first")
    torch.set_num_threads(1)
    train, test = thirds(data.digits())
    for name in call.only or PICTURES:
        path = call.to / f"{name}.png"
        path.write_bytes(png(PICTURES[name](train, test)))
        print(f"written: {path}", flush=True)
    return 0


# The pictures: (h, w) or (h, w, 3), shares of white in [0, 1]


def draws_of(painter: digits.Painter) -> Callable[[Labelled, Labelled], Tensor]:
    """A row a label, each of ten draws."""

    def picture(train: Labelled, test: Labelled) -> Tensor:
        labels = torch.arange(digits.LABELS).repeat_interleave(EACH)
        return 1 - sheet(painter.draws(painter.trained(train), labels)[:, None], EACH)[..., 0]

    return picture


def some(test: Labelled) -> Labelled:
    """The first test image of each label."""
    first = torch.stack([(test.y == label).nonzero()[0, 0] for label in range(digits.LABELS)])
    return Labelled(test.x[first], test.y[first])


def inpainted(train: Labelled, test: Labelled, steps: int = 6000) -> Tensor:
    """Four rows: what is known, with the hole in grey; two draws; the truth."""
    x, unseen = (_ink(part.x) for part in (train, some(test)))
    model = digits.completer(digits.hole(), 0.75, seed=46)
    drawn = digits.completed(model, 2 * x - 1, 2 * unseen - 1, steps=steps, draws=2)
    known = torch.where(digits.hole(), unseen, 0.4)
    return 1 - sheet(torch.cat([known, *((drawn + 1) / 2).clamp(0, 1), unseen]), EACH)[..., 0]


def coloured(train: Labelled, test: Labelled, steps: int = 6000) -> Tensor:
    """Four rows: the luma; two draws; the truth. Each digit has the colour of its label, which the model is not told:
    it goes by the shape, and by the luma, which is not the same for all colours."""
    source = Generator().manual_seed(1)
    x, truth = (digits.inked(_ink(p.x)[:, 0], p.y, source) for p in (train, some(test)))
    model = digits.completer(digits.luma_known(), 0.4, seed=47)
    unseen = digits.to_luma(truth)
    drawn = digits.completed(model, digits.to_luma(x), unseen, steps=steps, draws=2)
    grey = ((unseen[:, :1] + 1) / 2).expand(-1, 3, -1, -1)
    return sheet(torch.cat([grey, *map(digits.from_luma, drawn), truth]), EACH)


def _ink(x: Tensor) -> Tensor:
    return (x.float() / (digits.LEVELS - 1)).reshape(-1, 1, digits.SIDE, digits.SIDE)  # (n, 1, 8, 8)


PICTURES: dict[str, Callable[[Labelled, Labelled], Tensor]] = {
    **{f"digits-{painter.name}": draws_of(painter) for painter in digits.PAINTERS},
    "digits-inpainting": inpainted,
    "digits-colorization": coloured,
}


# From tensors to bytes


def sheet(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Images (n, channels, h, w) row by row, with a gap between, (height, width, channels); n fills whole rows."""
    n, channels, h, w = images.shape
    framed = torch.nn.functional.pad(images, (0, gap, 0, gap))
    rows = framed.reshape(n // columns, columns, channels, h + gap, w + gap)
    return rows.permute(0, 3, 1, 4, 2).reshape(-1, columns * (w + gap), channels)[:-gap, :-gap]


def png(shares: Tensor, zoom: int = ZOOM) -> bytes:
    """An image (h, w) in grey or (h, w, 3) in colour as PNG of 8 bits, each pixel enlarged to zoom x zoom.

    W3C Recommendation, Portable Network Graphics, https://www.w3.org/TR/png/: chunks are length, kind, data and CRC;
    each line begins with its filter, 0 for none.
    """
    levels = (255 * shares.clamp(0, 1)).round().to(torch.uint8)
    levels = levels.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    colour = levels.dim() == 3
    lines = b"".join(b"\0" + bytes(line.flatten().tolist()) for line in levels)
    head = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 8, 2 if colour else 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, *zip(*parts, strict=True)))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


if __name__ == "__main__":
    sys.exit(main())
