r"""Energies of continuous variables: p(x) = exp(-E(x)) / Z, learnt without Z by its score, grad log p = -grad E.

Score matching minimises E ||grad log p_theta(x) - grad log p(x)||^2 / 2. By parts, that is up to a constant

    J(theta) = E[ sum_i d^2 log p_theta / d x_i^2 + ||grad log p_theta||^2 / 2 ],

a mean over data in which no Z occurs, as the score does not see it. Langevin's diffusion draws with the score alone.

`GaussianEnergy` has all of it in closed form. `NeuralEnergy` is a bowl with bumps, of a small network that is bounded,

    E(x) = ||x||^2 / (2 sigma^2) + v . tanh(W x + b),     |v . tanh| <= ||v||_1,

so that exact draws come by rejection, and in one or two dimensions Z by the trapezoidal rule.

Sources: Hyvarinen (2005), jmlr.org/papers/v6/hyvarinen05a.html; Roberts & Tweedie (1996), doi.org/10.2307/3318418
(Langevin, with and without Metropolis' correction); Trefethen & Weideman (2014), doi.org/10.1137/130932132.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.linalg import solve_triangular

from reference_impls.gaussian import Gaussian
from reference_impls.gaussian_factors import (
    as_floats,
    checked_parameters,
    checked_values,
    factor_of_covariance,
    infinite_at_infinity,
    length,
)
from reference_impls.indices import as_count, split_evidence


class GaussianEnergy:
    """E(x) = (x - mu)^T P (x - mu) / 2, from the mean mu (d,) and the precision P (d, d), positive definite."""

    number = "M13"
    family = "Gaussian energy"

    def __init__(self, mean: Tensor, precision: Tensor):
        self.loc, self.precision = as_floats(mean, precision)
        self.d = length(self.loc)
        if self.precision.shape != (self.d, self.d):
            shapes = f"{tuple(self.loc.shape)} and {tuple(self.precision.shape)}"
            raise ValueError(f"mean and precision should have shapes (d,) and (d, d), not {shapes}")
        self.factor = factor_of_covariance(self.precision, "precision")  # L with L L^T = P

    def energy(self, x: Tensor) -> Tensor:
        return infinite_at_infinity(self._whiten(x).square().sum(-1), x) / 2  # (n,)

    def log_partition(self) -> Tensor:
        """log Z = d/2 log(2 pi) - 1/2 log det P."""
        return self.d / 2 * math.log(2 * math.pi) - self.factor.diagonal().log().sum()  # ()

    def log_prob(self, x: Tensor) -> Tensor:
        return -self.energy(x) - self.log_partition()  # (n,)

    def score(self, x: Tensor) -> Tensor:
        """grad log p = -grad E = -P (x - mu)."""
        return -self._whiten(x) @ self.factor.to(torch.promote_types(x.dtype, self.factor.dtype)).mT  # (n, d)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """mu + L^-T z with z standard normal: its precision is L L^T."""
        z = torch.randn(n, self.d, generator=generator, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + solve_triangular(self.factor, z, upper=False, left=False)  # (n, d)

    def mean(self) -> Tensor:
        return self.loc  # (d,)

    def covariance(self) -> Tensor:
        return torch.cholesky_inverse(self.factor)  # (d, d)

    def variance(self) -> Tensor:
        return self.covariance().diagonal()  # (d,)

    def entropy(self) -> Tensor:
        """log Z + E[E(x)], of which the second is d / 2."""
        return self.log_partition() + self.d / 2  # ()

    def marginal(self, indices: Sequence[int]) -> Gaussian:
        return Gaussian(self.loc, self.covariance()).marginal(indices)

    def conditional(self, indices: Sequence[int], values: Tensor) -> "GaussianEnergy":
        """Fixing x_a leaves P_bb as it is, and moves the mean to mu_b - P_bb^-1 P_ba (x_a - mu_a)."""
        a, b = split_evidence(indices, self.d)
        values = checked_values(values, len(a)).to(self.loc)
        push = self.precision[b][:, a] @ (values - self.loc[a])  # (len(b),)
        return GaussianEnergy(self.loc[b] - torch.linalg.solve(self.precision[b][:, b], push), self.precision[b][:, b])

    def mutual_information(self, a: Sequence[int], b: Sequence[int]) -> Tensor:
        return Gaussian(self.loc, self.covariance()).mutual_information(a, b)  # ()

    def parameters(self) -> Tensor:
        """mu, then L row by row with the logarithms of its diagonal."""
        lower = torch.ones_like(self.factor, dtype=torch.bool).tril()
        return torch.cat([self.loc, (self.factor.tril(-1) + self.factor.diagonal().log().diag())[lower]])

    def with_parameters(self, theta: Tensor) -> "GaussianEnergy":
        """The law on R^d that has these parameters; differentiable in theta (d + d (d + 1) / 2,)."""
        d = self.d
        theta = checked_parameters(theta, d + d * (d + 1) // 2)
        at = torch.ones(d, d, dtype=torch.bool, device=theta.device).tril()
        packed = theta.new_zeros(d, d).masked_scatter(at, theta[d:])
        factor = packed.tril(-1) + packed.diagonal().exp().diag()
        return GaussianEnergy(theta[:d], factor @ factor.mT)

    @classmethod
    def fit(cls, x: Tensor) -> "GaussianEnergy":
        """Score matching: J = -tr P + tr(P^2 S) / 2 is least at P = S^-1, which is maximum likelihood as well."""
        (x,) = as_floats(x)
        fitted = Gaussian.fit(x.double())
        return cls(fitted.mean().to(x.dtype), torch.cholesky_inverse(fitted.cholesky).to(x.dtype))

    def to(self, *args, **kwargs) -> "GaussianEnergy":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return GaussianEnergy(self.loc.to(*args, **kwargs), self.precision.to(*args, **kwargs))

    def _whiten(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"draws should have shape (n, {self.d}), not {tuple(x.shape)}")
        dtype = torch.promote_types(x.dtype, self.loc.dtype)
        return (x.to(dtype) - self.loc.to(dtype)) @ self.factor.to(dtype)  # (n, d)


class NeuralEnergy:
    """E(x) = ||x||^2 / (2 sigma^2) + v . tanh(W x + b), from sigma, W (units, d), b (units,) and v (units,).

    Draws are exact, by rejection; one proposal in at most exp(2 ||v||_1) is kept. log_prob asks for d = 1 or 2.
    """

    number = "M13"
    family = "neural energy"

    def __init__(
        self, scale: Tensor | float, weight: Tensor, bias: Tensor, height: Tensor, *, losses: Tensor | None = None
    ):
        (self.weight,) = as_floats(weight)  # (units, d)
        self.scale, self.bias, self.height = (torch.as_tensor(t).to(self.weight) for t in (scale, bias, height))
        units = self.weight.shape[:1]
        if self.weight.dim() != 2 or self.bias.shape != units or self.height.shape != units or self.scale.dim():
            raise ValueError(f"weight {tuple(self.weight.shape)} asks for {units} biases and heights, and one scale")
        if not (self.scale > 0 and all(t.isfinite().all() for t in (self.weight, self.scale, self.bias, self.height))):
            raise ValueError("the scale should be positive, and all parameters finite")
        self.d = self.weight.shape[1]
        self.losses = losses  # (steps,), J of the training draws

    def energy(self, x: Tensor) -> Tensor:
        bowl = (x.to(self._dtype(x)) / self.scale).square().sum(-1) / 2
        return infinite_at_infinity(bowl + self._bumps(x), x)  # (n,)

    def score(self, x: Tensor) -> Tensor:
        """-x / sigma^2 - W^T (v (1 - tanh^2))."""
        slope = self.height * (1 - self._tanh(x).square())  # (n, units)
        return -x / self.scale.square() - slope @ self.weight.to(slope.dtype)  # (n, d)

    def laplacian(self, x: Tensor) -> Tensor:
        """sum_i d^2 log p / d x_i^2 = -d / sigma^2 + 2 sum_u v_u tanh_u (1 - tanh_u^2) ||W_u||^2."""
        t = self._tanh(x)  # (n, units)
        curvature = 2 * t * (1 - t.square()) @ (self.height * self.weight.square().sum(-1)).to(t.dtype)
        return curvature - self.d / self.scale.square()  # (n,)

    def score_matching(self, x: Tensor) -> Tensor:
        """J of draws x, the loss that `match_score` brings down."""
        return (self.laplacian(x) + self.score(x).square().sum(-1) / 2).mean()  # ()

    def log_partition(self) -> Tensor:
        """log Z by the trapezoidal rule on a square of +- 9 sigma, in steps that make its error exponentially small.

        Of an analytic function that falls off like a Gaussian, the error is that of rounding once the steps are a small
        part of sigma, and of the width 1 / |W_u| of each bump.
        """
        if self.d > 2:
            raise ValueError(f"log Z is found by quadrature for d = 1 or 2, not {self.d}; bound it from draws instead")
        model = self.to(torch.float64)
        sharp = float((model.weight.detach() * model.scale.detach()).norm(dim=-1).amax().clamp(min=1))
        steps = min(math.ceil(160 * sharp), 2000 if self.d == 2 else 10**6)
        side = torch.linspace(-9, 9, steps + 1, dtype=torch.float64, device=self.weight.device) * model.scale
        grid = torch.cartesian_prod(*[side] * self.d).reshape(-1, self.d)
        log_cell = self.d * (18 * model.scale / steps).log()
        return ((-model.energy(grid)).logsumexp(0) + log_cell).to(self.weight.dtype)  # ()

    def log_prob(self, x: Tensor) -> Tensor:
        return -self.energy(x) - self.log_partition()  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """Rejection: x ~ N(0, sigma^2 I) is kept with probability exp(-v . tanh - ||v||_1), which is at most 1."""
        kept, found = [self.weight.new_empty(0, self.d)], 0
        reach = self.height.abs().double().sum()
        if reach > 12:
            raise ValueError(f"of proposals exp(-2 ||v||_1) = {math.exp(-2 * reach):.1e} may be kept; use `langevin`")
        while found < n:
            shape = (4 * (n - found) + 64, self.d)
            x = torch.randn(shape, generator=generator, dtype=torch.float64, device=self.weight.device)
            x = (self.scale.double() * x).to(self.weight)
            u = torch.rand(len(x), generator=generator, dtype=torch.float64, device=x.device)
            kept.append(x[u.log() < -self._bumps(x).double() - reach])
            found += len(kept[-1])
        return torch.cat(kept)[:n]  # (n, d)

    def conditional(self, indices: Sequence[int], values: Tensor) -> "NeuralEnergy":
        """p(x_b | x_a): with x_a fixed, W_a x_a is a part of the biases, and its bowl a constant."""
        a, b = split_evidence(indices, self.d)
        values = checked_values(values, len(a)).to(self.weight)
        return NeuralEnergy(self.scale, self.weight[:, b], self.bias + self.weight[:, a] @ values, self.height)

    def parameters(self) -> Tensor:
        """log sigma, W row by row, b, v."""
        return torch.cat([self.scale.log()[None], self.weight.flatten(), self.bias, self.height])

    def with_parameters(self, theta: Tensor) -> "NeuralEnergy":
        """The energy of these sizes that has these parameters; differentiable in theta."""
        units, d = self.weight.shape
        theta = checked_parameters(theta, 1 + units * (d + 2))
        scale, weight, bias, height = theta.split([1, units * d, units, units])
        return NeuralEnergy(scale[0].exp(), weight.reshape(units, d), bias, height)

    def match_score(self, x: Tensor, *, rate: float = 0.02, steps: int = 500) -> "NeuralEnergy":
        """Score matching from here, by Adam with all draws at each step; the result is the best J that was seen.

        It is consistent, and is not maximum likelihood: on n draws another law may well be more likely.
        """
        if x.dim() != 2 or x.shape[1] != self.d or len(x) == 0 or not x.isfinite().all():
            raise ValueError(f"draws to fit should be finite, of shape (n, {self.d}), not {tuple(x.shape)}")
        steps = as_count(steps, "steps")
        theta = self.parameters().double().requires_grad_()
        optimiser, history, best = torch.optim.Adam([theta], lr=rate), [], (math.inf, theta.detach())
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
            optimiser.zero_grad()
            loss = self.with_parameters(theta).score_matching(x.double())
            history.append(loss.detach())
            best = min(best, (float(loss.detach()), theta.detach().clone()), key=lambda pair: pair[0])
            loss.backward()
            optimiser.step()
        fitted = self.with_parameters(best[1]).to(self.weight.dtype)
        fitted.losses = torch.stack(history)
        return fitted

    def to(self, *args, **kwargs) -> "NeuralEnergy":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        parts = [t.to(*args, **kwargs) for t in (self.scale, self.weight, self.bias, self.height)]
        return NeuralEnergy(*parts, losses=self.losses)

    def _dtype(self, x: Tensor) -> torch.dtype:
        return torch.promote_types(x.dtype, self.weight.dtype)

    def _tanh(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"draws should have shape (n, {self.d}), not {tuple(x.shape)}")
        dtype = self._dtype(x)
        return (x.to(dtype) @ self.weight.to(dtype).mT + self.bias.to(dtype)).tanh()  # (n, units)

    def _bumps(self, x: Tensor) -> Tensor:
        t = self._tanh(x)
        return t @ self.height.to(t.dtype)  # (n,)


# Langevin


def langevin(
    model: GaussianEnergy | NeuralEnergy,
    x: Tensor,
    *,
    step: float,
    steps: int,
    generator: Generator,
    exact: bool = True,
) -> Tensor:
    r"""x <- x + step score(x) + sqrt(2 step) z, from draws x (n, d), `steps` times.

    The step alone has another law than p, off by O(step). With `exact`, Metropolis' rule accepts or keeps each draw so
    that p stays as it is, whatever the step: with q(y | x) the Gaussian of the proposal,

        a = min(1, exp(E(x) - E(y)) q(x | y) / q(y | x)).
    """
    if not 0 < step < math.inf:
        raise ValueError(f"step = {step}; it should be positive and finite")
    (x,) = as_floats(x)
    if not x.isfinite().all():
        raise ValueError("x, where the chains start, should be finite")
    for _ in range(as_count(steps, "steps", 0)):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        y = x + step * model.score(x) + math.sqrt(2 * step) * noise  # (n, d)
        if exact:
            log_ratio = model.energy(x) - model.energy(y) + _log_move(model.score, y, x, step)
            log_ratio = log_ratio - _log_move(model.score, x, y, step)
            u = torch.rand(len(x), generator=generator, dtype=torch.float64, device=x.device)
            y = torch.where((u.log() < log_ratio)[:, None], y, x)
        x = y
    return x


def _log_move(score: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, step: float) -> Tensor:
    """log q(y | x) up to a constant."""
    return -(y - x - step * score(x)).square().sum(-1) / (4 * step)  # (n,)


# Ready-made models


def bowl(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GaussianEnergy:
    """Three coordinates, of which only neighbours interact."""
    precision = torch.tensor([[2.0, -0.8, 0.0], [-0.8, 1.5, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64, device="cpu")
    mean = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, device="cpu")
    return GaussianEnergy(mean, precision).to(*_placing(dtype, device))


def two_valleys(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> NeuralEnergy:
    """A bowl in the plane with two valleys, to the right and to the left of a ridge, one deeper than the other."""
    weight = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0]], dtype=torch.float64, device="cpu")
    bias = torch.tensor([-2.0, -2.5, 0.0], dtype=torch.float64, device="cpu")
    height = torch.tensor([-1.0, -1.2, 0.5], dtype=torch.float64, device="cpu")
    return NeuralEnergy(1.5, weight, bias, height).to(*_placing(dtype, device))


def _placing(dtype: torch.dtype | None, device: torch.device | str | None) -> tuple:
    return device or torch.get_default_device(), dtype or torch.get_default_dtype()
