"""A tractable law fitted to pilot draws: it proposes events, and its density is known exactly.

Mixture of k components, each a full-covariance Gaussian over the continuous coordinates times independent categoricals
over the discrete ones, fitted by EM; the number of components is chosen on held-out pilot draws. Checks that use it
(bridge ratios) hold whatever its fit: a poor one costs power, never validity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.profile import Profile
from harness.streams import generator

COMPONENTS = (1, 2, 4, 8)
EM_STEPS = 25


@dataclass(frozen=True)
class Reference:
    """The fitted law, over the coordinates of a chart."""

    profile: Profile
    log_weight: Tensor  # (k,)
    mean: Tensor  # (k, c) over continuous coordinates
    factor: Tensor  # (k, c, c) Cholesky
    tables: tuple[Tensor, ...]  # per discrete coordinate: (k, values) log-probabilities

    def sample(self, n: int, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Events (n, *event), their coordinates (n, d) and log-densities (n,) with respect to the events' measure."""
        chart = self.profile.chart
        device = chart.location.device
        component = torch.multinomial(self.log_weight.exp(), n, replacement=True, generator=source)
        z = torch.empty(n, chart.size, dtype=torch.float64, device=device)
        noise = torch.randn(n, self.mean.shape[1], generator=source, dtype=torch.float64, device=device)
        continuous = torch.empty_like(noise)
        for k in component.unique().tolist():
            rows = component == k
            continuous[rows] = self.mean[k] + noise[rows] @ self.factor[k].T
        z[:, ~chart.discrete] = continuous
        for j, table in zip(chart.discrete.nonzero().flatten().tolist(), self.tables, strict=True):
            cumulative = table.exp().cumsum(1)
            u = torch.rand(n, generator=source, dtype=torch.float64, device=device) * cumulative[component, -1]
            codes = (u[:, None] > cumulative[component]).sum(1) if table.shape[1] <= 64 else torch.empty(0)
            if table.shape[1] > 64:
                codes = torch.empty(n, dtype=torch.long, device=device)
                for k in component.unique().tolist():
                    rows = component == k
                    codes[rows] = torch.searchsorted(cumulative[k], u[rows])
            alphabet = self.profile.alphabets[j]
            assert alphabet is not None
            values = alphabet[codes.clamp(max=len(alphabet) - 1)]
            z[:, j] = (values - chart.location[j]) / chart.scale[j]
        return chart.events(z), z, self.log_density(z)

    def log_density(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """log q of events with coordinates z (n, d); -inf off the alphabets and where coordinates are not finite."""
        log_q = torch.logsumexp(self.log_joint(z), 1) - self.profile.chart.log_volume(z)
        return torch.where(z.isfinite().all(1), log_q, -torch.inf).nan_to_num(-torch.inf, posinf=torch.inf)

    def log_joint(self, z: Tensor) -> Tensor:
        """(n, k): log-probability of component and coordinates."""
        chart = self.profile.chart
        joint = self.log_weight.expand(len(z), -1)
        if self.mean.shape[1]:
            joint = joint + _log_gaussians(z[:, ~chart.discrete], self.mean, self.factor)
        for j, table in zip(chart.discrete.nonzero().flatten().tolist(), self.tables, strict=True):
            codes, known = self.codes(z[:, j], j)
            joint = joint + torch.where(known[:, None], table.T[codes], -torch.inf)
        return joint

    def codes(self, column: Tensor, j: int) -> tuple[Tensor, Tensor]:
        """Positions in the alphabet of coordinate j, and whether the value is in it."""
        return codes(self.profile, column, j)


def codes(profile: Profile, column: Tensor, j: int) -> tuple[Tensor, Tensor]:
    """Positions in the alphabet of coordinate j of standardised values (n,), and whether each value is in it."""
    alphabet = profile.alphabets[j]
    assert alphabet is not None
    value = column * profile.chart.scale[j] + profile.chart.location[j]
    gap = (alphabet.diff().amin() if len(alphabet) > 1 else torch.ones((), device=alphabet.device)) / 4
    position = torch.searchsorted(alphabet, value - gap).clamp(max=len(alphabet) - 1)
    return position, (alphabet[position] - value).abs() < gap


def fit_reference(profile: Profile, seed: int) -> Reference:
    """The mixture whose held-out pilot likelihood is highest."""
    z = profile.chart.coordinates(profile.pilot)
    z = z[z.isfinite().all(1)]
    half = len(z) // 2
    source = generator(seed, "reference", device=z.device)
    scores = []
    for k in COMPONENTS:
        if k > 1 and half < 20 * k:
            break
        fitted = _fit(profile, z[:half], k, source)
        held_out = torch.logsumexp(fitted.log_joint(z[half:]), 1)
        score = float(held_out[held_out.isfinite()].mean()) if bool(held_out.isfinite().any()) else -math.inf
        if scores and score < scores[-1][0] + 1e-3:
            break
        scores.append((score, k))
    best = max(scores)[1] if scores else 1
    return _fit(profile, z, best, source)


def _fit(profile: Profile, z: Tensor, k: int, source: torch.Generator) -> Reference:
    share = torch.nn.functional.one_hot(_nearest_seed(z, k, source), k).to(z.dtype)
    current = _maximise(profile, z, share)
    for _ in range(EM_STEPS if k > 1 else 0):
        share = torch.softmax(current.log_joint(z), 1).nan_to_num(1 / k)
        current = _maximise(profile, z, share)
    return current


def _nearest_seed(z: Tensor, k: int, source: torch.Generator) -> Tensor:
    """(n,): the nearest of k centres spread by k-means++ and settled by a few Lloyd steps."""
    points = z.clamp(-8, 8)
    centres = points[:1]
    for _ in range(k - 1):
        distance = torch.cdist(points, centres).amin(1).square() + 1e-12
        centres = torch.cat([centres, points[torch.multinomial(distance, 1, generator=source)]])
    nearest = torch.cdist(points, centres).argmin(1)
    for _ in range(5 if k > 1 else 0):
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        count = torch.bincount(nearest, minlength=k).to(points)[:, None]
        centres = torch.where(count > 0, total / count.clamp(min=1), centres)
        nearest = torch.cdist(points, centres).argmin(1)
    return nearest


def _maximise(profile: Profile, z: Tensor, share: Tensor) -> Reference:
    """Weighted maximum likelihood, smoothed so that every direction and every value of an alphabet keeps some mass."""
    chart = profile.chart
    weight = share.sum(0) + 1e-3  # (k,)
    continuous = z[:, ~chart.discrete]
    mean = share.T @ continuous / weight[:, None]
    factors = [_factor(continuous - mean[k], share[:, k], float(weight[k])) for k in range(share.shape[1])]
    tables = []
    for j in chart.discrete.nonzero().flatten().tolist():
        alphabet = profile.alphabets[j]
        assert alphabet is not None
        position, known = codes(profile, z[:, j], j)
        counts = torch.zeros(len(alphabet), share.shape[1], dtype=z.dtype, device=z.device)
        counts.index_add_(0, position, share * known[:, None])
        tables.append(_smoothed(counts).T.log())
    factor = torch.stack(factors) if factors else torch.empty(0)
    return Reference(profile, torch.log(weight / weight.sum()), mean, factor, tuple(tables))


def _factor(centred: Tensor, share: Tensor, weight: float) -> Tensor:
    """Cholesky factor of a component's covariance, drawn to its diagonal as draws per coordinate get few."""
    c = centred.shape[1]
    covariance = (centred * share[:, None]).T @ centred / weight
    shrink = min(1.0, (c / max(weight, 1.0)) ** 2 + 1e-9)
    diagonal = covariance.diagonal().clamp(min=1e-12)
    covariance = (1 - shrink) * covariance + torch.diag(shrink * diagonal + 1e-9 * diagonal)
    factor, trouble = torch.linalg.cholesky_ex(covariance)
    return factor if not bool(trouble) else torch.diag(diagonal.sqrt())


def _smoothed(counts: Tensor) -> Tensor:
    """Counts (values, k) to probabilities: neighbours share a little, and 2 % go evenly to all values."""
    total = counts.sum(0, keepdim=True)
    values = len(counts)
    if values > 64:
        width = max(1, int(values / (2 * max(float(total.sum()), 1.0) ** (1 / 3))))
        kernel = torch.ones(1, 1, 2 * width + 1, dtype=counts.dtype, device=counts.device) / (2 * width + 1)
        counts = torch.nn.functional.conv1d(counts.T[:, None], kernel, padding=width)[:, 0].T
    shares = counts / counts.sum(0, keepdim=True).clamp(min=1e-300)
    return 0.98 * shares + 0.02 / values + 1e-300


def _log_gaussians(z: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """(n, k): Gaussian log-densities of rows of z (n, c)."""
    c = z.shape[1]
    logs = []
    for k in range(len(mean)):
        white = torch.linalg.solve_triangular(factor[k], (z - mean[k]).T, upper=False)
        logs.append(-0.5 * white.square().sum(0) - factor[k].diagonal().log().sum())
    return torch.stack(logs, 1) - 0.5 * c * math.log(2 * math.pi)
