"""Bijections that do not undo each other, or stretch otherwise than they say; and right ones that look odd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.model import Model
from harness.mutants.energy import edited
from harness.mutants.mutant import Change, Mutant, NearMiss, answering
from harness.mutants.structure import nothing


class Normal:
    """N(shift, spread^2) in each of d coordinates."""

    def __init__(self, d: int, dtype: torch.dtype, shift: float = 0.0, spread: float = 1.0):
        self.d, self.dtype, self.shift, self.spread = d, dtype, shift, spread

    def log_prob(self, z: Tensor) -> Tensor:
        e = (z - self.shift) / self.spread
        return -e.square().sum(1) / 2 - self.d * (math.log(2 * math.pi) / 2 + math.log(self.spread))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.shift + self.spread * torch.randn(n, self.d, generator=generator, dtype=self.dtype)


class Pushed:
    """x = a y_order + b, where y_1 = z_1 and y_i = exp(s_i) z_i + t_i with s_i and t_i of z_{i-1}: two layers."""

    def __init__(self, scale: Tensor, shift: Tensor, order: Sequence[int]):
        self.scale, self.shift, self.order = scale, shift, list(order)  # a (d,), b (d,)

    def knobs(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """s and t, (n, d), of which the first column is 0."""
        before = torch.cat([torch.zeros_like(z[:, :1]), z[:, :-1]], 1)
        return torch.tanh(before) / 2, torch.sin(before)

    def forward(self, z: Tensor) -> Tensor:
        s, t = self.knobs(z)
        return self.scale * (s.exp() * z + t)[:, self.order] + self.shift

    def inverse(self, x: Tensor) -> Tensor:
        return self.solved(self.undone(x), x.shape[1])

    def undone(self, x: Tensor) -> Tensor:
        """y."""
        return ((x - self.shift) / self.scale)[:, torch.tensor(self.order).argsort()]

    def solved(self, y: Tensor, passes: int) -> Tensor:
        """z, of which each pass makes one more coordinate right."""
        z = torch.zeros_like(y)
        for _ in range(passes):
            s, t = self.knobs(z)
            z = (y - t) * (-s).exp()
        return z

    def log_det(self, z: Tensor) -> Tensor:
        return self.knobs(z)[0].sum(1) + self.scale.abs().log().sum()

    def base(self) -> Normal:
        return Normal(len(self.scale), self.scale.dtype)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.forward(Pushed.base(self).sample(n, generator=generator))

    def log_prob(self, x: Tensor) -> Tensor:
        z = Pushed.inverse(self, x)
        return Normal(x.shape[1], x.dtype).log_prob(z) - Pushed.log_det(self, z)


class Ordered(Pushed):
    """The same without a permutation, so that it is triangular."""

    def ordering(self) -> list[int]:
        return list(range(len(self.scale)))


class Fold:
    """x = z + u tanh(z_1) in two dimensions, with u_1 close to -1: the slope at 0 is nearly none. Solved by halving."""

    def __init__(self, least: float = 1e-2):
        self.bend = torch.tensor([least - 1, 0.7])

    def forward(self, z: Tensor) -> Tensor:
        return z + self.bend * torch.tanh(z[:, :1])

    def inverse(self, x: Tensor) -> Tensor:
        low, high, along = x[:, 0] - 1, x[:, 0] + 1, self.bend[0]
        with torch.no_grad():
            for _ in range(60):
                middle = (low + high) / 2
                above = middle + along * torch.tanh(middle) > x[:, 0]
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        root = (low + high).detach() / 2
        level = torch.tanh(root)
        root = root - (root + along * level - x[:, 0]) / (1 + along * (1 - level.square()))
        return x - self.bend * torch.tanh(root)[:, None]

    def log_det(self, z: Tensor) -> Tensor:
        return torch.log1p(self.bend[0] * (1 - torch.tanh(z[:, 0]).square()))

    def base(self) -> Normal:
        return Normal(2, self.bend.dtype)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.forward(self.base().sample(n, generator=generator))

    def log_prob(self, x: Tensor) -> Tensor:
        z = self.inverse(x)
        return self.base().log_prob(z) - self.log_det(z)


class Graphless:
    """x = sinh z in three dimensions, in the dtype it is asked in: no tensor to cast, no graph, and no base."""

    def forward(self, z: Tensor) -> Tensor:
        return z.detach().sinh()

    def inverse(self, x: Tensor) -> Tensor:
        return x.detach().asinh()

    def log_det(self, z: Tensor) -> Tensor:
        return z.detach().cosh().log().sum(1)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 3, generator=generator).sinh()


class Pictures(Pushed):
    """Four coordinates as an event of shape (1, 2, 2)."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z.flatten(1)).reshape(z.shape)

    def inverse(self, x: Tensor) -> Tensor:
        return super().inverse(x.flatten(1)).reshape(x.shape)

    def log_det(self, z: Tensor) -> Tensor:
        return super().log_det(z.flatten(1))

    def base(self) -> Any:
        law = super().base()
        draw = lambda n, *, generator: law.sample(n, generator=generator).reshape(n, 1, 2, 2)  # noqa: E731
        return type("Base", (), {"sample": staticmethod(draw), "log_prob": lambda _, z: law.log_prob(z.flatten(1))})()

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return super().forward(super().base().sample(n, generator=generator)).reshape(n, 1, 2, 2)

    def log_prob(self, x: Tensor) -> Tensor:
        return Pushed(self.scale, self.shift, self.order).log_prob(x.flatten(1))


