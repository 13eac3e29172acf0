"""Triangular factors of covariances, and the arguments that every Gaussian checks: shared by `gaussian*.py`.

Factors are computed in float64, whatever the dtype of what is factored, and rounded once at the end.

Source: Higham, Accuracy and Stability of Numerical Algorithms (2nd ed., 2002), chapters 10 and 19.
"""

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Generator, Tensor

CHUNK = 2**17
"""Numbers in a temporary of a log density, for each thread of a processor: 1/2 or 1 MiB stay in the cache of a core.
Larger ones can be much slower, as the allocator gives their memory back to the system and asks for it again."""
CHUNK_ON_A_GPU = 2**24
"""The same where it takes more to be busy."""
GROUPS = 4
"""Products that are made of a chunk at once: threads share them without splitting any."""

# Factors


def factor_of_covariance(covariance: Tensor, name: str = "covariance") -> Tensor:
    """The Cholesky factor L of Sigma = L L^T; a ValueError when Sigma is not symmetric and positive definite.

    The variance that is left of x_i given all others is w_i^T Sigma w_i, see `residuals`. Entries of Sigma that are off
    by eps of themselves move it by eps |w_i|^T |Sigma| |w_i| at most, to first order, and the factorisation by d eps of
    float64 in place of eps (Higham, theorem 10.3). What is no larger than that is rounding error, and Sigma cannot be
    told from a singular matrix.
    """
    if not covariance.isfinite().all():
        raise ValueError(f"the {name} has entries that are not finite; give numbers")
    sigma = covariance.double()  # (d, d)
    variance = sigma.diagonal()  # (d,)
    if not (variance > 0).all():
        raise ValueError(f"the {name} is not positive definite: an entry of its diagonal is not positive")
    deviation = variance.sqrt()
    asymmetry = (sigma - sigma.mT).abs() / deviation / deviation[:, None]
    if not asymmetry.max() <= torch.finfo(covariance.dtype).eps ** 0.5:  # far more than rounding explains
        raise ValueError(f"the {name} is not symmetric; give the mean of it and its transpose")
    factor, failed_at = torch.linalg.cholesky_ex((sigma + sigma.mT) / 2)
    if failed_at or not _told_from_singular(sigma.detach(), factor.detach(), torch.finfo(covariance.dtype).eps):
        raise ValueError(
            f"the {name} is not positive definite, so that there is no density; add a small multiple of I to it, or "
            "drop coordinates that others determine"
        )
    return factor.to(covariance.dtype)


def _told_from_singular(sigma: Tensor, factor: Tensor, eps: float) -> bool:
    w, left = residuals(factor)
    rounding = eps + len(sigma) * torch.finfo(sigma.dtype).eps
    return bool((left.square() > rounding * ((w.abs() @ sigma.abs()) * w.abs()).sum(-1)).all())


