"""Diffusions against closed forms on Gaussian data, linear recursions, autograd, quadrature, and each other."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from harness import check_model
from reference_impls import diffusion, diffusion_exact, training
from reference_impls.diffusion import ConditionalDiffusion, Diffusion, Mlp, UNet
from reference_impls.diffusion_exact import ExactDiffusion, LabelledDiffusion, ProbabilityFlow, guided
from reference_impls.gaussian import Gaussian
from reference_impls.mixture import GaussianMixture
from reference_impls.samplers import ancestral, ddim, euler, euler_maruyama, evidence_bound, heun
from reference_impls.schedules import EDM, Linear, Steps, SubVP, VarianceExploding, VariancePreserving, linear_betas

EPS = torch.finfo(torch.float64).eps
double = partial(torch.tensor, dtype=torch.float64)
examples = settings(derandomize=True, deadline=None, max_examples=10)
PRESETS = [
    diffusion_exact.variance_preserving,
    diffusion_exact.sub_vp,
    diffusion_exact.variance_exploding,
    diffusion_exact.two_clusters,
    diffusion_exact.chain_of_ddpm,
    diffusion_exact.labelled_clusters,
    diffusion.untrained,
]
SCHEDULES = [VariancePreserving(), SubVP(), VarianceExploding(), EDM()]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def gaussian(d, seed=0):
    root = normal(d, d, seed=seed) / math.sqrt(d) + torch.eye(d, dtype=torch.float64) / 2
    return Gaussian(normal(d, seed=seed + 1) / 2, root @ root.mT)


def clusters(dtype=torch.float64):
    return diffusion_exact.two_clusters(dtype=dtype)


@pytest.mark.parametrize("preset", PRESETS)
def test_conforms(preset):
    report = check_model(preset(), effort="quick", seed=0)
    assert not report.failures, report.failures


# The laws between


@examples
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 99), st.sampled_from(SCHEDULES), st.floats(0.05, 0.95))
def test_score_is_autograd_s_and_tweedie_ties_it_to_the_denoiser(d, k, seed, noise, share):
    weights = torch.rand(k, generator=generator(seed), dtype=torch.float64) + 0.1
    law = GaussianMixture(weights / weights.sum(), [gaussian(d, seed + 10 * i) for i in range(k)])
    model = ExactDiffusion(law, noise)
    t = torch.full((6,), noise.first + share * (noise.last - noise.first), dtype=torch.float64)
    scale, sigma = (part[:, None] for part in noise.schedule(t))
    x = (scale * normal(6, d, seed=seed) + sigma * normal(6, d, seed=seed + 1)).requires_grad_()
    (slope,) = torch.autograd.grad(model.log_prob_at(x, t).sum(), x)
    score, clean = model.score_at(x, t), model.denoise(x, t)
    least = float(min((scale**2 * model.variances.min() + sigma**2).min(), 1.0))
    allowed = 1e3 * EPS * (1 + x.abs().max()) / least  # the condition of Sigma_t
    assert (slope - score).abs().max() <= allowed
    assert (scale * clean - x - sigma**2 * score).abs().max() <= allowed * (1 + sigma.max() ** 2)


def test_the_denoiser_is_an_integral_over_the_data():
    """E[x_0 | x_t] by quadrature of x_0 p(x_0) N(x_t; scale x_0, sigma^2) in one dimension."""
    law = GaussianMixture(
        double([0.3, 0.7]), [Gaussian(double([-1.0]), double([[0.2]])), Gaussian(double([0.7]), double([[0.5]]))]
    )
    model = ExactDiffusion(law, VariancePreserving())
    for t, x in ((0.1, 0.4), (0.3, -0.6), (0.6, 1.5)):
        scale, sigma = (float(part) for part in model.schedule(double(t)))

        def joint(x_0, scale=scale, sigma=sigma, x=x):
            mixture = 0.3 * stats.norm.pdf(x_0, -1, 0.2**0.5) + 0.7 * stats.norm.pdf(x_0, 0.7, 0.5**0.5)
            return mixture * stats.norm.pdf(x, scale * x_0, sigma)

        (mass, e), (mean, f) = (
            integrate.quad(lambda y, power=power, joint=joint: y**power * joint(y), -8, 8, limit=200)
            for power in (0, 1)
        )
        said = float(model.denoise(double([[x]]), double([t])))
        assert abs(said - mean / mass) <= (f + e * abs(said)) / mass + 100 * EPS
        assert abs(float(model.log_prob_at(double([[x]]), double([t]))) - math.log(mass)) <= e / mass + 100 * EPS


# Solvers


def solution(model, z):
    """x_0 = mu + S (scale^2 S^2 + sigma^2)^-1/2 ... of the probability-flow ODE for Gaussian data: a linear map."""
    (s_0, n_0), (s_1, n_1) = (model.noise.schedule(double(end)) for end in (model.noise.first, model.noise.last))
    variances, axes = model.variances[0], model.axes[0]
    gain = ((s_0**2 * variances + n_0**2) / (s_1**2 * variances + n_1**2)).sqrt()
    return s_0 * model.means[0] + ((z - s_1 * model.means[0]) @ axes * gain) @ axes.mT


@pytest.mark.parametrize("noise", SCHEDULES, ids=lambda noise: type(noise).__name__)
@pytest.mark.parametrize("order", [1, 2])
def test_errors_fall_at_the_stated_order(noise, order):
    """The slope of log error in log steps, least squares over starts, with a 99.9 % interval that holds the order.

    Slopes approach it as 1 / steps: what the slope still changes by at the last doubling is added.
    """
    model = ExactDiffusion(gaussian(3), noise, order)
    z = model.base().sample(40, generator=generator(1))
    truth, steps = solution(model, z), np.array([64, 128, 256])
    errors = np.array([(model.integrate(z, int(n)) - truth).norm(dim=1).log2().numpy() for n in steps])  # (3, 40)
    slopes = -(errors[2] - errors[1])
    half = stats.t.ppf(0.9995, len(slopes) - 1) * slopes.std(ddof=1) / math.sqrt(len(slopes))
    drift = abs(np.mean(errors[1] - errors[2]) - np.mean(errors[0] - errors[1]))
    assert abs(slopes.mean() - order) <= half + 2 * drift
    assert half + 2 * drift < 0.3  # and it tells 1 from 2


def test_euler_is_ddim_and_ddim_with_eta_1_is_ddpm():
    model = diffusion_exact.chain_of_ddpm(dtype=torch.float64)
    z, times = normal(5, 2), torch.linspace(1000, 1, 12, dtype=torch.float64).round()
    parts = (model.denoise, model.noise, z, times)
    size = 1e4 * EPS * z.abs().max() / model.noise.schedule(times[-1])[1]
    assert (euler(*parts) - ddim(*parts, generator=generator())).abs().max() <= size
    assert (
        ancestral(*parts, generator=generator(3)) - ddim(*parts, generator=generator(3), eta=1.0)
    ).abs().max() <= size


def test_the_chain_of_ddpm_has_the_law_of_its_recursion():
    """On N(m, v) the sampler is x_s = (a k + b) x_t + a (1 - k scale) m + c e with D = m + k (x - scale m): moments."""
    m, v = 0.8, 0.3
    noise = VariancePreserving(Steps(linear_betas(40, 1e-3, 0.3)))
    model = ExactDiffusion(Gaussian(double([m]), double([[v]])), noise)
    times, n = torch.arange(40, 0, -1, dtype=torch.float64), 40_000
    mean, variance = 0.0, float(noise.schedule(times[0])[1]) ** 2
    for t, s in pairwise(times):
        a, b, c = (float(part) for part in noise.backward(s, t))
        scale, sigma = (float(part) for part in noise.schedule(t))
        k = scale * v / (scale**2 * v + sigma**2)
        mean, variance = (a * k + b) * mean + a * (1 - k * scale) * m, (a * k + b) ** 2 * variance + c**2
    z = math.sqrt(float(noise.schedule(times[0])[1]) ** 2) * normal(n, 1, seed=5)
    x = ancestral(model.denoise, noise, z, times, generator=generator(6))
    assert abs(float(x.mean()) - mean) <= 5 * math.sqrt(variance / n)  # odds of 6e-7
    assert abs(float(x.var()) / variance - 1) <= 5 * math.sqrt(2 / (n - 1))
    target = float(noise.schedule(times[-1])[0] ** 2) * v + float(noise.schedule(times[-1])[1]) ** 2
    assert abs(variance / target - 1) < 0.35  # 40 steps of E[x_0 | x_t] for x_0 lose some of its spread


def test_the_sde_ends_near_the_data():
    model = ExactDiffusion(Gaussian(double([0.5]), double([[0.49]])), VariancePreserving(Linear(0.1, 10.0)))
    n, moments = 20_000, {}
    for steps in (100, 200):
        times = torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64)
        z = model.base().sample(n, generator=generator(1))
        x = euler_maruyama(model.denoise, model.noise, z, times, generator=generator(2))
        moments[steps] = x.mean(), x.var()
    for (coarse, fine), truth, noise in zip(
        zip(*moments.values(), strict=True), (0.5, 0.49), (0.7, 0.49 * 2**0.5), strict=True
    ):
        assert (fine - truth).abs() <= 2 * (coarse - fine).abs() + 5 * 2 * noise / math.sqrt(n)  # weak order 1


# The ODE's likelihood


@pytest.mark.parametrize("noise", SCHEDULES, ids=lambda noise: type(noise).__name__)
def test_the_ode_s_likelihood_is_the_gaussian_s(noise):
    """log p at the first time; 2 N steps err by a third of what N do beside them; the base's mismatch is known."""
    model = ExactDiffusion(gaussian(2), noise)
    t = torch.full((20,), noise.first, dtype=torch.float64)
    scale, sigma = (part[:, None] for part in noise.schedule(t))
    x = scale * model.sample(20, generator=generator()) + sigma * normal(20, 2)
    coarse, fine = (ProbabilityFlow(model, steps).log_prob(x) for steps in (64, 128))
    end = torch.full((20,), noise.last, dtype=torch.float64)
    there = heun(model.denoise, noise, x, noise.times(128, x).flip(0))
    mismatch = model.log_prob_at(there, end) - model.base().log_prob(there)  # known, and small
    error = (fine + mismatch - model.log_prob_at(x, t)).abs()
    assert (error <= (coarse - fine).abs() + 1e-3 * mismatch.abs() + 1e4 * EPS).all()
    assert (coarse - fine).abs().max() < 0.2