class OneWay:
    """x = z + u tanh(w z + b) in three dimensions, a planar layer: no way back is known."""

    w, u, b = torch.tensor([1.0, -0.5, 0.7]), torch.tensor([0.8, 0.4, -0.3]), 0.2

    def forward(self, z: Tensor) -> Tensor:
        return z + self.u.to(z) * torch.tanh(z @ self.w.to(z) + self.b)[:, None]

    def log_det(self, z: Tensor) -> Tensor:
        slope = 1 - torch.tanh(z @ self.w.to(z) + self.b).square()
        return torch.log1p(slope * (self.u @ self.w).to(z))

    def base(self) -> Normal:
        return Normal(3, torch.float32)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.forward(Normal(3, torch.float32).sample(n, generator=generator))


def pushed(
    d: int, kind: type[Pushed] = Pushed, dtype: torch.dtype = torch.float32, spread: float = 2.0
) -> Callable[[], Pushed]:
    """Scales from 1 / spread to spread, of both signs; the order is rotated by one, or is none."""

    def build() -> Pushed:
        exponents = torch.linspace(-1, 1, d, dtype=torch.float64) if d > 1 else torch.ones(1, dtype=torch.float64)
        signs = 1 - 2 * (torch.arange(d) % 2)
        order = list(range(d)) if kind is Ordered else [*range(1, d), 0]
        scale = (signs * spread**exponents).to(dtype)
        return kind(scale, torch.linspace(0, 3, d, dtype=dtype), order)

    return build


def _not_inverted(law: Pushed, x: Tensor) -> Tensor:
    """The permutation once more, in place of its inverse."""
    return law.solved(((x - law.shift) / law.scale)[:, law.order], x.shape[1])


def _not_exponentiated(law: Pushed, x: Tensor) -> Tensor:
    """1 + s for exp(s)."""
    y = law.undone(x)
    z = torch.zeros_like(y)
    for _ in range(x.shape[1]):
        s, t = law.knobs(z)
        z = (y - t) / (1 + s)
    return z


def _to_two_digits(law: Pushed, x: Tensor) -> Tensor:
    """A root that is looked for in steps of a hundredth."""
    return (law.inverse(x) * 100).round() / 100


def _halves(law: Fold, x: Tensor, steps: int = 8) -> Tensor:
    """Eight halvings."""
    low, high, along = x[:, 0] - 1, x[:, 0] + 1, law.bend[0]
    for _ in range(steps):
        middle = (low + high) / 2
        above = middle + along * torch.tanh(middle) > x[:, 0]
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return x - law.bend * torch.tanh((low + high) / 2)[:, None]


def _size_of_matrix(law: Pushed, z: Tensor) -> Tensor:
    """log of the sum of |J_ij| for |det J|: E15."""
    j = torch.autograd.functional.jacobian(lambda z: law.forward(z).sum(0), z)  # (d, n, d)
    return j.abs().sum((0, 2)).log()


def _root_without_graph(law: Pushed, x: Tensor) -> Tensor:
    """The root is found without a graph, and only the last layer hands derivatives on."""
    y = law.undone(x)
    return law.solved(y.detach(), x.shape[1]) + y - y.detach()


def _leaking(law: Pushed, z: Tensor) -> Tensor:
    """The first coordinate sees a little of the last."""
    x = law.forward(z)
    return torch.cat([x[:, :1] + 0.001 * z[:, -1:], x[:, 1:]], 1)


def _log_prob_with(edit: Callable[[Pushed, Tensor, Tensor], Tensor]) -> Change:
    """The change of log_prob to edit(law, x, z)."""
    return answering(log_prob=lambda law, x: edit(law, x, law.inverse(x)))


