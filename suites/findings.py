"""Models of other libraries, as installed, in which the examiner finds a defect: `harness check suites.findings:all`.

Each is an ordinary call of the library. What is wrong with it, and how it was made sure of, is told in
`results/findings.md`.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy import stats
from torch import distributions as td


def lkj_cholesky() -> Any:
    """Correlations of the last rows are drawn too wide from dimension 3 on."""
    return td.LKJCholesky(3, torch.tensor(1.5, dtype=torch.float64))


def multinomial() -> Any:
    """The declared support, and a finite log_prob, include counts that do not add up to the total."""
    return td.Multinomial(5, torch.tensor([0.2, 0.3, 0.5]))


def von_mises() -> Any:
    """A periodic density, declared on the whole line: its integral diverges."""
    return td.VonMises(0.0, 2.0)


def generalized_pareto() -> Any:
    """log_prob raises in float64."""
    return td.GeneralizedPareto(*(torch.tensor(value, dtype=torch.float64) for value in (0.0, 1.0, 0.2)))


def continuous_bernoulli() -> Any:
    """variance is negative in float32: digits cancel beside the window in which a series takes over."""
    return td.ContinuousBernoulli(torch.tensor(0.4985))


def mixture_of_uniforms() -> Any:
    """log_prob raises on the mixture's own draws: each is outside the support of some component."""
    ends = torch.tensor([0.0, 2.0])
    return td.MixtureSameFamily(td.Categorical(torch.tensor([0.5, 0.5])), td.Uniform(ends, ends + 1))


def binomial_sure() -> Any:
    """The divergence of a sure law from itself is NaN."""
    return td.Binomial(5, torch.tensor(1.0))


def geometric_sure() -> Any:
    """The divergence of a sure law from itself is infinite."""
    return td.Geometric(torch.tensor(1.0))


def pyro_folded() -> Any:
    """kl_divergence is that of the laws before folding: too large."""
    from pyro import distributions as pyro

    return pyro.FoldedDistribution(pyro.Normal(torch.tensor(0.5), torch.tensor(1.0)))


def pyro_elu() -> Any:
    """Values in (-1, inf), declared positive: log_prob raises on half of the draws and more."""
    from pyro import distributions as pyro

    normal = pyro.Normal(torch.zeros(2), 1.0).to_event(1)
    return pyro.TransformedDistribution(normal, [pyro.transforms.ELUTransform()])


def pyro_sine_von_mises() -> Any:
    """The proposals of the first angle and of the second are mixed up: the first is drawn too wide."""
    from pyro import distributions as pyro

    return pyro.SineBivariateVonMises(*(torch.tensor(value) for value in (0.0, 0.0, 2.0, 3.0, 1.0)))


def pyro_sylvester() -> Any:
    """The log-determinant is that of factors multiplied in another order; at the small initial weights it does not
    show."""
    from pyro import distributions as pyro

    torch.manual_seed(0)
    flow = pyro.transforms.sylvester(3)
    with torch.no_grad():
        for weight in flow.parameters():
            weight += torch.randn_like(weight)
    return pyro.TransformedDistribution(pyro.Normal(torch.zeros(3), 1.0).to_event(1), [flow])


def pyro_simplex_to_ordered() -> Any:
    """The log-determinant does not know of the anchor."""
    from pyro import distributions as pyro

    to_ordered = pyro.transforms.SimplexToOrderedTransform(torch.tensor(2.0))
    return pyro.TransformedDistribution(pyro.Dirichlet(torch.tensor([2.0, 1.0, 3.0])), [to_ordered])


def scipy_poisson_shifted() -> Any:
    """rvs cuts the shift off: the probability of every draw is 0."""
    return stats.poisson(3.0, loc=0.5)


def scipy_kappa4() -> Any:
    """Moments that exist are NaN."""
    return stats.kappa4(-0.1, 0.1)


def scipy_zipf() -> Any:
    """entropy() stops its sum too early for a heavy tail."""
    return stats.zipf(2.5)


def scipy_poisson() -> Any:
    """entropy() of a Poisson with a large mean is off by 2.5e-3 nats."""
    return stats.poisson(1e4)


def scipy_foldnorm() -> Any:
    """entropy() of a normal law far from 0 is 0: one quadrature over the half line steps over its peak."""
    return stats.foldnorm(36)


def scipy_ncx2() -> Any:
    """entropy() is 0 where the mass lies far from 0."""
    return stats.ncx2(210, 10.56)


def sklearn_kernel_density() -> Any:
    """score_samples is not a density for a metric other than the Euclidean one."""
    from sklearn.datasets import load_wine
    from sklearn.neighbors import KernelDensity

    data = load_wine().data[:, :2]
    return KernelDensity(bandwidth=0.5, metric="manhattan").fit(data)


