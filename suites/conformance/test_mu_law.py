"""The mu-law: levels that come back, the bound of what is lost, and the slope that defines it."""

import math

import pytest
import torch
from scipy.integrate import quad

from reference_impls import mu_law

EPS = torch.finfo(torch.float64).eps


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_come_back_and_amplitudes_within_the_bound(levels, dtype):
    every = torch.arange(levels)
    assert torch.equal(mu_law.encode(mu_law.decode(every, levels, dtype=dtype), levels), every)
    as_bytes = mu_law.decode(every.to(torch.uint8), levels, dtype=dtype)
    assert torch.equal(as_bytes, mu_law.decode(every, levels, dtype=dtype))
    x = torch.linspace(-1, 1, 200_001, dtype=dtype)
    back = mu_law.decode(mu_law.encode(x, levels), levels, dtype=dtype)
    bound = mu_law.round_trip_bound(back, levels)
    # The end of a bin is known as f is: a few roundings of 1, of which f^-1 makes ln(1 + mu) (|x| + 1 / mu) each.
    rounding = 8 * torch.finfo(dtype).eps * math.log(levels) * (x.abs() + 1 / (levels - 1))
    assert ((x - back).abs() <= bound + rounding).all()
    # The bound is met at the outer ends of bins, of which a point of the grid is at most 1e-5 away.
    assert ((x - back).abs() + 1e-5 >= bound).any()
    assert mu_law.encode(torch.tensor([-1.0, 0.0, 1.0]), levels).tolist() == [0, levels // 2, levels - 1]


def test_compression_has_the_slope_of_weber():
    """f' is proportional to 1 / (1 / mu + |x|), with f(0) = 0 and f(1) = 1: from that alone, by quadrature."""
    mu = 255
    whole = quad(lambda t: 1 / (1 / mu + t), 0, 1, epsabs=1e-13, epsrel=1e-13)[0]
    for x in (0.001, 0.1, 0.7, 1.0):
        truth = quad(lambda t: 1 / (1 / mu + t), 0, x, epsabs=1e-13, epsrel=1e-13)[0] / whole
        both = mu_law.compress(torch.tensor([x, -x], dtype=torch.float64))
        assert torch.allclose(both, torch.tensor([truth, -truth], dtype=torch.float64), rtol=0, atol=1e-12)
        assert torch.allclose(mu_law.expand(both), torch.tensor([x, -x], dtype=torch.float64), rtol=32 * EPS, atol=0)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: mu_law.encode(torch.tensor([1.5])), "from -1 to 1"),
        (lambda: mu_law.encode(torch.tensor([math.nan])), "leave out NaN"),
        (lambda: mu_law.decode(torch.tensor([256])), "integers from 0 to 255"),
        (lambda: mu_law.decode(torch.tensor([0.5])), "integers from 0 to 255"),
        (lambda: mu_law.encode(torch.zeros(1), 1), "levels = 1"),
    ],
)
def test_mistakes_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
