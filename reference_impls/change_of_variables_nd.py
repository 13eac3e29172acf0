r"""The law of z = f(x) for invertible maps of R^d: affine ones, and triangular ones.

    log p_z(z) = log p_x(g(z)) - log |det J(g(z))|,     g = f^-1,     J_ij = df_i / dx_j

What counts is the absolute value of the determinant, a volume; not the entries of J. For z = A x + b it is |det A| at
every x. When z_i depends on x_1, ..., x_i only, J is lower triangular and its determinant the product of its diagonal:
d slopes in place of d^3 steps, which is why flows and autoregressive models are built from triangular maps.

Any law with a density is the image of N(0, I) under a triangular map (Rosenblatt 1952,
doi.org/10.1214/aoms/1177729394).

Source: Papamakarios et al., Normalizing Flows for Probabilistic Modeling and Inference (2021),
jmlr.org/papers/v22/19-1028.html, section 2.
"""

import torch
from torch import Generator, Tensor

from reference_impls.gaussian import Gaussian
from reference_impls.gaussian_factors import as_floats, checked_draws, length
from reference_impls.uniform import Uniform


class AffineMap:
    """z = A x + b, with A (d, d) invertible and b (d,)."""

    def __init__(self, matrix: Tensor, shift: Tensor):
        self.matrix, self.shift = as_floats(matrix, shift)
        self.d = length(self.shift)
        if self.matrix.shape != (self.d, self.d) or not self.matrix.isfinite().all():
            raise ValueError(f"the matrix should be finite, ({self.d}, {self.d}), not {tuple(self.matrix.shape)}")
        values = torch.linalg.svdvals(self.matrix.double())
        if not values[-1] > self.d * torch.finfo(torch.float64).eps * values[0]:
            raise ValueError("the matrix is singular: z would have no density; drop the rows that depend on others")

    def forward(self, x: Tensor) -> Tensor:
        x, matrix, shift = as_floats(checked_draws(x, self.d), self.matrix, self.shift)
        return x @ matrix.mT + shift  # (n, d)

    def inverse(self, z: Tensor) -> Tensor:
        z, matrix, shift = as_floats(checked_draws(z, self.d), self.matrix, self.shift)
        return torch.linalg.solve(matrix, (z - shift).mT).mT  # (n, d)

    def log_det(self, x: Tensor) -> Tensor:
        """log |det A|, the same at every x."""
        x, matrix = as_floats(checked_draws(x, self.d), self.matrix)
        return torch.linalg.slogdet(matrix).logabsdet.expand(len(x))  # (n,)

    def to(self, *args, **kwargs) -> "AffineMap":
        return AffineMap(self.matrix.to(*args, **kwargs), self.shift.to(*args, **kwargs))