@pytest.mark.parametrize("noise", [VariancePreserving(), EDM(0.02, 80.0)], ids=["vp", "edm"])
def test_the_evidence_bound_is_below_the_chain_s_density_and_rises_to_it(noise):
    """In one dimension the chain's law is Gaussian, by the linear recursion of its steps; so is its last step."""
    m, v = 0.6, 0.5
    model = ExactDiffusion(Gaussian(double([m]), double([[v]])), noise)
    x, gaps = double([[0.3], [1.5], [-1.0]]), []
    for steps in (20, 200):
        times = noise.times(steps, x)
        mean, variance = 0.0, float(noise.schedule(times[0])[1]) ** 2
        for t, s in pairwise([*times, None]):
            scale, sigma = (float(part) for part in noise.schedule(t))
            k = scale * v / (scale**2 * v + sigma**2)
            a, b, c = (1.0, 0.0, sigma / scale) if s is None else (float(part) for part in noise.backward(s, t))
            mean, variance = (a * k + b) * mean + a * (1 - k * scale) * m, (a * k + b) ** 2 * variance + c**2
        log_p = torch.from_numpy(stats.norm(mean, variance**0.5).logpdf(x[:, 0].numpy()))
        parts = (model.denoise, noise, x.repeat(4000, 1), times, model.base().log_prob)
        draws = evidence_bound(*parts, generator=generator(1)).reshape(4000, 3)
        unsure = 5 * draws.std(0) / math.sqrt(4000)
        assert (draws.mean(0) <= log_p + unsure).all()
        gaps.append((log_p - draws.mean(0), unsure))
    (coarse, _), (fine, unsure) = gaps
    assert (fine <= coarse / 4 + unsure).all()  # ten times the steps
    assert (coarse > 0).all()


