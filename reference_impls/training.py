r"""Training by stochastic gradients: seeded, resumable, and the same whether it was interrupted or not.

    theta <- theta - eta_t m_t / (sqrt(v_t) + eps)      Adam, on the mean loss of a minibatch

What step t sees is a function of the seed and of t alone: the rows of its minibatch, from a permutation of the data
that each epoch makes anew, and the generator that the loss draws from. So a run that is killed goes on from its last
checkpoint as if nothing had been. A checkpoint holds tensors alone, says what run it is of, and is written whole or not
at all. What draws from the global generator instead, as `nn.Dropout` does, is seeded by nobody here.

Sources: Robbins & Monro 1951; Kingma & Ba 2015, https://arxiv.org/abs/1412.6980.
"""

import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

Loss = Callable[..., Tensor]
"""(*rows of the minibatch, generator=) -> the mean loss of it, a scalar."""

FORMAT = 1
MIXED = 0x9E3779B97F4A7C15
"""2^64 / golden ratio: consecutive multiples of it are far apart in all bits."""


@dataclass(frozen=True)
class Player:
    """Parameters, and the loss that they go down. A GAN has two, who move in turn."""

    parameters: Sequence[nn.Parameter]
    loss: Loss
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


def train(
    model: nn.Module,
    players: Loss | Sequence[Player],
    data: Tensor | Sequence[Tensor],
    *,
    steps: int,
    batch: int = 100,
    rate: float = 1e-3,
    decay: bool = True,
    clip: float | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = 500,
    progress: bool = False,
) -> Tensor:
    """The loss of the last player at every step, (steps,). `model` is changed in place and left in evaluation mode.

    `data` is one tensor, or several with as many rows, such as events and their labels. With `decay` the rate falls to
    0 by half a cosine; with `clip` gradients are scaled down to that norm. With a `checkpoint` the run goes on from
    that file where it exists, and writes it every so many steps and at the end. Raises FloatingPointError for a loss,
    or a step, that leads to what is no number; ValueError for data without rows or with fewer than a batch has, for
    rows that do not match, and for a checkpoint of another model or run.
    """
    tables = (data,) if isinstance(data, Tensor) else tuple(data)
    n = _rows(tables)
    if steps < 0 or batch < 1 or every < 1:
        raise ValueError(f"steps = {steps} must not be negative; batch = {batch} and every = {every} must be positive")
    if batch > n:
        raise ValueError(f"batch = {batch} is more than the {n} rows of the data: make it {n} or less")
    moves = [Player(list(model.parameters()), players, rate)] if callable(players) else list(players)
    optimisers = _optimisers(moves)
    history = torch.full((steps,), math.nan, dtype=torch.float64)
    run = {} if checkpoint is None else _description(tables, moves, steps, batch, decay, clip, seed)
    began = _resumed(checkpoint, model, optimisers, history, run)
    shown = _Progress(steps, progress)
    model.train()
    for step in range(began, steps):
        rows = [table[_minibatch(n, batch, seed, step)] for table in tables]
        factor = (1 + math.cos(math.pi * step / steps)) / 2 if decay else 1.0
        for i, (move, optimiser) in enumerate(zip(moves, optimisers, strict=True)):
            source = Generator(rows[0].device).manual_seed(_seed(seed, step, 2 + i))
            value = _checked(move.loss(*rows, generator=source), step, move.rate)
            for group in optimiser.param_groups:
                group["lr"] = move.rate * factor
            optimiser.zero_grad(set_to_none=True)
            value.backward(inputs=list(move.parameters))
            if clip is not None:
                nn.utils.clip_grad_norm_(move.parameters, clip)
            optimiser.step()
        history[step] = value.detach()
        shown.at(step + 1, history)
        if checkpoint is not None and ((step + 1) % every == 0 or step + 1 == steps):
            _still_numbers(model, step)
            save(checkpoint, {**_state(model, optimisers), **run, "step": torch.tensor(step + 1), "history": history})
    _still_numbers(model, steps - 1)
    model.eval()
    return history


def _checked(value: Tensor, step: int, rate: float) -> Tensor:
    """A loss that can be gone down."""
    if value.dim() != 0 or not value.requires_grad:
        graph = "with" if value.requires_grad else "without"
        raise ValueError(
            f"the loss should be a scalar with a graph, the mean of a minibatch: it is {tuple(value.shape)} {graph} one"
        )
    if not bool(value.isfinite()):
        raise FloatingPointError(
            f"the loss is {float(value.detach())} at step {step}: lower the rate ({rate}), or clip gradients"
        )
    return value


def _still_numbers(model: nn.Module, step: int) -> None:
    """A finite loss can have a gradient that is not; it must not reach a checkpoint, nor the caller."""
    for name, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise FloatingPointError(f"{name} is no longer finite after step {step}: lower the rate, or clip gradients")


def _optimisers(moves: Sequence[Player]) -> list[torch.optim.Optimizer]:
    """An optimiser for each player. One who moves several times a step has the same one each time."""
    made: dict[tuple[int, ...], torch.optim.Optimizer] = {}
    keys = [tuple(map(id, move.parameters)) for move in moves]
    for key, move in zip(keys, moves, strict=True):
        if key not in made:
            made[key] = torch.optim.Adam(move.parameters, lr=move.rate, betas=move.betas)
    return [made[key] for key in keys]


def _rows(tables: Sequence[Tensor]) -> int:
    lengths = {len(table) for table in tables}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"data must be tensors of equally many rows, at least one; they have {sorted(lengths)}")
    return lengths.pop()


