"""Test functions of standardised coordinates, bounded by construction: columns g with -1/2 <= g <= 1.

A dictionary in which every common defect moves some column: location, scale, tails and single values of each
coordinate; radius and log-density of the whole event. Rare events are indicators in {0, 1}, so that their variance is
as small as their probability. A discrete coordinate is looked up in a table of its values, so its cost does not grow
with the number of its columns.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from harness.draws import log_density
from harness.profile import Profile
from harness.reference import all_codes
from harness.subject import Subject

SHAPES = ("sign", "location", "scale", "z > 2", "z < -2", "|z| > 3", "|z| > 4.5")
MAX_VALUES = 24
FEW = 4
LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BLOCK_NUMBERS, BLOCK_ROWS = 2**16, 2**13
"""Columns are made for so many numbers at a time: a dictionary of a whole chunk would not stay in the cache."""

FAR = 1e3
"""Coordinates beyond are taken for this, so that their squares are numbers of float32."""


def coordinate_columns(subject: Subject, z: Float64[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """The columns that look at one coordinate each."""
    profile = subject.profile
    parts = [_shapes(_continuous(profile, z)).flatten(1)]
    places = _discrete(profile)
    if places:
        position, known = all_codes(profile, z)
        parts += [_table(subject, j)[position[:, i]] * known[:, i, None] for i, j in enumerate(places)]
    return torch.cat(parts, 1)


def coordinate_labels(subject: Subject) -> list[str]:
    """The names of the columns that look at one coordinate each."""
    profile = subject.profile
    flags = profile.chart.discrete.tolist()
    named = [f"{shape} of coordinate {j}" for shape in SHAPES for j, flag in enumerate(flags) if not flag]
    for j in _discrete(profile):
        named += [f"{shape} of coordinate {j}" for shape in (SHAPES if _ordered(profile, j) else SHAPES[:1])]
        named += [f"coordinate {j} = {value:g}" for value in _listed(profile, j)]
    return named


def labels(subject: Subject) -> list[str]:
    """The names of all columns."""
    whole = [f"{what} at its {level:.0%} level" for what in ("radius", "log-density") for level in LEVELS]
    return [*coordinate_labels(subject), *whole, "all events together"]


def weighted_sums(
    subject: Subject, z: Float64[Tensor, "n d"], log_p: Float64[Tensor, " n"], weight: Float[Tensor, " n"]
) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
    """Sums over rows of w g and of (w g)^2 for every column g, without a row's columns ever being stored.

    Weights are near 1, and float32 adds up many such numbers with a bias of 1e-5, which is more than their mean is
    known to. So sums of g, exact for indicators, and of (w - 1) g, which are small, are made apart.
    """
    profile = subject.profile
    w = weight.float()
    apart = torch.stack([torch.ones_like(w), (weight - 1).float()])  # (2, n)
    dense, dense_squares = _shape_sums(_continuous(profile, z), apart, w)
    whole = _whole(subject, z, log_p)
    total, squares = [dense], [dense_squares]
    places = _discrete(profile)
    if places:
        position, known = all_codes(profile, z)
        m, values = profile.letters.shape
        index = (position + values * torch.arange(m, device=z.device)).flatten()
        kept = (weight[:, None] * known).flatten()
        once = torch.bincount(index, kept, m * values).reshape(m, values)
        twice = torch.bincount(index, kept.square(), m * values).reshape(m, values)
        for i, j in enumerate(places):
            table = _table(subject, j).double()
            total.append(once[i, : len(table)] @ table)
            squares.append(twice[i, : len(table)] @ table.square())
    total, squares = [*total, (whole @ apart.T).double().sum(1)], [*squares, whole @ w.square()]
    return torch.cat([part.double() for part in total]).cpu(), torch.cat([part.double() for part in squares]).cpu()


def _shape_sums(z: Tensor, apart: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (shapes c,) over rows of z (n, c): of the shapes, weighted by both rows of `apart` in turn; of (w g)^2."""
    total = torch.zeros(len(apart), len(SHAPES) * z.shape[1], dtype=torch.float64, device=z.device)
    squares = torch.zeros_like(total[0])
    rows = _rows(z.shape[1])
    for part, by, of in zip(z.split(rows), apart.split(rows, 1), w.split(rows), strict=True):
        g = _shapes(part).flatten(1)
        total += by @ g
        squares += of.square() @ g.square_()
    return total.sum(0), squares


