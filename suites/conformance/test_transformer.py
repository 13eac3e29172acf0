"""The transformer: attention by loops, all sequences, the cache against passes over everything, and the examiner."""

import math
from itertools import product

import pytest
import torch

from harness import check_model
from reference_impls import transformer
from reference_impls.training import train
from reference_impls.transformer import ConditionalTransformer, Transformer, dropped

EPS = torch.finfo(torch.float64).eps
PRESETS = [transformer.four_tokens, transformer.eight_bits, transformer.labelled_tokens]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sequences(k, length):
    return torch.tensor(list(product(range(k), repeat=length)))


def by_loops(model, before):
    """Logits after all tokens of `before` (t,), position by position, head by head, from the formulas."""

    def norm(y, layer):
        return (y - y.mean()) / (y.var(correction=0) + 1e-5).sqrt() * layer.scale + layer.shift

    inputs = [model.start[0], *(model.token[v] for v in before.tolist())]
    y = [token + model.position[s] for s, token in enumerate(inputs)]
    for block in model.blocks:
        queries, keys, values = zip(
            *((block.attend.weight @ norm(row, block.norm_1) + block.attend.bias).chunk(3) for row in y), strict=True
        )
        width = len(y[0]) // block.heads
        after = []
        for t in range(len(y)):
            parts = []
            for h in range(block.heads):
                part = slice(h * width, (h + 1) * width)
                scores = torch.stack([queries[t][part] @ keys[s][part] / math.sqrt(width) for s in range(t + 1)])
                parts.append(sum(a * values[s][part] for s, a in enumerate(scores.softmax(0))))
            row = y[t] + block.attended.weight @ torch.cat(parts) + block.attended.bias
            wide = block.widen.weight @ norm(row, block.norm_2) + block.widen.bias
            gelu = wide * (1 + torch.erf(wide / math.sqrt(2))) / 2
            after.append(row + block.narrow.weight @ gelu + block.narrow.bias)
        y = after
    return model.token @ norm(y[-1], model.norm)


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    only = ["autoregressive", "log_prob", "sample", "sampler", "density", "support"]
    report = check_model(preset(), effort="quick", seed=0, only=only)
    assert not report.failures, report.failures


@pytest.mark.parametrize("preset", PRESETS[:2])
def test_logits_are_those_of_the_formulas(preset):
    model = preset(dtype=torch.float64)
    with torch.no_grad():
        for before in sequences(model.vocabulary, model.length - 1)[::7]:
            truth = by_loops(model, before)
            # Some two dozen sums of up to 64 terms in a row; norms, and weights of size 1, do not enlarge their errors.
            assert (model.logits(before[None])[0, -1] - truth).abs().max() <= 24 * 64 * EPS * (1 + truth.abs().max())


@pytest.mark.parametrize("preset", PRESETS)
def test_all_sequences_sum_to_one(preset):
    model = preset(dtype=torch.float64)
    x = sequences(model.vocabulary, model.length)
    with torch.no_grad():
        assert abs(model.log_prob(x).logsumexp(0)) <= 64 * EPS * model.length
        begun = model.log_prob(x[:, :2])  # the law of the first two tokens is a marginal
        for row in range(0, len(x), 31):
            same = (x[:, :2] == x[row, :2]).all(1)
            assert abs(model.log_prob(x)[same].logsumexp(0) - begun[row]) <= 64 * EPS * model.length * 4


def test_later_tokens_are_not_seen():
    model = transformer.four_tokens(dtype=torch.float64)
    x = model.sample(50, generator=generator())
    for t in range(4):
        other = x.clone()
        other[:, t:] = (other[:, t:] + 1) % 5
        with torch.no_grad():
            gap = model.logits(other[:, :3])[:, : t + 1] - model.logits(x[:, :3])[:, : t + 1]
        assert gap.abs().max() <= 64 * EPS * 10


@pytest.mark.parametrize("preset", PRESETS)
def test_the_cached_sampler_is_the_naive_one(preset):
    model = preset(dtype=torch.float64)
    ours, naive = (draw(400, generator=generator(3)) for draw in (model.sample, model.sample_naive))
    assert torch.equal(ours, naive)  # a uniform number within 1e-14 of an end: one draw in 10^11
    assert ours.dtype == torch.int64


