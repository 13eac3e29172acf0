"""The models of `make demo`, as dicts of factories: `harness check suites.demo_models:torch_distributions` examines
one of the lists alone. The scikit-learn models are fitted on scikit-learn's own data.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, tensor
from torch import distributions as td

from reference_impls import gaussian, mixture

references = {
    "gaussian.standard": gaussian.standard,
    "gaussian.correlated": gaussian.correlated,
    "gaussian.gaussian_64d": gaussian.gaussian_64d,
    "mixture.three_modes": mixture.three_modes,
    "mixture.old_faithful_like": mixture.old_faithful_like,
}

torch_distributions = {
    "torch.Normal": lambda: td.Normal(1.0, 2.0),
    "torch.StudentT": lambda: td.StudentT(3.0),
    "torch.Gamma": lambda: td.Gamma(2.0, 0.5),
    "torch.Beta": lambda: td.Beta(0.5, 0.5),
    "torch.LogNormal": lambda: td.LogNormal(0.0, 0.5),
    "torch.Laplace": lambda: td.Laplace(0.0, 1e-3),
    "torch.Dirichlet": lambda: td.Dirichlet(tensor([0.8, 1.5, 4.0])),
    "torch.MultivariateNormal": lambda: td.MultivariateNormal(torch.zeros(3), torch.eye(3) + 0.5),
    "torch.MixtureSameFamily": lambda: td.MixtureSameFamily(
        td.Categorical(tensor([0.2, 0.8])), td.Normal(tensor([-2.0, 1.0]), tensor([0.5, 1.0]))
    ),
    "torch.Categorical": lambda: td.Categorical(tensor([0.1, 0.2, 0.3, 0.4])),
    "torch.Poisson": lambda: td.Poisson(4.0),
    "torch.NegativeBinomial": lambda: td.NegativeBinomial(5.0, 0.4),
    "torch.Bernoulli_batch": lambda: td.Bernoulli(tensor([[0.1, 0.5], [0.7, 0.95]])),
}


def _scipy(name: str, *args: float, **kwargs: Any) -> Any:
    from scipy import stats

    return getattr(stats, name)(*args, **kwargs)


scipy_distributions = {
    "scipy.t": partial(_scipy, "t", df=4, loc=2, scale=0.1),
    "scipy.weibull_min": partial(_scipy, "weibull_min", 1.5),
    "scipy.skewnorm": partial(_scipy, "skewnorm", 3.0),
    "scipy.truncnorm": partial(_scipy, "truncnorm", -1.0, 2.0),
    "scipy.binom": partial(_scipy, "binom", 12, 0.3),
    "scipy.nbinom": partial(_scipy, "nbinom", 5, 0.4),
    "scipy.Normal (new style)": partial(_scipy, "Normal", mu=-1.0, sigma=3.0),
}


def gaussian_mixture_on_iris() -> Any:
    """Three full-covariance components on the four measurements of 150 irises."""
    from sklearn.datasets import load_iris
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(3, random_state=0).fit(load_iris().data)


def gaussian_mixture_on_wine() -> Any:
    """Two diagonal components on the 13 standardised measurements of 178 wines."""
    from sklearn.datasets import load_wine
    from sklearn.mixture import GaussianMixture
    from sklearn.preprocessing import StandardScaler

    x = StandardScaler().fit_transform(load_wine().data)
    return GaussianMixture(2, covariance_type="diag", random_state=0).fit(x)


def kernel_density_on_wine() -> Any:
    """A Gaussian kernel on alcohol and colour intensity of 178 wines, standardised."""
    from sklearn.datasets import load_wine
    from sklearn.neighbors import KernelDensity
    from sklearn.preprocessing import StandardScaler

    x = StandardScaler().fit_transform(load_wine().data[:, [0, 9]])
    return KernelDensity(bandwidth=0.3).fit(x)


def bernoulli_naive_bayes_on_digits() -> Any:
    """Independent pixels given the digit, on 1,797 digits of 8 x 8 pixels made black and white."""
    from sklearn.datasets import load_digits
    from sklearn.naive_bayes import BernoulliNB

    digits = load_digits()
    return BernoulliNB().fit(digits.data > 8, digits.target)


sklearn_densities = {
    "sklearn.GaussianMixture (iris)": gaussian_mixture_on_iris,
    "sklearn.GaussianMixture (wine)": gaussian_mixture_on_wine,
    "sklearn.KernelDensity (wine)": kernel_density_on_wine,
    "sklearn.BernoulliNB (digits)": bernoulli_naive_bayes_on_digits,
}


class TooWide:
    """A standard Gaussian in the plane whose sampler is 5 % too wide in its second coordinate."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, 2, generator=generator)
        return z * tensor([1.0, 1.05])

    def log_prob(self, x: Tensor) -> Tensor:
        return td.Normal(0.0, 1.0).log_prob(x).sum(-1)


broken = {"BROKEN ON PURPOSE (sampler 5% too wide)": TooWide}
