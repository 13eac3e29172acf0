"""PixelRNN: masks by hand, states by loops over pixels, all images, who sees whom, an Ising law, and the examiner."""

import copy
import math
from itertools import product

import pytest
import torch

from harness import check_model
from reference_impls import diagonal_lstm, row_lstm
from reference_impls.diagonal_lstm import ConditionalDiagonalBiLSTM, DiagonalBiLSTM, DiagonalLayer
from reference_impls.ising import ising_3x3
from reference_impls.pixel_masks import MaskedConv, groups, mask
from reference_impls.row_lstm import ConditionalRowLSTM, RowLSTM
from reference_impls.training import train

EPS = torch.finfo(torch.float64).eps
PRESETS = [
    diagonal_lstm.three_by_three,
    diagonal_lstm.two_by_two_levels,
    diagonal_lstm.two_colour_pixels,
    diagonal_lstm.labelled_pixels,
    row_lstm.three_by_three,
    row_lstm.two_by_two_levels,
]
SMALL = [
    DiagonalBiLSTM((3, 2), levels=2, hidden=3, layers=2, first=3, seed=1, gain=1.5),
    DiagonalBiLSTM((3, 2), levels=3, hidden=3, layers=2, first=5, seed=2, gain=1.5, beyond=0),
    DiagonalBiLSTM((3, 2, 2), levels=3, hidden=6, layers=2, first=3, seed=3, gain=1.5),
    ConditionalDiagonalBiLSTM((2, 3), 2, hidden=3, layers=2, first=3, seed=4, gain=1.5),
    RowLSTM((3, 3), levels=3, hidden=3, layers=2, first=3, kernel=5, seed=5, gain=1.5),
    RowLSTM((3, 2, 2), levels=2, hidden=6, layers=2, first=3, seed=6, gain=1.5),
    ConditionalRowLSTM((2, 3), 2, hidden=3, layers=1, first=3, seed=7, gain=1.5),
]
for number, small in enumerate(SMALL):  # biases begin at 0; here they are to matter
    for name, parameter in small.named_parameters():
        if name.endswith("bias"):
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) / 2
    small.to(torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(model):
    """All of them, flat."""
    return torch.tensor(list(product(range(model.levels), repeat=len(model.order))))


def some(model, n):
    """Random levels and, where the model has them, labels."""
    levels = torch.randint(model.levels, (n, len(model.order)), generator=generator(8))
    labels = torch.arange(n) % model.classes if hasattr(model, "classes") else None
    return levels, labels


def rounding(model, levels, label=None):
    """How far logits in float64 may be off: by as many roundoffs as they are in float32, where they can be measured.

    That number is how much the arithmetic amplifies, which two orders of summing share; 16 allows for luck in it.
    """
    narrow = copy.deepcopy(model).float()
    with torch.no_grad():
        gap = (narrow.logits(levels, label).double() - model.logits(levels, label)).abs().max()
    return 16 * EPS * max(1.0, float(gap) / torch.finfo(torch.float32).eps)


# Masks


@pytest.mark.parametrize(("kind", "middle"), [("A", 0), ("B", 1)])
def test_masks_of_one_colour(kind, middle):
    one = torch.zeros(1, dtype=torch.int64)
    assert mask(kind, one, one, (3, 3))[0, 0].int().tolist() == [[1, 1, 1], [1, middle, 0], [0, 0, 0]]
    assert mask(kind, one, one, (1, 5))[0, 0].int().tolist() == [[1, 1, middle, 0, 0]]
    assert mask(kind, one, one, (1, 1))[0, 0].int().tolist() == [[middle]]


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("A", [[0, 0, 0], [1, 0, 0], [1, 1, 0]]),  # R is told of no colour, G of R, B of R and G
        ("B", [[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
    ],
)
def test_masks_of_three_colours(kind, table):
    colour = torch.arange(3)
    found = mask(kind, colour, colour, (3, 3)).int()
    assert found[:, :, 1, 1].tolist() == table
    assert found[:, :, 0].min() == found[:, :, 1, 0].min() == 1
    assert found[:, :, 2].max() == found[:, :, 1, 2].max() == 0
    assert groups(6, 3).tolist() == [0, 0, 1, 1, 2, 2]
    wide = mask(kind, groups(6, 3), colour, (1, 1))[:, :, 0, 0].int().tolist()
    assert wide == [row for row in table for _ in range(2)]


# The law


def by_loops(model, x, label):
    """Logits of one image (colours, rows, columns) of numbers, pixel by pixel, feature by feature."""
    C, h, w, beyond, hidden = model.colours, model.h, model.w, model.beyond, model.layers[0].hidden
    image, inner = list(range(C)), [f * C // hidden for f in range(hidden)]
    outer = [f * C // (2 * hidden) for f in range(2 * hidden)]

    def conv(part, kind, after, before, at, i, j):
        out, (rows, columns) = part.bias.clone(), part.weight.shape[2:]
        for a in range(-(rows // 2), rows // 2 + 1):
            for b in range(-(columns // 2), columns // 2 + 1):
                if (a, b) > (0, 0) or (i + a, j + b) not in at:
                    continue
                for o, p in product(range(len(after)), range(len(before))):
                    if (a, b) < (0, 0) or before[p] < after[o] or (kind == "B" and before[p] == after[o]):
                        out[o] += part.weight[o, p, a + rows // 2, b + columns // 2] * at[i + a, j + b][p]
        return out

    def lstm(gates, states, weight):
        """h and c from input to state, (h, c) before by tap, and c of the middle one."""
        taps, c = states
        for k, h_before in enumerate(taps):
            gates = gates + h_before @ weight[k]
        o, f, i, g = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    places = list(product(range(h), range(w + beyond)))
    at = {(i, j): x[:, i, j] for i, j in product(range(h), range(w))}
    y = {place: conv(model.first, "A", outer, image, at, *place) for place in places}
    nothing = torch.zeros(hidden, dtype=torch.float64), torch.zeros(hidden, dtype=torch.float64)
    for number, layer in enumerate(model.layers):
        sides = 2 if isinstance(layer, DiagonalLayer) else 1
        gates = {place: conv(layer.into, "B", inner * 4 * sides, outer, y, *place) for place in places}
        if label is not None:
            gates = {place: g + model.of_label[number][label] for place, g in gates.items()}
        if sides == 1:
            state, r = {}, layer.kernel // 2
            for i, j in places:
                before = [state.get((i - 1, j + q), nothing) for q in range(-r, r + 1)]
                state[i, j] = lstm(gates[i, j], ([s[0] for s in before], before[r][1]), layer.state[0])
            sums = {place: state[place][0] for place in places}
        else:
            left, right = {}, {}
            for side, found, step in ((0, left, 1), (1, right, -1)):
                for i, j in sorted(places, key=lambda place, step=step: (place[0], step * place[1])):
                    above, beside = found.get((i - 1, j), nothing), found.get((i, j - step), nothing)
                    into = gates[i, j][4 * hidden * side : 4 * hidden * (side + 1)]
                    found[i, j] = lstm(into, ([above[0], beside[0]], beside[1]), layer.state[side])
            sums = {(i, j): left[i, j][0] + right.get((i - 1, j), nothing)[0] for i, j in places}
        y = {place: y[place] + conv(layer.up, "B", outer, inner, sums, *place) for place in places}
    levels = [c for c in image for _ in range(model.levels - 1)]
    found = {}
    for place in product(range(h), range(w)):
        on = {place: y[place].relu()}
        on = {place: conv(model.wide, "B", outer, outer, on, *place).relu()}
        found[place] = conv(model.last, "B", levels, outer, on, *place).reshape(C, -1)
    return torch.stack([found[i, j][c] for c in image for i, j in product(range(h), range(w))])


@pytest.mark.parametrize("model", SMALL)
def test_lines_all_at_once_are_the_formulas_pixel_by_pixel(model):
    levels, labels = some(model, 2)
    with torch.no_grad():
        found = model.logits(levels, labels)
        walked = model.logits_by_pixel(levels, labels)
        for n, row in enumerate(levels.double()):
            x = (row * 2 / (model.levels - 1) - 1).reshape(model.colours, model.h, model.w)
            truth = by_loops(model, x, None if labels is None else labels[n])
            assert (found[n] - truth).abs().max() <= rounding(model, levels, labels)
            assert (walked[n] - truth).abs().max() <= rounding(model, levels, labels)


@pytest.mark.parametrize("preset", PRESETS)
def test_all_images_sum_to_one(preset):
    model = preset(dtype=torch.float64)
    x = images(model)
    events = x.double().reshape(-1, *model.event_shape)
    label = torch.ones(len(x), dtype=torch.int64) if hasattr(model, "classes") else None
    with torch.no_grad():
        slack = 2 * len(model.order) * rounding(model, x, label)
        assert abs(model.log_prob(events).logsumexp(0)) <= slack
        if label is not None:
            each = torch.stack([model.log_prob(events, given=y * label) for y in range(model.classes)])
            assert each.logsumexp(1).abs().max() <= slack
            mixture = each.logsumexp(0) - math.log(model.classes)
            assert (model.log_prob(events) - mixture).abs().max() <= slack


@pytest.mark.parametrize("model", SMALL)
def test_the_sampler_that_keeps_its_states_is_the_naive_one(model):
    ours, naive = (draw(100, generator=generator(3)) for draw in (model.sample, model.sample_naive))
    assert torch.equal(ours, naive)  # a uniform number within 1e-13 of an end: one draw in 10^10
    assert ours.shape[1:] == model.event_shape
    assert not ours.requires_grad


def test_parts_of_a_batch_are_the_batch(monkeypatch):
    model = SMALL[3]
    x, labels = model.sample(20, generator=generator(1)), torch.arange(20) % 2
    with torch.no_grad():
        whole = model.log_prob(x, given=labels), model.sample(20, given=labels, generator=generator(2))
        monkeypatch.setattr("reference_impls.pixel_rnn.NUMBERS", 7 * 6 * model.layers[0].gates)
        assert [len(x[rows]) for rows in model._parts(20)] == [7, 7, 6]
        parts = model.log_prob(x, given=labels), model.sample(20, given=labels, generator=generator(2))
    assert (parts[0] - whole[0]).abs().max() <= 12 * rounding(model, x.flatten(1).long(), labels)
    assert torch.equal(parts[1], whole[1])


# Who sees whom


def slopes(model):
    """|d logit_i / d x_j|, the largest over some images, (d, d): x_j taken for a real number."""
    d = len(model.order)
    x, labels = some(model, 4)
    label = None if labels is None else labels[:1]
    each = [
        torch.autograd.functional.jacobian(lambda v: model.logits(v[None], label)[0].sum(1), row)
        for row in x.double() + 0.3
    ]
    return torch.stack(each).abs().amax(0).reshape(d, d)


@pytest.mark.parametrize("model", SMALL)
def test_the_jacobian_is_zero_outside_of_the_stated_field_and_not_inside(model):
    """Exactly: a mask multiplies by 0."""
    found, field = slopes(model), model.receptive_field()
    assert torch.equal(found > 0, field)
    place = model.order.argsort()
    assert not (field & (place >= place[:, None])).any()


def test_colours_come_one_after_the_other():
    model = SMALL[2]
    found = slopes(model).reshape(3, 4, 3, 4)  # colour, pixel, colour, pixel
    for pixel in range(4):
        own = found[:, pixel, :, pixel] > 0
        assert own.int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert model.ordering() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


@pytest.mark.parametrize("layers", [1, 4])
def test_a_row_lstm_misses_the_right_of_the_rows_above(layers):
    """A row up, three columns to the right are seen and the fourth is not, however many layers there are.

    Each row further up adds one, as k = 3, on top of the three columns of the first kernel.
    """
    model = RowLSTM((5, 12), hidden=2, layers=layers).to(torch.float64)
    field = model.receptive_field().reshape(5, 12, 5, 12)
    for i, j, up in product(range(5), range(12), range(1, 5)):
        if up <= i:
            seen = field[i, j, i - up].nonzero()[:, 0]
            assert seen.max() == min(11, j + 2 + up)
    x = some(model, 8)[0]
    for column, seen in ((2 + 3, True), (2 + 4, False)):
        other = x.clone()
        other[:, 3 * 12 + column] = 1 - other[:, 3 * 12 + column]
        with torch.no_grad():
            gap = (model.logits(other) - model.logits(x))[:, 4 * 12 + 2].abs().max()
        assert (gap > 0) == seen


def test_layers_of_a_row_lstm_alone_do_not_see_two_columns_to_the_right():
    model = RowLSTM((2, 6), hidden=2, layers=4, seed=3).to(torch.float64)
    y = torch.randn(2, 6, 1, 4, generator=generator(), dtype=torch.float64)
    for column, seen in ((3, True), (4, False)):
        other = y.clone()
        other[0, column] += 1
        ends = []
        for features in (y, other):
            for layer in model.layers:
                features = layer(features, None)
            ends.append(features[1, 2])
        assert bool((ends[0] != ends[1]).any()) == seen


@pytest.mark.parametrize("layers", [1, 3])
def test_a_diagonal_bilstm_sees_all_pixels_before(layers):
    d = 60
    field = DiagonalBiLSTM((5, 12), hidden=2, layers=layers).receptive_field()
    assert torch.equal(field, torch.ones(d, d, dtype=torch.bool).tril(-1))


@pytest.mark.parametrize("layers", [1, 3])
def test_without_the_column_beyond_it_misses_the_end_of_the_row_above(layers):
    """And nothing else: pixel (i - 1, w - 1), from all (i, j) but the last three that the first kernel serves."""
    field = DiagonalBiLSTM((5, 12), hidden=2, layers=layers, beyond=0).receptive_field()
    missed = torch.ones(60, 60, dtype=torch.bool).tril(-1) & ~field
    expected = {(12 * i + j, 12 * i - 1) for i in range(1, 5) for j in range(12 - 1 - 3)}
    assert {(i, j) for i, j in missed.nonzero().tolist()} == expected


# Learning


@pytest.mark.parametrize("kind", [DiagonalBiLSTM, RowLSTM])
def test_it_learns_an_ising_law(kind):
    """From N draws of 3 x 3 spins. A table of all 512 states has 511 free numbers, and its divergence from the truth
    has the law chi2_511 / 2 N for large N (Wilks): a network that shares its weights must beat its mean.

    For comparison, independent pixels are 9 log 2 - H = 1.147 nats away, and 511 / 2 N is 0.026. The divergence is a
    sum over all states, and so NLL - H without error of sampling.
    """
    n, truth = 10_000, ising_3x3(dtype=torch.float64)
    x = (truth.sample(n, generator=generator()) + 1) / 2
    model = kind((3, 3), hidden=8, layers=1, seed=1)
    train(model, model.loss, x.float(), steps=150, batch=250, rate=2e-2)
    states = truth.states()
    log_p = truth.log_prob(states)
    with torch.no_grad():
        log_q = model.double().log_prob((states + 1) / 2)
    nll, entropy = -(log_p.exp() * log_q).sum(), truth.entropy()
    assert abs(float(entropy) - 5.0912936770) <= 5e-11  # as printed
    assert 0 <= nll - entropy <= 511 / (2 * n)


# The examiner


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    report = check_model(preset(), effort="quick", seed=0, only=["autoregressive", "log_prob", "density", "support"])
    assert not report.failures, report.failures


def opened(model, outputs, place):
    """The model with weights of the first kernel let through that are to be masked."""
    model.first.mask = model.first.mask.clone()
    model.first.mask[(outputs, *place)] = True
    model.first.weight.data[(outputs, *place)] = 1.0
    return model


def sees_itself():
    """Mask B for the image."""
    return opened(diagonal_lstm.three_by_three(), slice(None), (0, 1, 1))


def green_sees_blue():
    return opened(diagonal_lstm.two_colour_pixels(), groups(12, 3) == 1, (2, 3, 3))


def mask_one_too_far():
    """A pixel sees its successor."""
    return opened(row_lstm.three_by_three(), slice(None), (0, 1, 2))


class NotMovedDown(DiagonalLayer):
    """States from the right are added where they are."""

    def forward(self, y, shift):
        gates = self.into(y)
        diagonals = diagonal_lstm.Diagonals(*y.shape[:2], y.device)
        lines = diagonals.skewed(*gates.chunk(2, -1))
        h = diagonal_lstm.over_lines(lines, diagonals.starts, self.state, above=1)
        left, right = diagonals.unskewed(list(h), y)
        return y + self.up(left + right)


class SeesTheRestOfItsRow(DiagonalBiLSTM):
    recurrent = NotMovedDown


def not_moved_down():
    return SeesTheRestOfItsRow((3, 3), hidden=6, first=3, seed=33, gain=1.5)


def a_row_lstms_field():
    """A Diagonal BiLSTM that states what a Row LSTM sees."""
    model = diagonal_lstm.three_by_three()
    model.receptive_field = row_lstm.three_by_three().receptive_field
    return model


def stale():
    """States of the row above that are not handed on."""
    model = diagonal_lstm.three_by_three()
    for layer in model.layers:
        walk = layer.walk

        def forgetful(n, w, shift, walk=walk):
            found = walk(n, w, shift)
            found.end_row = lambda: None
            return found

        layer.walk = forgetful
    return model


def sees_more():
    """A Row LSTM that says it might see all pixels before: no promise is broken (True is none), and no FAIL due."""
    model = row_lstm.three_by_three()
    model.receptive_field = diagonal_lstm.three_by_three().receptive_field
    return model


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (sees_itself, "autoregressive.each_normalised"),
        (green_sees_blue, "autoregressive.causal_by_perturbation"),
        (mask_one_too_far, "autoregressive.causal_by_perturbation"),
        (not_moved_down, "autoregressive.causal_by_perturbation"),
        (a_row_lstms_field, "autoregressive.receptive_field"),
        (stale, "autoregressive.cached_is_naive"),
    ],
)
def test_defects_are_found(mutant, check):
    report = check_model(mutant(), effort="quick", seed=0, only=[check])
    assert [record.check for record in report.failures] == [check]


def test_a_field_that_is_too_wide_is_no_defect():
    assert not check_model(sees_more(), effort="quick", seed=0, only=["autoregressive.receptive_field"]).failures


# Mistakes


def test_what_is_no_level_is_impossible():
    x = torch.zeros(4, 2, 2)
    x[0, 0, 0], x[1, 1, 1], x[2, 0, 1] = 3, 0.5, math.nan
    model = diagonal_lstm.two_by_two_levels()
    assert (model.log_prob(x) == -math.inf).tolist() == [True, True, True, False]
    assert model.log_prob(torch.zeros(0, 2, 2)).shape == (0,)
    assert model.sample(0, generator=generator()).shape == (0, 2, 2)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: DiagonalBiLSTM((3,)), r"shape = \(3,\)"),
        (lambda: DiagonalBiLSTM((0, 3)), r"shape = \(0, 3\)"),
        (lambda: DiagonalBiLSTM((3, 3), levels=1), "levels = 1 should be at least 2"),
        (lambda: DiagonalBiLSTM((3, 3), layers=0), "layers = 0 at least 1"),
        (lambda: DiagonalBiLSTM((3, 3), first=4), "4 x 4 has no middle"),
        (lambda: DiagonalBiLSTM((3, 3), beyond=2), "beyond = 2"),
        (lambda: DiagonalBiLSTM((3, 2, 2), hidden=8), "16 feature maps do not split into 3 colours"),
        (lambda: RowLSTM((3, 3), kernel=2), "1 x 2 has no middle"),
        (lambda: ConditionalRowLSTM((3, 3), 0), "classes = 0"),
        (lambda: MaskedConv("C", torch.arange(1), torch.arange(1), (1, 1), generator()), "kind = 'C'"),
        (lambda: row_lstm.three_by_three().log_prob(torch.zeros(2, 9)), r"shape \(n, 3, 3\), not \(2, 9\)"),
        (lambda: row_lstm.three_by_three().log_prob(torch.zeros(2, 3, 4)), r"shape \(n, 3, 3\), not \(2, 3, 4\)"),
        (lambda: row_lstm.three_by_three().loss(torch.full((2, 3, 3), 255.0)), "255, which is no level 0, ..., 1"),
        (
            lambda: diagonal_lstm.labelled_pixels().loss(torch.zeros(1, 2, 3) - 1, torch.zeros(1)),
            "-1, which is no level",
        ),
        (
            lambda: diagonal_lstm.labelled_pixels().log_prob(torch.zeros(1, 2, 3), given=torch.tensor([3])),
            "labels from 0 to 2",
        ),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
