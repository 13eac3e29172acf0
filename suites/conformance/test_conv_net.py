"""The convolutional network: scipy's convolutions, the examiner, a problem whose Bayes error is known, and digits."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from scipy.stats import beta, binomtest

from harness import check_model
from harness.evidence import Verdict
from reference_impls import conv_net
from reference_impls.conv_net import ConvNet
from reference_impls.training import train
from suites import data
from suites.real_data.cases import dequantised_digits, thirds
from suites.real_data.conv_cases import CLASSIFIERS, convolutional, exact_interval, generative

EPS = torch.finfo(torch.float64).eps
NORMAL = 4.5
"""Standard deviations: a sum of many independent terms is further off in 7 seeds of a million."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, height, width, seed=0):
    return torch.randn(n, height, width, generator=generator(seed), dtype=torch.float64)


def test_conforms():
    report = check_model(conv_net.six_by_six(), effort="quick", seed=0, only=["module", "classifier", "given"])
    assert not report.failures, report.failures
    passed = {record.check for record in report.records if record.verdict is Verdict.PASS}
    assert {"classifier.posterior_is_log_prob", "classifier.calibrated", "given.normalised"} <= passed


def by_scipy(model, x):
    """Logits (classes,) of one image (height, width), from the formulas."""
    *stages, (w1, b1), (w2, b2) = [
        (w.detach().numpy(), b.detach().numpy()) for w, b in zip(model.weights, model.biases, strict=True)
    ]
    y = [x.numpy()]
    for w, b in stages:
        units = [sum(correlate2d(y[c], w[o, c], "same") for c in range(len(y))) + b[o] for o in range(len(w))]
        high, wide = (size // 2 for size in y[0].shape)
        blocks = [np.maximum(u, 0)[: 2 * high, : 2 * wide].reshape(high, 2, wide, 2) for u in units]
        y = [block.max((1, 3)) for block in blocks]
    u = np.concatenate([channel.ravel() for channel in y])
    return w2 @ np.maximum(w1 @ u + b1, 0) + b2


@pytest.mark.parametrize(("height", "width"), [(6, 6), (8, 5), (4, 7)])
def test_logits_are_those_of_the_formulas(height, width):
    model = ConvNet(height, width, 4, channels=(3, 5), hidden=6, seed=1).double()
    x = images(10, height, width)
    with torch.no_grad():
        found = model.logits(x)
    truth = torch.from_numpy(np.stack([by_scipy(model, row) for row in x]))
    terms = 9 + 9 * 3 + 5 * (height // 4) * (width // 4) + 6  # of the four sums on the way, each an eps of what it adds
    assert (found - truth).abs().max() <= 8 * terms * EPS * (1 + truth.abs().max())


def test_the_posterior_is_a_law_and_log_prob_and_draws_are_its_own():
    model, x = conv_net.six_by_six(dtype=torch.float64), images(50, 6, 6)
    with torch.no_grad():
        p = model.posterior(x)
        assert (p.sum(1) - 1).abs().max() <= 8 * EPS
        for y in range(3):
            assert torch.equal(model.log_prob(torch.full((50,), y), given=x), model.log_posterior(x)[:, y])
        assert torch.equal(model.classify(x), p.argmax(1))
        share = torch.bincount(model.sample(20_000, given=x[0], generator=generator(1)), minlength=3) / 20_000
        assert (share - p[0]).abs().max() <= math.sqrt(math.log(2 * 3 / 1e-9) / 2 / 20_000)  # Hoeffding
        wrong = torch.tensor([-1.0, 3.0, 0.5, math.nan])
        assert (model.log_prob(wrong, given=x[0]) == -math.inf).all()
        assert model.posterior(x[:0]).shape == (0, 3)


def test_on_bars_with_wrong_labels_it_reaches_the_entropy_of_the_mistakes():
    """A bar of three pixels anywhere, upright or level; y says which, but one time in ten the other: p(y | x) is 0.9.

    The network holds that law. Its cross-entropy is above h(0.1) by a divergence: never negative, and k / 2n for k
    parameters fitted to n images. An image for which it prefers the wrong label adds at least ln 2 - h(0.1) to it.
    """
    bars = torch.zeros(2, 48, 8, 8)
    for place in range(48):
        bars[0, place, place // 8 : place // 8 + 3, place % 8] = 1
        bars[1, place, place % 8, place // 8 : place // 8 + 3] = 1

    def draw(n, seed):
        level, place = (torch.randint(high, (n,), generator=generator(seed + i)) for i, high in enumerate((2, 48)))
        wrong = torch.rand(n, generator=generator(seed + 2)) < 0.1
        return bars[level, place], torch.where(wrong, 1 - level, level), wrong

    x, y, _ = draw(20_000, 0)
    fresh, label, wrong = draw(20_000, 10)
    model = ConvNet(8, 8, 2, channels=(8,), hidden=8, seed=2)
    train(model, model.loss, (x, y), steps=250, batch=200, rate=1e-2)
    with torch.no_grad():
        gap = torch.where(wrong, math.log(0.1), math.log(0.9)) - model.log_prob(label, given=fresh)
        mistaken = (model.classify(bars.flatten(0, 1)) != torch.arange(96) // 48).double().mean()
    noise = NORMAL * float(gap.std()) / len(gap) ** 0.5
    allowed = sum(p.numel() for p in model.parameters()) / (2 * len(x)) + noise
    assert -noise <= float(gap.mean()) <= allowed
    entropy = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert float(mistaken) <= allowed / (math.log(2) - entropy)


def test_shifts_inside_of_a_wide_border_do_not_change_what_a_stage_finds():
    """A shift by the side of a pooled block moves the units of a stage by one, and their maximum not at all."""
    model = ConvNet(16, 16, 2, channels=(4,), seed=3).double()
    spot = torch.zeros(2, 16, 16, dtype=torch.float64)
    spot[0, 4:7, 4:7] = spot[1, 6:9, 8:11] = images(1, 3, 3)[0]
    w, b = model.weights[0], model.biases[0]
    with torch.no_grad():
        y = torch.nn.functional.max_pool2d(torch.relu(torch.nn.functional.conv2d(spot[:, None], w, b, padding=1)), 2)
        assert torch.allclose(y[0].roll((1, 2), (1, 2)), y[1], rtol=0, atol=36 * EPS * float(y.abs().max() + 1))


# Digits


def test_the_interval_of_a_share_is_that_of_clopper_and_pearson():
    """Its ends are where the chance of as many successes, or more, or fewer, is 2.5 %."""
    assert exact_interval(0, 10) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10), rel=1e-9))
    assert exact_interval(10, 10) == (pytest.approx(0.025 ** (1 / 10), rel=1e-9), 1.0)
    assert exact_interval(7, 10) == pytest.approx((beta.ppf(0.025, 7, 4), beta.ppf(0.975, 8, 3)), rel=1e-9)


def test_on_digits_it_beats_naive_bayes_and_linear_discriminants():
    """Where just one of the two is right, either is as likely as the other if both are as good: a sign test (McNemar)
    on the 599 test images. Equals would seem so different in one of 1,000 choices of test images."""
    known, test = thirds(data.digits())
    right = convolutional(known)(test.x).argmax(1) == test.y
    noisy, noisy_test = thirds(dequantised_digits())
    for family in ("gaussian_naive_bayes", "lda"):
        peer = generative(family, noisy)(noisy_test.x).argmax(1) == test.y
        ours, theirs = int((right & ~peer).sum()), int((~right & peer).sum())
        assert binomtest(ours, ours + theirs, 0.5, alternative="greater").pvalue < 1e-3


def test_cases_say_what_they_are_of():
    assert [case.name for case in CLASSIFIERS] == [
        "digits/QDA",
        "digits/Gaussian-naive-Bayes",
        "digits/convolutional-network",
    ]
    figures = {figure.metric: figure.value for figure in CLASSIFIERS[1].measure(None)}
    assert figures["accuracy, low end of 95 %"] < figures["accuracy"] < figures["accuracy, high end of 95 %"]


# Bad input


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: ConvNet(6, 6, 0), "classes = 0"),
        (lambda: ConvNet(6, 6, 3, channels=(4, 0)), r"channels = \(4, 0\)"),
        (lambda: ConvNet(6, 3, 3), "6 x 3 is too small to be halved 2 times"),
        (lambda: conv_net.six_by_six().posterior(torch.zeros(2, 8, 8)), r"shape \(n, 6, 6\), not \(2, 8, 8\)"),
        (lambda: conv_net.six_by_six().posterior(torch.zeros(2, 36)), r"not \(2, 36\)"),
        (lambda: conv_net.six_by_six().posterior(torch.full((1, 6, 6), math.nan)), "finite pixels"),
        (lambda: conv_net.six_by_six().loss(torch.zeros(2, 6, 6), torch.tensor([0, 3])), "from 0 to 2"),
        (lambda: conv_net.six_by_six().loss(torch.zeros(2, 6, 6), torch.tensor([0])), "each of 2 images"),
        (lambda: conv_net.six_by_six().log_prob(torch.zeros(3), given=torch.zeros(2, 6, 6)), "3 labels for 2 images"),
        (lambda: conv_net.six_by_six().log_prob(torch.zeros(3, 1), given=torch.zeros(3, 6, 6)), r"shape \(n,\)"),
        (
            lambda: conv_net.six_by_six().sample(3, given=torch.zeros(2, 6, 6), generator=generator()),
            "3 labels for 2 images",
        ),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