def test_hutchinson_s_estimate_is_right_on_average():
    """And without any error where the Jacobian is diagonal, since v_i^2 = 1."""
    flow = ProbabilityFlow(ExactDiffusion(Gaussian(double([0.5, -0.5]), double([0.3, 0.9]).diag()), EDM()), 24)
    x = normal(4, 2)
    assert (flow.estimated_log_prob(x, generator=generator()) - flow.log_prob(x)).abs().max() <= 1e5 * EPS
    flow = ProbabilityFlow(clusters(), 24)
    rows = x[:1].expand(2000, 2)
    said, exact = flow.estimated_log_prob(rows, generator=generator(1)), flow.log_prob(x[:1])
    assert abs(float(said.mean() - exact)) <= 5 * float(said.std()) / math.sqrt(2000)


def test_steps_that_are_extrapolated_to_none_err_as_their_fourth_power():
    """Doubling the steps divides the error by 16 for large numbers of them: by 8 to 32 here. Without, by 2 to 8."""
    law = ExactDiffusion(Gaussian(double([0.4]), double([[0.5]])), EDM(0.02, 20.0))
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for extrapolated, low, high in ((True, 8, 32), (False, 2, 8)):
        one, two, truth = (
            ProbabilityFlow(law, steps, extrapolated=extrapolated or steps > 200).log_prob(x) for steps in (12, 24, 300)
        )
        ratio = float((one - truth).abs().max() / (two - truth).abs().max())
        assert low < ratio < high


