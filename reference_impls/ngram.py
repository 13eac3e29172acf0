r"""Count n-grams: the last m tokens say what comes next, as often as it came before, mixed with shorter contexts.

    p_j(v | c) = (n(c v) + w(c) p_{j-1}(v | c')) / (n(c) + w(c)),      j = 0, ..., m,     p_{-1} = 1 / K

c are the last j tokens (all of them at the start of a sequence, where there are fewer), c' the last j - 1 of these, and
n counts how often they stood in a row in the text. The weight w of the shorter context is that of Witten & Bell: the
number of different tokens that were seen after c, which is how often something new has come; or a constant, that of a
Dirichlet prior whose mean is p_{j-1}. As p_{-1} is uniform, every token is possible. A context that was never seen says
nothing: p_j = p_{j-1}.

Tables are sparse: sorted codes of what was seen, sum_i v_i K^i, with their counts, and a look-up is a binary search.

Sources: Witten & Bell 1991, https://doi.org/10.1109/18.87000; MacKay & Peto 1995,
https://doi.org/10.1017/S1351324900000218; Chen & Goodman 1999, https://doi.org/10.1006/csla.1999.0128.
"""

import math

import torch
from torch import Generator, Tensor
from torch.distributions import constraints

from reference_impls.discrete import is_state


