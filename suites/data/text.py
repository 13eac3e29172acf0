"""Text as a sequence of symbols, for language models."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from suites.data.source import DataError, File, contents, damaged, locate

CHARACTERS = 1_115_394
SHAKESPEARE = File(
    "text/tinyshakespeare.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
    "/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


class Text(NamedTuple):
    """Symbols as numbers, int64 (n,), the first nine tenths and the rest; `alphabet[k]` is the symbol k."""

    train: Tensor
    valid: Tensor
    alphabet: str


def tiny_shakespeare(path: str | Path | None = None) -> Text:
    """1,115,394 characters of 65 kinds from the plays, split as nanoGPT does."""
    found = locate(SHAKESPEARE, path)
    read = text(found)
    if len(read.train) + len(read.valid) != CHARACTERS:
        raise damaged(found, f"it has {len(read.train) + len(read.valid):,} characters, not {CHARACTERS:,}")
    return read


def text(path: str | Path) -> Text:
    """Any text in UTF-8: its characters in the order of their code points are the symbols."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"path {path} is no file; give one with text in UTF-8")
    try:
        characters = contents(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    if len(characters) < 2:
        raise damaged(path, f"it has {len(characters)} characters, too few to split")
    codes = torch.tensor([ord(c) for c in characters])
    alphabet, symbols = codes.unique(return_inverse=True)
    cut = len(characters) * 9 // 10
    return Text(symbols[:cut], symbols[cut:], "".join(map(chr, alphabet.tolist())))