def test_the_flow_on_a_line_has_mass_one_and_draws_what_it_scores():
    """Simpson's rule on 801 points of 14 wide: bumps of 0.3 and more are smooth over steps of 0.0175."""
    flow = diffusion_exact.flow_on_a_line(dtype=torch.float64)
    x = torch.linspace(-7, 7, 801, dtype=torch.float64)[:, None]
    density = flow.log_prob(x).exp()
    mass = integrate.simpson(density.numpy(), x=x[:, 0].numpy())
    assert abs(mass - 1) < 2e-5  # 24 steps: 5e-6, as the preset states, and not the 0.02 of Heun's alone

    draws = flow.sample(4000, generator=generator(5))[:, 0].sort().values
    cdf = torch.from_numpy(integrate.cumulative_simpson(density.numpy(), x=x[:, 0].numpy(), initial=0))
    at = torch.from_numpy(np.interp(draws.numpy(), x[:, 0].numpy(), cdf.numpy()))
    gap = (at - torch.arange(4000) / 4000).abs().max()
    assert gap <= 2.5 / 4000**0.5  # Kolmogorov's distance is larger with probability 2 exp(-2 * 2.5^2) = 7e-6


def test_the_flow_s_log_density_has_its_own_gradient():
    flow = ProbabilityFlow(clusters(), 12)
    x = normal(3, 2).requires_grad_()
    (slope,) = torch.autograd.grad(flow.log_prob(x).sum(), x)
    step = 1e-5
    for j in range(2):
        moved = step * torch.eye(2, dtype=torch.float64)[j]
        difference = (flow.log_prob(x.detach() + moved) - flow.log_prob(x.detach() - moved)) / (2 * step)
        assert (difference - slope[:, j]).abs().max() <= 100 * (step**2 + 1e4 * EPS / step)  # truncation and rounding
    assert flow.log_prob(x.detach()[:0]).shape == (0,)