class TriangularMap:
    """z_i = t_i + exp(s_i) x_i, with s_i = tanh(S x)_i and t_i = (T x + U x^2)_i of the coordinates before i alone.

    S, T and U are (d, d), strictly lower triangular. The slope of z_i in x_i is exp(s_i) > 0, so that every z_i
    increases in x_i, and log det J = sum_i s_i. To invert, solve for x_1, then x_2 given x_1, and so on: d steps.
    """

    def __init__(self, scale: Tensor, linear: Tensor, quadratic: Tensor):
        self.scale, self.linear, self.quadratic = as_floats(scale, linear, quadratic)
        self.d = self.scale.shape[0] if self.scale.dim() else 0
        for name, matrix in (("scale", self.scale), ("linear", self.linear), ("quadratic", self.quadratic)):
            if matrix.shape != (self.d, self.d) or not matrix.isfinite().all():
                raise ValueError(f"{name} should be finite, ({self.d}, {self.d}), not {tuple(matrix.shape)}")
            if matrix.triu().any():
                raise ValueError(f"{name} has entries on or above the diagonal: z_i may depend on earlier x_j only")

    def forward(self, x: Tensor) -> Tensor:
        x, log_slope, shift = self._at(x)
        return shift + log_slope.exp() * x  # (n, d)

    def inverse(self, z: Tensor) -> Tensor:
        z, scale, linear, quadratic = as_floats(checked_draws(z, self.d), self.scale, self.linear, self.quadratic)
        x = z[:, :0]  # (n, i), the coordinates that are known so far
        for i in range(self.d):
            log_slope = (x @ scale[i, :i]).tanh()  # (n,)
            shift = x @ linear[i, :i] + x.square() @ quadratic[i, :i]
            x = torch.cat([x, ((z[:, i] - shift) * (-log_slope).exp())[:, None]], dim=1)
        return x  # (n, d)

    def log_det(self, x: Tensor) -> Tensor:
        """log |det J| at x."""
        return self._at(x)[1].sum(-1)  # (n,)

    def to(self, *args, **kwargs) -> "TriangularMap":
        return TriangularMap(*(t.to(*args, **kwargs) for t in (self.scale, self.linear, self.quadratic)))

    def _at(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale, linear, quadratic = as_floats(checked_draws(x, self.d), self.scale, self.linear, self.quadratic)
        return x, (x @ scale.mT).tanh(), x @ linear.mT + x.square() @ quadratic.mT


class Image:
    """The law of z = f(x) for x from a model `base` on R^d and a map f with `forward`, `inverse` and `log_det`."""

    number, family = "I10", "change of variables"

    def __init__(self, base, bijection):
        if base.d != bijection.d:
            raise ValueError(f"the base is on R^{base.d}, the map on R^{bijection.d}; give both the same dimension")
        self.base, self.bijection, self.d = base, bijection, base.d

    def log_prob(self, z: Tensor) -> Tensor:
        """log p_x(x) - log |det J(x)| at x = f^-1(z); -inf at a z so far out that x is no number of the dtype."""
        finite = checked_draws(z, self.d).isfinite().all(-1)  # (n,)
        x = self.bijection.inverse(torch.where(finite[:, None], z, self.forward(self.base.mean()[None]).to(z.dtype)))
        log_prob = self.base.log_prob(x) - self.bijection.log_det(x)
        log_prob = torch.where(finite & x.isfinite().all(-1), log_prob, -torch.inf)
        return torch.where(z.isnan().any(-1), torch.nan, log_prob)  # (n,)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        return self.forward(self.base.sample(n, generator=generator))  # (n, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.bijection.forward(x)

    def inverse(self, z: Tensor) -> Tensor:
        return self.bijection.inverse(z)

    def log_det(self, x: Tensor) -> Tensor:
        return self.bijection.log_det(x)

    def to(self, *args, **kwargs) -> "Image":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return Image(self.base.to(*args, **kwargs), self.bijection.to(*args, **kwargs))


class AffineImage(Image):
    """The law of A x + b, whose moments and entropy follow from those of x."""

    family = "affine change of variables"

    def __init__(self, base, bijection: AffineMap):
        super().__init__(base, bijection)

    def mean(self) -> Tensor:
        """A E[x] + b."""
        return self.forward(self.base.mean()[None])[0]  # (d,)

    def covariance(self) -> Tensor:
        """A Cov[x] A^T."""
        return self.bijection.matrix @ self.base.covariance() @ self.bijection.matrix.mT  # (d, d)

    def variance(self) -> Tensor:
        return self.covariance().diagonal()  # (d,)

    def entropy(self) -> Tensor:
        """H(x) + log |det A|."""
        return self.base.entropy() + torch.linalg.slogdet(self.bijection.matrix).logabsdet  # ()

    def to(self, *args, **kwargs) -> "AffineImage":
        return AffineImage(self.base.to(*args, **kwargs), self.bijection.to(*args, **kwargs))


# Ready-made models


def parallelogram(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> AffineImage:
    """A uniform law on the unit square, sheared, mirrored (det A < 0) and moved; the area is 3."""
    matrix, shift = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64), torch.tensor([-1.0, 0.5])
    square = Uniform(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    return AffineImage(square, AffineMap(matrix, shift)).to(*_placing(dtype, device))


def banana(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Image:
    """N(0, I) in three dimensions, bent: z_2 follows x_1^2, and the spread of z_3 depends on x_1 and x_2."""
    scale = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.5, -0.4, 0.0]], dtype=torch.float64)
    linear = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [-0.6, 0.3, 0.0]], dtype=torch.float64)
    quadratic = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    base = Gaussian(torch.zeros(3, dtype=torch.float64), cholesky=torch.eye(3, dtype=torch.float64))
    return Image(base, TriangularMap(scale, linear, quadratic)).to(*_placing(dtype, device))


def _placing(dtype: torch.dtype | None, device: torch.device | str | None) -> tuple:
    return device or torch.get_default_device(), dtype or torch.get_default_dtype()
