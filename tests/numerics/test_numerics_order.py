"""Quantiles of columns are torch's, NaN left out."""

from __future__ import annotations

import pytest
import torch

from harness.numerics.order import column_quantiles


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_of_columns_are_those_of_torch(dtype):
    x = torch.randn(1001, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    x[3, 1], x[:5, 2], x[:, 3] = torch.nan, torch.inf, torch.nan
    x[0, 4] = -torch.inf
    levels = torch.tensor([0.0, 0.001, 0.25, 0.5, 0.9, 1.0], dtype=dtype)
    theirs = torch.nanquantile(x, levels, dim=0)
    ours = column_quantiles(x, levels)
    assert ours.dtype == dtype
    undefined = torch.zeros(6, dtype=torch.bool)
    undefined[3] = True
    assert torch.equal(ours.isnan(), undefined.expand(6, 6))
    close = (ours == theirs) | ((ours - theirs).abs() <= 4 * torch.finfo(dtype).eps * theirs.abs())
    assert bool((close | theirs.isnan()).all())  # between infinities torch's are NaN
