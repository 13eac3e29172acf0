"""WaveNet: loops, all sequences, perturbation, queues against passes over the field, sources of known entropy rate."""

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import conv1d, one_hot, pad

from harness import check_model
from reference_impls import wavenet
from reference_impls.markov_chain import MarkovChain
from reference_impls.training import load_model, save_model, train
from reference_impls.wavenet import Causal, GuidedWaveNet, LabelledWaveNet, WaveNet
from suites.speed.cases import SMALL
from suites.speed.wavenet_cases import CASES, GRID, SMALL_GRID, prepared

EPS = torch.finfo(torch.float64).eps
LAWS = ["module", "autoregressive", "log_prob", "sample", "sampler", "density", "support", "classifier"]
NORMAL = 4.5
"""Standard deviations: a sum of many independent terms is further off in 7 seeds of a million."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sequences(k, length):
    return torch.tensor(list(product(range(k), repeat=length)))


def series(model, n, seed=0):
    return torch.randn(n, *model.given_shape, generator=generator(seed), dtype=torch.float64)


# The examiner


@pytest.mark.parametrize("preset", [wavenet.four_levels, wavenet.labelled])
def test_conforms(preset):
    report = check_model(preset(), effort="quick", seed=0, only=LAWS)
    assert not report.failures, report.failures


def test_given_a_series_it_conforms():
    model = wavenet.guided()
    report = check_model(model, effort="quick", seed=0, only=["module", "given"])
    assert not report.failures, report.failures
    h = series(model, 1).float()
    at_one = SimpleNamespace(
        support=model.support,
        conditionals=lambda x: model.conditionals(x, given=h.expand(len(x), -1, -1)),
        log_prob=lambda x: model.log_prob(x, given=h.expand(len(x), -1, -1)),
        sample=lambda n, *, generator: model.sample(n, given=h.expand(n, -1, -1), generator=generator),
        receptive_field=model.receptive_field,
        ordering=model.ordering,
    )
    report = check_model(at_one, effort="quick", seed=0, only=["autoregressive"])
    assert not report.failures, report.failures


# The formulas


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (2, 8), (3, 2)])
def test_a_causal_layer_is_a_convolution_of_torch(kernel, dilation):
    layer = Causal(3, 5, kernel, dilation, 1.0, generator()).double()
    y = torch.randn(4, 7, 3, generator=generator(1), dtype=torch.float64)
    by_lag = layer.weight.reshape(5, kernel, 3).transpose(1, 2)  # (outputs, inputs, oldest to newest)
    truth = conv1d(pad(y.mT, ((kernel - 1) * dilation, 0)), by_lag, layer.bias, dilation=dilation).mT
    with torch.no_grad():
        assert (layer(y) - truth).abs().max() <= 3 * kernel * EPS * (1 + truth.abs().max())
        queue = layer.queue(4)
        steps = torch.stack([layer(y[:, t], queue) for t in range(7)], 1)
        assert (steps - truth).abs().max() <= 3 * kernel * EPS * (1 + truth.abs().max())
        assert len(queue) == (kernel - 1) * dilation


def by_loops(model, before, h):
    """Logits after `before` (t,), step by step, from the formulas; h has a row (features,) a step."""

    def convolved(layer, y, t):
        total = layer.bias.clone()
        for delay, W in zip(layer.delays, reversed(layer.weight.chunk(len(layer.delays), 1)), strict=True):
            s = t - delay
            total = total + (W @ y[s] if s >= 0 else 0)
        return total

    inputs = [torch.zeros(model.levels, dtype=torch.float64), *(one_hot(v, model.levels).double() for v in before)]
    steps = range(len(inputs))
    y = [convolved(model.first, inputs, t) for t in steps]
    total = 0
    for block in model.blocks:
        width = len(y[0])
        after = []
        for t in steps:
            a = convolved(block.gates, y, t) + (0 if h is None else block.V @ h[t])
            z = a[:width].tanh() / (1 + (-a[width:]).exp())
            out = block.out.weight @ z + block.out.bias
            after.append(y[t] + out[:width])
        total = total + out[width:]
        y = after
    hidden = model.middle.weight @ total.clamp(min=0) + model.middle.bias
    return model.last.weight @ hidden.clamp(min=0) + model.last.bias


def test_logits_are_those_of_the_formulas():
    plain = WaveNet(3, 9, dilations=(1, 2, 1), kernel=3, width=4, skip=5, gain=1.5, seed=4).double()
    guided = wavenet.guided(dtype=torch.float64)
    h = series(guided, 1)
    frames = [[h[0, t // 2] for t in range(6)], h]
    with torch.no_grad():
        for model, told, given in ((plain, None, None), (guided, *frames)):
            for seed in range(20):
                before = torch.randint(3, (1, model.length - 1), generator=generator(seed))
                truth = by_loops(model, before[0], told)
                # At most 14 sums in a row, of up to 12 terms; functions and weights enlarge an error by less than 2^4.
                allowed = 14 * 12 * 2**4 * EPS * (1 + truth.abs().max())
                assert (model.logits(before, given)[0, -1] - truth).abs().max() <= allowed


# Laws


def test_all_sequences_sum_to_one():
    model = wavenet.four_levels(dtype=torch.float64)
    with torch.no_grad():
        assert abs(model.log_prob(sequences(4, 6)).logsumexp(0)) <= 64 * EPS * 6


def test_given_a_label_the_law_sums_to_one_and_without_it_is_the_mixture():
    model, x = wavenet.labelled(dtype=torch.float64), sequences(3, 5)
    with torch.no_grad():
        each = torch.stack([model.log_prob(x, given=torch.full((len(x),), y)) for y in range(3)])
        assert each.logsumexp(1).abs().max() <= 64 * EPS * 5
        assert (each[0] - each[1]).abs().max() > 1
        assert (model.log_prob(x) - (each.logsumexp(0) - math.log(3))).abs().max() <= 64 * EPS * 40


def test_given_a_series_the_law_sums_to_one():
    model, x = wavenet.guided(dtype=torch.float64), sequences(3, 6)
    with torch.no_grad():
        for h in series(model, 3):
            assert abs(model.log_prob(x, given=h.expand(len(x), -1, -1)).logsumexp(0)) <= 64 * EPS * 6


def test_a_global_vector_that_is_one_hot_is_a_label():
    options = {"dilations": (1, 2), "seed": 5}
    labels = LabelledWaveNet(3, 6, 4, **options).double()
    vector = GuidedWaveNet(3, 6, 1, 4, **options).double()
    x, y = torch.randint(3, (20, 6), generator=generator()), torch.arange(20) % 4
    assert torch.equal(labels.log_prob(x, given=y), vector.log_prob(x, given=one_hot(y, 4)[:, None].double()))


def test_a_sample_is_told_of_its_own_frame_and_not_of_later_ones():
    model = wavenet.guided(dtype=torch.float64)
    x, h = torch.randint(3, (50, 6), generator=generator()), series(model, 50)
    for frame in range(3):
        other = h.clone()
        other[:, frame] += 1
        with torch.no_grad():
            moved = (model.conditionals(x, given=other) != model.conditionals(x, given=h)).any(0)
        assert not moved[: 2 * frame].any()
        assert moved[2 * frame : 2 * frame + 2].all()


# The field


@pytest.mark.parametrize(
    ("kernel", "dilations", "field", "hole"),
    [(1, (1, 2), 1, []), (2, (1,), 3, []), (2, (1, 2, 4), 9, []), (2, (4, 1), 7, [4]), (3, (1, 3), 11, [])],
)
def test_the_field_is_exact(kernel, dilations, field, hole):
    """Bit for bit: what is changed outside of it has no effect, and each sample in it has one."""
    length = field + 4
    model = WaveNet(3, length, dilations=dilations, kernel=kernel, gain=2.0, seed=6).double()
    x = torch.randint(3, (64, length), generator=generator(), dtype=torch.int64)
    seen = torch.zeros(length, length, dtype=torch.bool)
    with torch.no_grad():
        before = model.conditionals(x)
        for s in range(length):
            other = x.clone()
            other[:, s] = (other[:, s] + 1) % 3
            seen[:, s] = (model.conditionals(other) != before).any(0)
    assert model.field == field
    assert torch.equal(seen & ~torch.eye(length, dtype=torch.bool), model.receptive_field())
    back = torch.arange(length)[:, None] - torch.arange(length)
    expected = (back >= 1) & (back <= field) & ~torch.isin(back, torch.tensor(hole, dtype=torch.int64))
    assert torch.equal(model.receptive_field(), expected)


def test_the_full_size_sees_a_fifth_of_a_second():
    model = wavenet.full_audio(device="meta")
    assert model.field == 1 + 1 + 3 * (2**10 - 1)
    block = (2 * 64 + 1) * 128 + (64 + 1) * (64 + 256)
    weights = (2 * 256 + 1) * 64 + 30 * block + (256 + 1) * 256 * 2
    assert sum(p.numel() for p in model.parameters()) == weights


def test_weights_serve_sequences_of_any_length(tmp_path):
    short, long = (WaveNet(3, length, seed=seed) for length, seed in ((5, 1), (9, 2)))
    save_model(tmp_path / "weights", short)
    load_model(tmp_path / "weights", long)
    x = torch.randint(3, (20, 9), generator=generator())
    assert torch.allclose(long.conditionals(x)[:, :5], short.conditionals(x[:, :5]), rtol=0, atol=1e-5)


# Draws


def draws_of(model, n, seed, method):
    given = {}
    if isinstance(model, GuidedWaveNet):
        given = {"given": series(model, n)}
    elif isinstance(model, LabelledWaveNet):
        given = {"given": torch.arange(n) % model.classes}
    return getattr(model, method)(n, **given, generator=generator(seed))


@pytest.mark.parametrize(
    "model",
    [
        wavenet.four_levels(dtype=torch.float64),
        wavenet.labelled(dtype=torch.float64),
        wavenet.guided(dtype=torch.float64),
        WaveNet(5, 40, dilations=(1, 2, 4), gain=2.0, seed=7).double(),
        WaveNet(5, 12, dilations=(1, 16), kernel=3, gain=2.0, seed=8).double(),
    ],
    ids=["four_levels", "labelled", "guided", "longer than the field", "shorter"],
)
def test_the_sampler_with_queues_is_the_naive_one(model):
    ours, naive = (draws_of(model, 200, 3, method) for method in ("sample", "sample_naive"))
    assert torch.equal(ours, naive)  # 8,000 uniform numbers, 4 ends, errors of 1e-13: 1 seed in 10^8 differs
    assert ours.dtype == torch.int64
    assert set(ours.unique().tolist()) <= set(range(model.levels))


@pytest.mark.parametrize("length", [16, 32, 64])
def test_the_cost_of_a_sample_does_not_depend_on_what_came_before(length):
    """Steps that a block works on: one a sample with queues, and R at most without."""
    model = WaveNet(3, length, dilations=(1, 2, 4), width=4, skip=4, seed=1)
    steps, forward = [], model.blocks[-1].out.forward

    def counted(y, queue=None):
        steps.append(1 if y.dim() == 2 else y.shape[1])
        return forward(y, queue)

    model.blocks[-1].out.forward = counted
    model.sample(2, generator=generator())
    assert steps == [1] * length
    steps.clear()
    model.sample_naive(2, generator=generator())
    assert steps == [min(t, model.field) for t in range(1, length + 1)]


def test_the_speed_of_both_samplers_is_measured_on_the_same_draws():
    (case,) = CASES
    pair = case.prepare(SMALL, torch.float64, 1)
    ours, theirs = pair.ours(), pair.theirs()
    assert pair.disagreement(ours, theirs) == 0.0
    assert pair.disagreement((ours + 1) % 256, theirs) == pair.disagreement(ours[:, :-1], theirs) == math.inf
    for name, points in SMALL_GRID.items():
        assert [tuple(prepared(name, *point)().shape) for point in points] == [point[:2] for point in points]
    assert set(SMALL_GRID) == set(GRID)


# Sources of known entropy rate

LAG, STRIDE = 4, 8
P = torch.tensor([[14, 4, 2, 0], [2, 2, 8, 8], [0, 6, 6, 8], [10, 5, 5, 0]], dtype=torch.float64) / 20


def interleaved():
    """Four chains in turns: x_t depends on x_{t-4} alone. Returns the chain, a sampler and a density of 32 samples."""
    chain = MarkovChain(MarkovChain(P[0], P, 2).stationary(), P, STRIDE)

    def sample(n, seed):
        return chain.sample(n * LAG, generator=generator(seed)).reshape(n, LAG, STRIDE).mT.reshape(n, LAG * STRIDE)

    def log_prob(x):
        return chain.log_prob(x.reshape(-1, STRIDE, LAG).mT.reshape(-1, STRIDE)).reshape(-1, LAG).sum(1)

    return chain, sample, log_prob


def excess(model, x, log_prob):
    """What a sample costs more than under the source, in nats: a mean over fresh sequences, and its error."""
    with torch.no_grad():
        gap = (log_prob(x) - model.log_prob(x).double()) / model.length
    return float(gap.mean()), NORMAL * float(gap.std()) / len(gap) ** 0.5


def test_the_likelihood_reaches_the_entropy_rate_of_a_source_that_fits_the_field():
    """The excess is a divergence: never negative, and k / 2n for k parameters that are fitted to n samples.

    -log p of the source is T times the rate on average, up to its start. A field of 3 sees nothing that tells about the
    next sample, as the chains are independent: it stays at the entropy of one sample or above.
    """
    chain, sample, log_prob = interleaved()
    x, fresh = sample(2000, 0), sample(1000, 1)
    one = -torch.xlogy(chain.initial, chain.initial).sum()
    expected = (chain.entropy_rate() * (STRIDE - 1) + one) / STRIDE  # a sample of a sequence, its start included
    truth = -log_prob(fresh) / len(fresh[0])
    assert abs(truth.mean() - expected) <= NORMAL * truth.std() / len(fresh) ** 0.5

    model = WaveNet(4, LAG * STRIDE, dilations=(1, 2), width=8, skip=8, seed=1)
    assert model.field == 5
    train(model, model.loss, x, steps=300, batch=128, rate=0.02)
    gap, error = excess(model, fresh, log_prob)
    assert -error <= gap <= sum(p.numel() for p in model.parameters()) / (2 * x.numel()) + error

    short = WaveNet(4, LAG * STRIDE, dilations=(1,), width=8, skip=8, seed=1)
    assert short.field == 3
    train(short, short.loss, x, steps=100, batch=128, rate=0.02)
    gap, error = excess(short, fresh, log_prob)
    assert gap >= one - expected - error


def test_of_a_finely_quantised_gaussian_autoregression_it_is_the_differential_entropy_less_log_step():
    """x_t = a x_{t-1} + s e_t in bins of width D: 1/2 ln(2 pi e s^2) - ln D a sample, or a little more.

    Bins hide something, so never less. Beside the middle of a bin of x_{t-1}, a number Y spread evenly over the bin of
    x_t has the variance s^2 + D^2 / 6 + a^2 D^2 / 12 (Sheppard; up to e^{-2 pi^2 s^2 / D^2}), and a normal law has the
    most entropy: at most 1/2 ln(1 + (2 + a^2) D^2 / (12 s^2)) more. And k / 2n for the parameters, as above.
    """
    a, s, levels, length = 0.8, 1.0, 48, 32
    wide = s / math.sqrt(1 - a * a)
    step = 10 * wide / levels  # +-5 standard deviations: one sample in two million is beyond

    def sample(n, seed):
        e = torch.randn(n, length, generator=generator(seed), dtype=torch.float64)
        x = wide * e[:, :1]
        for t in range(1, length):
            x = torch.cat([x, a * x[:, -1:] + s * e[:, t : t + 1]], 1)
        return ((x + 5 * wide) / step).floor().long().clamp(0, levels - 1), e

    (x, _), (fresh, e) = sample(6000, 2), sample(2000, 3)
    model = WaveNet(levels, length, dilations=(1,), seed=1)
    train(model, model.loss, x, steps=300, batch=128, rate=0.02)
    with torch.no_grad():
        nll = -model.conditionals(fresh)[:, 1:].double()
    # The density of e is a control: its -log has the mean 1/2 ln(2 pi e s^2), and moves with that of the model.
    oracle = 0.5 * math.log(2 * math.pi * math.e * s * s) - math.log(step)
    chance = 0.5 * (e[:, 1:].square() - 1)  # of mean 0
    gap = (nll - oracle - chance).mean(1)
    error = NORMAL * float(gap.std()) / len(gap) ** 0.5
    hidden = 0.5 * math.log1p((2 + a * a) * step**2 / (12 * s * s))
    allowed = hidden + sum(p.numel() for p in model.parameters()) / (2 * x.numel())
    assert -error <= float(gap.mean()) <= allowed + error
    assert allowed + error < 0.1 * math.log(wide / s)  # what a model without memory would lose


# Bad input


def test_what_is_no_level_is_impossible():
    model = wavenet.four_levels()
    for wrong in (4.0, -1.0, 0.5, math.nan):
        x = torch.zeros(3, 6)
        x[:, 2] = wrong
        assert (model.log_prob(x) == -math.inf).all()
    assert model.log_prob(torch.zeros(0, 6)).shape == (0,)


def test_levels_may_be_bytes():
    model = WaveNet(256, 6, seed=9)
    x = torch.randint(256, (20, 6), generator=generator())
    assert torch.equal(model.log_prob(x.to(torch.uint8)), model.log_prob(x))
    assert model.log_prob(x).isfinite().all()


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: WaveNet(0, 6), "levels = 0"),
        (lambda: WaveNet(4, 6, kernel=0), "kernel = 0"),
        (lambda: WaveNet(4, 6, dilations=()), r"dilations = \[\] should be one or more"),
        (lambda: WaveNet(4, 6, dilations=(1, 0)), r"dilations = \[1, 0\]"),
        (lambda: LabelledWaveNet(4, 6, 0), "classes = 0"),
        (lambda: GuidedWaveNet(4, 6, 4, 2), "length = 6 should be a multiple of frames = 4"),
        (lambda: GuidedWaveNet(4, 6, 3, 0), "features = 0"),
        (lambda: wavenet.four_levels().log_prob(torch.zeros(2, 5)), r"shape \(n, 6\), not \(2, 5\)"),
        (lambda: wavenet.labelled().log_prob(torch.zeros(2, 5), given=torch.tensor([0, 3])), "labels from 0 to 2"),
        (lambda: wavenet.guided().log_prob(torch.zeros(2, 6), given=torch.zeros(2, 2, 2)), r"shape \(2, 3, 2\)"),
        (lambda: wavenet.guided().sample(1, given=torch.full((1, 3, 2), math.nan), generator=generator()), "finite"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