def residuals(factor: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of x_i once all others are known: w_i . (x - mu), with w_ii = 1, and its standard deviation.

    From the precision Lambda: w_ij = Lambda_ij / Lambda_ii, and the variance is 1 / Lambda_ii.
    """
    inverse = inverse_factor(factor)
    precision = inverse.mT @ inverse
    variance = 1 / precision.diagonal()
    return precision * variance[:, None], variance.sqrt()  # (d, d), (d,)


def factor_of_draws(root: Tensor, mean: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """L with L L^T = R^T R / n for the root R (r, d) of the scatter of n draws; a ValueError if they lie in a plane.

    Draws x_j that are off by eps |x_j| in their dtype, and a mean that is off by n eps |m_j| in float64, move what is
    left of x_i given all others, w_i . (x - m), by as much as that, weighted by |w_i|. If no more is left, x_i is
    constant or a combination of the others.
    """
    plane = "the covariance of x is singular: a column is constant, or follows from others; drop it, or give more rows"
    try:
        factor = lower_factor(root.mT / math.sqrt(n))  # (d, d)
    except ValueError:
        raise ValueError(plane) from None
    w, left = residuals(factor.detach().double())
    size = (factor.detach().square().sum(-1) + mean.detach().square()).sqrt()  # of a draw, (d,)
    off = torch.finfo(dtype).eps * size + n * torch.finfo(torch.float64).eps * mean.detach().abs()
    if not (left > w.abs() @ off.double()).all():
        raise ValueError(plane)
    return factor


def lower_factor(matrix: Tensor) -> Tensor:
    """The Cholesky factors of B B^T for B (..., k, m), without squaring B: if B^T = Q R, then B B^T = R^T R."""
    b = matrix.double()
    if b.shape[-2] > b.shape[-1]:
        raise ValueError(
            f"the covariance of {b.shape[-2]} combinations of {b.shape[-1]} variables is singular; give fewer rows"
        )
    r = torch.linalg.qr(b.mT).R  # (..., k, k)
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    factor = r.mT * diagonal.sign()[..., None, :]  # R is unique up to the signs of its rows
    row_norm = torch.linalg.vector_norm(b.detach(), dim=-1)
    if not (diagonal.abs() > max(b.shape[-2:]) * torch.finfo(b.dtype).eps * row_norm).all():
        raise ValueError("the rows are linearly dependent, so that their covariance is singular; drop some of them")
    return factor.to(matrix.dtype)


def inverse_factor(factor: Tensor) -> Tensor:
    r"""W = L^-1, computed in float64 from its rows: w_i L = e_i, each by back substitution.

    Whitening by W then loses no more digits than solving L z = x - mu for each x. By rows, the computed W has a small
    *left* residual, |W L - I| <= d eps |W| |L| (Higham 2002, section 14.2), and W (x - mu) = W L z, so that z is off by
    at most (d + 2) eps |L^-1| |L| |z|, the bound of forward substitution. By columns, |L W - I| would be small instead,
    which says nothing about W L z. A product is also several times as fast as n substitutions.
    """
    double = factor.double()
    identity = torch.eye(double.shape[-1], dtype=double.dtype, device=double.device)
    return torch.linalg.solve_triangular(double, identity, upper=False, left=False).to(factor.dtype)  # (..., d, d)


# Densities of many draws


def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """function(x), (..., n), a row of x at a time or many, where each row needs a temporary of `width` numbers.

    Results go into one tensor that is made first: kept one by one, they would lie between the temporaries, whose memory
    could then not be used again. Where there is a graph it keeps the temporaries anyway.
    """
    rows = chunk_rows(x, width)
    if x.dim() == 0 or len(x) <= rows:
        return function(x)
    first, *others = x.split(rows)
    found = function(first)
    if found.requires_grad:
        return torch.cat([found, *map(function, others)], -1)
    whole = found.new_empty(*found.shape[:-1], len(x))
    whole[..., :rows] = found
    for i, part in enumerate(others, 1):
        whole[..., i * rows : (i + 1) * rows] = function(part)
    return whole


def in_place(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), (n, d) as x, some rows at a time and in the memory of x, where no graph needs that any more."""
    rows = chunk_rows(x, x.shape[1])
    if len(x) <= rows or function(x[:1]).requires_grad:
        return function(x)
    for some in x.split(rows):
        some.copy_(function(some))
    return x


def chunk_rows(x: Tensor, width: int) -> int:
    """How many rows at a time, where each needs a temporary of `width` numbers."""
    rows = (CHUNK * torch.get_num_threads() if x.device.type == "cpu" else CHUNK_ON_A_GPU) // width
    return max(1, rows - rows % GROUPS)


def squared_lengths(matrix: Tensor, rows: Tensor) -> Tensor:
    """||A r||^2 (n,) for a matrix A (d, d) and rows r (n, d). A row is a column of A r: sums over d add whole rows."""
    groups = GROUPS if len(rows) and len(rows) % GROUPS == 0 else 1
    product = torch.bmm(matrix.expand(groups, -1, -1), rows.reshape(groups, -1, rows.shape[1]).mT)
    return squared(product).sum(1).flatten()


def squared(temporary: Tensor) -> Tensor:
    """z^2, in the place of z where no graph needs that any more."""
    return temporary.square() if temporary.requires_grad else temporary.square_()


def infinite_at_infinity(squares: Tensor, x: Tensor) -> Tensor:
    """The squared distances (..., n) to the rows of x (n, d), which is no point of R^d at infinity; NaN remains NaN."""
    if squares.isfinite().all():
        return squares
    return torch.where(x.isinf().any(-1), math.inf, squares)


# Arguments


def as_floats(*values: Tensor) -> list[Tensor]:
    """All of them in the one floating dtype that holds them all, so that nothing is rounded down."""
    tensors = [torch.as_tensor(value) for value in values]
    dtype = reduce(torch.promote_types, (t.dtype for t in tensors))
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    return [t.to(dtype) for t in tensors]


def length(mean: Tensor) -> int:
    if mean.dim() != 1 or len(mean) == 0 or not mean.isfinite().all():
        raise ValueError(f"the mean should be a finite vector; its shape is {tuple(mean.shape)}")
    return len(mean)


def checked_factor(factor: Tensor) -> Tensor:
    if not factor.isfinite().all() or factor.triu(1).any() or not (factor.diagonal() > 0).all():
        raise ValueError("a Cholesky factor is finite and lower triangular, with a positive diagonal")
    return factor


def checked_draws(x: Tensor, d: int) -> Tensor:
    if x.dim() != 2 or x.shape[1] != d:  # a column would broadcast against d coordinates without a word
        raise ValueError(f"draws should have shape (n, {d}), not {tuple(x.shape)}")
    return x


def checked_shares(u: Tensor) -> Tensor:
    u = torch.as_tensor(u)
    if u.dim() != 1:
        raise ValueError(f"u should have shape (n,), not {tuple(u.shape)}")
    return u


def checked_sample(x: Tensor) -> Tensor:
    """Draws to fit: finite, floating, (n, d) with n > 0."""
    (x,) = as_floats(x)
    if x.dim() != 2 or len(x) == 0 or x.shape[1] == 0:
        raise ValueError(f"a sample x to fit has shape (n, d) with n > 0 and d > 0; this one has {tuple(x.shape)}")
    if x.isnan().any():
        raise ValueError("the sample x has NaN; where they stand for missing values, use gaussian_missing.fit_observed")
    if not x.isfinite().all():
        raise ValueError("the sample x to fit should be finite; drop the rows that are not")
    return x


def checked_variance(variance: Tensor, mean: Tensor, n: int) -> Tensor:
    """Of equal numbers x_i the mean is off by n eps |x_i| at most; a variance below its square is no variance."""
    rounding = n * torch.finfo(torch.float64).eps * mean.abs()
    if not (variance > rounding.square()).all():
        raise ValueError("a column of x is constant, so that it has no density; drop it")
    return variance


def checked_values(values: Tensor, k: int) -> Tensor:
    values = torch.as_tensor(values)
    if values.shape != (k,):
        raise ValueError(f"{k} coordinates are given, but their values have shape {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError("values should be finite numbers; leave out the coordinates that were not observed")
    return values


def checked_parameters(theta: Tensor, k: int) -> Tensor:
    (theta,) = as_floats(theta)
    if theta.shape != (k,):
        raise ValueError(f"theta should hold {k} parameters, shape ({k},), not {tuple(theta.shape)}")
    return theta


def same_size(d: int, other: int) -> None:
    if d != other:
        raise ValueError(f"a law on R^{d} has no divergence from one on R^{other}")


def normals(n: int, like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(n, len(like), generator=generator, dtype=like.dtype, device=like.device)  # (n, d)