def _minibatch(n: int, batch: int, seed: int, step: int) -> Tensor:
    """Row numbers of step t: its part of this epoch's permutation; an epoch drops what is too short for a batch."""
    epoch, place = divmod(step, n // batch)
    return _permutation(n, seed, epoch)[place * batch : (place + 1) * batch]


@lru_cache(maxsize=1)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    """(n,): the order of the rows in an epoch, which all of its steps share."""
    return torch.randperm(n, generator=Generator().manual_seed(_seed(seed, epoch, 1)))


def _seed(seed: int, count: int, purpose: int) -> int:
    return (seed * MIXED + count * 0xBF58476D1CE4E5B9 + purpose * 0x94D049BB133111EB) % 2**63


class _Progress:
    """One line on standard error, drawn over at most five times a second."""

    def __init__(self, steps: int, wanted: bool):
        self.steps, self.wanted, self.began, self.last = steps, wanted, time.perf_counter(), -math.inf

    def at(self, step: int, history: Tensor) -> None:
        now = time.perf_counter()
        if not self.wanted or (now - self.last < 0.2 and step < self.steps):
            return
        self.last = now
        done = round(30 * step / self.steps)
        mean = float(history[max(0, step - 100) : step].nanmean())
        left = (now - self.began) / step * (self.steps - step)
        line = f"\r[{'#' * done}{'.' * (30 - done)}] {step}/{self.steps}  loss {mean:.4f}  {left:.0f} s left "
        print(line, end="\n" if step == self.steps else "", file=sys.stderr, flush=True)


# Checkpoints: tensors alone, by name


def save(path: str | Path, tensors: dict[str, Tensor]) -> None:
    """Written beside, then moved into place: a reader sees the old file or the new one, never half of one."""
    path = Path(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        torch.save({"format": torch.tensor(FORMAT), **{k: v.detach().cpu() for k, v in tensors.items()}}, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file that `save` wrote. Raises ValueError, which names the file, for any other."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        assert int(tensors.pop("format")) == FORMAT
        return tensors
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint of this version, or is damaged: {type(error).__name__}") from error


def save_model(path: str | Path, model: nn.Module) -> None:
    """Parameters and buffers."""
    save(path, {f"model.{name}": value for name, value in model.state_dict().items()})


def load_model(path: str | Path, model: nn.Module) -> None:
    """Puts the file's parameters into the model. Raises ValueError for those of another architecture."""
    found = {name.removeprefix("model."): v for name, v in load(path).items() if name.startswith("model.")}
    _fitting(path, model, found)
    model.load_state_dict(found)


def _fitting(path: str | Path, model: nn.Module, found: dict[str, Tensor]) -> None:
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in found.items()}
    differing = [name for name in {**own, **theirs} if own.get(name) != theirs.get(name)]
    if differing:
        name = differing[0]
        raise ValueError(
            f"{path} is a checkpoint of another architecture: {name} is {theirs.get(name, 'not in it')}, "
            f"and {own.get(name, 'not in the model')} is wanted; delete the file, or build the model as it was"
        )


def _state(model: nn.Module, optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    for i, optimiser in enumerate(optimisers):
        for j, moments in optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{i}.{j}.{name}": value for name, value in moments.items()}
    return state


def _description(
    tables: Sequence[Tensor],
    moves: Sequence[Player],
    steps: int,
    batch: int,
    decay: bool,
    clip: float | None,
    seed: int,
) -> dict[str, Tensor]:
    """What makes a run this run, beside the architecture: a number a name, and the digest of the data."""
    digest = hashlib.sha256()
    for table in tables:
        digest.update(f"{table.dtype} {tuple(table.shape)}".encode())
        digest.update(table.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return {
        "run.steps": torch.tensor(steps),
        "run.batch": torch.tensor(batch),
        "run.decay": torch.tensor(decay),
        "run.clip": torch.tensor(math.inf if clip is None else clip, dtype=torch.float64),
        "run.rate": torch.tensor([move.rate for move in moves], dtype=torch.float64),
        "run.betas": torch.tensor([move.betas for move in moves], dtype=torch.float64),
        "run.seed": torch.tensor(seed % 2**63),
        "run.data": torch.tensor(list(digest.digest()), dtype=torch.uint8),
    }


def _resumed(
    path: str | Path | None,
    model: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    history: Tensor,
    run: dict[str, Tensor],
) -> int:
    """The step to begin with, with everything put back as it was then."""
    if path is None:
        return 0
    if not Path(path).exists():
        if not Path(path).resolve().parent.is_dir():
            raise ValueError(f"{path} cannot be written: make the folder {Path(path).parent} first")
        return 0
    found = load(path)
    if not {"step", "history"} <= found.keys():
        raise ValueError(f"{path} has no run to go on with, only parameters: name another file, or use load_model")
    state = {k.removeprefix("model."): v for k, v in found.items() if k.startswith("model.")}
    _fitting(path, model, state)
    for name, value in run.items():
        if name not in found or not torch.equal(found[name], value):
            what = name.removeprefix("run.")
            raise ValueError(f"{path} is of a run with other {what}: delete the file, or ask for the same {what}")
    model.load_state_dict(state)
    for i, optimiser in enumerate(optimisers):
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in found.items():
            if key.startswith(f"optimiser.{i}."):
                _, _, j, name = key.split(".", 3)
                moments.setdefault(int(j), {})[name] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    history.copy_(found["history"])
    return int(found["step"])
