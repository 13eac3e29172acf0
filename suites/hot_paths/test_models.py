"""Draws and densities of reference models: a family of each kind, at sizes at which arithmetic outweighs overhead."""

import pytest
import torch

from harness.adapters import adapt
from reference_impls.made import full_made
from suites.speed.tracked.scaling import FAMILIES

ROWS = 1000
MODELS = {name: lambda make=make: make(16) for name, make in FAMILIES.items()} | {"full MADE": full_made}


@pytest.fixture(params=list(MODELS))
def model(request):
    return MODELS[request.param]()


def test_sample(benchmark, model):
    source = torch.Generator().manual_seed(0)
    x = benchmark(lambda: model.sample(ROWS, generator=source))
    assert x.shape[0] == ROWS
    assert x.isfinite().all()
    assert len(x.unique(dim=0)) > 1  # the odds that 1,000 draws of 16 coordinates agree are none


def test_log_prob(benchmark, model):
    """In float32 as in float64: each number is a sum of 512 products at most, in four layers at most.

    So rounding is off by 4 x 512 eps = 2.4e-4 of the largest |log p|, as far as layers are well conditioned.
    """
    x = model.sample(ROWS, generator=torch.Generator().manual_seed(0))
    log_p = benchmark(model.log_prob, x)
    exact = adapt(model).cast(torch.float64).log_prob(x.double() if x.is_floating_point() else x)
    allowed = 4 * 512 * torch.finfo(torch.float32).eps * float(exact.abs().max())
    assert log_p.shape == (ROWS,)
    assert float((log_p - exact).abs().max()) <= allowed