# Labels and guidance


def test_guidance_on_gaussians_is_a_known_flow():
    """d log x / d sigma of centred data of variances v given y and V without: powers of both gains."""
    v, whole, w, noise = 0.4, 1.1, 1.5, EDM(0.002, 80.0)
    given_y, without = (ExactDiffusion(Gaussian(double([0.0]), double([[each]])), noise) for each in (v, whole))
    x = double([[80.0], [-40.0], [5.0]])
    denoise = guided(given_y.denoise, without.denoise, w)
    low, high = noise.first**2, noise.last**2
    gain = ((v + low) / (v + high)) ** ((1 + w) / 2) * ((whole + low) / (whole + high)) ** (-w / 2)
    coarse, fine = (heun(denoise, noise, x, noise.times(steps, x)) for steps in (64, 128))
    assert ((fine - gain * x).abs() <= (coarse - fine).abs()).all()
    assert torch.equal(
        guided(given_y.denoise, without.denoise, 0.0)(x, double([1.0] * 3)), given_y.denoise(x, double([1.0] * 3))
    )


def test_guided_draws_without_guidance_are_of_the_class_and_labels_stay_with_their_rows():
    model = LabelledDiffusion(clusters().law, EDM())
    y = torch.tensor([0, 1]).repeat(5000)
    x = model.guided_sample(10_000, 0.0, given=y, generator=generator(), steps=48)
    for k, part in enumerate(model.parts):
        some, law = x[y == k], part.law
        unit = (law.variance() / len(some)).sqrt()
        assert ((some.mean(0) - law.mean()).abs() <= 5 * unit + 0.02).all()  # 80 sigma leave 1 / 80 of a mean
    p = model.log_prob(x[:10], given=y[:10])
    assert torch.equal(p[1::2], model.parts[1].log_prob(x[1:10:2]))


# Networks


def test_preconditioning_keeps_inputs_and_targets_at_variance_1():
    """Table 1 of Karras et al.: Var[c_in x] = 1, and so has the target (x_0 - c_skip x) / c_out, at each level."""

    class Seen(torch.nn.Module):
        def forward(self, x, c_noise, code):
            self.x = x
            return torch.zeros_like(x)

    network = Seen()
    model = Diffusion(network, (1,), spread=0.7).double()
    x_0, n = 0.7 * normal(100_000, 1), 100_000
    for level in (0.05, 0.7, 10.0):
        t = torch.full((n,), level, dtype=torch.float64)
        x = x_0 + level * normal(n, 1, seed=1)
        skipped = model.denoise(x, t)
        c_out = level * 0.7 / math.hypot(level, 0.7)
        for values in (network.x, (x_0 - skipped) / c_out):
            assert abs(float(values.var()) - 1) <= 5 * math.sqrt(2 / n)


def test_training_reaches_the_denoiser_of_the_data():
    """On N(0, 1/4) the loss has the minimum E Var[x_0 | x] / c_out^2 = 1, and F = 0 there: D = c_skip x is exact."""
    model = Diffusion(Mlp((1,), (16,), seed=0), (1,), spread=0.5)
    x = 0.5 * torch.randn(2048, 1, generator=generator())
    losses = training.train(model, model.loss, x, steps=150, batch=256, rate=1e-2)
    t = torch.full((50,), 0.5)
    z = torch.linspace(-1, 1, 50)[:, None]
    exact = ExactDiffusion(Gaussian(torch.zeros(1), torch.full((1, 1), 0.25)), EDM())
    assert float((model.denoise(z, t) - exact.denoise(z, t)).detach().square().mean()) < 0.01 * 0.125  # of Var[x_0 | x]
    assert abs(float(losses[-50:].mean()) - 1) <= 5 * float(losses[-50:].std()) / math.sqrt(50)