def _base_of(law: Pushed, **other: float) -> Normal:
    return Normal(len(law.scale), law.scale.dtype, **other)


def _by_random_vectors(seed: int | None) -> Change:
    """log_det that differs by a hundredth of random signs, of a stream that goes on or starts again at every call."""
    source = torch.Generator().manual_seed(0)

    def change(model: Model) -> dict[str, Callable[..., Tensor]]:
        def log_det(z: Tensor) -> Tensor:
            stream = source if seed is None else torch.Generator().manual_seed(seed)
            signs = torch.randint(2, (len(z),), generator=stream) * 2 - 1
            return model.log_det(z) + 0.01 * signs

        return {"log_det": log_det}

    return change


def _dropping_out(model: Model) -> dict[str, Callable[..., Tensor]]:
    """One coordinate in ten is set to 0."""
    source = torch.Generator().manual_seed(0)
    return {"forward": lambda z: model.forward(z * (torch.rand(z.shape, generator=source) > 0.1))}


def _rows_as_one(model: Model) -> dict[str, Callable[..., Tensor]]:
    """log_det summed over the batch."""
    return {"log_det": lambda z: model.log_det(z).sum()}


FUNCTION = "bijection.deterministic"
BACK, FORTH = "bijection.inverse_undoes_forward", "bijection.forward_undoes_inverse"
JACOBIAN, SQUEEZED = "bijection.log_det_is_jacobian", "bijection.log_det_of_inverse"
TRIANGLE, CHANGE, DRAWN = "bijection.triangular", "bijection.change_of_variables", "bijection.draws_are_pushed_forward"

_turned = answering(inverse=_not_inverted)
_unexponentiated = answering(inverse=_not_exponentiated)
_coarse = answering(inverse=_to_two_digits)
_sign = edited("log_det", lambda value: -value)

MUTANTS: tuple[Mutant, ...] = (
    Mutant("random_vectors", "a trace that is estimated", FUNCTION, pushed(3), _by_random_vectors(None)),
    Mutant("dropout", "left on in forward", FUNCTION, pushed(3), _dropping_out),
    Mutant("random_vectors_one_way", "and no inverse", FUNCTION, OneWay, _by_random_vectors(None)),
    Mutant("permutation_not_inverted", "the permutation for its inverse", BACK, pushed(3), _turned),
    Mutant("not_exponentiated", "1 + s for exp(s)", BACK, pushed(4), _unexponentiated),
    Mutant("to_two_digits", "a root in steps of 0.01", BACK, pushed(3), _coarse),
    Mutant("to_three_digits", "a root that is 0.001 off", BACK, pushed(3), edited("inverse", lambda z: z + 1e-3)),
    Mutant("five_passes", "5 of 6", BACK, pushed(6), answering(inverse=lambda law, x: law.solved(law.undone(x), 5))),
    Mutant("eight_halvings", "a root to 1 / 128", BACK, Fold, answering(inverse=_halves)),
    Mutant("a_number", "no event", BACK, pushed(3), edited("inverse", lambda z: z.sum(1)), error=True),
    Mutant("permutation_not_inverted", "the permutation for its inverse", FORTH, pushed(3), _turned),
    Mutant("not_exponentiated", "1 + s for exp(s)", FORTH, pushed(4), _unexponentiated),
    Mutant("to_two_digits", "a root in steps of 0.01", FORTH, pushed(3), _coarse),
    Mutant("one_branch", "|z_1| for z_1", FORTH, pushed(2), edited("inverse", lambda z: z.abs())),
    Mutant("sign", "-log |det J|", JACOBIAN, pushed(3), _sign),
    Mutant("one_percent", "1 % more", JACOBIAN, pushed(3), edited("log_det", lambda value: 1.01 * value)),
    Mutant("one_way", "1 % more, and no inverse", JACOBIAN, OneWay, edited("log_det", lambda value: 1.01 * value)),
    Mutant(
        "layer_forgotten", "the scale alone", JACOBIAN, pushed(3, spread=1.5),
        answering(log_det=lambda law, z: law.scale.abs().log().sum().expand(len(z))),
    ),
    Mutant(
        "other_layer_forgotten", "without the scale", JACOBIAN, pushed(2, spread=1.05),
        answering(log_det=lambda law, z: law.knobs(z)[0].sum(1) + 0.01),
    ),
    Mutant("matrix", "sum |J_ij| for |det J|", JACOBIAN, pushed(2), answering(log_det=_size_of_matrix), erratum="E15"),
    Mutant("of_x", "log_det at x", JACOBIAN, pushed(3), answering(log_det=lambda law, z: law.log_det(law.forward(z)))),
    Mutant("of_the_batch", "a sum over rows", JACOBIAN, pushed(3), _rows_as_one, error=True),
    Mutant("sign", "-log |det J|", SQUEEZED, pushed(3), _sign),
    Mutant("root_without_graph", "half a graph", SQUEEZED, pushed(3), answering(inverse=_root_without_graph)),
    Mutant("leak", "x_1 sees z_d", TRIANGLE, pushed(4, Ordered), answering(forward=_leaking)),
    Mutant("reversed", "the order the other way", TRIANGLE, pushed(3, Ordered), edited("ordering", lambda o: o[::-1])),
    Mutant("repeated", "0, 0, 1", TRIANGLE, pushed(3, Ordered), edited("ordering", lambda o: [0, 0, 1]), error=True),
    Mutant(
        "added", "+ log_det", CHANGE, pushed(3),
        _log_prob_with(lambda law, x, z: _base_of(law).log_prob(z) + law.log_det(z)),
    ),
    Mutant("forgotten", "no log_det", CHANGE, pushed(3), _log_prob_with(lambda law, x, z: _base_of(law).log_prob(z))),
    Mutant(
        "of_x", "log_det taken at x", CHANGE, pushed(3),
        _log_prob_with(lambda law, x, z: _base_of(law).log_prob(z) - law.log_det(x)),
    ),
    Mutant("base_shifted", "N(0.05, I)", CHANGE, pushed(3), answering(base=lambda law: _base_of(law, shift=0.05))),
    Mutant("base_shifted", "N(0.1, I)", DRAWN, pushed(3), answering(base=lambda law: _base_of(law, shift=0.1))),
    Mutant("base_wider", "N(0, 1.21 I)", DRAWN, pushed(4), answering(base=lambda law: _base_of(law, spread=1.1))),
    Mutant("one_way", "N(0.1, I), and no inverse", DRAWN, OneWay,
           answering(base=lambda law: Normal(3, torch.float32, shift=0.1))),
    Mutant("draws_of_z", "the base's draws, unmapped", DRAWN, pushed(2),
           lambda model: {"sample": lambda n, *, generator: model.base().sample(n, generator=generator)}),
)  # fmt: skip