def block_rows(profile: Profile) -> int:
    """Rows of which columns are best made at a time: of discrete coordinates many, as each is looked up by itself."""
    return _rows(profile.size) if profile.kind == "continuous" else 2**20


def _rows(numbers: int) -> int:
    return max(1, min(BLOCK_ROWS, BLOCK_NUMBERS // max(1, numbers)))


def _continuous(profile: Profile, z: Tensor) -> Tensor:
    """(n, c): the continuous coordinates."""
    return z if profile.kind == "continuous" else z[:, ~profile.chart.discrete]


def _discrete(profile: Profile) -> list[int]:
    return profile.chart.discrete.nonzero().flatten().tolist()


def _ordered(profile: Profile, j: int) -> bool:
    """Has a discrete coordinate enough values for their order to be worth watching?"""
    alphabet = profile.alphabets[j]
    return alphabet is not None and len(alphabet) > FEW


def _shapes(z: Tensor) -> Tensor:
    """(n, shapes, c) of z (n, c)."""
    z = z.to(torch.float32).nan_to_num(0.0).clamp(-FAR, FAR)
    square = z.square()
    out = torch.empty(len(z), len(SHAPES), z.shape[1], dtype=torch.float32, device=z.device)
    # Written in place: to stack seven tensors takes torch six times as long.
    torch.gt(z, 0, out=out[:, 0])
    torch.tanh(z, out=out[:, 1])
    torch.div(square, 1 + square, out=out[:, 2])
    torch.gt(z, 2, out=out[:, 3])
    torch.lt(z, -2, out=out[:, 4])
    torch.gt(square, 9, out=out[:, 5])
    torch.gt(square, 4.5**2, out=out[:, 6])
    out[:, 1] /= 2
    out[:, 0] -= 0.5
    out[:, 2] -= 0.5
    return out


def _listed(profile: Profile, j: int) -> list[float]:
    """Values of a discrete coordinate that get a column of their own: all of a small alphabet, else the middle."""
    alphabet = profile.alphabets[j]
    assert alphabet is not None
    if len(alphabet) <= MAX_VALUES:
        return alphabet.tolist()
    centre = int(torch.searchsorted(alphabet, profile.chart.location[j]))
    start = max(0, min(centre - MAX_VALUES // 2, len(alphabet) - MAX_VALUES))
    return alphabet[start : start + MAX_VALUES].tolist()


def _table(subject: Subject, j: int) -> Tensor:
    """(values, k): the columns of a discrete coordinate at each value of its alphabet."""

    def work() -> Tensor:
        profile = subject.profile
        alphabet = profile.alphabets[j]
        assert alphabet is not None
        z = (alphabet - profile.chart.location[j]) / profile.chart.scale[j]
        shapes = _shapes(z[:, None])[:, : len(SHAPES) if _ordered(profile, j) else 1, 0]
        listed = torch.tensor(_listed(profile, j), dtype=alphabet.dtype, device=alphabet.device)
        return torch.cat([shapes, (alphabet[:, None] == listed).float()], 1)

    return subject.once(f"table of coordinate {j}", work)


def _whole(subject: Subject, z: Tensor, log_p: Tensor) -> Tensor:
    """(2 levels + 1, n): radius and log-density beyond their pilot quantiles, on the rarer side; and 1."""
    quantiles = subject.once("quantiles of whole events", lambda: _pilot_quantiles(subject))
    numbers = torch.stack([_radius(z), log_p.nan_to_num(neginf=-1e300)])[:, None]  # (2, 1, n)
    limits = quantiles.T[:, :, None]  # (2, levels, 1)
    upper = torch.tensor(LEVELS, device=z.device)[:, None] > 0.5
    beyond = torch.where(upper, numbers > limits, numbers < limits).flatten(0, 1).float()
    return torch.cat([beyond, torch.ones_like(beyond[:1])])


def _radius(z: Tensor) -> Tensor:
    return z.nan_to_num(0.0).clamp(-FAR, FAR).square().sum(1)


def _pilot_quantiles(subject: Subject) -> Tensor:
    """(levels, 2)."""
    x = subject.pilot[: 2**12]
    z = subject.profile.chart.coordinates(x)
    numbers = torch.stack([_radius(z), log_density(subject, x).nan_to_num(neginf=-1e300)], 1)
    return torch.quantile(numbers, torch.tensor(LEVELS, dtype=torch.float64, device=z.device), dim=0)