def test_a_prompt_is_gone_on_from():
    model = transformer.four_tokens(dtype=torch.float64)
    prompt = torch.tensor([[1, 4]]).expand(4000, -1)
    x = model.complete(prompt, generator=generator(4))
    assert torch.equal(x[:, :2], prompt)
    share = torch.bincount(x[:, 2], minlength=5) / 4000
    truth = model.logits(prompt[:1])[0, -1].softmax(-1).detach()
    assert (share - truth).abs().max() <= math.sqrt(math.log(2 * 5 / 1e-9) / 2 / 4000)  # Hoeffding


def test_the_cost_of_a_cached_token_is_linear_in_what_came_before():
    """Positions that a block works on: one a token with the cache, all of them without."""
    counts = {"cached": 0, "naive": 0}
    model = Transformer(3, 32, width=8, seed=1)
    norm = model.blocks[0].norm_2.forward
    for name, draw in (("cached", model.sample), ("naive", model.sample_naive)):

        def counted(y, name=name):
            counts[name] += y.shape[1]
            return norm(y)

        model.blocks[0].norm_2.forward = counted
        draw(1, generator=generator())
    assert counts == {"cached": 32, "naive": 32 * 33 // 2}


def test_given_a_label_the_law_sums_to_one_and_without_it_is_the_mixture():
    model, x = transformer.labelled_tokens(dtype=torch.float64), sequences(4, 3)
    with torch.no_grad():
        each = torch.stack([model.log_prob(x, given=torch.full((64,), y)) for y in range(2)])
        assert each.logsumexp(1).abs().max() <= 64 * EPS * 3
        assert (model.log_prob(x) - (each.logsumexp(0) - math.log(2))).abs().max() <= 64 * EPS * 30


def test_dropout_is_for_training_only_and_keeps_the_mean():
    model = Transformer(5, 4, width=16, drop=0.5, seed=1)
    x = torch.tensor([[0, 1, 2, 3]])
    model.train()
    first, second = (model.loss(x, generator=generator(seed)) for seed in (0, 1))
    assert first != second
    assert torch.equal(model.log_prob(x), model.log_prob(x))
    model.eval()
    assert torch.equal(model.loss(x, generator=generator(0)), model.loss(x, generator=generator(1)))
    kept = dropped(torch.ones(40000), 0.25, generator(2))
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert abs(float(kept.mean()) - 1) <= 4 / 3 * math.sqrt(math.log(2 / 1e-9) / 2 / 40000)  # Hoeffding


def test_training_goes_down():
    x = transformer.four_tokens().sample(1000, generator=generator(9))
    model = Transformer(5, 4, width=16, seed=1)
    history = train(model, model.loss, x, steps=40, batch=200, rate=1e-2)
    assert history[-10:].mean() < history[:10].mean()
    assert abs(float(history[0]) - math.log(5)) < 0.1  # all tokens about alike to begin with


def test_what_is_no_token_is_impossible():
    model = transformer.four_tokens()
    x = torch.tensor([[0.0, 1.0, 5.0, 0.0], [0.0, 1.0, -1.0, 0.0], [0.5, 0.0, 0.0, 0.0], [math.nan, 0.0, 0.0, 0.0]])
    assert (model.log_prob(x) == -math.inf).all()
    assert model.log_prob(torch.zeros(0, 4)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: Transformer(5, 4, width=15), "width = 15 a multiple of heads"),
        (lambda: Transformer(0, 4), "vocabulary = 0"),
        (lambda: Transformer(5, 4, drop=1.0), "drop = 1.0"),
        (lambda: ConditionalTransformer(5, 4, 0), "classes = 0"),
        (lambda: transformer.four_tokens().log_prob(torch.zeros(2, 5)), "1 to 4 tokens"),
        (
            lambda: transformer.four_tokens().complete(torch.zeros(1, 5).long(), generator=generator()),
            "prompt has 5 tokens",
        ),
        (
            lambda: transformer.labelled_tokens().log_prob(torch.zeros(1, 3), given=torch.tensor([2])),
            "labels from 0 to 1",
        ),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