def nflows_cached() -> Any:
    """What was worked out from the weights in evaluation mode is kept when others are loaded."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import LULinear

    return Flow(LULinear(3, using_cache=True), StandardNormal([3])).eval()


def nflows_naive() -> Any:
    """inverse() calls a function that torch has no longer."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import NaiveLinear

    torch.manual_seed(0)
    return Flow(NaiveLinear(3), StandardNormal([3])).eval()


def nflows_linear_spline() -> Any:
    """The last bin's slope differs between the two directions: a search adds 1e-6 to its edge in place."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import InverseTransform, PiecewiseLinearCDF

    spline = PiecewiseLinearCDF([1], num_bins=4, tails="linear", tail_bound=3.0)
    with torch.no_grad():
        spline.unnormalized_pdf.copy_(torch.tensor([[0.0, 0.0, 0.0, -9.0]]))
    return Flow(InverseTransform(spline), StandardNormal([1])).eval()


def zuko_gaussianization() -> Any:
    """Each layer maps onto (-4.889, 4.889) only: mass is lost between layers, and draws pile up at -10 and 10."""
    from zuko.flows import GF

    torch.manual_seed(0)
    return GF(2)


def zuko_truncated() -> Any:
    """Draws lie outside the interval: what keeps icdf finite squeezes (0, 1), and not the interval's part of it."""
    from zuko.distributions import Truncated

    normal = td.Normal(*torch.tensor([0.0, 1.0], dtype=torch.float64))
    return Truncated(normal, 4.0, 5.0)


def normflows_residual() -> Any:
    """The root search stops where the square of its last step is below the tolerance: x = 10 z is off by 0.06."""
    from normflows import NormalizingFlow
    from normflows.distributions import DiagGaussian
    from normflows.flows import Residual

    shrink = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        shrink.weight.copy_(-0.9 * torch.eye(2))
    return NormalizingFlow(DiagGaussian(2), [Residual(shrink, reduce_memory=False)]).eval()


def normflows_uniform() -> Any:
    """A uniform coordinate has the same density everywhere on the line."""
    from normflows.distributions import UniformGaussian

    return UniformGaussian(2, [1])


def normflows_circular() -> Any:
    """Beyond its tails, which are to be left alone, the linear coordinate is sent to 0."""
    from normflows import NormalizingFlow
    from normflows.distributions import DiagGaussian
    from normflows.flows import CircularAutoregressiveRationalQuadraticSpline

    torch.manual_seed(0)
    spline = CircularAutoregressiveRationalQuadraticSpline(2, 1, 8, [1])
    return NormalizingFlow(DiagGaussian(2), [spline]).eval()


def normflows_pca() -> Any:
    """log_prob has the sign of log 2 pi turned and a determinant without its logarithm; draws lack the noise."""
    from normflows.distributions import GaussianPCA

    torch.manual_seed(0)
    return GaussianPCA(2, 2, 0.5)


all = {  # what `harness check suites.findings:all` reads
    "torch.LKJCholesky(3)": lkj_cholesky,
    "torch.Multinomial": multinomial,
    "torch.VonMises": von_mises,
    "torch.GeneralizedPareto (float64)": generalized_pareto,
    "torch.ContinuousBernoulli(0.4985)": continuous_bernoulli,
    "torch.MixtureSameFamily of Uniforms": mixture_of_uniforms,
    "torch.Binomial(5, 1)": binomial_sure,
    "torch.Geometric(1)": geometric_sure,
    "scipy.zipf(2.5)": scipy_zipf,
    "scipy.poisson(1e4)": scipy_poisson,
    "pyro.FoldedDistribution": pyro_folded,
    "pyro.ELUTransform": pyro_elu,
    "scipy.poisson(3, loc=0.5)": scipy_poisson_shifted,
    "scipy.kappa4(-0.1, 0.1)": scipy_kappa4,
    "sklearn.KernelDensity (manhattan)": sklearn_kernel_density,
    "nflows.LULinear (cached)": nflows_cached,
    "nflows.NaiveLinear": nflows_naive,
    "zuko.GF(2)": zuko_gaussianization,
    "normflows.Residual": normflows_residual,
    "normflows.UniformGaussian": normflows_uniform,
    "scipy.foldnorm(36)": scipy_foldnorm,
    "scipy.ncx2(210, 10.56)": scipy_ncx2,
    "pyro.SineBivariateVonMises": pyro_sine_von_mises,
    "pyro.sylvester": pyro_sylvester,
    "pyro.SimplexToOrderedTransform": pyro_simplex_to_ordered,
    "nflows.PiecewiseLinearCDF": nflows_linear_spline,
    "zuko.Truncated": zuko_truncated,
    "normflows.CircularAutoregressiveRationalQuadraticSpline": normflows_circular,
    "normflows.GaussianPCA": normflows_pca,
}