def test_a_trained_network_draws_the_ring():
    model = diffusion.ring()
    x = model.sample(2000, generator=generator())
    radius = x.norm(dim=1)
    assert abs(float(radius.mean()) - 1) < 0.05
    assert 0.08 < float(radius.std()) < 0.2
    held_out = diffusion.circle(200, generator(9))
    assert float(model.estimated_log_prob(held_out, steps=32).mean()) > -1.1  # the entropy is 0.95; a Gaussian's 2.1
    assert not check_model(model, only=["diffusion"], effort="quick", seed=0).failures


def test_labels_are_used_hidden_and_guided():
    model = ConditionalDiffusion(Mlp((2,), (24,), 2, seed=1), (2,), 2, spread=1.0, steps=10)
    y = torch.tensor([0, 1]).repeat(512)
    x = (2 * y[:, None] - 1) + 0.2 * torch.randn(1024, 2, generator=generator())
    training.train(model, model.loss, (x.float(), y), steps=300, batch=256, rate=1e-2)
    draws = model.sample(400, given=y[:400], generator=generator(1))
    assert (draws.mean(1).sign() == 2 * y[:400] - 1).double().mean() > 0.95
    whole = model.sample(400, generator=generator(2)).mean(1)
    assert 0.3 < float((whole > 0).double().mean()) < 0.7
    model.w = 1.0
    assert model.sample(3, given=y[:3], generator=generator()).shape == (3, 2)


def test_building_and_drawing_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    diffusion.full_digits()
    diffusion.untrained().sample(3, generator=generator())
    assert torch.equal(state, torch.get_rng_state())


def test_the_unet_takes_images_and_labels():
    model = ConditionalDiffusion(UNet(1, 8, 3, seed=0), (1, 8, 8), 3, steps=2)
    x = torch.rand(4, 1, 8, 8, generator=generator())
    y = torch.tensor([0, 1, 2, 0])
    assert model.sample(4, given=y, generator=generator()).shape == x.shape
    assert model.loss(x, y, generator=generator()).isfinite()
    alone = torch.cat([model.denoise(row[None], torch.ones(1)) for row in x])
    together = model.denoise(x, torch.ones(4))
    assert (alone - together).abs().max() <= 1e3 * torch.finfo(torch.float32).eps * together.abs().max()


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: ExactDiffusion(gaussian(2), EDM(), order=3), "solvers of the orders"),
        (lambda: clusters().denoise(normal(3, 3), double([1.0] * 3)), r"events \(n, 2\) and a time for each"),
        (lambda: clusters().score_at(normal(3, 2), double(1.0)), "a time for each"),
        (lambda: clusters().integrate(normal(3, 2), 0), "one step or more"),
        (lambda: ProbabilityFlow(clusters(), 0), "one step or more"),
        (lambda: ddim(None, EDM(), normal(1, 1), double([1.0]), generator=generator(), eta=2.0), "eta = 2.0"),
        (lambda: diffusion.untrained().denoise(normal(3, 3), double([1.0] * 3)), "x should be events"),
        (lambda: Diffusion(None, (2,), spread=0.0), "spread = 0.0"),
        (lambda: Diffusion(None, (2,), order=4), "order = 4"),
        (lambda: diffusion.untrained().loss(torch.zeros(3, 2), torch.zeros(3), generator=generator()), "no labels"),
        (
            lambda: diffusion_exact.labelled_clusters().sample(1, given=torch.tensor([2]), generator=generator()),
            "labels outside of 0 to 1",
        ),
        (
            lambda: ConditionalDiffusion(Mlp((2,), (4,), 2, seed=1), (2,), 2).sample(
                1, given=torch.tensor([5]), generator=generator()
            ),
            "labels outside of 0 to 1",
        ),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