class Ngram:
    """A law on sequences (n, length) of tokens 0, ..., K - 1, from counts. Draws are int64.

    `context` is m, the number of tokens that are looked back at: a 4-gram has m = 3. `weight` is the w of the prior, or
    None for that of Witten & Bell.
    """

    number, family = "M17", "count n-gram"

    def __init__(
        self,
        text: Tensor,
        *,
        vocabulary: int,
        context: int,
        length: int,
        weight: float | None = None,
        dtype: torch.dtype | None = None,
    ):
        text = torch.as_tensor(text)
        if vocabulary < 1 or context < 0 or length < 1:
            raise ValueError(
                f"vocabulary = {vocabulary} and length = {length} should be at least 1, and context = {context} at "
                "least 0"
            )
        if vocabulary ** (context + 1) > 2**62:
            raise ValueError(f"context = {context} of {vocabulary} tokens has no int64 code; take a shorter one")
        if text.dim() != 1 or len(text) <= context:
            raise ValueError(f"text should be more than {context} tokens in a row, not of shape {tuple(text.shape)}")
        if not bool(((text >= 0) & (text < vocabulary)).all()):
            raise ValueError(f"text should hold tokens from 0 to {vocabulary - 1}")
        if weight is not None and not 0 < weight < math.inf:
            raise ValueError(f"weight = {weight} should be finite and above 0, or None")
        self.vocabulary, self.context, self.length, self.weight = vocabulary, context, length, weight
        self.support = constraints.independent(constraints.integer_interval(0, vocabulary - 1), 1)
        self.dtype = dtype or torch.get_default_dtype()
        self.tables = [self._table(text.long(), j) for j in range(context + 1)]

    def conditionals(self, x: Tensor) -> Tensor:
        """log p(x_t | the tokens before it); -inf where x_t is no token."""
        if x.dim() != 2 or not 1 <= x.shape[1] <= self.length:
            raise ValueError(f"x should be sequences (n, T) of 1 to {self.length} tokens, not {tuple(x.shape)}")
        is_token = is_state(x, self.vocabulary)
        tokens = torch.where(is_token, x, 0).long()  # (n, T)
        p = torch.full(x.shape, 1 / self.vocabulary, dtype=torch.float64, device=x.device)
        for j, table in enumerate(self.tables[: x.shape[1]]):
            before = _code(tokens, j, self.vocabulary)[:, :-1] if j else torch.zeros_like(tokens)
            later = table.mixed(before, before * self.vocabulary + tokens[:, j:], p[:, j:])
            p = torch.cat([p[:, :j], later], 1)
        return torch.where(is_token, p.log(), -math.inf).to(self.dtype)  # (n, T)

    def log_prob(self, x: Tensor) -> Tensor:
        """Of whole sequences, or of the first tokens of one."""
        return self.conditionals(x).sum(-1)  # (n,)

    def ordering(self) -> list[int]:
        return list(range(self.length))

    def receptive_field(self) -> Tensor:
        """Token t sees the `context` tokens before it."""
        back = torch.arange(self.length)[:, None] - torch.arange(self.length)
        return (back >= 1) & (back <= self.context)  # (length, length)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        device = self.tables[0].codes.device
        return self.complete(torch.zeros(n, 0, dtype=torch.int64, device=device), generator=generator)

    def complete(self, prompt: Tensor, *, generator: Generator) -> Tensor:
        """Sequences (n, length) that begin with the prompt (n, t)."""
        n, begun = prompt.shape
        x = torch.cat([prompt, prompt.new_zeros(n, self.length - begun)], 1)
        u = torch.rand(n, self.length - begun, generator=generator, dtype=torch.float64, device=x.device)
        for t in range(begun, self.length):
            ends = self.next_token(x[:, :t]).cumsum(-1)  # (n, K)
            x[:, t] = torch.searchsorted(ends, u[:, t - begun, None] * ends[:, -1:], right=True)[:, 0]
        return x  # (n, length)

    def next_token(self, before: Tensor) -> Tensor:
        """p(v | the tokens before) for all v, in float64: the last `context` of them count."""
        n, t = before.shape
        every = torch.arange(self.vocabulary, device=before.device)
        p = torch.full((n, self.vocabulary), 1 / self.vocabulary, dtype=torch.float64, device=before.device)
        for j, table in enumerate(self.tables[: t + 1]):
            code = _code(before[:, t - j :], j, self.vocabulary)[:, -1:] if j else before.new_zeros(n, 1)
            p = table.mixed(code.expand_as(p), code * self.vocabulary + every, p)
        return p  # (n, K)

    def to(self, *args, **kwargs) -> "Ngram":
        """The same law on another device, or with log-probabilities in another dtype, as `Tensor.to`."""
        moved = object.__new__(Ngram)
        like = torch.zeros((), dtype=self.dtype, device=self.tables[0].codes.device).to(*args, **kwargs)
        moved.__dict__ = {**self.__dict__, "dtype": like.dtype}
        moved.tables = [table.on(like.device) for table in self.tables]
        return moved

    def _table(self, text: Tensor, j: int) -> "Counts":
        """What was seen after contexts of j tokens."""
        codes, counts = _code(text[None], j + 1, self.vocabulary)[0].unique(return_counts=True)
        contexts, owner = (codes // self.vocabulary).unique(return_inverse=True)
        totals = torch.zeros(len(contexts), dtype=torch.float64, device=text.device)
        totals.index_add_(0, owner, counts.double())
        kinds = owner.bincount().double()
        weights = kinds if self.weight is None else torch.full_like(kinds, self.weight)
        return Counts(codes, counts.double(), contexts, totals, weights)


class Counts:
    """n(c v) by sorted codes of c v, and n(c) and w(c) by sorted codes of c."""

    def __init__(self, codes: Tensor, counts: Tensor, contexts: Tensor, totals: Tensor, weights: Tensor):
        self.codes, self.counts = codes, counts
        self.contexts, self.totals, self.weights = contexts, totals, weights

    def mixed(self, context: Tensor, whole: Tensor, shorter: Tensor) -> Tensor:
        """(n(c v) + w(c) shorter) / (n(c) + w(c)), and `shorter` where c was never seen."""
        total, weight = (_found(self.contexts, table, context) for table in (self.totals, self.weights))
        seen = total > 0
        p = (_found(self.codes, self.counts, whole) + weight * shorter) / torch.where(seen, total + weight, 1)
        return torch.where(seen, p, shorter)

    def on(self, device: torch.device) -> "Counts":
        return Counts(*(t.to(device) for t in (self.codes, self.counts, self.contexts, self.totals, self.weights)))


def _code(tokens: Tensor, j: int, vocabulary: int) -> Tensor:
    """(n, T - j + 1): the codes of all j consecutive tokens of (n, T), j > 0; the last token counts least."""
    windows = tokens.unfold(1, j, 1)  # (n, T - j + 1, j)
    powers = vocabulary ** torch.arange(j - 1, -1, -1, device=tokens.device)
    return (windows * powers).sum(-1)


def _found(codes: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    """The values that stand beside the wanted codes, 0 where a code is not there."""
    place = torch.searchsorted(codes, wanted.contiguous()).clamp(max=len(codes) - 1)
    return torch.where(codes[place] == wanted, values[place], 0.0)


# Ready-made models


def abracadabra(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Ngram:
    """Trigrams of a short text over five letters, in sequences of four."""
    return _of_text("abracadabra abracadabra cabracadabra", context=2, length=4, dtype=dtype, device=device)


def smoothed(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Ngram:
    """Bigrams of the same text with a Dirichlet prior of weight 2, in sequences of five."""
    return _of_text("abracadabra abracadabra", context=1, length=5, weight=2.0, dtype=dtype, device=device)


def _of_text(text: str, *, dtype: torch.dtype | None, device: torch.device | str | None, **options) -> Ngram:
    letters = sorted(set(text) - {" "})
    tokens = torch.tensor([letters.index(c) for c in text if c != " "], device=device)
    return Ngram(tokens, vocabulary=len(letters), dtype=dtype, **options)