_ILL, _FINE = pushed(3, spread=100.0), pushed(16, Ordered, torch.float64)

NEAR_MISSES: tuple[NearMiss, ...] = (
    NearMiss("same_vectors", "the same at every call", FUNCTION, pushed(3), _by_random_vectors(1)),
    *(NearMiss("one_way", "no inverse is known", check, OneWay, nothing) for check in (FUNCTION, JACOBIAN, DRAWN)),
    *(
        NearMiss("ill_conditioned", "scales from 1/100 to 100", check, _ILL, nothing)
        for check in (BACK, FORTH, JACOBIAN, SQUEEZED, CHANGE, DRAWN)
    ),
    *(
        NearMiss("sixteen", "16 dimensions in float64", check, _FINE, nothing)
        for check in (BACK, FORTH, JACOBIAN, SQUEEZED, TRIANGLE, CHANGE, DRAWN)
    ),
    *(
        NearMiss("folded", "a slope of 1/100, and a root by halving", check, Fold, nothing)
        for check in (BACK, FORTH, JACOBIAN, SQUEEZED, CHANGE, DRAWN)
    ),
    *(
        NearMiss("graphless", "no graph, no base, nothing to cast", check, Graphless, nothing)
        for check in (BACK, FORTH, JACOBIAN, SQUEEZED)
    ),
    *(
        NearMiss("pictures", "events of shape (1, 2, 2)", check, pushed(4, Pictures), nothing)
        for check in (BACK, FORTH, JACOBIAN, SQUEEZED, CHANGE, DRAWN)
    ),
    NearMiss("half_precision", "a root in float16", BACK, pushed(3), edited("inverse", lambda z: z.half().to(z.dtype))),
    NearMiss("solved", "four digits of a root", BACK, pushed(3), edited("inverse", lambda z: z + 1e-4)),
    NearMiss(
        "by_residual",
        "a root of which x is right to 2e-5, where the slope is 1/100",
        BACK,
        Fold,
        answering(inverse=lambda law, x: law.inverse(x + 2e-5)),
    ),
    NearMiss("ordered", "an order of its own", TRIANGLE, pushed(5, Ordered), nothing),
)
