"""Tiny Shakespeare, character by character: counts, and a transformer.

The last tenth of the text is for testing, and all models learn from all that stands before it. A character is predicted
once, from characters before it that are in the test part too. The ninth tenth matters: on the last one, 4-grams of the
first eight have 2.02 nats a character, and those of all nine 1.77.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from reference_impls.ngram import Ngram
from reference_impls.transformer import Transformer
from suites import data
from suites.real_data.bars import CROSS_ENTROPY
from suites.real_data.cases import Figure, say
from suites.real_data.deep_fits import Recipe, Run, trained

PER_CHARACTER = "nats per character"
WINDOWS = 64
"""Windows at a time where no graph is kept."""


def counts(context: int, path: Path | None) -> Iterator[Figure]:
    """-1/n sum_t log p(x_t | the `context` characters before)."""
    text = data.tiny_shakespeare(path)
    model = Ngram(
        text.train, vocabulary=len(text.alphabet), context=context, length=len(text.valid), dtype=torch.float64
    )
    yield Figure("test", CROSS_ENTROPY, -float(model.conditionals(text.valid[None]).mean()), PER_CHARACTER)


def attention(
    build: Callable[[], Transformer], recipe: Recipe, name: str, path: Path | None, run: Run
) -> Iterator[Figure]:
    """-1/n sum_t log p(x_t | the length / 2 to length - 1 characters before)."""
    text = data.tiny_shakespeare(path)
    model = Crops(build().to(run.device), text.train.to(run.device))
    trained(model, model.starts(), None, recipe, name=name, run=run, tell=say)
    yield Figure("test", CROSS_ENTROPY, model.cross_entropy(text.valid.to(run.device)), PER_CHARACTER)


class Crops(nn.Module):
    """A transformer whose events are named by the place of the text at which they start."""

    def __init__(self, model: Transformer, text: Tensor):
        super().__init__()
        self.model, self.text = model, text

    def starts(self) -> Tensor:
        return torch.arange(len(self.text) - self.model.length + 1, device=self.text.device)  # (n,)

    def loss(self, starts: Tensor, *, generator: Generator) -> Tensor:
        within = torch.arange(self.model.length, device=starts.device)
        return self.model.loss(self.text[starts[:, None] + within], generator=generator)  # ()

    def cross_entropy(self, text: Tensor) -> float:
        found = in_windows(self.model.conditionals, text, self.model.length, self.model.length // 2)
        return -float(found.double().mean())


@torch.no_grad()
def in_windows(conditionals: Callable[[Tensor], Tensor], text: Tensor, length: int, stride: int) -> Tensor:
    """log p(x_t | what is before it in its window) (n,), for `conditionals` of windows (m, length) or shorter.

    Windows start at 0, stride, 2 stride, ...; the last one ends with the text. Each but the first is asked only for the
    characters that no window before it has: these have length - stride characters before them, or more.
    """
    n = len(text)
    length = min(length, n)
    starts = [*range(0, n - length, stride), n - length]
    pieces, done = [], 0
    for first in range(0, len(starts), WINDOWS):
        some = starts[first : first + WINDOWS]
        found = conditionals(torch.stack([text[s : s + length] for s in some]))  # (m, length)
        for s, row in zip(some, found, strict=True):
            pieces.append(row[done - s :])
            done = s + length
    return torch.cat(pieces)
