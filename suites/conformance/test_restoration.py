"""Restoration of Gaussian images against conditionals by blocks, by precisions, and by scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import check_model
from reference_impls import palette
from reference_impls import restoration as r
from reference_impls.gaussian import Gaussian

EPS = torch.finfo(torch.float64).eps
examples = settings(derandomize=True, deadline=None, max_examples=10)
PRESETS = [r.inpainted, r.uncropped, r.colorized, r.enlarged, r.restored, r.denoised]
N = 20_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert not report.failures, report.failures


def oracle(model, y):
    """Mean and covariance of x given y from the joint Gaussian of (x, y), in numpy; pseudo-inverse and no Cholesky."""
    mu, sigma, a = (part.numpy() for part in (model.law.mean(), model.law.covariance(), model.matrix))
    gain = sigma @ a.T @ np.linalg.pinv(a @ sigma @ a.T + model.tau**2 * np.eye(len(a)))
    return mu + gain @ (y.numpy() - a @ mu), sigma - gain @ a @ sigma


def seen(model, seed=0):
    """y of one image."""
    x = model.law.sample(1, generator=generator(seed)).reshape(1, *model.event_shape)
    return model.degraded(x, generator=generator(seed + 1))


@pytest.mark.parametrize("preset", PRESETS)
def test_mean_and_covariance_are_those_of_the_joint_gaussian(preset):
    model = preset(dtype=torch.float64)
    y = seen(model)
    mean, covariance = oracle(model, y[0])
    allowed = 100 * EPS * np.linalg.cond(model.law.covariance().numpy()) * model.law.d
    assert np.abs(model.mean_given(y)[0].numpy() - mean).max() <= allowed * (1 + np.abs(mean).max())
    assert np.abs(model.covariance_given.numpy() - covariance).max() <= allowed


@pytest.mark.parametrize("preset", PRESETS)
def test_draws_have_the_conditional_s_mean_and_covariance(preset):
    """Within 6 deviations of what N draws allow, plus twice what the solver changes by from half as many steps."""
    model = preset(dtype=torch.float64)
    y = seen(model)
    mean, covariance = (torch.from_numpy(part) for part in oracle(model, y[0]))
    x = model.sample(N, given=y.expand(N, -1), generator=generator(2)).flatten(1)
    model.steps //= 2
    coarse = model.sample(N, given=y.expand(N, -1), generator=generator(2)).flatten(1)
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    off = (x - mean).square().mean().sqrt()
    solver = 2 * (x - coarse).square().mean(0).sqrt()  # of each coordinate; the same noise, fewer steps
    assert ((x.mean(0) - mean).abs() <= 6 * deviation / math.sqrt(N) + solver + 1e3 * EPS).all()
    unit = deviation[:, None] * deviation
    spread = 6 * (unit.square() + covariance.square()).sqrt() / math.sqrt(N)
    assert ((x.T.cov() - covariance).abs() <= spread + 2 * deviation.max() * solver.max() + 1e3 * EPS).all()
    assert solver.max() < 0.02
    assert off < 2


@pytest.mark.parametrize("preset", [r.inpainted, r.uncropped])
def test_observed_pixels_are_returned_to_the_last_bit(preset):
    model = preset()
    y = torch.randn(50, *model.given_shape, generator=generator())
    x = model.sample(50, given=y, generator=generator(1))
    mask, values = model.observed(y)
    assert mask.shape == values.shape == x.shape
    assert torch.equal(x[mask], values[mask])
    assert torch.equal(x[:, model.mask], y)
    assert (x[:, ~model.mask].std(0) > 0).all()


@pytest.mark.parametrize("preset", [r.colorized, r.enlarged])
def test_what_is_known_of_draws_is_what_was_given(preset):
    """A x = y without noise: the flow ends within sigma of the first time of it, and the denoiser projects."""
    model = preset(dtype=torch.float64)
    y = seen(model).expand(30, -1)
    x = model.sample(30, given=y, generator=generator(1)).flatten(1)
    condition = torch.linalg.cond(model.matrix @ model.law.covariance() @ model.matrix.mT)
    assert (x @ model.matrix.mT - y).abs().max() <= 1e4 * EPS * condition * (1 + y.abs().max())


@examples
@given(st.integers(0, 99), st.floats(0.1, 2))
def test_the_density_is_scipy_s(seed, tau):
    shape = (1, 2, 3)
    model = r.NoisyRestoration(r.smooth_images(shape, dtype=torch.float64), shape, r.blur(shape), tau)
    y = seen(model, seed)
    x = torch.randn(5, *shape, generator=generator(seed), dtype=torch.float64)
    mean, covariance = oracle(model, y[0])
    truth = stats.multivariate_normal(mean, covariance).logpdf(x.flatten(1).numpy())
    said = model.log_prob(x, given=y.expand(5, -1)).numpy()
    assert np.abs(said - truth).max() <= 1e3 * EPS * np.linalg.cond(covariance) * (1 + np.abs(truth).max())


def test_completion_is_the_conditional_of_the_gaussian_model():
    """Two routes: Bayes for y = A x here, and blocks of the Cholesky factor in `gaussian.py`."""
    model = r.inpainted(dtype=torch.float64)
    y, known = seen(model), model.mask.flatten()
    other = model.law.conditional(known.nonzero()[:, 0].tolist(), y[0])
    assert (model.mean_given(y)[0][~known] - other.mean()).abs().max() <= 1e4 * EPS
    assert (model.covariance_given[~known][:, ~known] - other.covariance()).abs().max() <= 1e4 * EPS


def test_tasks():
    assert r.inpainting((1, 4, 4)).sum() == 12
    assert r.uncropping((2, 4, 4)).sum() == 16
    grey = torch.ones(3 * 4)
    assert torch.allclose(r.colorization((3, 2, 2)) @ grey, torch.ones(4))
    picture = torch.arange(16.0)
    blocks = torch.nn.functional.avg_pool2d(picture.reshape(1, 1, 4, 4), 2)
    assert torch.allclose(r.super_resolution((1, 4, 4)) @ picture, blocks.flatten())
    padded = torch.nn.functional.pad(picture.reshape(1, 1, 4, 4), (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16
    assert torch.allclose(r.blur((1, 4, 4)) @ picture, torch.nn.functional.conv2d(padded, kernel[None, None]).flatten())


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: r.Restoration(r.smooth_images((1, 2, 2)), (1, 2, 3), torch.eye(4)), "images of shape"),
        (lambda: r.Restoration(r.smooth_images((1, 2, 2)), (1, 2, 2), torch.eye(3)), "the matrix should be"),
        (lambda: r.Restoration(r.smooth_images((1, 2, 2)), (1, 2, 2), torch.ones(2, 4)), "linearly dependent"),
        (lambda: r.Restoration(r.smooth_images((1, 2, 2)), (1, 2, 2), torch.eye(4), -1.0), "tau = -1.0"),
        (lambda: r.NoisyRestoration(r.smooth_images((1, 2, 2)), (1, 2, 2), torch.eye(4), 0.0), "no density"),
        (lambda: r.Completion(r.smooth_images((1, 2, 2)), torch.ones(1, 2, 2).bool()), "some of them true"),
        (lambda: r.colorization((1, 2, 2)), "colours are three"),
        (lambda: r.super_resolution((1, 3, 4)), "blocks of 2 pixels"),
        (lambda: r.inpainted().sample(2, given=torch.zeros(2, 3), generator=generator()), "given should be of shape"),
        (lambda: r.restored().log_prob(torch.zeros(2, 9), given=torch.zeros(2, 9)), "x should be images"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


def test_a_law_of_its_own_may_be_given():
    law = Gaussian(torch.zeros(4), torch.eye(4))
    model = r.Completion(law, torch.tensor([[[True, False], [False, True]]]), steps=8)
    assert model.sample(3, given=torch.zeros(3, 2), generator=generator()).shape == (3, 1, 2, 2)


# Palette, which learns it


def test_what_palette_learns_is_the_gaussian_conditional():
    """From 400 steps of training: a mean within a third of a deviation, and variances within a third."""
    model, truth = palette.learnt_inpainting(), r.inpainted()
    hole = ~model.mask.flatten()
    image = truth.law.sample(1, generator=generator(3))
    given = image.reshape(1, 1, 4, 4).expand(2000, -1, -1, -1)
    x = model.sample(2000, given=given, generator=generator(4))
    assert torch.equal(x[:, model.mask], given[:, model.mask])
    assert not check_model(model, only=["given.observed_unchanged"], effort="quick").failures
    mean, covariance = truth.mean_given(image[:, ~hole])[0][hole], truth.covariance_given[hole][:, hole]
    deviation = covariance.diagonal().sqrt()
    drawn = x.flatten(1)[:, hole]
    assert ((drawn.mean(0) - mean).abs() <= deviation / 3).all()
    assert ((drawn.var(0) / deviation.square()).log().abs() <= math.log(4 / 3)).all()
    other = torch.where(model.mask, given, 7.0)  # nothing is read in the hole
    seen, unseen = (model.sample(5, given=some[:5], generator=generator(4)) for some in (given, other))
    assert torch.equal(seen, unseen)
    assert model.sample(0, given=given[:0], generator=generator()).shape == (0, 1, 4, 4)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: palette.Palette(None, torch.ones(1, 2, 2)), "mask should be booleans"),
        (lambda: palette.Palette(None, torch.zeros(1, 2, 2).bool(), spread=-1.0), "spread = -1.0"),
        (
            lambda: palette.Palette(None, torch.zeros(1, 2, 2).bool()).sample(
                2, given=torch.zeros(2, 1, 3, 3), generator=generator()
            ),
            "images should be of shape",
        ),
        (
            lambda: palette.Palette(None, torch.zeros(1, 2, 2).bool()).sample(
                3, given=torch.zeros(2, 1, 2, 2), generator=generator()
            ),
            "given should be 3 images",
        ),
    ],
)
def test_mistakes_with_palette_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
