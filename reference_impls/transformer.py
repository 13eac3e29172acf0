r"""A causal transformer over tokens: each token is predicted from all before it, by attention.

    p(x_1, ..., x_T) = prod_t softmax(W y_t)[x_t],     y_t a function of (start, x_1, ..., x_{t-1})
    attention(q, k, v)_t = sum_{s <= t} softmax_s(q_t . k_s / sqrt(width of a head)) v_s

Blocks are pre-norm: y += attention(norm(y)), y += mlp(norm(y)). Position s of the input holds the token before s, the
start token at s = 1, so that a position may see itself. Weights of the embedding and of the output are shared.

Drawing keeps the keys and values of the positions so far: a new token then costs O(T), not a pass over the sequence.

Sources: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Radford et al. 2019, Language Models are Unsupervised
Multitask Learners; Karpathy, https://github.com/karpathy/nanoGPT, for the sizes.
"""

import math

import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from reference_impls.autoregressive import checked_labels, normal, placed, uniform_numbers
from reference_impls.discrete import is_state

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each block, (n, heads, positions so far, width of a head)."""


class Transformer(nn.Module):
    """A law on sequences (n, length) of tokens 0, ..., vocabulary - 1; draws are int64."""

    number, family = "M17", "causal transformer"

    def __init__(
        self,
        vocabulary: int,
        length: int,
        *,
        width: int = 32,
        heads: int = 2,
        blocks: int = 2,
        drop: float = 0.0,
        seed: int = 0,
        std: float = 0.02,
    ):
        super().__init__()
        if min(vocabulary, length, blocks, heads) < 1 or width < 1 or width % heads:
            raise ValueError(
                f"vocabulary = {vocabulary}, length = {length}, blocks = {blocks} and heads = {heads} should be at "
                f"least 1, and width = {width} a multiple of heads"
            )
        if not 0 <= drop < 1:
            raise ValueError(f"drop = {drop} should be a share of units, at least 0 and less than 1")
        source = Generator().manual_seed(seed)
        self.vocabulary, self.length, self.drop = vocabulary, length, drop
        self.support = constraints.independent(constraints.integer_interval(0, vocabulary - 1), 1)
        self.token = normal((vocabulary, width), std, source)
        self.start = normal((1, width), std, source)
        self.position = normal((length, width), std, source)
        self.blocks = nn.ModuleList(Block(width, heads, drop, std, blocks, source) for _ in range(blocks))
        self.norm = Norm(width)

    def conditionals(self, x: Tensor) -> Tensor:
        """log p(x_t | x_1, ..., x_{t-1}); -inf where x_t is no token."""
        return self._conditionals(x, None)  # (n, T)

    def log_prob(self, x: Tensor) -> Tensor:
        """Of whole sequences, or of the first tokens of one."""
        return self.conditionals(x).sum(-1)  # (n,)

    def loss(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        """-log p a token, a mean over rows and tokens, with dropout where the model is in training mode."""
        return -self._conditionals(x, None, generator).mean()  # ()

    def ordering(self) -> list[int]:
        return list(range(self.length))

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """With keys and values kept."""
        return self.complete(self._nothing(n), generator=generator)  # (n, length)

    def sample_naive(self, n: int, *, generator: Generator) -> Tensor:
        """What `sample` returns, up to rounding, by a pass over all that is there for each token."""
        return self._drawn(self._nothing(n), None, generator, cached=False)  # (n, length)

    def complete(self, prompt: Tensor, *, generator: Generator) -> Tensor:
        """Sequences (n, length) that begin with the prompt (n, t)."""
        return self._drawn(prompt, None, generator, cached=True)

    def logits(self, before: Tensor, label: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """(n, t + 1, vocabulary): of the token after each of the first 0, ..., t tokens of `before` (n, t)."""
        inputs = torch.cat([self._first(len(before), label), self.token[before]], 1)  # (n, t + 1, width)
        y = self._dropped(inputs + self.position[: inputs.shape[1]], generator)
        for block in self.blocks:
            y = block(y, generator)
        return linear(self.norm(y), self.token)

    def _conditionals(self, x: Tensor, label: Tensor | None, generator: Generator | None = None) -> Tensor:
        if x.dim() != 2 or not 1 <= x.shape[1] <= self.length:
            raise ValueError(f"x should be sequences (n, T) of 1 to {self.length} tokens, not {tuple(x.shape)}")
        is_token = is_state(x, self.vocabulary)
        tokens = torch.where(is_token, x, 0).long()
        log_p = self.logits(tokens[:, :-1], label, generator).log_softmax(-1).gather(2, tokens[..., None])[..., 0]
        return torch.where(is_token, log_p, -math.inf)  # (n, T)

    @torch.no_grad()
    def _drawn(self, prompt: Tensor, label: Tensor | None, generator: Generator, cached: bool) -> Tensor:
        n, begun = prompt.shape
        if begun > self.length:
            raise ValueError(f"prompt has {begun} tokens, and a sequence {self.length}; give the last ones only")
        u = uniform_numbers(n, self.length - begun, self.token, generator)
        x = torch.cat([prompt, prompt.new_zeros(n, self.length - begun)], 1)
        known: Cache = [block.empty(n) for block in self.blocks]
        told = 0  # positions whose keys and values are known
        for t in range(begun, self.length):
            if cached:
                logits, told = self._after(x[:, :t], label, known, told), t + 1
            else:
                logits = self.logits(x[:, :t], label)[:, -1]
            ends = logits.double().softmax(-1).cumsum(-1)  # (n, vocabulary)
            x[:, t] = torch.searchsorted(ends, u[:, t - begun, None] * ends[:, -1:], right=True)[:, 0]
        return x

    def _after(self, before: Tensor, label: Tensor | None, known: Cache, told: int) -> Tensor:
        """Logits (n, vocabulary) of the next token; positions from `told` on are new, and added to what is known."""
        first = [self._first(len(before), label)] if told == 0 else []
        inputs = torch.cat([*first, self.token[before[:, max(0, told - 1) :]]], 1)
        y = inputs + self.position[told : told + inputs.shape[1]]
        for i, block in enumerate(self.blocks):
            y, known[i] = block.extend(y, *known[i])
        return linear(self.norm(y[:, -1]), self.token)

    def _first(self, n: int, label: Tensor | None) -> Tensor:
        return self.start.expand(n, 1, -1)

    def _dropped(self, y: Tensor, generator: Generator | None) -> Tensor:
        return dropped(y, self.drop if self.training else 0.0, generator)

    def _nothing(self, n: int) -> Tensor:
        return torch.zeros(n, 0, dtype=torch.int64, device=self.token.device)


class ConditionalTransformer(Transformer):
    """p(x | y): a start token for each of the labels y. Without `given` the law is the mixture over uniform y."""

    def __init__(self, vocabulary: int, length: int, classes: int, **options):
        super().__init__(vocabulary, length, **options)
        if classes < 1:
            raise ValueError(f"classes = {classes} should be the number of labels, at least 1")
        self.classes = classes
        std = options.get("std", 0.02)
        source = Generator().manual_seed(options.get("seed", 0) + 1)
        self.start = normal((classes, self.token.shape[1]), std, source)

    def conditionals(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        if given is not None:
            return self._conditionals(x, checked_labels(given, len(x), self.classes))
        each = [self._conditionals(x, torch.full_like(x[:, 0], y, dtype=torch.int64)) for y in range(self.classes)]
        mixed = torch.stack(each).cumsum(-1).logsumexp(0) - math.log(self.classes)  # (n, T), of the tokens up to each
        later = torch.where(mixed[:, :-1] > -math.inf, mixed[:, 1:] - mixed[:, :-1], -math.inf)
        return torch.cat([mixed[:, :1], later], 1)

    def log_prob(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        return self.conditionals(x, given=given).sum(-1)  # (n,)

    def loss(self, x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor:
        """-log p(x | y) a token."""
        return -self._conditionals(x, checked_labels(y, len(x), self.classes), generator).mean()  # ()

    def sample(self, n: int, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        return self._drawn(self._nothing(n), self._labels(n, given, generator), generator, cached=True)

    def sample_naive(self, n: int, *, given: Tensor | None = None, generator: Generator) -> Tensor:
        return self._drawn(self._nothing(n), self._labels(n, given, generator), generator, cached=False)

    def class_prior(self) -> Tensor:
        return self.token.new_full((self.classes,), 1 / self.classes)

    def _labels(self, n: int, given: Tensor | None, generator: Generator) -> Tensor:
        if given is None:
            return torch.randint(self.classes, (n,), generator=generator, device=self.token.device)
        return checked_labels(given, n, self.classes)

    def _first(self, n: int, label: Tensor | None) -> Tensor:
        return self.start[label][:, None]


class Block(nn.Module):
    """Attention and a network of one hidden layer, each added to what comes in."""

    def __init__(self, width: int, heads: int, drop: float, std: float, blocks: int, source: Generator):
        super().__init__()
        self.heads, self.drop = heads, drop
        into = std / math.sqrt(2 * blocks)  # as 2 blocks terms are added up
        self.norm_1, self.norm_2 = Norm(width), Norm(width)
        self.attend, self.attended = Dense(width, 3 * width, std, source), Dense(width, width, into, source)
        self.widen, self.narrow = Dense(width, 4 * width, std, source), Dense(4 * width, width, into, source)

    def forward(self, y: Tensor, generator: Generator | None) -> Tensor:
        heads = scaled_dot_product_attention(*self._split(y), is_causal=True)
        y = y + self._dropped(self.attended(_joined(heads)), generator)
        return y + self._dropped(self._mlp(y), generator)

    def extend(self, y: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The same for new positions y (n, m, width) after those whose keys and values are known."""
        q, k, v = self._split(y)
        keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        m, s = q.shape[2], keys.shape[2]
        seen = torch.ones(m, s, dtype=torch.bool, device=y.device).tril(s - m)
        y = y + self.attended(_joined(scaled_dot_product_attention(q, keys, values, attn_mask=seen)))
        return y + self._mlp(y), (keys, values)

    def empty(self, n: int) -> tuple[Tensor, Tensor]:
        width = self.attended.weight.shape[0]
        nothing = self.attended.weight.new_zeros(n, self.heads, 0, width // self.heads)
        return nothing, nothing

    def _split(self, y: Tensor) -> list[Tensor]:
        """Queries, keys and values, (n, heads, positions, width of a head)."""
        n, t, width = y.shape
        parts = self.attend(self.norm_1(y)).reshape(n, t, 3, self.heads, width // self.heads)
        return [part.transpose(1, 2) for part in parts.unbind(2)]

    def _mlp(self, y: Tensor) -> Tensor:
        return self.narrow(gelu(self.widen(self.norm_2(y))))

    def _dropped(self, y: Tensor, generator: Generator | None) -> Tensor:
        return dropped(y, self.drop if self.training else 0.0, generator)


class Dense(nn.Module):
    """W y + b, with normal W and b = 0 to begin with."""

    def __init__(self, inputs: int, outputs: int, std: float, source: Generator):
        super().__init__()
        self.weight, self.bias = normal((outputs, inputs), std, source), nn.Parameter(torch.zeros(outputs))

    def forward(self, y: Tensor) -> Tensor:
        return linear(y, self.weight, self.bias)


class Norm(nn.Module):
    """Mean 0 and variance 1 over the units of a position, then a scale and a shift for each unit."""

    def __init__(self, width: int):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, y: Tensor) -> Tensor:
        return layer_norm(y, self.scale.shape, self.scale, self.shift)


def dropped(y: Tensor, share: float, generator: Generator | None) -> Tensor:
    """Units left out at random, the others scaled up; all of them where the share is 0 or there is no generator."""
    if share == 0 or generator is None:
        return y
    kept = torch.rand(y.shape, generator=generator, device=y.device, dtype=y.dtype) >= share
    return y * kept / (1 - share)


def _joined(heads: Tensor) -> Tensor:
    """(n, heads, t, width of a head) to (n, t, width)."""
    return heads.transpose(1, 2).flatten(2)


# Ready-made models


def four_tokens(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Transformer:
    """Sequences of four tokens out of five; two blocks of two heads, with weights so large that they matter."""
    return placed(Transformer(5, 4, width=16, std=0.5, seed=25), dtype, device)


def eight_bits(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Transformer:
    """Eight binary tokens; one block of four heads."""
    return placed(Transformer(2, 8, width=16, heads=4, blocks=1, std=0.5, seed=26), dtype, device)


def labelled_tokens(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None):
    """Sequences of three tokens out of four, given one of two labels."""
    return placed(ConditionalTransformer(4, 3, 2, width=16, std=0.5, seed=27), dtype, device)


def full_characters(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Transformer:
    """65 characters, 256 in a row, six blocks of six heads of 64 units, nanoGPT's size for Shakespeare; untrained."""
    return placed(Transformer(65, 256, width=384, heads=6, blocks=6, drop=0.2, seed=28), dtype, device)
