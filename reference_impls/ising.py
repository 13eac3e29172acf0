r"""The Ising model on a grid: spins that are -1 or 1, and tend to agree with their neighbours.

    p(s) = exp(-E(s)) / Z,     E(s) = -beta sum_{i ~ j} s_i s_j - h sum_i s_i,     i ~ j: next to each other

The edges are free, so that spins at the border have fewer neighbours. Z sums over 2^(rows columns) states; as a column
touches only the next one, it is also a product of matrices of 2^rows states, `log_partition`. Its derivatives are the
moments: d log Z / d h_i = E s_i and d^2 log Z / d h_i d h_j = Cov[s_i, s_j].

Sources: Kramers & Wannier (1941), doi.org/10.1103/PhysRev.60.252 (the transfer matrix);
Geman & Geman (1984), doi.org/10.1109/TPAMI.1984.4767596 (Gibbs sampling).
"""

import math

import torch
from torch import Generator, Tensor

from reference_impls.gaussian_factors import checked_parameters
from reference_impls.indices import as_count
from reference_impls.logistic import minimise

MOST_ROWS = 12
"""Spins of a column, of which the transfer matrix has 2^12 x 2^12 entries."""

MOST_SPINS = 20
"""Spins whose states are enumerated."""


class IsingGrid:
    """rows x columns spins, coupling beta and field h; draws (n, rows, columns) are -1.0 or 1.0."""

    number = "M13"
    family = "Ising grid"

    def __init__(self, rows: int, columns: int, coupling: Tensor | float, field: Tensor | float = 0.0):
        coupling = torch.as_tensor(coupling)
        self.coupling = coupling if coupling.is_floating_point() else coupling.to(torch.get_default_dtype())  # ()
        self.field = torch.as_tensor(field).to(self.coupling)  # ()
        self.rows, self.columns = as_count(rows, "rows"), as_count(columns, "columns")
        if min(rows, columns) > MOST_ROWS:
            raise ValueError(f"a grid {rows} x {columns}; its shorter side should be from 1 to {MOST_ROWS}")
        if self.coupling.dim() or self.field.dim() or not (self.coupling.isfinite() and self.field.isfinite()):
            raise ValueError("coupling and field should be finite numbers")

    def energy(self, s: Tensor) -> Tensor:
        """E(s): the density is proportional to exp(-E)."""
        agreement, total = self._statistics(s)
        return -self.coupling.to(agreement) * agreement - self.field.to(agreement) * total  # (n,)

    def log_partition(self) -> Tensor:
        """log Z, by the transfer matrix."""
        return self._log_partition(self.coupling.double(), self._fields()).to(self.coupling.dtype)  # ()

    def log_partition_by_enumeration(self) -> Tensor:
        """log Z as it is defined: the sum over all states."""
        return (-self._double().energy(self.states())).logsumexp(0).to(self.coupling.dtype)  # ()

    def log_prob(self, s: Tensor) -> Tensor:
        log_prob = -self.energy(s) - self.log_partition()
        return torch.where((s.abs() == 1).flatten(1).all(-1), log_prob, -math.inf)  # (n,)

    def states(self) -> Tensor:
        """All grids of spins, (2^(rows columns), rows, columns), in float64."""
        d = self.rows * self.columns
        if d > MOST_SPINS:
            raise ValueError(f"{d} spins have too many states to list; at most {MOST_SPINS}")
        return _spins(d, self.coupling.device).reshape(-1, self.rows, self.columns)

    def sample(self, n: int, *, generator: Generator) -> Tensor:
        """Exact draws: the columns are a Markov chain, of which `_messages` know what lies to the left.

        The last column comes first, then each given the next: p(s_j | s_{j+1}) ~ exp(m_j(s_j) + beta s_j . s_{j+1}).
        """
        spins, messages = self._messages(self.coupling.double(), self._fields())
        u = torch.rand(len(messages), n, generator=generator, dtype=torch.float64, device=spins.device)
        pull = self.coupling.double() * spins @ spins.mT  # (2^r, 2^r)
        chosen = [_choose(messages[-1].expand(n, -1), u[-1])]
        for j in reversed(range(len(messages) - 1)):
            chosen.insert(0, _choose(messages[j] + pull[chosen[0]], u[j]))
        s = spins[torch.stack(chosen, dim=-1)].to(self.coupling.dtype)  # (n, columns, rows)
        return s.mT.contiguous() if self.rows <= self.columns else s  # the shorter side is a column

    def gibbs(self, s: Tensor, sweeps: int, *, generator: Generator) -> Tensor:
        """`sweeps` times all black squares given the white ones, then all white ones given the black ones.

        Squares of one colour are not neighbours: given the others they are independent, P(s_i = 1 | rest) = sigma(2
        (beta (sum of the neighbours) + h)). Each half-step leaves p as it is, and so does the sweep.
        """
        if not (s.shape[1:] == (self.rows, self.columns) and (s.abs() == 1).all()):
            raise ValueError(f"s should be spins -1 or 1, (n, {self.rows}, {self.columns}), not {tuple(s.shape)}")
        row, column = torch.meshgrid(torch.arange(self.rows), torch.arange(self.columns), indexing="ij")
        black = ((row + column) % 2 == 0).to(s.device)
        for colour in (black, ~black) * as_count(sweeps, "sweeps", 0):
            local = self.coupling * _neighbours(s) + self.field  # (n, rows, columns)
            u = torch.rand(s.shape, generator=generator, dtype=torch.float64, device=s.device)
            fresh = torch.where(u < (2 * local.double()).sigmoid(), 1, -1).to(s.dtype)
            s = torch.where(colour, fresh, s)
        return s

    def mean(self) -> Tensor:
        """E s_i = d log Z / d h_i."""
        slope = torch.func.grad(lambda fields: self._log_partition(self.coupling.double(), fields))(self._fields())
        return slope.to(self.coupling.dtype)  # (rows, columns)

    def variance(self) -> Tensor:
        return 1 - self.mean().square()  # as s^2 = 1; (rows, columns)

    def covariance(self) -> Tensor:
        """Cov[s_i, s_j] = d^2 log Z / d h_i d h_j, row by row."""
        d = self.rows * self.columns
        curvature = torch.autograd.functional.hessian(
            lambda fields: self._log_partition(self.coupling.double(), fields), self._fields().detach()
        )
        return curvature.reshape(d, d).to(self.coupling.dtype)

    def entropy(self) -> Tensor:
        """H(s_last) + sum_j H(s_j | s_{j+1}) over the columns, from their laws as in `sample`: no large terms cancel.

        log Z + E[E(s)] is the same number, but the difference of two that grow with beta.
        """
        spins, messages = self._messages(self.coupling.double(), self._fields())
        pull = self.coupling.double() * spins @ spins.mT  # (2^r, 2^r)
        log_law = messages[-1].log_softmax(0)  # (2^r,)
        law = log_law.exp()
        entropy = -(law @ log_law)
        for message in reversed(messages[:-1]):
            log_given = (message[:, None] + pull).log_softmax(0)  # log p(s_j | s_{j+1})
            given = log_given.exp()
            entropy = entropy - (given * log_given).sum(0) @ law
            law = given @ law
        return entropy.to(self.coupling.dtype)  # ()

    def parameters(self) -> Tensor:
        return torch.stack([self.coupling, self.field])  # (2,)

    def with_parameters(self, theta: Tensor) -> "IsingGrid":
        """The same grid with coupling and field theta (2,); differentiable."""
        theta = checked_parameters(theta, 2)
        return IsingGrid(self.rows, self.columns, theta[0], theta[1])

    @classmethod
    def fit(cls, s: Tensor) -> "IsingGrid":
        """Maximum likelihood: the law whose mean agreement and mean sum are those of the draws (n, rows, columns).

        log Z is convex in (beta, h), so that -1/n log p has one minimum, at which L-BFGS arrives. If all draws agree to
        the utmost it lies at infinity, where the curvature vanishes: a ValueError.
        """
        if s.dim() != 3 or len(s) == 0 or not (s.abs() == 1).all():
            raise ValueError(f"draws to fit should be -1 or 1, of shape (n, rows, columns), not {tuple(s.shape)}")
        grid = cls(s.shape[1], s.shape[2], s.new_zeros((), dtype=torch.float64))
        target = torch.stack([statistic.mean() for statistic in grid._statistics(s.double())])  # (2,)

        def loss(theta: Tensor, rows: Tensor | slice) -> Tensor:
            return grid._log_partition(theta[0], theta[1].expand(s.shape[1:])) - theta @ target

        theta, losses = minimise(loss, torch.zeros_like(target))
        curvature = torch.autograd.functional.hessian(lambda t: loss(t, slice(None)), theta)
        if not torch.linalg.eigvalsh(curvature)[0] > 1e-5:  # a slope of 1e-7 may then hide steps of any size
            raise ValueError("these draws do not determine coupling and field, or place them at infinity; give more")
        fitted = cls(s.shape[1], s.shape[2], *(theta.to(s.dtype if s.is_floating_point() else torch.float32)))
        fitted.history = -len(s) * losses
        return fitted

    def to(self, *args, **kwargs) -> "IsingGrid":
        """The same law with its parameters on another device or in another dtype, as `Tensor.to`."""
        return IsingGrid(self.rows, self.columns, self.coupling.to(*args, **kwargs), self.field.to(*args, **kwargs))

    def _double(self) -> "IsingGrid":
        return self.to(torch.float64)

    def _fields(self) -> Tensor:
        return self.field.double().expand(self.rows, self.columns)

    def _statistics(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over neighbours of s_i s_j, and the sum of s_i; each (n,)."""
        if s.shape[1:] != (self.rows, self.columns) or s.dim() != 3:
            raise ValueError(f"draws should have shape (n, {self.rows}, {self.columns}), not {tuple(s.shape)}")
        s = s.to(torch.promote_types(s.dtype, self.coupling.dtype))
        down, across = s[:, 1:] * s[:, :-1], s[:, :, 1:] * s[:, :, :-1]
        return down.flatten(1).sum(-1) + across.flatten(1).sum(-1), s.flatten(1).sum(-1)

    def _messages(self, coupling: Tensor, fields: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The states (2^r, r) of a column, and m_j(s_j) = log of the sum over all columns before j, for each column j.

        m_1(s) = v_1(s),  m_{j+1}(s') = v_{j+1}(s') + log sum_s exp(m_j(s) + beta s . s'), v the energy within a column.
        """
        fields = fields if self.rows <= self.columns else fields.mT  # a column is the shorter side
        spins = _spins(len(fields), coupling.device)  # (2^r, r)
        within = coupling * (spins[:, 1:] * spins[:, :-1]).sum(-1)  # (2^r,)
        pull = coupling * spins @ spins.mT  # (2^r, 2^r)
        messages = [within + spins @ fields[:, 0]]
        for j in range(1, fields.shape[1]):
            messages.append(within + spins @ fields[:, j] + (messages[-1][:, None] + pull).logsumexp(0))
        return spins, messages

    def _log_partition(self, coupling: Tensor, fields: Tensor) -> Tensor:
        return self._messages(coupling, fields)[1][-1].logsumexp(0)


def _spins(d: int, device: torch.device) -> Tensor:
    """All vectors (2^d, d) of -1 and 1."""
    bits = torch.arange(2**d, device=device)[:, None] >> torch.arange(d - 1, -1, -1, device=device) & 1
    return 2 * bits.double() - 1


def _neighbours(s: Tensor) -> Tensor:
    """The sum of the neighbours of each spin (n, rows, columns); beyond the edge there is nothing."""
    around = torch.nn.functional.pad(s, (1, 1, 1, 1))
    return around[:, 2:, 1:-1] + around[:, :-2, 1:-1] + around[:, 1:-1, 2:] + around[:, 1:-1, :-2]


def _choose(log_weights: Tensor, u: Tensor) -> Tensor:
    """One state for each row of log-weights (n, states), where u (n,) falls among the cumulated weights."""
    ends = log_weights.softmax(-1).cumsum(-1)  # (n, states)
    return torch.searchsorted(ends, u[:, None] * ends[:, -1:], right=True)[:, 0]  # (n,)


# Ready-made models


def ising_3x3(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> IsingGrid:
    """3 x 3 spins with beta = 0.4 and no field: log Z = 7.2676527704, H = 5.0912936770."""
    return IsingGrid(3, 3, torch.tensor(0.4, dtype=dtype, device=device))


def ising_in_a_field(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> IsingGrid:
    """2 x 4 spins that disagree with their neighbours, beta = -0.5, in a field of 0.3."""
    return IsingGrid(2, 4, torch.tensor(-0.5, dtype=dtype, device=device), 0.3)
