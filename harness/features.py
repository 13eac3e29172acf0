"""Test functions of standardised coordinates, bounded by construction: columns g with -1/2 <= g <= 1.

A dictionary in which every common defect moves some column: location, scale, tails and single values of each
coordinate; radius and log-density of the whole event. Rare events are indicators in {0, 1}, so that their variance is
as small as their probability.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.profile import Profile
from harness.reference import codes
from harness.subject import Subject

SHAPES = ("sign", "location", "scale", "z > 2", "z < -2", "|z| > 3", "|z| > 4.5")
MAX_VALUES = 12
LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def columns(subject: Subject, z: Tensor, log_p: Tensor) -> Tensor:
    """(n, k): the dictionary at events with coordinates z (n, d) and log-density log_p (n,)."""
    return torch.cat([coordinate_columns(subject, z), _whole(subject, z, log_p)], 1)


def coordinate_columns(subject: Subject, z: Tensor) -> Tensor:
    """(n, k): the first columns, each of which looks at one coordinate."""
    profile = subject.profile
    continuous = z[:, ~profile.chart.discrete]
    parts = [_marginal(continuous).flatten(1)] if continuous.shape[1] else []
    for j in profile.chart.discrete.nonzero().flatten().tolist():
        parts.append(_values(profile, z[:, j], j))
    return torch.cat(parts, 1)


def labels(subject: Subject) -> list[str]:
    """The names of the columns."""
    whole = [f"{what} at its {level:.0%} level" for what in ("radius", "log-density") for level in LEVELS]
    return coordinate_labels(subject) + whole


def coordinate_labels(subject: Subject) -> list[str]:
    """The names of the first columns, each of which looks at one coordinate."""
    profile = subject.profile
    flags = profile.chart.discrete.tolist()
    named = [f"{shape} of coordinate {j}" for j, flag in enumerate(flags) if not flag for shape in SHAPES]
    for j, flag in enumerate(flags):
        if flag:
            named += [f"coordinate {j} = {value:g}" for value in _listed(profile, j)] + [f"sign of coordinate {j}"]
    return named


def _marginal(z: Tensor) -> Tensor:
    """(n, c, shapes)."""
    z = z.nan_to_num(0.0, 1e3, -1e3).to(torch.float32)
    square = z.square()
    return torch.stack(
        [
            (z > 0).float() - 0.5,
            torch.tanh(z) / 2,
            square / (1 + square) - 0.5,
            (z > 2).float(),
            (z < -2).float(),
            (z.abs() > 3).float(),
            (z.abs() > 4.5).float(),
        ],
        2,
    )


def _listed(profile: Profile, j: int) -> list[float]:
    """Values of a discrete coordinate that get a column of their own: all of a small alphabet, else the middle."""
    alphabet = profile.alphabets[j]
    assert alphabet is not None
    if len(alphabet) <= MAX_VALUES:
        return alphabet.tolist()
    centre = int(torch.searchsorted(alphabet, profile.chart.location[j]))
    start = max(0, min(centre - MAX_VALUES // 2, len(alphabet) - MAX_VALUES))
    return alphabet[start : start + MAX_VALUES].tolist()


def _values(profile: Profile, column: Tensor, j: int) -> Tensor:
    """(n, values + 1): indicators of single values, and of lying above the median."""
    position, known = codes(profile, column, j)
    alphabet = profile.alphabets[j]
    assert alphabet is not None
    listed = torch.tensor(_listed(profile, j), dtype=torch.float64, device=column.device)
    hits = (alphabet[position][:, None] == listed) & known[:, None]
    return torch.cat([hits.float(), (column > 0).float()[:, None] - 0.5], 1)


def _whole(subject: Subject, z: Tensor, log_p: Tensor) -> Tensor:
    """(n, 2 levels): radius and log-density beyond their pilot quantiles, on the rarer side."""
    quantiles = subject.once("quantiles of whole events", lambda: _pilot_quantiles(subject))
    numbers = torch.stack([_radius(z), log_p.nan_to_num(neginf=-1e300)], 1)[:, :, None]
    upper = torch.tensor(LEVELS, device=z.device) > 0.5
    return torch.where(upper, numbers > quantiles.T, numbers < quantiles.T).flatten(1).float()


def _radius(z: Tensor) -> Tensor:
    return z.nan_to_num(0.0, 1e3, -1e3).clamp(-1e3, 1e3).square().sum(1)


def _pilot_quantiles(subject: Subject) -> Tensor:
    """(levels, 2)."""
    from harness.draws import log_density

    x = subject.pilot[: 2**12]
    z = subject.profile.chart.coordinates(x)
    numbers = torch.stack([_radius(z), log_density(subject, x).nan_to_num(neginf=-1e300)], 1)
    return torch.quantile(numbers, torch.tensor(LEVELS, dtype=torch.float64, device=z.device), dim=0)
